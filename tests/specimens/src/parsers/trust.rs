//! What makes the federation: bundle, certificates, revocation lists, pinned keys, names.

use lianxin_tlog::Leaf;
use lianxin_trust::{Federation, RenewalRequest, RootKeys, TrustBundle, Usage, verify_bundle};
use lianxin_types::{Clock as _, DeviceUri, IdempotencyId, SystemClock};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::{Parser, Shape};
use crate::{Depth, office};

pub(super) const PARSERS: &[Parser] = &[
    Parser::new(
        "trust_bundle_note",
        Shape::Text,
        |bytes| {
            let roots = office().minted().roots().expect("minted");
            // Without its signatures a note is not read any further: what is behind is `trust_bundle`.
            Depth::of_reading(verify_bundle(&roots, bytes))
        },
        || vec![office().federation().bundle().note.clone()],
    ),
    Parser::new(
        "trust_bundle",
        Shape::Text,
        |bytes| Depth::of_reading(TrustBundle::parse(bytes)),
        || vec![office().federation().bundle().bundle.to_json_bytes()],
    ),
    Parser::new(
        "certificate",
        Shape::Der,
        |bytes| {
            let chain = [bytes];
            let usages = [Usage::Mls, Usage::TlsClient, Usage::TlsGateway];
            let accepted = usages.into_iter().any(|usage| {
                let identified = office().federation().identify(&chain, usage, SystemClock.now());
                identified.is_ok()
            });
            if accepted { Depth::Accepted } else { Depth::Refused }
        },
        || {
            let app = office().minted().app("jiwei", "app-1").expect("minted");
            let gateway = office().minted().gateway();
            let files = [app.tls_certificate, app.mls_certificate, gateway.tls_certificate];
            files.map(|file| CertificateDer::from_pem_file(file).expect("minted").to_vec()).to_vec()
        },
    ),
    Parser::new(
        "certification_request",
        Shape::Der,
        |bytes| {
            // Its own signature stands in it; the MLS key's, over it, is made anew, or nothing behind it would be reached.
            Depth::of_reading(signed_renewal(bytes.to_vec()).check(&office().federation(), SystemClock.now()))
        },
        || vec![renewal_request().tls_request],
    ),
    Parser::new(
        "revocation_list",
        Shape::Der,
        |bytes| Depth::of_reading(Federation::new(office().federation().bundle().clone(), vec![bytes.to_vec()])),
        || office().federation().revocation_lists().map(<[u8]>::to_vec).collect(),
    ),
    Parser::new(
        "root_keys",
        Shape::Text,
        |bytes| {
            let text = std::str::from_utf8(bytes);
            Depth::of(text, RootKeys::from_json)
        },
        || vec![office().minted().roots().expect("minted").to_json().into_bytes()],
    ),
    Parser::new(
        "device_uri",
        Shape::Text,
        |bytes| Depth::of(std::str::from_utf8(bytes), str::parse::<DeviceUri>),
        || vec![b"lianxin://jiwei/app/a-1/1".to_vec(), b"lianxin://shenji/person/b/2".to_vec()],
    ),
    Parser::new(
        "audit_leaf",
        Shape::Record,
        |bytes| Depth::of_reading(Leaf::from_bytes(bytes)),
        || {
            let leaf = "010100010000000000077a3e0102030405060708090a0b0c0d0e0f10";
            vec![hex::decode(format!("{leaf}{}", "cc".repeat(32))).expect("hexadecimal")]
        },
    ),
];

/// A sound request of an application for its next certificates.
pub(super) fn renewal_request() -> RenewalRequest {
    let app = office().minted().app("jiwei", "app-1").expect("minted");
    lianxin_certs_dev::renewal_request(&app).expect("signed").0
}

fn signed_renewal(tls_request: Vec<u8>) -> RenewalRequest {
    let app = office().minted().app("jiwei", "app-1").expect("minted");
    lianxin_certs_dev::sign_renewal(&app, IdempotencyId([1; 16]), tls_request).expect("signed")
}
