//! Channels: start, change, leave, and what the policy may know of one.

use std::sync::Arc;

use bytes::Bytes;
use lianxin_audit::{AuditEvent, Change};
use lianxin_delivery::{CommitBundle, DeliveryError, GroupState, PreparedCommit};
use lianxin_identity::Caller;
use lianxin_policy::{ChannelFacts, CommitChange, Permit, Request};
use lianxin_profile::ChannelContext;
use lianxin_store::{Accepted, ChannelHead, ChannelWrite, Effect, Idempotency, Unit};
use lianxin_types::{ChannelId, DepartmentId, Digest, IdempotencyId, Sequence, Timestamp};

use crate::gate::{Operations, Receipt};
use crate::guard::{Standing, hash_of, unit};
use crate::refusal::Refusal;

/// Proposals of others that may come in between before a leave, a way back or a next incarnation is refused.
pub(crate) const ATTEMPTS_MAX: usize = 8;

/// Facts for the policy, owned so that they outlive the lookup.
pub(crate) struct Facts {
    pub(crate) channel: ChannelId,
    pub(crate) departments: Vec<DepartmentId>,
    pub(crate) expires: Option<Timestamp>,
    pub(crate) standing: Standing,
}

impl Facts {
    pub(crate) fn view(&self) -> ChannelFacts<'_> {
        ChannelFacts {
            id: self.channel,
            departments: &self.departments,
            expires: self.expires,
            is_member: self.standing.is_member,
            is_awaited: self.standing.is_awaited,
            is_known: self.standing.is_known,
            is_leaving: self.standing.is_leaving,
            is_paused: self.standing.is_paused,
            was_member: self.standing.was_member,
        }
    }

    pub(crate) fn new(context: &ChannelContext, standing: Standing) -> Self {
        Self {
            channel: context.channel(),
            departments: context.departments().iter().map(|named| named.id.clone()).collect(),
            expires: context.label().expires(),
            standing,
        }
    }

    /// Whether the refusal of a request may name the channel in its record: only where the caller may know of it.
    pub(crate) fn nameable(facts: Option<&Self>) -> Option<ChannelId> {
        facts.filter(|facts| facts.standing.is_member || facts.standing.is_known).map(|facts| facts.channel)
    }
}

impl Operations {
    /// Starts a channel with the caller as its only member.
    ///
    /// # Errors
    /// [`Refusal`] as listed at `Channels.Create` in the contract.
    pub async fn create(
        &self,
        caller: &Caller,
        id: IdempotencyId,
        group_info: Bytes,
        tree: Bytes,
    ) -> Result<Receipt, Refusal> {
        const ACTION: &str = "create-channel";
        let bytes_hash = hash_of([&group_info[..], &tree[..]]);
        let scope = Idempotency { device: caller.uri.clone(), channel: None, call: ACTION, id, bytes_hash };
        let (this, who, asked) = (self.clone(), caller.clone(), scope.clone());
        let done = self.guard.to_the_end(async move { this.start(&who, asked, group_info, tree).await }).await;
        self.answer(&scope, done, Receipt::again).await
    }

    async fn start(
        &self,
        caller: &Caller,
        scope: Idempotency,
        group_info: Bytes,
        tree: Bytes,
    ) -> Result<Receipt, Refusal> {
        if let Some(accepted) = self.guard.repeat(&scope)? {
            return Ok(Receipt::again(accepted));
        }
        let (guard, channels) = (Arc::clone(&self.guard), Arc::clone(&self.channels));
        let (uri, now) = (caller.uri.clone(), self.guard.now());
        let verify = move || channels.verify_start(&guard.federation(), &uri, group_info, &tree, now);
        let prepared = self.guard.validate(&caller.uri, verify).await??;
        let standing = Standing { is_member: true, is_known: true, was_member: true, ..Standing::default() };
        let facts = Facts::new(prepared.context(), standing);
        let permit = self.guard.engine.create_channel(&Request {
            caller: &caller.uri,
            now,
            channel: Some(facts.view()),
            departments_added: &[],
            members_after: 1,
            devices_added: 0,
        })?;
        let event = AuditEvent::ChannelStarted {
            departments: facts.departments.clone(),
            classification: prepared.context().label().classification(),
        };
        let (slot, version) = (Some(prepared.slot()), permit.policy_version());
        let accepted = self.accept(scope, event, slot, version, prepared.into_write(&permit), Vec::new()).await?;
        Ok(Receipt::of(&accepted, version))
    }

