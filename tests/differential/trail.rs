//! Everything that was judged up to one verdict, as a file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lianxin_trust::{Federation, RootKeys, verify_bundle};
use lianxin_types::Timestamp;

use crate::judges::{Handshake, Judges, Kind, Verdicts};

/// A channel's start and the handshakes that both have accepted.
#[derive(Clone)]
pub(crate) struct Trail {
    lines: String,
}

impl Trail {
    pub(crate) fn start(roots: &RootKeys, federation: &Federation, info: &[u8], tree: &[u8], now: Timestamp) -> Self {
        let mut lines = String::new();
        for (name, bytes) in [
            ("roots", roots.to_json().as_bytes()),
            ("bundle", &federation.bundle().note[..]),
            ("info", info),
            ("tree", tree),
        ] {
            writeln!(lines, "{name} {}", hex::encode(bytes)).expect("text");
        }
        for list in federation.revocation_lists() {
            writeln!(lines, "list {}", hex::encode(list)).expect("text");
        }
        writeln!(lines, "now {}", now.0).expect("text");
        Self { lines }
    }

    pub(crate) fn accepted(&mut self, handshake: &Handshake) {
        self.lines.push_str(&line("accepted", handshake));
    }

    /// Writes the trail with `last` at its end, and gives the command that replays it.
    pub(crate) fn keep(&self, class: &str, last: &Handshake) -> String {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("disagreements");
        std::fs::create_dir_all(&folder).expect("a writable target folder");
        let file: PathBuf = folder.join(format!("{}.txt", class.replace([' ', ','], "-")));
        std::fs::write(&file, format!("{}{}", self.lines, line("judged", last))).expect("a writable target folder");
        format!("LIANXIN_DISAGREEMENT={} cargo test -p lianxin-differential replay", file.display())
    }
}

fn line(word: &str, handshake: &Handshake) -> String {
    let Handshake { kind, caller, bytes, now } = handshake;
    format!("{word} {kind:?} {} {} {}\n", caller.as_str(), now.0, hex::encode(bytes))
}

/// Judges a kept file again.
pub(crate) fn replay(text: &str) -> Verdicts {
    let all = |name: &str| {
        let lines = text.lines().filter_map(move |line| line.split_once(' '));
        lines.filter(|(word, _)| *word == name).map(|(_, rest)| rest.to_owned()).collect::<Vec<_>>()
    };
    let bytes = |name: &str| hex::decode(&all(name)[0]).expect("hexadecimal");
    let roots = RootKeys::from_json(&String::from_utf8(bytes("roots")).expect("text")).expect("root keys");
    let bundle = verify_bundle(&roots, &bytes("bundle")).expect("a signed bundle");
    let lists = all("list").iter().map(|list| hex::decode(list).expect("hexadecimal")).collect();
    let federation = Arc::new(Federation::new(bundle, lists).expect("a federation"));
    let now = Timestamp(all("now")[0].parse().expect("a number"));
    let mut judges = Judges::start(&federation, &bytes("info"), &bytes("tree"), now);
    for accepted in all("accepted") {
        judges.accept(&handshake(&accepted), None);
    }
    judges.judge(&handshake(&all("judged")[0]))
}

fn handshake(line: &str) -> Handshake {
    let words: Vec<&str> = line.split(' ').collect();
    let [kind, caller, now, bytes] = words[..] else { panic!("four words are expected: {line}") };
    Handshake {
        kind: if kind == "Commit" { Kind::Commit } else { Kind::Proposal },
        caller: caller.parse().expect("well formed"),
        bytes: hex::decode(bytes).expect("hexadecimal"),
        now: Timestamp(now.parse().expect("a number")),
    }
}
