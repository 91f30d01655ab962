//! Acknowledged means durable: after a power cut at any moment, with everything dropped that no finished sync covered, every
//! acknowledged unit is there. And the same check finds the loss when the disk lies.

mod day;
mod migration;
mod recorder;
mod sample;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;
use lianxin_store::conformance::{
    ManualClock, block_on, channel, check_audit, commit, device, drop_buckets, message, seed, start, times,
};
use lianxin_store::{Accepted, Effect, GroupSnapshot, Unit, ZoneOptions, ZoneStore};
use lianxin_store_sled::{Disk, RealDisk, open_with};
use lianxin_tlog::Leaf;
use lianxin_types::{DeviceUri, Sequence};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use day::Day;
use recorder::{Honesty, Kept, Recorder};

const WRITERS: u64 = 6;
const OPTIONS: ZoneOptions = ZoneOptions {
    bucket_records_max: 60,
    batch_units_max: 64,
    queue_units_max: 1_024,
    queue_bytes_max: 128 * 1024 * 1024,
    tail_events_max: 16,
    state_bytes_min: 0,
};

/// A unit and the answer that its caller got.
type Acknowledged = (Unit, Accepted);

/// What a cut left, and what had been acknowledged before it.
struct Cut {
    acknowledged: Vec<Arc<Acknowledged>>,
    kept: Kept,
    /// A copy of the state as it was some time before, file by file.
    old_state: Vec<(String, Vec<u8>)>,
}

#[derive(Default)]
struct Progress {
    acknowledged: Mutex<Vec<Arc<Acknowledged>>>,
    more: Condvar,
}

impl Progress {
    fn add(&self, unit: Unit, accepted: Accepted) {
        self.acknowledged.lock().expect("no writer panics with it").push(Arc::new((unit, accepted)));
        self.more.notify_all();
    }

    fn wait_for(&self, count: usize) -> Vec<Arc<Acknowledged>> {
        let guard = self.acknowledged.lock().expect("no writer panics with it");
        self.more.wait_while(guard, |done| done.len() < count).expect("no writer panics with it").clone()
    }
}

fn open(folder: &Path, disk: Arc<dyn Disk>) -> Result<Arc<dyn ZoneStore>, String> {
    let zone = "hangzhou".parse().expect("well formed");
    open_with(folder, zone, ManualClock::new(), disk, OPTIONS).map_err(|error| format!("{error:?}"))
}

/// A day of one writer, until `count` rounds are through.
fn write(store: &dyn ZoneStore, progress: &Progress, number: u64, count: usize, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed + number);
    let mut day = Day::new(number);
    let unit = start(day.own, &day.creator);
    progress.add(unit.clone(), commit(store, unit).expect("a new channel"));
    for round in 0..count {
        if number == 0 && round % 20 == 19 {
            end_buckets(store, progress, &day.creator);
        }
        let units = day.round(&mut random, round);
        let outcomes = block_on(store.commit_many(units.clone()));
        for (unit, outcome) in units.into_iter().zip(outcomes) {
            if let Ok(accepted) = outcome {
                progress.add(unit, accepted);
            }
        }
    }
}

/// Ends as many buckets as may end, as a schedule would.
fn end_buckets(store: &dyn ZoneStore, progress: &Progress, by: &DeviceUri) {
    for number in 0..WRITERS {
        let Some(head) = store.head(&channel(100 + number)).expect("readable") else { continue };
        let view =
            GroupSnapshot { epoch: head.epoch, sequence: head.head.sequence, state: Bytes::from(vec![7; 9_000]) };
        store.put_group_snapshot(&channel(100 + number), view).expect("writable");
    }
    let before = block_on(store.prepare_drop()).expect("the zone is open");
    if before > 1 {
        let unit = drop_buckets(by, before);
        progress.add(unit.clone(), commit(store, unit).expect("they may end"));
    }
}

fn copy_state(folder: &Path) -> Vec<(String, Vec<u8>)> {
    // There is none for a moment while it is exchanged.
    let Ok(entries) = fs::read_dir(folder.join("state")) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("readable").path()).filter(|path| path.is_file());
    paths.filter_map(|path| Some((path.file_name()?.to_string_lossy().into_owned(), fs::read(&path).ok()?))).collect()
}

