//! The only door: who calls, may they, and the audit record that goes with the answer.

use std::future::Future;
use std::sync::Arc;

use lianxin_audit::{AuditEvent, Recorder};
use lianxin_identity::{Caller, Callers};
use lianxin_policy::Engine;
use lianxin_store::{
    Accepted, AuditDraft, ChannelHead, ChannelWrite, CommitFuture, Effect, Idempotency, Outcome, Refused, Unit,
    ZoneStore,
};
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, Clock, DepartmentId, DeviceUri, Digest, Timestamp, Writer, elsewhere};
use tokio_util::task::TaskTracker;

use crate::counts::{RefusalCounts, Who};
use crate::device_rate::DeviceRates;
use crate::pace::Pace;
use crate::pressure::{Entered, Pressure};
use crate::refusal::Refusal;
use crate::renewals::Renewals;
use crate::statistics::Statistics;
use crate::streams::DeviceStreams;
use crate::turns::Turns;

/// What every operation goes through.
pub(crate) struct Guard {
    pub(crate) callers: Arc<Callers>,
    pub(crate) engine: Engine,
    pub(crate) store: Arc<dyn ZoneStore>,
    pub(crate) recorder: Recorder,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) statistics: Arc<Statistics>,
    pub(crate) counts: RefusalCounts,
    pub(crate) pressure: Arc<Pressure>,
    pub(crate) pace: Pace,
    pub(crate) streams: Arc<DeviceStreams>,
    pub(crate) claims: DeviceRates,
    pub(crate) renewal_rates: DeviceRates,
    /// Renewals that wait for an issuer.
    pub(crate) renewals: Renewals,
    /// Claims that are being judged, so that copies of one are counted once.
    pub(crate) copies: Turns<Idempotency>,
    /// Validations, so that no department takes all processors.
    pub(crate) validations: Turns<DepartmentId>,
    /// Work that goes on when its caller is gone; the composition waits for it at the end.
    pub(crate) tasks: TaskTracker,
}

/// What the policy may ask about a channel, gathered from the head table.
#[derive(Default)]
pub(crate) struct Standing {
    pub(crate) is_member: bool,
    pub(crate) is_awaited: bool,
    pub(crate) is_known: bool,
    pub(crate) is_leaving: bool,
    pub(crate) is_paused: bool,
    pub(crate) was_member: bool,
}

impl Guard {
    pub(crate) fn federation(&self) -> Arc<Federation> {
        self.callers.federation()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Who holds this certificate chain, by the federation of this moment. A refusal is counted by certificate.
    pub(crate) fn identify(&self, chain: &Arc<Vec<Vec<u8>>>) -> Result<Caller, Refusal> {
        self.callers.identify(chain).map_err(|error| {
            let refusal = Refusal::from(error);
            self.statistics.refusal(refusal.name());
            let certificate = chain.first().map_or(&[][..], Vec::as_slice);
            self.counts.count(Who::Source(certificate), refusal.name(), self.now());
            refusal
        })
    }

    /// How the caller stands to a channel. The caller's department counts: its own officers may learn that a channel that
    /// it takes part in exists.
    pub(crate) fn standing(&self, head: &ChannelHead, caller: &DeviceUri) -> Standing {
        let department = caller.department();
        Standing {
            is_member: head.members.contains_key(caller),
            is_awaited: head.awaited.contains_key(caller),
            is_known: head.known.iter().any(|known| known.department() == department),
            is_leaving: head.leaving.contains(caller),
            is_paused: head.paused.contains(caller),
            was_member: head.known.contains(caller),
        }
    }

    pub(crate) fn record(
        &self,
        event: &AuditEvent,
        caller: Option<&DeviceUri>,
        channel: Option<ChannelId>,
        slot: Option<[u8; 16]>,
        policy_version: u64,
    ) -> Result<AuditDraft, Refusal> {
        let draft = self.recorder.record(event, caller, channel, slot, policy_version, self.now());
        draft.map_err(|fault| {
            tracing::error!(error = &fault as &dyn std::error::Error, "audit record cannot be written");
            Refusal::Internal
        })
    }

    /// Records a refusal and hands it back. Only that there was too much at once, and what is behind a refused message, is
    /// counted per device, reason and minute (PROTOCOL 8): neither a flood nor the window of a stream must fill the log. If it cannot be recorded, because the department's share of the queue is taken or
    /// the zone does not write, it is counted, too, and the caller learns only why.
    pub(crate) async fn refuse(
        &self,
        caller: &DeviceUri,
        action: &'static str,
        channel: Option<ChannelId>,
        refusal: Refusal,
    ) -> Refusal {
        if matches!(refusal, Refusal::ResourceExhausted | Refusal::BehindRefused) {
            self.statistics.refusal(refusal.name());
            self.counts.count(Who::Caller(caller), refusal.name(), self.now());
            return refusal;
        }
        tracing::info!(caller = ?caller, action, reason = refusal.name(), "refused");
        let event = AuditEvent::Refused { action, reason: refusal.name() };
        let audited = match self.record(&event, Some(caller), channel, None, 0) {
            Ok(audit) => self.commit_for(caller, plain(audit)).await.map(|_| ()),
            Err(fault) => Err(fault),
        };
        let answered = match audited {
            Ok(()) => refusal,
            Err(fault) => {
                self.counts.count(Who::Caller(caller), refusal.name(), self.now());
                fault
            }
        };
        self.statistics.refusal(answered.name());
        answered
    }

    /// Records a read before it is served. What cannot be recorded is refused, and that is counted.
    pub(crate) async fn record_read(
        &self,
        event: AuditEvent,
        caller: &DeviceUri,
        channel: Option<ChannelId>,
        policy_version: u64,
    ) -> Result<Accepted, Refusal> {
        let recorded = match self.record(&event, Some(caller), channel, None, policy_version) {
            Ok(audit) => self.commit_for(caller, plain(audit)).await,
            Err(fault) => Err(fault),
        };
        recorded.inspect_err(|refusal| {
            self.counts.count(Who::Caller(caller), refusal.name(), self.now());
            self.statistics.refusal(refusal.name());
        })
    }

    /// Runs a validation of this caller's where blocking is allowed, in its department's turn.
    pub(crate) async fn validate<T: Send + 'static>(
        &self,
        caller: &DeviceUri,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let turn = self.validations.take(caller.department()).await;
        self.blocking(move || {
            let done = work();
            drop(turn);
            done
        })
        .await
    }

