//! A TLS client that can be made to misbehave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lianxin_types::{Clock as _, SystemClock};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ResolvesClientCert};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, DigitallySignedStruct, Error, SignatureScheme, SupportedProtocolVersion};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Settings of a client; they live over several connections, so a ticket would be used.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) config: ClientConfig,
}

/// How a connection ended for the one who called.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The gateway sent this alert.
    Alert(AlertDescription),
    /// The gateway closed without one.
    Closed,
}

impl Caller {
    pub(crate) fn with_certificate(chain: &[u8], key: &[u8]) -> Self {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain).map(|der| der.expect("PEM")).collect();
        let key = PrivateKeyDer::from_pem_slice(key).expect("PEM");
        let key = provider().key_provider.load_private_key(key).expect("a key");
        Self::new(&[&rustls::version::TLS13], Some(CertifiedKey::new(chain, key)))
    }

    pub(crate) fn new(versions: &[&'static SupportedProtocolVersion], key: Option<CertifiedKey>) -> Self {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("known versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_client_cert_resolver(Arc::new(Shows(key.map(Arc::new))));
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self { config }
    }

    pub(crate) async fn connect(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(address).await?;
        let name = ServerName::IpAddress(address.ip().into());
        TlsConnector::from(Arc::new(self.config.clone())).connect(name, tcp).await
    }

    /// Calls and waits for the end. In TLS 1.3 the client's handshake ends before the gateway has judged its certificate,
    /// so the refusal may come with the first read.
    pub(crate) async fn end(&self, address: SocketAddr) -> End {
        match self.connect(address).await {
            Ok(tls) => end_of(tls).await,
            Err(error) => End::of(&error),
        }
    }
}

/// Far above what a loaded machine needs, so that only a hang fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the gateway ends the connection.
pub(crate) async fn end_of(mut tls: TlsStream<TcpStream>) -> End {
    let mut byte = [0];
    let read = tokio::select! {
        read = tls.read(&mut byte) => read,
        () = SystemClock.sleep(PATIENCE) => panic!("the connection is let in and stays"),
    };
    match read {
        Ok(0) => End::Closed,
        Ok(_) => unreachable!("nobody wrote anything"),
        Err(error) => End::of(&error),
    }
}

impl End {
    fn of(error: &std::io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(Error::AlertReceived(alert)) => Self::Alert(*alert),
            _ => Self::Closed,
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[derive(Debug)]
struct Shows(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

/// These tests are about the gateway's judgement of the client; the other direction is the connection's.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
