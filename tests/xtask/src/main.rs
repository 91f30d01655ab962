//! For: whoever changes this project. `cargo xtask test`, `cargo xtask ci`, `cargo xtask tidy`; `--help` tells more.
//!
//! Must never know: what the product does. It starts Cargo and reads source text and manifests.

mod ci;
mod command_line;
mod compiler;
mod demo;
mod packages;
mod program;
mod source;
mod stopwatch;
mod test_run;
mod tidy;
mod tracer;

use std::process::ExitCode;

use clap::Parser as _;

use crate::command_line::{CommandLine, Task};

fn main() -> ExitCode {
    let outcome = match CommandLine::parse().task {
        Task::Test(options) => test_run::run(&options, &mut test_run::Tally::default()),
        Task::Ci => ci::run_all(),
        Task::Tidy => tidy::run(),
        Task::Demo { arguments } => demo::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            program::tell(&format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
