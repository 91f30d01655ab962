//! `cargo xtask test`: one seed, one build, then Cargo's own test run, whose closing line is the last word.

use std::process::Command;

use anyhow::Result;

use crate::command_line::TestOptions;
use crate::program::{self, cargo, output, root, run_watched, tell};
use crate::{compiler, tracer};

/// What all test programs together counted.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
pub(crate) struct Tally {
    /// Test programs that ended, doc tests included.
    pub(crate) programs: u64,
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

/// Builds everything first, so that stories find the gateway they start, then runs all tests.
///
/// # Errors
/// If the compiler is missing, something does not build, or a test fails.
pub(crate) fn run(options: &TestOptions, tally: &mut Tally) -> Result<()> {
    compiler::ensure()?;
    tracer::ensure()?;
    let seed = options.seed.unwrap_or_else(seed_of_commit);
    tell(&format!("seed {seed}; replay with: {}", replay(seed, options.long)));
    // One selection for both commands: another one would mean other features, and building everything twice.
    program::run(cargo().args(["build", "--workspace", "--bins", "--tests", "--examples"]))?;
    let mut test = cargo();
    test.args(["test", "--workspace"]).env("LIANXIN_TEST_SEED", seed.to_string()).env("LIANXIN_BINARIES_READY", "1");
    if options.long {
        test.env("LIANXIN_TEST_LONG", "1");
    }
    run_watched(&mut test, |line| tally.count(line))
}

impl Tally {
    /// Counts a closing line of a test program, `test result: ok. 3 passed; 0 failed; 1 ignored; …`; other lines are nothing.
    fn count(&mut self, line: &str) {
        let Some(result) = line.trim().strip_prefix("test result: ") else { return };
        self.programs += 1;
        let counts = result.split_once(". ").map_or("", |(_, counts)| counts);
        for count in counts.split("; ") {
            match count.split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                Some((number, "ignored")) => self.ignored += number.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

fn replay(seed: u64, long: bool) -> String {
    format!("cargo xtask test --seed {seed}{}", if long { " --long" } else { "" })
}

/// The same commit tests the same things everywhere, and the next commit tests others.
fn seed_of_commit() -> u64 {
    let commit = output(Command::new("git").args(["rev-parse", "HEAD"]).current_dir(root()));
    seed_from(commit.as_deref().unwrap_or_default())
}

/// The first eight hexadecimal digits of a commit's name; 1 outside a repository.
fn seed_from(commit: &str) -> u64 {
    commit.get(..8).and_then(|start| u64::from_str_radix(start, 16).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_is_the_start_of_the_commit() {
        assert_eq!(seed_from("0b975bb0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n"), 0x0b97_5bb0);
        assert_eq!(seed_from(""), 1);
        assert_eq!(replay(7, true), "cargo xtask test --seed 7 --long");
    }

    #[test]
    fn closing_lines_add_up_and_nothing_else_does() {
        let mut tally = Tally::default();
        tally.count("running 3 tests");
        tally.count("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        tally
            .count("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        assert_eq!(tally, Tally { programs: 2, passed: 4, failed: 2, ignored: 1 });
    }
}
