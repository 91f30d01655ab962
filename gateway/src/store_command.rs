//! `lianxin-gateway store …`: what an operator does with a zone whose gateway does not run.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use lianxin_gateway::Config;
use lianxin_store::{Finding, Inspection, InspectionProgress};

#[derive(Subcommand)]
pub(crate) enum StoreCommand {
    /// Read every record of the zone and recompute what is stored beside it; changes nothing.
    ///
    /// Verified are buckets and leaf indexes without gaps, leaf hashes and commitments, slots, the departments' counters, each
    /// channel's sequence and chain over all its events, the indexes, and that the state is what the journal gives. The zone's
    /// folder is locked meanwhile. Exit code 0: everything is as it was written; 1: there are findings; 2: it could not be
    /// checked.
    #[command(
        after_help = "Examples:\n  lianxin-gateway store check --config gateway.toml\n  lianxin-gateway store check --config gateway.toml --json > findings.jsonl\n  lianxin-gateway store check --config gateway.toml --scratch /var/tmp"
    )]
    Check(Check),
}

#[derive(Args)]
pub(crate) struct Check {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
    /// Print JSON lines: one object for each finding, then one for the whole.
    #[arg(long)]
    json: bool,
    /// Folder for copies of databases, the two largest at a time; beside the zone's folder by default.
    #[arg(long)]
    scratch: Option<PathBuf>,
}

/// What could not be checked, apart from what was found wrong.
const NOT_CHECKED: u8 = 2;

impl StoreCommand {
    pub(crate) fn run(&self) -> ExitCode {
        let Self::Check(check) = self;
        match check.run() {
            Ok(inspection) if inspection.is_clean() => ExitCode::SUCCESS,
            Ok(_) => ExitCode::FAILURE,
            Err(error) => {
                crate::print_error(&error);
                ExitCode::from(NOT_CHECKED)
            }
        }
    }
}

impl Check {
    fn run(&self) -> anyhow::Result<Inspection> {
        let config = Config::read(&self.config)?;
        let mut bar = Bar::new();
        let inspection = lianxin_gateway::check_store(&config, self.scratch.as_deref(), &mut |at| bar.show(at));
        bar.clear();
        let inspection = inspection?;
        if self.json { print_json(&inspection) } else { print_text(&config, &inspection) }
            .context("print the findings")?;
        Ok(inspection)
    }
}

/// One line that is written over again; nothing where nobody looks.
struct Bar {
    is_shown: bool,
}

impl Bar {
    fn new() -> Self {
        Self { is_shown: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, at: InspectionProgress) {
        if self.is_shown {
            let InspectionProgress { buckets_done, buckets, leaves, findings } = at;
            // A terminal that went away is no reason to stop checking.
            let mut terminal = std::io::stderr();
            drop(write!(terminal, "\r\x1b[Kbucket {buckets_done} of {buckets}, {leaves} leaves, {findings} findings"));
        }
    }

    fn clear(&mut self) {
        if self.is_shown {
            drop(write!(std::io::stderr(), "\r\x1b[K"));
        }
    }
}

fn print_text(config: &Config, inspection: &Inspection) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for finding in &inspection.findings {
        writeln!(out, "{finding}")?;
    }
    if inspection.findings_left_out > 0 {
        writeln!(out, "and {} more", inspection.findings_left_out)?;
    }
    let Inspection { fencing_number, buckets, leaves, events, channels, state_rows, .. } = inspection;
    writeln!(out, "zone      {} in {}", config.zone, config.store.display())?;
    writeln!(out, "fencing   opened {fencing_number} times")?;
    writeln!(out, "read      {leaves} leaves in {buckets} buckets, {events} events of {channels} channels")?;
    match inspection.applied {
        Some(applied) => {
            writeln!(out, "state     {applied} leaves applied, {state_rows} rows as the journal gives them")?
        }
        None => writeln!(out, "state     none; the next start computes it from the journal")?,
    }
    if inspection.is_clean() {
        return writeln!(out, "result    everything is as it was written");
    }
    let count = inspection.findings.len() as u64 + inspection.findings_left_out;
    writeln!(out, "result    {count} findings")?;
    writeln!(
        out,
        "what to do: keep the folder as it is, restore the zone from its last backup into another folder, check that one,\n\
         and start the gateway on it"
    )
}

fn print_json(inspection: &Inspection) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for finding in &inspection.findings {
        let Finding { bucket, record, fault } = finding;
        writeln!(out, "{}", serde_json::json!({ "bucket": bucket, "record": record, "fault": fault.to_string() }))?;
    }
    let whole = serde_json::json!({
        "is_clean": inspection.is_clean(),
        "fencing_number": inspection.fencing_number,
        "buckets": inspection.buckets,
        "leaves": inspection.leaves,
        "events": inspection.events,
        "channels": inspection.channels,
        "applied": inspection.applied,
        "state_rows": inspection.state_rows,
        "findings": inspection.findings.len() as u64 + inspection.findings_left_out,
    });
    writeln!(out, "{whole}")
}
