//! The chain over a channel's log: each member can tell whether it saw the same events in the same order as the sender.

use lianxin_types::{ChannelId, DecodeError, DeviceUri, Digest, Sequence, Timestamp, labelled_sha256};

/// Kind of an event in a channel's log. The numbers are hashed and stored; they equal those of the contract.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EventKind {
    /// The channel's group starts.
    Start = 1,
    /// An MLS commit.
    Commit = 2,
    /// An MLS application message.
    Application = 3,
    /// An MLS proposal.
    Proposal = 4,
    /// A member's report of a commit that it cannot process.
    Report = 5,
    /// The gateway tells the channel something.
    Notice = 6,
}

impl EventKind {
    /// All kinds, ascending by number.
    pub const ALL: [Self; 6] =
        [Self::Start, Self::Commit, Self::Application, Self::Proposal, Self::Report, Self::Notice];
}

impl TryFrom<u8> for EventKind {
    type Error = DecodeError;

    fn try_from(value: u8) -> Result<Self, DecodeError> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == value).ok_or(DecodeError::OutOfRange { field: "event kind" })
    }
}

/// A position in a channel's log and the chain hash there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Head {
    /// Sequence of the last event covered; 0 before the first.
    pub sequence: Sequence,
    /// Chain hash at that sequence.
    pub chain_hash: Digest,
}

/// What one event adds to the chain.
#[derive(Clone, Copy, Debug)]
pub struct ChainLink<'a> {
    /// Its position: one more than the head before it.
    pub sequence: Sequence,
    /// Its kind.
    pub kind: EventKind,
    /// When the gateway accepted it.
    pub gateway_time: Timestamp,
    /// When the zone stops keeping it; `None` is hashed as 0.
    pub expiry: Option<Timestamp>,
    /// Who sent it.
    pub sender: &'a DeviceUri,
    /// SHA-256 of its MLS bytes.
    pub mls_hash: Digest,
}

const LABEL: &str = "lianxin/chain/v1";

/// h0 = SHA-256(label, channel id): the head of a channel without events.
pub fn chain_start(channel: &ChannelId) -> Head {
    Head { sequence: Sequence(0), chain_hash: labelled_sha256(LABEL, &[channel.as_bytes()]) }
}

/// hn = SHA-256(label, h(n-1), sequence u64, kind u8, gateway time u64, expiry u64, sender length u32 and text, SHA-256 of
/// the MLS bytes), integers big-endian, times in microseconds (PROTOCOL 4).
pub fn chain_next(before: &Digest, link: &ChainLink<'_>) -> Head {
    let sender = link.sender.as_str().as_bytes();
    let chain_hash = labelled_sha256(
        LABEL,
        &[
            &before.0,
            &link.sequence.0.to_be_bytes(),
            &[link.kind as u8],
            &link.gateway_time.0.to_be_bytes(),
            &link.expiry.map_or(0, |end| end.0).to_be_bytes(),
            &(sender.len() as u32).to_be_bytes(),
            sender,
            &link.mls_hash.0,
        ],
    );
    Head { sequence: link.sequence, chain_hash }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(sender: &DeviceUri) -> ChainLink<'_> {
        ChainLink {
            sequence: Sequence(1),
            kind: EventKind::Application,
            gateway_time: Timestamp(3),
            expiry: None,
            sender,
            mls_hash: Digest::sha256(b"mls"),
        }
    }

    #[test]
    fn golden() {
        let start = chain_start(&ChannelId([1; 16]));
        assert_eq!(start.chain_hash.to_hex(), "4ca365231c33cf3cabf97be012f6b52581880825ee331d599fd6a4bbf35f0ebd");
        let sender: DeviceUri = "lianxin://jiwei/app/a/1".parse().expect("well formed");
        let next = chain_next(&start.chain_hash, &link(&sender));
        assert_eq!(next.sequence, Sequence(1));
        assert_eq!(next.chain_hash.to_hex(), "dbbafba4698595711a44e8c0492d748ed51794803ae67d9bf65302cfd963edf1");
    }

    #[test]
    fn every_field_counts() {
        let sender: DeviceUri = "lianxin://jiwei/app/a/1".parse().expect("well formed");
        let other: DeviceUri = "lianxin://jiwei/app/a/2".parse().expect("well formed");
        let base = link(&sender);
        let variants = [
            ChainLink { sequence: Sequence(2), ..base },
            ChainLink { kind: EventKind::Commit, ..base },
            ChainLink { gateway_time: Timestamp(4), ..base },
            ChainLink { expiry: Some(Timestamp(1)), ..base },
            ChainLink { sender: &other, ..base },
            ChainLink { mls_hash: Digest::sha256(b"other"), ..base },
        ];
        let expected = chain_next(&Digest::ZERO, &base);
        assert_ne!(chain_next(&Digest([1; 32]), &base).chain_hash, expected.chain_hash);
        for variant in variants {
            assert_ne!(chain_next(&Digest::ZERO, &variant).chain_hash, expected.chain_hash, "{variant:?}");
        }
    }
}
