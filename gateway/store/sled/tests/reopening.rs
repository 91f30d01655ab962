//! A zone whose disk fails for a moment: it opens itself again, and nothing that was acknowledged is lost.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lianxin_store::conformance::{ManualClock, channel, check_audit, commit, device, message, start};
use lianxin_store::{Accepted, Refused, StoreError, Unit, ZoneStore};
use lianxin_store_sled::{Disk, RealDisk, open};
use lianxin_types::Sequence;

const WRITERS: usize = 4;
const MESSAGES: usize = 40;

/// Fails as many syncs of data as it is told to, and counts those that it has done.
#[derive(Default)]
struct Failing {
    failures: AtomicUsize,
    done: AtomicUsize,
}

impl Disk for Failing {
    fn sync_data(&self, file: &File, path: &Path) -> io::Result<()> {
        let taken = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if taken.is_ok() {
            return Err(io::Error::other("the disk is gone"));
        }
        RealDisk.sync_data(file, path)?;
        self.done.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_all(path)
    }
}

fn open_on(folder: &Path, disk: &Arc<Failing>) -> Result<Arc<dyn ZoneStore>, StoreError> {
    let disk: Arc<dyn Disk> = Arc::<Failing>::clone(disk);
    open(folder, "hangzhou".parse().expect("well formed"), ManualClock::new(), disk)
}

/// Calls again until the zone takes the unit.
fn insist(store: &dyn ZoneStore, unit: &Unit) -> Accepted {
    loop {
        match commit(store, unit.clone()) {
            Ok(accepted) => return accepted,
            Err(Refused::Unavailable) => std::thread::yield_now(),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_zone_whose_sync_failed_once_takes_writes_again() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let (folder, disk) = (root.path().join("zone"), Arc::new(Failing::default()));
    let store = open_on(&folder, &disk).expect("the zone opens");
    let (one, alice) = (channel(1), device(1));
    commit(&*store, start(one, &alice)).expect("a new channel");
    let unit = message(one, &alice, 0, b"unknown");
    disk.failures.store(1, Ordering::SeqCst);
    assert_eq!(commit(&*store, unit.clone()), Err(Refused::Unavailable));
    let synced = disk.done.load(Ordering::SeqCst);
    // Whether it was written or not: it is there once now, and it was synced before anybody is told so.
    let accepted = insist(&*store, &unit);
    assert_eq!((accepted.sequence, accepted.leaf_index), (Sequence(2), 1));
    assert!(disk.done.load(Ordering::SeqCst) > synced, "what a repeat acknowledges has been synced");
    let health = store.health();
    assert_eq!((health.is_writable, health.fencing_number, health.fault), (true, 2, None));
    commit(&*store, message(one, &alice, 0, b"next")).expect("a member");
    assert_eq!(check_audit(&*store, &[one]), 3);
}

#[test]
fn acknowledged_units_survive_faults_under_load() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let (folder, disk) = (root.path().join("zone"), Arc::new(Failing::default()));
    let store = open_on(&folder, &disk).expect("the zone opens");
    let channels: Vec<_> = (0..WRITERS as u64).map(channel).collect();
    let acknowledged: Vec<(Unit, Accepted)> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (store, disk, to) = (&*store, &*disk, channels[writer]);
                scope.spawn(move || {
                    let sender = device(writer);
                    insist(store, &start(to, &sender));
                    let write = |number: usize| {
                        if writer == 0 && number % 15 == 7 {
                            disk.failures.store(1, Ordering::SeqCst);
                        }
                        let unit = message(to, &sender, 0, &[number as u8; 3_000]);
                        let accepted = insist(store, &unit);
                        (unit, accepted)
                    };
                    (0..MESSAGES).map(write).collect::<Vec<_>>()
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().expect("no writer panics")).collect()
    });
    assert!(store.health().fencing_number > 1, "the load met a fault");
    for (unit, accepted) in &acknowledged {
        let write = unit.channel.as_ref().expect("all have events");
        let page = store.read(&write.channel, Sequence(accepted.sequence.0 - 1), 1, 1).expect("readable");
        let event = page.events.first().expect("it is there");
        assert_eq!((&event.mls, event.leaf_hash), (&write.event.mls, accepted.leaf_hash));
    }
    // Every unit was insisted upon, so each is there exactly once.
    assert_eq!(check_audit(&*store, &channels), (WRITERS * (MESSAGES + 1)) as u64);
}

#[test]
fn dropping_a_zone_that_cannot_open_ends_its_thread_and_frees_the_folder() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let (folder, disk) = (root.path().join("zone"), Arc::new(Failing::default()));
    let store = open_on(&folder, &disk).expect("the zone opens");
    commit(&*store, start(channel(1), &device(1))).expect("a new channel");
    disk.failures.store(usize::MAX, Ordering::SeqCst);
    assert_eq!(commit(&*store, message(channel(1), &device(1), 0, b"unknown")), Err(Refused::Unavailable));
    // Until an attempt to open has failed as well.
    while usize::MAX - disk.failures.load(Ordering::SeqCst) < 2 {
        assert!(!store.health().is_writable);
        std::thread::yield_now();
    }
    drop(store);
    assert_eq!(Arc::strong_count(&disk), 1, "nobody holds on to anything");
    disk.failures.store(0, Ordering::SeqCst);
    let store = open_on(&folder, &disk).expect("the folder is free");
    commit(&*store, message(channel(1), &device(1), 0, b"next")).expect("a member");
    drop(store);
    drop(open_on(&folder, &disk).expect("the folder is free"));
}
