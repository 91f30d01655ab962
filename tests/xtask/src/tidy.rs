//! The house rules, checked over manifests and sources. One file per rule; each shows in its test that it turns red.

mod clock;
mod floors;
mod house;
mod length;
mod licences;
mod mounted;
mod opening;
mod providers;
mod root_names;
mod unused;
mod words;

use anyhow::{Result, bail};

use crate::program::{say, tell};
use house::House;

/// One broken rule at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// File, file and line, or crate.
    place: String,
    /// What is wrong and what to do.
    what: String,
}

impl Violation {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

type Check = fn(&House) -> Result<Vec<Violation>>;

const CHECKS: &[(&str, Check)] = &[
    ("floors: arrows only fall, faces do not go around the guard", floors::check),
    ("length: no source file over 500 lines", length::check),
    ("mounted: no source file that nothing compiles", mounted::check),
    ("opening: every crate says what it is for and what it must never know", opening::check),
    ("providers: one TLS stack, one provider", providers::check),
    ("clock: time is asked in one file", clock::check),
    ("root: nothing visible beside the fixed names", root_names::check),
    ("words: nothing unfinished, no ignored test", words::check),
    ("unused: every dependency that a crate lists is named in its sources", unused::check),
    ("licences: dependencies may be used and passed on", licences::check),
];

/// Runs all checks and prints one line for each, and one for each violation.
///
/// # Errors
/// If a rule is broken, or the project cannot be read.
pub(crate) fn run() -> Result<()> {
    let house = House::load()?;
    let mut broken = 0;
    for (name, check) in CHECKS {
        let violations = check(&house)?;
        say(&format!("{} {name}", if violations.is_empty() { "ok " } else { "RED" }));
        for Violation { place, what } in &violations {
            tell(&format!("    {place}: {what}"));
        }
        broken += violations.len();
    }
    if broken > 0 {
        bail!("{broken} broken house rules");
    }
    Ok(())
}
