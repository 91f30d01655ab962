//! Hash structures of Lianxin that both ends compute: the chain over a channel's log (PROTOCOL 4) and the audit leaf with
//! its parts (PROTOCOL 8).
//!
//! For: the store's committer, the audit room, the SDK's checks. Above: `store`, `audit`, `profile`, the SDK. Below:
//! `types`. Must never know: MLS, protobuf, where anything is stored, who may read it.

mod chain;
mod leaf;
mod part;

pub use chain::{ChainLink, EventKind, Head, chain_next, chain_start};
pub use leaf::{EventFamily, LEAF_BYTES, Leaf, RetentionClass, leaf_hash};
pub use part::{Audience, BodyError, DepartmentHeader, PartDraft, SharedHeader, leaf_commitment, part_commitment};
