//! What the profile refuses, shown with commits that openmls makes and takes.

use lianxin_keystore::{MlsStorage, Transaction};
use lianxin_mls::{CommitBundle, MlsError, MlsIdentity, Processed, StartBundle, Violation};
use lianxin_profile::{
    Added, AuthenticatedData, ChannelContext, ContextError, GroupInfoSigner, NamedDepartment, ProfileError,
    check_group_info, check_welcome, external_sender, head_extension, moved_forward, parse_group_info, parse_handshake,
    parse_tree, stored_context, x509_credential,
};
use lianxin_tlog::{EventKind, Head};
use lianxin_types::{Classification, Digest, Label, Sequence};
use openmls::prelude::{
    CredentialType, CredentialWithKey, Extension, ExtensionType, Extensions, GroupContext, GroupId, KeyPackage,
    LeafNodeIndex, LeafNodeParameters, MlsGroup, NewSignerBundle, ProcessedMessageContent,
    RequiredCapabilitiesExtension, UnknownExtension,
};
use openmls_rust_crypto::{OpenMlsRustCrypto, RustCrypto};
use openmls_traits::OpenMlsProvider;
use openmls_traits::signatures::SignerError;
use openmls_traits::types::SignatureScheme;

use crate::device::Device;
use crate::dishonest::parse;
use crate::federation::office;
use crate::gateway::{Gateway, join, new_channel};

pub(crate) struct Signer(ed25519_dalek::SigningKey);

impl Signer {
    pub(crate) fn of(identity: &MlsIdentity) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(&identity.key))
    }

    pub(crate) fn removal_key() -> Self {
        Self(office().removal_key())
    }

    pub(crate) fn of_seed(seed: [u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(&seed))
    }

    pub(crate) fn public_key(&self) -> Vec<u8> {
        self.0.verifying_key().to_bytes().to_vec()
    }
}

impl openmls_traits::signatures::Signer for Signer {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        use ed25519_dalek::Signer as _;
        Ok(self.0.sign(payload).to_bytes().to_vec())
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

pub(crate) struct TestProvider<'a> {
    crypto: RustCrypto,
    storage: MlsStorage<'a>,
}

impl<'a> TestProvider<'a> {
    pub(crate) fn new(tx: &'a Transaction<'_>) -> Self {
        Self { crypto: RustCrypto::default(), storage: tx.mls() }
    }
}

impl<'a> OpenMlsProvider for TestProvider<'a> {
    type CryptoProvider = RustCrypto;
    type RandProvider = RustCrypto;
    type StorageProvider = MlsStorage<'a>;

    fn storage(&self) -> &Self::StorageProvider {
        &self.storage
    }

    fn crypto(&self) -> &Self::CryptoProvider {
        &self.crypto
    }

    fn rand(&self) -> &Self::RandProvider {
        &self.crypto
    }
}

/// A commit without our own checks.
#[derive(Default)]
pub(crate) struct RawChange {
    pub(crate) adds: Vec<KeyPackage>,
    pub(crate) removes: Vec<u32>,
    pub(crate) extensions: Option<Extensions<GroupContext>>,
    /// Whether Welcome and GroupInfo carry the tree.
    pub(crate) with_tree: bool,
    /// Whose name, certificate and key the committer's leaf takes.
    pub(crate) becomes: Option<MlsIdentity>,
}

pub(crate) fn group_id(gateway: &Gateway) -> GroupId {
    GroupId::from_slice(&[&gateway.channel.0[..], &[0; 4]].concat())
}

