//! Which bucket holds what, and reading the journal across buckets.

use std::ops::ControlFlow;
use std::sync::{PoisonError, RwLock};

use lianxin_types::{ChannelId, Sequence};

use crate::change::{self, Change};
use crate::copies::Closed;
use crate::engine::{Bucket, Engine, Space};
use crate::record::{UnitRecord, damaged, decode_audit};
use crate::state::decode_number;
use crate::zone_store::{AuditRecord, StoreError};
use crate::{key, parts};

/// A bucket and the first leaf that it holds or will hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub(crate) bucket: Bucket,
    pub(crate) first_leaf: u64,
}

/// The buckets of a zone, ascending.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    starts: RwLock<Vec<Start>>,
}

impl Journal {
    /// Finds the buckets and the number of leaves in them.
    ///
    /// # Errors
    /// [`StoreError`] if the engine failed, or leaves are missing between two buckets.
    pub(crate) fn open<E: Engine>(engine: &E) -> Result<(Self, u64), StoreError> {
        let mut starts: Vec<Start> = Vec::new();
        let mut next_leaf = 0;
        for bucket in engine.buckets()? {
            if starts.last().is_some_and(|last| last.bucket.number + 1 != bucket.number) {
                return Err(StoreError::Damaged { what: "journal (a bucket is missing)" });
            }
            let space = Space::Bucket(bucket);
            let mut first = None;
            engine.scan(space, &[key::UNIT], &[], &mut |row_key, _| {
                first = key::leaf_index(row_key);
                ControlFlow::Break(())
            })?;
            let last = engine.last_key(space, &[key::UNIT])?.and_then(|row_key| key::leaf_index(&row_key));
            if let (true, Some(first)) = (starts.is_empty(), first) {
                // What came before it may have been dropped; whether it was is known once the state is there.
                next_leaf = first;
            }
            if first.is_some_and(|first| first != next_leaf) {
                return Err(StoreError::Damaged { what: "journal (leaves are missing between buckets)" });
            }
            starts.push(Start { bucket, first_leaf: next_leaf });
            next_leaf = last.map_or(next_leaf, |last| last + 1);
        }
        Ok((Self { starts: RwLock::new(starts) }, next_leaf))
    }

    /// Number of the first bucket that has not been dropped; 1 in a zone without buckets.
    pub(crate) fn first_number(&self) -> u64 {
        let starts = self.starts.read().unwrap_or_else(PoisonError::into_inner);
        starts.first().map_or(1, |start| start.bucket.number)
    }

    /// The first leaf that the journal still has.
    pub(crate) fn first_leaf(&self) -> u64 {
        self.starts.read().unwrap_or_else(PoisonError::into_inner).first().map_or(0, |start| start.first_leaf)
    }

    /// All buckets, ascending.
    pub(crate) fn buckets(&self) -> Vec<Bucket> {
        let starts = self.starts.read().unwrap_or_else(PoisonError::into_inner);
        starts.iter().map(|start| start.bucket).collect()
    }

    /// All buckets but the newest, ascending.
    pub(crate) fn closed(&self) -> Vec<Closed> {
        let starts = self.starts.read().unwrap_or_else(PoisonError::into_inner);
        let pairs = starts.iter().zip(starts.iter().skip(1));
        let closed = |(start, next): (&Start, &Start)| Closed {
            bucket: start.bucket,
            first_leaf: start.first_leaf,
            end_leaf: next.first_leaf,
        };
        pairs.map(closed).collect()
    }

    /// Forgets the buckets below this number; the newest one stays.
    pub(crate) fn drop_before(&self, number: u64) {
        let mut starts = self.starts.write().unwrap_or_else(PoisonError::into_inner);
        let dropped = starts.partition_point(|start| start.bucket.number < number);
        let newest = starts.len().saturating_sub(1);
        starts.drain(..dropped.min(newest));
    }

    /// The newest bucket.
    pub(crate) fn last(&self) -> Option<Start> {
        self.starts.read().unwrap_or_else(PoisonError::into_inner).last().copied()
    }

    pub(crate) fn push(&self, start: Start) {
        self.starts.write().unwrap_or_else(PoisonError::into_inner).push(start);
    }

    /// The last bucket that starts at or before `leaf`; a later one only if earlier ones are empty.
    fn of_leaf(&self, leaf: u64) -> Option<Bucket> {
        let starts = self.starts.read().unwrap_or_else(PoisonError::into_inner);
        let after = starts.partition_point(|start| start.first_leaf <= leaf);
        starts[..after].last().map(|start| start.bucket)
    }

    /// The bucket with this number.
    pub(crate) fn numbered(&self, number: u64) -> Option<Bucket> {
        let starts = self.starts.read().unwrap_or_else(PoisonError::into_inner);
        let found = starts.binary_search_by_key(&number, |start| start.bucket.number);
        found.ok().map(|index| starts[index].bucket)
    }

    fn record<E: Engine>(&self, engine: &E, family: u8, leaf: u64) -> Result<Vec<u8>, StoreError> {
        let missing = StoreError::Damaged { what: "journal (a record is missing)" };
        let Some(bucket) = self.of_leaf(leaf) else { return Err(missing) };
        parts::get(engine, Space::Bucket(bucket), &key::leaf(family, leaf))?.ok_or(missing)
    }

