//! The log: `tracing` to standard error. Identities are short hashes by their own types.

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, reload};

use crate::config::{Config, ConfigError};

/// The filter of a log that was started, to be set anew.
#[derive(Clone)]
pub struct LogFilter(reload::Handle<EnvFilter, Registry>);

impl std::fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogFilter")
    }
}

/// Starts logging as configured; once per process.
///
/// # Errors
/// [`ConfigError::Value`] if the filter cannot be parsed or logging was started before.
pub fn start_logging(config: &Config) -> Result<LogFilter, ConfigError> {
    let (filter, handle) = reload::Layer::new(parse(config)?);
    // A log that cannot be written, on a full disk above all, must not stop the thread that has something to say.
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let log = if config.log_json { log.json().boxed() } else { log.with_ansi(false).boxed() };
    let started = tracing_subscriber::registry().with(filter).with(log).try_init();
    started.map_err(|fault| value(&fault))?;
    Ok(LogFilter(handle))
}

impl LogFilter {
    /// Filters as `config` says from now on.
    ///
    /// # Errors
    /// [`ConfigError::Value`] if the filter cannot be parsed or the log is gone.
    pub(crate) fn set(&self, config: &Config) -> Result<(), ConfigError> {
        self.0.reload(parse(config)?).map_err(|fault| value(&fault))
    }
}

fn parse(config: &Config) -> Result<EnvFilter, ConfigError> {
    EnvFilter::try_new(&config.log_filter).map_err(|fault| value(&fault))
}

fn value(fault: &dyn std::fmt::Display) -> ConfigError {
    ConfigError::Value { key: "log.filter", fault: fault.to_string() }
}
