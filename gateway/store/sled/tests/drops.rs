//! Buckets, segments and the state on disk: each step of dropping, copying and rewriting cut short, and what an opening makes
//! of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lianxin_store::conformance::{
    ManualClock, block_on, channel, check_audit, commit, device, drop_buckets, message, start,
};
use lianxin_store::{Effect, Engine, GroupSnapshot, Progress, Row, Space, ZoneOptions, ZoneStore};
use lianxin_store_sled::{RealDisk, SledEngine, blob_files, open_with};
use lianxin_types::{Epoch, Sequence};
use tempfile::TempDir;

const OPTIONS: ZoneOptions = ZoneOptions {
    bucket_records_max: 6,
    batch_units_max: 64,
    queue_units_max: 1_024,
    queue_bytes_max: 128 * 1024 * 1024,
    tail_events_max: 16,
    state_bytes_min: 0,
};

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("zone")
    }

    fn open(&self) -> Arc<dyn ZoneStore> {
        let zone = "hangzhou".parse().expect("well formed");
        open_with(&self.folder(), zone, ManualClock::new(), Arc::new(RealDisk), OPTIONS).expect("the zone opens")
    }

    fn names(&self, of: &str) -> Vec<String> {
        let entries = fs::read_dir(self.folder().join(of)).expect("readable");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// A closed zone of three buckets and a bit, of which a snapshot has been written and all that closed was copied.
    fn write(&self) {
        let store = self.open();
        let mut unit = start(channel(1), &device(1));
        unit.effects.push(Effect::GroupSnapshot { state: Bytes::from_static(b"view") });
        commit(&*store, unit).expect("a new channel");
        for number in 0..19u8 {
            commit(&*store, message(channel(1), &device(1), 0, &[number; 500])).expect("a member");
        }
        assert_eq!(block_on(store.prepare_drop()).expect("open"), 4);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a temporary folder");
    for entry in fs::read_dir(from).expect("readable") {
        let path = entry.expect("readable").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a temporary folder");
        }
    }
}

#[test]
fn a_drop_that_was_cut_short_is_finished_by_the_next_opening() {
    let place = Place::new();
    place.write();
    let buckets = place.folder().join("buckets");
    let before = place.names("buckets");
    let saved = place.0.path().join("saved");
    copy(&buckets, &saved);
    let store = place.open();
    assert_eq!(block_on(store.prepare_drop()).expect("open"), 4);
    commit(&*store, drop_buckets(&device(1), 3)).expect("they may end");
    drop(store);
    assert_eq!(place.names("buckets"), before[2..], "removed before the zone was closed");
    // Cut between the record and the first rename, and between that and the end of the removal.
    copy(&saved.join(&before[1]), &buckets.join(&before[1]));
    copy(&saved.join(&before[0]), &buckets.join(before[0].replace(char::is_whitespace, "") + ".dead"));
    for _ in 0..2 {
        let store = place.open();
        assert_eq!(store.health().journal.first_bucket, 3);
        assert_eq!(store.read(&channel(1), Sequence(0), 1, 1).expect("readable").first_retained, Sequence(13));
        check_audit(&*store, &[channel(1)]);
        // The keeper has looked once it answers.
        block_on(store.prepare_drop()).expect("open");
        drop(store);
        assert_eq!(place.names("buckets"), before[2..]);
    }
    assert!(blob_files(&place.folder()).expect("readable").is_empty());
}

#[test]
fn a_half_written_segment_is_made_again() {
    let place = Place::new();
    place.write();
    let segments = place.folder().join("segments");
    let names = place.names("segments");
    assert_eq!(names, ["00000001-00001.seg", "00000002-00001.seg", "00000003-00001.seg"]);
    let whole = fs::read(segments.join(&names[1])).expect("readable");
    let cut = |name: &str, bytes: &[u8]| fs::write(segments.join(name), bytes).expect("a temporary folder");
    for round in 0..3 {
        match round {
            // While it was being written; after the name and before the bytes, as no honest disk leaves it; lost.
            0 => cut("00000002-00001.new", &whole[..50]),
            1 => cut(&names[1], &whole[..50]),
            _ => fs::remove_file(segments.join(&names[1])).expect("it is there"),
        }
        let store = place.open();
        assert_eq!(block_on(store.prepare_drop()).expect("open"), 4);
        check_audit(&*store, &[channel(1)]);
        drop(store);
        assert_eq!(place.names("segments"), names, "round {round}");
        assert!(fs::read(segments.join(&names[1])).expect("readable") == whole, "round {round}");
    }
}

fn rows(engine: &SledEngine) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let visit = &mut |row_key: &[u8], value: &[u8]| {
        rows.push((row_key.to_vec(), value.to_vec()));
        std::ops::ControlFlow::Continue(())
    };
    engine.scan(Space::State, &[], &[], visit).expect("readable");
    rows
}

fn open_engine(folder: &Path) -> SledEngine {
    SledEngine::open(folder, &"hangzhou".parse().expect("well formed"), Arc::new(RealDisk)).expect("the folder opens")
}

