//! Channels: their groups in memory, and what starting, changing and leaving one takes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use lianxin_policy::{CommitChange, CreateChannel, Leave, Permit};
use lianxin_profile::{
    ChannelContext, CommitSummary, GroupInfoSigner, check_group_info, check_welcome, label_reference, slot,
};
use lianxin_store::{ChannelHead, ChannelWrite, Effect, Expect, GroupSnapshot, NewEvent, Seat, ZoneStore};
use lianxin_tlog::{EventKind, Head};
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, DeviceUri, Digest, Epoch, LIMITS, Sequence, Timestamp, ZoneId};
use openmls_rust_crypto::RustCrypto;
use tokio::sync::Semaphore;

use crate::error::DeliveryError;
use crate::group::{GroupState, VerifiedCommit};
use crate::group_info::check_rejoin_head;
use crate::key_packages::check_given_out;
use crate::look::Swept;
use crate::messages::check_head;
use crate::removal::{PreparedRemoval, RemovalKey, RenewedRemoval, renew};
use crate::report::{PreparedReport, prepare_report};

/// What a committer hands in.
#[derive(Debug, Clone)]
pub struct CommitBundle {
    /// MLSMessage(PublicMessage(Commit)).
    pub commit: Bytes,
    /// MLSMessage(Welcome); empty if nobody is added.
    pub welcome: Bytes,
    /// MLSMessage(GroupInfo) of the epoch that the commit makes.
    pub group_info: Bytes,
}

/// A start that verified; it needs a permit to become a write.
pub struct PreparedStart {
    state: GroupState,
    group_info: Bytes,
    slot: [u8; 16],
}

/// A commit that verified; it needs a permit to become a write.
pub struct PreparedCommit {
    verified: VerifiedCommit,
    bundle: CommitBundle,
    tree: Bytes,
    before: Arc<ChannelHead>,
    slot: [u8; 16],
    /// Removes that must stand directly behind it, and the state behind those.
    renewed: Option<(Vec<RenewedRemoval>, GroupState)>,
}

/// A leave that verified; it needs a permit to become a write.
pub struct PreparedLeave {
    next: GroupState,
    head: Head,
    proposal: Bytes,
    before: Arc<ChannelHead>,
}

/// The groups of a zone's channels.
pub struct Channels {
    store: Arc<dyn ZoneStore>,
    removal_key: RwLock<Arc<RemovalKey>>,
    groups: Mutex<Cache>,
    pub(crate) swept: Swept,
}

#[derive(Default)]
struct Cache {
    states: HashMap<ChannelId, (u64, Arc<GroupState>)>,
    turns: HashMap<ChannelId, Arc<Semaphore>>,
    tick: u64,
}

/// Groups kept in memory; a group of 1,000 members takes about half a megabyte (facts: 545 KB).
const GROUPS_IN_MEMORY_MAX: usize = 512;
/// Commits of one channel that are validated at a time (PROTOCOL 10).
const VALIDATIONS_PER_CHANNEL_MAX: usize = 2;
/// A view of the group goes into the journal with every commit up to this size, larger ones with every 32nd and with additions,
/// which openmls cannot replay once the added leaf's lifetime is over. Of those between, a copy lies beside the journal.
const SNAPSHOT_BYTES_ALWAYS: usize = 128 * 1024;
const SNAPSHOT_EVERY_COMMITS: u64 = 32;

impl Channels {
    /// Channels of this store's zone; `removal_key` is the zone's.
    pub fn new(store: Arc<dyn ZoneStore>, removal_key: RemovalKey) -> Self {
        let removal_key = RwLock::new(Arc::new(removal_key));
        Self { store, removal_key, groups: Mutex::default(), swept: Swept::default() }
    }

    /// Asks for removals with another key from now on: the zone's, after a rotation. A channel that still names the one of
    /// before takes none until a member's commit has moved it.
    pub fn replace_removal_key(&self, removal_key: RemovalKey) {
        *self.removal_key.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(removal_key);
    }

