//! `lianxin-gateway`: serves one zone.
//!
//! For: operators. It parses the command line, starts the log, and hands over to the library.

mod store_command;
mod support_command;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use lianxin_gateway::{Config, Gateway, ReloadError, ReloadHandle, start_logging};
use store_command::StoreCommand;
use support_command::SupportCommand;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// 廉信 Lianxin: the secure channel between government departments. Orders, stores, polices and audits messages that it
/// cannot read.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  lianxin-gateway check-config --config gateway.toml\n  lianxin-gateway serve --config gateway.toml\n  lianxin-gateway store check --config gateway.toml\n  lianxin-gateway support-bundle --config gateway.toml --out support.tar\n\nA documented sample is gateway/config.sample.toml."
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the zone until SIGTERM or SIGINT. SIGHUP reads the configuration and its files again.
    Serve {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Check a configuration and print what it means and which limits hold, without opening the zone.
    CheckConfig {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Look into the zone's store while no gateway runs on it.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Collect what a supporter needs into one archive, without identities, keys or content.
    SupportBundle(SupportCommand),
}

fn main() -> ExitCode {
    let done = match CommandLine::parse().command {
        Command::Serve { config } => serve(&config),
        Command::CheckConfig { config } => check(&config),
        Command::Store(command) => return command.run(),
        Command::SupportBundle(command) => command.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the command line's own voice")]
fn print_error(error: &anyhow::Error) {
    eprintln!("lianxin-gateway: failed to {error:#}");
}

fn serve(path: &std::path::Path) -> anyhow::Result<()> {
    let config = Config::read(path)?;
    let log = start_logging(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let gateway = Gateway::open(&config).await?.with_log(log);
        tracing::info!(address = %gateway.address(), zone = %config.zone, "listening");
        let reloading = tokio::spawn(reload_when_told(gateway.reload_handle(), signal(SignalKind::hangup())?));
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let served = gateway.serve(stop).await;
        reloading.abort();
        Ok(served?)
    })
}

/// SIGHUP reads configuration and files again. The gateway itself logs and records what became of it.
async fn reload_when_told(gateway: ReloadHandle, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        tracing::info!("SIGHUP: reading the configuration again");
        if let Err(ReloadError::Stopped) = gateway.reload().await {
            return;
        }
    }
}

#[expect(clippy::print_stdout, reason = "the command's result")]
fn check(path: &std::path::Path) -> anyhow::Result<()> {
    let config = Config::read(path)?;
    lianxin_gateway::check_trust(&config)?;
    println!("configuration  {} is good", path.display());
    println!("zone           {}", config.zone);
    println!("listen         {}", config.listen);
    println!("store          {}", config.store.display());
    let descriptors = lianxin_gateway::Descriptors::of(&config)?;
    println!(
        "space          effects need {} bytes free, {} bytes are kept for audit records",
        config.free_bytes_min, config.reserve_bytes
    );
    println!(
        "open files     {} may be needed ({} connections, {} for the store), {} are allowed",
        descriptors.needed(),
        descriptors.connections_max,
        descriptors.store,
        descriptors.allowed
    );
    match config.metrics {
        Some(address) => println!("metrics        http://{address}/metrics"),
        None => println!("metrics        none"),
    }
    println!("\nkeys, and what another value of each needs");
    for key in config.keys() {
        println!("  {:<28} {}", key.name, key.change.word());
    }
    println!("\nlimits");
    for row in lianxin_types::LIMITS.rows() {
        println!("  {:<28} {:>10} {}", row.name, row.value, row.unit);
    }
    Ok(())
}
