//! `check` on real files: sound zones are clean and untouched, and damaged ones are named.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lianxin_store::conformance::{ManualClock, channel, commit, device, message, start};
use lianxin_store::{Fault, Inspection, StoreError, ZoneOptions, ZoneStore};
use lianxin_store_sled::{FORMAT, RealDisk, check, open_with};
use tempfile::TempDir;

const OPTIONS: ZoneOptions = ZoneOptions {
    bucket_records_max: 4,
    batch_units_max: 64,
    queue_units_max: 64,
    queue_bytes_max: 128 * 1024 * 1024,
    tail_events_max: 16,
    state_bytes_min: 0,
};

struct Place(TempDir);

impl Place {
    /// A closed zone with three buckets: a channel and ten messages.
    fn written() -> Self {
        let place = Self(tempfile::tempdir().expect("a temporary folder"));
        let store = place.open();
        commit(&*store, start(channel(1), &device(1))).expect("a new channel");
        for number in 0..10 {
            commit(&*store, message(channel(1), &device(1), 0, &[number; 3_000])).expect("a member");
        }
        place
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("zone")
    }

    fn open(&self) -> Arc<dyn ZoneStore> {
        let zone = "hangzhou".parse().expect("well formed");
        open_with(&self.folder(), zone, ManualClock::new(), Arc::new(RealDisk), OPTIONS).expect("the zone opens")
    }

    fn checked(&self) -> Result<Inspection, StoreError> {
        check(&self.folder(), &"hangzhou".parse().expect("well formed"), self.0.path(), &mut |_| ())
    }

    fn findings(&self) -> Vec<String> {
        self.checked().expect("nobody holds it").findings.iter().map(ToString::to_string).collect()
    }

    fn bucket(&self, number: u64) -> PathBuf {
        let begins = format!("{number:08}-");
        let buckets = fs::read_dir(self.folder().join("buckets")).expect("readable");
        let mut paths = buckets.map(|entry| entry.expect("readable").path());
        paths.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&begins))).expect("it")
    }
}

/// Every file below a folder but the lock, with its bytes.
fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(tree(&path));
        } else if path.file_name().is_some_and(|name| name != "lock") {
            found.push((path.clone(), fs::read(&path).expect("readable")));
        }
    }
    found.sort();
    found
}

#[test]
fn who_is_at_work_is_not_disturbed_and_a_newer_folder_not_read() {
    let place = Place::written();
    let store = place.open();
    assert!(matches!(place.checked(), Err(StoreError::Locked { process_id }) if process_id == std::process::id()));
    drop(store);
    fs::write(place.folder().join("format"), format!("{}\n", FORMAT + 1)).expect("a temporary folder");
    assert!(matches!(place.checked(), Err(StoreError::NewerFormat { .. })));
    let nowhere = place.0.path().join("nowhere");
    assert!(check(&nowhere, &"hangzhou".parse().expect("well formed"), place.0.path(), &mut |_| ()).is_err());
    assert!(!nowhere.exists(), "a check makes no zone");
}

#[test]
fn a_sound_zone_is_clean_told_on_the_way_and_untouched() {
    let place = Place::written();
    let before = tree(place.0.path());
    let mut told = Vec::new();
    let zone = "hangzhou".parse().expect("well formed");
    let inspection = check(&place.folder(), &zone, place.0.path(), &mut |progress| told.push(progress));
    let inspection = inspection.expect("nobody holds it");
    assert!(inspection.is_clean(), "{:#?}", inspection.findings);
    assert_eq!((inspection.buckets, inspection.leaves, inspection.applied), (3, 11, Some(11)));
    assert!(told.windows(2).all(|pair| pair[0].leaves <= pair[1].leaves));
    assert_eq!(told.last().map(|last| (last.buckets_done, last.leaves)), Some((3, 11)));
    assert!(tree(place.0.path()) == before, "not a byte is changed, and no copy is left");
}

#[test]
fn a_zone_that_lost_its_state_is_sound() {
    let place = Place::written();
    fs::remove_dir_all(place.folder().join("state")).expect("a temporary folder");
    let inspection = place.checked().expect("nobody holds it");
    assert!(inspection.is_clean() && inspection.applied.is_none());
}

#[test]
fn a_truncated_database_is_named_and_left_as_it_is() {
    let place = Place::written();
    let db = place.bucket(2).join("db");
    let length = fs::metadata(&db).expect("there").len();
    fs::OpenOptions::new().write(true).open(&db).and_then(|file| file.set_len(length / 8)).expect("truncated");
    let before = tree(&place.folder());
    let found = place.findings();
    assert!(found.iter().any(|finding| finding.starts_with("bucket 2, ")), "{found:#?}");
    assert!(!found.iter().any(|finding| finding.starts_with("bucket 1, ")), "{found:#?}");
    assert!(tree(&place.folder()) == before);
}

#[test]
fn flipped_bits_never_pass_unseen() {
    let place = Place::written();
    let db = place.bucket(2).join("db");
    let sound = fs::read(&db).expect("readable");
    // In the bodies of the messages, wherever they lie.
    for number in 4..7_u8 {
        let at = sound.windows(64).position(|window| window == [number - 1; 64]).expect("the message");
        let mut bytes = sound.clone();
        bytes[at + 30] ^= 0x10;
        fs::write(&db, &bytes).expect("a temporary folder");
        let found = place.findings();
        assert!(found.iter().any(|finding| finding.starts_with("bucket 2, ")), "byte {at}: {found:#?}");
    }
    fs::write(&db, &sound).expect("a temporary folder");
    assert_eq!(place.findings(), Vec::<String>::new());
}

#[test]
fn missing_unfinished_and_crowded_buckets_are_named() {
    let place = Place::written();
    fs::remove_file(place.bucket(1).join("ready")).expect("a temporary folder");
    assert_eq!(place.findings(), ["bucket 1, the bucket's mark `ready`: missing"]);
    fs::write(place.bucket(1).join("ready"), b"").expect("a temporary folder");

    let blob = place.bucket(3).join("blobs").join("77");
    fs::write(&blob, b"never synced").expect("a temporary folder");
    let inspection = place.checked().expect("nobody holds it");
    assert_eq!(inspection.findings.len(), 1, "{:#?}", inspection.findings);
    assert_eq!((inspection.findings[0].bucket, &inspection.findings[0].fault), (Some(3), &Fault::ForeignFile));
    fs::remove_file(blob).expect("a temporary folder");

    fs::remove_dir_all(place.bucket(2)).expect("a temporary folder");
    let found = place.findings();
    assert!(found.iter().any(|finding| finding == "bucket 3, the bucket: does not follow bucket 1"), "{found:#?}");
}
