//! The table of verdicts, and what is not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::judges::Verdicts;

const TABLE: &str = include_str!("verdicts.golden");

/// Class, and whether the first and the second judge accept.
type Row = (String, bool, bool);

/// What has been seen in this run.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    rows: BTreeMap<Row, String>,
    pub(crate) judged: usize,
}

/// The rows of the table: class | ours | mls-rs | why.
pub(crate) fn table() -> BTreeMap<Row, String> {
    let rows = TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(" | ").collect();
        let [class, first, second, why] = cells[..] else { panic!("four cells are expected: {line}") };
        ((class.to_owned(), accepts(first), accepts(second)), why.to_owned())
    };
    rows.map(row).collect()
}

fn accepts(cell: &str) -> bool {
    match cell {
        "accepts" => true,
        "refuses" => false,
        other => panic!("`{other}` is no verdict"),
    }
}

fn cell(accepts: bool) -> &'static str {
    if accepts { "accepts" } else { "refuses" }
}

impl Seen {
    /// Keeps a verdict; gives whether the table has it.
    pub(crate) fn add(&mut self, class: &str, verdicts: &Verdicts) -> bool {
        let row = (class.to_owned(), verdicts.first.is_ok(), verdicts.second.is_ok());
        self.judged += 1;
        let known = table().contains_key(&row);
        self.rows.entry(row).or_insert_with(|| {
            let shown = |verdict: &Result<(), String>| match verdict {
                Ok(()) => "yes".to_owned(),
                Err(error) => error.chars().take(120).collect(),
            };
            format!("ours: {}; mls-rs: {}", shown(&verdicts.first), shown(&verdicts.second))
        });
        known
    }

    pub(crate) fn classes(&self) -> BTreeSet<&str> {
        self.rows.keys().map(|(class, _, _)| class.as_str()).collect()
    }

    /// With `LIANXIN_BLESS` what is new goes into the table, with the judges' own words, to be explained by hand.
    pub(crate) fn bless(&self) {
        if std::env::var_os("LIANXIN_BLESS").is_none() {
            return;
        }
        let mut rows = table();
        for (row, why) in &self.rows {
            rows.entry(row.clone()).or_insert_with(|| match row.1 == row.2 {
                true => "they agree".to_owned(),
                false => format!("TO BE EXPLAINED: {why}"),
            });
        }
        let head: String = TABLE.lines().filter(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        let rows = rows
            .iter()
            .map(|((class, first, second), why)| format!("{class} | {} | {} | {why}\n", cell(*first), cell(*second)));
        let text: String = std::iter::once(head).chain(rows).collect();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("verdicts.golden");
        std::fs::write(file, text).expect("a writable table");
    }
}

#[test]
fn where_they_differ_the_table_says_why() {
    for ((class, first, second), why) in table() {
        let explained = why != "they agree" && why.len() > 20 && !why.contains("TO BE EXPLAINED");
        assert!(first == second || explained, "{class}: {why}");
    }
}
