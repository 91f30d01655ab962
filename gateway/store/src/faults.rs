//! Engines that fail or panic: it costs the zone, never the process, and nothing is acknowledged that is not durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use lianxin_types::{Clock, Sequence};

use crate::conformance::{ManualClock, block_on, channel, check_audit, commit, device, message, start};
use crate::engine::{Bucket, Engine, Row, Space, Visitor};
use crate::memory::MemoryEngine;
use crate::unit::Refused;
use crate::zone::{Zone, ZoneOptions};
use crate::zone_store::{Caps, StoreError, ZoneStore};

const WORKS: u8 = 0;
const APPEND_FAILS: u8 = 1;
const APPEND_PANICS: u8 = 2;
const APPLY_FAILS: u8 = 3;

/// A memory engine with a switch.
#[derive(Clone)]
struct Broken {
    engine: MemoryEngine,
    fault: Arc<AtomicU8>,
}

fn failed() -> StoreError {
    StoreError::Io { operation: "write", path: "nowhere".into(), source: std::io::Error::other("broken on purpose") }
}

impl Engine for Broken {
    fn caps(&self) -> Caps {
        self.engine.caps()
    }
    fn fencing_number(&self) -> u64 {
        self.engine.fencing_number()
    }
    fn buckets(&self) -> Result<Vec<Bucket>, StoreError> {
        self.engine.buckets()
    }
    fn create_bucket(&self, bucket: Bucket) -> Result<(), StoreError> {
        self.engine.create_bucket(bucket)
    }
    fn append(&self, bucket: Bucket, rows: Vec<Row>) -> Result<(), StoreError> {
        match self.fault.load(Ordering::SeqCst) {
            APPEND_FAILS => Err(failed()),
            APPEND_PANICS => panic!("on purpose"),
            _ => self.engine.append(bucket, rows),
        }
    }
    fn apply(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        if self.fault.load(Ordering::SeqCst) == APPLY_FAILS { Err(failed()) } else { self.engine.apply(rows) }
    }
    fn clear_state(&self) -> Result<(), StoreError> {
        self.engine.clear_state()
    }
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.engine.get(space, key)
    }
    fn scan(&self, space: Space, prefix: &[u8], from: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        self.engine.scan(space, prefix, from, visit)
    }
    fn last_key(&self, space: Space, prefix: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.engine.last_key(space, prefix)
    }
}

fn open(engine: &Broken, options: ZoneOptions) -> Zone<Broken> {
    Zone::open("broken".parse().expect("well formed"), engine.clone(), ManualClock::new(), options)
        .expect("the zone opens")
}

fn broken() -> Broken {
    Broken { engine: MemoryEngine::new(), fault: Arc::new(AtomicU8::new(WORKS)) }
}

#[test]
fn a_fault_fences_the_zone_until_it_is_opened_again() {
    for (fault, durable) in [(APPEND_FAILS, 1), (APPEND_PANICS, 1), (APPLY_FAILS, 2)] {
        let engine = broken();
        let zone = open(&engine, ZoneOptions::default());
        let (one, alice) = (channel(1), device(1));
        commit(&zone, start(one, &alice)).expect("a new channel");
        let mut tail = zone.tail();
        engine.fault.store(fault, Ordering::SeqCst);
        assert_eq!(commit(&zone, message(one, &alice, 0, b"lost")), Err(Refused::Unavailable), "fault {fault}");
        engine.fault.store(WORKS, Ordering::SeqCst);
        assert_eq!(commit(&zone, message(one, &alice, 0, b"more")), Err(Refused::Unavailable), "fault {fault}");
        assert!(tail.try_recv().is_err(), "nothing is shown that was not acknowledged");
        assert!(!zone.health().is_writable && zone.health().fault.is_some());
        assert!(matches!(zone.read(&one, Sequence(0), 9, 9), Err(StoreError::Unavailable { .. })));
        drop(zone);
        // What was durable when it failed is there, once, and the zone goes on behind it.
        let zone = open(&engine, ZoneOptions::default());
        assert!(zone.health().is_writable);
        assert_eq!(zone.health().leaf_count, durable, "fault {fault}");
        commit(&zone, message(one, &alice, 0, b"next")).expect("a member");
        assert_eq!(check_audit(&zone, &[one]), durable + 1);
    }
}

#[test]
fn a_fault_in_the_middle_of_a_batch_keeps_what_was_durable_before_it() {
    let engine = broken();
    let options = ZoneOptions { batch_units_max: 2, ..ZoneOptions::default() };
    let clock = ManualClock::new();
    let zone = "broken".parse().expect("well formed");
    let mut committer = crate::Committer::open(zone, engine.clone(), options).expect("the zone opens");
    let (one, alice) = (channel(1), device(1));
    let batch = vec![start(one, &alice), message(one, &alice, 0, b"a"), message(one, &alice, 0, b"b")];
    let outcomes = committer.step(batch, clock.now());
    assert!(outcomes.iter().all(Result::is_ok), "a simulation calls the step itself");
    engine.fault.store(APPEND_PANICS, Ordering::SeqCst);
    let batch = vec![message(one, &alice, 7, b"c"), message(one, &alice, 7, b"d"), message(one, &alice, 0, b"e")];
    let outcomes = committer.step(batch, clock.now());
    assert!(matches!(
        outcomes[..],
        [Err(Refused::WrongEpoch { .. }), Err(Refused::WrongEpoch { .. }), Err(Refused::Unavailable)]
    ));
}

#[test]
fn a_full_queue_refuses_at_once() {
    let engine = broken();
    let zone = open(&engine, ZoneOptions { queue_units_max: 3, ..ZoneOptions::default() });
    let (one, alice) = (channel(1), device(1));
    let units = |count: u8| (0..count).map(|number| message(one, &alice, 0, &[number])).collect::<Vec<_>>();
    let refused = Refused::LimitReached { what: "queued units", limit: 3 };
    assert_eq!(block_on(zone.commit_many(units(4))), vec![Err(refused); 4]);
    assert_eq!(block_on(zone.commit_many(units(3))), vec![Err(Refused::NoChannel); 3]);
    assert_eq!(zone.health().queued_units, 0);
    assert_eq!(block_on(zone.commit_many(Vec::new())), vec![]);
}

#[test]
fn dropping_the_future_does_not_take_the_unit_back() {
    let engine = broken();
    let zone = open(&engine, ZoneOptions::default());
    drop(zone.commit_many(vec![start(channel(1), &device(1))]));
    commit(&zone, message(channel(1), &device(1), 0, b"second")).expect("the channel exists");
    drop(zone);
    assert_eq!(check_audit(&open(&engine, ZoneOptions::default()), &[channel(1)]), 2);
}

#[test]
fn a_journal_record_that_was_changed_is_found_when_it_is_applied() {
    let engine = broken();
    let zone = open(&engine, ZoneOptions::default());
    commit(&zone, start(channel(1), &device(1))).expect("a new channel");
    drop(zone);
    let bucket = engine.buckets().expect("memory")[0];
    let mut row_key = crate::key::leaf(crate::key::AUDIT, 0);
    row_key.extend_from_slice(&[0, 0]);
    let mut value = engine.get(Space::Bucket(bucket), &row_key).expect("memory").expect("the record");
    *value.last_mut().expect("bytes") ^= 1;
    engine.append(bucket, vec![Row { key: row_key, value: Some(value) }]).expect("memory");
    engine.clear_state().expect("memory");
    let opened = Zone::open("broken".parse().expect("well formed"), engine, ManualClock::new(), ZoneOptions::default());
    assert!(matches!(opened.err(), Some(StoreError::Damaged { .. })));
}
