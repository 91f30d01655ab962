//! openmls on the sealed storage, against openmls's own memory storage at the other end.

use std::path::Path;
use std::sync::Arc;

use lianxin_keystore::{Keystore, KeystoreError, MlsStorage, Shelf, StateKey, Transaction};
use lianxin_types::SystemRandom;
use openmls::prelude::tls_codec::{Deserialize as _, Serialize as _};
use openmls::prelude::*;
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::{OpenMlsRustCrypto, RustCrypto};

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

struct Sealed<'a> {
    crypto: &'a RustCrypto,
    storage: MlsStorage<'a>,
}

impl<'a> OpenMlsProvider for Sealed<'a> {
    type CryptoProvider = RustCrypto;
    type RandProvider = RustCrypto;
    type StorageProvider = MlsStorage<'a>;

    fn storage(&self) -> &Self::StorageProvider {
        &self.storage
    }

    fn crypto(&self) -> &RustCrypto {
        self.crypto
    }

    fn rand(&self) -> &RustCrypto {
        self.crypto
    }
}

fn open(dir: &Path) -> Keystore {
    Keystore::open(dir, &StateKey::from_bytes([1; 32]), Arc::new(SystemRandom)).expect("opens")
}

fn with<T: Send + 'static>(
    keystore: &Keystore,
    act: impl FnOnce(&Sealed<'_>, &Transaction<'_>) -> T + Send + 'static,
) -> T {
    let done = keystore.transaction_blocking::<_, KeystoreError>(move |tx| {
        let crypto = RustCrypto::default();
        Ok(act(&Sealed { crypto: &crypto, storage: tx.mls() }, tx))
    });
    done.expect("transaction")
}

fn load(provider: &Sealed<'_>) -> MlsGroup {
    let group = MlsGroup::load(provider.storage(), &GroupId::from_slice(b"group")).expect("readable");
    group.expect("stored")
}

fn credential(name: &str, keys: &SignatureKeyPair) -> CredentialWithKey {
    CredentialWithKey { credential: BasicCredential::new(name.into()).into(), signature_key: keys.public().into() }
}

fn parse(bytes: &[u8]) -> MlsMessageIn {
    MlsMessageIn::tls_deserialize_exact(bytes).expect("parses")
}

/// A device on memory storage that follows the group.
struct Memory {
    provider: OpenMlsRustCrypto,
    keys: SignatureKeyPair,
    group: Option<MlsGroup>,
}

impl Memory {
    fn new() -> Self {
        let keys = SignatureKeyPair::new(SUITE.signature_algorithm()).expect("keys");
        Self { provider: OpenMlsRustCrypto::default(), keys, group: None }
    }

    fn key_package(&self) -> KeyPackage {
        let credential = credential("memory", &self.keys);
        let built = KeyPackage::builder().build(SUITE, &self.provider, &self.keys, credential).expect("built");
        built.key_package().clone()
    }

    fn join(&mut self, welcome: &[u8]) {
        let MlsMessageBodyIn::Welcome(welcome) = parse(welcome).extract() else { panic!("not a Welcome") };
        let config = MlsGroupJoinConfig::builder().use_ratchet_tree_extension(true).build();
        let staged = StagedWelcome::new_from_welcome(&self.provider, &config, welcome, None).expect("staged");
        self.group = Some(staged.into_group(&self.provider).expect("joined"));
    }

    fn group(&mut self) -> &mut MlsGroup {
        self.group.as_mut().expect("joined")
    }

    fn process(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let message = parse(message).try_into_protocol_message().expect("protocol message");
        let group = self.group.as_mut().expect("joined");
        match group.process_message(&self.provider, message).expect("processed").into_content() {
            ProcessedMessageContent::ApplicationMessage(body) => Some(body.into_bytes()),
            ProcessedMessageContent::StagedCommitMessage(commit) => {
                group.merge_staged_commit(&self.provider, *commit).expect("merged");
                None
            }
            _ => panic!("unexpected content"),
        }
    }