    /// The unit under a leaf index.
    pub(crate) fn unit<E: Engine>(&self, engine: &E, leaf: u64) -> Result<UnitRecord, StoreError> {
        UnitRecord::decode(self.record(engine, key::UNIT, leaf)?).map_err(damaged("unit"))
    }

    /// What the unit under a leaf index changed.
    pub(crate) fn changes<E: Engine>(&self, engine: &E, leaf: u64) -> Result<Vec<Change>, StoreError> {
        change::decode(self.record(engine, key::CHANGES, leaf)?).map_err(damaged("effects"))
    }

    /// The audit record under a leaf index.
    pub(crate) fn audit<E: Engine>(&self, engine: &E, leaf: u64) -> Result<AuditRecord, StoreError> {
        decode_audit(leaf, &self.record(engine, key::AUDIT, leaf)?).map_err(damaged("audit record"))
    }

    /// Number of the bucket that holds a leaf.
    pub(crate) fn bucket_number(&self, leaf: u64) -> Option<u64> {
        self.of_leaf(leaf).map(|bucket| bucket.number)
    }

    /// Leaf indexes of a channel's events in `first..=last`, ascending, at most `limit`; dense or an error.
    ///
    /// # Errors
    /// [`StoreError`] if the engine failed or an event is missing.
    pub(crate) fn leaves_of<E: Engine>(
        &self,
        engine: &E,
        channel: &ChannelId,
        (first, last): (Sequence, Sequence),
        limit: usize,
    ) -> Result<Vec<u64>, StoreError> {
        let missing = || StoreError::Damaged { what: "journal (an event is missing)" };
        let mut leaves = Vec::new();
        let mut next = first;
        for number in buckets_of(engine, channel, first)? {
            if leaves.len() >= limit || next > last {
                break;
            }
            let space = Space::Bucket(self.numbered(number).ok_or_else(missing)?);
            let from = key::event(channel, next);
            parts::scan(engine, space, &key::events(channel), &from, &mut |row_key, record| {
                if leaves.len() >= limit || next > last {
                    return Ok(ControlFlow::Break(()));
                }
                if row_key != key::event(channel, next) {
                    return Err(missing());
                }
                leaves.push(decode_number(&record).map_err(damaged("event index"))?);
                next = next.next();
                Ok(ControlFlow::Continue(()))
            })?;
        }
        let expected = usize::try_from((last.0 + 1).saturating_sub(first.0)).unwrap_or(usize::MAX).min(limit);
        if leaves.len() == expected { Ok(leaves) } else { Err(missing()) }
    }
}

/// Numbers of the buckets that hold a channel's events from `first` on, ascending.
fn buckets_of<E: Engine>(engine: &E, channel: &ChannelId, first: Sequence) -> Result<Vec<u64>, StoreError> {
    let prefix = key::buckets_of(channel);
    let mut numbers = Vec::new();
    parts::scan(engine, Space::State, &prefix, &prefix, &mut |row_key, record| {
        let number = decode_number(&record).map_err(damaged("bucket of a channel"))?;
        if row_key <= key::bucket_of(channel, first).as_slice() {
            numbers.clear();
        }
        numbers.push(number);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use lianxin_types::Timestamp;

    use super::*;
    use crate::conformance::{device, message, start};
    use crate::memory::MemoryEngine;
    use crate::{Committer, ZoneOptions};

    #[test]
    fn a_bucket_ends_when_it_is_full_or_a_week_old_and_weeks_never_fall() {
        let engine = MemoryEngine::new();
        let options = ZoneOptions { bucket_records_max: 3, ..ZoneOptions::default() };
        let zone = "weeks".parse().expect("well formed");
        let mut committer = Committer::open(zone, engine.clone(), options).expect("the zone opens");
        let (one, alice) = (crate::conformance::channel(1), device(1));
        let in_week = |week: u64| Timestamp::from_seconds(week * 7 * 24 * 3600 + 5);
        let mut step = |units, week| {
            assert!(committer.step(units, in_week(week)).iter().all(Result::is_ok));
            let buckets = engine.buckets().expect("memory");
            buckets.iter().map(|bucket| (bucket.number, bucket.week)).collect::<Vec<_>>()
        };
        let send =
            |from: u8, count: u8| (from..from + count).map(|n| message(one, &alice, 0, &[n])).collect::<Vec<_>>();
        assert_eq!(step(vec![start(one, &alice)], 100), [(1, 100)]);
        assert_eq!(step(send(0, 2), 100), [(1, 100)]);
        assert_eq!(step(send(2, 1), 100), [(1, 100), (2, 100)], "full");
        assert_eq!(step(send(3, 1), 102), [(1, 100), (2, 100), (3, 102)], "old");
        assert_eq!(step(send(4, 2), 90), [(1, 100), (2, 100), (3, 102)], "the clock went back, the bucket did not");
        let all = [(1, 100), (2, 100), (3, 102), (4, 102), (5, 102)];
        assert_eq!(step(send(6, 4), 90), all, "one batch fills a bucket and goes on in the next");
    }
}
