//! Who is let in, and over what.

use lianxin_certs_dev::Specimen;
use lianxin_transport::{RefusalReason, ServerIdentity};
use lianxin_trust::CertificateError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{AlertDescription, HandshakeKind, NamedGroup, ProtocolVersion};

use crate::caller::End;
use crate::stage::{Stage, read};

#[tokio::test]
async fn an_application_gets_in_with_hybrid_key_exchange_and_is_known() {
    let mut stage = Stage::new().await;
    let tls = stage.app("jiwei", "app-1").connect(stage.address).await.expect("it is let in");
    let accepted = stage.accepted().await;

    let (tcp, session) = tls.get_ref();
    assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(session.negotiated_key_exchange_group().map(|group| group.name()), Some(NamedGroup::X25519MLKEM768));
    assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
    let certificate = read(&stage.minted.app("jiwei", "app-1").expect("minted").tls_certificate);
    let leaf = CertificateDer::from_pem_slice(&certificate).expect("PEM");
    assert_eq!(*accepted.peer().chain, [leaf.to_vec()]);
    assert_eq!(accepted.peer().source, tcp.local_addr().expect("connected"));
}

#[tokio::test]
async fn every_connection_shows_its_certificate_anew() {
    let mut stage = Stage::new().await;
    let caller = stage.app("jiwei", "app-1");
    for _ in 0..2 {
        let mut tls = caller.connect(stage.address).await.expect("it is let in");
        let accepted = stage.accepted().await;
        assert_eq!(tls.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        // A ticket would arrive before the end.
        drop(accepted);
        let mut rest = Vec::new();
        drop(tokio::io::AsyncReadExt::read_to_end(&mut tls, &mut rest).await);
        assert_eq!(tls.get_ref().1.tls13_tickets_received(), 0);
    }
}

#[tokio::test]
async fn a_revocation_is_in_force_for_the_next_connection() {
    let mut stage = Stage::new().await;
    let caller = stage.app("shenji", "app-1");
    let _open = caller.connect(stage.address).await.expect("it is let in");
    let _accepted = stage.accepted().await;

    stage.minted.revoke_app("shenji", "app-1").expect("the department revokes it");
    stage.reload_federation();

    assert_eq!(caller.end(stage.address).await, End::Alert(AlertDescription::CertificateRevoked));
    assert_eq!(stage.refusal().await, RefusalReason::Certificate(CertificateError::Revoked));
}

#[tokio::test]
async fn a_renewed_identity_is_shown_to_the_next_connection() {
    let mut stage = Stage::new().await;
    let caller = stage.app("jiwei", "app-1");
    // Any other certificate will do: these clients do not judge it.
    let other = stage.minted.specimen(Specimen::Expired);
    let (chain, key) = (read(&other.tls_certificate), read(&other.tls_key));
    stage.tls.replace_identity(ServerIdentity::from_pem(&chain, &key).expect("fits"));
    let tls = caller.connect(stage.address).await.expect("it is let in");
    let _accepted = stage.accepted().await;
    let shown = tls.get_ref().1.peer_certificates().expect("shown").to_vec();
    assert_eq!(shown, [CertificateDer::from_pem_slice(&chain).expect("PEM")]);
}
