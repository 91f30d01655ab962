//! The zone's store, opened or examined as the configuration says.

use std::path::Path;
use std::sync::Arc;

use lianxin_store::{Durability, Inspection, InspectionProgress, Room, StoreError, ZoneStore};
use lianxin_store_sled::{RealDisk, SpaceBounds};
use lianxin_types::{Clock, Timestamp};

use crate::config::Config;
use crate::error::ServeError;

/// Opens the zone; one that is quarantined stays closed, with the gateway alive around it.
///
/// # Errors
/// [`ServeError::Store`] if it cannot be opened, [`ServeError::Durability`], [`ServeError::Clock`] if the machine's clock is
/// before the zone's last record.
pub(crate) fn open(config: &Config, clock: &Arc<dyn Clock>) -> Result<Arc<dyn ZoneStore>, ServeError> {
    let (zone, options) = (config.zone.clone(), config.strength.zone_options());
    let space = SpaceBounds { free_bytes_min: config.free_bytes_min, reserve_bytes: config.reserve_bytes };
    let store =
        lianxin_store_sled::keep_open(&config.store, zone, Arc::clone(clock), Arc::new(RealDisk), options, space)
            .map_err(told_in_utc)?;
    if store.caps().durability < Durability::LocalSync {
        return Err(ServeError::Durability);
    }
    Ok(store)
}

/// Whether an audit record can be written.
pub(crate) fn takes_records(store: &dyn ZoneStore) -> bool {
    let health = store.health();
    health.fault.is_none() && health.room != Room::Nothing
}

fn told_in_utc(error: StoreError) -> ServeError {
    match error {
        StoreError::ClockBehind { now, last } => ServeError::Clock { now: written(now), last: written(last) },
        other => other.into(),
    }
}

/// A time as an operator reads it, in UTC.
fn written(time: Timestamp) -> String {
    let at =
        i64::try_from(time.seconds()).ok().and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok());
    at.map_or_else(
        || format!("{time:?}"),
        |at| {
            let ((year, month, day), (hour, minute, second)) = (at.to_calendar_date(), at.to_hms());
            format!("{year}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", u8::from(month))
        },
    )
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_the_last_record_is_told_with_both_times() {
        let at = Timestamp::from_seconds;
        let text =
            told_in_utc(StoreError::ClockBehind { now: at(1_795_000_000 - 61), last: at(1_795_000_000) }).to_string();
        assert!(text.contains("2026-11-18T11:05:39Z") && text.contains("2026-11-18T11:06:40Z"), "{text}");
    }
}
