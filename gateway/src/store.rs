//! The zone's store, opened or examined as the configuration says.

use std::path::Path;

use lianxin_store::{Inspection, InspectionProgress};

use crate::config::Config;
use crate::error::ServeError;

/// Reads every record of the configuration's zone while no gateway runs on it; see [`lianxin_store::inspect`]. Copies of its
/// databases are made in `scratch`, beside the zone's folder if there is none.
///
/// # Errors
/// [`ServeError::Store`] if a process holds the folder, a newer version wrote it, or it or the scratch folder cannot be used.
pub fn check_store(
    config: &Config,
    scratch: Option<&Path>,
    watch: &mut dyn FnMut(InspectionProgress),
) -> Result<Inspection, ServeError> {
    let scratch = scratch.or(config.store.parent()).unwrap_or(Path::new("."));
    Ok(lianxin_store_sled::check(&config.store, &config.zone, scratch, watch)?)
}
