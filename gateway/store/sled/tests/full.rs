//! A zone on a disk whose free space the test sets: what is refused, what goes on, and that it goes on by itself.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use lianxin_store::conformance::{ManualClock, channel, check_audit, commit, device, message, start};
use lianxin_store::{GroupSnapshot, Refused, Room, Unit, ZoneOptions, ZoneStore};
use lianxin_store_sled::{Disk, RealDisk, SpaceBounds, open_bounded};
use lianxin_types::{Epoch, Sequence};
use tempfile::TempDir;

const BOUNDS: SpaceBounds = SpaceBounds { free_bytes_min: 4_000_000, reserve_bytes: 1_000_000 };

struct Small(AtomicU64);

impl Disk for Small {
    fn sync_data(&self, file: &File, path: &Path) -> io::Result<()> {
        RealDisk.sync_data(file, path)
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_all(path)
    }

    fn free_bytes(&self, _folder: &Path) -> io::Result<u64> {
        Ok(self.0.load(Ordering::Relaxed))
    }
}

struct Place {
    root: TempDir,
    disk: Arc<Small>,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary folder");
        Self { root, disk: Arc::new(Small(AtomicU64::new(u64::MAX))) }
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("zone")
    }

    fn open(&self) -> Arc<dyn ZoneStore> {
        let zone = "hangzhou".parse().expect("well formed");
        let disk: Arc<dyn Disk> = Arc::<Small>::clone(&self.disk);
        open_bounded(&self.folder(), zone, ManualClock::new(), disk, ZoneOptions::default(), BOUNDS).expect("opens")
    }

    fn free(&self, bytes: u64) {
        self.disk.0.store(bytes, Ordering::Relaxed);
    }
}

/// A unit that is nothing but its audit record, as a read or a refusal makes it.
fn record() -> Unit {
    let audit = message(channel(1), &device(1), 0, b"").audit;
    Unit { channel: None, idempotency: None, effects: Vec::new(), audit, followers: Vec::new() }
}

#[test]
fn effects_are_refused_first_then_everything_and_then_all_goes_on() {
    let place = Place::new();
    let store = place.open();
    let (one, alice) = (channel(1), device(1));
    commit(&*store, start(one, &alice)).expect("a new channel");
    let first = message(one, &alice, 0, b"first");
    let accepted = commit(&*store, first.clone()).expect("a member");
    assert_eq!(fs::metadata(place.folder().join("reserve")).expect("it is kept").len(), BOUNDS.reserve_bytes);

    place.free(BOUNDS.free_bytes_min - 1);
    let second = message(one, &alice, 0, b"second");
    assert_eq!(commit(&*store, second.clone()), Err(Refused::DiskFull));
    let health = store.health();
    assert_eq!((health.is_writable, health.room, health.fault), (false, Room::AuditOnly, None));
    assert!(!place.folder().join("reserve").exists(), "it is given up for what follows");
    for _ in 0..3 {
        commit(&*store, record()).expect("a record that fits");
    }
    // What was accepted is answered, in a batch with what is not.
    let outcomes =
        lianxin_store::conformance::block_on(store.commit_many(vec![first.clone(), second.clone(), record()]));
    assert_eq!(outcomes[0], Ok(accepted.clone().as_repeat()));
    assert_eq!(outcomes[1], Err(Refused::DiskFull));
    assert!(outcomes[2].is_ok());
    assert_eq!(store.read(&one, Sequence(0), 9, 1 << 20).expect("readable").events.len(), 2);
    // What is written lazily is left out.
    store.cursor_merge(&alice, &[(one, Sequence(2))]).expect("nothing is written");
    let snapshot = GroupSnapshot { epoch: Epoch(0), sequence: Sequence(2), state: Bytes::from_static(b"view") };
    store.put_group_snapshot(&one, snapshot.clone()).expect("nothing is written");
    assert_eq!(store.cursor(&alice, &one).expect("readable"), Sequence(0));
    assert_eq!(store.group_snapshot(&one).expect("readable"), None);

    place.free(BOUNDS.reserve_bytes / 4 - 1);
    assert_eq!(commit(&*store, record()), Err(Refused::DiskFull));
    assert_eq!(store.health().room, Room::Nothing);
    assert_eq!(commit(&*store, first), Ok(accepted.as_repeat()), "nothing is written for a repeat");

    place.free(u64::MAX);
    let health = store.health();
    assert_eq!((health.is_writable, health.room, health.fencing_number), (true, Room::Everything, 1));
    assert!(place.folder().join("reserve").exists(), "and kept again");
    assert_eq!(commit(&*store, second).expect("a member").sequence, Sequence(3));
    store.cursor_merge(&alice, &[(one, Sequence(2))]).expect("writable");
    store.put_group_snapshot(&one, snapshot.clone()).expect("writable");
    assert_eq!(store.cursor(&alice, &one).expect("readable"), Sequence(2));
    assert_eq!(store.group_snapshot(&one).expect("readable"), Some(snapshot));
    assert_eq!(check_audit(&*store, &[one]), 7);
}

#[test]
fn a_zone_opens_on_a_full_disk_and_is_writable_when_there_is_space() {
    let place = Place::new();
    let store = place.open();
    commit(&*store, start(channel(1), &device(1))).expect("a new channel");
    drop(store);
    place.free(0);
    let store = place.open();
    assert_eq!(store.health().room, Room::Nothing);
    assert_eq!(commit(&*store, record()), Err(Refused::DiskFull));
    assert_eq!(store.read(&channel(1), Sequence(0), 9, 1 << 20).expect("readable").events.len(), 1);
    place.free(u64::MAX);
    commit(&*store, message(channel(1), &device(1), 0, b"next")).expect("a member");
}
