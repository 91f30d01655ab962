//! MLS messages that no honest engine makes: with another's certificate, with a key of one's own choice, with proposals that
//! were put in afterwards. Each is signed as it should be, so that only our own rules stand against it.

use std::path::Path;

use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use lianxin_certs_dev::read_signing_key;
use lianxin_keystore::{MlsStorage, Transaction};
use lianxin_mls::{CommitBundle, StartBundle};
use lianxin_profile::{
    AuthenticatedData, CIPHERSUITE, ChannelContext, NamedDepartment, capabilities, group_context_extensions,
    head_extension, parse_group_info, parse_tree, read_head, x509_credential,
};
use lianxin_tlog::Head;
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, Digest, ZoneId};
use openmls::prelude::{
    CredentialWithKey, GroupId, KeyPackage, LeafNodeParameters, Lifetime, MlsGroup, MlsGroupCreateConfig,
    MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut, PURE_CIPHERTEXT_WIRE_FORMAT_POLICY,
    PURE_PLAINTEXT_WIRE_FORMAT_POLICY, Proposal, ProtocolVersion,
};
use openmls_rust_crypto::{OpenMlsRustCrypto, RustCrypto};
use openmls_traits::OpenMlsProvider;
use openmls_traits::signatures::{Signer, SignerError};
use openmls_traits::types::SignatureScheme;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tls_codec::{Deserialize as _, Serialize as _};

/// A certificate and a key, whether they belong together or not.
pub(crate) struct Forger {
    chain: Vec<Vec<u8>>,
    key: SigningKey,
}

struct Pen<'a>(&'a SigningKey);

impl Signer for Pen<'_> {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        Ok(self.0.sign(payload).to_bytes().to_vec())
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

impl Forger {
    pub(crate) fn new(certificate: &Path, key: &Path) -> Self {
        let chain = vec![CertificateDer::from_pem_file(certificate).expect("minted").to_vec()];
        Self { chain, key: read_signing_key(key).expect("minted") }
    }

    fn credential(&self) -> CredentialWithKey {
        CredentialWithKey {
            credential: x509_credential(&self.chain).expect("one certificate"),
            signature_key: self.key.verifying_key().to_bytes().to_vec().into(),
        }
    }

    /// A one-time key package that lives from an hour ago for so many seconds.
    pub(crate) fn key_package(&self, seconds: u64) -> Vec<u8> {
        use lianxin_types::Clock as _;
        let start = lianxin_types::SystemClock.now().seconds() - 3_600;
        let provider = OpenMlsRustCrypto::default();
        let built = KeyPackage::builder()
            .key_package_lifetime(Lifetime::init(start, start + seconds))
            .leaf_node_capabilities(capabilities())
            .build(CIPHERSUITE, &provider, &Pen(&self.key), self.credential());
        let package = built.expect("openmls makes it").into_key_package();
        MlsMessageOut::from(package).to_bytes().expect("bytes")
    }

    /// A group with this device alone, for a channel that names these departments, whoever this device is.
    pub(crate) fn start(
        &self,
        federation: &Federation,
        channel: ChannelId,
        zone: &ZoneId,
        departments: &[&str],
    ) -> StartBundle {
        self.start_behind(federation, (channel, 0), zone, departments, [7; 32], lianxin_tlog::chain_start(&channel))
    }

    /// The same as another of the channel's groups, with a slot key and a head of one's own choice.
    pub(crate) fn start_behind(
        &self,
        federation: &Federation,
        (channel, incarnation): (ChannelId, u32),
        zone: &ZoneId,
        departments: &[&str],
        slot_key: [u8; 32],
        head: Head,
    ) -> StartBundle {
        let removal_key = federation.bundle().bundle.zone(zone).expect("in the bundle").removal_key;
        let named = crate::talk::departments(departments).into_iter().map(NamedDepartment::without_policy).collect();
        let label = crate::talk::label();
        let context = ChannelContext::new(channel, zone.clone(), label, named, Digest::ZERO, slot_key);
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(CIPHERSUITE)
            .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .capabilities(capabilities())
            .with_group_context_extensions(group_context_extensions(&context.expect("sound"), &removal_key))
            .build();
        let provider = OpenMlsRustCrypto::default();
        let id = GroupId::from_slice(&[&channel.0[..], &incarnation.to_be_bytes()].concat());
        let group = MlsGroup::new_with_group_id(&provider, &Pen(&self.key), &config, id, self.credential());
        let group = group.expect("openmls makes it");
        let head = head_extension(&head);
        let info =
            group.export_group_info_with_additional_extensions(provider.crypto(), &Pen(&self.key), false, [head]);
        StartBundle {
            group_info: info.expect("openmls makes it").to_bytes().expect("bytes"),
            ratchet_tree: group.export_ratchet_tree().tls_serialize_detached().expect("bytes"),
        }
    }

