//! The whole room as one value, put together once by the gateway's composition.

use std::sync::Arc;
use std::time::Duration;

use lianxin_audit::{AuditEvent, Pseudonyms, Recorder};
use lianxin_delivery::{Channels, DeliveryFigures, Fanout, RemovalKey};
use lianxin_identity::{Caller, Callers};
use lianxin_policy::Engine;
use lianxin_store::{Accepted, Idempotency, ZoneStore};
use lianxin_types::{Clock, DeviceUri, Digest, LIMITS, Random, Sequence, Timestamp, ZoneId};
use tokio_util::task::TaskTracker;

use crate::counts::{Flush, RefusalCounts, Who};
use crate::device_rate::DeviceRates;
use crate::guard::{Guard, plain};
use crate::pace::Pace;
use crate::pressure::{Level, Pressure};
use crate::refusal::Refusal;
use crate::renewals::Renewals;
use crate::statistics::{Statistics, StatisticsView};
use crate::turns::Turns;

/// What the composition hands in.
pub struct Parts {
    /// The zone's store.
    pub store: Arc<dyn ZoneStore>,
    /// The federation in use.
    pub callers: Arc<Callers>,
    /// Makes pseudonyms for audit records.
    pub pseudonyms: Pseudonyms,
    /// The zone's key for Removes.
    pub removal_key: RemovalKey,
    /// Units that the store's committer lets wait.
    pub queue_units_max: usize,
    /// Bytes of units that it lets wait.
    pub queue_bytes_max: usize,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Salts and slots.
    pub random: Arc<dyn Random>,
    /// The fan-out whose task the composition runs.
    pub fanout: Arc<Fanout>,
}

/// Everything that can be asked of the gateway. Cheap to clone.
#[derive(Clone)]
pub struct Operations {
    pub(crate) guard: Arc<Guard>,
    pub(crate) channels: Arc<Channels>,
    pub(crate) fanout: Arc<Fanout>,
}

/// Says that something is durable, in order and audited (PROTOCOL 8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Position in the channel's log; 0 for what is in none.
    pub sequence: Sequence,
    /// When it was accepted.
    pub gateway_time: Timestamp,
    /// When the zone stops keeping it.
    pub expiry: Option<Timestamp>,
    /// Version of the policy that allowed it.
    pub policy_version: u64,
    /// Index of its audit leaf.
    pub leaf_index: u64,
    /// RFC 6962 hash of its audit leaf.
    pub leaf_hash: Digest,
    /// Chain hash of the channel's log at that position; `None` for what is in none.
    pub chain_hash: Option<Digest>,
}

/// How often finished minutes of counts are written.
const COUNTS_EVERY: Duration = Duration::from_secs(15);

impl Receipt {
    pub(crate) fn of(accepted: &Accepted, policy_version: u64) -> Self {
        Self {
            sequence: accepted.sequence,
            gateway_time: accepted.gateway_time,
            expiry: accepted.expiry,
            policy_version,
            leaf_index: accepted.leaf_index,
            leaf_hash: accepted.leaf_hash,
            chain_hash: (accepted.sequence > Sequence(0)).then_some(accepted.chain_hash),
        }
    }

    /// What a repeat gets. The policy that allowed it is not remembered.
    pub(crate) fn again(accepted: Accepted) -> Self {
        Self::of(&accepted, 0)
    }
}

impl Operations {
    /// Operations on one zone.
    pub fn new(parts: Parts) -> Self {
        let statistics = Arc::new(Statistics::default());
        let recorder = Recorder::new(parts.store.zone().clone(), parts.pseudonyms, Arc::clone(&parts.random));
        let channels = Arc::new(Channels::new(Arc::clone(&parts.store), parts.removal_key));
        let guard = Guard {
            callers: parts.callers,
            engine: Engine::new(LIMITS),
            store: parts.store,
            recorder,
            clock: parts.clock,
            statistics,
            counts: RefusalCounts::new(parts.random.as_ref()),
            pressure: Pressure::new(parts.queue_units_max, parts.queue_bytes_max),
            pace: Pace::default(),
            streams: Arc::default(),
            claims: DeviceRates::new(LIMITS.device_claims_per_minute_max),
            renewal_rates: DeviceRates::new(LIMITS.device_renewals_per_minute_max),
            renewals: Renewals::default(),
            copies: Turns::new(1),
            validations: Turns::new(std::thread::available_parallelism().map_or(1, |all| all.get() / 2)),
            tasks: TaskTracker::new(),
        };
        Self { guard: Arc::new(guard), channels, fanout: parts.fanout }
    }

    /// The zone.
    pub fn zone(&self) -> &ZoneId {
        self.guard.store.zone()
    }

    /// Counters for the operator.
    pub fn statistics(&self) -> StatisticsView {
        StatisticsView { moved_to_catch_up: self.fanout.moved_to_catch_up(), ..self.guard.statistics.view() }
    }

    /// What is put off now, because the committer has much to do.
    pub fn pressure(&self) -> Level {
        self.guard.pressure.level()
    }

    /// A face ended a stream whose client took nothing for too long.
    pub fn stream_cut_off(&self) {
        self.guard.statistics.stream_cut_off();
    }

