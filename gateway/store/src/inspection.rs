//! Examines a closed zone, record by record: what is stored is recomputed from what is stored beside it, and the state from
//! the journal. Changes nothing; every finding names its bucket and its record.

mod bucket;
mod copied;
mod log;
mod rebuild;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use lianxin_types::{ChannelId, DepartmentId, Sequence, ZoneId};
use thiserror::Error;

use crate::engine::{Bucket, Engine, Space};
use crate::key;
use crate::zone_store::StoreError;

/// Findings that are kept whole; the rest is counted.
const FINDINGS_MAX: usize = 1_000;

/// What an inspection saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Openings of the zone so far; 0 if the zone does not say.
    pub fencing_number: u64,
    /// Buckets of the journal.
    pub buckets: usize,
    /// Audit leaves, each with its unit.
    pub leaves: u64,
    /// Events of all channels.
    pub events: u64,
    /// Channels with events.
    pub channels: usize,
    /// Leaves that the stored state has applied; the rest is applied at the next open. `None` if there is no state: then all
    /// of it is computed again, which is no damage.
    pub applied: Option<u64>,
    /// Rows of the state that were compared with what the journal gives.
    pub state_rows: u64,
    /// What is not as it was written, in the order of the journal, at most 1,000.
    pub findings: Vec<Finding>,
    /// Findings beyond those.
    pub findings_left_out: u64,
}

/// One thing that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Number of the bucket; `None` for the state and the zone as a whole.
    pub bucket: Option<u64>,
    /// The record, for example `unit of leaf 17`. Identities show as short hashes.
    pub record: String,
    /// What is wrong with it.
    pub fault: Fault,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bucket {
            Some(bucket) => write!(f, "bucket {bucket}, {}: {}", self.record, self.fault),
            None => write!(f, "{}: {}", self.record, self.fault),
        }
    }
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// The engine or the decoder does not read it.
    #[error("cannot be read ({cause})")]
    Unreadable {
        /// What it says.
        cause: String,
    },
    /// It must be there and is not.
    #[error("missing")]
    Missing,
    /// Nothing that is stored asks for it.
    #[error("belongs to no record")]
    Stray,
    /// Buckets are numbered without gaps and their weeks never fall.
    #[error("does not follow bucket {before}")]
    BucketOrder {
        /// The bucket before.
        before: u64,
    },
    /// Leaf indexes are dense over all buckets.
    #[error("begins at leaf {found}, and leaf {wanted} comes next")]
    LeafOrder {
        /// The first leaf found.
        found: u64,
        /// The one behind the bucket before.
        wanted: u64,
    },
    /// The unit names another leaf hash than its leaf has.
    #[error("leaf hash in the unit is not the hash of the leaf")]
    LeafHash,
    /// The leaf commits to other parts.
    #[error("leaf does not commit to the parts that are stored")]
    Commitment,
    /// The leaf's hour is not that of the unit.
    #[error("hour of the leaf is not that of the unit")]
    Hour,
    /// No slot may occur twice in a zone.
    #[error("slot is that of leaf {before} too")]
    SlotTwice {
        /// The leaf that has it as well.
        before: u64,
    },
    /// One shared part comes first, then at most one per department.
    #[error("parts are not one shared part and then one per department")]
    PartOrder,
    /// Index, time, channel, sequence or chain hash in the shared header are not the unit's.
    #[error("shared header does not fit the unit")]
    SharedHeader,
    /// The department's counter or previous commitment does not follow its part before.
    #[error("part of {department} does not follow its part before")]
    DepartmentChain {
        /// Whose.
        department: DepartmentId,
    },
    /// The event's MLS bytes do not have the hash that is stored with them.
    #[error("mls bytes are not those of the stored hash")]
    MlsHash,
    /// Sequences are dense per channel.
    #[error("event {} of {channel:?} follows event {}", found.0, before.0)]
    SequenceOrder {
        /// The channel.
        channel: ChannelId,
        /// The event before.
        before: Sequence,
        /// This one.
        found: Sequence,
    },
    /// The chain hash is not that of the event and the chain before it.
    #[error("chain hash of event {} of {channel:?} does not follow from the events", sequence.0)]
    ChainHash {
        /// The channel.
        channel: ChannelId,
        /// The event.
        sequence: Sequence,
    },
    /// Time never goes back in a channel.
    #[error("time of event {} of {channel:?} is before that of the event before", sequence.0)]
    TimeOrder {
        /// The channel.
        channel: ChannelId,
        /// The event.
        sequence: Sequence,
    },
    /// The index names another leaf than the event's.
    #[error("index names leaf {found}")]
    Index {
        /// The leaf that it names.
        found: u64,
    },
    /// The state has applied more than the journal has.
    #[error("has applied {applied} leaves, and the journal has {leaves}")]
    JournalShort {
        /// Leaves applied.
        applied: u64,
        /// Leaves in the journal.
        leaves: u64,
    },
    /// The row is not what the journal gives.
    #[error("is not what the journal gives")]
    StateDiffers,
    /// The journal gives this row and the state has none.
    #[error("is missing, and the journal gives it")]
    StateLacks,
    /// The journal does not give this row.
    #[error("is there, and the journal does not give it")]
    StateExceeds,
    /// Its digest is another one.
    #[error("is not what was written")]
    Altered,
    /// A file that no sync of the engine covers, or that does not belong there.
    #[error("must not be there")]
    ForeignFile,
}