pub(crate) fn raw_commit(device: &Device, gateway: &Gateway, change: RawChange) -> CommitBundle {
    let (id, signer) = (group_id(gateway), Signer::of(&device.identity));
    let head = device.view(gateway.channel).expect("a member").head;
    let made = device.run(move |_, tx, _| {
        let provider = TestProvider::new(tx);
        let mut group = MlsGroup::load(provider.storage(), &id)?.expect("a group");
        group.set_aad(AuthenticatedData { head }.to_bytes().to_vec());
        let removes: Vec<_> = change.removes.into_iter().map(LeafNodeIndex::new).collect();
        let mut builder = group
            .commit_builder()
            .leaf_node_parameters(LeafNodeParameters::builder().build())
            .force_self_update(true)
            .propose_adds(change.adds)
            .propose_removals(removes);
        if let Some(extensions) = change.extensions {
            builder = builder.propose_group_context_extensions(extensions).expect("openmls takes them");
        }
        let builder = builder
            .load_psks(provider.storage())
            .expect("no keys")
            .use_ratchet_tree_extension(change.with_tree)
            .create_group_info_with_extensions([head_extension(&head)])
            .expect("allowed");
        let (rand, crypto) = (provider.rand(), provider.crypto());
        let built = match change.becomes {
            None => builder.build(rand, crypto, &signer, |_| true),
            Some(other) => {
                let new = Signer::of(&other);
                let credential = x509_credential(&other.chain)?;
                let credential_with_key = CredentialWithKey { credential, signature_key: new.public_key().into() };
                let new = NewSignerBundle { signer: &new, credential_with_key };
                builder.build_with_new_signer(rand, crypto, &signer, new, |_| true)
            }
        };
        let bundle = built.expect("openmls takes it").stage_commit(&provider).expect("staged");
        let (commit, welcome, group_info) = bundle.into_messages();
        let bytes = |message: Option<openmls::prelude::MlsMessageOut>| {
            message.map(|message| message.to_bytes().expect("bytes")).unwrap_or_default()
        };
        Ok(CommitBundle { commit: bytes(Some(commit)), welcome: bytes(welcome), group_info: bytes(group_info) })
    });
    made.expect("a commit")
}

pub(crate) fn two() -> (Device, Device, Gateway) {
    let (jiwei, shenji) = (Device::app("jiwei", "app-1"), Device::app("shenji", "app-1"));
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji"]);
    gateway.seat(&jiwei, &[&jiwei], &[&shenji]);
    (jiwei, shenji, gateway)
}

/// The extensions and the channel context of `device`'s group.
pub(crate) fn context_of(device: &Device, gateway: &Gateway) -> (Extensions<GroupContext>, ChannelContext) {
    let id = group_id(gateway);
    let found = device.run(move |_, tx, _| {
        let group = MlsGroup::load(&tx.mls(), &id)?.expect("a group");
        let context = stored_context(group.public_group().group_context())?;
        Ok((group.extensions().clone(), context))
    });
    found.expect("a readable state")
}

fn with(context: &ChannelContext, label: Label, departments: Vec<NamedDepartment>, slot_key: [u8; 32]) -> Vec<u8> {
    let zone = context.zone().clone();
    let made = ChannelContext::new(context.channel(), zone, label, departments, Digest([1; 32]), slot_key);
    made.expect("valid").to_bytes()
}

/// A commit of `jiwei` with these extensions is refused by the gateway and by `shenji`, for this reason.
fn refuse(jiwei: &Device, shenji: &Device, mut gateway: Gateway, next: Extensions<GroupContext>, fault: ContextError) {
    let bundle = raw_commit(jiwei, &gateway, RawChange { extensions: Some(next), ..RawChange::default() });
    let expected = ProfileError::InvalidContext(fault);
    assert_eq!(gateway.commit(jiwei, &bundle).map(|_| ()), Err(expected.clone()));
    gateway.append(EventKind::Commit, &jiwei.uri, bundle.commit);
    assert_eq!(gateway.feed(shenji), [Processed::Hidden(Violation::InvalidCommit(expected))]);
}

#[test]
fn a_context_may_not_change_backwards_or_sideways() {
    let other = Label::new(Classification::General1, "别的", "无", None).expect("valid");
    for (case, count) in [("label", 2), ("slot key", 2), ("departments", 1), ("departments", 3)] {
        let (jiwei, shenji, gateway) = two();
        let (mut extensions, context) = context_of(&jiwei, &gateway);
        let (label, mut named, key) = (context.label().clone(), context.departments().to_vec(), *context.slot_key());
        named.push(NamedDepartment::without_policy("weijian".parse().expect("well formed")));
        named.truncate(count);
        let bytes = match case {
            "label" => with(&context, other.clone(), named, key),
            "slot key" => with(&context, label, named, [0; 32]),
            _ => with(&context, label, named, key),
        };
        let changed = Extension::Unknown(0xF0A1, UnknownExtension(bytes));
        extensions.add_or_replace(changed).expect("allowed in a context");
        refuse(&jiwei, &shenji, gateway, extensions, ContextError::Changed { field: case });
    }
}

