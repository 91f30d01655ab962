//! Whether the gateway may be sent work, apart from whether it lives: every reason against it has a stable word, and says
//! whether work must go elsewhere or an operator has something to do soon.
//!
//! What is only overdue (bundle, revocation lists) warns and does not take the gateway out: past its expiry clients go on
//! reading (PROTOCOL 9), and a gateway that nobody is sent to would take that from them, too.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use lianxin_operations::Operations;
use lianxin_store::{Room, ZoneStore};
use lianxin_transport::ListenerFigures;
use lianxin_trust::Usage;
use lianxin_types::{Clock, LIMITS, Timestamp};
use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// What readiness is read from. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Readiness {
    pub(crate) operations: Operations,
    pub(crate) store: Arc<dyn ZoneStore>,
    pub(crate) listener: ListenerFigures,
    pub(crate) clock: Arc<dyn Clock>,
    /// Whether the gateway has been told to stop.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// Something that stands against sending work here, or soon will. The order is that of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Draining,
    ZoneQuarantined,
    ZoneUnavailable,
    DiskFull,
    CertificateUnusable,
    CertificateExpiring,
    BundleExpired,
    BundleExpiring,
    RevocationListExpired,
    RevocationListExpiring,
}

/// What was found at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) is_draining: bool,
    pub(crate) is_quarantined: bool,
    pub(crate) is_fenced: bool,
    pub(crate) room: Room,
    /// `None` if the federation does not accept the certificate, for another reason than its end.
    pub(crate) certificate_expires: Option<Timestamp>,
    pub(crate) bundle_expires: Timestamp,
    /// `None` without lists.
    pub(crate) revocation_lists_expire: Option<Timestamp>,
    pub(crate) now: Timestamp,
}

/// How often the health service is brought into step.
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// As long before the end as the alert of the same name fires (`alerts.yml`).
const CERTIFICATE_NOTICE: Duration = Duration::from_secs(7 * DAY.as_secs());
const BUNDLE_NOTICE: Duration = Duration::from_secs(2 * DAY.as_secs());
const REVOCATION_LIST_NOTICE: Duration = DAY;

impl Readiness {
    /// What counts now.
    pub(crate) fn read(&self) -> Facts {
        let (health, federation, now) = (self.store.health(), self.operations.federation(), self.clock.now());
        let chain = self.listener.certificate_chain();
        let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
        let certificate = federation.identify_ignoring_expiry(&chain, Usage::TlsGateway, now);
        Facts {
            is_draining: *self.stopping.borrow(),
            is_quarantined: health.is_quarantined,
            // A zone that takes no writes although there is room is fenced, or just closing.
            is_fenced: health.fault.is_some() || (!health.is_writable && health.room == Room::Everything),
            room: health.room,
            certificate_expires: certificate.ok().map(|identity| identity.not_after),
            bundle_expires: federation.bundle().bundle.expires,
            revocation_lists_expire: federation.revocation_lists_expire(),
            now,
        }
    }

    /// Keeps the gRPC health service in step with the page, until the gateway is told to stop or the task is dropped.
    pub(crate) async fn tell(mut self, health: HealthReporter) {
        let mut said = None;
        loop {
            let facts = self.read();
            let status = if facts.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing };
            if said != Some(status) {
                health.set_service_status("", status).await;
                said = Some(status);
            }
            if facts.is_draining {
                return;
            }
            tokio::select! {
                () = self.clock.sleep(HEALTH_INTERVAL) => {}
                stopping = self.stopping.wait_for(|stopping| *stopping) => if stopping.is_err() { return },
            }
        }
    }
}

impl Facts {
    /// Everything that stands against it or soon will, in the order of [`Reason`].
    pub(crate) fn reasons(&self) -> Vec<Reason> {
        Reason::ALL.into_iter().filter(|reason| self.holds(*reason)).collect()
    }

    /// Whether work may be sent here.
    pub(crate) fn is_ready(&self) -> bool {
        !self.reasons().into_iter().any(Reason::is_against)
    }

