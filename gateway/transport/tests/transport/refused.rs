//! Who is not let in: the client sees why in the alert, operations hears it from the observer.

use lianxin_certs_dev::Specimen;
use lianxin_transport::RefusalReason;
use lianxin_trust::CertificateError;
use rustls::AlertDescription;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::caller::{Caller, End};
use crate::stage::{Stage, read};

#[tokio::test]
async fn every_bad_certificate_gets_the_alert_that_tells_why() {
    let mut stage = Stage::new().await;
    let other_department = CertificateError::OtherDepartment {
        named: "shenji".parse().expect("a name"),
        issued_by: "jiwei".parse().expect("a name"),
    };
    for (specimen, alert, error) in [
        (Specimen::Expired, AlertDescription::CertificateExpired, CertificateError::Expired),
        (Specimen::NotYetValid, AlertDescription::CertificateExpired, CertificateError::NotYetValid),
        (Specimen::Revoked, AlertDescription::CertificateRevoked, CertificateError::Revoked),
        (Specimen::WrongCa, AlertDescription::UnknownCA, CertificateError::UnknownAuthority),
        (Specimen::OtherDepartment, AlertDescription::AccessDenied, other_department),
        (Specimen::WrongUsageMls, AlertDescription::UnsupportedCertificate, CertificateError::WrongUsage),
        (Specimen::WrongKindOfficer, AlertDescription::UnsupportedCertificate, CertificateError::WrongKind),
    ] {
        assert_eq!(stage.specimen(specimen).end(stage.address).await, End::Alert(alert), "{specimen:?}");
        assert_eq!(stage.refusal().await, RefusalReason::Certificate(error), "{specimen:?}");
    }
}

#[tokio::test]
async fn no_certificate_is_asked_for() {
    let mut stage = Stage::new().await;
    let nobody = Caller::new(&[&rustls::version::TLS13], None);
    assert_eq!(nobody.end(stage.address).await, End::Alert(AlertDescription::CertificateRequired));
    assert_eq!(stage.refusal().await, RefusalReason::NoCertificate);
}

#[tokio::test]
async fn tls_1_2_is_not_spoken_even_where_the_library_could() {
    let mut stage = Stage::new().await;
    let old = Caller::new(&[&rustls::version::TLS12], None);
    assert_eq!(old.end(stage.address).await, End::Alert(AlertDescription::ProtocolVersion));
    assert_eq!(stage.refusal().await, RefusalReason::Protocol);
}

#[tokio::test]
async fn only_http2_is_spoken() {
    let mut stage = Stage::new().await;
    let mut caller = stage.app("jiwei", "app-1");
    caller.config.alpn_protocols = vec![b"http/1.1".to_vec()];
    assert_eq!(caller.end(stage.address).await, End::Alert(AlertDescription::NoApplicationProtocol));
    assert_eq!(stage.refusal().await, RefusalReason::NotHttp2);

    caller.config.alpn_protocols.clear();
    assert_eq!(caller.end(stage.address).await, End::Closed);
    assert_eq!(stage.refusal().await, RefusalReason::NotHttp2);
}

#[tokio::test]
async fn a_stolen_certificate_is_worth_nothing_without_its_key() {
    let mut stage = Stage::new().await;
    let (owner, thief) = (stage.minted.app("jiwei", "app-1"), stage.minted.app("jiwei", "app-2"));
    let chain = vec![CertificateDer::from_pem_slice(&read(&owner.expect("minted").tls_certificate)).expect("PEM")];
    let key = PrivateKeyDer::from_pem_slice(&read(&thief.expect("minted").tls_key)).expect("PEM");
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).expect("P-256");
    let caller = Caller::new(&[&rustls::version::TLS13], Some(CertifiedKey::new(chain, key)));
    assert_eq!(caller.end(stage.address).await, End::Alert(AlertDescription::DecryptError));
    assert_eq!(stage.refusal().await, RefusalReason::KeyNotProven);
}

#[tokio::test]
async fn who_speaks_no_tls_at_all_is_refused() {
    let mut stage = Stage::new().await;
    let mut tcp = TcpStream::connect(stage.address).await.expect("it listens");
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    // The answer is an alert in plain text, then the end; never a page.
    tcp.read_to_end(&mut answer).await.expect("closed in order");
    assert_eq!(answer.first(), Some(&21), "content type of an alert");
    assert_eq!(stage.refusal().await, RefusalReason::Protocol);
}

#[tokio::test]
async fn who_leaves_in_the_middle_is_counted() {
    let mut stage = Stage::new().await;
    drop(TcpStream::connect(stage.address).await.expect("it listens"));
    assert_eq!(stage.refusal().await, RefusalReason::Disconnected);
}
