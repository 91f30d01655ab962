//! The configuration file: TOML, unknown keys refused, paths relative to the file. `config.sample.toml` documents each key.

mod keys;

use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};

use lianxin_types::{Digest, ZoneId};
use serde::Deserialize;
use thiserror::Error;
use tracing_subscriber::EnvFilter;

use crate::strength::Strength;

pub use keys::{Change, Key};

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A key is unknown, missing or of the wrong type.
    #[error("parse {}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The cause; it names line and key.
        source: Box<toml::de::Error>,
    },
    /// A value cannot be used.
    #[error("{key}: {fault}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong and what to do.
        fault: String,
    },
}

/// Everything that a gateway is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file, as an absolute path: it is read again at a reload.
    pub path: PathBuf,
    /// The zone that it serves.
    pub zone: ZoneId,
    /// Where it listens for departments.
    pub listen: SocketAddr,
    /// PEM certificate chain of kind gateway.
    pub certificate: PathBuf,
    /// PEM private key of that certificate.
    pub key: PathBuf,
    /// The pinned root keys.
    pub roots: PathBuf,
    /// The signed trust bundle.
    pub bundle: PathBuf,
    /// Folder of earlier bundles (`*.note`), which show that a bundle several versions ahead follows the one in force.
    pub bundle_history: Option<PathBuf>,
    /// DER revocation lists.
    pub revocation_lists: Vec<PathBuf>,
    /// How often bundle and revocation lists are read again, in seconds.
    pub reread_seconds: u64,
    /// PEM private key with which the zone asks for removals.
    pub removal_key: PathBuf,
    /// Folder of the zone's store.
    pub store: PathBuf,
    /// Below this many free bytes where the store lies only audit records are written.
    pub free_bytes_min: u64,
    /// Bytes kept allocated in the store for audit records.
    pub reserve_bytes: u64,
    /// File with the secret behind the pseudonyms in audit records.
    pub pseudonym_key: PathBuf,
    /// Where metrics are served; loopback only. `None` for nowhere.
    pub metrics: Option<SocketAddr>,
    /// Filter of the log, in the syntax of `tracing`.
    pub log_filter: String,
    /// One JSON object per line instead of text.
    pub log_json: bool,
    /// Longest wait for open calls when the gateway stops, in seconds.
    pub drain_seconds_max: u64,
    /// What the gateway can take.
    pub strength: Strength,
    /// SHA-256 of the file; it goes into the audit log at every start.
    pub digest: Digest,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    zone: String,
    listen: SocketAddr,
    tls: Tls,
    trust: Trust,
    store: Store,
    audit: Audit,
    metrics: Option<Metrics>,
    #[serde(default)]
    log: Log,
    #[serde(default)]
    strength: crate::strength::Section,
    #[serde(default = "drain_seconds_max")]
    drain_seconds_max: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trust {
    roots: PathBuf,
    bundle: PathBuf,
    bundle_history: Option<PathBuf>,
    revocation_lists: Vec<PathBuf>,
    #[serde(default = "reread_seconds")]
    reread_seconds: u64,
    removal_key: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Store {
    engine: Engine,
    folder: PathBuf,
    #[serde(default = "free_bytes_min")]
    free_bytes_min: u64,
    #[serde(default = "reserve_bytes")]
    reserve_bytes: u64,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Engine {
    Sled,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Audit {
    pseudonym_key: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metrics {
    listen: SocketAddr,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Log {
    filter: String,
    format: Format,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Format {
    Text,
    Json,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".into(), format: Format::Text }
    }
}

const fn drain_seconds_max() -> u64 {
    10
}

const fn reread_seconds() -> u64 {
    60
}

/// Longest wait for a fresh revocation list to take effect by itself: an hour is what a department may expect.
const REREAD_SECONDS_BOUND: u64 = 3_600;

const fn free_bytes_min() -> u64 {
    512 * 1024 * 1024
}

const fn reserve_bytes() -> u64 {
    64 * 1024 * 1024
}

/// 2^60: sums of sizes stay far from overflowing.
const FREE_BYTES_BOUND: u64 = 1 << 60;

/// A smaller reserve would not outlast one batch of audit records.
const RESERVE_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// Longest drain that makes sense: an operator who waits longer kills the process anyway.
const DRAIN_SECONDS_BOUND: u64 = 300;

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] for a file that cannot be read, an unknown or missing key, or a value that cannot be used.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        // Absolute, so that every error about a file names where it was looked for.
        let path = std::path::absolute(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        Self::parse(&text, &path)
    }

    /// Checks the text of a file at `path`.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        let Engine::Sled = file.store.engine;
        let path = std::path::absolute(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let at = |path: PathBuf| folder.join(path);
        let config = Self {
            path: path.clone(),
            zone: file.zone.parse().map_err(|fault| value("zone", fault))?,
            strength: file.strength.check().map_err(|(key, fault)| value(key, fault))?,
            listen: file.listen,
            certificate: at(file.tls.certificate),
            key: at(file.tls.key),
            roots: at(file.trust.roots),
            bundle: at(file.trust.bundle),
            bundle_history: file.trust.bundle_history.map(at),
            revocation_lists: file.trust.revocation_lists.into_iter().map(at).collect(),
            reread_seconds: file.trust.reread_seconds,
            removal_key: at(file.trust.removal_key),
            store: at(file.store.folder),
            free_bytes_min: file.store.free_bytes_min,
            reserve_bytes: file.store.reserve_bytes,
            pseudonym_key: at(file.audit.pseudonym_key),
            metrics: file.metrics.map(|metrics| metrics.listen),
            log_filter: file.log.filter,
            log_json: file.log.format == Format::Json,
            drain_seconds_max: file.drain_seconds_max,
            digest: Digest::sha256(text.as_bytes()),
        };
        config.check()
    }

    /// Where the trust that is in force is kept, so that no restart takes an older bundle: beside the zone's folder.
    pub(crate) fn kept_trust(&self) -> PathBuf {
        let mut name = self.store.as_os_str().to_owned();
        name.push(".trust");
        PathBuf::from(name)
    }

    fn check(self) -> Result<Self, ConfigError> {
        if self.metrics.is_some_and(|address| !address.ip().is_loopback()) {
            return Err(value("metrics.listen", "metrics are not authenticated: use a loopback address"));
        }
        if normalised(&self.pseudonym_key).starts_with(normalised(&self.store)) {
            let fault = "the key must not lie in the zone's folder: whoever copies the zone would have it";
            return Err(value("audit.pseudonym_key", fault));
        }
        if normalised(&self.removal_key).starts_with(normalised(&self.store)) {
            let fault = "the key must not lie in the zone's folder: whoever copies the zone would have it";
            return Err(value("trust.removal_key", fault));
        }
        if self.reserve_bytes < RESERVE_BYTES_MIN {
            return Err(value("store.reserve_bytes", format!("at least {RESERVE_BYTES_MIN}")));
        }
        if self.free_bytes_min < self.reserve_bytes || self.free_bytes_min > FREE_BYTES_BOUND {
            let fault = format!("at least store.reserve_bytes, at most {FREE_BYTES_BOUND}");
            return Err(value("store.free_bytes_min", fault));
        }
        if self.drain_seconds_max > DRAIN_SECONDS_BOUND {
            return Err(value("drain_seconds_max", format!("at most {DRAIN_SECONDS_BOUND}")));
        }
        if !(1..=REREAD_SECONDS_BOUND).contains(&self.reread_seconds) {
            return Err(value("trust.reread_seconds", format!("1 to {REREAD_SECONDS_BOUND}")));
        }
        EnvFilter::try_new(&self.log_filter).map_err(|fault| value("log.filter", fault))?;
        Ok(self)
    }
}

fn value(key: &'static str, fault: impl ToString) -> ConfigError {
    ConfigError::Value { key, fault: fault.to_string() }
}

/// `path` from the root of the file system on, without `.` and `..`. It goes by the names alone, since neither folder need
/// exist yet; a symbolic link that leads elsewhere is its maker's business.
fn normalised(path: &Path) -> PathBuf {
    // An empty path or an unknown current folder leaves nothing to start from; then both paths are compared as written.
    let from_root = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut plain = PathBuf::new();
    for component in from_root.components() {
        match component {
            Component::CurDir => {}
            // Above the root is the root, and `pop` leaves it alone.
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../config.sample.toml");

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("/etc/lianxin/gateway.toml"))
    }

    #[test]
    fn the_sample_is_a_configuration_and_paths_are_relative_to_the_file() {
        let config = parse(SAMPLE).expect("the sample parses");
        assert_eq!(config.zone.as_str(), "cn-zj-1");
        assert_eq!(config.bundle, Path::new("/etc/lianxin/trust-bundle.note"));
        assert_eq!(config.metrics.map(|address| address.port()), Some(9464));
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        for text in [format!("surprise = 1\n{SAMPLE}"), SAMPLE.replace("[tls]", "[tls]\nsurprise = 1")] {
            let refused = parse(&text).expect_err("unknown key");
            let ConfigError::Parse { source, .. } = refused else { panic!("{refused:?}") };
            assert!(source.to_string().contains("surprise"), "{source}");
        }
    }

    #[test]
    fn a_missing_key_is_refused_by_name() {
        let refused = parse(&SAMPLE.replace("zone = ", "# zone = ")).expect_err("zone is missing");
        assert!(std::error::Error::source(&refused).expect("a cause").to_string().contains("zone"));
    }

    #[test]
    fn a_key_beside_the_zone_is_taken_however_it_is_written() {
        for beside in ["data/zone/../keys/k", "data/zone-keys/k", "data/zone/../zone2/k", "../lianxin/keys/k"] {
            parse(&SAMPLE.replace("keys/pseudonym.key", beside)).expect(beside);
        }
        // Where one path is absolute and the other is not, both are still compared from the root.
        let here = std::env::current_dir().expect("a current folder").join("data/zone/k");
        let text = SAMPLE.replace("keys/pseudonym.key", &here.display().to_string());
        Config::parse(&text, Path::new("gateway.toml")).expect_err("the zone's folder, written out");
    }

    #[test]
    fn values_that_would_be_unsafe_are_refused() {
        let key = |text: String| match parse(&text) {
            Err(ConfigError::Value { key, .. }) => key,
            other => panic!("{other:?}"),
        };
        assert_eq!(key(SAMPLE.replace("127.0.0.1:9464", "0.0.0.0:9464")), "metrics.listen");
        assert_eq!(key(SAMPLE.replace("keys/pseudonym.key", "data/zone/pseudonym.key")), "audit.pseudonym_key");
        assert_eq!(key(SAMPLE.replace("gateway/removal.key", "data/zone/removal.key")), "trust.removal_key");
        for detour in
            ["data/x/../zone/k", "./data/./zone/k", "data/../../lianxin/data/zone/k", "/etc/lianxin/data/zone/k"]
        {
            assert_eq!(key(SAMPLE.replace("keys/pseudonym.key", detour)), "audit.pseudonym_key", "{detour}");
        }
        assert_eq!(key(SAMPLE.replace("filter = \"info\"", "filter = \"lianxin_store=loud\"")), "log.filter");
        assert_eq!(key(SAMPLE.replace("drain_seconds_max = 10", "drain_seconds_max = 301")), "drain_seconds_max");
        for seconds in ["reread_seconds = 0", "reread_seconds = 3601"] {
            assert_eq!(key(SAMPLE.replace("reread_seconds = 60", seconds)), "trust.reread_seconds", "{seconds}");
        }
        assert_eq!(key(SAMPLE.replace("reserve_bytes = 67108864", "reserve_bytes = 4194303")), "store.reserve_bytes");
        assert_eq!(key(SAMPLE.replace("free_bytes_min = 536870912", "free_bytes_min = 1")), "store.free_bytes_min");
        assert_eq!(key(SAMPLE.replace("cn-zj-1", "CN ZJ")), "zone");
        assert!(matches!(parse(&SAMPLE.replace("\"sled\"", "\"memory\"")), Err(ConfigError::Parse { .. })));
    }
}