    /// Accepts a commit bundle: commit, Welcome and GroupInfo together or not at all.
    ///
    /// # Errors
    /// [`Refusal`] as listed at `Channels.Commit` in the contract.
    pub async fn commit(
        &self,
        caller: &Caller,
        id: IdempotencyId,
        channel: ChannelId,
        bundle: CommitBundle,
    ) -> Result<Receipt, Refusal> {
        const ACTION: &str = "commit";
        let bytes_hash = hash_of([&bundle.commit[..], &bundle.welcome[..], &bundle.group_info[..]]);
        let scope = Idempotency { device: caller.uri.clone(), channel: Some(channel), call: ACTION, id, bytes_hash };
        let (this, who, asked) = (self.clone(), caller.clone(), scope.clone());
        let done = self.guard.to_the_end(async move { this.change(&who, asked, channel, bundle).await }).await;
        self.answer(&scope, done, Receipt::again).await
    }

    async fn change(
        &self,
        caller: &Caller,
        scope: Idempotency,
        channel: ChannelId,
        bundle: CommitBundle,
    ) -> Result<Receipt, Refusal> {
        if let Some(accepted) = self.guard.repeat(&scope)? {
            return Ok(Receipt::again(accepted));
        }
        // First whether the caller may at all, so that a stranger's bytes are never worth a validation.
        let facts = self.facts(caller, channel).await?;
        let now = self.guard.now();
        drop(self.guard.engine.commit(&self.request(caller, facts.as_ref()))?);

        for _ in 0..ATTEMPTS_MAX {
            let prepared = self.validate(caller, channel, bundle.clone(), now).await?;
            let summary = prepared.summary();
            let departments: Vec<_> = summary.added.iter().map(|added| added.uri.department().clone()).collect();
            let wanted = Request {
                now,
                departments_added: &departments,
                members_after: summary.roster.len(),
                devices_added: summary.added.len(),
                ..self.request(caller, facts.as_ref())
            };
            let permit = self.guard.engine.commit(&wanted)?;
            let invited: Vec<_> = summary.added.iter().map(|added| added.uri.clone()).collect();
            let (epoch, bytes) = (prepared.before().epoch, prepared.bytes());
            let (is_rejoin, is_context_changed) = (summary.rejoined_from.is_some(), summary.context_changed);
            let event = match is_rejoin {
                true => AuditEvent::Rejoined { epoch, bytes },
                false => {
                    let removed = summary.removed.iter().map(|removed| removed.uri.clone()).collect();
                    AuditEvent::Committed { epoch, change: Change { added: invited.clone(), removed }, bytes }
                }
            };
            match self.accept_commit(scope.clone(), event, prepared, permit).await {
                // A removal or a leave came to wait in between: what of it goes on waiting is found out anew.
                Err(Refusal::PendingRemoves { .. }) if is_rejoin => {}
                Err(refusal) => return Err(refusal),
                Ok(receipt) => {
                    self.fanout.wake_inboxes(&invited);
                    if is_context_changed {
                        // It may name the removal key in use now, and those who must go can be asked for.
                        self.sweep_or_warn(channel).await;
                    }
                    return Ok(receipt);
                }
            }
        }
        Err(Refusal::ResourceExhausted)
    }

