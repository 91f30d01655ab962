//! Segments that are cut, changed or missing.

use std::sync::atomic::AtomicBool;

use lianxin_tlog::RetentionClass;

use super::File;
use crate::conformance::{ManualClock, block_on, channel, commit, device, drop_buckets, message, start};
use crate::engine::{Engine, Segment};
use crate::memory::MemoryEngine;
use crate::unit::Effect;
use crate::zone::{Zone, ZoneOptions};
use crate::zone_store::{AuditRecord, StoreError, ZoneStore};

fn open(engine: &MemoryEngine) -> Zone<MemoryEngine> {
    let options = ZoneOptions { bucket_records_max: 4, ..ZoneOptions::default() };
    let zone = "segments".parse().expect("well formed");
    Zone::open(zone, engine.clone(), ManualClock::new(), options).expect("the zone opens")
}

/// A zone of which three buckets have closed and been copied, and its audit records as they were before.
fn written(engine: &MemoryEngine) -> (Zone<MemoryEngine>, Vec<AuditRecord>) {
    let zone = open(engine);
    let mut unit = start(channel(1), &device(1));
    unit.effects.push(Effect::GroupSnapshot { state: bytes::Bytes::from_static(b"view") });
    commit(&zone, unit).expect("a new channel");
    for number in 0..12u8 {
        commit(&zone, message(channel(1), &device(1), 0, &[number])).expect("a member");
    }
    assert_eq!(block_on(zone.prepare_drop()).expect("open"), 4);
    let records = zone.audit_read(0, 100).expect("readable");
    assert_eq!(records.len(), 13);
    (zone, records)
}

const FIRST: Segment = Segment { bucket: 1, class: 1 };

fn bytes_of(engine: &MemoryEngine, segment: Segment) -> Vec<u8> {
    engine.read_segment(segment, 0, usize::MAX).expect("memory")
}

fn put(engine: &MemoryEngine, segment: Segment, bytes: &[u8]) {
    engine
        .write_segment(segment, &mut |out| {
            out.write_all(bytes).expect("memory");
            Ok(())
        })
        .expect("memory");
}

/// What an examination of every byte says.
fn examine(engine: &MemoryEngine, bytes: usize) -> Result<(), StoreError> {
    File::open(engine, FIRST, bytes as u64)?.verify(engine, &AtomicBool::new(false))
}

#[test]
fn every_cut_and_every_changed_byte_is_found() {
    let engine = MemoryEngine::new();
    drop(written(&engine));
    let whole = bytes_of(&engine, FIRST);
    assert!(examine(&engine, whole.len()).is_ok());
    for place in 0..whole.len() {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        put(&engine, FIRST, &changed);
        assert!(matches!(examine(&engine, whole.len()), Err(StoreError::Damaged { .. })), "byte {place}");
    }
    for length in (0..whole.len()).step_by(7) {
        put(&engine, FIRST, &whole[..length]);
        assert!(matches!(examine(&engine, length), Err(StoreError::Damaged { .. })), "cut to {length}");
    }
}

#[test]
fn a_damaged_copy_costs_nothing_while_its_bucket_is_there_and_is_made_again() {
    let engine = MemoryEngine::new();
    let (zone, records) = written(&engine);
    let whole = bytes_of(&engine, FIRST);
    let index = 8 * 4 + super::TRAILER_BYTES as usize;
    let mut changed = whole.clone();
    // In the body of the bucket's last record.
    changed[whole.len() - index - 3] ^= 1;
    put(&engine, FIRST, &changed);
    assert_eq!(zone.audit_read(0, 100).expect("readable"), records, "read from the bucket");
    drop(zone);
    // The next opening looks at all copies before anything may be dropped.
    for damage in [changed, whole[..whole.len() - 1].to_vec(), Vec::new()] {
        put(&engine, FIRST, &damage);
        let zone = open(&engine);
        assert_eq!(block_on(zone.prepare_drop()).expect("open"), 4);
        assert!(bytes_of(&engine, FIRST) == whole, "the same copy again");
    }
    // Without the bucket it is missed, by name and alone.
    let zone = open(&engine);
    assert_eq!(block_on(zone.prepare_drop()).expect("open"), 4);
    commit(&zone, drop_buckets(&device(1), 4)).expect("they may end");
    assert_eq!(zone.audit_read(0, 13).expect("readable"), records);
    let mut changed = whole;
    let place = changed.len() - index - 3;
    changed[place] ^= 1;
    put(&engine, FIRST, &changed);
    assert!(matches!(zone.audit_read(3, 1), Err(StoreError::Damaged { what: "segment record" })));
    assert_eq!(zone.audit_read(4, 9).expect("readable"), records[4..]);
    assert!(zone.health().is_writable);
}

#[test]
fn a_class_without_its_file_is_no_copy() {
    let engine = MemoryEngine::new();
    let (zone, _) = written(&engine);
    drop(zone);
    // The header says that there is a second class, and there is no such file.
    let header = File::open(&engine, FIRST, bytes_of(&engine, FIRST).len() as u64).expect("whole").header;
    let claims = super::Header { classes: vec![header.class, RetentionClass(9)], ..header };
    let mut bytes = Vec::new();
    super::write(&engine, &claims, &AtomicBool::new(false), &mut bytes).expect("readable");
    put(&engine, FIRST, &bytes);
    let copies = crate::copies::Copies::open(&engine).expect("memory");
    assert_eq!(copies.record(&engine, crate::key::AUDIT, 0).expect("memory"), None);
    assert!(copies.record(&engine, crate::key::AUDIT, 4).expect("memory").is_some());
}

#[test]
fn records_of_several_classes_go_into_a_file_each_and_come_out_in_order() {
    let engine = MemoryEngine::new();
    let zone = open(&engine);
    let mut unit = start(channel(1), &device(1));
    unit.effects.push(Effect::GroupSnapshot { state: bytes::Bytes::from_static(b"view") });
    commit(&zone, unit).expect("a new channel");
    for number in 0..12u8 {
        let mut unit = message(channel(1), &device(1), 0, &[number]);
        unit.audit.retention_class = RetentionClass(1 + u16::from(number % 3));
        commit(&zone, unit).expect("a member");
    }
    let records = zone.audit_read(0, 100).expect("readable");
    assert_eq!(block_on(zone.prepare_drop()).expect("open"), 4);
    let files: Vec<_> = engine.segments().expect("memory").iter().map(|(file, _)| (file.bucket, file.class)).collect();
    assert_eq!(files, [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (3, 1), (3, 2), (3, 3)]);
    commit(&zone, drop_buckets(&device(1), 4)).expect("they may end");
    assert_eq!(zone.audit_read(0, 13).expect("readable"), records, "the buckets are gone, no record is");

    // Each holds its own: of start, 0, 1 and 2 the second message has the second class.
    let bytes = bytes_of(&engine, Segment { bucket: 1, class: 2 });
    let file = File::open(&engine, Segment { bucket: 1, class: 2 }, bytes.len() as u64).expect("whole");
    let leaves: Vec<u64> =
        (0..4).filter(|leaf| file.record(&engine, crate::key::AUDIT, *leaf).expect("memory").is_some()).collect();
    assert_eq!(leaves, [2]);
}
