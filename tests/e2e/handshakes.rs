//! Who is not let in, and what it is told.

use std::net::SocketAddr;
use std::sync::Arc;

use lianxin_certs_dev::Specimen;
use lianxin_connection::{ConnectError, RefusedReason};
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::zone::Zone;

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_certificate_is_refused_with_its_own_reason_and_recorded() {
    let zone = Zone::start().await;
    let refused = [
        (Specimen::WrongCa, RefusedReason::UnknownAuthority, "certificate_unknown_authority"),
        (Specimen::Expired, RefusedReason::Expired, "certificate_expired"),
        (Specimen::Revoked, RefusedReason::Revoked, "certificate_revoked"),
        (Specimen::OtherDepartment, RefusedReason::AccessDenied, "certificate_other_department"),
        (Specimen::WrongKindOfficer, RefusedReason::UnsupportedCertificate, "certificate_wrong_kind"),
        (Specimen::WrongUsageMls, RefusedReason::UnsupportedCertificate, "certificate_wrong_usage"),
        (Specimen::NotYetValid, RefusedReason::Expired, "certificate_not_yet_valid"),
    ];
    for (specimen, expect, _) in &refused {
        match zone.connect_as(*specimen).await {
            Err(ConnectError::Refused { reason }) => assert_eq!(reason, *expect, "{specimen:?}"),
            other => panic!("{specimen:?}: {other:?}"),
        }
    }
    let app = zone.app("jiwei", "app-1");
    zone.connect(&app).await.expect("a good certificate is let in, so the refusals above mean something");

    let bodies = zone.close().await.shared_bodies();
    for (specimen, _, word) in refused {
        let recorded = bodies.iter().any(|body| body["event"] == "refused-before-caller" && body["reason"] == word);
        assert!(recorded, "{specimen:?} has no audit record; recorded: {bodies:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_and_a_missing_certificate_are_refused() {
    let zone = Zone::start().await;
    let old = handshake(&zone, &[&rustls::version::TLS12]).await.expect_err("TLS 1.2");
    assert!(old.contains("ProtocolVersion"), "{old}");
    let anonymous = handshake(&zone, &[&rustls::version::TLS13]).await.expect_err("no certificate");
    assert!(anonymous.contains("CertificateRequired"), "{anonymous}");

    let bodies = zone.close().await.shared_bodies();
    for word in ["protocol", "no_certificate"] {
        assert!(bodies.iter().any(|body| body["reason"] == word), "{word}: {bodies:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_port_harms_nobody() {
    let zone = Zone::start().await;
    for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[0x16, 3, 1, 0xFF, 0xFF], &[]] {
        let mut socket = TcpStream::connect(zone.address()).await.expect("connects");
        tokio::io::AsyncWriteExt::write_all(&mut socket, noise).await.expect("writes");
        tokio::io::AsyncWriteExt::shutdown(&mut socket).await.expect("closes its half");
        let mut answer = Vec::new();
        // Closing without an answer and a reset are both fine; hanging is not.
        let _closed = socket.read_to_end(&mut answer).await;
    }
    let app = zone.app("jiwei", "app-1");
    zone.connect(&app).await.expect("others are served");
}

/// A handshake by a client of our own without a certificate, and the first read after it: in TLS 1.3 the refusal of a
/// certificate arrives only then. Gives the error's text.
async fn handshake(zone: &Zone, versions: &[&'static rustls::SupportedProtocolVersion]) -> Result<(), String> {
    let mut stream = greet(zone.address(), versions).await?;
    stream.read_u8().await.map(|_| ()).map_err(|error| format!("{error:?}"))
}

/// The certificate that a gateway shows to whoever comes.
pub(crate) async fn shown_certificate(address: SocketAddr) -> Vec<u8> {
    let stream = greet(address, &[&rustls::version::TLS13]).await.expect("the gateway's half of a handshake");
    stream.get_ref().1.peer_certificates().expect("a certificate")[0].to_vec()
}

async fn greet(
    address: SocketAddr,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("known versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let socket = TcpStream::connect(address).await.expect("connects");
    let name = ServerName::try_from("gateway").expect("a name");
    connector.connect(name, socket).await.map_err(|error| format!("{error:?}"))
}

/// The story is about the gateway's checks, so this client has none.
#[derive(Debug)]
pub(crate) struct AnyServer(pub(crate) Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &rustls::pki_types::CertificateDer<'_>,
        _intermediates: &[rustls::pki_types::CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &rustls::pki_types::CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &rustls::pki_types::CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
