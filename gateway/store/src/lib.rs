//! Where a zone's log lives: the [`ZoneStore`] trait, the committer that orders and audits, a conformance suite for
//! engines, and the memory engine.
//!
//! For: `delivery`, `audit` and `operations`, which hand it units and read back what was committed. Engines (`store/sled`)
//! stand on its `Engine` seam. Below: `types`, `tlog`. Must never know: MLS, protobuf, policy, who may do what; it sees
//! bytes, ids and epochs.

mod apply;
mod change;
mod check;
mod committer;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod draft;
mod engine;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod golden;
mod guards;
mod inspection;
mod journal;
mod key;
mod ledger;
mod memory;
mod opening;
mod parts;
mod record;
mod reopening;
mod state;
mod unit;
mod zone;
mod zone_store;

pub use committer::Committer;
pub use engine::{Bucket, Engine, Row, Space, VALUE_BYTES_MAX, Visitor};
pub use inspection::{Fault, Finding, Inspection, InspectionProgress, inspect};
pub use memory::{MemoryEngine, open_memory};

pub use reopening::{Opener, Reopening};
pub use unit::{
    Accepted, AuditDraft, ChannelWrite, Effect, Expect, Idempotency, KeyPackageItem, NewEvent, Outcome, Refused, Seat,
    Unit,
};
pub use zone::{Zone, ZoneOptions};
pub use zone_store::{
    AuditRecord, Caps, ChannelHead, CommitFuture, Durability, GroupSnapshot, Health, InboxEntry, Member, Page,
    StoreError, StoredEvent, StoredPart, ZoneStore,
};
