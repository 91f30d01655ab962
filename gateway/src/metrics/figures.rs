//! Everything that is measured, read once for one scrape.

use std::path::PathBuf;

use lianxin_operations::{DeliveryFigures, Level, StatisticsView};
use lianxin_store::Health;
use lianxin_types::Timestamp;

use crate::readiness::{Facts, Readiness};

use super::process::{DiskSpace, ProcessFigures};

/// Where figures come from.
pub(crate) struct Sources {
    pub(crate) readiness: Readiness,
    /// The zone's folder, for the space left on its disk.
    pub(crate) folder: PathBuf,
    pub(crate) started: Timestamp,
}

/// One reading.
pub(crate) struct Figures {
    pub(crate) counts: StatisticsView,
    pub(crate) delivery: DeliveryFigures,
    pub(crate) health: Health,
    pub(crate) pressure: Level,
    pub(crate) connections: usize,
    pub(crate) connections_max: usize,
    pub(crate) bundle_version: u64,
    pub(crate) ready: Facts,
    pub(crate) process: ProcessFigures,
    pub(crate) disk: Option<DiskSpace>,
    pub(crate) started: Timestamp,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sources")
    }
}

impl Sources {
    pub(crate) fn read(&self) -> Figures {
        let Readiness { operations, store, listener, .. } = &self.readiness;
        Figures {
            counts: operations.statistics(),
            delivery: operations.delivery_figures(),
            health: store.health(),
            pressure: operations.pressure(),
            connections: listener.connections(),
            connections_max: listener.connections_max(),
            bundle_version: operations.federation().bundle().bundle.version,
            ready: self.readiness.read(),
            process: ProcessFigures::of("self"),
            disk: DiskSpace::of(&self.folder),
            started: self.started,
        }
    }
}
