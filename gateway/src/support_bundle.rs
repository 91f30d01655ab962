//! `lianxin-gateway support-bundle`: what a supporter needs to know of a gateway, in one archive, and nothing that must stay.
//!
//! It works beside a running gateway and on a broken zone: it takes no lock, opens no database, and a part that cannot be
//! had is a line that says why. Nothing secret is collected, and every text goes through [`redaction::redacted`] besides.

mod archive;
mod configuration;
mod log_tail;
mod redaction;
mod scrape;
mod system;
mod trust_state;
mod zone_folder;

use std::path::{Path, PathBuf};

use lianxin_types::{Clock, LIMITS};
use thiserror::Error;

use crate::config::Config;
use archive::Archive;
use redaction::Origin;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct SupportRequest {
    /// The gateway's configuration.
    pub config: PathBuf,
    /// The archive to write; it must not exist.
    pub out: PathBuf,
    /// The gateway's log, if it goes into a file.
    pub log: Option<PathBuf>,
    /// So many of its last lines.
    pub log_lines_max: usize,
}

/// A file of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupportEntry {
    /// Its name in the archive.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Why there is no archive.
#[derive(Debug, Error)]
pub enum SupportError {
    /// The file cannot be written, or exists.
    #[error("write {} (an existing file is not replaced)", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// It was asked for more lines of the log than are read.
    #[error("take {found} lines of the log: at most {limit}")]
    TooManyLines {
        /// What was asked for.
        found: usize,
        /// The most there are.
        limit: usize,
    },
}

/// Collects everything and writes the archive, readable by its owner alone. Takes some seconds at most.
///
/// # Errors
/// [`SupportError`]: the archive cannot be written. What cannot be collected is said inside it.
pub async fn write_support_bundle(
    request: &SupportRequest,
    clock: &dyn Clock,
) -> Result<Vec<SupportEntry>, SupportError> {
    if request.log_lines_max > log_tail::LINES_MAX {
        let (found, limit) = (request.log_lines_max, log_tail::LINES_MAX);
        return Err(SupportError::TooManyLines { found, limit });
    }
    let config = Config::read(&request.config);
    let mut archive = Archive::create(&request.out, clock.now()).map_err(failed(&request.out))?;
    let mut add = |name, text: String, origin| archive.add(name, &text, origin).map_err(failed(&request.out));
    add("README.txt", include_str!("support_bundle/README.txt").to_owned(), Origin::Ours)?;
    add("version.txt", version(clock), Origin::Ours)?;
    add("configuration.txt", configuration::shown(&request.config, &config), Origin::Foreign)?;
    add("limits.txt", limits(), Origin::Ours)?;
    let (trust, zone, scrape) = match &config {
        Ok(config) => {
            let scrape = match config.metrics {
                Some(address) => scrape::scrape(address, clock).await,
                None => "no metrics are configured\n".to_owned(),
            };
            (trust_state::shown(config, clock.now()), zone_folder::shown(&config.store), scrape)
        }
        Err(_) => {
            let unknown = || "unknown: the configuration cannot be read, see configuration.txt\n".to_owned();
            (unknown(), unknown(), unknown())
        }
    };
    add("trust.txt", trust, Origin::Foreign)?;
    add("zone.txt", zone, Origin::Foreign)?;
    add("metrics.txt", scrape, Origin::Foreign)?;
    let folder = config.as_ref().ok().map(|config| config.store.as_path());
    add("system.txt", system::shown(folder), Origin::Foreign)?;
    let log = match &request.log {
        Some(path) => log_tail::shown(path, request.log_lines_max),
        None => "no log was given: --log FILE\n".to_owned(),
    };
    add("log.txt", log, Origin::Foreign)?;
    archive.finish().map_err(failed(&request.out))
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> SupportError {
    let path = path.to_owned();
    move |source| SupportError::Write { path, source }
}

fn version(clock: &dyn Clock) -> String {
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!(
        "lianxin-gateway {} ({build} build, {} {})\nstore format {}\ncollected at {} (seconds since 1970-01-01T00:00:00Z)\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
        lianxin_store_sled::FORMAT,
        clock.now().seconds(),
    )
}

fn limits() -> String {
    LIMITS.rows().iter().map(|row| format!("{:<28} {:>10} {}\n", row.name, row.value, row.unit)).collect()
}

/// The error with its causes on one line.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
