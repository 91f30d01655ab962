//! Where a zone's log lives: the [`ZoneStore`] trait, the committer that orders and audits, a conformance suite for
//! engines, and the memory engine.
//!
//! For: `delivery`, `audit` and `operations`, which hand it units and read back what was committed. Engines (`store/sled`)
//! stand on its `Engine` seam. Below: `types`, `tlog`. Must never know: MLS, protobuf, policy, who may do what; it sees
//! bytes, ids and epochs.
//!
//! The journal is the truth and lies in buckets; the state is computed from it. What lets a bucket end: the state written into
//! a newer bucket as of one leaf (`snapshot`), and what outlives the bucket copied into segment files (`segment` has the
//! format). The committer writes snapshots between its batches (`upkeep`), a thread of its own copies and removes (`keeper`).
//! What is due to end is for the caller to say, with `Effect::DropBuckets`.

mod apply;
mod change;
mod check;
mod claim;
mod commit_figures;
mod committer;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod copies;
mod draft;
mod engine;
#[cfg(test)]
mod faults;
mod forgetting;
#[cfg(test)]
mod golden;
mod guards;
mod inspection;
mod journal;
mod keeper;
mod key;
mod ledger;
mod memory;
mod opening;
mod parts;
mod recent;
mod record;
mod reopening;
mod segment;
mod snapshot;
mod state;
mod unit;
mod upkeep;
mod zone;
mod zone_store;

pub use commit_figures::{CommitFigures, Distribution};
pub use committer::Committer;
pub use engine::{Bucket, Engine, Progress, Room, Row, Segment, SegmentFill, Space, VALUE_BYTES_MAX, Visitor};
pub use inspection::{Fault, Finding, Inspection, InspectionProgress, inspect};
pub use memory::{MemoryEngine, open_memory};

pub use reopening::{Opener, Reopening};
pub use unit::{
    Accepted, AuditDraft, ChannelWrite, Effect, Expect, GroupEpoch, Idempotency, KeyPackageItem, NewEvent, Outcome,
    Refused, Seat, Unit,
};
pub use zone::{Zone, ZoneOptions};
pub use zone_store::{
    AuditRecord, Caps, ChannelHead, CommitFuture, DropFuture, Durability, GroupSnapshot, Health, InboxEntry,
    JournalHealth, Member, Page, StoreError, StoredEvent, StoredPart, ZoneStore,
};
