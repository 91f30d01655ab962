//! The GroupInfo that comes with a commit or starts a group (PROTOCOL 5).

use std::fmt;

use lianxin_tlog::Head;
use openmls::messages::group_info::{GroupInfo, VerifiableGroupInfo};
use openmls::prelude::tls_codec::{Serialize, Size};
use openmls::prelude::{
    ExtensionType, Extensions, GroupContext, OpenMlsCrypto, SignaturePublicKey, SignatureScheme, Verifiable,
};

use crate::{HEAD_EXTENSION, ProfileError, parse_group_info, read_head};

/// Whose signature a GroupInfo must bear: the committer's leaf as it is after the commit.
#[derive(Clone, Copy, Debug)]
pub struct GroupInfoSigner<'a> {
    /// Index of the leaf.
    pub leaf: u32,
    /// Its Ed25519 key.
    pub signature_key: &'a [u8],
}

/// A GroupInfo that belongs to its commit.
#[derive(Clone)]
pub struct CheckedGroupInfo {
    /// As received, signature verified.
    pub group_info: VerifiableGroupInfo,
    /// The head that the committer had processed.
    pub head: Head,
}

impl fmt::Debug for CheckedGroupInfo {
    /// Without the GroupInfo: it holds the group context, and with it the slot key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckedGroupInfo").field("head", &self.head).finish_non_exhaustive()
    }
}

/// The GroupInfo in an MLSMessage, with exactly `external_pub` and the head extension, and that head. Its signature is not
/// verified: whoever has the tree of its epoch does that.
///
/// # Errors
/// [`ProfileError::InvalidMls`], [`ProfileError::InvalidGroupInfo`].
pub fn open_group_info(bytes: &[u8]) -> Result<(VerifiableGroupInfo, Head), ProfileError> {
    let group_info = parse_group_info(bytes)?;
    let head = check_extensions(group_info.extensions())?;
    Ok((group_info, head))
}

/// Checks an MLSMessage with a GroupInfo: context equal to `expected`, signed by `signer`, with exactly `external_pub` and
/// the head extension, and so without a ratchet tree.
///
/// Whether `external_pub` and the confirmation tag are right can be told by members only.
///
/// # Errors
/// [`ProfileError::InvalidMls`], [`ProfileError::InvalidGroupInfo`].
pub fn check_group_info(
    crypto: &impl OpenMlsCrypto,
    bytes: &[u8],
    expected: &GroupContext,
    signer: GroupInfoSigner<'_>,
) -> Result<CheckedGroupInfo, ProfileError> {
    let (group_info, head) = open_group_info(bytes)?;
    if group_info.group_context() != expected {
        return Err(fault("its group context is not the commit's"));
    }
    check_signer(crypto, &group_info, signer)?;
    Ok(CheckedGroupInfo { group_info, head })
}

/// Whether `signer` has signed it.
pub(crate) fn check_signer(
    crypto: &impl OpenMlsCrypto,
    group_info: &VerifiableGroupInfo,
    signer: GroupInfoSigner<'_>,
) -> Result<(), ProfileError> {
    if signer_index(group_info)? != signer.leaf {
        return Err(fault("its signer is not the committer"));
    }
    let key =
        SignaturePublicKey::from(signer.signature_key).into_signature_public_key_enriched(SignatureScheme::ED25519);
    match group_info.verify_no_out(crypto, &key) {
        Ok(()) => Ok(()),
        Err(_) => Err(fault("its signature does not verify")),
    }
}

/// Whether `one` says the same of its epoch as `other`: context, `external_pub` and confirmation tag. Signer and head may
/// differ. Members alone can compare a GroupInfo so, with one that they have made themselves.
///
/// # Errors
/// [`ProfileError::InvalidGroupInfo`] names what differs.
pub fn same_epoch(one: &VerifiableGroupInfo, other: &VerifiableGroupInfo) -> Result<(), ProfileError> {
    if one.group_context() != other.group_context() {
        return Err(fault("its group context is another"));
    }
    if one.extensions().external_pub() != other.extensions().external_pub() {
        return Err(fault("its external_pub is another"));
    }
    match confirmation_tag(one)? == confirmation_tag(other)? {
        true => Ok(()),
        false => Err(fault("its confirmation tag is another")),
    }
}

/// Exactly `external_pub` and the head.
pub(crate) fn check_extensions(extensions: &Extensions<GroupInfo>) -> Result<Head, ProfileError> {
    if extensions.external_pub().is_none() {
        return Err(fault("external_pub is missing"));
    }
    let ours = |kind| matches!(kind, ExtensionType::ExternalPub | ExtensionType::Unknown(HEAD_EXTENSION));
    if extensions.iter().any(|one| !ours(one.extension_type())) {
        return Err(fault("it has an extension that does not belong there"));
    }
    read_head(extensions)
}

/// The signer's leaf index. openmls keeps it to itself, so it is read where RFC 9420 section 12.4.3 puts it: the four bytes
/// in front of the signature, which comes last.
fn signer_index(group_info: &VerifiableGroupInfo) -> Result<u32, ProfileError> {
    let signer = in_front_of_signature::<4>(group_info, 0)?;
    Ok(u32::from_be_bytes(signer))
}

/// The confirmation tag of our suite, 32 bytes with their length in front, where it stands: before the signer.
fn confirmation_tag(group_info: &VerifiableGroupInfo) -> Result<[u8; 33], ProfileError> {
    in_front_of_signature::<33>(group_info, 4)
}

/// `N` bytes that end `between` bytes in front of the signature.
fn in_front_of_signature<const N: usize>(
    group_info: &VerifiableGroupInfo,
    between: usize,
) -> Result<[u8; N], ProfileError> {
    let short = fault("it is too short");
    let bytes = group_info.tls_serialize_detached().map_err(|_| fault("it cannot be encoded"))?;
    let behind = group_info.signature().tls_serialized_len() + between;
    let start = bytes.len().checked_sub(behind + N).ok_or(short.clone())?;
    bytes[start..].first_chunk::<N>().copied().ok_or(short)
}

const fn fault(fault: &'static str) -> ProfileError {
    ProfileError::InvalidGroupInfo { fault }
}
