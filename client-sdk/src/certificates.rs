//! The device's certificates are renewed in time (PROTOCOL 1). In the last third of their life the SDK makes a new TLS key, keeps
//! it with the request for its certificate, and asks over the connection that there is, again and again, with the same key, until
//! its department's issuer has answered. What comes is verified as nobody's word, kept, and used from the next connection on,
//! which is opened at once. Every step is one transaction: whatever ends in between, the device has its old certificates or its
//! new ones.

use std::time::Duration;

use lianxin_connection::{CallError, Connection, Issued, NewTlsKey, ReasonCode, Renew};
use lianxin_trust::{Federation, RenewalError};
use lianxin_types::{DeviceUri, LIMITS, Monotonic, Timestamp, labelled_sha256};
use thiserror::Error;

use crate::error::chain;
use crate::event::keep;
use crate::identity::{self, Life, Next, Present};
use crate::shared::{Link, News, Shared, Task};
use crate::{ClientError, ConnectError, Event};

/// How often the certificates are looked at.
const CHECK: Duration = Duration::from_secs(60);
/// Between two requests of a device without an answer: from the first to the second, doubling.
const DELAY_MIN: Duration = Duration::from_secs(15);
const DELAY_MAX: Duration = Duration::from_secs(3600);
const DELAY_DOUBLINGS_MAX: u32 = 8;
/// A client that was just opened renews before it complains.
const PATIENCE: Duration = Duration::from_secs(120);
/// The last telling: it is over.
const OVER: u8 = 4;

