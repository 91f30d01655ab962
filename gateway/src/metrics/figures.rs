//! Everything that is measured, read once for one scrape.

use std::path::PathBuf;
use std::sync::Arc;

use lianxin_operations::{DeliveryFigures, Level, Operations, StatisticsView};
use lianxin_store::{Health, ZoneStore};
use lianxin_transport::ListenerFigures;
use lianxin_trust::Usage;
use lianxin_types::{Clock, Timestamp};

use super::process::{DiskSpace, ProcessFigures};

/// Where figures come from.
pub(crate) struct Sources {
    pub(crate) operations: Operations,
    pub(crate) store: Arc<dyn ZoneStore>,
    pub(crate) listener: ListenerFigures,
    pub(crate) clock: Arc<dyn Clock>,
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
    pub(crate) bundle_expires: Timestamp,
    pub(crate) revocation_lists_expire: Option<Timestamp>,
    /// `None` if the certificate is not good any more by today's federation.
    pub(crate) certificate_expires: Option<Timestamp>,
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
        let federation = self.operations.federation();
        let chain = self.listener.certificate_chain();
        let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
        let certificate = federation.identify_ignoring_expiry(&chain, Usage::TlsGateway, self.clock.now());
        let bundle = &federation.bundle().bundle;
        Figures {
            counts: self.operations.statistics(),
            delivery: self.operations.delivery_figures(),
            health: self.store.health(),
            pressure: self.operations.pressure(),
            connections: self.listener.connections(),
            connections_max: self.listener.connections_max(),
            bundle_version: bundle.version,
            bundle_expires: bundle.expires,
            revocation_lists_expire: federation.revocation_lists_expire(),
            certificate_expires: certificate.ok().map(|identity| identity.not_after),
            process: ProcessFigures::of("self"),
            disk: DiskSpace::of(&self.folder),
            started: self.started,
        }
    }
}
