//! `lianxin-certs-dev`: the command line of the crate of that name. Parses, calls, prints.
//!
//! For: whoever wants a federation to try things with. Must never know: how a certificate is made.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use lianxin_certs_dev::{DepartmentPlan, FederationPlan, NOT_FOR_PRODUCTION, clear, mint};
use lianxin_trust::VerifiedBundle;
use lianxin_types::{Clock as _, SystemClock, ZoneId};

const EXAMPLES: &str = "\
Examples:
  lianxin-certs-dev mint --out ./federation
      纪委监委, 审计局, 卫生健康委 and an outsider, gateway at 127.0.0.1:7443

  lianxin-certs-dev mint --out ./federation --force --port 9443
      the same anew, in the same folder

  lianxin-certs-dev mint --out /tmp/two --department gongan=公安局 --department minzheng=民政局 --host gw.example
      two departments; the first operates the zone

  lianxin-certs-dev renew --out ./federation
      the next bundle and revocation lists, good for another seven days; then kill -HUP the gateway

  lianxin-certs-dev revoke --out ./federation --department shenji --app app-1
      the next revocation list of shenji, with that application on it

  lianxin-certs-dev renew-gateway --out ./federation
      a new TLS certificate and key for the gateway

  lianxin-certs-dev rotate-removal-key --out ./federation
  lianxin-certs-dev drop-removal-keys --out ./federation
      a new removal key beside the old one; then the new one alone

  lianxin-certs-dev rotate-authority --out ./federation --department shenji
  lianxin-certs-dev renew-app --out ./federation --department shenji --app app-1
  lianxin-certs-dev retire-authority --out ./federation --department shenji
      a new authority beside the old one; certificates of the new one; then the new one alone

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
    /// Sign the next bundle and the next revocation list of every department, good for another seven days.
    Renew(Minted),
    /// Put an application on its department's revocation list.
    Revoke(Revoke),
    /// Give the gateway a new TLS certificate and key.
    RenewGateway(Minted),
    /// Give an application new certificates, under its MLS key.
    RenewApp(Revoke),
    /// Give the zone a new removal key; the old one stays good.
    RotateRemovalKey(Minted),
    /// Sign the bundle that lists no old removal key any more.
    DropRemovalKeys(Minted),
    /// Give a department a new authority beside the old one.
    RotateAuthority(OfDepartment),
    /// Sign the bundle without a department's old authority.
    RetireAuthority(OfDepartment),
}

#[derive(Args)]
struct Minted {
    /// Folder of a federation that was minted before.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Args)]
struct OfDepartment {
    #[command(flatten)]
    minted: Minted,
    /// The department, e.g. shenji.
    #[arg(long)]
    department: String,
}

#[derive(Args)]
struct Revoke {
    #[command(flatten)]
    of: OfDepartment,
    /// The application, e.g. app-1.
    #[arg(long)]
    app: String,
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
        Command::Renew(minted) => renew(&minted.open()?),
        Command::Revoke(Revoke { of, app }) => revoke(&of.minted.open()?, &of.department, &app),
        Command::RenewGateway(minted) => renew_gateway(&minted.open()?),
        Command::RenewApp(Revoke { of, app }) => {
            of.minted.open()?.renew_app(&of.department, &app)?;
            say(&format!("{app} of {} has new certificates", of.department))
        }
        Command::RotateRemovalKey(minted) => say_bundle(&minted.open()?.rotate_removal_key()?),
        Command::DropRemovalKeys(minted) => say_bundle(&minted.open()?.drop_removal_keys()?),
        Command::RotateAuthority(of) => say_bundle(&of.minted.open()?.rotate_authority(&of.department)?),
        Command::RetireAuthority(of) => say_bundle(&of.minted.open()?.retire_authority(&of.department)?),
    }
}

impl Minted {
    /// The federation, with times counted from now.
    fn open(&self) -> anyhow::Result<lianxin_certs_dev::Minted> {
        let minted = lianxin_certs_dev::Minted::open(&self.out);
        let minted = minted.with_context(|| format!("{} holds no minted federation", self.out.display()))?;
        Ok(minted.at(SystemClock.now()))
    }
}

fn renew(minted: &lianxin_certs_dev::Minted) -> anyhow::Result<()> {
    let bundle = minted.succeed(|_| ())?.bundle;
    for department in &bundle.departments {
        minted.renew_revocation_list(department.id.as_str())?;
    }
    say(&format!("trust bundle {} and the next revocation lists are good for seven days", bundle.version))
}

fn revoke(minted: &lianxin_certs_dev::Minted, department: &str, app: &str) -> anyhow::Result<()> {
    minted.revoke_app(department, app)?;
    let list = minted.department(department).revocation_list;
    say(&format!("{app} of {department} is revoked; the list is {}", list.display()))
}

fn renew_gateway(minted: &lianxin_certs_dev::Minted) -> anyhow::Result<()> {
    minted.renew_gateway_certificate()?;
    say(&format!("the gateway has a new certificate: {}", minted.gateway().tls_certificate.display()))
}

fn say_bundle(bundle: &VerifiedBundle) -> anyhow::Result<()> {
    say(&format!("trust bundle {} is signed; give it to the gateways", bundle.bundle.version))
}

fn say(done: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{done}")?)
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
