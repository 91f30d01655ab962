//! Where a zone's log lives: the [`ZoneStore`] trait, the committer that orders and audits, a conformance suite for
//! engines, and the memory engine.
//!
//! For: `delivery`, `audit` and `operations`, which hand it units and read back what was committed. Engines (`store/sled`)
//! stand on its `Engine` seam. Below: `types`, `tlog`. Must never know: MLS, protobuf, policy, who may do what; it sees
//! bytes, ids and epochs.

mod unit;
mod zone_store;

pub use unit::{
    Accepted, AuditDraft, ChannelWrite, Effect, Expect, Idempotency, KeyPackageItem, NewEvent, Outcome, Refused, Seat, Unit,
};
pub use zone_store::{
    AuditRecord, Caps, ChannelHead, CommitFuture, Durability, GroupSnapshot, Health, InboxEntry, Member, Page, StoreError,
    StoredEvent, StoredPart, ZoneStore,
};