    /// An external commit as openmls makes it: it takes out the leaf with this key, if there is one.
    pub(crate) fn external_commit(&self, group_info: &[u8], tree: &[u8]) -> CommitBundle {
        self.external_commit_of(group_info, tree, |_| true)
    }

    /// The same with those of its proposals alone that are wanted.
    pub(crate) fn external_commit_of(
        &self,
        group_info: &[u8],
        tree: &[u8],
        wanted: impl FnMut(&Proposal) -> bool,
    ) -> CommitBundle {
        let mut wanted = wanted;
        let info = parse_group_info(group_info).expect("a group info");
        let head = read_head(info.extensions()).expect("a head");
        let provider = OpenMlsRustCrypto::default();
        let (_, bundle) = MlsGroup::external_commit_builder()
            .with_ratchet_tree(parse_tree(tree).expect("a tree"))
            .with_config(MlsGroupJoinConfig::builder().use_ratchet_tree_extension(false).build())
            .with_aad(AuthenticatedData { head }.to_bytes().to_vec())
            .build_group(&provider, info, self.credential())
            .expect("openmls takes the group")
            .leaf_node_parameters(LeafNodeParameters::builder().with_capabilities(capabilities()).build())
            .load_psks(provider.storage())
            .expect("no keys")
            .create_group_info_with_extensions([head_extension(&head)])
            .expect("a head")
            .build(provider.rand(), provider.crypto(), &Pen(&self.key), |queued| wanted(queued.proposal()))
            .expect("openmls makes it")
            .finalize(&provider)
            .expect("memory does not fail");
        let (commit, _, group_info) = bundle.into_messages();
        CommitBundle {
            commit: commit.to_bytes().expect("bytes"),
            welcome: Vec::new(),
            group_info: group_info.expect("asked for").to_bytes().expect("bytes"),
        }
    }

    /// A GroupInfo with other extensions, signed again: `change` gets the bytes of all its extensions.
    pub(crate) fn with_extensions(&self, group_info: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let behind = &group_info[group_info.len() - GROUP_INFO_TAIL_BYTES..][..33 + 4];
        let (before, extensions) = extensions_of(group_info);
        let mut extensions = extensions.to_vec();
        change(&mut extensions);
        let content = [before, &vector(&extensions), behind].concat();
        let to_sign = [vector(b"MLS 1.0 GroupInfoTBS"), vector(&content[4..])].concat();
        [&content[..], &vector(&self.key.sign(&to_sign).to_bytes())].concat()
    }

    /// A commit of a member that names `head`, adds the owners of `packages` (MLSMessages) and renews the own leaf.
    pub(crate) fn commit(
        &self,
        tx: &Transaction<'_>,
        channel: ChannelId,
        head: Head,
        packages: &[Bytes],
    ) -> CommitBundle {
        let provider = OwnState::new(tx);
        let mut group = self.group(&provider, channel);
        group.set_aad(AuthenticatedData { head }.to_bytes().to_vec());
        let bundle = group
            .commit_builder()
            .leaf_node_parameters(LeafNodeParameters::default())
            .force_self_update(true)
            .propose_adds(packages.iter().map(|package| parse_key_package(package)))
            .load_psks(provider.storage())
            .expect("no keys")
            .create_group_info_with_extensions([head_extension(&head)])
            .expect("a head")
            .build(provider.rand(), provider.crypto(), &Pen(&self.key), |_| true)
            .expect("openmls makes it")
            .stage_commit(&provider)
            .expect("staged");
        let (commit, welcome, group_info) = bundle.into_messages();
        CommitBundle {
            commit: commit.to_bytes().expect("bytes"),
            welcome: welcome.map(|welcome| welcome.to_bytes().expect("bytes")).unwrap_or_default(),
            group_info: group_info.expect("asked for").to_bytes().expect("bytes"),
        }
    }

