//! Bytes to MLS messages: size first, the whole of it, and only the kind that belongs in the place.

use std::collections::BTreeSet;
use std::fmt;

use lianxin_types::{Epoch, GroupId, LIMITS};
use openmls::messages::group_info::VerifiableGroupInfo;
use openmls::prelude::tls_codec::{self, Deserialize, Serialize as _, VLBytes};
use openmls::prelude::{
    ContentType, MlsMessageBodyIn, MlsMessageIn, ProposalOrRefIn, ProtocolMessage, RatchetTreeIn, Sender, Welcome,
};

use crate::{AuthenticatedData, ProfileError};

/// Which handshake message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandshakeKind {
    /// A commit.
    Commit,
    /// A proposal.
    Proposal,
}

/// A commit or proposal that is not verified yet.
#[derive(Clone)]
pub struct HandshakeFrame {
    /// The group that it names.
    pub group: GroupId,
    /// The epoch that it names.
    pub epoch: Epoch,
    /// What it holds.
    pub kind: HandshakeKind,
    /// Who it says has sent it.
    pub sender: Sender,
    /// For `process_message` of a group.
    pub message: ProtocolMessage,
}

/// An application message that is not verified yet.
#[derive(Debug, Clone)]
pub struct ApplicationFrame {
    /// The group that it names.
    pub group: GroupId,
    /// The epoch that it names.
    pub epoch: Epoch,
    /// The head that it says its sender had processed; verified only when it is decrypted.
    pub authenticated: AuthenticatedData,
    /// For `process_message` of a group.
    pub message: ProtocolMessage,
}

impl fmt::Debug for HandshakeFrame {
    /// Without the message: it may hold a group context, and with it the slot key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, epoch, kind, sender, message: _ } = self;
        let mut shown = f.debug_struct("HandshakeFrame");
        shown.field("group", group).field("epoch", epoch).field("kind", kind).field("sender", sender);
        shown.finish_non_exhaustive()
    }
}

/// A commit or proposal: an MLSMessage with a PublicMessage, at most 1 MiB. A commit lists no proposal twice.
///
/// # Errors
/// [`ProfileError::InvalidMls`], [`ProfileError::InvalidCommit`].
pub fn parse_handshake(bytes: &[u8]) -> Result<HandshakeFrame, ProfileError> {
    const WHAT: &str = "public handshake message";
    let MlsMessageBodyIn::PublicMessage(message) = parse(bytes, LIMITS.commit_bundle_bytes_max, WHAT)? else {
        return Err(ProfileError::InvalidMls { what: WHAT });
    };
    let kind = match message.content_type() {
        ContentType::Commit => {
            check_proposals_differ(bytes)?;
            HandshakeKind::Commit
        }
        ContentType::Proposal => HandshakeKind::Proposal,
        ContentType::Application => return Err(ProfileError::InvalidMls { what: WHAT }),
    };
    let sender = message.sender().clone();
    let message = ProtocolMessage::from(message);
    let (group, epoch) = place(&message, WHAT)?;
    Ok(HandshakeFrame { group, epoch, kind, sender, message })
}

/// An application message: an MLSMessage with a PrivateMessage, at most `LIMITS.message_mls_bytes_max`, with the
/// authenticated data of PROTOCOL 4.
///
/// # Errors
/// [`ProfileError::InvalidMls`].
pub fn parse_application(bytes: &[u8]) -> Result<ApplicationFrame, ProfileError> {
    const WHAT: &str = "private application message";
    let MlsMessageBodyIn::PrivateMessage(message) = parse(bytes, LIMITS.message_mls_bytes_max, WHAT)? else {
        return Err(ProfileError::InvalidMls { what: WHAT });
    };
    let authenticated = AuthenticatedData::from_bytes(message.aad())
        .map_err(|_| ProfileError::InvalidMls { what: "authenticated data of a message" })?;
    let message = ProtocolMessage::from(message);
    if message.content_type() != ContentType::Application {
        return Err(ProfileError::InvalidMls { what: WHAT });
    }
    let (group, epoch) = place(&message, WHAT)?;
    Ok(ApplicationFrame { group, epoch, authenticated, message })
}