/// Rows of which most are dead; gives the number of living ones.
fn bloat(engine: &SledEngine) -> usize {
    let row = |number: u32, value: Option<u8>| Row {
        key: [b"k", &number.to_be_bytes()[..]].concat(),
        value: value.map(|byte| vec![byte; 2_000]),
    };
    for round in 0..6 {
        engine.apply((0..2_500).map(|number| row(number, Some(round))).collect()).expect("writable");
    }
    engine.apply((100..2_500).map(|number| row(number, None)).collect()).expect("writable");
    100
}

#[test]
fn a_rewritten_state_has_the_same_rows_and_few_others_on_disk() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let folder = root.path().join("zone");
    let engine = open_engine(&folder);
    let living = bloat(&engine);
    let fat = engine.state_bytes().expect("measurable").expect("sled does not give back");
    // While it is moved, rows on both sides of where it has come to are changed, made and deleted.
    let change = |key: &[u8], value: Option<&[u8]>| {
        let row = Row { key: key.to_vec(), value: value.map(<[u8]>::to_vec) };
        engine.apply(vec![row]).expect("writable");
    };
    let mut more = 0u32;
    for number in 0..2_100u32 {
        change(&[b"y", &number.to_be_bytes()[..]].concat(), Some(b"later"));
    }
    while engine.rewrite_state().expect("writable") == Progress::More {
        more += 1;
        change(b"a", Some(&more.to_be_bytes()));
        change(b"zz", Some(&more.to_be_bytes()));
        change(&[b"k", &(more % 50).to_be_bytes()[..]].concat(), None);
        change(&[b"y", &(2_000 + more).to_be_bytes()[..]].concat(), Some(b"changed"));
    }
    assert!(more >= 2, "it takes more than one step");
    let thin = engine.state_bytes().expect("measurable").expect("sled does not give back");
    assert!(thin * 2 < fat, "{thin} of {fat} bytes");
    let found = rows(&engine);
    let of = |family: u8| found.iter().filter(|(row_key, _)| row_key[0] == family).count();
    assert_eq!((of(b'a'), of(b'k'), of(b'y'), of(b'z')), (1, living - more as usize, 2_100, 1));
    assert_eq!(found.iter().filter(|(_, value)| value == b"changed").count(), more as usize);
    change(b"after", Some(b"it"));
    let found = rows(&engine);
    drop(engine);
    assert!(rows(&open_engine(&folder)) == found, "and so it stays");
    assert!(!folder.join("state.new").exists() && !folder.join("state.old").exists());
    assert!(blob_files(&folder).expect("readable").is_empty());
}

#[test]
fn a_rewriting_that_was_cut_short_leaves_one_state() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let folder = root.path().join("zone");
    let engine = open_engine(&folder);
    bloat(&engine);
    let expect = rows(&engine);
    assert_eq!(engine.rewrite_state().expect("writable"), Progress::More);
    drop(engine);
    assert!(folder.join("state.new").exists(), "half of it");
    let half = root.path().join("half");
    copy(&folder.join("state.new"), &half);
    assert!(rows(&open_engine(&folder)) == expect);
    assert!(!folder.join("state.new").exists());
    // Between the two renames: the old one comes back, whatever is in the new one.
    fs::rename(folder.join("state"), folder.join("state.old")).expect("a temporary folder");
    copy(&half, &folder.join("state.new"));
    assert!(rows(&open_engine(&folder)) == expect);
    // Behind both: the new one stays and the old one goes.
    copy(&half, &folder.join("state.old"));
    assert!(rows(&open_engine(&folder)) == expect);
    assert!(!folder.join("state.new").exists() && !folder.join("state.old").exists());
}

#[test]
fn a_zone_rewrites_its_state_by_itself() {
    let place = Place::new();
    place.write();
    let mut store = place.open();
    let one = channel(1);
    let size = || {
        let files = fs::read_dir(place.folder().join("state")).expect("readable");
        files.map(|file| file.and_then(|file| file.metadata()).map_or(0, |file| file.len())).sum::<u64>()
    };
    // Views that replace one another are what a state is full of.
    let mut last = 20u64;
    while size() < 3 << 20 {
        last += 1;
        let view =
            GroupSnapshot { epoch: Epoch(0), sequence: Sequence(last), state: Bytes::from(vec![last as u8; 40_000]) };
        store.put_group_snapshot(&one, view).expect("writable");
        if last.is_multiple_of(50) {
            // What sled has not written yet it writes once, however often it was replaced: closing makes it write.
            drop(store);
            store = place.open();
        }
        assert!(last < 5_000, "{} bytes", size());
    }
    let fat = size();
    block_on(store.prepare_drop()).expect("open");
    // Rewriting begins when the snapshot has shown how little lives; each unit gives it a turn.
    let mut number = 0u64;
    while size() * 2 > fat {
        number += 1;
        commit(&*store, message(one, &device(1), 0, &number.to_be_bytes())).expect("a member");
        assert!(number < 2_000, "{} of {fat} bytes", size());
    }
    let view = store.group_snapshot(&one).expect("readable").expect("there is one");
    assert_eq!((view.sequence, view.state.len()), (Sequence(last), 40_000));
    drop(store);
    let store = place.open();
    assert_eq!(store.group_snapshot(&one).expect("readable"), Some(view));
    check_audit(&*store, &[one]);
}