    fn send(&mut self, body: &[u8]) -> Vec<u8> {
        let group = self.group.as_mut().expect("joined");
        let message = group.create_message(&self.provider, &self.keys, body).expect("encrypted");
        message.tls_serialize_detached().expect("serialised")
    }
}

/// Stores the group "group" with the device `keys` alone in it.
fn create(provider: &Sealed<'_>) -> Vec<u8> {
    let keys = SignatureKeyPair::new(SUITE.signature_algorithm()).expect("keys");
    keys.store(provider.storage()).expect("stored");
    let config = MlsGroupCreateConfig::builder().use_ratchet_tree_extension(true).ciphersuite(SUITE).build();
    let id = GroupId::from_slice(b"group");
    MlsGroup::new_with_group_id(provider, &keys, &config, id, credential("sealed", &keys)).expect("created");
    keys.public().to_vec()
}

fn keys(provider: &Sealed<'_>, public: &[u8]) -> SignatureKeyPair {
    SignatureKeyPair::read(provider.storage(), public, SUITE.signature_algorithm()).expect("stored")
}

#[test]
fn a_group_survives_every_reopening_and_agrees_with_memory_storage() {
    let folder = tempfile::tempdir().expect("folder");
    let mut memory = Memory::new();
    let package = memory.key_package();
    let public = with(&open(folder.path()), |provider, _| create(provider));

    let signer = public.clone();
    let welcome = with(&open(folder.path()), move |provider, _| {
        let mut group = load(provider);
        let added = group.add_members(provider, &keys(provider, &signer), &[package]).expect("added");
        added.1.tls_serialize_detached().expect("serialised")
    });
    // The pending commit was stored; it is merged by another process, so to speak.
    with(&open(folder.path()), |provider, _| load(provider).merge_pending_commit(provider).expect("merged"));
    memory.join(&welcome);

    for round in 0..3_u8 {
        let body = memory.send(&[round; 40]);
        let heard = with(&open(folder.path()), move |provider, _| {
            let message = parse(&body).try_into_protocol_message().expect("protocol message");
            match load(provider).process_message(provider, message).expect("processed").into_content() {
                ProcessedMessageContent::ApplicationMessage(body) => body.into_bytes(),
                _ => panic!("not an application message"),
            }
        });
        assert_eq!(heard, [round; 40]);
        let signer = public.clone();
        let (commit, message, authenticator) = with(&open(folder.path()), move |provider, _| {
            let mut group = load(provider);
            let keys = keys(provider, &signer);
            let bundle = group.self_update(provider, &keys, LeafNodeParameters::default()).expect("committed");
            let commit = bundle.into_commit().tls_serialize_detached().expect("serialised");
            group.merge_pending_commit(provider).expect("merged");
            let message = group.create_message(provider, &keys, "你好".as_bytes()).expect("encrypted");
            let authenticator = group.epoch_authenticator().as_slice().to_vec();
            (commit, message.tls_serialize_detached().expect("serialised"), authenticator)
        });
        assert_eq!(memory.process(&commit), None);
        assert_eq!(memory.process(&message).as_deref(), Some("你好".as_bytes()));
        assert_eq!(memory.group().epoch_authenticator().as_slice(), authenticator);
    }
}

#[test]
fn proposals_are_queued_removed_and_cleared() {
    let folder = tempfile::tempdir().expect("folder");
    let keystore = open(folder.path());
    let packages = [Memory::new().key_package(), Memory::new().key_package()];
    let public = with(&keystore, |provider, _| create(provider));
    let (signer, proposed) = (public.clone(), packages.clone());
    let references = with(&keystore, move |provider, _| {
        let mut group = load(provider);
        let keys = keys(provider, &signer);
        let mut propose = |package| group.propose_add_member(provider, &keys, package).expect("proposed").1;
        proposed.iter().map(&mut propose).collect::<Vec<_>>()
    });
    drop(keystore);
    let keystore = open(folder.path());
    with(&keystore, move |provider, _| {
        let mut group = load(provider);
        assert_eq!(group.pending_proposals().count(), 2);
        group.remove_pending_proposal(provider.storage(), &references[0]).expect("removed");
        assert_eq!(load(provider).pending_proposals().count(), 1);
        assert!(load(provider).pending_proposals().all(|left| *left.proposal_reference_ref() == references[1]));
    });
    with(&keystore, move |provider, _| {
        let mut group = load(provider);
        group.commit_to_pending_proposals(provider, &keys(provider, &public)).expect("committed");
        group.merge_pending_commit(provider).expect("merged");
        assert_eq!((load(provider).pending_proposals().count(), load(provider).members().count()), (0, 2));
        load(provider).delete(provider.storage()).expect("deleted");
        assert!(MlsGroup::load(provider.storage(), &GroupId::from_slice(b"group")).expect("readable").is_none());
    });
}

