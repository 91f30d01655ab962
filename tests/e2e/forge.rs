//! MLS messages that no honest engine makes: with another's certificate, with a key of one's own choice, with proposals that
//! were put in afterwards. Each is signed as it should be, so that only our own rules stand against it.

use std::path::Path;

use ed25519_dalek::{Signer as _, SigningKey};
use lianxin_certs_dev::read_signing_key;
use lianxin_mls::CommitBundle;
use lianxin_profile::{
    AuthenticatedData, capabilities, head_extension, parse_group_info, parse_tree, read_head, x509_credential,
};
use openmls::prelude::{CredentialWithKey, LeafNodeParameters, MlsGroup, MlsGroupJoinConfig, Proposal};
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::OpenMlsProvider as _;
use openmls_traits::signatures::{Signer, SignerError};
use openmls_traits::types::SignatureScheme;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tls_codec::Serialize as _;

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