    async fn validate(
        &self,
        caller: &Caller,
        channel: ChannelId,
        bundle: CommitBundle,
        now: Timestamp,
    ) -> Result<PreparedCommit, Refusal> {
        let turn = self.channels.turn(&channel);
        let turn = turn.acquire_owned().await.map_err(|_| Refusal::ShuttingDown)?;
        let (guard, channels, uri) = (Arc::clone(&self.guard), Arc::clone(&self.channels), caller.uri.clone());
        let prepared = self.guard.validate(&caller.uri, move || {
            let verified = channels.verify_commit(&guard.federation(), &uri, &channel, bundle, now);
            drop(turn);
            verified
        });
        Ok(prepared.await??)
    }

    async fn accept_commit(
        &self,
        scope: Idempotency,
        event: AuditEvent,
        mut prepared: PreparedCommit,
        permit: Permit<CommitChange>,
    ) -> Result<Receipt, Refusal> {
        let channel = prepared.channel();
        let (slot, version) = (Some(prepared.slot()), permit.policy_version());
        let renewed = prepared.take_renewed();
        let (write, effects, state) = prepared.into_write(&permit);
        let (followers, state) = match renewed {
            Some((renewed, behind)) => (self.followers(channel, renewed)?, behind),
            None => (Vec::new(), state),
        };
        let accepted = self.accept(scope, event, slot, version, (write, effects, state), followers).await?;
        Ok(Receipt::of(&accepted, version))
    }

    /// Puts the caller's proposal to remove itself into the log.
    ///
    /// # Errors
    /// [`Refusal`] as listed at `Channels.Leave` in the contract.
    pub async fn leave(
        &self,
        caller: &Caller,
        id: IdempotencyId,
        channel: ChannelId,
        proposal: Bytes,
    ) -> Result<Receipt, Refusal> {
        const ACTION: &str = "leave";
        let bytes_hash = Digest::sha256(&proposal);
        let scope = Idempotency { device: caller.uri.clone(), channel: Some(channel), call: ACTION, id, bytes_hash };
        let (this, who, asked) = (self.clone(), caller.clone(), scope.clone());
        let done = self.guard.to_the_end(async move { this.propose_leave(&who, asked, channel, proposal).await }).await;
        self.answer(&scope, done, Receipt::again).await
    }

    async fn propose_leave(
        &self,
        caller: &Caller,
        scope: Idempotency,
        channel: ChannelId,
        proposal: Bytes,
    ) -> Result<Receipt, Refusal> {
        if let Some(accepted) = self.guard.repeat(&scope)? {
            return Ok(Receipt::again(accepted));
        }
        for _ in 0..ATTEMPTS_MAX {
            let facts = self.facts(caller, channel).await?;
            let permit = self.guard.engine.leave(&self.request(caller, facts.as_ref()))?;
            let (guard, channels, uri) = (Arc::clone(&self.guard), Arc::clone(&self.channels), caller.uri.clone());
            let proposal = proposal.clone();
            let verify = move || channels.verify_leave(&guard.federation(), &uri, &channel, proposal);
            let prepared = self.guard.validate(&caller.uri, verify).await??;
            let event = AuditEvent::LeaveProposed { epoch: prepared.epoch() };
            let version = permit.policy_version();
            let write = prepared.into_write(&permit);
            match self.accept(scope.clone(), event, None, version, write, Vec::new()).await {
                // Somebody else asked to leave in between: the same proposal fits the state behind that one.
                Err(Refusal::PendingRemoves { .. }) => {}
                accepted => return Ok(Receipt::of(&accepted?, version)),
            }
        }
        Err(Refusal::ResourceExhausted)
    }

