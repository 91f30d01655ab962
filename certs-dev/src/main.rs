//! `lianxin-certs-dev`: the command line of the crate of that name. Parses, calls, prints.
//!
//! For: whoever wants a federation to try things with. Must never know: how a certificate is made.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use lianxin_certs_dev::{DepartmentPlan, FederationPlan, NOT_FOR_PRODUCTION, clear, mint};
use lianxin_types::{SystemClock, ZoneId};

const EXAMPLES: &str = "\
Examples:
  lianxin-certs-dev mint --out ./federation
      纪委监委, 审计局, 卫生健康委 and an outsider, gateway at 127.0.0.1:7443

  lianxin-certs-dev mint --out ./federation --force --port 9443
      the same anew, in the same folder

  lianxin-certs-dev mint --out /tmp/two --department gongan=公安局 --department minzheng=民政局 --host gw.example
      two departments; the first operates the zone

Every private key lies in the folder: never use it in production.";

/// Mints a throw-away Lianxin federation for demos and tests.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Mint a federation into a folder.
    Mint(Mint),
}

#[derive(Args)]
#[command(after_help = EXAMPLES)]
struct Mint {
    /// Folder to write; created if need be, must be empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A department as id=名称, once for each, at least two; the first operates the zone.
    #[arg(long = "department", value_name = "ID=名称", value_parser = DepartmentPlan::parse)]
    departments: Vec<DepartmentPlan>,
    /// Name of the zone.
    #[arg(long, default_value = "cn-zj-1")]
    zone: ZoneId,
    /// DNS name or IP address at which the gateway is reached.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Its TCP port.
    #[arg(long, default_value_t = 7443)]
    port: u16,
    /// Replace a federation that was minted into the folder before; a folder with anything else is left alone.
    #[arg(long)]
    force: bool,
}

fn main() -> anyhow::Result<()> {
    match CommandLine::parse().command {
        Command::Mint(arguments) => run_mint(arguments),
    }
}

fn run_mint(arguments: Mint) -> anyhow::Result<()> {
    let Mint { out, departments, zone, host, port, force } = arguments;
    let mut plan = FederationPlan { zone, host, port, ..FederationPlan::default() };
    if !departments.is_empty() {
        plan.departments = departments;
    }
    if force {
        clear(&out)?;
    }
    mint(&plan, &out, &SystemClock).with_context(|| format!("nothing usable was minted into {}", out.display()))?;
    let names: Vec<_> = plan.departments.iter().map(|one| format!("{} ({})", one.name, one.id)).collect();
    let mut answer = std::io::stdout().lock();
    writeln!(answer, "minted {} with zone {} at {}:{}", names.join(", "), plan.zone, plan.host, plan.port)?;
    writeln!(
        answer,
        "into {}; its README.txt says what lies where, {NOT_FOR_PRODUCTION} what it is not for",
        out.display()
    )?;
    Ok(())
}
