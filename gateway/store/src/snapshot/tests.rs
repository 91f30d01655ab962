//! Snapshots that were cut short or damaged, and what may be dropped by them.

use bytes::Bytes;
use lianxin_types::{Sequence, Timestamp};

use crate::conformance::{ManualClock, channel, commit, device, drop_buckets, message, start};
use crate::engine::{Bucket, Engine, Row, Space};
use crate::keeper::{self, Look};
use crate::memory::MemoryEngine;
use crate::unit::{Effect, Refused, Unit};
use crate::zone::{Zone, ZoneOptions};
use crate::zone_store::{StoreError, ZoneStore};
use crate::{Committer, key};

const NOW: Timestamp = Timestamp(1_795_000_000_000_000);

fn open(engine: &MemoryEngine) -> Result<Committer<MemoryEngine>, StoreError> {
    let options = ZoneOptions { bucket_records_max: 10, ..ZoneOptions::default() };
    Committer::open("snapshots".parse().expect("well formed"), engine.clone(), options)
}

fn with_view(mut unit: Unit) -> Unit {
    unit.effects.push(Effect::GroupSnapshot { state: Bytes::from(vec![5; 10_000]) });
    unit
}

/// A zone with some buckets, and no snapshot that was begun by itself.
fn written(engine: &MemoryEngine) -> Committer<MemoryEngine> {
    let mut committer = open(engine).expect("the zone opens");
    let mut units = vec![with_view(start(channel(1), &device(1)))];
    units.extend((0..29u8).map(|number| message(channel(1), &device(1), 0, &[number; 900])));
    assert!(committer.step(units, NOW).iter().all(Result::is_ok));
    committer
}

fn write_snapshot(committer: &mut Committer<MemoryEngine>) {
    committer.write_snapshot();
    while committer.has_work() {
        committer.work();
    }
}

fn state(engine: &MemoryEngine) -> Vec<(Vec<u8>, Vec<u8>)> {
    super::slice(engine, Space::State, &[], None).expect("memory")
}

fn snapshot_rows(engine: &MemoryEngine, bucket: Bucket) -> Vec<(Vec<u8>, Vec<u8>)> {
    super::slice(engine, Space::Bucket(bucket), b"S", None).expect("memory")
}

/// Loses the state, and compares what is computed again.
fn check_rebuild(engine: &MemoryEngine) {
    let before = state(engine);
    engine.clear_state().expect("memory");
    drop(open(engine).expect("the zone opens"));
    assert!(before == state(engine), "the state that was lost");
}

#[test]
fn a_snapshot_that_was_cut_short_is_none() {
    let engine = MemoryEngine::new();
    let mut committer = written(&engine);
    let last = *engine.buckets().expect("memory").last().expect("three buckets");
    // Up to just before its end, and at each slice before.
    for slices in 0..4 {
        committer.write_snapshot();
        (0..slices).for_each(|_| committer.work());
        assert!(committer.has_work(), "not complete after {slices} slices");
        drop(committer);
        check_rebuild(&engine);
        committer = open(&engine).expect("the zone opens");
        assert_eq!(committer.ledger.snapshot(), None);
        assert_eq!(committer.ledger.droppable(), 0);
    }
    assert!(!snapshot_rows(&engine, last).is_empty(), "rows were written");
    // One that is complete is not disturbed by their rest.
    write_snapshot(&mut committer);
    let found = committer.ledger.snapshot().expect("complete");
    assert_eq!((found.as_of, found.bucket, found.needs_bucket), (30, last, last.number));
    let more = committer.step(vec![message(channel(1), &device(1), 0, b"more")], NOW);
    assert!(more.iter().all(Result::is_ok));
    drop(committer);
    check_rebuild(&engine);
    assert_eq!(open(&engine).expect("the zone opens").ledger.snapshot(), Some(found), "it is found again");
}

#[test]
fn a_damaged_snapshot_is_passed_over_as_long_as_there_is_something_else() {
    let engine = MemoryEngine::new();
    let mut committer = written(&engine);
    write_snapshot(&mut committer);
    let older = committer.ledger.snapshot().expect("complete");
    let more = (30..45u8).map(|number| message(channel(1), &device(1), 0, &[number])).collect();
    assert!(committer.step(more, NOW).iter().all(Result::is_ok));
    write_snapshot(&mut committer);
    let newer = committer.ledger.snapshot().expect("complete");
    assert!(newer.as_of > older.as_of);
    let damage = |bucket: Bucket, number: u64| {
        let prefix = key::state_rows(number);
        let rows = super::slice(&engine, Space::Bucket(bucket), &prefix, None).expect("memory");
        let (row_key, mut value) = rows[rows.len() / 2].clone();
        *value.last_mut().expect("bytes") ^= 1;
        engine.append(bucket, vec![Row { key: row_key, value: Some(value) }]).expect("memory");
    };
    // The older one and the journal behind it, then the whole journal.
    damage(newer.bucket, newer.number);
    drop(committer);
    check_rebuild(&engine);
    damage(older.bucket, older.number);
    check_rebuild(&engine);
    // A missing row is as bad as a changed one; and once the beginning is dropped, nothing else is left.
    let mut committer = open(&engine).expect("the zone opens");
    write_snapshot(&mut committer);
    keeper::work(&committer.ledger, Look::Whole).expect("memory");
    let last = committer.ledger.snapshot().expect("complete");
    let outcome = committer.step(vec![drop_buckets(&device(1), last.bucket.number)], NOW);
    assert!(outcome.iter().all(Result::is_ok));
    keeper::work(&committer.ledger, Look::Whole).expect("memory");
    drop(committer);
    check_rebuild(&engine);
    let prefix = key::state_rows(last.number);
    let (row_key, _) = super::slice(&engine, Space::Bucket(last.bucket), &prefix, None).expect("memory").remove(0);
    engine.append(last.bucket, vec![Row { key: row_key, value: None }]).expect("memory");
    drop(open(&engine).expect("the state is still there"));
    engine.clear_state().expect("memory");
    assert!(matches!(open(&engine).err(), Some(StoreError::Damaged { .. })));
}

