//! The gateway's view of one channel's group: public tree, context, waiting proposals, and who sits where.
//!
//! A state never changes. A commit or proposal makes the next state beside it, and whoever holds the current one goes on
//! reading; the next becomes current once the store has the event.

use std::collections::{BTreeSet, HashMap};
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use lianxin_profile::{
    ApplicationFrame, AsOf, Before, Broken, ChannelContext, CommitSummary, GroupStart, HandshakeFrame, HandshakeKind,
    ProfileError, RemovalData, Roster, check_commit, check_leave, check_next_start, check_removal, check_sender,
    check_start, check_start_after, external_sender, is_removal_sender, parse_chain, parse_group_info, parse_handshake,
    parse_tree, refused_by_library, removal_due, stored_context,
};
use lianxin_store::{GroupEpoch, StoredEvent};
use lianxin_tlog::{EventKind, Head};
use lianxin_trust::Federation;
use lianxin_types::{
    ChannelId, DecodeError, DeviceUri, Digest, Epoch, GroupId, Incarnation, Kind, Reader, Sequence, Timestamp, Writer,
};
use openmls::group::{ProposalStore, PublicGroup};
use openmls::messages::group_info::GroupInfo;
use openmls::prelude::{Credential, GroupContext, ProcessedMessage, ProcessedMessageContent};
use openmls_memory_storage::MemoryStorage;
use openmls_rust_crypto::RustCrypto;
use tls_codec::Serialize as _;

use crate::error::DeliveryError;
use crate::removal::{Due, RemovalKey};

/// One state of a channel's group.
pub struct GroupState {
    group: PublicGroup,
    storage: MemoryStorage,
    roster: Roster,
    context: ChannelContext,
    sequence: Sequence,
}

/// A commit that verified, and the state behind it.
pub struct VerifiedCommit {
    /// What it changes.
    pub summary: CommitSummary,
    /// The state that it makes.
    pub next: GroupState,
    /// The head in its authenticated data.
    pub head: Head,
}

/// A proposal that verified, and the state behind it.
pub struct VerifiedLeave {
    /// The state that it makes.
    pub next: GroupState,
    /// The head in its authenticated data.
    pub head: Head,
}

impl GroupState {
    /// The state of a new group.
    ///
    /// # Errors
    /// [`DeliveryError::Profile`] if GroupInfo or tree break RFC 9420 or the profile.
    pub fn start(
        federation: &Federation,
        group_info: &[u8],
        tree: &[u8],
        now: Timestamp,
    ) -> Result<(Self, GroupStart), DeliveryError> {
        Self::open_start(group_info, tree, |group, info| check_start(federation, group, info, now))
    }

    /// The state of the group that carries the channel on where `broken` ended.
    ///
    /// # Errors
    /// As [`GroupState::start`].
    pub(crate) fn start_next(
        federation: &Federation,
        group_info: &[u8],
        tree: &[u8],
        broken: Broken<'_>,
        now: Timestamp,
    ) -> Result<(Self, GroupStart), DeliveryError> {
        Self::open_start(group_info, tree, |group, info| check_next_start(federation, group, info, broken, now))
    }

    /// As [`GroupState::start_next`] in the place of a next incarnation that nobody was seated in: the members of the group that
    /// broke are not known any more.
    pub(crate) fn start_after(
        federation: &Federation,
        group_info: &[u8],
        tree: &[u8],
        before: Broken<'_>,
        now: Timestamp,
    ) -> Result<(Self, GroupStart), DeliveryError> {
        Self::open_start(group_info, tree, |group, info| check_start_after(federation, group, info, before, now))
    }

    fn open_start(
        group_info: &[u8],
        tree: &[u8],
        check: impl FnOnce(&PublicGroup, &GroupInfo) -> Result<GroupStart, ProfileError>,
    ) -> Result<(Self, GroupStart), DeliveryError> {
        let storage = MemoryStorage::default();
        let (tree, info) = (parse_tree(tree)?, parse_group_info(group_info)?);
        let created = PublicGroup::from_external(&RustCrypto::default(), &storage, tree, info, ProposalStore::new());
        let (group, info) =
            created.map_err(|_| ProfileError::InvalidGroupInfo { fault: "it does not verify with the tree" })?;
        let start = check(&group, &info)?;
        let (roster, context) = (start.roster.clone(), start.context.clone());
        Ok((Self { group, storage, roster, context, sequence: Sequence(1) }, start))
    }

