//! The log: `tracing` to standard error. Identities are short hashes by their own types.

use tracing_subscriber::EnvFilter;

use crate::config::{Config, ConfigError};

/// Starts logging as configured; once per process.
///
/// # Errors
/// [`ConfigError::Value`] if the filter cannot be parsed or logging was started before.
pub fn start_logging(config: &Config) -> Result<(), ConfigError> {
    let value = |fault: String| ConfigError::Value { key: "log.filter", fault };
    let filter = EnvFilter::try_new(&config.log_filter).map_err(|fault| value(fault.to_string()))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if config.log_json { log.json().try_init() } else { log.with_ansi(false).try_init() };
    started.map_err(|fault| value(fault.to_string()))
}
