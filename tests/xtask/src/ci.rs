//! `cargo xtask ci`: what a build server runs. Each step is a command that anyone can type.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::command_line::TestOptions;
use crate::program::{cargo, run, tell};
use crate::stopwatch::{Stopwatch, minutes};
use crate::test_run::{self, Tally};
use crate::{compiler, tidy};

/// The whole may take this long on two cores, from an empty target folder.
const TOTAL_MAX: Duration = Duration::from_secs(40 * 60);

struct Step {
    name: &'static str,
    /// Above it the step is said to be slow; only the total fails.
    budget: Duration,
    run: fn(&mut Tally) -> Result<()>,
}

/// Tests come last, so that their closing line is at the end.
const STEPS: &[Step] = &[
    Step { name: "format", budget: Duration::from_secs(30), run: |_| run(cargo().args(["fmt", "--all", "--check"])) },
    Step { name: "clippy", budget: Duration::from_secs(9 * 60), run: |_| run(cargo().args(CLIPPY)) },
    Step { name: "tidy", budget: Duration::from_secs(60), run: |_| tidy::run() },
    Step { name: "docs", budget: Duration::from_secs(5 * 60), run: |_| docs() },
    Step {
        name: "test",
        budget: Duration::from_secs(24 * 60),
        run: |tally| test_run::run(&TestOptions::default(), tally),
    },
];

const CLIPPY: [&str; 6] = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];

fn docs() -> Result<()> {
    run(cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}

/// Runs every step, also after one has failed, and says how long each took.
///
/// # Errors
/// If a step fails, or all together take longer than they may.
pub(crate) fn run_all() -> Result<()> {
    compiler::ensure()?;
    let total = Stopwatch::start();
    let mut tally = Tally::default();
    let mut report = Vec::new();
    let mut failed = Vec::new();
    for step in STEPS {
        tell(&format!("\n== {} (budget {})", step.name, minutes(step.budget)));
        let watch = Stopwatch::start();
        let outcome = (step.run)(&mut tally);
        let line = line_of(step, watch.elapsed(), outcome.as_ref().err());
        tell(&format!("== {line}"));
        report.push(line);
        if outcome.is_err() {
            failed.push(step.name);
        }
    }
    let Tally { programs, passed, failed: tests_failed, ignored } = tally;
    tell("\nci");
    for line in report {
        tell(&format!("  {line}"));
    }
    tell(&format!("  total {} of {}", minutes(total.elapsed()), minutes(TOTAL_MAX)));
    tell(&format!("  tests: {passed} passed; {tests_failed} failed; {ignored} ignored; in {programs} test programs"));
    verdict(&failed, total.elapsed())
}

fn line_of(step: &Step, took: Duration, error: Option<&anyhow::Error>) -> String {
    let slow = if took > step.budget { " SLOW" } else { "" };
    let outcome = error.map_or_else(|| "ok".to_owned(), |error| format!("FAILED: {error:#}"));
    format!("{:<7} {} of {}{slow}  {outcome}", step.name, minutes(took), minutes(step.budget))
}

fn verdict(failed: &[&str], took: Duration) -> Result<()> {
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    if took > TOTAL_MAX {
        bail!("took {}, longer than {}", minutes(took), minutes(TOTAL_MAX));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_or_a_slow_run_fails() {
        assert!(verdict(&["tidy"], Duration::ZERO).is_err());
        assert!(verdict(&[], TOTAL_MAX + Duration::from_secs(1)).is_err());
        assert!(verdict(&[], TOTAL_MAX).is_ok());
    }

    #[test]
    fn the_budgets_fit_into_the_total() {
        let sum: Duration = STEPS.iter().map(|step| step.budget).sum();
        assert!(sum <= TOTAL_MAX, "{sum:?}");
    }
}
