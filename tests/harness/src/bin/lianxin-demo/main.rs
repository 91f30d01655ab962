//! Three departments talk through a real gateway that cannot read them; fourteen steps, each of them a check.
//!
//! For: whoever wants to see Lianxin work (`cargo demo`), and the build server, which reads `--json`.

mod acts;
mod conversation;
mod crash;
mod heal;
mod keep;
mod lost_reply;
mod narrator;
mod plaintext;
mod refusals;
mod revocation;
mod sdk_crash;
mod story;

use std::process::ExitCode;

use anyhow::bail;
use clap::Parser;

use crate::narrator::Narrator;

/// 廉信演示 · Demo of Lianxin: mints a federation, starts a real gateway and applications of three departments, and checks
/// what Lianxin promises. Takes less than a minute.
#[derive(Debug, Parser)]
#[command(
    name = "lianxin-demo",
    version,
    after_help = "Examples:\n  cargo demo\n  cargo demo --json\n  cargo demo --keep"
)]
struct CommandLine {
    /// One JSON object per step instead of the story, and a last one for the whole
    #[arg(long)]
    json: bool,
    /// Leave the gateway running and say how to connect
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let CommandLine { json, keep } = CommandLine::parse();
    let mut narrator = Narrator::new(if json { narrator::Voice::Json } else { narrator::Voice::people() });
    let outcome = tokio::select! {
        outcome = acts::perform(&mut narrator, keep) => outcome,
        // Dropping the story ends every process and deletes its folder.
        _ = tokio::signal::ctrl_c() => interrupted(),
    };
    narrator.end(outcome)
}

fn interrupted() -> anyhow::Result<()> {
    bail!("interrupted")
}
