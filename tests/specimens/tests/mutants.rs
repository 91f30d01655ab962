//! Every parser, given mutants of what it accepts and noise: it does not panic, does not take more memory than the bytes
//! account for, keeps nothing, and comes back.
//!
//! Each parser gets 100 mutants by default and 5,000 in a long run, more than 300,000 altogether. Numbers and changes follow from the seed
//! (`LIANXIN_TEST_SEED`, printed by `cargo xtask test`); keys and signatures in the specimens are drawn anew each time, so
//! what is to be replayed is the mutant itself. A failing one is written to a file, and the failure names the command that
//! gives it to its parser again. It becomes a fixed case as `tests/specimens/cases/<parser>/<what it was>.hex`; those are
//! tried first in every run.
//!
//! A mutant counts as a hang after a minute on its own: the slowest one takes milliseconds.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lianxin_mutation::{Mutator, Piece, seed, share};
use lianxin_specimens::{Depth, Parser, all};
use lianxin_types::{Clock as _, Monotonic, SystemClock};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// A parser may hold this much, whatever it is given: tables, the group that a handshake is judged against, one copy of it.
const HEAP_BASE_BYTES: usize = 2 * 1024 * 1024;
/// And this much for each byte that it is given: decoded values are larger than their encoding, a list of them still more.
const HEAP_PER_BYTE: usize = 160;
/// What may be left at the end: caches that libraries fill once.
const KEPT_BYTES_MAX: usize = 1024 * 1024;
const STUCK: Duration = Duration::from_secs(60);

/// One test, alone in its program: the heap is counted for all threads together.
#[test]
fn no_mutant_panics_hangs_or_grows_a_parser() {
    let watch = Watch::start();
    let mut faults = Vec::new();
    if let Some(file) = std::env::var_os("LIANXIN_MUTANT") {
        let (parser, bytes) = case(Path::new(&file));
        faults.extend(give(&watch, &parser, &bytes, "replayed").err());
        assert!(faults.is_empty(), "{faults:#?}");
        return;
    }
    for (parser, bytes) in cases() {
        faults.extend(give(&watch, &parser, &bytes, "fixed case").err());
    }
    let mut depths: BTreeMap<&str, BTreeMap<Depth, usize>> = BTreeMap::new();
    for parser in all() {
        // Everything is made and every cache filled before anything is counted.
        let specimens: Vec<(Vec<u8>, Piece)> =
            parser.specimens().into_iter().map(|bytes| (bytes.clone(), parser.shape.pieces(&bytes))).collect();
        for (bytes, _) in &specimens {
            assert_eq!(parser.parse(bytes), Depth::Accepted, "{} does not take its own specimen", parser.name);
        }
        let before = HEAP.current_usage();
        for number in 0..share(100, 5000) {
            let mut mutator = Mutator::of_case(seed(), parser.name, number as u64);
            let (message, donor) =
                (&specimens[number % specimens.len()].1, &specimens[(number / 2) % specimens.len()].1);
            let mutant = mutator.mutate(message, donor);
            let what = format!("mutant {number} of seed {}: {:?}", seed(), mutant.how);
            match give(&watch, &parser, &mutant.bytes, &what) {
                Ok(Depth::Accepted)
                    if SIGNED.contains(&parser.name) && specimens.iter().all(|(bytes, _)| *bytes != mutant.bytes) =>
                {
                    let replay = keep(parser.name, &mutant.bytes);
                    faults.push(format!("{}, {what}: it is accepted though it was changed; {replay}", parser.name));
                }
                Ok(depth) => *depths.entry(parser.name).or_default().entry(depth).or_default() += 1,
                Err(fault) => faults.push(fault),
            }
        }
        let kept = HEAP.current_usage().saturating_sub(before);
        if kept > KEPT_BYTES_MAX {
            faults.push(format!("{} keeps {kept} bytes of what it was given", parser.name));
        }
    }
    for (parser, depths) in &depths {
        println!("{parser}: {depths:?}");
    }
    assert!(faults.is_empty(), "{faults:#?}");
    let unread_alone = depths.iter().filter(|(_, depths)| depths.keys().all(|depth| *depth == Depth::Unread));
    // What is signed or has a digest is read no further. Behind a note's signatures is `trust_bundle`.
    let shallow: Vec<_> =
        unread_alone.map(|(name, _)| *name).filter(|name| !BEHIND_A_SIGNATURE.contains(name)).collect();
    assert!(shallow.is_empty(), "no mutant came behind the first check of {shallow:?}");
}

