//! The zone's folder: who may open it, and what is found again after each kind of damage.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lianxin_store::conformance::{ManualClock, channel, check_audit, commit, device, message, start};
use lianxin_store::{Bucket, Durability, Engine, Refused, Row, StoreError, Zone, ZoneOptions, ZoneStore};
use lianxin_store_sled::{Disk, FORMAT, RealDisk, SledEngine, blob_files, open};
use tempfile::TempDir;

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("zone")
    }

    fn open_on(&self, disk: Arc<dyn Disk>) -> Result<Arc<dyn ZoneStore>, StoreError> {
        open(&self.folder(), "hangzhou".parse().expect("well formed"), ManualClock::new(), disk)
    }

    fn open(&self) -> Arc<dyn ZoneStore> {
        self.open_on(Arc::new(RealDisk)).expect("the zone opens")
    }

    fn refused(&self) -> StoreError {
        self.open_on(Arc::new(RealDisk)).err().expect("the zone does not open")
    }

    /// A closed zone with a channel and `count` messages from `first` on.
    fn write(&self, first: u8, count: u8) {
        let store = self.open();
        if first == 0 {
            commit(&*store, start(channel(1), &device(1))).expect("a new channel");
        }
        for number in first..first + count {
            commit(&*store, message(channel(1), &device(1), 0, &[number])).expect("a member");
        }
    }

    fn bucket(&self) -> PathBuf {
        let mut buckets = fs::read_dir(self.folder().join("buckets")).expect("readable");
        buckets.next().expect("one bucket").expect("readable").path()
    }
}

fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(tree(&path));
        } else {
            found.push((path.clone(), fs::read(&path).expect("readable")));
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("blobs")).expect("a temporary folder");
    for (path, bytes) in tree(from) {
        fs::write(to.join(path.file_name().expect("a file")), bytes).expect("a temporary folder");
    }
}

#[test]
fn a_second_process_is_told_who_holds_the_folder() {
    let place = Place::new();
    let store = place.open();
    match place.refused() {
        StoreError::Locked { process_id } => assert_eq!(process_id, std::process::id()),
        other => panic!("{other}"),
    }
    assert!(store.health().is_writable, "the holder is not disturbed");
    drop(store);
    drop(place.open());
}

#[test]
fn a_newer_folder_is_left_untouched() {
    let place = Place::new();
    place.write(0, 2);
    fs::write(place.folder().join("format"), format!("{}\n", FORMAT + 1)).expect("a temporary folder");
    let before = tree(&place.folder());
    match place.refused() {
        StoreError::NewerFormat { found, known } => assert_eq!((found, known), (FORMAT + 1, FORMAT)),
        other => panic!("{other}"),
    }
    assert_eq!(tree(&place.folder()), before);
}

#[test]
fn a_folder_without_its_format_is_refused() {
    let place = Place::new();
    place.write(0, 2);
    fs::remove_file(place.folder().join("format")).expect("a temporary folder");
    assert!(matches!(place.refused(), StoreError::Damaged { .. }));
}

#[test]
fn the_fencing_number_rises_at_each_open() {
    let place = Place::new();
    for expect in 1..4 {
        let store = place.open();
        assert_eq!(store.health().fencing_number, expect);
        assert_eq!(fs::read_to_string(place.folder().join("fencing")).expect("readable"), format!("{expect}\n"));
        assert_eq!(store.caps().durability, Durability::LocalSync);
    }
}

#[test]
fn a_damaged_state_is_computed_again() {
    let place = Place::new();
    place.write(0, 5);
    let state = place.folder().join("state");
    for garbage in [&b""[..], &[0xFF; 1_000_000]] {
        fs::remove_dir_all(&state).expect("a temporary folder");
        fs::create_dir_all(&state).expect("a temporary folder");
        for name in ["db", "conf", "snap.0000000000000000"] {
            fs::write(state.join(name), garbage).expect("a temporary folder");
        }
        let store = place.open();
        assert_eq!(check_audit(&*store, &[channel(1)]), 6);
    }
}

#[test]
fn a_half_written_snapshot_is_thrown_away() {
    let place = Place::new();
    place.write(0, 5);
    for name in ["snap.7FFFFFFFFFFFFFFF", "snap.7FFFFFFFFFFFFFFE.generating"] {
        fs::write(place.bucket().join(name), [0x55; 100]).expect("a temporary folder");
    }
    assert_eq!(check_audit(&*place.open(), &[channel(1)]), 6);
}

