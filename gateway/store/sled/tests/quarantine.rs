//! Each kind of damage of a journal closes its zone, says so in its folder, and touches no other zone of the process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lianxin_store::conformance::{ManualClock, channel, check_audit, commit, device, message, start};
use lianxin_store::{Refused, StoreError, ZoneOptions, ZoneStore};
use lianxin_store_sled::{RealDisk, SpaceBounds, keep_open, open_with};
use lianxin_types::{Clock as _, LIMITS};
use tempfile::TempDir;

const OPTIONS: fn() -> ZoneOptions = || ZoneOptions { bucket_records_max: 4, ..ZoneOptions::default() };

struct Place(TempDir);

impl Place {
    fn folder(&self) -> PathBuf {
        self.0.path().join("zone")
    }

    /// A closed zone with three buckets and eleven leaves, and a copy of it.
    fn written() -> Self {
        let place = Self(tempfile::tempdir().expect("a temporary folder"));
        let store = place.kept_open();
        commit(&*store, start(channel(1), &device(1))).expect("a new channel");
        for number in 1..=10 {
            commit(&*store, message(channel(1), &device(1), 0, &[number; 500])).expect("a member");
        }
        drop(store);
        copy(&place.folder(), &place.0.path().join("backup"));
        place
    }

    fn kept_open(&self) -> Arc<dyn ZoneStore> {
        self.kept_open_at(ManualClock::new()).expect("open, or closed and kept")
    }

    fn kept_open_at(&self, clock: Arc<ManualClock>) -> Result<Arc<dyn ZoneStore>, StoreError> {
        let (zone, disk) = ("hangzhou".parse().expect("well formed"), Arc::new(RealDisk));
        keep_open(&self.folder(), zone, clock, disk, OPTIONS(), SpaceBounds::NONE)
    }

