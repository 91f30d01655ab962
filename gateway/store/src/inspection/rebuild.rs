//! The state computed again from the journal, in memory, beside the one that is stored.

use std::ops::ControlFlow;
use std::sync::Arc;

use lianxin_types::{Digest, ZoneId};

use super::{Fault, Inspection, unreadable};
use crate::engine::{Bucket, Engine, Progress, Row, Segment, SegmentFill, Space, Visitor};
use crate::memory::MemoryEngine;
use crate::state::decode_number;
use crate::zone::ZoneOptions;
use crate::zone_store::{Caps, StoreError};
use crate::{key, opening, parts};

/// Rows copied at once.
const ROWS_AT_ONCE: usize = 4_096;

/// A zone's journal with a state of its own in memory: opening it changes nothing on disk.
struct Beside<E> {
    journal: Arc<E>,
    state: MemoryEngine,
}

const READ_ONLY: &str = "an inspection writes nothing";

impl<E: Engine> Engine for Beside<E> {
    fn caps(&self) -> Caps {
        self.state.caps()
    }
    fn fencing_number(&self) -> u64 {
        self.journal.fencing_number()
    }
    fn buckets(&self) -> Result<Vec<Bucket>, StoreError> {
        self.journal.buckets()
    }
    fn create_bucket(&self, _bucket: Bucket) -> Result<(), StoreError> {
        Err(StoreError::Unavailable { reason: READ_ONLY.to_owned() })
    }
    fn append(&self, _bucket: Bucket, _rows: Vec<Row>) -> Result<(), StoreError> {
        Err(StoreError::Unavailable { reason: READ_ONLY.to_owned() })
    }
    fn drop_bucket(&self, _bucket: Bucket) -> Result<(), StoreError> {
        Err(StoreError::Unavailable { reason: READ_ONLY.to_owned() })
    }
    fn segments(&self) -> Result<Vec<(Segment, u64)>, StoreError> {
        self.journal.segments()
    }
    fn write_segment(&self, _segment: Segment, _fill: &mut SegmentFill<'_>) -> Result<(), StoreError> {
        Err(StoreError::Unavailable { reason: READ_ONLY.to_owned() })
    }
    fn read_segment(&self, segment: Segment, offset: u64, bytes: usize) -> Result<Vec<u8>, StoreError> {
        self.journal.read_segment(segment, offset, bytes)
    }
    fn state_bytes(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }
    fn rewrite_state(&self) -> Result<Progress, StoreError> {
        Ok(Progress::Done)
    }
    fn apply(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        self.state.apply(rows)
    }
    fn clear_state(&self) -> Result<(), StoreError> {
        self.state.clear_state()
    }
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match space {
            Space::State => self.state.get(space, key),
            Space::Bucket(_) => self.journal.get(space, key),
        }
    }
    fn scan(&self, space: Space, prefix: &[u8], from: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        match space {
            Space::State => self.state.scan(space, prefix, from, visit),
            Space::Bucket(_) => self.journal.scan(space, prefix, from, visit),
        }
    }
    fn last_key(&self, space: Space, prefix: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match space {
            Space::State => self.state.last_key(space, prefix),
            Space::Bucket(_) => self.journal.last_key(space, prefix),
        }
    }
}

/// Compares the stored state, brought up to date as an opening would, with one that is computed from the journal alone.
pub(super) fn compare<E: Engine>(zone: &ZoneId, engine: &Arc<E>, inspection: &mut Inspection) {
    let applied = match applied(&**engine) {
        Ok(Some(applied)) => applied,
        Ok(None) => return,
        Err(error) => return inspection.find(None, "state", unreadable(&error)),
    };
    inspection.applied = Some(applied);
    if inspection.findings.is_empty() && applied > inspection.leaves {
        let leaves = inspection.leaves;
        return inspection.find(None, "state", Fault::JournalShort { applied, leaves });
    }
    let rebuilt = match open(zone, engine, MemoryEngine::new()) {
        Ok(rebuilt) => rebuilt,
        Err(error) => return inspection.find(None, "state computed from the journal", unreadable(&error)),
    };
    let stored = match copy(&**engine).and_then(|stored| {
        // What an opening does with a state that is behind.
        if applied == inspection.leaves { Ok(stored) } else { open(zone, engine, stored) }
    }) {
        Ok(stored) => stored,
        Err(error) => return inspection.find(None, "state", unreadable(&error)),
    };
    difference(&stored, &rebuilt, inspection);
}

fn applied<E: Engine>(engine: &E) -> Result<Option<u64>, StoreError> {
    let Some(record) = parts::get(engine, Space::State, key::APPLIED)? else { return Ok(None) };
    decode_number(&record).map(Some).map_err(crate::record::damaged("applied index"))
}

/// The state after an opening that began with `state`.
fn open<E: Engine>(zone: &ZoneId, engine: &Arc<E>, state: MemoryEngine) -> Result<MemoryEngine, StoreError> {
    let beside = Beside { journal: Arc::clone(engine), state: state.clone() };
    drop(opening::open(zone.clone(), beside, &ZoneOptions::default())?);
    Ok(state)
}

fn copy<E: Engine>(engine: &E) -> Result<MemoryEngine, StoreError> {
    let state = MemoryEngine::new();
    let mut from = Vec::new();
    loop {
        let mut rows = Vec::new();
        engine.scan(Space::State, &[], &from, &mut |key, value| {
            rows.push(Row { key: key.to_vec(), value: Some(value.to_vec()) });
            if rows.len() == ROWS_AT_ONCE { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let is_last = rows.len() < ROWS_AT_ONCE;
        if let Some(last) = rows.last() {
            // The first key behind it.
            from = [&last.key[..], &[0]].concat();
        }
        state.apply(rows)?;
        if is_last {
            return Ok(state);
        }
    }
}

fn difference(stored: &MemoryEngine, rebuilt: &MemoryEngine, inspection: &mut Inspection) {
    let mut compare = |one: &MemoryEngine, other: &MemoryEngine, lacking: Fault, differs: Option<Fault>| {
        let seen = one.scan(Space::State, &[], &[], &mut |row_key, value| {
            if key::is_lazy(row_key) {
                return ControlFlow::Continue(());
            }
            match other.get(Space::State, row_key) {
                Ok(Some(twin)) if twin == value => inspection.state_rows += u64::from(differs.is_some()),
                Ok(Some(_)) => {
                    if let Some(fault) = &differs {
                        inspection.find(None, name(row_key), fault.clone());
                    }
                }
                Ok(None) => inspection.find(None, name(row_key), lacking.clone()),
                Err(error) => inspection.find(None, name(row_key), unreadable(&error)),
            }
            ControlFlow::Continue(())
        });
        debug_assert!(seen.is_ok(), "rows in memory can be read");
    };
    compare(stored, rebuilt, Fault::StateExceeds, Some(Fault::StateDiffers));
    compare(rebuilt, stored, Fault::StateLacks, None);
}

/// A row of the state as a finding names it: its kind, and a hash for which.
fn name(row_key: &[u8]) -> String {
    format!("{} {:?}", key::family(row_key), Digest::sha256(row_key))
}
