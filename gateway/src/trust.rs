//! The federation from its files, and the gateway's own place in it: read whole, verified together, and only then used.

mod kept;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use lianxin_transport::ServerIdentity;
use lianxin_trust::{BundleError, Federation, RootKeys, SuccessionError, Usage, VerifiedBundle, verify_bundle};
use lianxin_types::{Clock, Digest, SystemClock};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::error::ServeError;

/// The trust files of a configuration, as they were when they were read.
pub(crate) struct Files {
    roots: Vec<u8>,
    bundle: Vec<u8>,
    revocation_lists: Vec<Vec<u8>>,
    certificate: Vec<u8>,
    key: Vec<u8>,
    removal_key: Zeroizing<Vec<u8>>,
}

/// What the files make together.
pub(crate) struct Trust {
    pub(crate) federation: Federation,
    /// Bundles that led to the one in the federation, ascending; not all back to the first.
    pub(crate) predecessors: Vec<VerifiedBundle>,
    pub(crate) identity: ServerIdentity,
}

/// The federation that the new one must follow.
#[derive(Clone, Copy)]
pub(crate) struct InForce<'a> {
    pub(crate) federation: &'a Federation,
    pub(crate) predecessors: &'a [VerifiedBundle],
}

/// SHA-256 of what lies behind each key of the configuration that names files.
pub(crate) type Contents = BTreeMap<&'static str, Digest>;

impl Files {
    pub(crate) fn read(config: &Config) -> Result<Self, ServeError> {
        Ok(Self {
            roots: read(&config.roots)?,
            bundle: read(&config.bundle)?,
            revocation_lists: config.revocation_lists.iter().map(|path| read(path)).collect::<Result<_, _>>()?,
            certificate: read(&config.certificate)?,
            key: read(&config.key)?,
            removal_key: Zeroizing::new(read(&config.removal_key)?),
        })
    }

    pub(crate) fn contents(&self) -> Contents {
        let lists: Vec<u8> = self.revocation_lists.iter().flat_map(|list| Digest::sha256(list).0).collect();
        let files = [
            ("trust.roots", &self.roots),
            ("trust.bundle", &self.bundle),
            ("trust.revocation_lists", &lists),
            ("tls.certificate", &self.certificate),
            ("tls.key", &self.key),
            ("trust.removal_key", &*self.removal_key),
        ];
        files.into_iter().map(|(key, bytes)| (key, Digest::sha256(bytes))).collect()
    }

    /// Verifies bundle and revocation lists, that they follow what is in force, and that the gateway's own certificate may
    /// serve its zone.
    ///
    /// # Errors
    /// [`ServeError`] naming the file that does not verify.
    pub(crate) fn verify(
        &self,
        config: &Config,
        in_force: Option<InForce<'_>>,
        clock: &dyn Clock,
    ) -> Result<Trust, ServeError> {
        let roots = self.root_keys(config)?;
        let wrong = |fault: String| ServeError::trust(&config.bundle, fault);
        let bundle = verify_bundle(&roots, &self.bundle).map_err(|fault| wrong(fault.to_string()))?;
        let federation =
            Federation::new(bundle, self.revocation_lists.clone()).map_err(|fault| wrong(fault.to_string()))?;
        let predecessors = match in_force {
            Some(in_force) => follow(config, &roots, in_force, &federation)?,
            None => Vec::new(),
        };
        let identity = self.check_identity(config, &federation, clock)?;
        Ok(Trust { federation, predecessors, identity })
    }

    fn root_keys(&self, config: &Config) -> Result<RootKeys, ServeError> {
        let wrong = |fault: String| ServeError::trust(&config.roots, fault);
        let text = std::str::from_utf8(&self.roots).map_err(|_| wrong("not UTF-8".into()))?;
        RootKeys::from_json(text).map_err(|fault| wrong(fault.to_string()))
    }

    /// Every client asks this of the gateway that it meets: better the operator learns it first.
    fn check_identity(
        &self,
        config: &Config,
        federation: &Federation,
        clock: &dyn Clock,
    ) -> Result<ServerIdentity, ServeError> {
        let zone =
            federation.bundle().bundle.zone(&config.zone).ok_or_else(|| {
                ServeError::trust(&config.bundle, format!("zone {} is not in the bundle", config.zone))
            })?;
        let server = ServerIdentity::from_pem(&self.certificate, &self.key).map_err(|source| ServeError::Identity {
            certificate: config.certificate.clone(),
            key: config.key.clone(),
            source,
        })?;
        let wrong = |fault: String| ServeError::trust(&config.certificate, fault);
        let chain: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .map_err(|fault| wrong(fault.to_string()))?;
        let chain: Vec<&[u8]> = chain.iter().map(AsRef::as_ref).collect();
        let identity =
            federation.identify(&chain, Usage::TlsGateway, clock.now()).map_err(|fault| wrong(fault.to_string()))?;
        if *identity.uri.department() != zone.department {
            let (found, operator) = (identity.uri.department(), &zone.department);
            return Err(wrong(format!("it is of {found}, and {operator} operates zone {}", config.zone)));
        }
        Ok(server)
    }
}

