//! The certificate and key that a device shows to gateways.

use std::fmt;
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use crate::ConnectError;

/// A device's TLS certificate chain and private key, checked to belong together.
#[derive(Clone)]
pub struct TlsIdentity(pub(crate) Arc<CertifiedKey>);

impl TlsIdentity {
    /// Reads PEM: certificates leaf first, one private key (PKCS #8, SEC 1).
    ///
    /// # Errors
    /// [`ConnectError::Settings`] if either cannot be read or the key is not the certificate's.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, ConnectError> {
        let unreadable = |what: &str| ConnectError::Settings(rustls::Error::General(format!("{what} is not PEM")));
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| unreadable("the certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| unreadable("the private key"))?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(ConnectError::Settings)?;
        Ok(Self(Arc::new(certified)))
    }

    /// The same of one certificate (DER) and its key (PKCS #8, DER).
    ///
    /// # Errors
    /// [`ConnectError::Settings`] if either cannot be read or the key is not the certificate's.
    pub fn from_der(certificate: &[u8], key: &[u8]) -> Result<Self, ConnectError> {
        let chain = vec![CertificateDer::from(certificate.to_vec())];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec()));
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(ConnectError::Settings)?;
        Ok(Self(Arc::new(certified)))
    }

    /// The certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        self.0.cert.first().map_or(&[], |certificate| certificate.as_ref())
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsIdentity(..)")
    }
}

/// A TLS key that no certificate is for yet.
#[derive(Clone)]
pub struct NewTlsKey {
    /// The key: P-256, PKCS #8, DER.
    pub key: Zeroizing<Vec<u8>>,
    /// What an authority is asked with: a certification request (PKCS#10, RFC 2986, DER) signed with the key. Its subject is
    /// empty: who asks is said elsewhere.
    pub request: Vec<u8>,
}

impl NewTlsKey {
    /// A new key.
    ///
    /// # Errors
    /// [`ConnectError::Settings`] if the provider has no randomness.
    pub fn generate() -> Result<Self, ConnectError> {
        let failed = |error: rcgen::Error| ConnectError::Settings(rustls::Error::General(error.to_string()));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).map_err(failed)?.der().to_vec();
        Ok(Self { key: Zeroizing::new(key.serialize_der()), request })
    }
}

impl fmt::Debug for NewTlsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewTlsKey(..)")
    }
}

/// The one provider (PROTOCOL 11); its key exchanges begin with X25519MLKEM768.
pub(crate) fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hybrid_key_exchange_comes_first() {
        let first = provider().kx_groups.first().map(|group| group.name());
        assert_eq!(first, Some(rustls::NamedGroup::X25519MLKEM768));
    }

    #[test]
    fn text_that_is_not_an_identity_is_refused() {
        let refused = TlsIdentity::from_pem(b"garbage", b"garbage");
        assert!(matches!(refused, Err(ConnectError::Settings(_))), "{refused:?}");
    }
}
