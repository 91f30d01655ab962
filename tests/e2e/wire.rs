//! The generated client on a connection of its own: it sends what our connection's types cannot spell, and says no hello.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf as _, BufMut as _, Bytes};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};

use crate::handshakes::AnyServer;
use crate::zone::Zone;

/// One TLS connection with this certificate. In TLS 1.3 a certificate's refusal may come only with the first byte read.
pub(crate) async fn tls(gateway: SocketAddr, certificate: &Path, key: &Path) -> io::Result<TlsStream<TcpStream>> {
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
    let socket = TcpStream::connect(gateway).await?;
    let name = ServerName::try_from("gateway").expect("a name");
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

/// The generated client's channel on such a connection; broken, it is not opened again.
pub(crate) async fn channel(zone: &Zone, certificate: &Path, key: &Path) -> Result<Channel, String> {
    channel_to(zone.address(), certificate, key).await
}

/// The same to a gateway at this address.
pub(crate) async fn channel_to(gateway: SocketAddr, certificate: &Path, key: &Path) -> Result<Channel, String> {
    let stream = tls(gateway, certificate, key).await.map_err(|error| error.to_string())?;
    let only = Arc::new(Mutex::new(Some(stream)));
    let connector = tower::service_fn(move |_: http::Uri| {
        let taken = only.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move { taken.map(TokioIo::new).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    let connected = Endpoint::from_static("http://lianxin").connect_with_connector(connector).await;
    connected.map_err(|error| error.to_string())
}

/// Bytes as they are, in both directions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AsItIs;

impl Codec for AsItIs {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for AsItIs {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for AsItIs {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_answer_behind_mutual_tls() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let zone = Zone::start().await;
    let app = zone.app("jiwei", "app-1");
    let channel = channel(&zone, &app.tls_certificate, &app.tls_key).await.expect("connects");
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
    let check = tonic_health::pb::HealthCheckRequest { service: String::new() };
    let status = health.check(check).await.expect("answers").into_inner().status;
    assert_eq!(status, ServingStatus::Serving as i32);

    let mut reflection = tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(channel);
    let list = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let asked = tokio_stream::once(list);
    let mut answers = reflection.server_reflection_info(asked).await.expect("answers").into_inner();
    let answer = answers.message().await.expect("an answer").expect("one").message_response;
    let Some(MessageResponse::ListServicesResponse(listed)) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = listed.service.into_iter().map(|service| service.name).collect();
    for service in [
        "lianxin.channels.v1.Channels",
        "lianxin.messages.v1.Messages",
        "lianxin.key_packages.v1.KeyPackages",
        "lianxin.directory.v1.Directory",
        "lianxin.certificates.v1.Certificates",
        "grpc.health.v1.Health",
    ] {
        assert!(names.iter().any(|name| name == service), "{service} is not among {names:?}");
    }
}
