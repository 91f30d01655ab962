//! mls-rs follows: joins by a captured Welcome with the captured keys, processes everything, and comes to the captured secrets.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use lianxin_trust::{Federation, Usage};
use lianxin_types::Timestamp;
use mls_rs::client_builder::MlsConfig;
use mls_rs::error::IntoAnyError;
use mls_rs::extension::ExtensionType;
use mls_rs::group::{CommitEffect, ExportedTree, ReceivedMessage};
use mls_rs::identity::{Credential, CredentialType, SigningIdentity};
use mls_rs::storage_provider::in_memory::InMemoryKeyPackageStorage;
use mls_rs::time::MlsTime;
use mls_rs::{CipherSuite, Client, CryptoProvider as _, ExtensionList, Group, IdentityProvider, MlsMessage};
use mls_rs_core::crypto::{HpkeSecretKey, SignatureSecretKey};
use mls_rs_core::identity::{CertificateChain, MemberValidationContext};
use mls_rs_core::key_package::KeyPackageData;
use mls_rs_crypto_rustcrypto::RustCryptoProvider;

use crate::format::{Capture, DevicePart, EventPart, FollowerPart};
use crate::judge::federation;

const SUITE: CipherSuite = CipherSuite::CURVE25519_AES128;
/// MLSMessage: version and wire format.
const HEADER_BYTES: usize = 4;

/// The tree behind each event that this member has processed.
pub(crate) type Trees = Vec<(u64, Vec<u8>)>;

/// Follows one device from its Welcome as far as the keys of its key package carry.
pub(crate) fn follow(capture: &Capture, follower: &FollowerPart) -> Result<Trees> {
    let device = capture.device(&follower.device)?;
    let joins = capture.event(follower.joins);
    let client = client(capture, device)?;
    let tree = ExportedTree::from_bytes(&joins.ratchet_tree.as_ref().context("a tree")?.0)?;
    let welcome = MlsMessage::from_bytes(&joins.welcome.as_ref().context("a Welcome")?.0)?;
    let (mut group, _) = client.join_group(Some(tree), &welcome, Some(time(joins)))?;
    check_state(capture, &group, joins)?;
    let mut trees = vec![(follower.joins, group.export_tree().to_bytes()?)];
    for sequence in follower.joins + 1..=follower.last {
        let event = capture.event(sequence);
        let is_own = event.sender == device.uri.as_str();
        ensure!(!is_own || event.kind == "APPLICATION", "{} made event {sequence} itself", device.name);
        if let Some((sender, plaintext, refused)) = capture.refused_by(event)
            && sender.sender != device.uri
        {
            let message = MlsMessage::from_bytes(&refused.0)?;
            let received = group.process_incoming_message_with_time(message, time(event))?;
            let ReceivedMessage::ApplicationMessage(message) = received else { bail!("no message was refused") };
            ensure!(message.data() == plaintext.payload.0, "what was refused before {sequence} says something else");
        }
        if !is_own {
            let is_out = process(&mut group, event)?;
            if is_out {
                ensure!(sequence == follower.last, "{} is out too early", device.name);
                return Ok(trees);
            }
        }
        check_state(capture, &group, event)?;
        trees.push((sequence, group.export_tree().to_bytes()?));
    }
    Ok(trees)
}

/// Takes an event in; says whether this member went with it.
fn process<C: MlsConfig>(group: &mut Group<C>, event: &EventPart) -> Result<bool> {
    let number = event.sequence;
    let message = MlsMessage::from_bytes(&event.mls.0)?;
    let received = group.process_incoming_message_with_time(message, time(event));
    match (received.with_context(|| format!("event {number}"))?, event.kind.as_str()) {
        (ReceivedMessage::ApplicationMessage(message), "APPLICATION") => {
            let plaintext = event.plaintext.as_ref().context("a message has a plaintext")?;
            ensure!(message.data() == plaintext.payload.0, "event {number} decrypts to something else");
            check_authenticated(event, &message.authenticated_data)?;
            Ok(false)
        }
        (ReceivedMessage::Commit(commit), "COMMIT") => {
            check_authenticated(event, &commit.authenticated_data)?;
            Ok(matches!(commit.effect, CommitEffect::Removed { .. }))
        }
        (ReceivedMessage::Proposal(proposal), "PROPOSAL") => {
            check_authenticated(event, &proposal.authenticated_data)?;
            Ok(false)
        }
        (other, kind) => bail!("event {number} is {other:?}, and should be {kind}"),
    }
}

fn check_authenticated(event: &EventPart, found: &[u8]) -> Result<()> {
    let head = event.names_head.as_ref().context("what members send names a head")?;
    let said = [&[1][..], &head.sequence.to_be_bytes(), &head.chain_hash.0].concat();
    ensure!(found == said, "event {} has other authenticated data", event.sequence);
    Ok(())
}

