//! openmls follows, alone and without our engine: from the Welcome with the captured keys to the captured secrets.

use anyhow::{Context as _, Result, bail, ensure};
use lianxin_profile::{CIPHERSUITE, parse_application, parse_handshake, parse_tree, parse_welcome};
use openmls::prelude::{
    KeyPackageBundle, MlsGroup, MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, PURE_PLAINTEXT_WIRE_FORMAT_POLICY,
    ProcessedMessageContent, ProtocolMessage, StagedWelcome,
};
use openmls_rust_crypto::{OpenMlsRustCrypto, RustCrypto};
use openmls_traits::OpenMlsProvider as _;
use openmls_traits::crypto::OpenMlsCrypto as _;
use openmls_traits::storage::StorageProvider as _;
use serde_json::{Value, json};
use tls_codec::{Deserialize as _, Serialize as _};

use crate::format::{Capture, DevicePart, EventPart, FollowerPart, KeyPackagePart};

/// Follows one device. Of a capture whose key packages are over it stops before the first commit that adds somebody, which
/// openmls refuses by the system's clock, and gives the event at which it stopped.
pub(crate) fn follow(capture: &Capture, follower: &FollowerPart, is_fresh: bool) -> Result<u64> {
    let device = capture.device(&follower.device)?;
    let joins = capture.event(follower.joins);
    let provider = OpenMlsRustCrypto::default();
    store_keys(&provider, device)?;
    let config = MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .use_ratchet_tree_extension(false)
        .build();
    let welcome = parse_welcome(&joins.welcome.as_ref().context("a Welcome")?.0)?;
    let tree = parse_tree(&joins.ratchet_tree.as_ref().context("a tree")?.0)?;
    let staged = StagedWelcome::build_from_welcome(&provider, &config, welcome)?.with_ratchet_tree(tree);
    let mut group = staged.skip_lifetime_validation().build()?.into_group(&provider)?;
    check_state(capture, &provider, &group, joins)?;
    for sequence in follower.joins + 1..=follower.last {
        let event = capture.event(sequence);
        if event.welcome.is_some() && !is_fresh {
            return Ok(sequence - 1);
        }
        if event.sender != device.uri.as_str() {
            process(&provider, &mut group, event)?;
        }
        if !group.is_active() {
            ensure!(sequence == follower.last, "{} is out too early", device.name);
            return Ok(sequence);
        }
        check_state(capture, &provider, &group, event)?;
    }
    Ok(follower.last)
}

fn process(provider: &OpenMlsRustCrypto, group: &mut MlsGroup, event: &EventPart) -> Result<()> {
    let number = event.sequence;
    let message: ProtocolMessage = match event.kind.as_str() {
        "APPLICATION" => parse_application(&event.mls.0)?.message,
        _ => parse_handshake(&event.mls.0)?.message,
    };
    let processed = group.process_message(provider, message).with_context(|| format!("event {number}"))?;
    match (processed.into_content(), event.kind.as_str()) {
        (ProcessedMessageContent::ApplicationMessage(message), "APPLICATION") => {
            let plaintext = event.plaintext.as_ref().context("a message has a plaintext")?;
            ensure!(message.into_bytes() == plaintext.payload.0, "event {number} decrypts to something else");
        }
        (ProcessedMessageContent::StagedCommitMessage(staged), "COMMIT") => {
            group.merge_staged_commit(provider, *staged)?;
        }
        (ProcessedMessageContent::ProposalMessage(queued), "PROPOSAL") => {
            group.store_pending_proposal(provider.storage(), *queued)?;
        }
        (_, kind) => bail!("event {number} is no {kind}"),
    }
    Ok(())
}

fn check_state(capture: &Capture, provider: &OpenMlsRustCrypto, group: &MlsGroup, event: &EventPart) -> Result<()> {
    let number = event.sequence;
    ensure!(group.epoch().as_u64() == event.epoch, "event {number} makes another epoch");
    let secrets = event.secrets.as_ref().context("an epoch has secrets")?;
    let authenticator = group.epoch_authenticator().as_slice();
    ensure!(authenticator == secrets.epoch_authenticator.0, "authenticator {number} differs");
    let exporter = &capture.exporter;
    let exported = group.export_secret(provider.crypto(), &exporter.label, &exporter.context.0, exporter.length)?;
    ensure!(exported == secrets.exported.0, "exported secret {number} differs");
    Ok(())
}

/// Puts the captured key packages with their private keys where openmls looks for them.
fn store_keys(provider: &OpenMlsRustCrypto, device: &DevicePart) -> Result<()> {
    for package in &device.key_packages {
        let bundle = bundle(package)?;
        let reference = bundle.key_package().hash_ref(provider.crypto())?;
        provider.storage().write_key_package(&reference, &bundle)?;
    }
    Ok(())
}

/// Each private key is that of its public one: what is sealed to the one is opened by the other.
pub(crate) fn check_keys(package: &KeyPackagePart) -> Result<()> {
    let bundle = bundle(package)?;
    let (crypto, config) = (RustCrypto::default(), || CIPHERSUITE.hpke_config());
    let key_package = bundle.key_package();
    // The length stands in front (RFC 9420 section 2.1.2).
    let leaf_key = key_package.leaf_node().encryption_key().tls_serialize_detached()?;
    let public = [key_package.hpke_init_key().as_slice(), leaf_key.get(1..).context("a key")?];
    for (public, secret) in public.into_iter().zip([&package.init_key.0, &package.leaf_key.0]) {
        let sealed = crypto.hpke_seal(config(), public, b"", b"", b"a secret")?;
        ensure!(crypto.hpke_open(config(), &sealed, secret, b"", b"")? == b"a secret", "another private key");
    }
    Ok(())
}

/// A key package and its private keys as openmls keeps them. Made by way of what it serialises, because it makes a checked key package of
/// bytes only while the lifetime holds.
fn bundle(package: &KeyPackagePart) -> Result<KeyPackageBundle> {
    let MlsMessageBodyIn::KeyPackage(read) = MlsMessageIn::tls_deserialize_exact(&package.message.0)?.extract() else {
        bail!("no key package")
    };
    let bytes = |key: &[u8]| json!({ "vec": key });
    let stored: Value = json!({
        "key_package": serde_json::to_value(&read)?,
        "private_init_key": bytes(&package.init_key.0),
        "private_encryption_key": { "key": bytes(&package.leaf_key.0) },
    });
    Ok(serde_json::from_value(stored)?)
}
