//! The generated client on a connection of its own: it sends what our connection's types cannot spell, and says no hello.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use crate::handshakes::AnyServer;
use crate::zone::Zone;

/// One TLS connection with this certificate; broken, it is not opened again. In TLS 1.3 a certificate's refusal may come
/// only with the first call.
pub(crate) async fn channel(zone: &Zone, certificate: &Path, key: &Path) -> Result<Channel, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificate = CertificateDer::from_pem_file(certificate).expect("minted");
    let key = PrivateKeyDer::from_pem_file(key).expect("minted");
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a known version")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        .with_client_auth_cert(vec![certificate], key)
        .expect("they fit together");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = TcpStream::connect(zone.address()).await.expect("connects");
    let name = ServerName::try_from("gateway").expect("a name");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, socket).await.map_err(|error| error.to_string())?;
    let only = Arc::new(Mutex::new(Some(stream)));
    let connector = tower::service_fn(move |_: http::Uri| {
        let taken = only.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move { taken.map(TokioIo::new).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    let connected = Endpoint::from_static("http://lianxin").connect_with_connector(connector).await;
    connected.map_err(|error| error.to_string())
}
