//! Each kind of damage is planted and must be found, by name and in its place; what is sound must be clean.

use bytes::Bytes;
use lianxin_types::Sequence;

use super::{Fault, Inspection, inspect};
use crate::change::{self, Change};
use crate::conformance::{ManualClock, channel, commit, device, message, start};
use crate::engine::{Bucket, Engine, Row, Space};
use crate::memory::MemoryEngine;
use crate::record::{UnitRecord, decode_audit, encode_audit};
use crate::unit::{AuditDraft, Effect, Seat, Unit};
use crate::zone::{Zone, ZoneOptions};
use crate::{key, parts};

/// Units: channel 1 starts at leaf 0, channel 2 at leaf 1, then twelve messages in turn, the first of them of several parts;
/// buckets end after five.
fn written() -> MemoryEngine {
    let engine = MemoryEngine::new();
    let options = ZoneOptions { bucket_records_max: 5, ..ZoneOptions::default() };
    let zone = Zone::open("tested".parse().expect("well formed"), engine.clone(), ManualClock::new(), options);
    let zone = zone.expect("the zone opens");
    for number in 1..=2 {
        commit(&zone, start(channel(number), &device(number as usize))).expect("a new channel");
    }
    for number in 0..12_u8 {
        let to = 1 + u64::from(number % 2);
        let mls = if number == 0 { vec![7; 9_000] } else { vec![number; 40] };
        commit(&zone, message(channel(to), &device(to as usize), 0, &mls)).expect("a member");
    }
    engine
}

fn inspected(engine: &MemoryEngine) -> Inspection {
    inspect(&"tested".parse().expect("well formed"), engine.clone(), &mut |_| ())
}

fn bucket_of(leaf: u64) -> Bucket {
    Bucket { number: 1 + leaf / 5, week: 1_795_000_000 / (7 * 24 * 3600) }
}

fn record(engine: &MemoryEngine, key: &[u8], leaf: u64) -> Vec<u8> {
    parts::get(engine, Space::Bucket(bucket_of(leaf)), key).expect("memory").expect("the record")
}

fn store(engine: &MemoryEngine, key: &[u8], leaf: u64, record: &[u8]) {
    let mut rows = Vec::new();
    parts::put(&mut rows, key, record);
    engine.append(bucket_of(leaf), rows).expect("memory");
}

fn change_unit(engine: &MemoryEngine, leaf: u64, change: impl FnOnce(&mut UnitRecord)) {
    let key = key::leaf(key::UNIT, leaf);
    let mut unit = UnitRecord::decode(record(engine, &key, leaf)).expect("a unit");
    change(&mut unit);
    store(engine, &key, leaf, &unit.encode());
}

fn change_audit(engine: &MemoryEngine, leaf: u64, change: impl FnOnce(&mut crate::AuditRecord)) {
    let key = key::leaf(key::AUDIT, leaf);
    let mut audit = decode_audit(leaf, &record(engine, &key, leaf)).expect("an audit record");
    change(&mut audit);
    store(engine, &key, leaf, &encode_audit(lianxin_tlog::RetentionClass::AUDIT, &audit.leaf, &audit.parts));
}

/// The findings of a zone to which `plant` was done, in words.
fn findings(plant: impl FnOnce(&MemoryEngine)) -> Vec<String> {
    let engine = written();
    plant(&engine);
    inspected(&engine).findings.iter().map(ToString::to_string).collect()
}

/// Exactly one finding in the journal, which reads like this. What is computed from a damaged journal may differ too.
fn one(wanted: &str, plant: impl FnOnce(&MemoryEngine)) {
    let found = findings(plant);
    let in_journal: Vec<_> = found.iter().filter(|finding| finding.starts_with("bucket ")).collect();
    assert!(matches!(in_journal[..], [only] if only.contains(wanted)), "wanted {wanted:?}, found {found:#?}");
}

#[test]
fn what_was_written_is_clean_and_counted() {
    let inspection = inspected(&written());
    assert!(inspection.is_clean(), "{:#?}", inspection.findings);
    assert_eq!((inspection.buckets, inspection.leaves, inspection.events, inspection.channels), (3, 14, 14, 2));
    assert_eq!(inspection.applied, Some(14));
    assert!(inspection.state_rows > 40);
}

#[test]
fn records_that_are_gone_or_do_not_read_are_named() {
    one("bucket 2, unit of leaf 7: missing", |engine| delete(engine, &key::leaf(key::UNIT, 7), 7));
    one("bucket 2, audit record of leaf 7: missing", |engine| delete(engine, &key::leaf(key::AUDIT, 7), 7));
    one("bucket 1, effects of leaf 1: missing", |engine| delete(engine, &key::leaf(key::CHANGES, 1), 1));
    let index = key::event(&channel(1), Sequence(2));
    one("bucket 1, index of event 2 of channel", |engine| delete(engine, &index, 2));
    one("bucket 1, unit of leaf 2: cannot be read", |engine| {
        let second = [&key::leaf(key::UNIT, 2)[..], &[0, 1]].concat();
        engine.append(bucket_of(2), vec![Row { key: second, value: None }]).expect("memory");
    });
    one("bucket 2, audit record of leaf 8: cannot be read", |engine| {
        store(engine, &key::leaf(key::AUDIT, 8), 8, &[9; 40]);
    });
    one("bucket 2, index of event 4 of channel", |engine| {
        let index = key::event(&channel(1), Sequence(4));
        let wrong = crate::state::encode_number(3);
        store(engine, &index, 6, &wrong);
    });
}