#[test]
fn a_bucket_that_was_never_finished_is_removed_and_made_again() {
    let place = Place::new();
    place.write(0, 1);
    let unfinished = place.folder().join("buckets/00000002-99999");
    fs::create_dir_all(&unfinished).expect("a temporary folder");
    fs::write(unfinished.join("conf"), [1; 20]).expect("a temporary folder");
    assert_eq!(check_audit(&*place.open(), &[channel(1)]), 2);
    assert!(!unfinished.exists());
    // The newest may be unfinished, an older one has lost what said that it was complete.
    fs::create_dir_all(&unfinished).expect("a temporary folder");
    fs::write(unfinished.join("ready"), b"").expect("a temporary folder");
    fs::remove_file(place.bucket_named("00000001").join("ready")).expect("a temporary folder");
    assert!(matches!(place.refused(), StoreError::Damaged { .. }));
}

impl Place {
    fn bucket_named(&self, number: &str) -> PathBuf {
        let buckets = fs::read_dir(self.folder().join("buckets")).expect("readable");
        let paths = buckets.map(|entry| entry.expect("readable").path());
        let mut named =
            paths.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(number)));
        named.next().expect("the bucket")
    }
}

#[test]
fn a_journal_that_lost_acknowledged_units_is_refused() {
    let place = Place::new();
    place.write(0, 3);
    let (bucket, saved) = (place.bucket(), place.0.path().join("saved"));
    copy(&bucket, &saved);
    place.write(3, 3);
    fs::remove_dir_all(&bucket).expect("a temporary folder");
    copy(&saved, &bucket);
    match place.refused() {
        StoreError::Damaged { what } => assert!(what.contains("shorter"), "{what}"),
        other => panic!("{other}"),
    }
}

#[test]
fn files_beside_a_database_are_refused() {
    let place = Place::new();
    place.write(0, 3);
    let blob = place.bucket().join("blobs").join("123");
    fs::write(&blob, b"a page that was never synced").expect("a temporary folder");
    assert_eq!(blob_files(&place.folder()).expect("readable"), std::slice::from_ref(&blob));
    assert!(matches!(place.refused(), StoreError::Damaged { .. }));
    fs::remove_file(blob).expect("a temporary folder");
    drop(place.open());
}

#[test]
fn a_value_over_four_kibibytes_is_refused_whole() {
    let place = Place::new();
    let engine = SledEngine::open(&place.folder(), &"hangzhou".parse().expect("well formed"), Arc::new(RealDisk))
        .expect("the zone opens");
    let bucket = Bucket { number: 1, week: 1 };
    engine.create_bucket(bucket).expect("writable");
    let row = |key: &[u8], bytes| Row { key: key.to_vec(), value: Some(vec![0; bytes]) };
    assert!(engine.append(bucket, vec![row(b"a", 1), row(b"b", 4097)]).is_err());
    assert!(engine.apply(vec![row(b"b", 4097)]).is_err());
    let space = lianxin_store::Space::Bucket(bucket);
    assert_eq!(engine.get(space, b"a").expect("readable"), None, "all or nothing");
    engine.append(bucket, vec![row(b"a", 1), row(b"b", 4096)]).expect("writable");
    assert_eq!(engine.get(space, b"b").expect("readable"), Some(vec![0; 4096]));
}

/// Syncs until it is told to fail.
#[derive(Default)]
struct Failing(AtomicBool);

impl Disk for Failing {
    fn sync_data(&self, file: &File, path: &Path) -> io::Result<()> {
        if self.0.load(Ordering::SeqCst) {
            Err(io::Error::other("the disk is gone"))
        } else {
            RealDisk.sync_data(file, path)
        }
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_all(path)
    }
}

#[test]
fn a_failing_sync_fences_the_zone_and_acknowledges_nothing() {
    let place = Place::new();
    let disk = Arc::new(Failing::default());
    // Without what opens it again.
    let engine =
        SledEngine::open(&place.folder(), &"hangzhou".parse().expect("well formed"), Arc::<Failing>::clone(&disk))
            .expect("the zone opens");
    let zone = "hangzhou".parse().expect("well formed");
    let store = Zone::open(zone, engine, ManualClock::new(), ZoneOptions::default()).expect("the zone opens");
    commit(&store, start(channel(1), &device(1))).expect("a new channel");
    disk.0.store(true, Ordering::SeqCst);
    let unit = message(channel(1), &device(1), 0, b"unknown");
    assert_eq!(commit(&store, unit.clone()), Err(Refused::Unavailable));
    disk.0.store(false, Ordering::SeqCst);
    // The outcome of that unit is unknown, so nothing may follow it before the zone has been opened again.
    assert_eq!(commit(&store, message(channel(1), &device(1), 0, b"next")), Err(Refused::Unavailable));
    let health = store.health();
    assert!(!health.is_writable && health.fault.is_some_and(|fault| fault.contains("the disk is gone")));
    assert!(matches!(store.head(&channel(1)), Err(StoreError::Unavailable { .. })));
    drop(store);
    let store = place.open();
    // Whether it became durable or not: the same unit again ends with exactly one event.
    commit(&*store, unit).expect("a member");
    assert_eq!(check_audit(&*store, &[channel(1)]), 2);
}