    /// Runs work that validates or reads where blocking is allowed.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        elsewhere(&*self.clock, tokio::task::spawn_blocking(work)).await.map_err(|fault| {
            tracing::error!(panicked = fault.is_panic(), "work on the blocking pool failed");
            Refusal::Internal
        })
    }

    /// Runs to its end even if the caller goes away: what is accepted must also become current and wake its recipients.
    pub(crate) async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.tasks.spawn(work).await.unwrap_or_else(|fault| {
            tracing::error!(panicked = fault.is_panic(), "operation failed");
            Err(Refusal::Internal)
        })
    }

    /// Commits one unit, on the account of its caller's department if it names a caller, else on the gateway's own.
    pub(crate) async fn commit(&self, unit: Unit) -> Result<Accepted, Refusal> {
        let caller = unit.idempotency.as_ref().map(|call| call.device.clone());
        match caller {
            Some(caller) => self.commit_for(&caller, unit).await,
            None => only(self.store.commit_many(vec![unit]).await),
        }
    }

    /// Commits one unit on the account of this caller's department.
    pub(crate) async fn commit_for(&self, caller: &DeviceUri, unit: Unit) -> Result<Accepted, Refusal> {
        only(self.commit_many(caller, vec![unit]).await)
    }

    /// Commits units on the account of this caller's department, in order, as many as its share of the queue takes; the
    /// rest is refused.
    pub(crate) async fn commit_many(&self, caller: &DeviceUri, mut units: Vec<Unit>) -> Vec<Outcome> {
        let all = units.len();
        let (count, entered) = self.pressure.enter(caller.department(), &units);
        units.truncate(count);
        let mut outcomes = if units.is_empty() {
            Vec::new()
        } else {
            let work = Some((self.store.commit_many(units), entered));
            Committing { work, tasks: self.tasks.clone() }.done().await
        };
        // Repeats write nothing, so they are counted per device and minute (PROTOCOL 8).
        for _ in outcomes.iter().filter(|outcome| matches!(outcome, Ok(Accepted { is_repeat: true, .. }))) {
            self.counts.count(Who::Caller(caller), "repeat", self.now());
        }
        self.statistics.shed(all - count);
        let over = Refused::LimitReached { what: "queued units", limit: count as u64 };
        outcomes.resize(all, Err(over));
        outcomes
    }

    /// What this id got before: looked up before any policy or epoch check (PROTOCOL 7).
    pub(crate) fn repeat(&self, scope: &Idempotency) -> Result<Option<Accepted>, Refusal> {
        match self.store.repeat(scope)? {
            None => Ok(None),
            Some(Ok(accepted)) => {
                self.counts.count(Who::Caller(&scope.device), "repeat", self.now());
                Ok(Some(accepted))
            }
            Some(Err(refused)) => Err(refused.into()),
        }
    }
}

/// The outcome of the one unit that was committed.
fn only(mut outcomes: Vec<Outcome>) -> Result<Accepted, Refusal> {
    outcomes.pop().unwrap_or(Err(Refused::Unavailable)).map_err(Refusal::from)
}

/// Units that are with the committer, on a department's account. The account is charged until the committer is done, also
/// where nobody waits for the outcome any more: who gives up its calls must not get more than its share by it.
struct Committing {
    work: Option<(CommitFuture, Entered)>,
    tasks: TaskTracker,
}

impl Committing {
    async fn done(mut self) -> Vec<Outcome> {
        let outcomes = match &mut self.work {
            Some((commit, _entered)) => commit.as_mut().await,
            None => Vec::new(),
        };
        self.work = None;
        outcomes
    }
}

impl Drop for Committing {
    fn drop(&mut self) {
        // Without a runtime the gateway is at its end, and nobody is left to be fair to.
        if let (Some((commit, entered)), Ok(runtime)) = (self.work.take(), tokio::runtime::Handle::try_current()) {
            let finish = async move {
                commit.await;
                drop(entered);
            };
            self.tasks.spawn_on(finish, &runtime);
        }
    }
}

/// A unit that is nothing but its audit record.
pub(crate) fn plain(audit: AuditDraft) -> Unit {
    Unit { channel: None, idempotency: None, effects: Vec::new(), audit, followers: Vec::new() }
}

/// A unit with an effect.
pub(crate) fn unit(
    channel: Option<ChannelWrite>,
    idempotency: Option<Idempotency>,
    effects: Vec<Effect>,
    audit: AuditDraft,
) -> Unit {
    Unit { channel, idempotency, effects, audit, followers: Vec::new() }
}

/// SHA-256 over byte strings with their lengths in front, so that moving a boundary changes it.
pub(crate) fn hash_of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut framed = Writer::new();
    for part in parts {
        framed.bytes(part);
    }
    Digest::sha256(&framed.finish())
}