/// A Welcome: an MLSMessage, at most 1 MiB.
///
/// # Errors
/// [`ProfileError::InvalidMls`].
pub fn parse_welcome(bytes: &[u8]) -> Result<Welcome, ProfileError> {
    match parse(bytes, LIMITS.commit_bundle_bytes_max, "welcome")? {
        MlsMessageBodyIn::Welcome(welcome) => Ok(welcome),
        _ => Err(ProfileError::InvalidMls { what: "welcome" }),
    }
}

/// A GroupInfo: an MLSMessage, at most 1 MiB. Its signature is not verified yet.
///
/// # Errors
/// [`ProfileError::InvalidMls`].
pub fn parse_group_info(bytes: &[u8]) -> Result<VerifiableGroupInfo, ProfileError> {
    match parse(bytes, LIMITS.commit_bundle_bytes_max, "group info")? {
        MlsMessageBodyIn::GroupInfo(group_info) => Ok(group_info),
        _ => Err(ProfileError::InvalidMls { what: "group info" }),
    }
}

/// A public tree: `optional<Node> ratchet_tree<V>` (RFC 9420 section 12.4.3.3), at most 1 MiB.
///
/// # Errors
/// [`ProfileError::InvalidMls`].
pub fn parse_tree(bytes: &[u8]) -> Result<RatchetTreeIn, ProfileError> {
    let what = "ratchet tree";
    if bytes.len() > LIMITS.commit_bundle_bytes_max {
        return Err(ProfileError::InvalidMls { what });
    }
    RatchetTreeIn::tls_deserialize_exact(bytes).map_err(|_| ProfileError::InvalidMls { what })
}

/// The one MLSMessage in `bytes`, if they are no more than `bytes_max`.
pub(crate) fn parse(bytes: &[u8], bytes_max: usize, what: &'static str) -> Result<MlsMessageBodyIn, ProfileError> {
    if bytes.len() > bytes_max {
        return Err(ProfileError::InvalidMls { what });
    }
    let message = MlsMessageIn::tls_deserialize_exact(bytes).map_err(|_| ProfileError::InvalidMls { what })?;
    Ok(message.extract())
}

/// openmls takes the second of two equal proposals for the first. RFC 9420 section 12.2 forbids both and other libraries
/// refuse the commit, so that the members of one group would part.
fn check_proposals_differ(commit: &[u8]) -> Result<(), ProfileError> {
    let proposals = proposals_of(commit).map_err(|_| ProfileError::InvalidMls { what: "commit" })?;
    let mut seen = BTreeSet::new();
    for proposal in &proposals {
        let encoded = proposal.tls_serialize_detached().map_err(|_| ProfileError::InvalidMls { what: "commit" })?;
        if !seen.insert(encoded) {
            return Err(ProfileError::InvalidCommit { fault: "a proposal stands in it twice" });
        }
    }
    Ok(())
}

/// The proposals of a commit in a PublicMessage. openmls keeps them to itself, so they are read where RFC 9420 sections 6 and
/// 12.4 put them.
fn proposals_of(mut rest: &[u8]) -> Result<Vec<ProposalOrRefIn>, tls_codec::Error> {
    let _version_and_format = u32::tls_deserialize(&mut rest)?;
    let _group = VLBytes::tls_deserialize(&mut rest)?;
    let _epoch = u64::tls_deserialize(&mut rest)?;
    let _sender = Sender::tls_deserialize(&mut rest)?;
    let _authenticated = VLBytes::tls_deserialize(&mut rest)?;
    let _content_type = u8::tls_deserialize(&mut rest)?;
    Vec::tls_deserialize(&mut rest)
}

fn place(message: &ProtocolMessage, what: &'static str) -> Result<(GroupId, Epoch), ProfileError> {
    let group = GroupId::try_from(message.group_id().as_slice()).map_err(|_| ProfileError::InvalidMls { what })?;
    Ok((group, Epoch(message.epoch().as_u64())))
}
