//! A zone's folder of format 1, as the code of its day wrote it: it is copied and migrated, and a power cut after any sync
//! leaves one that opens, with everything in it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use lianxin_store::conformance::{ManualClock, channel, check_audit, commit, device, message};
use lianxin_store::{StoreError, ZoneOptions, ZoneStore};
use lianxin_store_sled::{Disk, FORMAT, RealDisk, SpaceBounds, open, open_bounded};
use lianxin_types::Sequence;

use crate::recorder::{Honesty, Kept, Recorder};
use crate::sample;

const SAMPLE: &str = include_str!("format-1.txt");
/// What the sample holds: a channel's start and six messages.
const LEAVES: u64 = 7;

/// Keeps what would be left after each sync.
struct Stepping {
    recorder: Recorder,
    cuts: Mutex<Vec<Kept>>,
}

impl Stepping {
    fn step(&self) {
        self.cuts.lock().expect("no test thread panics with it").push(self.recorder.cut());
    }
}

impl Disk for Stepping {
    fn sync_data(&self, file: &File, path: &Path) -> io::Result<()> {
        self.recorder.sync_data(file, path)?;
        self.step();
        Ok(())
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        self.recorder.sync_all(path)?;
        self.step();
        Ok(())
    }
}

fn opened(root: &Path, disk: Arc<dyn Disk>) -> Result<Arc<dyn ZoneStore>, StoreError> {
    open(&root.join("zone"), "hangzhou".parse().expect("well formed"), ManualClock::new(), disk)
}

fn format(folder: &Path) -> String {
    fs::read_to_string(folder.join("format")).unwrap_or_default().trim().to_owned()
}

/// Every file below a folder, by name, with its bytes.
fn tree(folder: &Path, root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(tree(&path, root));
        } else {
            let name = path.strip_prefix(root).expect("below it").to_owned();
            found.push((name, fs::read(&path).expect("readable")));
        }
    }
    found.sort();
    found
}

fn sync_tree(folder: &Path, disk: &dyn Disk) {
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() { sync_tree(&path, disk) } else { disk.sync_all(&path).expect("synced") }
    }
    disk.sync_all(folder).expect("synced");
}

#[test]
fn an_old_folder_is_migrated_after_a_copy_that_is_kept() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let zone = root.path().join("zone");
    sample::restore(SAMPLE, &zone);
    let before = tree(&zone, &zone);
    let store = opened(root.path(), Arc::new(RealDisk)).expect("it is migrated");
    assert_eq!(check_audit(&*store, &[channel(1)]), LEAVES);
    commit(&*store, message(channel(1), &device(1), 0, b"next")).expect("a member");
    drop(store);
    assert_eq!(format(&zone), FORMAT.to_string());
    assert_eq!(fs::read_to_string(zone.join("zone")).expect("named").trim(), "hangzhou");
    let copy = root.path().join("zone.format-1");
    assert!(tree(&copy, &copy) == before, "the copy is what there was");
    // A second opening has nothing to migrate, and a folder that says whose it is, is nobody else's.
    drop(opened(root.path(), Arc::new(RealDisk)).expect("opens"));
    let other = open(&zone, "beijing".parse().expect("well formed"), ManualClock::new(), Arc::new(RealDisk));
    assert!(matches!(other.err(), Some(StoreError::OtherZone { found, .. }) if found == "hangzhou"));
    // The copy can be used in the place of what was made of it.
    fs::remove_dir_all(&zone).expect("a temporary folder");
    fs::rename(&copy, &zone).expect("a temporary folder");
    assert_eq!(check_audit(&*opened(root.path(), Arc::new(RealDisk)).expect("opens"), &[channel(1)]), LEAVES);
}

#[test]
fn without_space_for_a_copy_nothing_is_changed() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let zone = root.path().join("zone");
    sample::restore(SAMPLE, &zone);
    let space = SpaceBounds { free_bytes_min: 1 << 59, reserve_bytes: 1 };
    let (name, disk) = ("hangzhou".parse().expect("well formed"), Arc::new(RealDisk));
    let refused = open_bounded(&zone, name, ManualClock::new(), disk, ZoneOptions::default(), space);
    let Some(StoreError::Io { source, .. }) = refused.err() else { panic!("there is no such space") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert_eq!(format(&zone), "1");
    assert!(!root.path().join("zone.format-1").exists());
}

#[test]
fn a_power_cut_at_any_step_of_a_migration_loses_nothing() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let home = root.path().join("home");
    let zone = home.join("zone");
    sample::restore(SAMPLE, &zone);
    let whole = tree(&zone, &zone);
    let disk = Arc::new(Stepping { recorder: Recorder::new(Honesty::Honest), cuts: Mutex::default() });
    sync_tree(&home, &disk.recorder);
    drop(opened(&home, Arc::<Stepping>::clone(&disk)).expect("it is migrated"));
    let cuts = std::mem::take(&mut *disk.cuts.lock().expect("nobody panicked with it"));
    let mut formats = Vec::new();
    for (number, cut) in cuts.iter().enumerate() {
        let target = root.path().join(format!("cut-{number}"));
        cut.restore(&home, &target).expect("a temporary folder");
        let (left, copy) = (target.join("zone"), target.join("zone.format-1"));
        formats.push(format(&left));
        if format(&left) != "1" {
            let kept = tree(&copy, &copy);
            // The recorder leaves states out: they can be computed again.
            let wanted = whole.iter().filter(|(name, _)| !name.starts_with("state"));
            assert!(wanted.eq(kept.iter().filter(|(name, _)| !name.starts_with("state"))), "cut {number}: whole copy");
        }
        let store = opened(&target, Arc::new(RealDisk)).unwrap_or_else(|error| panic!("cut {number}: {error:?}"));
        assert_eq!(check_audit(&*store, &[channel(1)]), LEAVES, "cut {number}");
        assert_eq!(store.read(&channel(1), Sequence(0), 9, 1 << 20).expect("readable").events.len(), 7);
        drop(store);
        assert_eq!(format(&left), FORMAT.to_string(), "cut {number}");
        fs::remove_dir_all(&target).expect("a temporary folder");
    }
    assert!(formats.contains(&"1".to_owned()) && formats.contains(&"2".to_owned()), "cuts on both sides: {formats:?}");
}
