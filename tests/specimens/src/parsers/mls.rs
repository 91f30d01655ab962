//! MLS bytes: the profile's parsers, and the gateway's whole judgement behind them.

use lianxin_delivery::GroupState;
use lianxin_profile::{
    AuthenticatedData, ChannelContext, HEAD_EXTENSION, Payload, RemovalData, Roster, SignedReport, Validity,
    check_key_package, check_leaf, check_welcome, parse_application, parse_group_info, parse_handshake, parse_tree,
    parse_welcome, read_head,
};
use lianxin_types::{Clock as _, IdempotencyId, Sequence, SystemClock};
use openmls::prelude::{Credential, CredentialType, Extension, Extensions, UnknownExtension};
use openmls_rust_crypto::RustCrypto;

use super::{Parser, Shape};
use crate::stock::stock;
use crate::{Depth, Device, office};

pub(super) const PARSERS: &[Parser] = &[
    Parser::new("mls_handshake", Shape::Mls, |bytes| Depth::of_reading(parse_handshake(bytes)), handshakes),
    Parser::new(
        "mls_application",
        Shape::Mls,
        |bytes| Depth::of_reading(parse_application(bytes)),
        || stock().messages.clone(),
    ),
    Parser::new("mls_welcome", Shape::Mls, welcome, || stock().welcomes.clone()),
    Parser::new(
        "mls_group_info",
        Shape::Mls,
        |bytes| Depth::of(parse_group_info(bytes), |info| read_head(info.extensions())),
        || [stock().group_infos.clone(), vec![stock().start_info.clone()]].concat(),
    ),
    Parser::new("mls_tree", Shape::Tree, |bytes| Depth::of_reading(parse_tree(bytes)), || stock().trees.clone()),
    Parser::new("mls_key_package", Shape::Mls, key_package, || stock().key_packages.clone()),
    Parser::new(
        "mls_start_info",
        Shape::Mls,
        |bytes| start(bytes, &stock().start_tree),
        || vec![stock().start_info.clone()],
    ),
    Parser::new(
        "mls_start_tree",
        Shape::Tree,
        |bytes| start(&stock().start_info, bytes),
        || vec![stock().start_tree.clone()],
    ),
    Parser::new("mls_judgement", Shape::Mls, judgement, || stock().waiting.iter().map(|one| one.0.clone()).collect()),
    Parser::new(
        "group_snapshot",
        Shape::Record,
        |bytes| Depth::of_reading(GroupState::from_snapshot(bytes, Sequence(1))),
        || vec![stock().channel.state.to_snapshot().to_vec()],
    ),
    Parser::new(
        "payload",
        Shape::Record,
        |bytes| Depth::of_reading(Payload::from_bytes(bytes)),
        || {
            let payload = |body: &str| Payload { intent: IdempotencyId([7; 16]), body: body.as_bytes().to_vec() };
            ["收到", ""].map(|body| payload(body).to_bytes().expect("short")).to_vec()
        },
    ),
    Parser::new(
        "authenticated_data",
        Shape::Record,
        |bytes| Depth::of_reading(AuthenticatedData::from_bytes(bytes)),
        || vec![hex::decode(format!("010000000000000203{}", "ab".repeat(32))).expect("hexadecimal")],
    ),
    Parser::new(
        "removal_data",
        Shape::Record,
        |bytes| Depth::of_reading(RemovalData::from_bytes(bytes)),
        || vec![hex::decode(format!("0201{}", "ee".repeat(32))).expect("hexadecimal")],
    ),
    Parser::new(
        "signed_report",
        Shape::Record,
        |bytes| Depth::of_reading(SignedReport::from_bytes(bytes)),
        || {
            let numbers = "0000000000000000000000030000000000000009";
            vec![
                hex::decode(format!("01{}{numbers}{}03{}", "aa".repeat(16), "cc".repeat(32), "5a".repeat(64)))
                    .expect("hexadecimal"),
            ]
        },
    ),
    Parser::new(
        "channel_context",
        Shape::Record,
        |bytes| Depth::of_reading(ChannelContext::from_bytes(bytes)),
        || vec![stock().channel.state.context().to_bytes()],
    ),
    Parser::new("head_extension", Shape::Record, head, || {
        vec![hex::decode(format!("0000000000000102{}", "cc".repeat(32))).expect("hexadecimal")]
    }),
    Parser::new("credential", Shape::Record, credential, || {
        let chain = Device::of("jiwei").identity().chain.clone();
        let credential = lianxin_profile::x509_credential(&chain).expect("one certificate");
        vec![credential.serialized_content().to_vec()]
    }),
    Parser::new(
        "roster",
        Shape::Record,
        |bytes| Depth::of_reading(Roster::from_bytes(bytes)),
        || vec![stock().channel.state.roster().to_bytes()],
    ),
];

fn handshakes() -> Vec<Vec<u8>> {
    [stock().commits.clone(), stock().proposals.clone()].concat()
}

fn welcome(bytes: &[u8]) -> Depth {
    // Read as a joiner reads it, and as the gateway compares it with a commit, here one that adds nobody.
    let _refused = check_welcome(bytes, &[]);
    Depth::of_reading(parse_welcome(bytes))
}

fn key_package(bytes: &[u8]) -> Depth {
    let checked = check_key_package(&office().federation(), &RustCrypto::default(), bytes, SystemClock.now());
    match checked {
        Ok(_) => Depth::Accepted,
        Err(lianxin_profile::ProfileError::InvalidMls { .. }) => Depth::Unread,
        Err(_) => Depth::Refused,
    }
}

fn start(info: &[u8], tree: &[u8]) -> Depth {
    let read = parse_group_info(info).and_then(|_| parse_tree(tree));
    Depth::of(read, |_| GroupState::start(&office().federation(), info, tree, SystemClock.now()))
}

/// A handshake of a waiting member for the channel as it is.
fn judgement(bytes: &[u8]) -> Depth {
    let state = &stock().channel.state;
    let judge = |_| {
        let mut refused = Err(());
        for (_, sender) in &stock().waiting {
            let commit = state.verify_commit(&office().federation(), sender, bytes, SystemClock.now());
            let accepted = commit.is_ok() || state.verify_leave(sender, bytes).is_ok();
            refused = refused.or(accepted.then_some(()).ok_or(()));
        }
        refused
    };
    Depth::of(parse_handshake(bytes), judge)
}

fn head(bytes: &[u8]) -> Depth {
    let extension = Extension::Unknown(HEAD_EXTENSION, UnknownExtension(bytes.to_vec()));
    let extensions = Extensions::from_vec(vec![extension]);
    Depth::of_reading(read_head(&extensions.expect("one extension of a private kind")))
}

fn credential(bytes: &[u8]) -> Depth {
    let credential = Credential::new(CredentialType::X509, bytes.to_vec());
    let chain = lianxin_profile::parse_chain(&credential);
    Depth::of(chain, |chain| {
        // The key is the certificate's own here: what is judged is the certificate.
        let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
        let identity = office().federation().identify(&chain, lianxin_trust::Usage::Mls, SystemClock.now());
        let key = identity.as_ref().map_or_else(|_| vec![0; 32], |identity| identity.public_key.clone());
        check_leaf(&office().federation(), &credential, &key, SystemClock.now(), Validity::MustBeValid)
    })
}