fn check_state<C: MlsConfig>(capture: &Capture, group: &Group<C>, event: &EventPart) -> Result<()> {
    let number = event.sequence;
    ensure!(group.current_epoch() == event.epoch, "event {number} makes another epoch");
    let secrets = event.secrets.as_ref().context("an epoch has secrets")?;
    ensure!(group.epoch_authenticator()?.as_bytes() == secrets.epoch_authenticator.0, "authenticator {number} differs");
    let mut members = Vec::new();
    for member in group.roster().members_iter() {
        let Credential::X509(chain) = &member.signing_identity.credential else { bail!("no certificate") };
        let certificate = chain.iter().next().context("one certificate")?;
        let device = capture.devices.iter().find(|device| device.mls_certificate.0 == certificate[..]);
        members.push(device.context("a device")?.name.clone());
    }
    ensure!(members == event.members, "event {number} leaves other members");
    let exporter = &capture.exporter;
    let exported = group.export_secret(exporter.label.as_bytes(), &exporter.context.0, exporter.length)?;
    ensure!(exported.as_bytes() == secrets.exported.0, "exported secret {number} differs");
    Ok(())
}

fn time(event: &EventPart) -> MlsTime {
    MlsTime::from(Timestamp(event.gateway_time_us).seconds())
}

/// A client with nothing but what the capture gives.
fn client(capture: &Capture, device: &DevicePart) -> Result<Client<impl MlsConfig + use<>>> {
    let suite = RustCryptoProvider::default().cipher_suite_provider(SUITE).context("suite 1")?;
    let repository = InMemoryKeyPackageStorage::new();
    for package in &device.key_packages {
        let message = MlsMessage::from_bytes(&package.message.0)?;
        let reference = message.key_package_reference(&suite)?.context("a key package")?;
        let bytes = package.message.0.get(HEADER_BYTES..).context("a header")?.to_vec();
        let key = |bytes: &[u8]| HpkeSecretKey::from(bytes.to_vec());
        let data = KeyPackageData::new(bytes, key(&package.init_key.0), key(&package.leaf_key.0), u64::MAX);
        repository.insert(reference.to_vec(), data);
    }
    let seed = <[u8; 32]>::try_from(device.mls_signature_key.0.as_slice())?;
    let public = public_key(&seed);
    let secret = SignatureSecretKey::from([&seed[..], &public].concat());
    let chain = CertificateChain::from(vec![device.mls_certificate.0.clone()]);
    let identity = SigningIdentity::new(Credential::X509(chain), public.into());
    let names = Names { federation: federation(capture)?, now: capture.now() };
    let client = Client::builder()
        .crypto_provider(RustCryptoProvider::default())
        .identity_provider(names)
        .extension_types([0xF0A1, 0xF0A2, 0x000A].map(ExtensionType::new))
        .key_package_repo(repository)
        .signing_identity(identity, secret, SUITE)
        .build();
    Ok(client)
}

/// The public half of an Ed25519 key.
pub(crate) fn public_key(seed: &[u8; 32]) -> Vec<u8> {
    ed25519_dalek::SigningKey::from_bytes(seed).verifying_key().to_bytes().to_vec()
}

/// Certificates as they held when the session was captured.
#[derive(Clone)]
struct Names {
    federation: Arc<Federation>,
    now: Timestamp,
}

/// Why, for the message of a failing test.
#[derive(Debug)]
#[expect(dead_code, reason = "shown when a test fails")]
struct NotOurs(anyhow::Error);

impl IntoAnyError for NotOurs {}

impl Names {
    fn name(&self, identity: &SigningIdentity) -> Result<Vec<u8>, NotOurs> {
        let Credential::X509(chain) = &identity.credential else { return Err(NotOurs(anyhow!("no certificate"))) };
        let chain: Vec<&[u8]> = chain.iter().map(|one| &one[..]).collect();
        let found = self.federation.identify(&chain, Usage::Mls, self.now).map_err(|error| NotOurs(error.into()))?;
        if found.public_key != identity.signature_key.to_vec() {
            return Err(NotOurs(anyhow!("another's key")));
        }
        Ok(found.uri.as_str().as_bytes().to_vec())
    }
}

impl IdentityProvider for Names {
    type Error = NotOurs;

    fn validate_member(
        &self,
        identity: &SigningIdentity,
        _time: Option<MlsTime>,
        _context: MemberValidationContext<'_>,
    ) -> Result<(), NotOurs> {
        self.name(identity).map(drop)
    }

    fn validate_external_sender(
        &self,
        _identity: &SigningIdentity,
        _time: Option<MlsTime>,
        _extensions: Option<&ExtensionList>,
    ) -> Result<(), NotOurs> {
        Ok(())
    }

    fn identity(&self, identity: &SigningIdentity, _extensions: &ExtensionList) -> Result<Vec<u8>, NotOurs> {
        self.name(identity)
    }

    fn valid_successor(
        &self,
        before: &SigningIdentity,
        after: &SigningIdentity,
        _extensions: &ExtensionList,
    ) -> Result<bool, NotOurs> {
        Ok(self.name(before)? == self.name(after)? && before.signature_key == after.signature_key)
    }

    fn supported_types(&self) -> Vec<CredentialType> {
        vec![CredentialType::X509, CredentialType::BASIC]
    }
}
