//! A zone has one writer. Whoever lost the folder, however that happened, acknowledges nothing more.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lianxin_store::conformance::{ManualClock, channel, check_audit, commit, device, message, start};
use lianxin_store::{Refused, StoreError, ZoneStore};
use lianxin_store_sled::{RealDisk, open};
use tempfile::TempDir;

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("zone")
    }

    fn open(&self) -> Result<Arc<dyn ZoneStore>, StoreError> {
        open(&self.folder(), "hangzhou".parse().expect("well formed"), ManualClock::new(), Arc::new(RealDisk))
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

#[test]
fn whoever_has_lost_its_folder_to_another_writes_nothing_more() {
    let place = Place::new();
    let old = place.open().expect("opens");
    commit(&*old, start(channel(1), &device(1))).expect("a new channel");
    drop(old);
    let backup = place.0.path().join("backup");
    copy(&place.folder(), &backup);
    let old = place.open().expect("opens");
    commit(&*old, message(channel(1), &device(1), 0, b"seen by nobody after the restore")).expect("a member");
    // Somebody restores a backup under the feet of the holder and starts another process on it.
    fs::rename(place.folder(), place.0.path().join("moved")).expect("a temporary folder");
    copy(&backup, &place.folder());
    let new = place.open().expect("nobody holds this one");
    assert_eq!(commit(&*old, message(channel(1), &device(1), 0, b"lost")), Err(Refused::Unavailable));
    let held = |error: StoreError| matches!(error, StoreError::Unavailable { .. });
    assert!(old.head(&channel(1)).is_err_and(held), "nor does it answer from what nobody sees");
    commit(&*new, message(channel(1), &device(1), 0, b"kept")).expect("a member");
    assert_eq!(check_audit(&*new, &[channel(1)]), 2);
    // The old one keeps trying, and is told by whom the folder is held; it gets it when that one is gone.
    drop(new);
    while !old.health().is_writable {
        std::thread::yield_now();
    }
    assert_eq!(check_audit(&*old, &[channel(1)]), 2, "the folder's log, not its own");
}

#[test]
fn a_removed_lock_lets_nobody_in_beside_the_holder() {
    let place = Place::new();
    let old = place.open().expect("opens");
    commit(&*old, start(channel(1), &device(1))).expect("a new channel");
    let fencing = old.health().fencing_number;
    fs::remove_file(place.folder().join("lock")).expect("a temporary folder");
    assert!(place.open().is_err(), "the databases are held, too");
    // It cannot know whether anybody else came, so it stops, and opens the zone anew under a higher number.
    assert_eq!(commit(&*old, message(channel(1), &device(1), 0, b"refused")), Err(Refused::Unavailable));
    while !old.health().is_writable {
        std::thread::yield_now();
    }
    assert!(old.health().fencing_number > fencing + 1, "the other attempt had a number of its own");
    commit(&*old, message(channel(1), &device(1), 0, b"next")).expect("a member");
    assert_eq!(check_audit(&*old, &[channel(1)]), 2);
}
