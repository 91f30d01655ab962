//! The issuer at work: one connection to the gateway, one question after another.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lianxin_connection::{
    Answer, CallError, ConnectError, Connection, PendingRenewal, ReasonCode, RenewalOutcome, Target, TlsIdentity,
};
use lianxin_trust::{BundleError, Federation, FederationError, RenewalRequest, RootKeys, RootKeysError, verify_bundle};
use lianxin_types::{Clock, Random};
use thiserror::Error;

use crate::authority::{AuthorityError, LocalAuthority};
use crate::config::Config;
use crate::desk::{Desk, Devices, DevicesError};

/// First and longest wait before the gateway is tried again.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Why an issuer cannot work, at its start or now.
#[derive(Debug, Error)]
pub enum RunError {
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The pinned root keys are none.
    #[error("use the pinned root keys")]
    Roots(#[source] RootKeysError),
    /// The trust bundle does not verify.
    #[error("verify the trust bundle")]
    Bundle(#[source] BundleError),
    /// Bundle and revocation lists make no federation.
    #[error("use the trust bundle and its revocation lists")]
    Federation(#[source] FederationError),
    /// The bundle or a revocation list is past its end: who has been revoked since is not known, so nothing is issued.
    #[error("go by a trust bundle and revocation lists that have ended: replace the files")]
    Stale,
    /// A revocation list of the own department must be there, or a revoked device would be renewed.
    #[error("find the department's own revocation list among those of the configuration")]
    NoRevocationList,
    /// The bundle does not list the zone, or no endpoint of it.
    #[error("find an endpoint of the zone in the trust bundle")]
    NoEndpoint,
    /// The list of devices cannot be used.
    #[error("use the list of devices")]
    Devices(#[source] DevicesError),
    /// The authority's key or certificate cannot be used.
    #[error("use the authority")]
    Authority(#[source] AuthorityError),
    /// The connection's certificate or key cannot be used, or there is no connection.
    #[error("connect to the gateway")]
    Connect(#[source] ConnectError),
    /// The gateway did not answer, or refused.
    #[error("ask the gateway")]
    Call(#[source] CallError),
}

/// Answers what devices ask for until it is dropped; at any moment it may be. What keeps it from working is logged, and tried
/// again after a pause.
///
/// # Errors
/// [`RunError`] if a file cannot be used at the start; later nothing but being dropped ends it.
pub async fn run(config: Config, clock: Arc<dyn Clock>, random: Box<dyn Random>) -> Result<(), RunError> {
    let files = Files::read(&config, &*clock)?;
    let (certificate, key) = (text(&config.authority_certificate)?, text(&config.authority_key)?);
    let authority = LocalAuthority::from_pem(&certificate, &key, random).map_err(RunError::Authority)?;
    let mut desk = Desk::new(config.department.clone(), files.devices, authority, config.lifetime);
    let mut pause = PAUSE_MIN;
    loop {
        let mut has_worked = false;
        if let Err(error) = session(&config, &clock, &mut desk, &mut has_worked).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "not at work");
        }
        pause = if has_worked { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
        clock.sleep(pause).await;
    }
}

/// One connection, until it breaks.
async fn session(
    config: &Config,
    clock: &Arc<dyn Clock>,
    desk: &mut Desk<LocalAuthority>,
    has_worked: &mut bool,
) -> Result<(), RunError> {
    let mut files = Files::read(config, &**clock)?;
    let zone = files.federation.bundle().bundle.zone(&config.zone).ok_or(RunError::NoEndpoint)?;
    let address = config.endpoint.as_ref().or(zone.endpoints.first()).ok_or(RunError::NoEndpoint)?.clone();
    let target = Target { zone: config.zone.clone(), operator: zone.department.clone(), address };
    let identity = TlsIdentity::from_pem(&bytes(&config.certificate)?, &bytes(&config.key)?);
    let identity = identity.map_err(RunError::Connect)?;
    let federation = Arc::new(files.federation);
    let connected = Connection::connect(&target, &identity, federation, Arc::clone(clock), CLIENT).await;
    let (connection, _) = connected.map_err(RunError::Connect)?;
    tracing::info!(department = %config.department, "at work");
    loop {
        let pending = connection.pending_renewals().await.map_err(RunError::Call)?;
        *has_worked = true;
        // What has been revoked or struck off the list counts for the very next answer.
        files = Files::read(config, &**clock)?;
        desk.set_devices(files.devices);
        for one in pending.renewals {
            answer(&connection, desk, &files.federation, &**clock, one).await?;
        }
    }
}

async fn answer(
    connection: &Connection,
    desk: &mut Desk<LocalAuthority>,
    federation: &Federation,
    clock: &dyn Clock,
    pending: PendingRenewal,
) -> Result<(), RunError> {
    let asked = pending.request;
    let request = RenewalRequest {
        id: asked.id,
        tls_request: asked.tls_request.into(),
        mls_certificate: asked.mls_certificate.into(),
        signature: asked.signature,
    };
    let outcome = match desk.decide(&request, federation, clock.now()) {
        Ok(outcome) => outcome,
        // Not the device's fault: it asks again. The next one may be of another kind.
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the authority issues nothing");
            return Ok(());
        }
    };
    let said = match &outcome {
        RenewalOutcome::Issued(_) => "issued",
        RenewalOutcome::Refused(reason) => reason.word(),
    };
    // The gateway chose the name; the answer goes to the request that was judged.
    let name = request.digest();
    match connection.answer_renewal(Answer { name, outcome }).await {
        Ok(_) => tracing::info!(renewal = name.to_hex(), said, "answered"),
        Err(CallError::Refused(problem)) if problem.code == ReasonCode::UnknownRenewal => {
            tracing::info!(renewal = name.to_hex(), said, "answered too late");
        }
        Err(CallError::Refused(problem)) if !problem.try_again => {
            tracing::error!(renewal = name.to_hex(), said, refused = ?problem.code, "the gateway does not take the answer");
        }
        Err(error) => return Err(RunError::Call(error)),
    }
    Ok(())
}

/// What may change while the issuer runs.
struct Files {
    federation: Federation,
    devices: Devices,
}

impl Files {
    fn read(config: &Config, clock: &dyn Clock) -> Result<Self, RunError> {
        let roots = RootKeys::from_json(&text(&config.roots)?).map_err(RunError::Roots)?;
        let bundle = verify_bundle(&roots, &bytes(&config.bundle)?).map_err(RunError::Bundle)?;
        let lists = config.revocation_lists.iter().map(|path| bytes(path)).collect::<Result<_, _>>()?;
        let federation = Federation::new(bundle, lists).map_err(RunError::Federation)?;
        if federation.is_stale(clock.now()) {
            return Err(RunError::Stale);
        }
        if federation.revocation_list_views().all(|list| *list.department != config.department) {
            return Err(RunError::NoRevocationList);
        }
        let devices = Devices::parse(&text(&config.devices)?, &config.department).map_err(RunError::Devices)?;
        Ok(Self { federation, devices })
    }
}

fn text(path: &Path) -> Result<String, RunError> {
    std::fs::read_to_string(path).map_err(|source| RunError::Read { path: path.to_owned(), source })
}

fn bytes(path: &Path) -> Result<Vec<u8>, RunError> {
    std::fs::read(path).map_err(|source| RunError::Read { path: path.to_owned(), source })
}

const CLIENT: &str = concat!("lianxin-issuer/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::time::Duration;

    use lianxin_certs_dev::{FederationPlan, mint};
    use lianxin_types::{Monotonic, SystemClock, Timestamp};

    use super::*;

    /// The system's clock, so much later.
    #[derive(Debug)]
    struct Later(Duration);

    impl Clock for Later {
        fn now(&self) -> Timestamp {
            SystemClock.now().plus(self.0)
        }

        fn monotonic(&self) -> Monotonic {
            SystemClock.monotonic()
        }

        fn sleep_until(&self, deadline: Monotonic) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            SystemClock.sleep_until(deadline)
        }
    }

    #[test]
    fn who_cannot_know_what_is_revoked_issues_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let minted = mint(&FederationPlan::default(), &folder.path().join("federation"), &SystemClock).expect("mints");
        let place = minted.folder().join("issuer.toml");
        std::fs::write(&place, include_str!("../config.sample.toml")).expect("written");
        std::fs::write(minted.folder().join("devices.txt"), "").expect("written");
        let config = Config::read(&place).expect("the sample");
        Files::read(&config, &SystemClock).map(drop).expect("all is there and in time");
        let late = Files::read(&config, &Later(Duration::from_secs(400 * 24 * 3600))).err();
        assert!(matches!(late, Some(RunError::Stale)), "{late:?}");
        let lists = config.revocation_lists.iter().filter(|path| !path.to_string_lossy().contains("shenji"));
        let without = Config { revocation_lists: lists.cloned().collect(), ..config.clone() };
        let refused = Files::read(&without, &SystemClock).err();
        assert!(matches!(refused, Some(RunError::NoRevocationList)), "{refused:?}");
    }
}
