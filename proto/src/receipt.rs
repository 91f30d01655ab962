//! What the gateway owes whoever it accepted something from (PROTOCOL 8).

use bytes::Bytes;
use lianxin_types::{Digest, Sequence, Timestamp};

use crate::fields::{self, ParseError};
use crate::types::v1;

/// Says that an event is durable, in order and audited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Position in the channel's log; 0 for what makes no event in a channel.
    pub sequence: Sequence,
    /// When the gateway accepted it.
    pub gateway_time: Timestamp,
    /// When the zone stops keeping it; `None` for no end.
    pub expiry: Option<Timestamp>,
    /// Version of the policy under which it was accepted; 0 while no policy is published.
    pub policy_version: u64,
    /// Index of its leaf in the zone's audit log, dense from 0.
    pub leaf_index: u64,
    /// RFC 6962 leaf hash.
    pub leaf_hash: Digest,
    /// Chain hash of the channel's log at that position; `None` for what makes no event in a channel.
    pub chain_hash: Option<Digest>,
}

impl From<Receipt> for v1::Receipt {
    fn from(receipt: Receipt) -> Self {
        Self {
            sequence: receipt.sequence.0,
            gateway_time_us: receipt.gateway_time.0,
            expiry_us: fields::end_to_wire(receipt.expiry),
            policy_version: receipt.policy_version,
            leaf_index: receipt.leaf_index,
            leaf_hash: Bytes::copy_from_slice(&receipt.leaf_hash.0),
            promise: None,
            chain_hash: receipt.chain_hash.map(|hash| fields::wire(hash.0)).unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::Receipt> for Receipt {
    type Error = ParseError;

    fn try_from(wire: v1::Receipt) -> Result<Self, ParseError> {
        Ok(Self {
            sequence: Sequence(wire.sequence),
            gateway_time: fields::time("gateway_time_us", wire.gateway_time_us)?,
            expiry: fields::end(wire.expiry_us),
            policy_version: wire.policy_version,
            leaf_index: wire.leaf_index,
            leaf_hash: fields::digest("leaf_hash", &wire.leaf_hash)?,
            chain_hash: match wire.chain_hash.is_empty() {
                true => None,
                false => Some(fields::digest("chain_hash", &wire.chain_hash)?),
            },
        })
    }
}

/// A receipt that a response must carry.
pub(crate) fn required(wire: Option<v1::Receipt>) -> Result<Receipt, ParseError> {
    fields::present("receipt", wire)?.try_into()
}

#[cfg(test)]
pub(crate) mod tests {
    use prost::Message;

    use super::*;

    pub(crate) fn receipt() -> Receipt {
        Receipt {
            sequence: Sequence(7),
            gateway_time: Timestamp(1_700_000_000_000_000),
            expiry: None,
            policy_version: 3,
            leaf_index: 9,
            leaf_hash: Digest([5; 32]),
            chain_hash: Some(Digest([6; 32])),
        }
    }

    #[test]
    fn golden_and_back() {
        let wire = v1::Receipt::from(receipt());
        // Encoded by hand, tag by tag, in Python.
        let begin = &b"\x08\x07\x10\x80\x80\xf9\xc0\xc1\xc4\x82\x03\x20\x03\x28\x09\x32\x20"[..];
        let expect = [begin, &[5; 32], b"\x42\x20", &[6; 32]].concat();
        assert_eq!(wire.encode_to_vec(), expect);
        // Of what makes no event, and of a gateway that does not tell.
        let bare = v1::Receipt { chain_hash: Bytes::new(), ..wire.clone() };
        assert_eq!(Receipt::try_from(bare), Ok(Receipt { chain_hash: None, ..receipt() }));
        assert_eq!(Receipt::try_from(wire), Ok(receipt()));
    }

    #[test]
    fn a_receipt_without_time_or_leaf_is_refused() {
        let wire = v1::Receipt::from(receipt());
        let late = v1::Receipt { gateway_time_us: 0, ..wire.clone() };
        assert_eq!(Receipt::try_from(late), Err(ParseError::Missing { field: "gateway_time_us" }));
        let bare = v1::Receipt { leaf_hash: Bytes::new(), ..wire };
        assert_eq!(Receipt::try_from(bare), Err(ParseError::Missing { field: "leaf_hash" }));
        let cut = v1::Receipt { chain_hash: Bytes::from_static(&[1; 31]), ..v1::Receipt::from(receipt()) };
        assert_eq!(Receipt::try_from(cut), Err(ParseError::Malformed { field: "chain_hash" }));
        assert_eq!(required(None), Err(ParseError::Missing { field: "receipt" }));
    }
}