fn delete(engine: &MemoryEngine, key: &[u8], leaf: u64) {
    let length = record(engine, key, leaf).len();
    let mut rows = Vec::new();
    parts::delete(&mut rows, key, 0, length);
    engine.append(bucket_of(leaf), rows).expect("memory");
}

#[test]
fn rows_that_belong_to_nothing_are_named() {
    one("bucket 1, effects of leaf 2: belongs to no record", |engine| {
        let effect = Effect::Leaving { device: device(1) };
        store(engine, &key::leaf(key::CHANGES, 2), 2, &change::encode(&[Change { effect, taken: Vec::new() }]));
    });
    one("bucket 2, index of event 99 of channel", |engine| {
        store(engine, &key::event(&channel(1), Sequence(99)), 6, &crate::state::encode_number(6));
    });
    one("row of unknown kind", |engine| store(engine, b"?what", 6, b"this"));
    one("bucket 1, audit record of leaf 3: belongs to no record", |engine| {
        let beyond = [&key::leaf(key::AUDIT, 3)[..], &[0, 1]].concat();
        engine.append(bucket_of(3), vec![Row { key: beyond, value: Some(vec![1]) }]).expect("memory");
    });
}

#[test]
fn leaves_and_parts_that_do_not_fit_are_named() {
    one("audit record of leaf 6: leaf does not commit to the parts", |engine| {
        change_audit(engine, 6, |audit| audit.parts[0].body = b"{}".to_vec());
    });
    let found = findings(|engine| change_audit(engine, 6, |audit| audit.leaf[59] ^= 1));
    assert!(found.iter().any(|line| line.contains("leaf 6: leaf hash in the unit")), "{found:#?}");
    assert!(found.iter().any(|line| line.contains("leaf 6: leaf does not commit")), "{found:#?}");
    one("audit record of leaf 6: leaf hash in the unit", |engine| {
        change_unit(engine, 6, |unit| unit.leaf_hash.0[0] ^= 1);
    });
    let found = findings(|engine| change_audit(engine, 6, |audit| audit.parts.truncate(1)));
    assert!(found.iter().any(|line| line.contains("part of dep-1 does not follow")), "{found:#?}");
    let found = findings(|engine| change_audit(engine, 6, |audit| audit.parts.reverse()));
    assert!(found.iter().any(|line| line.contains("parts are not one shared part")), "{found:#?}");
    let found = findings(|engine| change_audit(engine, 6, |audit| audit.parts[0].header[40] ^= 1));
    assert!(found.iter().any(|line| line.contains("leaf 6: shared header does not fit")), "{found:#?}");
}

/// A unit whose audit record has the slot of another.
fn with_slot(mut unit: Unit, slot: [u8; 16]) -> Unit {
    unit.audit = AuditDraft { slot, ..unit.audit };
    unit
}

#[test]
fn a_slot_that_occurs_twice_is_named_with_both_leaves() {
    let engine = MemoryEngine::new();
    let zone = "tested".parse().expect("well formed");
    let zone = Zone::open(zone, engine.clone(), ManualClock::new(), ZoneOptions::default()).expect("the zone opens");
    for unit in [start(channel(1), &device(1)), message(channel(1), &device(1), 0, b"one")] {
        commit(&zone, with_slot(unit, [5; 16])).expect("the store does not look at slots");
    }
    drop(zone);
    let found: Vec<_> = inspected(&engine).findings.iter().map(ToString::to_string).collect();
    assert_eq!(found, ["bucket 1, audit record of leaf 1: slot is that of leaf 0 too"]);
}

#[test]
fn chains_that_break_are_named_at_their_event() {
    one("unit of leaf 4: mls bytes are not those", |engine| {
        change_unit(engine, 4, |unit| unit.event.as_mut().expect("an event").mls = Bytes::from_static(b"other"));
    });
    let found = findings(|engine| {
        change_unit(engine, 4, |unit| unit.event.as_mut().expect("an event").head.chain_hash.0[0] ^= 1);
    });
    let broken = found.iter().filter(|line| line.contains("chain hash of event")).collect::<Vec<_>>();
    assert_eq!(broken.len(), 2, "it, and the one that was chained to the true one: {found:#?}");
    assert!(broken[0].starts_with("bucket 1, unit of leaf 4: chain hash of event 3"), "{found:#?}");
    let found = findings(|engine| {
        change_unit(engine, 4, |unit| unit.event.as_mut().expect("an event").head.sequence = Sequence(7));
    });
    assert!(found.iter().any(|line| line.contains("leaf 4: event 7 of") && line.ends_with("follows event 2")));
    let found = findings(|engine| change_unit(engine, 4, |unit| unit.gateway_time.0 -= 5));
    assert!(found.iter().any(|line| line.contains("leaf 4: time of event 3")), "{found:#?}");
}

