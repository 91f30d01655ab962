//! Engines that fail or panic: it costs the zone, never the process, and nothing is acknowledged that is not durable.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use bytes::Bytes;
use lianxin_types::{ChannelId, Clock, DeviceUri, Sequence};
use tokio::sync::broadcast::error::RecvError;

use crate::conformance::{ManualClock, block_on, channel, check_audit, commit, device, message, start};
use crate::engine::{Bucket, Engine, Progress, Room, Row, Segment, SegmentFill, Space, Visitor};
use crate::memory::MemoryEngine;
use crate::reopening::Reopening;
use crate::unit::{Effect, Refused, Unit};
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
    /// What there is room for at the next durability points, the first one first; everything behind them.
    rooms: Arc<Mutex<VecDeque<Room>>>,
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
    fn room(&self) -> Room {
        self.rooms.lock().expect("nobody panics with it").pop_front().unwrap_or(Room::Everything)
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
    fn drop_bucket(&self, bucket: Bucket) -> Result<(), StoreError> {
        self.engine.drop_bucket(bucket)
    }
    fn segments(&self) -> Result<Vec<(Segment, u64)>, StoreError> {
        self.engine.segments()
    }
    fn write_segment(&self, segment: Segment, fill: &mut SegmentFill<'_>) -> Result<(), StoreError> {
        self.engine.write_segment(segment, fill)
    }
    fn read_segment(&self, segment: Segment, offset: u64, bytes: usize) -> Result<Vec<u8>, StoreError> {
        self.engine.read_segment(segment, offset, bytes)
    }
    fn state_bytes(&self) -> Result<Option<u64>, StoreError> {
        self.engine.state_bytes()
    }
    fn rewrite_state(&self) -> Result<Progress, StoreError> {
        self.engine.rewrite_state()
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
    Broken { engine: MemoryEngine::new(), fault: Arc::new(AtomicU8::new(WORKS)), rooms: Arc::default() }
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
fn what_finds_no_room_holds_back_what_is_behind_it_in_the_same_step() {
    let (one, alice, now) = (channel(1), device(1), ManualClock::new().now());
    // A durability point for every two units; the disk is full before the first or the second, and somebody frees space.
    let cases = [
        (vec![Room::AuditOnly], 0),
        (vec![Room::Nothing, Room::AuditOnly], 0),
        (vec![Room::Everything, Room::AuditOnly], 2),
    ];
    for (rooms, accepted) in cases {
        let engine = broken();
        let options = ZoneOptions { batch_units_max: 2, ..ZoneOptions::default() };
        let zone = "broken".parse().expect("well formed");
        let mut committer = crate::Committer::open(zone, engine.clone(), options).expect("the zone opens");
        assert!(committer.step(vec![start(one, &alice)], now).iter().all(Result::is_ok));
        let messages = || (0..6).map(|number| message(one, &alice, 0, &[number])).collect::<Vec<_>>();
        *engine.rooms.lock().expect("nobody panics with it") = rooms.clone().into();
        let outcomes = committer.step(messages(), now);
        let (first, behind) = outcomes.split_at(accepted);
        assert!(first.iter().all(Result::is_ok), "{rooms:?}: {first:?}");
        assert_eq!(behind, vec![Err(Refused::DiskFull); 6 - accepted], "{rooms:?}");
        // The next step goes on from the first that was refused, in order.
        let again = committer.step(messages().split_off(accepted), now);
        let sequences: Vec<u64> =
            first.iter().chain(&again).map(|outcome| outcome.as_ref().expect("room again").sequence.0).collect();
        assert_eq!(sequences, [2, 3, 4, 5, 6, 7], "{rooms:?}");
    }
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
    drop(zone);

    let limit = units(2).iter().map(Unit::bytes).sum();
    let zone = open(&engine, ZoneOptions { queue_bytes_max: limit, ..ZoneOptions::default() });
    let refused = Refused::LimitReached { what: "queued bytes", limit: limit as u64 };
    assert_eq!(block_on(zone.commit_many(units(3))), vec![Err(refused); 3]);
    assert_eq!(block_on(zone.commit_many(units(2))), vec![Err(Refused::NoChannel); 2]);
    assert_eq!(zone.health().queued_bytes, 0);
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

/// A message with a Welcome: the store does not ask what kind of event brings one.
fn invite(to: ChannelId, sender: &DeviceUri, recipient: &DeviceUri) -> Unit {
    static NUMBER: AtomicU8 = AtomicU8::new(0);
    let mut unit = message(to, sender, 0, &[NUMBER.fetch_add(1, Ordering::Relaxed)]);
    let (welcome, tree) = (Bytes::from_static(b"welcome"), Bytes::from_static(b"tree"));
    unit.effects.push(Effect::Welcome { recipients: vec![recipient.clone()], inviter: sender.clone(), welcome, tree });
    unit
}

#[test]
fn an_inbox_goes_on_past_entries_whose_welcome_has_gone() {
    let engine = broken();
    let zone = open(&engine, ZoneOptions::default());
    let (one, alice, bob) = (channel(1), device(1), device(2));
    commit(&zone, start(one, &alice)).expect("a new channel");
    let places: Vec<Sequence> =
        (0..7).map(|_| commit(&zone, invite(one, &alice, &bob)).expect("a member").sequence).collect();
    // As a confirmation leaves it for who has read the entries already and not yet the Welcomes.
    for gone in [0, 1, 2, 4, 6] {
        let mut rows = Vec::new();
        crate::parts::delete(&mut rows, &crate::key::welcome(&one, places[gone], 0), 0, 1);
        engine.apply(rows).expect("memory");
    }
    let ids = |after, limit| {
        let entries = zone.inbox(&bob, after, limit).expect("readable");
        entries.iter().map(|entry| entry.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(0, 1), [4]);
    assert_eq!(ids(0, 2), [4, 6]);
    assert_eq!(ids(0, 9), [4, 6]);
    assert_eq!(ids(4, 1), [6]);
    assert_eq!((ids(6, 1), ids(0, 0)), (vec![], vec![]));
}

/// A zone that keeps itself open on a broken engine. Attempts wait for their turn: `true` lets one open, `false` makes it
/// fail, and the end of turns makes it panic.
fn reopening(engine: &Broken, turns: mpsc::Receiver<bool>) -> Reopening {
    let (engine, turns, is_first) = (engine.clone(), Mutex::new(turns), AtomicBool::new(true));
    let opener = move || {
        let may_open = is_first.swap(false, Ordering::SeqCst)
            || turns.lock().expect("nobody panics with it").recv().expect("a turn for each attempt");
        let engine = Broken { engine: engine.engine.reopened(), ..engine.clone() };
        let store: Arc<dyn ZoneStore> = Arc::new(open(&engine, ZoneOptions::default()));
        if may_open { Ok(store) } else { Err(failed()) }
    };
    Reopening::open(Box::new(opener)).expect("the zone opens")
}

#[test]
fn a_fenced_zone_opens_itself_again() {
    for (fault, durable) in [(APPEND_FAILS, 1), (APPEND_PANICS, 1), (APPLY_FAILS, 2)] {
        let engine = broken();
        let (turn, turns) = mpsc::channel();
        let zone = reopening(&engine, turns);
        let (one, alice) = (channel(1), device(1));
        commit(&zone, start(one, &alice)).expect("a new channel");
        let mut tail = zone.tail();
        engine.fault.store(fault, Ordering::SeqCst);
        assert_eq!(commit(&zone, message(one, &alice, 0, b"lost")), Err(Refused::Unavailable), "fault {fault}");
        engine.fault.store(WORKS, Ordering::SeqCst);
        // The tail closes with the zone; then there is nobody to ask, and the name and the promises stay.
        assert_eq!(tail.blocking_recv(), Err(RecvError::Closed));
        let closed = zone.health();
        assert_eq!((closed.is_writable, closed.fencing_number, closed.leaf_count), (false, 2, 1));
        assert!(closed.fault.is_some());
        assert!(matches!(zone.head(&one), Err(StoreError::Unavailable { .. })));
        let units = vec![message(one, &alice, 0, b"1"), message(one, &alice, 0, b"2")];
        assert_eq!(block_on(zone.commit_many(units)), vec![Err(Refused::Unavailable); 2]);
        assert_eq!((zone.zone().as_str(), zone.caps()), ("broken", engine.caps()));
        // One attempt fails, the next one opens, and who waits for events hears of it.
        let mut next = zone.tail();
        turn.send(false).expect("an attempt waits");
        turn.send(true).expect("an attempt waits");
        assert_eq!(next.blocking_recv(), Err(RecvError::Closed));
        let health = zone.health();
        assert_eq!((health.is_writable, health.fault, health.leaf_count), (true, None, durable), "fault {fault}");
        assert!(health.fencing_number > closed.fencing_number);
        let mut tail = zone.tail();
        let accepted = commit(&zone, message(one, &alice, 0, b"next")).expect("a member");
        assert_eq!(tail.blocking_recv().expect("the event").head.sequence, accepted.sequence);
        assert_eq!(check_audit(&zone, &[one]), durable + 1);
    }
}

#[test]
fn a_zone_heals_more_than_once_and_closes_while_it_cannot() {
    let engine = broken();
    let (turn, turns) = mpsc::channel();
    let zone = reopening(&engine, turns);
    let (one, alice) = (channel(1), device(1));
    commit(&zone, start(one, &alice)).expect("a new channel");
    for round in 0..2 {
        let mut tail = zone.tail();
        engine.fault.store(APPEND_PANICS, Ordering::SeqCst);
        // Nobody waits for the answer: the zone finds out by itself.
        drop(zone.commit_many(vec![message(one, &alice, 0, b"lost")]));
        assert_eq!(tail.blocking_recv(), Err(RecvError::Closed), "round {round}");
        engine.fault.store(WORKS, Ordering::SeqCst);
        let mut next = zone.tail();
        turn.send(true).expect("an attempt waits");
        assert_eq!(next.blocking_recv(), Err(RecvError::Closed), "round {round}");
        commit(&zone, message(one, &alice, 0, &[round])).expect("a member");
    }
    let future = zone.commit_many(vec![message(one, &alice, 0, b"kept")]);
    engine.fault.store(APPEND_FAILS, Ordering::SeqCst);
    let _ = commit(&zone, message(one, &alice, 0, b"lost"));
    // No more turns: attempts panic, and dropping the zone still ends its thread and lets go of everything.
    drop(turn);
    let held = Arc::downgrade(&engine.fault);
    drop(zone);
    drop(engine);
    assert!(held.upgrade().is_none(), "a future keeps nothing open");
    assert_eq!(block_on(future).len(), 1);
}