/// Checks that `federation` follows what is in force, and gives the bundles that led to it, ascending.
fn follow(
    config: &Config,
    roots: &RootKeys,
    in_force: InForce<'_>,
    federation: &Federation,
) -> Result<Vec<VerifiedBundle>, ServeError> {
    let refused = |source| ServeError::Succession { path: config.bundle.clone(), source };
    // Earlier bundles are asked for only where one is missing.
    let history = match (in_force.federation.check_successor(federation, &[]), &config.bundle_history) {
        (Err(SuccessionError::Bundle(BundleError::BrokenChain { .. })), Some(folder)) => read_history(folder, roots)?,
        _ => Vec::new(),
    };
    let between = in_force.federation.check_successor(federation, &history).map_err(refused)?;
    let mut predecessors = in_force.predecessors.to_vec();
    if federation.bundle().digest != in_force.federation.bundle().digest {
        predecessors.push(in_force.federation.bundle().clone());
        predecessors.extend(between.into_iter().cloned());
    }
    Ok(predecessors)
}

/// The earlier bundles in a folder: every file `*.note` in it, at most [`HISTORY_MAX`].
fn read_history(folder: &Path, roots: &RootKeys) -> Result<Vec<VerifiedBundle>, ServeError> {
    let failed = |source| ServeError::File { path: folder.to_owned(), source };
    let mut bundles = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_none_or(|extension| extension != "note") {
            continue;
        }
        if bundles.len() == HISTORY_MAX {
            return Err(ServeError::trust(folder, format!("more than {HISTORY_MAX} bundles; remove the oldest")));
        }
        bundles.push(verify_bundle(roots, &read(&path)?).map_err(|fault| ServeError::trust(&path, fault))?);
    }
    Ok(bundles)
}

/// Ten years of weekly bundles.
const HISTORY_MAX: usize = 520;

/// Reads and verifies the files of a configuration against what this gateway had in force before, if it ever ran.
///
/// # Errors
/// [`ServeError`] naming the file that cannot be read or does not verify, or is older than what was in force.
pub(crate) fn load(config: &Config, clock: &dyn Clock) -> Result<(Trust, Contents), ServeError> {
    let files = Files::read(config)?;
    let kept = kept::read(&config.kept_trust(), &files.root_keys(config)?)?;
    let in_force = kept.as_ref().map(|kept| InForce { federation: &kept.federation, predecessors: &kept.predecessors });
    let trust = files.verify(config, in_force, clock)?;
    Ok((trust, files.contents()))
}

/// Keeps what is in force from now on, for the next start. Writes nothing if it is what is kept.
///
/// # Errors
/// [`ServeError::File`].
pub(crate) fn keep(
    config: &Config,
    federation: &Federation,
    predecessors: &[VerifiedBundle],
) -> Result<(), ServeError> {
    let path = config.kept_trust();
    kept::write(&path, federation, predecessors).map_err(|source| ServeError::File { path, source })
}

/// Whether what is in force is kept. If not the disk is full, and it must be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Yes,
    NotYet,
}

/// As [`keep`], at a start: a full disk does not keep a gateway from serving what can be served without writing. Until it
/// is kept, a kill and a start with older files would go unnoticed, so it is said aloud and tried again.
///
/// # Errors
/// [`ServeError::File`] for any other reason.
pub(crate) fn keep_at_start(config: &Config, trust: &Trust) -> Result<Kept, ServeError> {
    match keep(config, &trust.federation, &trust.predecessors) {
        Err(ServeError::File { path, source }) if is_full(&source) => {
            let path = path.display();
            tracing::error!(%path, error = %source, "the disk is full: the trust in force is not kept yet");
            Ok(Kept::NotYet)
        }
        kept => kept.map(|()| Kept::Yes),
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// A whole file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ServeError> {
    std::fs::read(path).map_err(|source| ServeError::File { path: path.to_owned(), source })
}

/// Checks what a gateway needs of its files before it opens the zone: that they make a federation, which follows the one that
/// it had in force, that certificate and key are those of a gateway of the department that operates the zone, and that the removal
/// key is the zone's.
///
/// # Errors
/// [`ServeError`] naming the file that cannot be read or does not verify.
pub fn check_trust(config: &Config) -> Result<(), ServeError> {
    let (trust, _) = load(config, &SystemClock)?;
    crate::removal_key::load(config, &trust.federation, SystemClock.now()).map(|_| ())
}

#[cfg(test)]
mod tests;
