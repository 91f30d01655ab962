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
        let mut trail = Self { lines: format!("roots {}\n", hex::encode(roots.to_json())) };
        trail.learned(federation);
        writeln!(trail.lines, "info {}\ntree {}\nnow {}", hex::encode(info), hex::encode(tree), now.0).expect("text");
        trail
    }

    /// What the federation has become.
    pub(crate) fn learned(&mut self, federation: &Federation) {
        let lists: Vec<String> = federation.revocation_lists().map(hex::encode).collect();
        let bundle = hex::encode(&federation.bundle().note);
        writeln!(self.lines, "federation {bundle} {}", lists.join(" ")).expect("text");
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
    let lines: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    let only = |name: &str| {
        let found = lines.iter().find(|(word, _)| *word == name);
        found.unwrap_or_else(|| panic!("there is no {name}")).1
    };
    let bytes = |text: &str| hex::decode(text).expect("hexadecimal");
    let roots = RootKeys::from_json(&String::from_utf8(bytes(only("roots"))).expect("text")).expect("root keys");
    let federation = |line: &str| {
        let mut parts = line.split_whitespace().map(bytes);
        let bundle = verify_bundle(&roots, &parts.next().expect("a bundle")).expect("a signed bundle");
        Arc::new(Federation::new(bundle, parts.collect()).expect("a federation"))
    };
    let now = Timestamp(only("now").parse().expect("a number"));
    let first = federation(only("federation"));
    let mut judges = Judges::start(&first, &bytes(only("info")), &bytes(only("tree")), now);
    for (word, rest) in &lines {
        match *word {
            "federation" => judges.learn(&federation(rest)),
            "accepted" => judges.accept(&handshake(rest), None),
            _ => {}
        }
    }
    judges.judge(&handshake(only("judged")))
}

fn handshake(line: &str) -> Handshake {
    let words: Vec<&str> = line.split(' ').collect();
    let [kind, caller, now, bytes] = words[..] else { panic!("four words are expected: {line}") };
    Handshake {
        kind: Kind::named(kind).expect("a kind"),
        caller: caller.parse().expect("well formed"),
        bytes: hex::decode(bytes).expect("hexadecimal"),
        now: Timestamp(now.parse().expect("a number")),
    }
}