    /// A commit of a member as a PrivateMessage.
    pub(crate) fn private_commit(&self, tx: &Transaction<'_>, channel: ChannelId) -> Vec<u8> {
        let provider = OwnState::new(tx);
        let mut group = self.group(&provider, channel);
        let hidden = MlsGroupJoinConfig::builder().wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY).build();
        group.set_configuration(provider.storage(), &hidden).expect("stored");
        let made = group.self_update(&provider, &Pen(&self.key), LeafNodeParameters::default());
        made.expect("openmls makes it").into_commit().to_bytes().expect("bytes")
    }

    /// A message of a member that names `head`.
    pub(crate) fn message(&self, tx: &Transaction<'_>, channel: ChannelId, head: Head) -> Bytes {
        let provider = OwnState::new(tx);
        let mut group = self.group(&provider, channel);
        group.set_aad(AuthenticatedData { head }.to_bytes().to_vec());
        let made = group.create_message(&provider, &Pen(&self.key), b"anything").expect("openmls makes it");
        made.to_bytes().expect("bytes").into()
    }

    fn group(&self, provider: &OwnState<'_>, channel: ChannelId) -> MlsGroup {
        let id = GroupId::from_slice(&[&channel.0[..], &[0; 4]].concat());
        MlsGroup::load(provider.storage(), &id).expect("readable").expect("a member")
    }

    /// The external commit with other proposals, signed again for the epoch of `group_info`.
    pub(crate) fn with_proposals(&self, commit: &[u8], group_info: &[u8], proposals: &[Vec<u8>]) -> Vec<u8> {
        let parts = ExternalCommit::parse(commit);
        let content = [parts.before, &vector(&proposals.concat()), parts.path].concat();
        parts.signed(content, &self.key, group_info)
    }

    /// The external commit with another authenticated data, signed again.
    pub(crate) fn with_authenticated(&self, commit: &[u8], group_info: &[u8], data: &[u8]) -> Vec<u8> {
        let parts = ExternalCommit::parse(commit);
        // group id, epoch, sender; authenticated data; content type.
        let header = &parts.before[..FRAME_BYTES];
        let content = [header, &vector(data), &[CONTENT_COMMIT], &vector(parts.proposals), parts.path].concat();
        parts.signed(content, &self.key, group_info)
    }
}

/// openmls over a device's own state.
struct OwnState<'a> {
    crypto: RustCrypto,
    storage: MlsStorage<'a>,
}

impl<'a> OwnState<'a> {
    fn new(tx: &'a Transaction<'_>) -> Self {
        Self { crypto: RustCrypto::default(), storage: tx.mls() }
    }
}

