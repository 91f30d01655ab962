//! The federation from its files.

use std::path::Path;

use lianxin_trust::{Federation, RootKeys, verify_bundle};

use crate::config::Config;
use crate::error::ServeError;

/// Verifies bundle and revocation lists of a configuration.
///
/// # Errors
/// [`ServeError`] naming the file that cannot be read or does not verify.
pub(crate) fn load(config: &Config) -> Result<Federation, ServeError> {
    let roots = String::from_utf8(read(&config.roots)?).map_err(|_| ServeError::trust(&config.roots, "not UTF-8"))?;
    let roots = RootKeys::from_json(&roots).map_err(|fault| ServeError::trust(&config.roots, fault))?;
    let bundle =
        verify_bundle(&roots, &read(&config.bundle)?).map_err(|fault| ServeError::trust(&config.bundle, fault))?;
    if bundle.bundle.zone(&config.zone).is_none() {
        return Err(ServeError::trust(&config.bundle, format!("zone {} is not in the bundle", config.zone)));
    }
    let lists = config.revocation_lists.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
    Federation::new(bundle, lists).map_err(|fault| ServeError::trust(&config.bundle, fault))
}

/// A whole file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ServeError> {
    std::fs::read(path).map_err(|source| ServeError::File { path: path.to_owned(), source })
}

/// Checks that the files of a configuration make a federation, without opening the zone.
///
/// # Errors
/// [`ServeError`] naming the file that cannot be read or does not verify.
pub fn check_trust(config: &Config) -> Result<(), ServeError> {
    load(config).map(|_| ())
}