    fn removal_key(&self) -> Arc<RemovalKey> {
        Arc::clone(&self.removal_key.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn store(&self) -> &dyn ZoneStore {
        &*self.store
    }

    /// A turn to validate a commit of this channel; hold it while validating.
    pub fn turn(&self, channel: &ChannelId) -> Arc<Semaphore> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        let turn =
            groups.turns.entry(*channel).or_insert_with(|| Arc::new(Semaphore::new(VALIDATIONS_PER_CHANNEL_MAX)));
        Arc::clone(turn)
    }

    /// The channel's group as of the store's head: from memory, else from the stored view and the events behind it.
    /// Blocking: it may read and validate.
    ///
    /// # Errors
    /// [`DeliveryError::NoChannel`], [`DeliveryError::Store`], [`DeliveryError::Group`] if view and journal do not fit.
    pub fn current(
        &self,
        federation: &Federation,
        channel: &ChannelId,
    ) -> Result<(Arc<ChannelHead>, Arc<GroupState>), DeliveryError> {
        let (head, state) = self.glance(federation, channel)?;
        self.keep(channel, Arc::clone(&state));
        Ok((head, state))
    }

    /// As [`Channels::current`], without keeping in memory what was not there: for who looks at all channels in turn.
    fn glance(
        &self,
        federation: &Federation,
        channel: &ChannelId,
    ) -> Result<(Arc<ChannelHead>, Arc<GroupState>), DeliveryError> {
        loop {
            let head = self.store.head(channel)?.ok_or(DeliveryError::NoChannel)?;
            let needed = head.epoch_sequence.max(head.proposal_sequence);
            let cached = self.cached(channel);
            if let Some(state) = cached.as_ref().filter(|state| state.sequence() == needed) {
                return Ok((head, Arc::clone(state)));
            }
            let state = self.load(federation, channel, needed)?;
            if state.sequence() == needed {
                return Ok((head, Arc::new(state)));
            }
            if state.sequence() < needed {
                return Err(DeliveryError::Group { fault: "journal ends before the head" });
            }
        }
    }

    fn load(
        &self,
        federation: &Federation,
        channel: &ChannelId,
        needed: Sequence,
    ) -> Result<GroupState, DeliveryError> {
        let snapshot = self.store.group_snapshot(channel)?.ok_or(DeliveryError::Group { fault: "no stored view" })?;
        let mut state = GroupState::from_snapshot(&snapshot.state, snapshot.sequence)?;
        let mut after = state.sequence();
        while after < needed {
            let page = self.store.read(channel, after, LIMITS.history_events_max, LIMITS.frame_bytes_max)?;
            let Some(last) = page.events.last().map(|event| event.head.sequence) else { break };
            for event in page.events.iter().filter(|event| event.head.sequence <= needed) {
                if let Some(next) = state.replay(federation, event)? {
                    state = next;
                }
            }
            after = last;
        }
        Ok(state)
    }

    fn cached(&self, channel: &ChannelId) -> Option<Arc<GroupState>> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.tick += 1;
        let tick = groups.tick;
        groups.states.get_mut(channel).map(|(used, state)| {
            *used = tick;
            Arc::clone(state)
        })
    }

    /// The state that an accepted event made becomes current; `sequence` is the event's place. Blocking.
    ///
    /// # Errors
    /// [`DeliveryError::Store`] if the zone is unavailable; the state is current in memory all the same.
    pub fn advance(&self, channel: &ChannelId, state: GroupState, sequence: Sequence) -> Result<(), DeliveryError> {
        let state = Arc::new(state.at(sequence));
        self.keep(channel, Arc::clone(&state));
        let snapshot = state.to_snapshot();
        if snapshot.len() > SNAPSHOT_BYTES_ALWAYS {
            let snapshot = GroupSnapshot { epoch: state.epoch(), sequence, state: snapshot };
            self.store.put_group_snapshot(channel, snapshot)?;
        }
        Ok(())
    }