/// Why there are no next certificates yet.
#[derive(Debug, Error)]
enum NotRenewed {
    #[error("get the next certificates")]
    Call(#[from] CallError),
    #[error("verify the next certificates")]
    Unsound(#[from] RenewalError),
    #[error("use the next TLS certificate")]
    Tls(#[from] ConnectError),
    #[error("the next certificates end no later than the present ones")]
    NoLater,
    #[error("{0}")]
    State(Box<ClientError>),
}

impl From<ClientError> for NotRenewed {
    fn from(error: ClientError) -> Self {
        Self::State(Box::new(error))
    }
}

/// What is remembered between two looks.
struct Care {
    opened: Monotonic,
    attempts: u32,
    next_attempt: Monotonic,
    /// Why the last attempt came to nothing.
    last: Option<String>,
}

/// Looks after the certificates as long as it runs.
pub(crate) async fn look_after(shared: &Shared) {
    let now = shared.clock.monotonic();
    let mut care = Care { opened: now, attempts: 0, next_attempt: now, last: None };
    let mut link = shared.link.subscribe();
    loop {
        let connection = match &*link.borrow_and_update() {
            Link::Up(connection) => Some(connection.clone()),
            _ => None,
        };
        if let Err(error) = care.look(shared, connection.as_ref()).await {
            tracing::error!(error = %chain(&error), "cannot look after the certificates");
        }
        tokio::select! {
            biased;
            () = shared.clock.sleep_until(care.wakes(shared.clock.monotonic())) => {}
            // Who has just connected may be able to ask.
            changed = link.changed() => if changed.is_err() { return },
        }
    }
}

impl Care {
    fn wakes(&self, now: Monotonic) -> Monotonic {
        let check = now.plus(CHECK);
        if self.attempts > 0 && self.next_attempt > now { check.min(self.next_attempt) } else { check }
    }

    async fn look(&mut self, shared: &Shared, connection: Option<&Connection>) -> Result<(), ClientError> {
        let Some(life) = shared.life() else { return Ok(()) };
        let (now, moment) = (shared.clock.now(), shared.clock.monotonic());
        if let Some(connection) = connection
            && !life.is_over(now)
            && now >= due(shared, &life)
            && moment >= self.next_attempt
        {
            match renew(shared, connection, &life).await {
                Ok(()) => {
                    (self.attempts, self.last) = (0, None);
                    return Ok(());
                }
                Err(NotRenewed::State(error)) => return Err(*error),
                Err(error) => {
                    tracing::info!(error = %chain(&error), "the certificates are not renewed yet");
                    self.last = Some(chain(&error));
                }
            }
            self.next_attempt = shared.clock.monotonic().plus(delay(self.attempts, shared.random.array::<1>()[0]));
            self.attempts += 1;
        }
        let is_patient = self.attempts == 0 && moment < self.opened.plus(PATIENCE);
        if life.is_over(now) || !is_patient {
            tell(shared, &life, now, self.last.clone()).await?;
        }
        Ok(())
    }
}

/// When a device begins to ask: a third of the life before its end, or up to a twelfth later, for each device and certificate
/// another part of it, so that a department's devices do not come all at once.
fn due(shared: &Shared, life: &Life) -> Timestamp {
    let certificate = shared.tls();
    let digest =
        labelled_sha256("lianxin/certificate-care/v1", &[shared.device.as_str().as_bytes(), certificate.certificate()]);
    due_at(life, digest.0[0])
}

fn due_at(life: &Life, jitter: u8) -> Timestamp {
    let third = last_third(life);
    life.ends.minus(third).plus(third / 4 * u32::from(jitter) / 256)
}

fn last_third(life: &Life) -> Duration {
    between(life.begins, life.ends) / 3
}

/// Zero if `later` is not.
fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::from_micros(later.0.saturating_sub(earlier.0))
}

/// Between half and all of a delay that doubles with each attempt.
fn delay(attempts: u32, random: u8) -> Duration {
    let full = (DELAY_MIN * 2_u32.pow(attempts.min(DELAY_DOUBLINGS_MAX))).min(DELAY_MAX);
    full / 2 + full / 2 * u32::from(random) / 255
}

/// How often the application should have been told by now: with half, a quarter and an eighth of the last third left, and at
/// the end.
fn tellings(life: &Life, now: Timestamp) -> u8 {
    let third = last_third(life);
    if life.is_over(now) {
        return OVER;
    }
    let left = between(now, life.ends);
    (1..OVER).filter(|step| left <= third / 2_u32.pow(u32::from(*step))).count() as u8
}

async fn tell(shared: &Shared, life: &Life, now: Timestamp, last: Option<String>) -> Result<(), ClientError> {
    let (times, tls, ends) = (tellings(life, now), shared.tls(), life.ends);
    if times == 0 {
        return Ok(());
    }
    let event = if times == OVER {
        Event::CertificateEnded { ended: ends, own: now }
    } else {
        Event::CertificateEnding { ends, reason: last.unwrap_or_else(|| "there was no connection".to_owned()) }
    };
    let is_new = shared.transaction(move |tx, _| {
        let is_new = identity::told(tx, tls.certificate())? < times;
        if is_new {
            identity::put_told(tx, tls.certificate(), times)?;
            keep(tx, &event)?;
        }
        Ok(is_new)
    });
    if is_new.await? {
        shared.bells.ring(&News::Events);
    }
    Ok(())
}

async fn renew(shared: &Shared, connection: &Connection, life: &Life) -> Result<(), NotRenewed> {
    let id = shared.id();
    // Kept before it is sent: who is killed now asks again with the same key.
    let next = shared.transaction(move |tx, mls| {
        if let Some(next) = identity::next(tx, &mls.certificate())? {
            return Ok(next);
        }
        let new = NewTlsKey::generate().map_err(|error| ClientError::Connect(error.into()))?;
        let next = Next { request: mls.renewal_request(id, new.request), tls_key: new.key };
        identity::put_next(tx, &next)?;
        Ok(next)
    });
    let Next { request, tls_key } = next.await?;
    let asked = Renew {
        id: request.id,
        tls_request: request.tls_request.clone().into(),
        mls_certificate: request.mls_certificate.clone().into(),
        signature: request.signature,
    };
    let issued = match connection.renew(asked).await {
        Err(CallError::Refused(problem)) if problem.code == ReasonCode::IdReused => {
            shared.transaction(|tx, _| identity::drop_next(tx)).await?;
            return Err(CallError::Refused(problem).into());
        }
        answer => answer?,
    };
    let trust = (&*shared.federation(), shared.clock.now());
    let (present, ends) = verified(&Next { request, tls_key }, &issued, &shared.device, life, trust)?;
    let tls = present.tls()?;
    let mls_certificate = present.mls_certificate.clone();
    let kept = shared.transaction(move |tx, mls| {
        identity::put_present(tx, &present)?;
        // Key packages of one use are good as long as the old certificate; the last resort is replaced at once.
        mls.outdate_last_resort(tx)?;
        keep(tx, &Event::CertificateRenewed { ends })
    });
    kept.await?;
    shared.mls.renew_certificate(&mls_certificate).map_err(ClientError::from)?;
    shared.replace_tls(tls);
    shared.bells.ring(&News::Events);
    // Its channels' leaves follow with the first look of the new connection.
    shared.ask(Task::Reconnect);
    tracing::info!(?ends, "the certificates are renewed");
    Ok(())
}

/// What was issued for a request, and when the first of it ends, if it is this device's, for its keys, and lasts longer than what
/// the device has.
fn verified(
    next: &Next,
    issued: &Issued,
    device: &DeviceUri,
    life: &Life,
    (federation, now): (&Federation, Timestamp),
) -> Result<(Present, Timestamp), NotRenewed> {
    let renewing = next.request.check(federation, now)?;
    if renewing.device != *device {
        return Err(RenewalError::OtherDevice { named: renewing.device }.into());
    }
    let ends = renewing.check(&issued.tls_certificate, &issued.mls_certificate, federation, now)?;
    // Whatever is taken is better than what there is: else it would be renewed again at once, for ever.
    if ends <= life.ends.plus(LIMITS.clock_skew_max) {
        return Err(NotRenewed::NoLater);
    }
    let (tls_certificate, mls_certificate) = (issued.tls_certificate.to_vec(), issued.mls_certificate.to_vec());
    Ok((Present { tls_certificate, tls_key: next.tls_key.clone(), mls_certificate }, ends))
}

#[cfg(test)]
mod tests {
    use lianxin_certs_dev::{FederationPlan, mint, renewal_request};
    use lianxin_trust::Usage;
    use lianxin_types::{Clock as _, SystemClock};
    use rustls_pki_types::PrivatePkcs8KeyDer;
    use rustls_pki_types::pem::PemObject as _;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn life() -> Life {
        let begins = Timestamp(0);
        Life { begins, ends: begins.plus(90 * DAY) }
    }

    fn day(day: u32) -> Timestamp {
        life().begins.plus(day * DAY)
    }

    #[test]
    fn renewal_begins_with_the_last_third_and_is_spread_over_its_first_quarter() {
        assert_eq!(due_at(&life(), 0), day(60));
        assert!(due_at(&life(), 255) > day(67) && due_at(&life(), 255) < day(68));
    }

    #[test]
    fn the_end_is_told_three_times_before_it_and_once_after() {
        let told: Vec<u8> = [60, 74, 75, 82, 83, 86, 87, 90, 91, 400].map(|at| tellings(&life(), day(at))).into();
        assert_eq!(told, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
    }

    #[test]
    fn attempts_come_ever_later_up_to_an_hour_and_never_in_step() {
        assert_eq!(delay(0, 0), DELAY_MIN / 2);
        assert_eq!(delay(0, 255), DELAY_MIN);
        assert_eq!(delay(3, 255), DELAY_MIN * 8);
        assert_eq!(delay(u32::MAX, 255), DELAY_MAX);
    }

    #[test]
    fn only_what_is_for_this_device_and_its_keys_and_lasts_longer_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let minted = mint(&FederationPlan::default(), &folder.path().join("federation"), &SystemClock).expect("mints");
        let (federation, now) = (minted.federation().expect("verifies"), SystemClock.now());
        let [own, other] = ["app-1", "app-2"].map(|name| minted.app("jiwei", name).expect("minted"));
        let next = || {
            let (request, key) = renewal_request(&own).expect("signed");
            let key = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes()).expect("a key");
            Next { request, tls_key: key.secret_pkcs8_der().to_vec().into() }
        };
        let asked = next();
        let renewing = asked.request.check(&federation, now).expect("sound");
        let issued = |device: &DeviceUri, tls_key: &[u8], mls_key: &[u8]| {
            let certify = |usage, key: &[u8]| minted.certify("jiwei", device, usage, key).expect("issued").into();
            Issued {
                tls_certificate: certify(Usage::TlsClient, tls_key),
                mls_certificate: certify(Usage::Mls, mls_key),
            }
        };
        let soon = Life { begins: now.minus(80 * DAY), ends: now.plus(DAY) };
        let take = |issued: &Issued, life: &Life| verified(&asked, issued, &own.uri, life, (&federation, now));

        let good = issued(&own.uri, &renewing.tls_key, &renewing.mls_key);
        let (present, ends) = take(&good, &soon).expect("the device's own");
        present.tls().expect("for the key that was asked for");
        assert!(ends > now.plus(29 * DAY));
        let long = Life { ends: now.plus(80 * DAY), ..soon };
        assert!(matches!(take(&good, &long), Err(NotRenewed::NoLater)));

        let foreign = issued(&other.uri, &renewing.tls_key, &renewing.mls_key);
        let refused = take(&foreign, &soon).map(drop);
        assert!(matches!(refused, Err(NotRenewed::Unsound(RenewalError::OtherDevice { .. }))), "{refused:?}");
        let key = next().request.check(&federation, now).expect("sound").tls_key;
        let refused = take(&issued(&own.uri, &key, &renewing.mls_key), &soon).map(drop);
        assert!(matches!(refused, Err(NotRenewed::Unsound(RenewalError::OtherKey))), "{refused:?}");
        let refused = verified(&asked, &good, &other.uri, &soon, (&federation, now)).map(drop);
        assert!(matches!(refused, Err(NotRenewed::Unsound(RenewalError::OtherDevice { .. }))), "{refused:?}");
    }
}