/// Every byte of these is signed or digested: a mutant that is accepted is the specimen itself.
const SIGNED: &[&str] = &[
    "certificate",
    "credential",
    "group_snapshot",
    "mls_key_package",
    "mls_start_info",
    "mls_start_tree",
    "revocation_list",
];

const BEHIND_A_SIGNATURE: &[&str] = &["group_snapshot", "trust_bundle_note", "revocation_list"];

/// Gives a parser the bytes and says what is wrong with how it took them.
fn give(watch: &Watch, parser: &Parser, bytes: &[u8], what: &str) -> Result<Depth, String> {
    watch.begins(parser.name, bytes, what);
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let taken = catch_unwind(AssertUnwindSafe(|| parser.parse(bytes)));
    let peak = HEAP.peak_usage().saturating_sub(before);
    watch.ended();
    let fault = match taken {
        Err(_) => "it panics".to_owned(),
        Ok(_) if peak > HEAP_BASE_BYTES + bytes.len() * HEAP_PER_BYTE => {
            format!("it takes {peak} bytes of memory for {} bytes", bytes.len())
        }
        Ok(depth) => return Ok(depth),
    };
    Err(format!("{}, {what}: {fault}; replay with: {}", parser.name, keep(parser.name, bytes)))
}

/// Writes the bytes to a file, and gives the command that replays it.
fn keep(parser: &str, bytes: &[u8]) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutants").join(parser);
    let name = bytes
        .iter()
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3));
    let file = folder.join(format!("{name:016x}.hex"));
    std::fs::create_dir_all(&folder).expect("a writable target folder");
    std::fs::write(&file, hex::encode(bytes)).expect("a writable target folder");
    format!("LIANXIN_MUTANT={} cargo test -p lianxin-specimens --test mutants", file.display())
}

/// The parser is the folder's name, the bytes are the file's hexadecimal digits.
fn case(file: &Path) -> (Parser, Vec<u8>) {
    let name = file.parent().and_then(Path::file_name).and_then(|name| name.to_str()).expect("…/<parser>/<case>.hex");
    let parser = all().into_iter().find(|parser| parser.name == name);
    let text = std::fs::read_to_string(file).expect("a readable case");
    (parser.expect("a parser that exists"), hex::decode(text.trim()).expect("hexadecimal"))
}

fn cases() -> Vec<(Parser, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let entries = |folder: PathBuf| {
        let entries = std::fs::read_dir(folder).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
        let mut entries: Vec<PathBuf> = entries.unwrap_or_default();
        entries.sort();
        entries
    };
    let files = entries(folder).into_iter().flat_map(entries);
    files.map(|file| case(&file)).collect()
}

/// A thread that ends the program when one mutant takes a minute.
struct Watch(Arc<Mutex<Option<Given>>>);

#[derive(Clone)]
struct Given {
    parser: &'static str,
    bytes: Vec<u8>,
    what: String,
    since: Monotonic,
}

impl Watch {
    fn start() -> Self {
        let current: Arc<Mutex<Option<Given>>> = Arc::default();
        let watched = Arc::downgrade(&current);
        std::thread::spawn(move || {
            while let Some(current) = watched.upgrade() {
                let given = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Some(Given { parser, bytes, what, since }) = given
                    && SystemClock.monotonic().since(since) > STUCK
                {
                    let replay = keep(parser, &bytes);
                    let _told =
                        writeln!(std::io::stderr(), "{parser}, {what}: no end after {STUCK:?}; replay with: {replay}");
                    std::process::abort();
                }
                std::thread::park_timeout(Duration::from_secs(1));
            }
        });
        Self(current)
    }

    fn begins(&self, parser: &'static str, bytes: &[u8], what: &str) {
        let given = Given { parser, bytes: bytes.to_vec(), what: what.to_owned(), since: SystemClock.monotonic() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(given);
    }

    fn ended(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