    fn keep(&self, channel: &ChannelId, state: Arc<GroupState>) {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.tick += 1;
        let tick = groups.tick;
        let is_older = groups.states.get(channel).is_some_and(|(_, kept)| kept.sequence() > state.sequence());
        if !is_older {
            groups.states.insert(*channel, (tick, state));
        }
        if groups.states.len() > GROUPS_IN_MEMORY_MAX {
            let oldest = groups.states.iter().min_by_key(|(_, (used, _))| *used).map(|(channel, _)| *channel);
            oldest.map(|channel| groups.states.remove(&channel));
        }
    }

    /// Verifies the start of a channel. Blocking.
    ///
    /// # Errors
    /// [`DeliveryError`]: broken MLS or profile, another's leaf, another zone, a department that is not in the bundle.
    pub fn verify_start(
        &self,
        federation: &Federation,
        caller: &DeviceUri,
        group_info: Bytes,
        tree: &[u8],
        now: Timestamp,
    ) -> Result<PreparedStart, DeliveryError> {
        let (state, start) = GroupState::start(federation, &group_info, tree, now)?;
        if start.roster.of(caller).is_none() {
            return Err(DeliveryError::SenderMismatch);
        }
        if start.group.incarnation.0 != 0 {
            return Err(DeliveryError::OtherChannel);
        }
        check_zone(start.context.zone(), self.store.zone())?;
        for named in start.context.departments() {
            if federation.bundle().bundle.department(&named.id).is_none() {
                return Err(DeliveryError::DepartmentUnknown { department: named.id.clone() });
            }
        }
        let slot = slot(start.context.slot_key(), &start.group.to_bytes(), Epoch(0));
        Ok(PreparedStart { state, group_info, slot })
    }

    /// Verifies a commit bundle against the current group. Blocking.
    ///
    /// # Errors
    /// [`DeliveryError`]: see [`GroupState::verify_commit`]; a GroupInfo or Welcome that does not fit; a head that the
    /// journal does not have; a one-time key package that was not claimed for this channel, or a last resort that is not its
    /// owner's newest.
    pub fn verify_commit(
        &self,
        federation: &Federation,
        caller: &DeviceUri,
        channel: &ChannelId,
        bundle: CommitBundle,
        now: Timestamp,
    ) -> Result<PreparedCommit, DeliveryError> {
        let (before, state) = self.current(federation, channel)?;
        let verified = state.verify_commit(federation, caller, &bundle.commit, now)?;
        let (summary, next) = (&verified.summary, &verified.next);
        match summary.rejoined_from {
            None => check_head(&*self.store, channel, &verified.head)?,
            Some(_) => check_rejoin_head(&*self.store, channel, &before, &verified.head)?,
        }
        let signer = GroupInfoSigner { leaf: summary.committer.leaf, signature_key: &summary.committer.signature_key };
        let crypto = RustCrypto::default();
        let info = check_group_info(&crypto, &bundle.group_info, next.group().group_context(), signer)?;
        if info.head != verified.head {
            return Err(DeliveryError::BadHead);
        }
        check_welcome(&bundle.welcome, &summary.added)?;
        check_given_out(&*self.store, channel, &summary.added)?;
        let tree = next.tree()?;
        let slot = slot(state.context().slot_key(), state.group().group_id().as_slice(), verified.summary.epoch);
        // Who comes back cannot commit what waits, so it goes on waiting in the next epoch.
        let renewed = match summary.rejoined_from {
            Some(_) => Some(renew(next.copy()?, &self.removal_key(), federation, now)?),
            None => None,
        };
        Ok(PreparedCommit { verified, bundle, tree, before, slot, renewed })
    }

