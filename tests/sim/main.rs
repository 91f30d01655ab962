//! Seeded simulation: six real clients, the real gateway code and a network between them in one process, by simulated time.
//! What happens, faults, clocks and our own randomness follow the seed. The bytes that MLS makes need not repeat, and neither does
//! which of several callers that wait for one connection tokio wakes first; so a seed that fails may have to be run a few times.
//!
//! A seed that fails prints what happened and the command that runs it again. `LIANXIN_SIM_SEEDS=n` runs that many from
//! `LIANXIN_TEST_SEED` on; `LIANXIN_SIM_TRACE=1` prints what happened also where nothing failed; `LIANXIN_LOG=debug` shows the
//! logs of both ends.

mod chance;
mod device;
mod gateway;
mod happen;
mod judge;
mod ledger;
mod log;
mod network;
mod plan;
mod timeline;
mod trace;
mod weather;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lianxin_certs_dev::{FederationPlan, Minted, mint};
use lianxin_types::{Clock as _, SystemClock};

use crate::timeline::{BEGINNING, Timeline};
use crate::trace::Trace;
use crate::world::{Tally, World};

const ACTIONS: usize = 200;

/// What all simulations of a test program share: the minted federation, and room for the devices' state.
struct Stage {
    minted: Minted,
    folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let folder = folder.expect("a temporary folder");
        let clock = timeline::Fixed(BEGINNING.minus(Duration::from_secs(24 * 3600)));
        let minted = mint(&FederationPlan::default(), &folder.path().join("federation"), &clock).expect("mints");
        Self { minted, folder }
    }

    /// Runs the simulation of a seed; says what it did, and what happened.
    ///
    /// # Panics
    /// If it fails, with what happened.
    fn run(&self, seed: u64, actions: usize) -> (Tally, Trace) {
        let timeline: Arc<Timeline> = Arc::default();
        let trace = Trace::new(&timeline);
        let states = self.folder.path().join(format!("states-{seed}"));
        let done = catch_unwind(AssertUnwindSafe(|| simulate(seed, actions, &self.minted, &states, &timeline, &trace)));
        let removed = std::fs::remove_dir_all(&states);
        match done {
            Ok(Ok(tally)) => {
                removed.expect("the states are ours");
                (tally, trace)
            }
            Ok(Err(fault)) => panic!("{}\nseed {seed} failed: {fault}\n{}", trace.text(), replay(seed)),
            Err(_) => panic!("{}\nseed {seed} panicked, see above\n{}", trace.text(), replay(seed)),
        }
    }
}

fn replay(seed: u64) -> String {
    format!("again with: LIANXIN_TEST_SEED={seed} cargo test --workspace --test sim -- seeds")
}

fn simulate(
    seed: u64,
    actions: usize,
    minted: &Minted,
    states: &Path,
    timeline: &Arc<Timeline>,
    trace: &Trace,
) -> Result<Tally, String> {
    let idle = Arc::clone(timeline);
    let runtime = tokio::runtime::Builder::new_current_thread().on_thread_park(move || idle.go_on()).build();
    runtime.expect("a runtime").block_on(async {
        let mut world = World::new(seed, timeline, trace, minted, states).await;
        world.found().await;
        world.live(actions).await;
        world.heal().await?;
        Ok(world.tally(actions))
    })
}

/// `LIANXIN_TEST_SEED`, printed and set by `cargo xtask test`; a fixed one for a bare `cargo test`.
fn seed() -> u64 {
    std::env::var("LIANXIN_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_127)
}

/// `quick`, or `long` where `LIANXIN_TEST_LONG` is set.
fn share(quick: u64, long: u64) -> u64 {
    let is_long = std::env::var_os("LIANXIN_TEST_LONG").is_some();
    let told = std::env::var("LIANXIN_SIM_SEEDS").ok().and_then(|text| text.parse().ok());
    told.unwrap_or(if is_long { long } else { quick })
}

/// `LIANXIN_LOG=debug` shows the gateway's and the clients' log.
fn show_logs() {
    if let Ok(filter) = std::env::var("LIANXIN_LOG") {
        // Another test of the same run finds the subscriber in place.
        let _placed = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    }
}

/// Seeds that have failed, and what they found.
const FOUND: [(u64, &str); 3] = [
    (
        544,
        "the gateway held a channel back for a message that the device had given up, and the device never stopped sending",
    ),
    (
        10_110,
        "a way back that the log had settled already was refused, and dropping it once more ended every connection",
    ),
    (20_127, "a device that was removed while it was on its way back was never told so"),
];

#[test]
fn what_was_found_before_stays_mended() {
    let stage = Stage::new();
    for (seed, found) in FOUND {
        println!("seed {seed}, which found: {found}");
        stage.run(seed, ACTIONS);
    }
}

#[test]
fn seeds() {
    show_logs();
    let stage = Stage::new();
    let (first, count, begun) = (seed(), share(4, 10_000), SystemClock.monotonic());
    let (next, all) = (AtomicU64::new(first), Mutex::new(Tally::default()));
    let work = || {
        while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < first + count) {
            let run = catch_unwind(AssertUnwindSafe(|| stage.run(seed, ACTIONS)));
            let (tally, trace) = run.unwrap_or_else(|failed| {
                // The others end with the seed that they are at.
                next.store(u64::MAX / 2, Ordering::Relaxed);
                resume_unwind(failed)
            });
            if std::env::var_os("LIANXIN_SIM_TRACE").is_some() {
                println!("{}", trace.text());
            }
            println!("seed {seed}: {tally:?}, {:?} after the first", SystemClock.monotonic().since(begun));
            all.lock().expect("nobody panics with it").add(tally);
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    let all = all.into_inner().expect("nobody panics with it");
    println!("{count} seeds from {first}: {all:?} in {:?}", SystemClock.monotonic().since(begun));
}
