//! An engine in memory, for conformance and simulation. The gateway refuses to start on it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use lianxin_types::{Clock, ZoneId};

use crate::engine::{Bucket, Engine, Progress, Row, Segment, SegmentFill, Space, Visitor};
use crate::zone::{Zone, ZoneOptions};
use crate::zone_store::{Caps, Durability, StoreError, ZoneStore};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Default)]
struct Contents {
    buckets: BTreeMap<Bucket, Rows>,
    state: Rows,
    segments: BTreeMap<Segment, Vec<u8>>,
}

/// Rows in memory, shared by all clones: opening a zone on a reopened clone is a restart that forgets nothing, and fences the engines
/// before it.
#[derive(Debug, Clone, Default)]
pub struct MemoryEngine {
    contents: Arc<RwLock<Contents>>,
    opened: Arc<AtomicU64>,
    fencing_number: u64,
}

impl MemoryEngine {
    /// An empty engine.
    pub fn new() -> Self {
        Self::default().reopened()
    }

    /// The same rows under the next fencing number.
    pub fn reopened(&self) -> Self {
        let fencing_number = self.opened.fetch_add(1, Ordering::Relaxed) + 1;
        Self { contents: Arc::clone(&self.contents), opened: Arc::clone(&self.opened), fencing_number }
    }

    /// An engine that was opened again since writes nothing more: its gateway has crashed and does not know it yet.
    fn check_fence(&self) -> Result<(), StoreError> {
        if self.opened.load(Ordering::Relaxed) == self.fencing_number {
            return Ok(());
        }
        Err(StoreError::Unavailable { reason: format!("opened again after fencing number {}", self.fencing_number) })
    }

    fn read(&self) -> RwLockReadGuard<'_, Contents> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Contents> {
        self.contents.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An empty zone in memory.
///
/// # Errors
/// [`StoreError`] never in practice: there is nothing to read.
pub fn open_memory(zone: ZoneId, clock: Arc<dyn Clock>) -> Result<Arc<dyn ZoneStore>, StoreError> {
    Ok(Arc::new(Zone::open(zone, MemoryEngine::new(), clock, ZoneOptions::default())?))
}

fn change(target: &mut Rows, rows: Vec<Row>) {
    for row in rows {
        match row.value {
            Some(value) => target.insert(row.key, value),
            None => target.remove(&row.key),
        };
    }
}

impl Contents {
    fn space(&self, space: Space) -> Option<&Rows> {
        match space {
            Space::Bucket(bucket) => self.buckets.get(&bucket),
            Space::State => Some(&self.state),
        }
    }
}

impl Engine for MemoryEngine {
    fn caps(&self) -> Caps {
        Caps { durability: Durability::Process }
    }

    fn fencing_number(&self) -> u64 {
        self.fencing_number
    }

    fn buckets(&self) -> Result<Vec<Bucket>, StoreError> {
        Ok(self.read().buckets.keys().copied().collect())
    }

    fn create_bucket(&self, bucket: Bucket) -> Result<(), StoreError> {
        self.check_fence()?;
        self.write().buckets.entry(bucket).or_default();
        Ok(())
    }

    fn append(&self, bucket: Bucket, rows: Vec<Row>) -> Result<(), StoreError> {
        self.check_fence()?;
        let mut contents = self.write();
        change(contents.buckets.entry(bucket).or_default(), rows);
        Ok(())
    }

    fn drop_bucket(&self, bucket: Bucket) -> Result<(), StoreError> {
        self.check_fence()?;
        self.write().buckets.remove(&bucket);
        Ok(())
    }

    fn segments(&self) -> Result<Vec<(Segment, u64)>, StoreError> {
        Ok(self.read().segments.iter().map(|(segment, bytes)| (*segment, bytes.len() as u64)).collect())
    }

    fn write_segment(&self, segment: Segment, fill: &mut SegmentFill<'_>) -> Result<(), StoreError> {
        self.check_fence()?;
        let mut bytes = Vec::new();
        fill(&mut bytes)?;
        self.write().segments.insert(segment, bytes);
        Ok(())
    }

    fn read_segment(&self, segment: Segment, offset: u64, bytes: usize) -> Result<Vec<u8>, StoreError> {
        let contents = self.read();
        let stored = contents.segments.get(&segment).ok_or(StoreError::Damaged { what: "segment (it is missing)" })?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(stored.len());
        Ok(stored[start..start.saturating_add(bytes).min(stored.len())].to_vec())
    }

    fn state_bytes(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    fn rewrite_state(&self) -> Result<Progress, StoreError> {
        Ok(Progress::Done)
    }

    fn apply(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        self.check_fence()?;
        change(&mut self.write().state, rows);
        Ok(())
    }

    fn clear_state(&self) -> Result<(), StoreError> {
        self.check_fence()?;
        self.write().state.clear();
        Ok(())
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.read().space(space).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(&self, space: Space, prefix: &[u8], from: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        let contents = self.read();
        let Some(rows) = contents.space(space) else { return Ok(()) };
        let start = if from > prefix { from } else { prefix };
        for (key, value) in rows.range(start.to_vec()..).take_while(|(key, _)| key.starts_with(prefix)) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn last_key(&self, space: Space, prefix: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let contents = self.read();
        let Some(rows) = contents.space(space) else { return Ok(None) };
        Ok(rows
            .range(prefix.to_vec()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .last()
            .map(|(key, _)| key.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Home, run};

    impl Home for MemoryEngine {
        fn open(&self, clock: Arc<dyn Clock>, options: ZoneOptions) -> Result<Arc<dyn ZoneStore>, StoreError> {
            let zone = "memory".parse().expect("well formed");
            Ok(Arc::new(Zone::open(zone, self.reopened(), clock, options)?))
        }

        fn lose_state(&self) {
            self.reopened().clear_state().expect("memory");
        }

        fn state_rows(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
            self.read().state.iter().map(|(row_key, value)| (row_key.clone(), value.clone())).collect()
        }

        fn inspect(&self) -> Result<(), String> {
            let inspection = crate::inspect(&"memory".parse().expect("well formed"), self.clone(), &mut |_| ());
            if inspection.is_clean() { Ok(()) } else { Err(format!("{:?}", inspection.findings)) }
        }
    }

    #[test]
    fn an_engine_that_was_opened_again_since_writes_nothing_more() {
        let crashed = MemoryEngine::new();
        let row = || vec![Row { key: vec![1], value: Some(vec![1]) }];
        crashed.apply(row()).expect("nobody has opened it again");
        let current = crashed.reopened();
        let refused = crashed.apply(row());
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
        current.apply(row()).expect("the last one writes");
        assert_eq!(crashed.get(Space::State, &[1]).expect("readable"), Some(vec![1]), "reading is nobody's harm");
    }

    #[test]
    fn memory_conforms() {
        run(MemoryEngine::new);
    }
}