    /// Verifies a member's proposal to leave. Blocking.
    ///
    /// # Errors
    /// [`DeliveryError`]: see [`GroupState::verify_leave`]; a head that the journal does not have.
    pub fn verify_leave(
        &self,
        federation: &Federation,
        caller: &DeviceUri,
        channel: &ChannelId,
        proposal: Bytes,
    ) -> Result<PreparedLeave, DeliveryError> {
        let (before, state) = self.current(federation, channel)?;
        let verified = state.verify_leave(caller, &proposal)?;
        verified.next.check_somebody_stays()?;
        check_head(&*self.store, channel, &verified.head)?;
        Ok(PreparedLeave { next: verified.next, head: verified.head, proposal, before })
    }

    /// The gateway's Remove of one member that must go at `now` and that it has not asked for in this epoch; `None` if there
    /// is none. Blocking.
    ///
    /// # Errors
    /// As [`Channels::current`]; [`DeliveryError::Profile`] if the channel names another removal key.
    pub fn prepare_removal(
        &self,
        federation: &Federation,
        channel: &ChannelId,
        now: Timestamp,
    ) -> Result<Option<PreparedRemoval>, DeliveryError> {
        let (before, state) = self.glance(federation, channel)?;
        let Some(due) = state.due(federation, now)?.into_iter().next() else { return Ok(None) };
        let removal_key = self.removal_key();
        let (proposal, next) = state.ask_removal(&removal_key, &due)?;
        let gateway = removal_key.gateway().clone();
        Ok(Some(PreparedRemoval { due, proposal, next, gateway, before }))
    }

    /// Verifies a member's report of a commit. Blocking.
    ///
    /// # Errors
    /// [`DeliveryError`]: not a report, of another channel, another's signature, no such commit.
    pub fn verify_report(
        &self,
        federation: &Federation,
        caller: &DeviceUri,
        channel: &ChannelId,
        report: Bytes,
    ) -> Result<PreparedReport, DeliveryError> {
        let (head, state) = self.current(federation, channel)?;
        prepare_report(&*self.store, &head, state, caller, report)
    }
}

impl PreparedStart {
    /// What the channel says of itself.
    pub fn context(&self) -> &ChannelContext {
        self.state.context()
    }

    /// Slot of the audit leaf.
    pub fn slot(&self) -> [u8; 16] {
        self.slot
    }

    /// The write, its effects, and the state to advance to once it is accepted.
    pub fn into_write(self, permit: &Permit<CreateChannel>) -> (ChannelWrite, Vec<Effect>, GroupState) {
        let channel = self.state.context().channel();
        let caller = permit.caller().clone();
        let mls_hash = Digest::sha256(&self.group_info);
        let event = NewEvent {
            kind: EventKind::Start,
            sender: caller.clone(),
            expiry: self.state.context().label().expires(),
            label_reference: label_reference(self.state.context().label()),
            mls: self.group_info.clone(),
            mls_hash,
            head: None,
        };
        let effects = vec![
            Effect::Group {
                epoch: Epoch(0),
                seated: vec![Seat { device: caller, leaf: 0 }],
                unseated: Vec::new(),
                group_info: self.group_info,
            },
            Effect::GroupSnapshot { state: self.state.to_snapshot() },
        ];
        (ChannelWrite { channel, expect: Expect::Absent, event }, effects, self.state)
    }
}

impl PreparedCommit {
    /// What it changes.
    pub fn summary(&self) -> &CommitSummary {
        &self.verified.summary
    }

    /// The channel.
    pub fn channel(&self) -> ChannelId {
        self.verified.summary.context.channel()
    }

    /// The channel before it.
    pub fn before(&self) -> &Arc<ChannelHead> {
        &self.before
    }

    /// Bytes of the bundle.
    pub fn bytes(&self) -> usize {
        self.bundle.commit.len() + self.bundle.welcome.len() + self.bundle.group_info.len()
    }

    /// Slot of the audit leaf.
    pub fn slot(&self) -> [u8; 16] {
        self.slot
    }