#[test]
fn the_other_extensions_stay_as_they_are() {
    let (jiwei, shenji, gateway) = two();
    let (mut extensions, context) = context_of(&jiwei, &gateway);
    let theirs = Extension::ExternalSenders(vec![external_sender(context.zone(), &[9; 32])]);
    extensions.add_or_replace(theirs).expect("allowed in a context");
    refuse(&jiwei, &shenji, gateway, extensions, ContextError::ExternalSender);

    let (jiwei, shenji, gateway) = two();
    let (mut extensions, _) = context_of(&jiwei, &gateway);
    let more = RequiredCapabilitiesExtension::new(
        &[ExtensionType::Unknown(0xF0A1), ExtensionType::Unknown(0xF0A2)],
        &[],
        &[CredentialType::X509],
    );
    extensions.add_or_replace(Extension::RequiredCapabilities(more)).expect("allowed in a context");
    refuse(&jiwei, &shenji, gateway, extensions, ContextError::RequiredCapabilities);

    let (jiwei, shenji, gateway) = two();
    let (mut extensions, _) = context_of(&jiwei, &gateway);
    extensions.remove(ExtensionType::Unknown(0xF0A1));
    refuse(&jiwei, &shenji, gateway, extensions, ContextError::Missing { code_point: 0xF0A1 });
}

#[test]
fn a_context_moves_forward_to_a_newer_policy() {
    let (jiwei, shenji, mut gateway) = two();
    let (extensions, context) = context_of(&jiwei, &gateway);
    let mut named = context.departments().to_vec();
    (named[0].policy_version, named[0].policy_digest) = (1, Digest([7; 32]));
    let bytes = with(&context, context.label().clone(), named, *context.slot_key());
    let next = ChannelContext::from_bytes(&bytes).expect("valid");
    let moved = moved_forward(&extensions, &next).expect("forward");
    let bundle = raw_commit(&jiwei, &gateway, RawChange { extensions: Some(moved), ..RawChange::default() });
    let summary = gateway.commit(&jiwei, &bundle).expect("acceptable");
    assert!(summary.context_changed && summary.context == next);
    assert!(matches!(&gateway.feed(&shenji)[..], [Processed::Membership { own_commit: false, .. }]));
    let second = Device::app("jiwei", "app-2");
    gateway.feed(&jiwei);
    gateway.seat(&jiwei, &[&jiwei, &shenji], &[&second]);
    assert_eq!(second.view(gateway.channel).expect("a member").departments.len(), 2);
}

#[test]
fn a_stranger_does_not_come_in_by_an_external_commit() {
    let (jiwei, shenji, mut gateway) = two();
    let (channel, gone) = (gateway.channel, shenji.uri.clone());
    let kept = jiwei.run(move |mls, tx, federation| mls.remove(tx, federation, channel, &[gone])).expect("a commit");
    gateway.commit(&jiwei, &kept).expect("acceptable");
    gateway.feed(&jiwei);
    let tree = parse_tree(&gateway.invitation(&kept).tree).expect("a tree");
    let group_info = parse_group_info(&kept.group_info).expect("a group info");
    let signer = Signer::of(&shenji.identity);
    let credential = CredentialWithKey {
        credential: x509_credential(&shenji.identity.chain).expect("one certificate"),
        signature_key: signer.public_key().into(),
    };
    let provider = OpenMlsRustCrypto::default();
    let (_, bundle) = MlsGroup::external_commit_builder()
        .with_ratchet_tree(tree)
        .with_aad(AuthenticatedData { head: gateway.heads[2] }.to_bytes().to_vec())
        .build_group(&provider, group_info, credential)
        .expect("openmls takes it")
        .leaf_node_parameters(LeafNodeParameters::builder().with_capabilities(lianxin_profile::capabilities()).build())
        .load_psks(provider.storage())
        .expect("no keys")
        .build(provider.rand(), provider.crypto(), &signer, |_| true)
        .expect("openmls takes it")
        .finalize(&provider)
        .expect("memory does not fail");
    let commit = bundle.into_commit().to_bytes().expect("bytes");
    let stranger = CommitBundle { commit, welcome: vec![], group_info: vec![] };
    assert_eq!(gateway.commit(&shenji, &stranger).map(|_| ()), Err(ProfileError::SenderMismatch));
    gateway.append(EventKind::Commit, &shenji.uri, stranger.commit);
    let found = Processed::Hidden(Violation::InvalidCommit(ProfileError::SenderMismatch));
    assert_eq!(gateway.feed(&jiwei), [found]);
}

#[test]
fn a_leaf_keeps_its_identity() {
    let (jiwei, shenji, mut gateway) = two();
    let (_, other) = office().app("jiwei", "app-2");
    let bundle = raw_commit(&jiwei, &gateway, RawChange { becomes: Some(other), ..RawChange::default() });
    let expected = ProfileError::InvalidCredential { fault: "a leaf keeps its identity" };
    assert_eq!(gateway.commit(&jiwei, &bundle).map(|_| ()), Err(expected.clone()));
    gateway.append(EventKind::Commit, &jiwei.uri, bundle.commit);
    assert_eq!(gateway.feed(&shenji), [Processed::Hidden(Violation::InvalidCommit(expected))]);
}

