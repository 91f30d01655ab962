//! Writing the whole state into the journal, as of one leaf, while the zone goes on (PROTOCOL 10).
//!
//! Applying a record twice is not the same as applying it once (inbox numbers and counts go up), so a snapshot must be the
//! state of one moment, and no engine is asked for a view of a moment. The committer is the only one who changes what a
//! replay depends on, so it writes the snapshot itself, in slices between its batches, and before a batch changes a row that
//! no slice has reached, it keeps the row as it was. Rows that are written lazily (cursors, views put lazily) are taken as they
//! stand when their slice is: any later value is as good.
//!
//! In the bucket that was the newest when it began: a first record (as-of leaf u64), every row of the state under a prefix of
//! its own, value untouched, and a last record (as-of leaf, rows, bytes u64, first bucket needed u64, SHA-256 chain over the
//! rows). The last record is written after all rows have been read back from the bucket; without it there is no snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::PoisonError;

use lianxin_types::{ChannelId, DecodeError, Digest, Reader, Sequence, Writer, labelled_sha256};

use crate::engine::{Bucket, Engine, Row, Space};
use crate::key;
use crate::ledger::Ledger;
use crate::parts;
use crate::record::{OWN_LIFE, damaged, disclose, enclose};
use crate::state::{HeadRow, decode_number, view_sequence};
use crate::zone_store::StoreError;

/// Rows in one slice, so that the committer is back after some milliseconds.
const SLICE_ROWS: usize = 512;
/// Bytes in one slice, but for the rest of its last record.
const SLICE_BYTES: usize = 1024 * 1024;

/// A snapshot that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// Its number among the snapshots of its bucket.
    pub(crate) number: u64,
    /// Where it lies.
    pub(crate) bucket: Bucket,
    /// Every leaf below this one is applied in it.
    pub(crate) as_of: u64,
    pub(crate) rows: u64,
    /// Bytes of its keys and values.
    pub(crate) bytes: u64,
    /// Number of the first bucket whose events are still needed beside it: by the views of groups that are behind.
    pub(crate) needs_bucket: u64,
    pub(crate) digest: Digest,
}

impl Snapshot {
    /// as-of leaf, rows, bytes, first bucket needed u64, digest 32.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u64(self.as_of).u64(self.rows).u64(self.bytes).u64(self.needs_bucket).raw(&self.digest.0);
        enclose(OWN_LIFE, None, &writer.finish())
    }

    /// Reads what [`Snapshot::encode`] wrote as the last record of snapshot `number` of a bucket.
    ///
    /// # Errors
    /// [`DecodeError`] if it did not write this.
    pub(crate) fn decode(bucket: Bucket, number: u64, record: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(disclose(record)?);
        let as_of = reader.u64("as-of leaf")?;
        let rows = reader.u64("rows")?;
        let bytes = reader.u64("bytes")?;
        let needs_bucket = reader.u64("first bucket needed")?;
        let digest = Digest(reader.array("digest")?);
        reader.finish()?;
        Ok(Self { number, bucket, as_of, rows, bytes, needs_bucket, digest })
    }
}

/// The chain over a snapshot's rows in the order of their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowChain {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) digest: Digest,
}

impl RowChain {
    /// Before the first row.
    pub(crate) fn new(as_of: u64) -> Self {
        Self { rows: 0, bytes: 0, digest: labelled_sha256("lianxin/state-snapshot/v1", &[&as_of.to_be_bytes()]) }
    }

    /// Key of the state with a 32-bit length, then the value.
    pub(crate) fn add(&mut self, row_key: &[u8], value: &[u8]) {
        let mut writer = Writer::new();
        writer.raw(&self.digest.0).bytes(row_key).raw(value);
        self.digest = Digest::sha256(&writer.finish());
        self.rows += 1;
        self.bytes += (row_key.len() + value.len()) as u64;
    }
}

/// Rows under `prefix` behind `after`, until there are enough of them and a record ends; empty at the end.
///
/// # Errors
/// [`StoreError`] if the engine failed.
pub(crate) fn slice<E: Engine>(
    engine: &E,
    space: Space,
    prefix: &[u8],
    after: Option<&[u8]>,
) -> Result<StateRows, StoreError> {
    some_slices(engine, space, prefix, after, 1)
}