/// Loads a zone on `disk` and cuts the power at random moments.
fn cuts(folder: &Path, recorder: &Arc<Recorder>, seed: u64) -> Vec<Cut> {
    let mut random = StdRng::seed_from_u64(seed);
    let disk: Arc<dyn Disk> = Arc::<Recorder>::clone(recorder);
    let store = open(folder, disk).expect("an empty folder");
    let count = times(60).min(300);
    let progress = Progress::default();
    let total = count * WRITERS as usize;
    let mut moments: Vec<usize> = (0..times(5)).map(|_| random.random_range(WRITERS as usize..total)).collect();
    moments.sort_unstable();
    let mut cuts = Vec::new();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, progress) = (&*store, &progress);
            scope.spawn(move || write(store, progress, writer, count, seed));
        }
        let mut old_state = Vec::new();
        for moment in moments {
            // What was acknowledged is read before what is kept: a later sync may have added to that, never taken away.
            let acknowledged = progress.wait_for(moment);
            let kept = recorder.cut();
            cuts.push(Cut { acknowledged, kept, old_state: std::mem::take(&mut old_state) });
            old_state = copy_state(folder);
        }
    });
    // The last one when nothing more comes that could cover for an acknowledgement given too early.
    cuts.push(Cut { acknowledged: progress.wait_for(0), kept: recorder.cut(), old_state: copy_state(folder) });
    cuts
}

/// Opens what is left and looks for every acknowledged unit.
fn check(folder: &Path, acknowledged: &[Arc<Acknowledged>]) -> Result<(), String> {
    let store = open(folder, Arc::new(RealDisk))?;
    let last_drop = acknowledged.iter().filter_map(|acknowledged| match acknowledged.0.effects.first() {
        Some(Effect::DropBuckets { before }) => Some(*before),
        _ => None,
    });
    let first_bucket = store.health().journal.first_bucket;
    if last_drop.max().is_some_and(|before| first_bucket < before) {
        return Err(format!("bucket {first_bucket} has come back"));
    }
    for (unit, accepted) in acknowledged.iter().map(|acknowledged| &**acknowledged) {
        let sequence = accepted.sequence;
        let leaf = store.audit_read(accepted.leaf_index, 1).map_err(|error| error.to_string())?;
        let leaf = leaf.first().map(|record| Leaf::from_bytes(&record.leaf).map(|leaf| leaf.hash()));
        if leaf != Some(Ok(accepted.leaf_hash)) {
            return Err(format!("leaf {} is lost", accepted.leaf_index));
        }
        if let Some(place) = &unit.channel {
            let page = store.read(&place.channel, Sequence(sequence.0 - 1), 1, 1).map_err(|error| error.to_string())?;
            let is_same = page.events.first().is_some_and(|event| {
                event.mls == place.event.mls
                    && (event.leaf_index, event.leaf_hash) == (accepted.leaf_index, accepted.leaf_hash)
                    && event.head.chain_hash == accepted.chain_hash
            });
            if !is_same && (sequence >= page.first_retained || first_bucket <= 1) {
                return Err(format!("event {} is lost", sequence.0));
            }
        }
        let repeat =
            store.repeat(unit.idempotency.as_ref().expect("all are calls")).map_err(|error| error.to_string())?;
        if repeat != Some(Ok(accepted.clone().as_repeat())) {
            return Err(format!("event {} is not remembered", sequence.0));
        }
    }
    let channels: Vec<_> = (0..WRITERS).map(|writer| channel(100 + writer)).collect();
    let leaves = catch_unwind(AssertUnwindSafe(|| check_audit(&*store, &channels)));
    let leaves = leaves.map_err(|_| "the audit log is broken".to_owned())?;
    if leaves < acknowledged.len() as u64 {
        return Err(format!("{leaves} leaves for {} units", acknowledged.len()));
    }
    // And it goes on: the next unit follows without a gap.
    let head = store.head(&channels[0]).map_err(|error| error.to_string())?;
    let (epoch, last) = head.map_or((0, Sequence(0)), |head| (head.epoch.0, head.head.sequence));
    match commit(&*store, message(channels[0], &device(0), epoch, b"after the cut")) {
        Ok(accepted) if accepted.sequence == last.next() && accepted.leaf_index == leaves => {}
        other => return Err(format!("the zone does not go on: {other:?}")),
    }
    drop(store);
    let zone = "hangzhou".parse().expect("well formed");
    let scratch = folder.parent().ok_or("in a folder of its own")?;
    let inspection =
        lianxin_store_sled::check(folder, &zone, scratch, &mut |_| ()).map_err(|error| error.to_string())?;
    if inspection.is_clean() { Ok(()) } else { Err(format!("{:#?}", inspection.findings)) }
}

