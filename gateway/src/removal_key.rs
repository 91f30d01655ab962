//! The zone's removal key out of its file, and in whose hands it is.

use std::io::{Error, ErrorKind};
use std::path::Path;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use lianxin_operations::RemovalKey;
use lianxin_trust::{Federation, Usage};
use lianxin_types::Timestamp;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::config::Config;
use crate::error::ServeError;

/// The key that members of the zone's channels take Removes from: its public half stands in the trust bundle.
///
/// # Errors
/// [`ServeError::File`] if the file cannot be read, others may read it, or it is no Ed25519 key in PKCS#8;
/// [`ServeError::Trust`] if it is not the key that the bundle names for the zone.
pub(crate) fn load(config: &Config, federation: &Federation, now: Timestamp) -> Result<RemovalKey, ServeError> {
    let path = &config.removal_key;
    let key = read(path).map_err(|source| ServeError::File { path: path.clone(), source })?;
    let zone = federation.bundle().bundle.zone(&config.zone);
    if zone.is_none_or(|zone| zone.removal_key != key.verifying_key().to_bytes()) {
        let fault = format!("it is not the removal key that the trust bundle names for zone {}", config.zone);
        return Err(ServeError::trust(path, fault));
    }
    let wrong = |fault: String| ServeError::trust(&config.certificate, fault);
    let chain = crate::trust::read(&config.certificate)?;
    let chain: Vec<CertificateDer<'_>> =
        CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>().map_err(|fault| wrong(fault.to_string()))?;
    let chain: Vec<&[u8]> = chain.iter().map(AsRef::as_ref).collect();
    let gateway = federation.identify(&chain, Usage::TlsGateway, now).map_err(|fault| wrong(fault.to_string()))?;
    Ok(RemovalKey::new(gateway.uri, key))
}

fn read(path: &Path) -> std::io::Result<SigningKey> {
    let pem = Zeroizing::new(crate::secret::read_private(std::fs::File::open(path)?, KEY_BYTES_MAX)?);
    let invalid = || Error::new(ErrorKind::InvalidData, "it is not an Ed25519 private key in PKCS#8 PEM");
    let key = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| invalid())?;
    SigningKey::from_pkcs8_der(key.secret_pkcs8_der()).map_err(|_| invalid())
}

/// A PEM of 48 bytes of DER takes 119 bytes; some tools write a few lines of text in front.
const KEY_BYTES_MAX: u64 = 4 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use lianxin_certs_dev::{FederationPlan, mint};
    use lianxin_types::{Clock as _, SystemClock};

    use super::*;

    #[test]
    fn another_key_a_readable_file_and_no_key_are_refused_and_the_zones_own_is_taken() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let minted = mint(&FederationPlan::default(), folder.path(), &SystemClock).expect("mints");
        let mut config = Config::parse(include_str!("../config.sample.toml"), &folder.path().join("gateway.toml"))
            .expect("the sample parses");
        let federation = minted.federation().expect("verifies");
        let load = |config: &Config| load(config, &federation, SystemClock.now());
        let refused = |config: &Config| {
            let refused = load(config).expect_err("refused");
            format!("{:#}", anyhow::Error::from(refused))
        };
        let own = config.removal_key.clone();
        assert_eq!(own, minted.gateway().removal_key, "the sample names where it is minted");

        config.removal_key = minted.gateway().promise_key;
        assert!(refused(&config).contains("not the removal key that the trust bundle names"), "{}", refused(&config));
        config.removal_key = minted.gateway().tls_key;
        assert!(refused(&config).contains("not an Ed25519 private key"), "{}", refused(&config));
        config.removal_key = own.clone();
        std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(refused(&config).contains("others may read the secret"), "{}", refused(&config));
        std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        let key = load(&config).expect("the zone's own");
        assert_eq!(key.gateway().department().as_str(), "jiwei");
        assert!(!format!("{key:?}").contains("key:"), "no key is shown");
    }
}
