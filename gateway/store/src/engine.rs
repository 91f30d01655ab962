//! The narrow seam under a zone: an engine keeps small rows under ordered keys, and says when they are durable.
//!
//! An engine knows nothing of records, channels or audit. It gets rows whose values are at most [`VALUE_BYTES_MAX`] long,
//! since the shared code has cut them already (PROTOCOL 10).

use std::io::Write;
use std::ops::ControlFlow;

use crate::zone_store::{Caps, StoreError};

/// Longest value that is ever handed to an engine, in bytes.
pub const VALUE_BYTES_MAX: usize = 4096;

/// A stretch of the journal that is kept and dropped as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    /// From 1, one more for each bucket of the zone.
    pub number: u64,
    /// The week in which it was begun, counted from 1970-01-01. Never falls from one bucket to the next.
    pub week: u64,
}

/// Where a row lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// A bucket of the journal: the truth.
    Bucket(Bucket),
    /// What can be derived from the journal.
    State,
}

/// What there is room for; ordered from the most room to the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Every unit.
    Everything,
    /// Units that are nothing but their audit record: reads and refusals.
    AuditOnly,
    /// No unit.
    Nothing,
}

/// One change of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Type-prefixed, big-endian: iteration order is byte order.
    pub key: Vec<u8>,
    /// The value, or `None` to delete the row.
    pub value: Option<Vec<u8>>,
}

/// A file of records that outlive their bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    /// Number of the bucket that they were written to.
    pub bucket: u64,
    /// Their retention class.
    pub class: u16,
}

/// Writes a segment's bytes from the first to the last.
pub type SegmentFill<'a> = dyn FnMut(&mut dyn Write) -> Result<(), StoreError> + 'a;

/// Whether more is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Call again.
    More,
    /// It is done.
    Done,
}

/// Sees keys and values in order until it breaks.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// What a storage engine does for a zone. Writes to buckets come from one thread, segments and drops from another; reads and
/// lazy changes of the state from any, at any time.
pub trait Engine: Send + Sync + 'static {
    /// What the engine promises.
    fn caps(&self) -> Caps;

    /// Rises at every open.
    fn fencing_number(&self) -> u64;

    /// What there is room for now (PROTOCOL 10); asked before each durability point, and whenever somebody asks how the zone is.
    fn room(&self) -> Room {
        Room::Everything
    }

    /// All buckets, ascending.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be listed.
    fn buckets(&self) -> Result<Vec<Bucket>, StoreError>;

    /// Makes an empty bucket; it survives what [`Engine::append`] survives. Making one that exists changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be made durable.
    fn create_bucket(&self, bucket: Bucket) -> Result<(), StoreError>;

    /// Writes all rows or none, and returns when they are as durable as [`Engine::caps`] says.
    ///
    /// # Errors
    /// [`StoreError`]; whether the rows are durable is unknown then, and the zone is fenced.
    fn append(&self, bucket: Bucket, rows: Vec<Row>) -> Result<(), StoreError>;

    /// Removes a bucket for good. Cut short at any moment, it leaves the bucket whole or gone; a bucket that is not there is no
    /// fault. Whoever reads it meanwhile reads to the end or gets an error.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be removed.
    fn drop_bucket(&self, bucket: Bucket) -> Result<(), StoreError>;

    /// All whole segments with their lengths in bytes, ascending.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be listed.
    fn segments(&self) -> Result<Vec<(Segment, u64)>, StoreError>;

    /// Makes a segment, or replaces it, with what `fill` writes: it is there whole and as durable as [`Engine::caps`] says,
    /// or not at all. Memory used does not grow with its length, if the engine's rows are on a disk.
    ///
    /// # Errors
    /// [`StoreError`] if the engine or `fill` failed.
    fn write_segment(&self, segment: Segment, fill: &mut SegmentFill<'_>) -> Result<(), StoreError>;

    /// Bytes of a segment from `offset` on, at most `bytes`; fewer at its end.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn read_segment(&self, segment: Segment, offset: u64, bytes: usize) -> Result<Vec<u8>, StoreError>;

    /// Bytes that the state takes on the disk; `None` if the engine gives back what is deleted by itself.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be counted.
    fn state_bytes(&self) -> Result<Option<u64>, StoreError>;

    /// Goes on with moving the state's rows, some thousands at a time, to a place without dead bytes, and exchanges the two
    /// when all are there. Cut short at any moment, it leaves the state as it was. Writers call it between other writes.
    ///
    /// # Errors
    /// [`StoreError`] if the engine failed.
    fn rewrite_state(&self) -> Result<Progress, StoreError>;

    /// Changes all rows of the state or none. Visible when it returns, durable at some later time, in order.
    ///
    /// # Errors
    /// [`StoreError`] if the engine failed.
    fn apply(&self, rows: Vec<Row>) -> Result<(), StoreError>;

    /// Throws the state away.
    ///
    /// # Errors
    /// [`StoreError`] if the engine failed.
    fn clear_state(&self) -> Result<(), StoreError>;

    /// The value under `key`.
    ///
    /// # Errors
    /// [`StoreError`] if the engine failed or holds damaged bytes.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Shows rows whose keys start with `prefix` and are not below `from`, ascending, until `visit` breaks.
    ///
    /// # Errors
    /// [`StoreError`] if the engine failed or holds damaged bytes.
    fn scan(&self, space: Space, prefix: &[u8], from: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError>;

    /// The highest key that starts with `prefix`.
    ///
    /// # Errors
    /// [`StoreError`] if the engine failed or holds damaged bytes.
    fn last_key(&self, space: Space, prefix: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
}