    /// Who sits where.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The channel's context as the members agreed on it.
    pub fn context(&self) -> &ChannelContext {
        &self.context
    }

    /// The group context, on which all members agree (RFC 9420 section 8.1).
    pub fn group_context(&self) -> &GroupContext {
        self.group.group_context()
    }

    /// The current epoch.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.group.group_context().epoch().as_u64())
    }

    /// The group: its channel, and which of the channel's groups it is.
    ///
    /// # Errors
    /// [`DeliveryError::Group`] for an id that is not ours.
    pub(crate) fn id(&self) -> Result<GroupId, DeliveryError> {
        GroupId::try_from(self.group.group_id().as_slice()).map_err(|_| fault("group id is not ours"))
    }

    /// Which of the channel's groups it is.
    ///
    /// # Errors
    /// As [`GroupState::id`].
    pub(crate) fn incarnation(&self) -> Result<Incarnation, DeliveryError> {
        Ok(self.id()?.incarnation)
    }

    /// The event after which this is the state.
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// The same state, once its event has a place.
    pub(crate) fn at(mut self, sequence: Sequence) -> Self {
        self.sequence = sequence;
        self
    }

    pub(crate) fn group(&self) -> &PublicGroup {
        &self.group
    }

    /// RFC 9420 `ratchet_tree` of this state.
    ///
    /// # Errors
    /// [`DeliveryError::Group`] if it cannot be encoded.
    pub fn tree(&self) -> Result<Bytes, DeliveryError> {
        let tree = self.group.export_ratchet_tree().tls_serialize_detached();
        tree.map(Bytes::from).map_err(|_| fault("tree cannot be encoded"))
    }

    /// Verifies a commit of `caller`, or an external commit by which it comes back, against this state and makes the state
    /// behind it. In that one no proposal waits any more: after an external commit, what is to go on waiting must be
    /// proposed anew.
    ///
    /// # Errors
    /// [`DeliveryError`]: other channel or epoch, another's leaf, anything that RFC 9420 or the profile forbids, waiting
    /// proposals left out by a member.
    pub fn verify_commit(
        &self,
        federation: &Federation,
        caller: &DeviceUri,
        commit: &[u8],
        now: Timestamp,
    ) -> Result<VerifiedCommit, DeliveryError> {
        self.judge_commit(federation, caller, commit, AsOf::arriving(now))
    }

    fn judge_commit(
        &self,
        federation: &Federation,
        caller: &DeviceUri,
        commit: &[u8],
        as_of: AsOf,
    ) -> Result<VerifiedCommit, DeliveryError> {
        let (processed, head) = self.process(caller, commit, HandshakeKind::Commit)?;
        let sender = processed.sender().clone();
        let ProcessedMessageContent::StagedCommitMessage(staged) = processed.into_content() else {
            return Err(ProfileError::InvalidMls { what: "commit" }.into());
        };
        let before = Before { roster: &self.roster, context: self.group.group_context() };
        let summary = check_commit(federation, &RustCrypto::default(), &staged, &sender, caller, before, as_of)?;
        // Who comes back from outside cannot commit what others have proposed (RFC 9420 section 12.4.3.2).
        if summary.rejoined_from.is_none() {
            self.check_removes_are_committed(&summary)?;
        }
        let mut next = self.copy()?;
        let merged = next.group.merge_commit(&next.storage, *staged);
        merged.map_err(|_| fault("a verified commit cannot be merged"))?;
        if !summary.roster.matches(next.group.members()) {
            return Err(fault("the members are not those that the commit makes"));
        }
        next.roster = summary.roster.clone();
        next.context = summary.context.clone();
        Ok(VerifiedCommit { summary, next, head })
    }

    /// Verifies that `proposal` removes its own sender, `caller`, and makes the state in which it waits.
    ///
    /// # Errors
    /// As [`GroupState::verify_commit`]; [`ProfileError::ProposalNotAllowed`] for any other proposal.
    pub fn verify_leave(&self, caller: &DeviceUri, proposal: &[u8]) -> Result<VerifiedLeave, DeliveryError> {
        let (processed, head) = self.process(caller, proposal, HandshakeKind::Proposal)?;
        let ProcessedMessageContent::ProposalMessage(queued) = processed.into_content() else {
            return Err(ProfileError::InvalidMls { what: "proposal" }.into());
        };
        check_leave(&queued, &self.roster)?;
        let mut next = self.copy()?;
        let queued = next.group.add_proposal(&next.storage, *queued);
        queued.map_err(|_| fault("a verified proposal cannot be queued"))?;
        Ok(VerifiedLeave { next, head })
    }

    /// Somebody must be there who can commit what waits. Whoever leaves last leaves nothing behind that could be committed: its
    /// channel ends with its label.
    ///
    /// # Errors
    /// [`ProfileError::ProposalNotAllowed`] if everybody goes.
    pub(crate) fn check_somebody_stays(&self) -> Result<(), DeliveryError> {
        let waiting = self.group.queued_proposals(&self.storage).map_err(|_| fault("proposals cannot be read"))?;
        let going: BTreeSet<u32> = waiting
            .iter()
            .filter_map(|(_, proposal)| {
                check_leave(proposal, &self.roster).or(check_removal(proposal, &self.roster)).ok()
            })
            .map(|seat| seat.leaf)
            .collect();
        match going.len() < self.roster.len() {
            true => Ok(()),
            false => Err(ProfileError::ProposalNotAllowed { proposal: "the last member cannot leave" }.into()),
        }
    }

    /// The members that must go at `now` and whose Remove the gateway has not asked for in this epoch, ascending by leaf.
    ///
    /// # Errors
    /// [`DeliveryError::Profile`] for a credential that is none, [`DeliveryError::Group`].
    pub(crate) fn due(&self, federation: &Federation, now: Timestamp) -> Result<Vec<Due>, DeliveryError> {
        let waiting = self.group.queued_proposals(&self.storage).map_err(|_| fault("proposals cannot be read"))?;
        let asked: Vec<u32> = waiting
            .iter()
            .filter_map(|(_, proposal)| check_removal(proposal, &self.roster).ok())
            .map(|seat| seat.leaf)
            .collect();
        let mut due = Vec::new();
        for member in self.group.members() {
            let Some(seat) = self.roster.at(member.index.u32()).filter(|seat| !asked.contains(&seat.leaf)) else {
                continue;
            };
            if let Some(data) = removal_due(federation, &member.credential, now)? {
                due.push(Due { device: seat.uri.clone(), leaf: seat.leaf, data });
            }
        }
        Ok(due)
    }

    /// Whether `device` sits here with a certificate that is on its authority's list by `now`.
    pub(crate) fn is_revoked(&self, federation: &Federation, device: &DeviceUri, now: Timestamp) -> bool {
        let seat = self.roster.of(device).map(|seat| seat.leaf);
        let mut members = self.group.members().filter(|member| seat == Some(member.index.u32()));
        members.any(|member| is_credential_revoked(federation, &member.credential, now))
    }

    /// Whether a member's certificate is on its authority's list by `now` and nobody has asked for its removal in this epoch.
    /// Cheap: a signature is verified only for what is on a list.
    ///
    /// # Errors
    /// As [`GroupState::due`].
    pub(crate) fn has_revoked(&self, federation: &Federation, now: Timestamp) -> Result<bool, DeliveryError> {
        match self.group.members().any(|member| is_credential_revoked(federation, &member.credential, now)) {
            true => Ok(!self.due(federation, now)?.is_empty()),
            false => Ok(false),
        }
    }

    /// Whether the channel takes Removes from this key: the one that it names as its external sender.
    pub(crate) fn listens_to(&self, key: &RemovalKey) -> bool {
        let ours = external_sender(self.context.zone(), &key.public());
        self.group_context().extensions().external_senders().is_some_and(|senders| *senders == [ours])
    }

    /// The gateway's Remove of a member, and the state in which it waits.
    ///
    /// # Errors
    /// [`DeliveryError::Profile`] if the group does not take it: the key is not the one that the channel names.
    pub(crate) fn ask_removal(&self, key: &RemovalKey, due: &Due) -> Result<(Bytes, Self), DeliveryError> {
        let proposal = key.propose(self.id()?, self.epoch(), due.leaf, &due.data);
        let next = self.verify_removal(&proposal)?;
        Ok((proposal, next))
    }

    /// Verifies a Remove by the zone's removal key and makes the state in which it waits.
    ///
    /// # Errors
    /// As [`GroupState::verify_commit`]; [`DeliveryError::SenderMismatch`] for another key's,
    /// [`ProfileError::ProposalNotAllowed`] for any other proposal.
    pub fn verify_removal(&self, proposal: &[u8]) -> Result<Self, DeliveryError> {
        let frame = self.frame(proposal, HandshakeKind::Proposal)?;
        if !is_removal_sender(&frame.sender) {
            return Err(DeliveryError::SenderMismatch);
        }
        let processed = self.group.process_message(&RustCrypto::default(), frame.message);
        let processed = processed.map_err(|_| ProfileError::InvalidCommit { fault: "it does not verify" })?;
        RemovalData::from_bytes(processed.aad()).map_err(|_| ProfileError::InvalidMls { what: "removal data" })?;
        let ProcessedMessageContent::ProposalMessage(queued) = processed.into_content() else {
            return Err(ProfileError::InvalidMls { what: "proposal" }.into());
        };
        check_removal(&queued, &self.roster)?;
        let mut next = self.copy()?;
        let queued = next.group.add_proposal(&next.storage, *queued);
        queued.map_err(|_| fault("a verified proposal cannot be queued"))?;
        Ok(next)
    }

    /// The state behind a stored event; events that do not touch the group only move the sequence. What it was judged by when
    /// it came in may be gone since, so certificates and keys are not judged again: a list that is dated back, an authority or
    /// a removal key that is retired must not make a channel unreadable.
    ///
    /// # Errors
    /// [`DeliveryError`] if a stored event does not apply: the journal and this state do not belong together.
    pub fn replay(&self, federation: &Federation, event: &StoredEvent) -> Result<Option<Self>, DeliveryError> {
        let next = match event.kind {
            EventKind::Commit => {
                self.judge_commit(federation, &event.sender, &event.mls, AsOf::kept(event.gateway_time))?.next
            }
            EventKind::Proposal if event.sender.kind() == Kind::Gateway => self.verify_removal(&event.mls)?,
            EventKind::Proposal => self.verify_leave(&event.sender, &event.mls)?.next,
            _ => return Ok(None),
        };
        Ok(Some(next.at(event.head.sequence)))
    }

    /// Checks what the outside of an application message says: this group and epoch.
    ///
    /// # Errors
    /// [`DeliveryError::OtherChannel`] for another channel, [`DeliveryError::WrongEpoch`] for another group or epoch of it.
    pub fn check_frame(
        channel: &ChannelId,
        frame: &ApplicationFrame,
        current: GroupEpoch,
        head: Sequence,
    ) -> Result<(), DeliveryError> {
        if frame.group.channel != *channel {
            return Err(DeliveryError::OtherChannel);
        }
        if frame.group.incarnation != current.incarnation || frame.epoch != current.epoch {
            return Err(DeliveryError::WrongEpoch { current: current.epoch, head });
        }
        Ok(())
    }

    fn process(
        &self,
        caller: &DeviceUri,
        bytes: &[u8],
        kind: HandshakeKind,
    ) -> Result<(ProcessedMessage, Head), DeliveryError> {
        let frame = self.frame(bytes, kind)?;
        check_sender(&self.roster, &frame.sender, caller)?;
        let processed = self.group.process_message(&RustCrypto::default(), frame.message);
        let processed = processed.map_err(|error| refused_by_library(&frame.sender, &error))?;
        let authenticated = lianxin_profile::AuthenticatedData::from_bytes(processed.aad());
        let authenticated = authenticated.map_err(|_| ProfileError::InvalidMls { what: "authenticated data" })?;
        Ok((processed, authenticated.head))
    }

    /// A handshake message of this group's current epoch, not verified yet.
    fn frame(&self, bytes: &[u8], kind: HandshakeKind) -> Result<HandshakeFrame, DeliveryError> {
        let (frame, own) = (parse_handshake(bytes)?, self.id()?);
        if frame.group.channel != own.channel {
            return Err(DeliveryError::OtherChannel);
        }
        if frame.kind != kind {
            return Err(ProfileError::InvalidMls { what: "message of the kind that this call takes" }.into());
        }
        if frame.group != own || frame.epoch != self.epoch() {
            return Err(DeliveryError::WrongEpoch { current: self.epoch(), head: self.sequence });
        }
        Ok(frame)
    }

    /// RFC 9420 section 12.4 leaves it to the delivery service that waiting proposals are not forgotten. Who asked to leave
    /// is not in the channel afterwards. Of whom the gateway asked to be removed the leaf is gone, by reference or by value;
    /// with a new certificate the device may sit anew.
    fn check_removes_are_committed(&self, summary: &CommitSummary) -> Result<(), DeliveryError> {
        let waiting = self.group.queued_proposals(&self.storage).map_err(|_| fault("proposals cannot be read"))?;
        for (_, proposal) in waiting {
            let leaver = check_leave(&proposal, &self.roster).ok();
            let asked = check_removal(&proposal, &self.roster).ok();
            let stays = leaver.is_some_and(|seat| summary.roster.of(&seat.uri).is_some())
                || asked.is_some_and(|seat| summary.removed.iter().all(|removed| removed.leaf != seat.leaf));
            if stays {
                return Err(DeliveryError::PendingRemoves { sequence: self.sequence });
            }
        }
        Ok(())
    }

    pub(crate) fn copy(&self) -> Result<Self, DeliveryError> {
        let values = self.storage.values.read().unwrap_or_else(PoisonError::into_inner).clone();
        let storage = MemoryStorage { values: RwLock::new(values) };
        let group = load(&storage, self.group.group_id())?;
        let (roster, context, sequence) = (self.roster.clone(), self.context.clone(), self.sequence);
        Ok(Self { group, storage, roster, context, sequence })
    }

    /// version u8, group id, roster, then each value of the group's storage, ascending by key; byte strings
    /// with 32-bit lengths; at the end SHA-256 of all of it. The values are openmls's own JSON: an upgrade of openmls needs
    /// a migration here.
    pub fn to_snapshot(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.u8(SNAPSHOT_VERSION);
        writer.bytes(self.group.group_id().as_slice()).bytes(&self.roster.to_bytes());
        let values = self.storage.values.read().unwrap_or_else(PoisonError::into_inner);
        let mut keys: Vec<_> = values.keys().collect();
        keys.sort_unstable();
        for key in keys {
            writer.bytes(key).bytes(&values[key]);
        }
        let mut snapshot = writer.finish();
        let digest = Digest::sha256(&snapshot);
        snapshot.extend_from_slice(&digest.0);
        snapshot.into()
    }

    /// Reads what [`GroupState::to_snapshot`] wrote, taken after the event at `sequence`. The snapshot is the gateway's own: signatures are not verified again.
    ///
    /// # Errors
    /// [`DeliveryError::Group`] for other bytes.
    pub fn from_snapshot(bytes: &[u8], sequence: Sequence) -> Result<Self, DeliveryError> {
        let (group_id, roster, values) = read_snapshot(bytes).map_err(|_| fault("snapshot is damaged"))?;
        let storage = MemoryStorage { values: RwLock::new(values) };
        let group = load(&storage, &openmls::group::GroupId::from_slice(&group_id))?;
        let context = stored_context(group.group_context()).map_err(ProfileError::from)?;
        Ok(Self { group, storage, roster, context, sequence })
    }
}