    /// What the fan-out gave out, for the operator.
    pub fn delivery_figures(&self) -> DeliveryFigures {
        self.fanout.figures()
    }

    /// Who holds a client certificate chain, leaf first, DER: verified anew for every call.
    ///
    /// # Errors
    /// [`Refusal::CertificateExpired`], [`Refusal::CertificateRevoked`], [`Refusal::WrongKind`].
    pub fn identify(&self, chain: &Arc<Vec<Vec<u8>>>) -> Result<Caller, Refusal> {
        self.guard.identify(chain)
    }

    /// Records that a face refused a known caller before an operation was reached (a request that does not parse, a stream
    /// too many), and hands the refusal back.
    pub async fn refused(&self, caller: &Caller, action: &'static str, refusal: Refusal) -> Refusal {
        self.guard.refuse(&caller.uri, action, None, refusal).await
    }

    /// Counts a connection that was refused before a caller was known; `source` is the network address. Never waits; the
    /// first of each source, reason and minute is recorded at once, the rest as a count when the minute is over
    /// (PROTOCOL 8), by [`Operations::record_counts`].
    pub fn connection_refused(&self, source: std::net::IpAddr, reason: &'static str) {
        self.guard.statistics.handshake_refusal(reason);
        self.guard.counts.count(Who::Source(source.to_string().as_bytes()), reason, self.guard.now());
    }

    /// Records what is counted, firsts at once and finished minutes now and then, until it is dropped. Run it as one owned
    /// task.
    pub async fn record_counts(self) {
        let mut flush_at = self.guard.clock.monotonic().plus(COUNTS_EVERY);
        loop {
            tokio::select! {
                biased;
                () = self.guard.counts.woken() => {}
                () = self.guard.clock.sleep_until(flush_at) => flush_at = flush_at.plus(COUNTS_EVERY),
            }
            self.flush_counts(Flush::FinishedMinutes).await;
        }
    }

    async fn flush_counts(&self, flush: Flush) {
        for counted in self.guard.counts.take(self.guard.now(), flush) {
            if !self.record_of(counted.event(), counted.caller()).await {
                // The zone does not write now; the next round tries again.
                self.guard.counts.put_back(counted);
            }
        }
    }

    /// Waits for work that goes on without its caller. Nothing new may be asked for any more.
    pub async fn settled(&self) {
        self.guard.tasks.close();
        self.guard.tasks.wait().await;
    }

    /// The gateway's clock.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.guard.clock)
    }

    /// Waits, by the gateway's clock.
    pub async fn pause(&self, duration: Duration) {
        self.guard.clock.sleep(duration).await;
    }

    /// Runs a face's stream as a task that [`Operations::settled`] waits for.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.guard.tasks.spawn(work);
    }

    /// Records that the gateway opened its zone.
    ///
    /// # Errors
    /// [`Refusal::ZoneUnavailable`] if it cannot be recorded; the gateway must not serve then.
    pub async fn started(&self, version: &'static str, configuration_digest: Digest) -> Result<(), Refusal> {
        let bundle = self.guard.federation();
        let event = AuditEvent::GatewayStarted {
            version,
            fencing_number: self.guard.store.health().fencing_number,
            bundle_version: bundle.bundle().bundle.version,
            bundle_digest: bundle.bundle().digest,
            configuration_digest,
        };
        let audit = self.guard.record(&event, None, None, None, 0)?;
        self.guard.commit(plain(audit)).await.map(|_| ())
    }

    /// Records that the gateway closes in order.
    pub async fn stopped(&self) {
        self.flush_counts(Flush::Everything).await;
        self.record_own(AuditEvent::GatewayStopped).await;
    }

    pub(crate) async fn record_own(&self, event: AuditEvent) {
        self.record_of(event, None).await;
    }

    /// Whether it was accepted.
    async fn record_of(&self, event: AuditEvent, caller: Option<&DeviceUri>) -> bool {
        let Ok(audit) = self.guard.record(&event, caller, None, None, 0) else { return false };
        let accepted = self.guard.commit(plain(audit)).await.is_ok();
        if !accepted {
            tracing::error!(event = event.name(), "audit record of the gateway itself was not accepted");
        }
        accepted
    }

    /// The answer to a call, with a refusal recorded; its record names the channel only if the caller may. `again` makes the
    /// answer out of what was accepted before.
    ///
    /// A refusal is final only after the repeat has been looked up once more: the call may have come again over another
    /// connection while its first copy was still being judged, and what refuses it is then its own acceptance (PROTOCOL 7).
    pub(crate) async fn answer<T>(
        &self,
        scope: &Idempotency,
        done: Result<T, Refusal>,
        again: impl FnOnce(Accepted) -> T,
    ) -> Result<T, Refusal> {
        let refusal = match done {
            Ok(answer) => return Ok(answer),
            Err(refusal) => match self.guard.repeat(scope) {
                Ok(Some(accepted)) => return Ok(again(accepted)),
                Ok(None) => refusal,
                Err(other) => other,
            },
        };
        let named = scope.channel.filter(|_| refusal != Refusal::ChannelNotAvailable);
        Err(self.guard.refuse(&scope.device, scope.call, named, refusal).await)
    }
}
