//! The two judges at work.

use lianxin_mutation::{Seeded, seed, share};

use crate::history::History;
use crate::verdicts::{Seen, table};

#[test]
fn two_judges_agree_on_every_handshake_and_differ_on_mutants_only_where_it_is_explained() {
    let mut seen = Seen::default();
    let mut unknown = Vec::new();
    for number in 0..share(2, 20) {
        let mut random = Seeded::of_case(seed(), "channel", number as u64);
        let mut history = History::start(6);
        for _ in 0..share(10, 20) {
            history.go_on(&mut random, &mut seen);
        }
        unknown.append(&mut history.unknown);
    }
    seen.bless();
    println!("{} mutants of {} classes judged, seed {}", seen.judged, seen.classes().len(), seed());
    assert!(unknown.is_empty(), "seed {}: {} verdicts that are not in the table: {unknown:#?}", seed(), unknown.len());
    let rows = table();
    let known: std::collections::BTreeSet<_> = rows.keys().map(|(class, _, _)| class.as_str()).collect();
    let shown = known.intersection(&seen.classes()).count();
    assert!(shown * 10 >= known.len() * 7, "only {shown} of {} classes came up: the table is stale", known.len());
}

/// With `LIANXIN_DISAGREEMENT` a kept file is judged again and the verdicts are shown; without it there is nothing to do.
#[test]
fn replay_of_a_kept_file() {
    let Some(file) = std::env::var_os("LIANXIN_DISAGREEMENT") else { return };
    let text = std::fs::read_to_string(file).expect("a readable file");
    panic!("{:#?}", crate::trail::replay(&text));
}