#[test]
fn a_merge_that_is_rolled_back_leaves_the_epoch_before_it() {
    let folder = tempfile::tempdir().expect("folder");
    let keystore = open(folder.path());
    let public = with(&keystore, |provider, _| create(provider));
    let refused = keystore.transaction_blocking::<(), KeystoreError>(move |tx| {
        let crypto = RustCrypto::default();
        let provider = Sealed { crypto: &crypto, storage: tx.mls() };
        let mut group = load(&provider);
        let signer = keys(&provider, &public);
        group.self_update(&provider, &signer, LeafNodeParameters::default()).expect("committed");
        group.merge_pending_commit(&provider).expect("merged");
        Err(KeystoreError::Closed)
    });
    assert!(refused.is_err());
    with(&keystore, |provider, _| {
        let group = load(provider);
        assert_eq!((group.epoch().as_u64(), group.pending_commit().is_none()), (0, true));
    });
}

fn kept(provider: &Sealed<'_>) -> Option<MlsGroup> {
    provider.storage().kept(&GroupId::from_slice(b"group")).expect("encodable")
}

fn keep(provider: &Sealed<'_>) {
    provider.storage().keep(&GroupId::from_slice(b"group"), load(provider)).expect("encodable");
}

#[test]
fn a_kept_group_is_there_for_later_transactions_once_and_on_its_shelf() {
    let folder = tempfile::tempdir().expect("folder");
    let keystore = open(folder.path());
    with(&keystore, |provider, _| create(provider));
    with(&keystore, |provider, _| keep(provider));
    with(&keystore, |provider, tx| {
        let other = Sealed { crypto: provider.crypto, storage: tx.mls_on(Shelf::Second) };
        assert!(kept(&other).is_none());
        assert!(kept(provider).is_some());
        assert!(kept(provider).is_none());
        keep(provider);
    });
    drop(keystore);
    with(&open(folder.path()), |provider, _| assert!(kept(provider).is_none()));
}

#[test]
fn a_kept_group_goes_when_a_row_of_it_is_written_or_deleted() {
    let folder = tempfile::tempdir().expect("folder");
    let keystore = open(folder.path());
    let public = with(&keystore, |provider, _| create(provider));
    with(&keystore, |provider, _| keep(provider));
    with(&keystore, move |provider, _| {
        let mut group = load(provider);
        group.create_message(provider, &keys(provider, &public), b"ahead").expect("encrypted");
        assert!(kept(provider).is_none());
        keep(provider);
    });
    with(&keystore, |provider, _| {
        load(provider).delete(provider.storage()).expect("deleted");
        assert!(kept(provider).is_none());
    });
}

#[test]
fn nothing_is_kept_over_a_transaction_that_was_not_committed() {
    let folder = tempfile::tempdir().expect("folder");
    let keystore = open(folder.path());
    with(&keystore, |provider, _| create(provider));
    for panics in [false, true] {
        with(&keystore, |provider, _| keep(provider));
        let refused = keystore.transaction_blocking::<(), KeystoreError>(move |tx| {
            let crypto = RustCrypto::default();
            let provider = Sealed { crypto: &crypto, storage: tx.mls() };
            keep(&provider);
            assert!(!panics, "as asked");
            Err(KeystoreError::Closed)
        });
        assert!(refused.is_err());
        with(&keystore, |provider, _| assert!(kept(provider).is_none()));
    }
}
