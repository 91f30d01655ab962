//! What operations answer, as the contract's typed values.

use lianxin_operations::{Receipt, StoredEvent};
use lianxin_proto::messages;

/// An operation's receipt as the contract's.
pub(crate) fn receipt(receipt: Receipt) -> lianxin_proto::Receipt {
    lianxin_proto::Receipt {
        sequence: receipt.sequence,
        gateway_time: receipt.gateway_time,
        expiry: receipt.expiry,
        policy_version: receipt.policy_version,
        leaf_index: receipt.leaf_index,
        leaf_hash: receipt.leaf_hash,
        chain_hash: receipt.chain_hash,
    }
}

/// A stored event as the contract's.
pub(crate) fn event(event: &StoredEvent) -> messages::Event {
    messages::Event {
        channel: event.channel,
        sequence: event.head.sequence,
        kind: event.kind,
        sender: event.sender.clone(),
        gateway_time: event.gateway_time,
        expiry: event.expiry,
        label_reference: event.label_reference,
        mls: event.mls.clone(),
        leaf_index: event.leaf_index,
        leaf_hash: event.leaf_hash,
        idempotency_id: event.idempotency_id,
    }
}
