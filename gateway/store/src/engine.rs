//! The narrow seam under a zone: an engine keeps small rows under ordered keys, and says when they are durable.
//!
//! An engine knows nothing of records, channels or audit. It gets rows whose values are at most [`VALUE_BYTES_MAX`] long,
//! since the shared code has cut them already (PROTOCOL 10).

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

/// One change of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Type-prefixed, big-endian: iteration order is byte order.
    pub key: Vec<u8>,
    /// The value, or `None` to delete the row.
    pub value: Option<Vec<u8>>,
}

/// Sees keys and values in order until it breaks.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// What a storage engine does for a zone. Writes come from one thread; reads from any, at any time.
pub trait Engine: Send + Sync + 'static {
    /// What the engine promises.
    fn caps(&self) -> Caps;

    /// Rises at every open.
    fn fencing_number(&self) -> u64;

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
