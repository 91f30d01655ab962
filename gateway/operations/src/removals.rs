//! Members that must go: the gateway looks through all channels for certificates that are revoked, or have been over for too
//! long, and asks for their removal (PROTOCOL 1, 5). Off the hot path: one channel at a time, where blocking is allowed.

use std::sync::Arc;
use std::time::Duration;

use lianxin_audit::AuditEvent;
use lianxin_delivery::RenewedRemoval;
use lianxin_profile::RemovalReason;
use lianxin_store::Unit;
use lianxin_types::{ChannelId, LIMITS};

use crate::gate::Operations;
use crate::guard::unit;
use crate::refusal::Refusal;

/// How often certificates are looked at when nothing new is known: they also end.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
/// Channels that are read of the store at a time.
const SWEEP_PAGE: usize = 200;
/// Removes that are asked for in one channel in one sweep, those that something came in between of included.
const REMOVALS_MAX: usize = 2 * LIMITS.channel_members_max;

impl Operations {
    /// Looks through all channels at once, whenever bundle or revocation lists have been replaced, and every hour, until it
    /// is dropped. Run it as one owned task.
    pub async fn sweep_removals(self) {
        let mut replaced = self.guard.callers.replacements();
        loop {
            self.sweep().await;
            tokio::select! {
                biased;
                // The sender lives as long as the guard.
                _changed = replaced.changed() => {}
                () = self.guard.clock.sleep(SWEEP_EVERY) => {}
            }
        }
    }

    /// Asks once for the removal of every leaf of the zone whose certificate is revoked, or has been over for longer than the
    /// grace. What cannot be done in one channel is logged, and the next sweep tries again. Gives how many were asked for.
    pub async fn sweep(&self) -> usize {
        let (mut asked, mut looked_at, mut failed) = (0, 0, 0);
        let mut after = None;
        loop {
            let (store, behind) = (Arc::clone(&self.guard.store), after);
            let page = match self.guard.blocking(move || store.channels(behind.as_ref(), SWEEP_PAGE)).await {
                Ok(Ok(page)) => page,
                Ok(Err(error)) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "channels not looked through");
                    return asked;
                }
                Err(refusal) => {
                    tracing::warn!(%refusal, "channels not looked through");
                    return asked;
                }
            };
            for channel in &page {
                match self.sweep_or_warn(*channel).await {
                    Some(count) => asked += count,
                    None => failed += 1,
                }
            }
            looked_at += page.len();
            after = page.last().copied();
            if page.len() < SWEEP_PAGE {
                break;
            }
        }
        if asked > 0 || failed > 0 {
            tracing::info!(channels = looked_at, asked, failed, "looked for members that must go");
        }
        asked
    }

    /// Asks for the removal of everybody in this channel who must go; gives how many, `None` if that failed.
    pub(crate) async fn sweep_or_warn(&self, channel: ChannelId) -> Option<usize> {
        let asked = self.sweep_channel(channel).await;
        if let Err(refusal) = &asked {
            tracing::warn!(?channel, %refusal, "members that must go are not asked to be removed");
        }
        asked.ok()
    }

    async fn sweep_channel(&self, channel: ChannelId) -> Result<usize, Refusal> {
        let mut asked = 0;
        for _ in 0..REMOVALS_MAX {
            let (guard, channels) = (Arc::clone(&self.guard), Arc::clone(&self.channels));
            let prepared = self
                .guard
                .blocking(move || channels.prepare_removal(&guard.federation(), &channel, guard.now()))
                .await??;
            let Some(prepared) = prepared else { break };
            let event = AuditEvent::RemovalQueued {
                epoch: prepared.epoch(),
                reason: word(prepared.reason()),
                device: prepared.device().clone(),
            };
            tracing::info!(device = ?prepared.device(), ?channel, reason = word(prepared.reason()), "is to be removed");
            let (write, effects, state) = prepared.into_write();
            let audit = self.guard.record(&event, None, Some(channel), None, 0)?;
            match self.guard.commit(unit(Some(write), None, effects, audit)).await {
                Ok(accepted) => {
                    asked += 1;
                    self.advance(channel, state, accepted.sequence).await?;
                }
                // Something came in between: what must be asked for is asked for in the state behind it.
                Err(Refusal::PendingRemoves { .. } | Refusal::WrongEpoch { .. }) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(asked)
    }
}

impl Operations {
    /// Removals that stand directly behind the event that ended the epoch in which they waited, each with a record of its own.
    pub(crate) fn followers(&self, channel: ChannelId, renewed: Vec<RenewedRemoval>) -> Result<Vec<Unit>, Refusal> {
        let follower = |removal: RenewedRemoval| {
            let (epoch, reason, device) = (removal.epoch(), word(removal.reason()), removal.device().clone());
            let event = AuditEvent::RemovalQueued { epoch, reason, device };
            let audit = self.guard.record(&event, None, Some(channel), None, 0)?;
            let (write, effects) = removal.into_write();
            Ok(unit(Some(write), None, effects, audit))
        };
        renewed.into_iter().map(follower).collect()
    }
}

/// The reason as audit records have it.
const fn word(reason: RemovalReason) -> &'static str {
    match reason {
        RemovalReason::CertificateRevoked => "certificate-revoked",
        RemovalReason::CertificateExpired => "certificate-expired",
    }
}
