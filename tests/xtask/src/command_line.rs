//! The words that can be typed after `cargo xtask`.

use clap::{Args, Parser, Subcommand};

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    version,
    after_help = "Examples:\n  cargo xtask test\n  cargo xtask test --long --seed 7\n  cargo xtask ci\n  cargo xtask tidy"
)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) task: Task,
}

/// One command.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Build and run all tests; prints the seed and the command that replays it
    Test(TestOptions),
    /// All that a build server runs: format, clippy, tidy, docs, tests, each with its time
    Ci,
    /// Check the house rules over sources and manifests
    Tidy,
    /// Build and run the demo (`cargo demo`)
    #[command(disable_help_flag = true)]
    Demo {
        /// Passed on to lianxin-demo
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// What `cargo xtask test` may be told.
#[derive(Debug, Default, Args)]
pub(crate) struct TestOptions {
    /// Run the full counts (more crashes, more schedules, more messages) instead of the quick ones
    #[arg(long)]
    pub(crate) long: bool,
    /// Seed of everything that is drawn; without it, one is derived from the current commit
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}