    /// The page `/readyz`: `ok` or `not ready`, then a line for each reason.
    pub(crate) fn page(&self) -> String {
        let mut page = String::from(if self.is_ready() { "ok\n" } else { "not ready\n" });
        for reason in self.reasons() {
            let weight = if reason.is_against() { "not-ready" } else { "warning" };
            writeln!(page, "{weight} {}: {}", reason.word(), reason.text()).expect("a string can be written");
        }
        page
    }

    fn holds(&self, reason: Reason) -> bool {
        let is_over = |end: Timestamp| self.now > end.plus(LIMITS.clock_skew_max);
        let ends_within = |end: Timestamp, notice: Duration| !is_over(end) && self.now.plus(notice) > end;
        match reason {
            Reason::Draining => self.is_draining,
            Reason::ZoneQuarantined => self.is_quarantined,
            Reason::ZoneUnavailable => self.is_fenced && !self.is_quarantined,
            // A zone that is not open does not know its room.
            Reason::DiskFull => !self.is_fenced && self.room != Room::Everything,
            Reason::CertificateUnusable => self.certificate_expires.is_none_or(is_over),
            Reason::CertificateExpiring => {
                self.certificate_expires.is_some_and(|end| ends_within(end, CERTIFICATE_NOTICE))
            }
            Reason::BundleExpired => is_over(self.bundle_expires),
            Reason::BundleExpiring => ends_within(self.bundle_expires, BUNDLE_NOTICE),
            Reason::RevocationListExpired => self.revocation_lists_expire.is_some_and(is_over),
            Reason::RevocationListExpiring => {
                self.revocation_lists_expire.is_some_and(|end| ends_within(end, REVOCATION_LIST_NOTICE))
            }
        }
    }
}

impl Reason {
    pub(crate) const ALL: [Self; 10] = [
        Self::Draining,
        Self::ZoneQuarantined,
        Self::ZoneUnavailable,
        Self::DiskFull,
        Self::CertificateUnusable,
        Self::CertificateExpiring,
        Self::BundleExpired,
        Self::BundleExpiring,
        Self::RevocationListExpired,
        Self::RevocationListExpiring,
    ];

    /// The word that scripts and alerts may rely on.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::ZoneQuarantined => "zone-quarantined",
            Self::ZoneUnavailable => "zone-unavailable",
            Self::DiskFull => "disk-full",
            Self::CertificateUnusable => "certificate-unusable",
            Self::CertificateExpiring => "certificate-expiring",
            Self::BundleExpired => "trust-bundle-expired",
            Self::BundleExpiring => "trust-bundle-expiring",
            Self::RevocationListExpired => "revocation-list-expired",
            Self::RevocationListExpiring => "revocation-list-expiring",
        }
    }

    /// Whether work must go elsewhere; the others only warn.
    pub(crate) const fn is_against(self) -> bool {
        match self {
            Self::Draining
            | Self::ZoneQuarantined
            | Self::ZoneUnavailable
            | Self::DiskFull
            | Self::CertificateUnusable => true,
            Self::CertificateExpiring
            | Self::BundleExpired
            | Self::BundleExpiring
            | Self::RevocationListExpired
            | Self::RevocationListExpiring => false,
        }
    }

    /// For the operator who reads the page.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Draining => "told to stop; open calls may finish",
            Self::ZoneQuarantined => "the zone was found damaged and stays closed until an operator has acted",
            Self::ZoneUnavailable => "a fault has fenced the zone, which tries to open itself again",
            Self::DiskFull => "the disk has no room for everything; nothing is changed until it has",
            Self::CertificateUnusable => "the gateway's certificate is over or not accepted; no client connects",
            Self::CertificateExpiring => "the gateway's certificate ends within seven days",
            Self::BundleExpired => "the trust bundle is over; clients read on and take in no newcomers",
            Self::BundleExpiring => "the trust bundle ends within two days",
            Self::RevocationListExpired => "a revocation list is overdue; clients read on and take in no newcomers",
            Self::RevocationListExpiring => "a revocation list is due within a day",
        }
    }
}

#[cfg(test)]
mod tests;