impl<'a> OpenMlsProvider for OwnState<'a> {
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

fn parse_key_package(bytes: &[u8]) -> KeyPackage {
    let message = MlsMessageIn::tls_deserialize_exact(bytes).expect("a message");
    let MlsMessageBodyIn::KeyPackage(package) = message.extract() else { panic!("a key package") };
    package.validate(&RustCrypto::default(), ProtocolVersion::Mls10).expect("openmls takes it")
}

/// Takes `external_pub` out of the extensions of a GroupInfo, or gives another.
pub(crate) fn external_pub(other: Option<[u8; 32]>) -> impl FnOnce(&mut Vec<u8>) {
    move |extensions| {
        // Type 4; 33 bytes: a key of 32 with its length.
        let at = extensions.windows(4).position(|four| four == [0, 4, 33, 32]).expect("it is there");
        match other {
            Some(key) => extensions[at + 4..at + 36].copy_from_slice(&key),
            None => drop(extensions.drain(at..at + 36)),
        }
    }
}

/// Puts another head into the extensions of a GroupInfo.
pub(crate) fn other_head(head: Head) -> impl FnOnce(&mut Vec<u8>) {
    move |extensions| {
        let at = extensions.windows(3).position(|three| three == [0xF0, 0xA2, 40]).expect("it is there");
        extensions[at + 3..at + 11].copy_from_slice(&head.sequence.0.to_be_bytes());
        extensions[at + 11..at + 43].copy_from_slice(&head.chain_hash.0);
    }
}

/// Confirmation tag with its length, signer, signature with its length.
const GROUP_INFO_TAIL_BYTES: usize = 33 + 4 + 66;
/// `external_pub` and the head, in whatever order.
const GROUP_INFO_EXTENSION_BYTES: usize = 36 + 43;

/// What stands in front of the extensions of a GroupInfo, and the extensions.
fn extensions_of(group_info: &[u8]) -> (&[u8], &[u8]) {
    let end = group_info.len() - GROUP_INFO_TAIL_BYTES;
    let start = end - GROUP_INFO_EXTENSION_BYTES - 2;
    let (extensions, rest) = split_vector(&group_info[start..]);
    assert_eq!((extensions.len(), rest.len()), (GROUP_INFO_EXTENSION_BYTES, GROUP_INFO_TAIL_BYTES));
    (&group_info[..start], extensions)
}

/// The proposals of a commit as they stand there, each with its ProposalOrRef type in front.
pub(crate) fn proposals_of(commit: &[u8]) -> Vec<u8> {
    ExternalCommit::parse(commit).proposals.to_vec()
}

/// The ExternalInit of an external commit of openmls, which puts it first.
pub(crate) fn external_init(commit: &[u8]) -> Vec<u8> {
    let proposals = ExternalCommit::parse(commit).proposals;
    // ProposalOrRef type, proposal type 6, kem output of 32 bytes with its length.
    let init = &proposals[..1 + 2 + 1 + 32];
    assert_eq!(init[..4], [1, 0, 6, 32]);
    init.to_vec()
}

pub(crate) fn remove(leaf: u32) -> Vec<u8> {
    [&[1, 0, 3][..], &leaf.to_be_bytes()].concat()
}

/// `key_package` is an MLSMessage.
pub(crate) fn add(key_package: &[u8]) -> Vec<u8> {
    [&[1, 0, 1][..], &key_package[4..]].concat()
}

pub(crate) fn pre_shared_key() -> Vec<u8> {
    [&[1, 0, 4, 1][..], &vector(b"a key"), &vector(&[7; 32])].concat()
}

const CONTENT_COMMIT: u8 = 3;
/// version u16, wire format u16; group id with its length 21; epoch u64; sender u8.
const FRAME_BYTES: usize = 4 + 21 + 8 + 1;
/// Signature of 64 bytes with its length 66, confirmation tag of 32 bytes with its length 33.
const AUTH_BYTES: usize = 66 + 33;

/// A PublicMessage with an external commit, taken apart (RFC 9420 sections 6, 6.2, 12.4).
struct ExternalCommit<'a> {
    /// Everything in front of the proposals.
    before: &'a [u8],
    proposals: &'a [u8],
    path: &'a [u8],
    tag: &'a [u8],
}

impl<'a> ExternalCommit<'a> {
    fn parse(bytes: &'a [u8]) -> Self {
        assert_eq!(bytes[FRAME_BYTES - 1], 4, "sender type new_member_commit");
        let (_, rest) = split_vector(&bytes[FRAME_BYTES..]);
        assert_eq!(rest[0], CONTENT_COMMIT);
        let before = &bytes[..bytes.len() - rest.len() + 1];
        let (proposals, rest) = split_vector(&rest[1..]);
        let (path, auth) = rest.split_at(rest.len() - AUTH_BYTES);
        Self { before, proposals, path, tag: &auth[66..] }
    }

    /// `content` with a signature over it and the group context, and the old confirmation tag.
    fn signed(&self, content: Vec<u8>, key: &SigningKey, group_info: &[u8]) -> Vec<u8> {
        let info = parse_group_info(group_info).expect("a group info");
        let context = info.group_context().tls_serialize_detached().expect("encodes");
        let to_sign = [&content[..], &context].concat();
        let to_sign = [vector(b"MLS 1.0 FramedContentTBS"), vector(&to_sign)].concat();
        let signature = key.sign(&to_sign).to_bytes();
        [&content[..], &vector(&signature), self.tag].concat()
    }
}

/// RFC 9420 section 2.1.2.
fn vector(bytes: &[u8]) -> Vec<u8> {
    tls_codec::VLByteSlice(bytes).tls_serialize_detached().expect("short enough")
}

fn split_vector(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (length, prefix) = match bytes[0] >> 6 {
        0 => (usize::from(bytes[0]), 1),
        1 => (usize::from(u16::from_be_bytes([bytes[0] & 0x3F, bytes[1]])), 2),
        _ => (u32::from_be_bytes([bytes[0] & 0x3F, bytes[1], bytes[2], bytes[3]]) as usize, 4),
    };
    bytes[prefix..].split_at(length)
}
