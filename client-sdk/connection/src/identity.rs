//! The certificate and key that a device shows to gateways.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

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
