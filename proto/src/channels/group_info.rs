//! The GroupInfo that a channel serves: asked for and replaced.

use bytes::Bytes;
use lianxin_types::{ChannelId, IdempotencyId, LIMITS, Sequence};

use super::v1;
use crate::fields::{self, ParseError};

/// Asks for the public part of the current epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetGroupInfo {
    /// The channel.
    pub channel: ChannelId,
}

impl TryFrom<v1::GetGroupInfoRequest> for GetGroupInfo {
    type Error = ParseError;

    fn try_from(wire: v1::GetGroupInfoRequest) -> Result<Self, ParseError> {
        Ok(Self { channel: fields::channel_id(&wire.channel_id)? })
    }
}

impl From<GetGroupInfo> for v1::GetGroupInfoRequest {
    fn from(get: GetGroupInfo) -> Self {
        Self { channel_id: fields::wire(get.channel.0) }
    }
}

/// The public part of the current epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInfo {
    /// MLSMessage with the GroupInfo, as the last committer signed it, or the member that replaced it.
    pub group_info: Bytes,
    /// `optional<Node> ratchet_tree<V>`.
    pub ratchet_tree: Bytes,
    /// The channel's head when it was read.
    pub sequence: Sequence,
}

impl TryFrom<v1::GetGroupInfoResponse> for GroupInfo {
    type Error = ParseError;

    fn try_from(wire: v1::GetGroupInfoResponse) -> Result<Self, ParseError> {
        Ok(Self {
            group_info: fields::blob("group_info", wire.group_info, LIMITS.commit_bundle_bytes_max)?,
            ratchet_tree: fields::blob("ratchet_tree", wire.ratchet_tree, LIMITS.commit_bundle_bytes_max)?,
            sequence: fields::position("sequence", wire.sequence)?,
        })
    }
}

impl From<GroupInfo> for v1::GetGroupInfoResponse {
    fn from(info: GroupInfo) -> Self {
        Self { group_info: info.group_info, ratchet_tree: info.ratchet_tree, sequence: info.sequence.0 }
    }
}

/// A GroupInfo of the current epoch for the one that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplaceGroupInfo {
    /// Recognises a repeat.
    pub id: IdempotencyId,
    /// The channel.
    pub channel: ChannelId,
    /// MLSMessage with the GroupInfo.
    pub group_info: Bytes,
}

impl TryFrom<v1::ReplaceGroupInfoRequest> for ReplaceGroupInfo {
    type Error = ParseError;

    fn try_from(wire: v1::ReplaceGroupInfoRequest) -> Result<Self, ParseError> {
        Ok(Self {
            id: fields::idempotency_id(&wire.idempotency_id)?,
            channel: fields::channel_id(&wire.channel_id)?,
            group_info: fields::blob("group_info", wire.group_info, LIMITS.commit_bundle_bytes_max)?,
        })
    }
}

impl From<ReplaceGroupInfo> for v1::ReplaceGroupInfoRequest {
    fn from(replace: ReplaceGroupInfo) -> Self {
        Self {
            idempotency_id: fields::wire(replace.id.0),
            channel_id: fields::wire(replace.channel.0),
            group_info: replace.group_info,
        }
    }
}