#[test]
fn a_state_from_before_the_drop_is_computed_again() {
    let engine = MemoryEngine::new();
    let mut committer = written(&engine);
    let old = state(&engine);
    write_snapshot(&mut committer);
    keeper::work(&committer.ledger, Look::Whole).expect("memory");
    let before = committer.ledger.droppable();
    assert_eq!(before, 3);
    assert!(committer.step(vec![drop_buckets(&device(1), before)], NOW).iter().all(Result::is_ok));
    keeper::work(&committer.ledger, Look::Whole).expect("memory");
    drop(committer);
    let current = state(&engine);
    engine.clear_state().expect("memory");
    // As it was at leaf 0: the records between are gone.
    let mut rows: Vec<Row> = old.into_iter().map(|(key, value)| Row { key, value: Some(value) }).collect();
    crate::parts::put(&mut rows, key::APPLIED, &crate::state::encode_number(1));
    engine.apply(rows).expect("memory");
    drop(open(&engine).expect("the zone opens"));
    assert!(state(&engine) == current);
}

#[test]
fn a_beginning_that_is_gone_and_was_not_dropped_is_damage() {
    let engine = MemoryEngine::new();
    let mut committer = written(&engine);
    write_snapshot(&mut committer);
    drop(committer);
    let first = engine.buckets().expect("memory")[0];
    engine.drop_bucket(first).expect("memory");
    assert!(matches!(open(&engine).err(), Some(StoreError::Damaged { .. })));
    engine.clear_state().expect("memory");
    assert!(matches!(open(&engine).err(), Some(StoreError::Damaged { .. })));
}

#[test]
fn nothing_may_be_dropped_before_it_was_copied() {
    let engine = MemoryEngine::new();
    let mut committer = written(&engine);
    write_snapshot(&mut committer);
    // No keeper has run: there are no segments.
    let outcome = committer.step(vec![drop_buckets(&device(1), 2)], NOW);
    assert_eq!(outcome, [Err(Refused::BucketNeeded { bucket: 0 })]);
    assert!(engine.segments().expect("memory").is_empty());
    keeper::work(&committer.ledger, Look::Whole).expect("memory");
    assert_eq!(engine.segments().expect("memory").len(), 2);
    assert!(committer.step(vec![drop_buckets(&device(1), 2)], NOW).iter().all(Result::is_ok));
    // The keeper may be cut short here: the next opening knows what was dropped.
    drop(committer);
    assert_eq!(engine.buckets().expect("memory").len(), 4);
    let committer = open(&engine).expect("the zone opens");
    assert_eq!(committer.ledger.journal.first_number(), 2);
    keeper::work(&committer.ledger, Look::Whole).expect("memory");
    assert_eq!(engine.buckets().expect("memory").len(), 3);
}

#[test]
fn nothing_may_be_dropped_before_a_snapshot_is_complete() {
    let engine = MemoryEngine::new();
    let mut committer = written(&engine);
    keeper::work(&committer.ledger, Look::Whole).expect("memory");
    let refused = |committer: &mut Committer<MemoryEngine>| {
        let outcome = committer.step(vec![drop_buckets(&device(1), 2)], NOW);
        assert_eq!(outcome, [Err(Refused::BucketNeeded { bucket: 0 })]);
    };
    // All is copied, and that is not enough, up to the slice that ends the snapshot.
    refused(&mut committer);
    committer.write_snapshot();
    while committer.ledger.snapshot().is_none() {
        refused(&mut committer);
        committer.work();
    }
    assert!(committer.step(vec![drop_buckets(&device(1), 2)], NOW).iter().all(Result::is_ok));
    keeper::work(&committer.ledger, Look::Whole).expect("memory");
    drop(committer);
    check_rebuild(&engine);
}

#[test]
fn a_zone_writes_snapshots_and_copies_by_itself() {
    let engine = MemoryEngine::new();
    let options = ZoneOptions { bucket_records_max: 10, ..ZoneOptions::default() };
    let zone = Zone::open("snapshots".parse().expect("well formed"), engine, ManualClock::new(), options);
    let zone = zone.expect("the zone opens");
    commit(&zone, with_view(start(channel(1), &device(1)))).expect("a new channel");
    let mut number = 0u64;
    // It does both beside what it is asked for, some time after a bucket has closed.
    loop {
        let health = zone.health().journal;
        if health.snapshot_leaf.is_some() && health.buckets > 1 && health.uncopied_buckets + 1 < health.buckets {
            break;
        }
        number += 1;
        commit(&zone, message(channel(1), &device(1), 0, &number.to_be_bytes())).expect("a member");
    }
    assert_eq!(zone.head(&channel(1)).expect("readable").expect("exists").head.sequence, Sequence(number + 1));
}
