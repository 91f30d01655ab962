//! Damage in snapshots, in segments, and in what stands in for dropped buckets is found, by name.

use bytes::Bytes;

use crate::conformance::{ManualClock, block_on, channel, commit, device, drop_buckets, message, start};
use crate::engine::{Engine, Row, Segment, Space};
use crate::inspection::inspect;
use crate::memory::MemoryEngine;
use crate::unit::Effect;
use crate::zone::{Zone, ZoneOptions};
use crate::zone_store::ZoneStore;
use crate::{key, parts};

/// Leaves 0 to 16 in buckets of four, a snapshot, and the first `dropped` buckets dropped by one more leaf.
fn written(dropped: u64) -> MemoryEngine {
    let engine = MemoryEngine::new();
    let options = ZoneOptions { bucket_records_max: 4, ..ZoneOptions::default() };
    let zone = Zone::open("tested".parse().expect("well formed"), engine.clone(), ManualClock::new(), options);
    let zone = zone.expect("the zone opens");
    let mut unit = start(channel(1), &device(1));
    unit.effects.push(Effect::GroupSnapshot { state: Bytes::from_static(b"view") });
    commit(&zone, unit).expect("a new channel");
    for number in 0..16u8 {
        commit(&zone, message(channel(1), &device(1), 0, &[number])).expect("a member");
    }
    assert_eq!(block_on(zone.prepare_drop()).expect("open"), 5);
    if dropped > 0 {
        commit(&zone, drop_buckets(&device(1), dropped + 1)).expect("they may end");
    }
    drop(zone);
    engine
}

fn findings(engine: &MemoryEngine) -> Vec<String> {
    let inspection = inspect(&"tested".parse().expect("well formed"), engine.clone(), &mut |_| ());
    inspection.findings.iter().map(ToString::to_string).collect()
}

fn put_segment(engine: &MemoryEngine, bucket: u64, bytes: &[u8]) {
    let segment = Segment { bucket, class: 1 };
    engine
        .write_segment(segment, &mut |out| {
            out.write_all(bytes).expect("memory");
            Ok(())
        })
        .expect("memory");
}

#[test]
fn a_zone_of_which_buckets_were_dropped_is_clean_and_wholly_counted() {
    for dropped in [0, 2] {
        let engine = written(dropped);
        assert_eq!(findings(&engine), [""; 0], "{dropped} dropped");
        let inspection = inspect(&"tested".parse().expect("well formed"), engine.clone(), &mut |_| ());
        let leaves = 17 + u64::from(dropped > 0);
        assert_eq!((inspection.leaves, inspection.buckets as u64), (leaves, 5 - dropped));
    }
}

#[test]
fn a_changed_row_of_a_snapshot_is_named() {
    let engine = written(0);
    let newest = *engine.buckets().expect("memory").last().expect("five");
    let (space, prefix) = (Space::Bucket(newest), key::state_rows(1));
    let row_key = engine.last_key(space, &prefix).expect("memory").expect("rows");
    let mut value = engine.get(space, &row_key).expect("memory").expect("a row");
    value[5] ^= 1;
    engine.append(newest, vec![Row { key: row_key, value: Some(value) }]).expect("memory");
    assert_eq!(findings(&engine), ["bucket 5, state snapshot 1: is not what was written"]);
    let mut rows = Vec::new();
    parts::put(&mut rows, &key::state_mark(key::STATE_END, 1), &[1; 40]);
    engine.append(newest, rows).expect("memory");
    let found = findings(&engine);
    assert!(
        matches!(&found[..], [only] if only.starts_with("bucket 5, state snapshot 1: cannot be read")),
        "{found:?}"
    );
}

#[test]
fn a_changed_segment_is_named_and_what_it_stands_in_for() {
    for dropped in [0, 2] {
        let engine = written(dropped);
        let segment = Segment { bucket: 2, class: 1 };
        let whole = engine.read_segment(segment, 0, usize::MAX).expect("memory");
        let mut changed = whole.clone();
        // In the body of leaf 7, the last before the index of four leaves and the trailer.
        let place = whole.len() - (4 * 8 + 48) - 3;
        changed[place] ^= 1;
        put_segment(&engine, 2, &changed);
        let found = findings(&engine);
        assert!(found[0].starts_with("segment of bucket 2 and class 1: cannot be read"), "{found:?}");
        // As long as the bucket is there, nothing else is amiss.
        assert_eq!(found.len() == 1, dropped == 0, "{found:?}");
        if dropped > 0 {
            assert!(found[1].starts_with("copy of the audit record of leaf 7: cannot be read"), "{found:?}");
            assert_eq!(found.len(), 2, "{found:?}");
        }
        put_segment(&engine, 2, &whole[..20]);
        let found = findings(&engine);
        let missing = found.iter().filter(|finding| finding.ends_with(": missing")).count();
        assert_eq!(missing, if dropped > 0 { 4 } else { 0 }, "{found:?}");
    }
}

#[test]
fn a_beginning_that_is_missing_and_was_not_dropped_is_found() {
    let engine = written(0);
    let first = engine.buckets().expect("memory")[0];
    engine.drop_bucket(first).expect("memory");
    let found = findings(&engine);
    assert!(found.iter().any(|finding| finding.contains("beginning is missing and was not dropped")), "{found:?}");
}
