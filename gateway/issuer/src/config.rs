//! The configuration file: TOML, unknown keys refused, paths relative to the file. `config.sample.toml` documents each key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lianxin_trust::Endpoint;
use lianxin_types::{DepartmentId, LIMITS, ZoneId};
use serde::Deserialize;
use thiserror::Error;

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
    /// A name is none.
    #[error("{key} is not a name of a-z, 0-9 and hyphens")]
    Name {
        /// The key.
        key: &'static str,
    },
    /// A validity that no certificate of a device may have.
    #[error("lifetime_days is {found}, 1 to {max} are allowed")]
    Lifetime {
        /// What the file says.
        found: u64,
        /// Most days.
        max: u64,
    },
}

/// Everything that an issuer is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Whose devices it renews.
    pub department: DepartmentId,
    /// The zone whose gateway passes requests on.
    pub zone: ZoneId,
    /// Where that gateway is; `None` for the first endpoint in the trust bundle.
    pub endpoint: Option<Endpoint>,
    /// PEM certificate of kind issuer.
    pub certificate: PathBuf,
    /// PEM private key of that certificate.
    pub key: PathBuf,
    /// The pinned root keys.
    pub roots: PathBuf,
    /// The signed trust bundle.
    pub bundle: PathBuf,
    /// DER revocation lists; without the department's own nobody is known to be revoked.
    pub revocation_lists: Vec<PathBuf>,
    /// PEM certificate of the department's authority.
    pub authority_certificate: PathBuf,
    /// PEM private key of the department's authority.
    pub authority_key: PathBuf,
    /// The list of devices ([`crate::Devices::parse`]).
    pub devices: PathBuf,
    /// How long a certificate is good.
    pub lifetime: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    department: String,
    zone: String,
    gateway: Option<Gateway>,
    lifetime_days: u64,
    devices: PathBuf,
    tls: Pair,
    authority: Pair,
    trust: Trust,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Gateway {
    host: String,
    port: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Trust {
    roots: PathBuf,
    bundle: PathBuf,
    revocation_lists: Vec<PathBuf>,
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let unreadable = |source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) };
        let file: File = toml::from_str(&text).map_err(unreadable)?;
        let max = LIMITS.leaf_lifetime_max.as_secs() / DAY_SECONDS;
        if !(1..=max).contains(&file.lifetime_days) {
            return Err(ConfigError::Lifetime { found: file.lifetime_days, max });
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let beside = |path: PathBuf| folder.join(path);
        Ok(Self {
            department: file.department.parse().map_err(|_| ConfigError::Name { key: "department" })?,
            zone: file.zone.parse().map_err(|_| ConfigError::Name { key: "zone" })?,
            endpoint: file.gateway.map(|Gateway { host, port }| Endpoint { host, port }),
            certificate: beside(file.tls.certificate),
            key: beside(file.tls.key),
            roots: beside(file.trust.roots),
            bundle: beside(file.trust.bundle),
            revocation_lists: file.trust.revocation_lists.into_iter().map(beside).collect(),
            authority_certificate: beside(file.authority.certificate),
            authority_key: beside(file.authority.key),
            devices: beside(file.devices),
            lifetime: Duration::from_secs(file.lifetime_days * DAY_SECONDS),
        })
    }
}

const DAY_SECONDS: u64 = 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("issuer.toml");
        std::fs::write(&path, text).expect("written");
        Config::read(&path)
    }

    const SAMPLE: &str = include_str!("../config.sample.toml");

    #[test]
    fn the_sample_is_read_and_its_paths_are_beside_it() {
        let config = read(SAMPLE).expect("the sample is good");
        assert_eq!((config.department.as_str(), config.lifetime), ("shenji", Duration::from_secs(30 * DAY_SECONDS)));
        assert!(config.authority_key.is_absolute() && config.authority_key.ends_with("ca.key"));
    }

    #[test]
    fn what_is_unknown_missing_or_out_of_bounds_is_refused() {
        let changed = |from: &str, to: &str| {
            assert!(SAMPLE.contains(from), "{from}");
            read(&SAMPLE.replace(from, to))
        };
        assert!(matches!(changed("lifetime_days", "lifetime_dayz"), Err(ConfigError::Parse { .. })));
        assert!(matches!(changed("devices =", "# devices ="), Err(ConfigError::Parse { .. })));
        assert!(matches!(changed("\"cn-zj-1\"", "\"杭州\""), Err(ConfigError::Name { key: "zone" })));
        for days in [0, 85] {
            let refused = changed("lifetime_days = 30", &format!("lifetime_days = {days}"));
            assert!(matches!(refused, Err(ConfigError::Lifetime { max: 84, .. })));
        }
        changed("lifetime_days = 30", "lifetime_days = 84").expect("the most");
        assert!(matches!(Config::read(Path::new("/nowhere.toml")), Err(ConfigError::Read { .. })));
    }
}