const SNAPSHOT_VERSION: u8 = 2;
const SNAPSHOT_VALUE_BYTES_MAX: usize = 64 * 1024 * 1024;

type SnapshotFields = (Vec<u8>, Roster, HashMap<Vec<u8>, Vec<u8>>);

fn read_snapshot(bytes: &[u8]) -> Result<SnapshotFields, DecodeError> {
    // openmls's storage panics on values that it did not write, so not one byte may differ from what was stored.
    let (bytes, digest) = bytes.split_last_chunk().ok_or(DecodeError::OutOfRange { field: "snapshot digest" })?;
    if Digest::sha256(bytes) != Digest(*digest) {
        return Err(DecodeError::OutOfRange { field: "snapshot digest" });
    }
    let mut reader = Reader::new(bytes);
    let version = reader.u8("snapshot version")?;
    if version != SNAPSHOT_VERSION {
        return Err(DecodeError::UnknownVersion { version });
    }
    let group_id = reader.bytes("group id", 64)?.to_vec();
    let roster = Roster::from_bytes(reader.bytes("roster", SNAPSHOT_VALUE_BYTES_MAX)?)?;
    let mut values = HashMap::new();
    while !reader.is_empty() {
        let key = reader.bytes("key", SNAPSHOT_VALUE_BYTES_MAX)?.to_vec();
        values.insert(key, reader.bytes("value", SNAPSHOT_VALUE_BYTES_MAX)?.to_vec());
    }
    Ok((group_id, roster, values))
}

fn load(storage: &MemoryStorage, id: &openmls::group::GroupId) -> Result<PublicGroup, DeliveryError> {
    let group = PublicGroup::load(storage, id).map_err(|_| fault("stored group cannot be read"))?;
    group.ok_or(fault("stored group is incomplete"))
}

fn is_credential_revoked(federation: &Federation, credential: &Credential, now: Timestamp) -> bool {
    let chain = parse_chain(credential).unwrap_or_default();
    chain.iter().any(|certificate| federation.is_revoked(certificate, now))
}

const fn fault(fault: &'static str) -> DeliveryError {
    DeliveryError::Group { fault }
}
