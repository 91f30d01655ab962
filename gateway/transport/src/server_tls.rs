//! The TLS settings of the listener: what never changes, and the two things that a reload swaps.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use lianxin_trust::Federation;
use lianxin_types::Clock;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;

use crate::error::TransportError;
use crate::verifier::ClientVerifier;

/// Gives the federation that is in force now; asked once per handshake. A newer bundle or revocation list is in force for
/// the next connection.
pub type FederationSource = Arc<dyn Fn() -> Arc<Federation> + Send + Sync>;

/// The only protocol above TLS (RFC 7301): gRPC is HTTP/2.
pub(crate) const ALPN_HTTP2: &[u8] = b"h2";

/// The gateway's own certificate chain and key.
pub struct ServerIdentity(Arc<CertifiedKey>);

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerIdentity")
    }
}

impl ServerIdentity {
    /// The identity from two PEM texts: certificates, leaf first, and a PKCS#8, SEC1 or PKCS#1 key.
    ///
    /// # Errors
    /// [`TransportError::Pem`] if one of them is not PEM; [`TransportError::Identity`] if they do not fit together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TransportError> {
        let unreadable = |what| move |source| TransportError::Pem { what, source };
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(unreadable("certificate chain"))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(unreadable("private key"))?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(TransportError::Identity)?;
        Ok(Self(Arc::new(certified)))
    }
}

/// The listener's TLS settings. Share it, and swap the identity in it when the certificate is renewed: connections that are
/// open stay open.
pub struct ServerTls {
    provider: Arc<CryptoProvider>,
    identity: RwLock<Arc<CertifiedKey>>,
    federation: FederationSource,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls")
    }
}

impl ServerTls {
    /// Settings with the gateway's `identity`, which accept the clients that `federation` knows.
    ///
    /// # Errors
    /// [`TransportError::Settings`] if the TLS library was built without what we need.
    pub fn new(
        identity: ServerIdentity,
        federation: FederationSource,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TransportError> {
        let tls = Self { provider: Arc::new(provider()), identity: RwLock::new(identity.0), federation, clock };
        tls.for_connection().map_err(TransportError::Settings)?;
        Ok(tls)
    }

    /// Shows `identity` from the next connection on.
    pub fn replace_identity(&self, identity: ServerIdentity) {
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = identity.0;
    }

    pub(crate) fn federation(&self) -> FederationSource {
        Arc::clone(&self.federation)
    }

    /// The chain that the next client is shown, leaf first, DER.
    pub(crate) fn certificate_chain(&self) -> Vec<Vec<u8>> {
        let identity = self.identity.read().unwrap_or_else(PoisonError::into_inner);
        identity.cert.iter().map(|certificate| certificate.as_ref().to_vec()).collect()
    }

    /// The settings of one connection, with a verifier of its own.
    pub(crate) fn for_connection(&self) -> Result<(Arc<ServerConfig>, Arc<ClientVerifier>), rustls::Error> {
        let verifier = Arc::new(ClientVerifier::new(
            (self.federation)(),
            Arc::clone(&self.clock),
            self.provider.signature_verification_algorithms,
        ));
        let identity = Arc::clone(&self.identity.read().unwrap_or_else(PoisonError::into_inner));
        // TLS 1.2 may be unified into the library by another crate's feature, so the versions are named.
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::clone(&verifier) as _)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.time_provider = Arc::new(ClockTime(Arc::clone(&self.clock)));
        Ok((Arc::new(config), verifier))
    }
}

/// Our provider, whatever the process default is. Hybrid key exchange comes first by the library's feature
/// `prefer-post-quantum`; a test holds it there.
fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// Our clock as the library asks for it.
struct ClockTime(Arc<dyn Clock>);

impl fmt::Debug for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClockTime")
    }
}

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.now().seconds())))
    }
}

#[cfg(test)]
mod tests {
    use rustls::NamedGroup;

    use super::*;

    #[test]
    fn the_hybrid_key_exchange_comes_first() {
        let groups: Vec<_> = provider().kx_groups.iter().map(|group| group.name()).collect();
        assert_eq!(groups.first(), Some(&NamedGroup::X25519MLKEM768), "{groups:?}");
    }

    #[test]
    fn text_that_is_not_an_identity_is_refused() {
        let refused = ServerIdentity::from_pem(b"garbage", b"garbage").expect_err("no key in it");
        assert!(matches!(refused, TransportError::Pem { what: "private key", .. }), "{refused:?}");
    }
}
