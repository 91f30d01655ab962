//! `lianxin-issuer`: renews the certificates of a department's devices.
//!
//! For: departments. It parses the command line, starts the log, and hands over to the library.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use lianxin_issuer::{Config, run};
use lianxin_types::{SystemClock, SystemRandom};
use tokio::signal::unix::{SignalKind, signal};

/// 廉信 Lianxin: renews the certificates of a department's devices over the gateway, with the department's own authority. Works
/// until SIGTERM or SIGINT.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  lianxin-issuer --config issuer.toml\n\nA documented sample is gateway/issuer/config.sample.toml."
)]
struct CommandLine {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
}

fn main() -> ExitCode {
    match work(&CommandLine::parse().config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the command line's own voice")]
fn print_error(error: &anyhow::Error) {
    eprintln!("lianxin-issuer: failed to {error:#}");
}

fn work(path: &std::path::Path) -> anyhow::Result<()> {
    let config = Config::read(path)?;
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            worked = run(config, Arc::new(SystemClock), Box::new(SystemRandom)) => Ok(worked?),
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })
}
