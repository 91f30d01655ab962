//! `cargo load`: how fast a real gateway acknowledges and delivers, beside what the disk allows in the same run.
//!
//! For: whoever asks what a change cost. Numbers of one run on one machine compare with each other and with nothing else,
//! so the last column is a ratio to the disk's own rate of `fdatasync`, measured between the steps. Everything runs on
//! loopback and is bounded in time and count. The SDKs encrypt and decrypt in this process, on the same cores.

mod measure;
mod talkers;

use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use lianxin_harness::Stage;

use crate::measure::{Step, SyncProbe};
use crate::talkers::Talkers;

/// Load on a loopback gateway, beside the disk's own limit.
#[derive(Parser)]
#[command(after_help = "Examples:\n  cargo load\n  cargo load --receivers 4 --seconds 10\n  cargo load --json")]
struct CommandLine {
    /// Seconds per step, 1 to 60.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Devices that receive what one device sends, 1 to 16.
    #[arg(long, default_value_t = 2)]
    receivers: usize,
    /// One JSON object per step instead of a table.
    #[arg(long)]
    json: bool,
}

/// Sends that one device has in flight, step by step.
const IN_FLIGHT: [usize; 3] = [1, 16, 64];

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the command's result")]
async fn main() -> anyhow::Result<()> {
    let asked = CommandLine::parse();
    ensure!((1..=60).contains(&asked.seconds), "--seconds is 1 to 60");
    ensure!((1..=16).contains(&asked.receivers), "--receivers is 1 to 16");
    let mut stage = Stage::set_up(talkers::plan(asked.receivers))?;
    stage.gateway.start().await?;
    let talkers = Talkers::gather(&stage, asked.receivers).await?;
    let probe = SyncProbe::new(stage.folder())?;
    if !asked.json {
        println!("1 KiB messages, one sender, {} receivers, {} s per step", asked.receivers, asked.seconds);
        println!(
            "{:>9} {:>12} {:>14} {:>14} {:>22}",
            "in flight", "acked/s", "delivered/s", "fdatasync/s", "acked per fdatasync"
        );
    }
    for in_flight in IN_FLIGHT {
        let syncs_per_second = probe.rate(Duration::from_secs(1))?;
        let counted = talkers.talk(in_flight, Duration::from_secs(asked.seconds)).await?;
        let step = Step { in_flight, syncs_per_second, counted };
        println!("{}", if asked.json { step.to_json() } else { step.to_row() });
    }
    talkers.leave().await?;
    stage.gateway.stop().await?;
    Ok(())
}