#[test]
fn a_commit_may_not_carry_anothers_addition() {
    let (jiwei, shenji, mut gateway) = two();
    let (id, signer) = (group_id(&gateway), Signer::of(&shenji.identity));
    let package = parse(&Device::app("shenji", "app-2").key_package());
    let proposal = shenji.run(move |_, tx, _| {
        let provider = TestProvider::new(tx);
        let mut group = MlsGroup::load(provider.storage(), &id)?.expect("a group");
        let (proposal, _) = group.propose_add_member(&provider, &signer, &package).expect("openmls takes it");
        Ok(proposal.to_bytes().expect("bytes"))
    });
    let proposal = proposal.expect("a proposal");
    assert!(matches!(gateway.leave(&shenji, proposal.clone()), Err(ProfileError::ProposalNotAllowed { .. })));

    // A gateway and a member that take it all the same.
    gateway.store_unchecked(&proposal);
    let id = group_id(&gateway);
    jiwei
        .run(move |_, tx, _| {
            let provider = TestProvider::new(tx);
            let mut group = MlsGroup::load(provider.storage(), &id)?.expect("a group");
            let message = parse_handshake(&proposal)?.message;
            let processed = group.process_message(&provider, message).expect("openmls takes it");
            let ProcessedMessageContent::ProposalMessage(queued) = processed.into_content() else {
                panic!("a proposal")
            };
            Ok(group.store_pending_proposal(provider.storage(), *queued)?)
        })
        .expect("stored");
    let bundle = raw_commit(&jiwei, &gateway, RawChange::default());
    let expected = ProfileError::ProposalNotAllowed { proposal: "an addition by another than the committer" };
    assert_eq!(gateway.commit(&jiwei, &bundle).map(|_| ()), Err(expected));
}

#[test]
fn an_invitation_with_a_tree_inside_is_refused() {
    let (jiwei, _, gateway) = two();
    let newcomer = Device::app("shenji", "app-2");
    let adds = vec![parse(&newcomer.key_package())];
    let bundle = raw_commit(&jiwei, &gateway, RawChange { adds, with_tree: true, ..RawChange::default() });
    let mut invitation = gateway.invitation(&bundle);
    invitation.head.sequence = Sequence(3);
    let refused = join(&newcomer, &invitation);
    assert!(matches!(refused, Err(MlsError::Invitation { fault: "it has a tree inside" })), "{refused:?}");
}

#[test]
fn a_group_info_must_belong_to_its_commit() {
    let (jiwei, _, gateway) = two();
    let bundle = raw_commit(&jiwei, &gateway, RawChange::default());
    let crypto = RustCrypto::default();
    let parsed = parse_group_info(&bundle.group_info).expect("a group info");
    let key = Signer::of(&jiwei.identity).public_key();
    let good = GroupInfoSigner { leaf: 0, signature_key: &key };
    let check = |context: &GroupContext, signer| {
        check_group_info(&crypto, &bundle.group_info, context, signer).map(|checked| checked.head)
    };
    let fault = |fault| Err(ProfileError::InvalidGroupInfo { fault });
    let context = parsed.group_context();
    assert_eq!(check(context, good), Ok(gateway.heads[2]));
    assert_eq!(check(context, GroupInfoSigner { leaf: 1, ..good }), fault("its signer is not the committer"));
    let other = GroupInfoSigner { signature_key: &[1; 32], ..good };
    assert_eq!(check(context, other), fault("its signature does not verify"));
    let earlier = context_before(&jiwei, &gateway);
    assert_eq!(check(&earlier, good), fault("its group context is not the commit's"));
}

fn context_before(device: &Device, gateway: &Gateway) -> GroupContext {
    let id = group_id(gateway);
    let found = device.run(move |_, tx, _| {
        let group = MlsGroup::load(&tx.mls(), &id)?.expect("a group");
        Ok(group.public_group().group_context().clone())
    });
    found.expect("a readable state")
}

/// A GroupInfo of `device`'s current epoch with these extensions besides `external_pub`.
fn group_info(device: &Device, gateway: &Gateway, with_tree: bool, extensions: Vec<Extension>) -> Vec<u8> {
    let (id, signer) = (group_id(gateway), Signer::of(&device.identity));
    let made = device.run(move |_, tx, _| {
        let group = MlsGroup::load(&tx.mls(), &id)?.expect("a group");
        let crypto = RustCrypto::default();
        let made = group.export_group_info_with_additional_extensions(&crypto, &signer, with_tree, extensions);
        Ok(made.expect("openmls takes it").to_bytes().expect("bytes"))
    });
    made.expect("a group info")
}