    /// Removes that must stand directly behind it, and the state behind them; to be taken before [`PreparedCommit::into_write`].
    pub fn take_renewed(&mut self) -> Option<(Vec<RenewedRemoval>, GroupState)> {
        self.renewed.take().filter(|(renewed, _)| !renewed.is_empty())
    }

    /// The write, its effects, and the state to advance to once it is accepted.
    pub fn into_write(self, permit: &Permit<CommitChange>) -> (ChannelWrite, Vec<Effect>, GroupState) {
        let summary = self.verified.summary;
        let channel = summary.context.channel();
        let caller = permit.caller().clone();
        // Who comes back names the head of a GroupInfo, which says nothing about how far it has read: the committer neither
        // compares nor keeps it. What waits must be what was seen, for removals go on waiting behind it.
        let head = summary.rejoined_from.is_none().then_some(self.verified.head);
        let event = NewEvent {
            kind: EventKind::Commit,
            sender: caller.clone(),
            expiry: summary.context.label().expires(),
            label_reference: label_reference(summary.context.label()),
            mls_hash: Digest::sha256(&self.bundle.commit),
            mls: self.bundle.commit,
            head,
        };
        let added = summary.added.iter().map(|added| Seat { device: added.uri.clone(), leaf: added.leaf });
        let back = summary.rejoined_from.map(|_| Seat { device: caller.clone(), leaf: summary.committer.leaf });
        let seated = added.chain(back).collect();
        let unseated = summary.removed.iter().map(|removed| removed.uri.clone()).collect();
        let epoch = self.verified.next.epoch();
        let mut effects = vec![Effect::Group { epoch, seated, unseated, group_info: self.bundle.group_info }];
        if !summary.added.is_empty() {
            let recipients = summary.added.iter().map(|added| added.uri.clone()).collect();
            effects.push(Effect::Welcome {
                recipients,
                inviter: caller,
                welcome: self.bundle.welcome,
                tree: self.tree,
            });
            let references = summary.added.iter().map(|added| added.reference).collect();
            effects.push(Effect::UseClaims { channel, references });
        }
        let state = self.verified.next.to_snapshot();
        let is_replayed = summary.added.is_empty() && !epoch.0.is_multiple_of(SNAPSHOT_EVERY_COMMITS);
        if state.len() <= SNAPSHOT_BYTES_ALWAYS || !is_replayed {
            effects.push(Effect::GroupSnapshot { state });
        }
        let write = ChannelWrite { channel, expect: expect(&self.before), event };
        (write, effects, self.verified.next)
    }
}

impl PreparedLeave {
    /// The epoch of the proposal.
    pub fn epoch(&self) -> Epoch {
        self.before.epoch
    }

    /// The write, its effects, and the state to advance to once it is accepted.
    pub fn into_write(self, permit: &Permit<Leave>) -> (ChannelWrite, Vec<Effect>, GroupState) {
        let context = self.next.context();
        let channel = context.channel();
        let event = NewEvent {
            kind: EventKind::Proposal,
            sender: permit.caller().clone(),
            expiry: context.label().expires(),
            label_reference: label_reference(context.label()),
            mls_hash: Digest::sha256(&self.proposal),
            mls: self.proposal,
            head: Some(self.head),
        };
        let effects = vec![Effect::Leaving { device: permit.caller().clone() }];
        let write = ChannelWrite { channel, expect: expect(&self.before), event };
        (write, effects, self.next)
    }
}

/// Exactly the state that was verified against: its epoch, and the proposals that waited.
pub(crate) fn expect(before: &ChannelHead) -> Expect {
    Expect::State { current: before.current(), proposals: before.proposal_sequence }
}

fn check_zone(named: &ZoneId, ours: &ZoneId) -> Result<(), DeliveryError> {
    if named == ours { Ok(()) } else { Err(DeliveryError::ZoneNotHere) }
}