fn restore(cut: &Cut, original: &Path, target: &Path, with_old_state: bool) {
    cut.kept.restore(original, target).expect("a temporary folder");
    if with_old_state {
        if target.join("state").exists() {
            fs::remove_dir_all(target.join("state")).expect("a temporary folder");
        }
        fs::create_dir_all(target.join("state")).expect("a temporary folder");
        for (name, bytes) in &cut.old_state {
            fs::write(target.join("state").join(name), bytes).expect("a temporary folder");
        }
    }
}

fn first_bucket_is_there(folder: &Path) -> bool {
    let names = fs::read_dir(folder.join("buckets")).expect("readable");
    names.map(|entry| entry.expect("readable").file_name()).any(|name| name.to_string_lossy().starts_with("00000001-"))
}

#[test]
fn every_acknowledged_unit_survives_a_power_cut() {
    let seed = seed();
    let root = tempfile::tempdir().expect("a temporary folder");
    let folder = root.path().join("zone");
    let recorder = Arc::new(Recorder::new(Honesty::Honest));
    let cuts = cuts(&folder, &recorder, seed);
    let last = fs::read_dir(folder.join("buckets")).expect("readable").count();
    assert!(fs::read_dir(folder.join("segments")).expect("readable").count() + last > 5, "the load crosses buckets");
    assert!(!first_bucket_is_there(&folder), "buckets were dropped");
    for (number, cut) in cuts.iter().enumerate() {
        for with_old_state in [false, true] {
            let target = root.path().join(format!("cut-{number}-{with_old_state}"));
            restore(cut, &folder, &target, with_old_state);
            let units = cut.acknowledged.len();
            if let Err(loss) = check(&target, &cut.acknowledged) {
                panic!("seed {seed}, cut {number} after {units} units, old state {with_old_state}: {loss}");
            }
            fs::remove_dir_all(&target).expect("a temporary folder");
        }
    }
}

#[test]
fn an_acknowledgement_before_the_sync_is_found_out() {
    let seed = seed();
    let root = tempfile::tempdir().expect("a temporary folder");
    let folder = root.path().join("zone");
    let recorder = Arc::new(Recorder::new(Honesty::Lying));
    for (number, cut) in cuts(&folder, &recorder, seed).iter().enumerate() {
        for with_old_state in [false, true] {
            let target = root.path().join(format!("cut-{number}-{with_old_state}"));
            restore(cut, &folder, &target, with_old_state);
            let loss = check(&target, &cut.acknowledged);
            assert!(loss.is_err(), "seed {seed}, cut {number}: the disk lied and nobody noticed");
            fs::remove_dir_all(&target).expect("a temporary folder");
        }
    }
}

#[test]
fn a_bucket_that_goes_before_its_copy_is_synced_is_found_out() {
    let seed = seed();
    let root = tempfile::tempdir().expect("a temporary folder");
    let folder = root.path().join("zone");
    let recorder = Arc::new(Recorder::new(Honesty::LyingOfSegments));
    let cuts = cuts(&folder, &recorder, seed);
    let last = cuts.last().expect("there is a last cut");
    let target = root.path().join("cut");
    restore(last, &folder, &target, false);
    assert!(!first_bucket_is_there(&target), "seed {seed}: buckets were dropped");
    let loss = check(&target, &last.acknowledged);
    assert!(loss.is_err(), "seed {seed}: a copy was not synced and nobody noticed");
}

#[test]
fn an_acknowledgement_one_sync_too_early_is_found_out() {
    let seed = seed();
    let root = tempfile::tempdir().expect("a temporary folder");
    let folder = root.path().join("zone");
    let recorder = Arc::new(Recorder::new(Honesty::Late));
    let cuts = cuts(&folder, &recorder, seed);
    let last = cuts.last().expect("there is a last cut");
    let target = root.path().join("cut");
    restore(last, &folder, &target, false);
    assert!(
        check(&target, &last.acknowledged).is_err(),
        "seed {seed}: the last batch was not synced and nobody noticed"
    );
}
