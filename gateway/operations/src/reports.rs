//! Commits that a member cannot process: reported to all, their committer paused until its owner allows it (PROTOCOL 5).

use std::sync::Arc;

use bytes::Bytes;
use lianxin_audit::AuditEvent;
use lianxin_identity::Caller;
use lianxin_profile::ReportReason;
use lianxin_store::{Effect, Idempotency};
use lianxin_types::{ChannelId, DeviceUri, Digest, IdempotencyId};

use crate::gate::{Operations, Receipt};
use crate::guard::unit;
use crate::refusal::Refusal;

impl Operations {
    /// Puts a member's report of a commit into the log and pauses the committer.
    ///
    /// # Errors
    /// [`Refusal`] as listed at `Channels.Report` in the contract.
    pub async fn report(
        &self,
        caller: &Caller,
        id: IdempotencyId,
        channel: ChannelId,
        report: Bytes,
    ) -> Result<Receipt, Refusal> {
        const ACTION: &str = "report";
        let bytes_hash = Digest::sha256(&report);
        let scope = Idempotency { device: caller.uri.clone(), channel: Some(channel), call: ACTION, id, bytes_hash };
        let done = self.take_report(caller, scope.clone(), channel, report).await;
        self.answer(&scope, done, Receipt::again).await
    }

    async fn take_report(
        &self,
        caller: &Caller,
        scope: Idempotency,
        channel: ChannelId,
        report: Bytes,
    ) -> Result<Receipt, Refusal> {
        if let Some(accepted) = self.guard.repeat(&scope)? {
            return Ok(Receipt::again(accepted));
        }
        let facts = self.facts(caller, channel).await?;
        let permit = self.guard.engine.report(&self.request(caller, facts.as_ref()))?;
        let (guard, channels, uri) = (Arc::clone(&self.guard), Arc::clone(&self.channels), caller.uri.clone());
        let verify = move || channels.verify_report(&guard.federation(), &uri, &channel, report);
        let prepared = self.guard.validate(&caller.uri, verify).await??;
        let event = AuditEvent::CommitReported {
            epoch: prepared.report().epoch,
            sequence: prepared.report().sequence.0,
            reason: word(prepared.report().reason),
            committer: prepared.committer().clone(),
        };
        let version = permit.policy_version();
        let (write, effects) = prepared.into_write(&permit);
        let audit = self.guard.record(&event, Some(&caller.uri), Some(channel), None, version)?;
        let accepted = self.guard.commit(unit(Some(write), Some(scope), effects, audit)).await?;
        Ok(Receipt::of(&accepted, version))
    }

    /// Lets a committer that was reported commit again, by another device of its department.
    ///
    /// # Errors
    /// [`Refusal`] as listed at `Channels.AllowCommitter` in the contract.
    pub async fn allow_committer(
        &self,
        caller: &Caller,
        id: IdempotencyId,
        channel: ChannelId,
        committer: DeviceUri,
    ) -> Result<Receipt, Refusal> {
        const ACTION: &str = "allow-committer";
        let bytes_hash = Digest::sha256(committer.as_str().as_bytes());
        let scope = Idempotency { device: caller.uri.clone(), channel: Some(channel), call: ACTION, id, bytes_hash };
        let done = self.let_commit(caller, scope.clone(), channel, committer).await;
        self.answer(&scope, done, Receipt::again).await
    }

    async fn let_commit(
        &self,
        caller: &Caller,
        scope: Idempotency,
        channel: ChannelId,
        committer: DeviceUri,
    ) -> Result<Receipt, Refusal> {
        if let Some(accepted) = self.guard.repeat(&scope)? {
            return Ok(Receipt::again(accepted));
        }
        let facts = self.facts(caller, channel).await?;
        // Whether there is such a device, the policy cannot know: a name that was never here must not enter the channel's state.
        let head = self.guard.store.head(&channel)?;
        let was_here = head.is_some_and(|head| self.guard.standing(&head, &committer).was_member);
        let permit = self.guard.engine.allow_committer(&self.request(caller, facts.as_ref()), &committer)?;
        if !was_here {
            return Err(Refusal::NotOwner);
        }
        let version = permit.policy_version();
        let event = AuditEvent::CommitterAllowed { committer: committer.clone() };
        let effects = vec![Effect::AllowCommitter { channel, device: committer }];
        let audit = self.guard.record(&event, Some(permit.caller()), Some(channel), None, version)?;
        let accepted = self.guard.commit(unit(None, Some(scope), effects, audit)).await?;
        Ok(Receipt::of(&accepted, version))
    }
}

/// The reason as audit records have it.
const fn word(reason: ReportReason) -> &'static str {
    match reason {
        ReportReason::CannotProcess => "cannot-process",
        ReportReason::BreaksProfile => "breaks-profile",
        ReportReason::WrongHead => "wrong-head",
        ReportReason::WrongSender => "wrong-sender",
        ReportReason::Malformed => "malformed",
    }
}
