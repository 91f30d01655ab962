//! The only door: who calls, may they, and the audit record that goes with the answer.

use std::future::Future;
use std::sync::Arc;

use lianxin_audit::{AuditEvent, Recorder};
use lianxin_identity::{Caller, Callers};
use lianxin_policy::Engine;
use lianxin_store::{Accepted, AuditDraft, ChannelHead, ChannelWrite, Effect, Idempotency, Outcome, Unit, ZoneStore};
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, Clock, DeviceUri, Timestamp};

use crate::refusal::Refusal;
use crate::statistics::Statistics;

/// What every operation goes through.
pub(crate) struct Guard {
    pub(crate) callers: Arc<Callers>,
    pub(crate) engine: Engine,
    pub(crate) store: Arc<dyn ZoneStore>,
    pub(crate) recorder: Recorder,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) statistics: Arc<Statistics>,
}

/// What the policy may ask about a channel, gathered from the head table.
pub(crate) struct Standing {
    pub(crate) is_member: bool,
    pub(crate) is_known: bool,
    pub(crate) is_leaving: bool,
}

impl Guard {
    pub(crate) fn federation(&self) -> Arc<Federation> {
        self.callers.federation()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Who holds this certificate chain, by the federation of this moment.
    pub(crate) fn identify(&self, chain: &[Vec<u8>]) -> Result<Caller, Refusal> {
        Ok(self.callers.identify(chain)?)
    }

    /// How the caller stands to a channel. The caller's department counts: its own officers may learn that a channel that
    /// it takes part in exists.
    pub(crate) fn standing(&self, head: &ChannelHead, caller: &DeviceUri) -> Standing {
        let department = caller.department();
        Standing {
            is_member: head.members.contains_key(caller),
            is_known: head.known.iter().any(|known| known.department() == department),
            is_leaving: head.leaving.contains(caller),
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

    /// Records a refusal and hands it back. If it cannot be recorded the caller learns only that.
    pub(crate) async fn refuse(
        &self,
        caller: &DeviceUri,
        action: &'static str,
        channel: Option<ChannelId>,
        refusal: Refusal,
    ) -> Refusal {
        self.statistics.refusal();
        tracing::info!(caller = ?caller, action, reason = refusal.name(), "refused");
        let event = AuditEvent::Refused { action, reason: refusal.name() };
        let audited = match self.record(&event, Some(caller), channel, None, 0) {
            Ok(audit) => self.commit(plain(audit)).await.map(|_| ()),
            Err(fault) => Err(fault),
        };
        audited.map_or_else(|fault| fault, |()| refusal)
    }

    /// Records a read before it is served.
    pub(crate) async fn record_read(
        &self,
        event: AuditEvent,
        caller: &DeviceUri,
        channel: Option<ChannelId>,
        policy_version: u64,
    ) -> Result<Accepted, Refusal> {
        let audit = self.record(&event, Some(caller), channel, None, policy_version)?;
        self.commit(plain(audit)).await
    }

    /// Commits one unit.
    pub(crate) async fn commit(&self, unit: Unit) -> Result<Accepted, Refusal> {
        let mut outcomes = self.store.commit_many(vec![unit]).await;
        let outcome: Outcome = outcomes.pop().unwrap_or(Err(lianxin_store::Refused::Unavailable));
        outcome.map_err(Refusal::from)
    }

    /// What this id got before: looked up before any policy or epoch check (PROTOCOL 7).
    pub(crate) fn repeat(&self, scope: &Idempotency) -> Result<Option<Accepted>, Refusal> {
        match self.store.repeat(scope)? {
            None => Ok(None),
            Some(Ok(accepted)) => Ok(Some(accepted)),
            Some(Err(refused)) => Err(refused.into()),
        }
    }
}

/// A unit that is nothing but its audit record.
pub(crate) fn plain(audit: AuditDraft) -> Unit {
    Unit { channel: None, idempotency: None, effects: Vec::new(), audit }
}

/// A unit with an effect.
pub(crate) fn unit(
    channel: Option<ChannelWrite>,
    idempotency: Option<Idempotency>,
    effects: Vec<Effect>,
    audit: AuditDraft,
) -> Unit {
    Unit { channel, idempotency, effects, audit }
}

/// Runs work that validates or reads where blocking is allowed.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|fault| {
        tracing::error!(panicked = fault.is_panic(), "work on the blocking pool failed");
        Refusal::Internal
    })
}

/// Runs to its end even if the caller goes away: what is accepted must also become current and wake its recipients.
pub(crate) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(work).await.unwrap_or_else(|fault| {
        tracing::error!(panicked = fault.is_panic(), "operation failed");
        Err(Refusal::Internal)
    })
}
