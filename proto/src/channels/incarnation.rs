//! The start of a channel's next incarnation.

use bytes::Bytes;
use lianxin_types::{ChannelId, IdempotencyId, LIMITS};

use super::{bundle, v1};
use crate::fields::{self, ParseError};

/// Start of the group that carries a channel on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartIncarnation {
    /// Recognises a repeat.
    pub id: IdempotencyId,
    /// The channel.
    pub channel: ChannelId,
    /// MLSMessage with the GroupInfo of epoch 0.
    pub group_info: Bytes,
    /// `optional<Node> ratchet_tree<V>` of epoch 0.
    pub ratchet_tree: Bytes,
}

impl TryFrom<v1::StartIncarnationRequest> for StartIncarnation {
    type Error = ParseError;

    fn try_from(wire: v1::StartIncarnationRequest) -> Result<Self, ParseError> {
        bundle("ratchet_tree", &[&wire.group_info, &wire.ratchet_tree])?;
        Ok(Self {
            id: fields::idempotency_id(&wire.idempotency_id)?,
            channel: fields::channel_id(&wire.channel_id)?,
            group_info: fields::blob("group_info", wire.group_info, LIMITS.commit_bundle_bytes_max)?,
            ratchet_tree: fields::blob("ratchet_tree", wire.ratchet_tree, LIMITS.commit_bundle_bytes_max)?,
        })
    }
}

impl From<StartIncarnation> for v1::StartIncarnationRequest {
    fn from(start: StartIncarnation) -> Self {
        Self {
            idempotency_id: fields::wire(start.id.0),
            channel_id: fields::wire(start.channel.0),
            group_info: start.group_info,
            ratchet_tree: start.ratchet_tree,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_goes_over_and_one_that_is_too_large_does_not() {
        let start = StartIncarnation {
            id: IdempotencyId([1; 16]),
            channel: ChannelId([2; 16]),
            group_info: Bytes::from_static(b"info"),
            ratchet_tree: Bytes::from_static(b"tree"),
        };
        let wire = v1::StartIncarnationRequest::from(start.clone());
        assert_eq!(StartIncarnation::try_from(wire.clone()), Ok(start));
        let half = Bytes::from(vec![0; LIMITS.commit_bundle_bytes_max / 2 + 1]);
        let large = v1::StartIncarnationRequest { group_info: half.clone(), ratchet_tree: half, ..wire.clone() };
        assert!(matches!(StartIncarnation::try_from(large), Err(ParseError::TooLarge { .. })));
        let nothing = v1::StartIncarnationRequest { group_info: Bytes::new(), ..wire };
        assert_eq!(StartIncarnation::try_from(nothing), Err(ParseError::Missing { field: "group_info" }));
    }
}