    fn bucket(&self, number: u64) -> PathBuf {
        let begins = format!("{number:08}-");
        let buckets = fs::read_dir(self.folder().join("buckets")).expect("readable");
        let mut paths = buckets.map(|entry| entry.expect("readable").path());
        paths.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&begins))).expect("it")
    }

    /// As an operator restores it: another folder in the place of the damaged one.
    fn restore(&self) {
        fs::remove_dir_all(self.folder()).expect("a temporary folder");
        copy(&self.0.path().join("backup"), &self.folder());
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a temporary folder");
    for entry in fs::read_dir(from).expect("readable") {
        let path = entry.expect("readable").path();
        let target = to.join(path.file_name().expect("named"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("copied");
        }
    }
}

fn truncate(path: &Path, length: u64) {
    File::options().write(true).open(path).and_then(|file| file.set_len(length)).expect("a temporary folder");
}

fn flip(path: &Path, byte: u8) {
    let mut bytes = fs::read(path).expect("readable");
    let at = bytes.windows(100).position(|window| window == [byte; 100]).expect("the message");
    bytes[at + 50] ^= 1;
    fs::write(path, bytes).expect("a temporary folder");
}

type Damage = fn(&Place);

const DAMAGES: &[(&str, Damage)] = &[
    ("the newest bucket is cut off", |place| truncate(&place.bucket(3).join("db"), 2_000)),
    ("an older bucket is cut off", |place| truncate(&place.bucket(1).join("db"), 2_000)),
    ("an older bucket is empty", |place| truncate(&place.bucket(2).join("db"), 0)),
    ("a bit of the newest bucket is another", |place| flip(&place.bucket(3).join("db"), 9)),
    ("a bit of an older bucket is another", |place| flip(&place.bucket(2).join("db"), 5)),
    ("a bucket is missing", |place| fs::remove_dir_all(place.bucket(2)).expect("a temporary folder")),
    ("the newest bucket is missing", |place| fs::remove_dir_all(place.bucket(3)).expect("a temporary folder")),
    ("an older bucket was never finished", |place| fs::remove_file(place.bucket(1).join("ready")).expect("there")),
    ("there are files beside a database", |place| {
        fs::write(place.bucket(3).join("blobs/7"), b"never synced").expect("a temporary folder");
    }),
    ("the folder has no format", |place| fs::remove_file(place.folder().join("format")).expect("there")),
];

#[test]
fn every_damage_closes_its_zone_and_no_other() {
    let other = Place(tempfile::tempdir().expect("a temporary folder"));
    let sound = other.kept_open();
    commit(&*sound, start(channel(1), &device(1))).expect("a new channel");
    for (number, (name, damage)) in DAMAGES.iter().enumerate() {
        let place = Place::written();
        damage(&place);
        let store = place.kept_open();
        let health = store.health();
        assert!(health.is_quarantined && !health.is_writable, "{name}: {health:?}");
        assert!(health.fault.is_some_and(|fault| fault.contains("store check")), "{name}: it says what to do");
        let closed = store.read(&channel(1), lianxin_types::Sequence(0), 9, 9);
        assert!(matches!(closed, Err(StoreError::Unavailable { .. })), "{name}");
        let unit = message(channel(1), &device(1), 0, b"never");
        assert_eq!(commit(&*store, unit), Err(Refused::Unavailable), "{name}");
        assert!(place.folder().join("quarantine").exists(), "{name}");
        drop(store);
        // The mark holds even where sled has made the journal look sound by cutting it.
        let zone = "hangzhou".parse().expect("well formed");
        let again = open_with(&place.folder(), zone, ManualClock::new(), Arc::new(RealDisk), OPTIONS());
        assert!(matches!(again.err(), Some(StoreError::Quarantined { .. })), "{name}");
        commit(&*sound, message(channel(1), &device(1), 0, &[number as u8])).expect("the other zone goes on");
    }
    assert_eq!(check_audit(&*sound, &[channel(1)]), 1 + DAMAGES.len() as u64);
}

#[test]
fn a_restored_zone_opens_by_itself() {
    let place = Place::written();
    truncate(&place.bucket(2).join("db"), 2_000);
    let store = place.kept_open();
    assert!(store.health().is_quarantined);
    place.restore();
    while !store.health().is_writable {
        std::thread::yield_now();
    }
    let health = store.health();
    assert!(!health.is_quarantined && health.fault.is_none());
    commit(&*store, message(channel(1), &device(1), 0, b"next")).expect("a member");
    assert_eq!(check_audit(&*store, &[channel(1)]), 12);
}

#[test]
fn what_is_no_damage_is_no_quarantine() {
    let place = Place::written();
    let store = place.kept_open();
    let zone = "hangzhou".parse().expect("well formed");
    let second = keep_open(&place.folder(), zone, ManualClock::new(), Arc::new(RealDisk), OPTIONS(), SpaceBounds::NONE);
    assert!(matches!(second.err(), Some(StoreError::Locked { .. })));
    drop(store);
    fs::remove_dir_all(place.folder().join("state")).expect("a temporary folder");
    let store = place.kept_open();
    assert!(store.health().is_writable, "a lost state is computed again");
    assert!(!place.folder().join("quarantine").exists());
}

#[test]
fn a_clock_before_the_last_record_opens_no_zone_also_when_it_opens_itself() {
    let place = Place::written();
    let clock = ManualClock::new();
    let last = clock.now();
    let behind = last.minus(LIMITS.clock_skew_max + Duration::from_secs(1));
    clock.set(behind);
    match place.kept_open_at(Arc::clone(&clock)).err() {
        Some(StoreError::ClockBehind { now, last: found }) => assert_eq!((now, found), (behind, last)),
        other => panic!("{other:?}"),
    }
    // Closed when it was started, and mended while the clock is wrong: it does not open before that is right.
    let mark = place.folder().join("quarantine");
    fs::write(&mark, "damaged").expect("a temporary folder");
    let store = place.kept_open_at(Arc::clone(&clock)).expect("closed and kept");
    assert!(store.health().is_quarantined);
    fs::remove_file(&mark).expect("there");
    while store.health().is_quarantined {
        std::thread::yield_now();
    }
    let health = store.health();
    assert!(!health.is_writable && health.fault.is_some_and(|fault| fault.contains("clock")));
    clock.set(last.minus(LIMITS.clock_skew_max));
    while !store.health().is_writable {
        std::thread::yield_now();
    }
    commit(&*store, message(channel(1), &device(1), 0, b"next")).expect("a member");
    assert_eq!(check_audit(&*store, &[channel(1)]), 12);
}