/// How far an inspection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InspectionProgress {
    /// Buckets done, of [`InspectionProgress::buckets`].
    pub buckets_done: usize,
    /// Buckets of the zone.
    pub buckets: usize,
    /// Leaves read so far.
    pub leaves: u64,
    /// Findings so far.
    pub findings: u64,
}

impl Inspection {
    /// Whether everything is as it was written.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Adds a finding that an engine has about its own files.
    pub fn add(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.findings_left_out += 1;
        }
    }

    pub(crate) fn find(&mut self, bucket: Option<Bucket>, record: impl Into<String>, fault: Fault) {
        self.add(Finding { bucket: bucket.map(|bucket| bucket.number), record: record.into(), fault });
    }

    fn progress(&self, buckets_done: usize) -> InspectionProgress {
        let findings = self.findings.len() as u64 + self.findings_left_out;
        InspectionProgress { buckets_done, buckets: self.buckets, leaves: self.leaves, findings }
    }
}

/// What a store error says, with its cause.
pub(crate) fn unreadable(error: &StoreError) -> Fault {
    let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
    Fault::Unreadable { cause: format!("{error}{cause}") }
}

/// The first leaf of a bucket; 0 for an empty one.
fn first_leaf<E: Engine>(engine: &E, bucket: Bucket) -> Result<u64, StoreError> {
    let mut first = None;
    engine.scan(Space::Bucket(bucket), &[key::UNIT], &[], &mut |row_key, _| {
        first = key::leaf_index(row_key);
        ControlFlow::Break(())
    })?;
    Ok(first.unwrap_or(0))
}

/// Reads every record of a zone that nobody writes to. `watch` is told now and then how far it is.
///
/// Verified are: buckets and leaf indexes without gaps; each record decodes; leaf hash, leaf commitment and shared header
/// against the parts; slots never twice; departments' counters and previous commitments; each channel's dense sequence, times
/// and chain hash over all its events; the event index; no row that belongs to nothing; every segment and every complete state
/// snapshot against its digest; and that the state is what the newest snapshot and the journal behind it give, apart from what is written lazily (cursors and group views put between events).
pub fn inspect<E: Engine>(zone: &ZoneId, engine: E, watch: &mut dyn FnMut(InspectionProgress)) -> Inspection {
    let engine = Arc::new(engine);
    let mut inspection = Inspection { fencing_number: engine.fencing_number(), ..Inspection::default() };
    let buckets = match engine.buckets() {
        Ok(buckets) => buckets,
        Err(error) => {
            inspection.find(None, "list of buckets", unreadable(&error));
            return inspection;
        }
    };
    inspection.buckets = buckets.len();
    let mut log = log::Log::default();
    let first_leaf = match buckets.first().map_or(Ok(0), |first| first_leaf(&*engine, *first)) {
        Ok(leaf) => leaf,
        Err(error) => {
            inspection.find(buckets.first().copied(), "the bucket", unreadable(&error));
            0
        }
    };
    let dropped = if buckets.first().is_some_and(|first| first.number > 1) { first_leaf } else { 0 };
    copied::segments(&*engine, dropped, &mut log, &mut inspection, &mut |inspection| watch(inspection.progress(0)));
    let mut before: Option<Bucket> = None;
    for (number, bucket) in buckets.into_iter().enumerate() {
        let follows = match before {
            // Buckets before it have been dropped, or the state does not know of it: then the zone does not open, and the
            // comparison says so.
            None => true,
            Some(before) => bucket.number == before.number + 1 && bucket.week >= before.week,
        };
        if !follows {
            let before = before.map_or(0, |before| before.number);
            inspection.find(Some(bucket), "the bucket", Fault::BucketOrder { before });
            log.lose_thread();
        }
        copied::snapshots(&*engine, bucket, &mut inspection);
        let walk = bucket::Walk::new(&*engine, (before, bucket), &mut log, &mut inspection);
        walk.run(&mut |inspection| watch(inspection.progress(number)));
        before = Some(bucket);
        watch(inspection.progress(number + 1));
    }
    inspection.channels = log.channels();
    rebuild::compare(zone, &engine, &mut inspection);
    inspection
}