    /// Commits a channel's event with its effects, its audit record and what must stand directly behind it, and makes the state
    /// behind all of it current.
    pub(crate) async fn accept(
        &self,
        scope: Idempotency,
        event: AuditEvent,
        slot: Option<[u8; 16]>,
        policy_version: u64,
        (write, effects, state): (ChannelWrite, Vec<Effect>, GroupState),
        followers: Vec<Unit>,
    ) -> Result<Accepted, Refusal> {
        let channel = write.channel;
        let audit = self.guard.record(&event, Some(&scope.device), Some(channel), slot, policy_version)?;
        let behind = followers.len() as u64;
        let whole = Unit { followers, ..unit(Some(write), Some(scope), effects, audit) };
        let accepted = self.guard.commit(whole).await?;
        if !accepted.is_repeat {
            self.guard.statistics.commit();
            self.advance(channel, state, Sequence(accepted.sequence.0 + behind)).await?;
        }
        Ok(accepted)
    }

    /// Makes the state behind an accepted event current.
    pub(crate) async fn advance(
        &self,
        channel: ChannelId,
        state: GroupState,
        sequence: Sequence,
    ) -> Result<(), Refusal> {
        let channels = Arc::clone(&self.channels);
        if let Err(error) = self.guard.blocking(move || channels.advance(&channel, state, sequence)).await? {
            // The journal has it; the next who needs the group reads it from there.
            tracing::warn!(error = &error as &dyn std::error::Error, "view of the group not stored");
        }
        Ok(())
    }

    /// What the policy may know of a channel; `None` if it does not exist or is no concern of the caller's department.
    pub(crate) async fn facts(&self, caller: &Caller, channel: ChannelId) -> Result<Option<Facts>, Refusal> {
        // A stranger gets the same answer for the same work, whether the channel exists or not.
        let standing = |head: Arc<ChannelHead>| self.guard.standing(&head, &caller.uri);
        let standing = self.guard.store.head(&channel)?.map(standing);
        if !standing.is_some_and(|standing| standing.is_member || standing.is_known) {
            return Ok(None);
        }
        let look = || {
            let (guard, channels, uri) = (Arc::clone(&self.guard), Arc::clone(&self.channels), caller.uri.clone());
            self.guard.blocking(move || {
                let federation = guard.federation();
                match channels.look(&federation, &channel, &uri, guard.now()) {
                    Ok(look) => Ok(Some((federation, look))),
                    Err(DeliveryError::NoChannel) => Ok(None),
                    Err(error) => Err(Refusal::from(error)),
                }
            })
        };
        let mut seen = look().await??;
        if let Some((federation, before)) = seen.as_ref().filter(|(_, look)| look.is_removal_due) {
            // The sweep goes through all channels; in this one something is about to happen now.
            self.sweep_or_warn(channel).await;
            self.channels.has_been_swept(federation, before);
            seen = look().await??;
        }
        Ok(seen.map(|(_, look)| {
            let standing = self.guard.standing(&look.head, &caller.uri);
            let is_leaving = standing.is_leaving || look.is_caller_revoked;
            Facts::new(&look.context, Standing { is_leaving, ..standing })
        }))
    }

    /// As [`Operations::facts`], with the refusal recorded.
    pub(crate) async fn audited_facts(
        &self,
        caller: &Caller,
        action: &'static str,
        channel: ChannelId,
    ) -> Result<Option<Facts>, Refusal> {
        match self.facts(caller, channel).await {
            Ok(facts) => Ok(facts),
            Err(refusal) => Err(self.guard.refuse(&caller.uri, action, None, refusal).await),
        }
    }

    pub(crate) fn request<'a>(&self, caller: &'a Caller, facts: Option<&'a Facts>) -> Request<'a> {
        Request {
            caller: &caller.uri,
            now: self.guard.now(),
            channel: facts.map(Facts::view),
            departments_added: &[],
            members_after: 0,
            devices_added: 0,
        }
    }

    /// The permit, or the denial recorded and translated.
    pub(crate) async fn permitted<P>(
        &self,
        caller: &Caller,
        action: &'static str,
        facts: Option<&Facts>,
        decision: Result<P, lianxin_policy::Denial>,
    ) -> Result<P, Refusal> {
        match decision {
            Ok(permit) => Ok(permit),
            Err(denial) => Err(self.guard.refuse(&caller.uri, action, Facts::nameable(facts), denial.into()).await),
        }
    }
}