#[test]
fn a_missing_bucket_is_one_finding_and_the_others_are_still_read() {
    let engine = MemoryEngine::new();
    let whole = written();
    for bucket in whole.buckets().expect("memory").into_iter().filter(|bucket| bucket.number != 2) {
        engine.create_bucket(bucket).expect("memory");
        whole
            .scan(Space::Bucket(bucket), &[], &[], &mut |key, value| {
                engine.append(bucket, vec![Row { key: key.to_vec(), value: Some(value.to_vec()) }]).expect("memory");
                std::ops::ControlFlow::Continue(())
            })
            .expect("memory");
    }
    let inspection = inspected(&engine);
    assert_eq!(inspection.findings.len(), 1, "{:#?}", inspection.findings);
    assert_eq!(inspection.findings[0].fault, Fault::BucketOrder { before: 1 });
    assert_eq!(inspection.leaves, 9);
    // A hole inside a bucket is named leaf by leaf, and at the beginning of a bucket once.
    let found = findings(|engine| {
        for family in [key::UNIT, key::AUDIT] {
            delete(engine, &key::leaf(family, 5), 5);
        }
        delete(engine, &key::event(&channel(2), Sequence(3)), 5);
    });
    assert!(found.iter().any(|line| line == "bucket 1, leaves 5 to 5 at its end: missing"));
}

fn state_row(engine: &MemoryEngine, wanted: u8) -> (Vec<u8>, Vec<u8>) {
    let mut found = None;
    let seen = engine.scan(Space::State, &[wanted], &[], &mut |key, value| {
        found = Some((key.to_vec(), value.to_vec()));
        std::ops::ControlFlow::Break(())
    });
    seen.expect("memory");
    found.expect("a row of this kind")
}

#[test]
fn a_state_that_is_not_what_the_journal_gives_is_named() {
    let only = |plant: &dyn Fn(&MemoryEngine)| {
        let found = findings(plant);
        assert_eq!(found.len(), 1, "{found:#?}");
        found[0].clone()
    };
    let put = |engine: &MemoryEngine, key, value| engine.apply(vec![Row { key, value }]).expect("memory");
    let differs = only(&|engine| {
        let (key, mut value) = state_row(engine, key::ROSTER);
        value[30] ^= 1;
        put(engine, key, Some(value));
    });
    assert!(differs.starts_with("roster of a channel") && differs.ends_with("is not what the journal gives"));
    let lacks = only(&|engine| put(engine, state_row(engine, key::ROSTER).0, None));
    assert!(lacks.ends_with("is missing, and the journal gives it"), "{lacks}");
    let exceeds = only(&|engine| {
        let (mut key, value) = state_row(engine, key::ROSTER);
        let at = key.len() - 3;
        key[at] = b'9';
        put(engine, key, Some(value));
    });
    assert!(exceeds.ends_with("is there, and the journal does not give it"), "{exceeds}");
    let short = only(&|engine| {
        let key = [key::APPLIED, &[0, 0]].concat();
        let record = crate::state::encode_number(15);
        let value = [&(record.len() as u32).to_be_bytes()[..], &record].concat();
        put(engine, key, Some(value));
    });
    assert_eq!(short, "state: has applied 15 leaves, and the journal has 14");
}

#[test]
fn a_state_that_is_behind_or_gone_is_no_damage() {
    let engine = written();
    let zone = "tested".parse().expect("well formed");
    let behind = MemoryEngine::new();
    engine
        .scan(Space::State, &[], &[], &mut |key, value| {
            behind.apply(vec![Row { key: key.to_vec(), value: Some(value.to_vec()) }]).expect("memory");
            std::ops::ControlFlow::Continue(())
        })
        .expect("memory");
    let options = ZoneOptions { bucket_records_max: 5, ..ZoneOptions::default() };
    let open = Zone::open(zone, engine.clone(), ManualClock::new(), options).expect("the zone opens");
    let mut unit = message(channel(1), &device(1), 0, b"adds a member");
    let seated = vec![Seat { device: device(3), leaf: 1 }];
    let epoch = lianxin_types::Epoch(1);
    unit.effects.push(Effect::Group { epoch, seated, unseated: Vec::new(), group_info: Bytes::new() });
    commit(&open, unit).expect("a member");
    drop(open);
    engine.clear_state().expect("memory");
    let gone = inspected(&engine);
    assert!(gone.is_clean() && gone.applied.is_none(), "{:#?}", gone.findings);
    behind
        .scan(Space::State, &[], &[], &mut |key, value| {
            engine.apply(vec![Row { key: key.to_vec(), value: Some(value.to_vec()) }]).expect("memory");
            std::ops::ControlFlow::Continue(())
        })
        .expect("memory");
    let behind = inspected(&engine);
    assert!(behind.is_clean(), "{:#?}", behind.findings);
    assert_eq!((behind.applied, behind.leaves), (Some(14), 15));
}