#[test]
fn a_group_info_has_external_pub_and_the_head_and_nothing_else() {
    let (jiwei, _, gateway) = two();
    let key = Signer::of(&jiwei.identity).public_key();
    let context = context_before(&jiwei, &gateway);
    let check = |bytes: &[u8]| {
        let signer = GroupInfoSigner { leaf: 0, signature_key: &key };
        check_group_info(&RustCrypto::default(), bytes, &context, signer).map(|checked| checked.head)
    };
    let head = Head { sequence: Sequence(2), chain_hash: Digest([3; 32]) };
    assert_eq!(check(&group_info(&jiwei, &gateway, false, vec![head_extension(&head)])), Ok(head));
    let fault = |fault| Err(ProfileError::InvalidGroupInfo { fault });
    assert_eq!(check(&group_info(&jiwei, &gateway, false, vec![])), fault("head is missing"));
    let extra = "it has an extension that does not belong there";
    assert_eq!(check(&group_info(&jiwei, &gateway, true, vec![head_extension(&head)])), fault(extra));
    let foreign = Extension::Unknown(0xF0A9, UnknownExtension(vec![1]));
    assert_eq!(check(&group_info(&jiwei, &gateway, false, vec![head_extension(&head), foreign])), fault(extra));
    let short = Extension::Unknown(0xF0A2, UnknownExtension(vec![1]));
    assert_eq!(check(&group_info(&jiwei, &gateway, false, vec![short])), fault("head is malformed"));
    let mut longer = group_info(&jiwei, &gateway, false, vec![head_extension(&head)]);
    longer.push(0);
    assert_eq!(check(&longer), Err(ProfileError::InvalidMls { what: "group info" }));
}

#[test]
fn a_welcome_is_for_those_who_are_added() {
    let (jiwei, _, mut gateway) = two();
    let (channel, package) = (gateway.channel, Device::app("shenji", "app-2").key_package());
    let bundle =
        jiwei.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[package])).expect("a commit");
    let summary = gateway.commit(&jiwei, &bundle).expect("acceptable");
    let fault = |fault| Err(ProfileError::InvalidWelcome { fault });
    assert_eq!(check_welcome(&bundle.welcome, &summary.added), Ok(()));
    assert_eq!(check_welcome(&[], &[]), Ok(()));
    assert_eq!(check_welcome(&[], &summary.added), fault("there is none for those who are added"));
    assert_eq!(check_welcome(&bundle.welcome, &[]), fault("nobody is added"));
    let other = Added { reference: Digest([1; 32]), ..summary.added[0].clone() };
    assert_eq!(check_welcome(&bundle.welcome, std::slice::from_ref(&other)), fault("it is for others than are added"));
    let two = [summary.added[0].clone(), other];
    assert_eq!(check_welcome(&bundle.welcome, &two), fault("it is for others than are added"));
    assert_eq!(check_welcome(&bundle.commit, &two), Err(ProfileError::InvalidMls { what: "welcome" }));
}

#[test]
fn a_channel_starts_with_its_creator_alone_and_an_empty_log() {
    let (jiwei, _, gateway) = two();
    let later = group_info(&jiwei, &gateway, false, vec![head_extension(&gateway.heads[0])]);
    let bundle = raw_commit(&jiwei, &gateway, RawChange::default());
    let tree = gateway.invitation(&bundle).tree;
    let fault = |fault| Some(ProfileError::InvalidGroupInfo { fault });
    let refused = Gateway::accept(gateway.channel, &StartBundle { group_info: later, ratchet_tree: tree }).err();
    assert_eq!(refused, fault("a group starts with epoch 0"));

    let creator = Device::app("jiwei", "app-2");
    let new = new_channel(&["jiwei"]);
    let channel = new.channel;
    let good = creator.run(move |mls, tx, federation| mls.create(tx, federation, &new)).expect("a start");
    let started = Gateway::accept(channel, &good).expect("acceptable");
    let head = Head { sequence: Sequence(1), chain_hash: Digest::ZERO };
    let lie = group_info(&creator, &started, false, vec![head_extension(&head)]);
    let refused = Gateway::accept(channel, &StartBundle { group_info: lie, ..good }).err();
    assert_eq!(refused, fault("its head is not that of a new channel"));
    assert_eq!(office().federation.bundle().bundle.zones.len(), 1);
}