/// As [`slice`], several at once.
fn some_slices<E: Engine>(
    engine: &E,
    space: Space,
    prefix: &[u8],
    after: Option<&[u8]>,
    slices: usize,
) -> Result<StateRows, StoreError> {
    // No key is between a key and the same with a zero byte behind it.
    let from = after.map_or_else(|| prefix.to_vec(), |after| [after, &[0]].concat());
    let (mut rows, mut bytes) = (Vec::new(), 0);
    engine.scan(space, prefix, &from, &mut |row_key, value| {
        let is_full = rows.len() >= SLICE_ROWS * slices || bytes >= SLICE_BYTES * slices;
        if is_full && row_key.ends_with(&[0, 0]) {
            return ControlFlow::Break(());
        }
        bytes += row_key.len() + value.len();
        rows.push((row_key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}

/// A snapshot that is being written.
pub(crate) struct Writing {
    number: u64,
    bucket: Bucket,
    as_of: u64,
    written: u64,
    phase: Phase,
}

enum Phase {
    Copying(Copying),
    Reading(Reading),
}

/// Rows of the state go into the bucket.
struct Copying {
    /// The last key that a slice has reached.
    reached: Option<Vec<u8>>,
    /// Keys behind it whose rows, or whose absence, have been kept already.
    kept: BTreeSet<Vec<u8>>,
    /// Rows as they were, for the next slice.
    before: Vec<Row>,
    /// Keys kept since the last slice.
    fresh: usize,
}

/// Rows are read back from the bucket.
struct Reading {
    reached: Option<Vec<u8>>,
    chain: RowChain,
    views: Views,
}

impl Writing {
    /// Begins one as of the last committed leaf, in the newest bucket; `None` while that has no unit, since the first
    /// retained leaf is known by the units of the first retained bucket.
    ///
    /// # Errors
    /// [`StoreError`] if the engine failed.
    pub(crate) fn begin<E: Engine>(ledger: &Ledger<E>) -> Result<Option<Self>, StoreError> {
        let as_of = ledger.leaf_count();
        let Some(home) = ledger.journal.last().filter(|home| home.first_leaf < as_of) else { return Ok(None) };
        let bucket = home.bucket;
        let last = ledger.engine.last_key(Space::Bucket(bucket), &[key::STATE_BEGIN])?;
        let number = last.and_then(|last| key::snapshot_number(&last)).map_or(1, |last| last + 1);
        let mut rows = Vec::new();
        let first = enclose(OWN_LIFE, None, &as_of.to_be_bytes());
        parts::put(&mut rows, &key::state_mark(key::STATE_BEGIN, number), &first);
        ledger.engine.append(bucket, rows)?;
        let phase = Phase::Copying(Copying { reached: None, kept: BTreeSet::new(), before: Vec::new(), fresh: 0 });
        Ok(Some(Self { number, bucket, as_of, written: 0, phase }))
    }

    /// Rows written so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Keeps what `rows` are about to change and no slice has reached.
    ///
    /// # Errors
    /// [`StoreError`] if the engine failed.
    pub(crate) fn keep_before<E: Engine>(&mut self, engine: &E, rows: &[Row]) -> Result<(), StoreError> {
        let Phase::Copying(copying) = &mut self.phase else { return Ok(()) };
        for row in rows {
            let is_reached = copying.reached.as_ref().is_some_and(|reached| row.key <= *reached);
            if is_reached || !copying.kept.insert(row.key.clone()) {
                continue;
            }
            copying.fresh += 1;
            if let Some(value) = engine.get(Space::State, &row.key)? {
                copying.before.push(Row { key: key::state_row(self.number, &row.key), value: Some(value) });
            }
        }
        Ok(())
    }

    /// Goes on by one slice; gives the snapshot when it is complete.
    ///
    /// # Errors
    /// [`StoreError`] if the engine failed or does not give back what was written.
    pub(crate) fn go_on<E: Engine>(&mut self, ledger: &Ledger<E>) -> Result<Option<Snapshot>, StoreError> {
        match &mut self.phase {
            Phase::Copying(copying) => {
                let Some(rows) = copying.next(ledger, self.number)? else {
                    let chain = RowChain::new(self.as_of);
                    self.phase = Phase::Reading(Reading { reached: None, chain, views: Views::default() });
                    return Ok(None);
                };
                self.written += rows.len() as u64;
                if !rows.is_empty() {
                    ledger.engine.append(self.bucket, rows)?;
                }
                Ok(None)
            }
            Phase::Reading(reading) => {
                let space = Space::Bucket(self.bucket);
                let prefix = key::state_rows(self.number);
                let rows = slice(&ledger.engine, space, &prefix, reading.reached.as_deref())?;
                for (row_key, value) in &rows {
                    let row_key = &row_key[prefix.len()..];
                    reading.chain.add(row_key, value);
                    reading.views.look(row_key, value)?;
                }
                if let Some((last, _)) = rows.last() {
                    reading.reached = Some(last.clone());
                    return Ok(None);
                }
                let (chain, views) = (reading.chain, std::mem::take(&mut reading.views));
                self.finish(ledger, chain, &views).map(Some)
            }
        }
    }

    fn finish<E: Engine>(&self, ledger: &Ledger<E>, chain: RowChain, views: &Views) -> Result<Snapshot, StoreError> {
        if chain.rows != self.written {
            return Err(StoreError::Damaged { what: "state snapshot (it is not what was written)" });
        }
        let needs_bucket = views.first_bucket(&ledger.engine, self.bucket, self.number)?;
        let RowChain { rows, bytes, digest } = chain;
        let (number, bucket, as_of) = (self.number, self.bucket, self.as_of);
        let snapshot = Snapshot { number, bucket, as_of, rows, bytes, needs_bucket, digest };
        let mut rows = Vec::new();
        parts::put(&mut rows, &key::state_mark(key::STATE_END, number), &snapshot.encode());
        ledger.engine.append(bucket, rows)?;
        Ok(snapshot)
    }
}

impl Copying {
    /// What the next slice writes; `None` behind the end.
    fn next<E: Engine>(&mut self, ledger: &Ledger<E>, number: u64) -> Result<Option<Vec<Row>>, StoreError> {
        // Lazy writers wait meanwhile, so that a record of several parts is taken whole.
        let _whole = ledger.lazy.lock().unwrap_or_else(PoisonError::into_inner);
        // Twice as fast as batches change what is ahead: what is kept stays below half of the state's rows.
        let slices = 1 + 2 * std::mem::take(&mut self.fresh) / SLICE_ROWS;
        let found = some_slices(&ledger.engine, Space::State, &[], self.reached.as_deref(), slices)?;
        let mut rows = std::mem::take(&mut self.before);
        let Some((last, _)) = found.last() else {
            return Ok(Some(rows).filter(|rows| !rows.is_empty()));
        };
        let last = last.clone();
        for (row_key, value) in found {
            if !self.kept.contains(&row_key) {
                rows.push(Row { key: key::state_row(number, &row_key), value: Some(value) });
            }
        }
        self.kept = self.kept.split_off(&last);
        self.kept.remove(&last);
        self.reached = Some(last);
        Ok(Some(rows))
    }
}

/// Which channels' views are behind their groups: the events between must stay readable.
#[derive(Debug, Default)]
struct Views(BTreeMap<ChannelId, View>);

#[derive(Debug, Default, Clone, Copy)]
struct View {
    /// The last event that changed the group.
    changed: Sequence,
    /// The event after which the newest view was taken.
    seen: Sequence,
}

impl Views {
    fn look(&mut self, row_key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let Some((row_key, [0, 0])) = row_key.split_last_chunk::<2>() else { return Ok(()) };
        let (Some(family), Some(rest)) = (row_key.first(), row_key.get(1..)) else { return Ok(()) };
        if !matches!(*family, key::HEAD | key::SNAPSHOT | key::LAZY_SNAPSHOT) {
            return Ok(());
        }
        let channel = ChannelId::try_from(rest).map_err(|_| StoreError::Damaged { what: "channel head" })?;
        let view = self.0.entry(channel).or_default();
        let record = parts::first_bytes(value)?;
        if *family == key::HEAD {
            let head = HeadRow::decode(record.to_vec()).map_err(damaged("channel head"))?;
            view.changed = head.epoch_sequence.max(head.proposal_sequence);
        } else {
            view.seen = view.seen.max(view_sequence(record).map_err(damaged("group snapshot"))?);
        }
        Ok(())
    }

    /// Number of the first bucket that a view needs; the snapshot's own if none needs an older one.
    fn first_bucket<E: Engine>(&self, engine: &E, home: Bucket, number: u64) -> Result<u64, StoreError> {
        let mut needed = home.number;
        for (channel, _) in self.0.iter().filter(|(_, view)| view.seen < view.changed) {
            let seen = self.0[channel].seen;
            let prefix = key::state_row(number, &key::buckets_of(channel));
            let skipped = key::state_rows(number).len();
            let mut bucket = None;
            parts::scan(engine, Space::Bucket(home), &prefix, &prefix, &mut |row_key, record| {
                let first = key::bucket_first(&row_key[skipped..]);
                let first = first.ok_or(StoreError::Damaged { what: "bucket of a channel" })?;
                if bucket.is_some() && first > seen.next() {
                    return Ok(ControlFlow::Break(()));
                }
                bucket = Some(decode_number(&record).map_err(damaged("bucket of a channel"))?);
                Ok(ControlFlow::Continue(()))
            })?;
            needed = needed.min(bucket.unwrap_or(0));
        }
        Ok(needed)
    }
}

/// All complete snapshots in a bucket, newest first. A snapshot in a newer bucket is a newer one.
///
/// # Errors
/// [`StoreError`] if the engine failed. A last record that cannot be read is passed over with a warning.
pub(crate) fn complete<E: Engine>(engine: &E, bucket: Bucket) -> Result<Vec<Snapshot>, StoreError> {
    let mut found = Vec::new();
    let scanned = parts::scan(engine, Space::Bucket(bucket), &[key::STATE_END], &[], &mut |row_key, record| {
        let number = key::snapshot_number(row_key);
        match number.map(|number| Snapshot::decode(bucket, number, &record)) {
            Some(Ok(snapshot)) => found.push(snapshot),
            _ => tracing::warn!(bucket = bucket.number, "the end of a state snapshot is damaged"),
        }
        Ok(ControlFlow::Continue(()))
    });
    match scanned {
        Err(StoreError::Damaged { what }) => tracing::warn!(bucket = bucket.number, what, "snapshots are damaged"),
        other => other?,
    }
    found.sort_by_key(|snapshot| std::cmp::Reverse((snapshot.as_of, snapshot.number)));
    Ok(found)
}

/// The newest complete snapshot of these buckets, which ascend.
///
/// # Errors
/// [`StoreError`] if the engine failed.
pub(crate) fn newest<E: Engine>(engine: &E, buckets: &[Bucket]) -> Result<Option<Snapshot>, StoreError> {
    // Bucket by bucket: opening an old one costs more than everything else here.
    for bucket in buckets.iter().rev() {
        if let Some(found) = complete(engine, *bucket)?.into_iter().next() {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Whether a snapshot is what was written.
///
/// # Errors
/// [`StoreError`] if the engine failed.
pub(crate) fn is_good<E: Engine>(engine: &E, snapshot: &Snapshot) -> Result<bool, StoreError> {
    let mut chain = RowChain::new(snapshot.as_of);
    each(engine, snapshot, &mut |rows| {
        rows.iter().for_each(|(row_key, value)| chain.add(row_key, value));
        Ok(())
    })?;
    let Snapshot { rows, bytes, digest, .. } = *snapshot;
    Ok(chain == (RowChain { rows, bytes, digest }))
}

/// Replaces the state by a snapshot, once that has been found to be what was written. Gives whether it was.
///
/// # Errors
/// [`StoreError`] if the engine failed.
pub(crate) fn restore<E: Engine>(engine: &E, snapshot: &Snapshot) -> Result<bool, StoreError> {
    if !is_good(engine, snapshot)? {
        tracing::error!(bucket = snapshot.bucket.number, as_of = snapshot.as_of, "a state snapshot is damaged");
        return Ok(false);
    }
    engine.clear_state()?;
    // Last of all what says how far the state goes, so that a state cut short in between says nothing.
    let mut marks: Vec<Row> = Vec::new();
    each(engine, snapshot, &mut |rows| {
        let rows = rows.into_iter().map(|(key, value)| Row { key, value: Some(value) });
        let (last, first): (Vec<Row>, Vec<Row>) = rows.partition(|row| row.key.starts_with(b"!"));
        marks.extend(last);
        engine.apply(first)
    })?;
    engine.apply(marks)?;
    Ok(true)
}

/// Keys and values of the state.
type StateRows = Vec<(Vec<u8>, Vec<u8>)>;

/// Shows all rows of a snapshot, slice by slice.
fn each<E: Engine>(
    engine: &E,
    snapshot: &Snapshot,
    visit: &mut dyn FnMut(StateRows) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let prefix = key::state_rows(snapshot.number);
    let mut reached: Option<Vec<u8>> = None;
    loop {
        let rows = slice(engine, Space::Bucket(snapshot.bucket), &prefix, reached.as_deref())?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        reached = Some(last.clone());
        visit(rows.into_iter().map(|(row_key, value)| (row_key[prefix.len()..].to_vec(), value)).collect())?;
    }
}

#[cfg(test)]
mod tests;
