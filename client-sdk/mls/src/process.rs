//! Judging the log, event by event.

use lianxin_keystore::{KeystoreError, Transaction};
use lianxin_profile::{
    AsOf, AuthenticatedData, Before, CommitSummary, HandshakeKind, Payload, ProfileError, check_commit, check_leave,
    check_sender, parse_application, parse_handshake,
};
use lianxin_tlog::{ChainLink, EventKind, Head, chain_next, chain_start};
use lianxin_trust::Federation;
use lianxin_types::{DeviceUri, Digest, Epoch, Kind, Sequence};
use openmls::group::{PublicProcessMessageError, StageCommitError, ValidationError};
use openmls::prelude::{
    KeyPackageVerifyError, ProcessMessageError, ProcessedMessage, ProcessedMessageContent, ProtocolMessage, Sender,
    StagedCommit,
};
use openmls::treesync::errors::LifetimeError;
use openmls_traits::OpenMlsProvider;

use crate::channel::OpenChannel;
use crate::engine::library;
use crate::error::is_about_keys;
use crate::floor::Floor;
use crate::incarnation::Breach;
use crate::leaf::Origin;
use crate::record::{ChannelRecord, Records, Sent, Standing};
use crate::{LogEvent, Mls, MlsError, Processed, Violation};

/// Why an event gives no result: others did wrong, or we could not.
pub(crate) enum Stop {
    Violation(Violation),
    Error(MlsError),
}

impl<E: Into<MlsError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

/// Whether the federation with which an event is judged may be older than the gateway's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TrustAge {
    /// Then what would need newer knowledge is not judged.
    MayBeBehind,
    /// It is judged by what is known.
    JustFetched,
}

impl Mls {
    /// As [`Mls::process`] for a device whose trust bundle and revocation lists may be behind the gateway's: where newer ones
    /// could change the judgement it stops and changes nothing.
    ///
    /// # Errors
    /// [`MlsError::TrustBehind`]; else as [`Mls::process`].
    pub fn process_unless_behind(
        &self,
        tx: &Transaction<'_>,
        federation: &Federation,
        event: &LogEvent,
    ) -> Result<Processed, MlsError> {
        self.take(tx, federation, event, TrustAge::MayBeBehind)
    }

    /// Takes the next event of a channel. Events must come in order; one that came before is
    /// [`Processed::AlreadyProcessed`]. With every other answer the event is in the chain and the channel's head has
    /// moved, also when the event is hidden.
    ///
    /// # Errors
    /// [`MlsError::Gap`] for an event that is not the next one; [`MlsError::NotMember`]; [`MlsError::Library`],
    /// [`MlsError::Keystore`], [`MlsError::Record`] for faults of this device. What others did wrong is no error.
    pub fn process(
        &self,
        tx: &Transaction<'_>,
        federation: &Federation,
        event: &LogEvent,
    ) -> Result<Processed, MlsError> {
        self.take(tx, federation, event, TrustAge::JustFetched)
    }

    fn take(
        &self,
        tx: &Transaction<'_>,
        federation: &Federation,
        event: &LogEvent,
        trust: TrustAge,
    ) -> Result<Processed, MlsError> {
        let records = Records::new(tx, event.channel);
        let record = records.load()?.ok_or(MlsError::NotMember)?;
        let expected = record.head.sequence.next();
        if event.sequence < expected {
            return Ok(Processed::AlreadyProcessed);
        }
        if record.standing == Standing::Ended {
            return Err(MlsError::NotMember);
        }
        if event.sequence > expected {
            return Err(MlsError::Gap { expected, found: event.sequence });
        }
        let head = next_head(&record.head, event);
        if let Some(rejoined) = self.settle_rejoin(tx, &records, &record, event, head)? {
            return Ok(rejoined);
        }
        if let Some(started) = self.settle_start(tx, federation, &records, &record, (event, head), trust)? {
            return Ok(started);
        }
        if record.standing == Standing::Awaited {
            return self.await_seat(tx, &records, record, event, head);
        }
        if record.standing == Standing::Lost {
            if event.kind == EventKind::Commit {
                records.count_commit(Floor::at(record.group, Epoch(0)), &event.mls)?;
            }
            records.save_head(&head)?;
            records.save(&ChannelRecord { head, ..record })?;
            return Ok(Processed::Hidden(Violation::ChannelBroken));
        }
        let mut open = self.open(tx, records, record)?;
        let outcome = match open.record.standing {
            Standing::Broken | Standing::Lost | Standing::Awaited => Err(Violation::ChannelBroken.into()),
            Standing::Active | Standing::Ended => self.judge(&mut open, federation, event, trust),
        };
        let processed = match outcome {
            Ok(processed) => processed,
            Err(Stop::Error(error)) => return Err(error),
            Err(Stop::Violation(Violation::InvalidCommit(error)))
                if trust == TrustAge::MayBeBehind && is_about_keys(&error) =>
            {
                return Err(MlsError::TrustBehind { device: event.sender.clone() });
            }
            Err(Stop::Violation(violation)) => {
                tracing::warn!(channel = ?event.channel, sequence = event.sequence.0, %violation, "event hidden");
                if event.kind == EventKind::Commit {
                    open.record.standing = Standing::Broken;
                    let own = Floor::at(open.record.group, Epoch(open.group.epoch().as_u64()));
                    open.records.count_commit(own, &event.mls)?;
                }
                if event.kind == EventKind::Commit && violation.is_the_commits_fault() {
                    open.records.save_breach(&Breach { commit: event.sequence, committer: event.sender.clone() })?;
                }
                Processed::Hidden(violation)
            }
        };
        open.record.head = head;
        if open.record.standing != Standing::Ended {
            open.records.note_commit(event)?;
            open.records.save_head(&head)?;
        }
        open.records.save(&open.record)?;
        let is_whole = !matches!(processed, Processed::Hidden(_));
        if is_whole && open.record.standing != Standing::Ended {
            open.keep()?;
        }
        Ok(processed)
    }

    fn judge(
        &self,
        open: &mut OpenChannel<'_>,
        federation: &Federation,
        event: &LogEvent,
        trust: TrustAge,
    ) -> Result<Processed, Stop> {
        match event.kind {
            EventKind::Start if open.record.head.sequence == Sequence(0) && event.sender == self.device => {
                Ok(Processed::Start)
            }
            EventKind::Application => self.application(open, event),
            EventKind::Proposal if event.sender.kind() == Kind::Gateway => self.removal(open, federation, event, trust),
            EventKind::Proposal => self.proposal(open, event),
            EventKind::Commit => self.commit_event(open, federation, event),
            EventKind::Report => self.reported(open, event),
            EventKind::Start | EventKind::Notice => Err(Violation::UnexpectedKind.into()),
        }
    }

    fn application(&self, open: &mut OpenChannel<'_>, event: &LogEvent) -> Result<Processed, Stop> {
        let frame = parse_application(&event.mls).map_err(|_| Violation::Malformed)?;
        if frame.group != open.record.group || frame.epoch.0 != open.group.epoch().as_u64() {
            return Err(Violation::Undecryptable.into());
        }
        let message = open.verify(frame.message, |_| Violation::Undecryptable)?;
        let (sender, authenticated) = (message.sender().clone(), message.aad().to_vec());
        let bytes = match message.into_content() {
            ProcessedMessageContent::ApplicationMessage(content) => content.into_bytes(),
            ProcessedMessageContent::OwnPrivateMessage => return self.own_message(open, &authenticated, event),
            _ => return Err(Violation::Malformed.into()),
        };
        let sender = open.check_named(&sender, event)?;
        open.check_head(&authenticated, event)?;
        let payload = Payload::from_bytes(&bytes).map_err(|_| Violation::BadPayload)?;
        if !open.records.note_intent(&mut open.record, &sender, &payload.intent, event.sequence)? {
            return Ok(Processed::RepeatedMessage);
        }
        let epoch = Epoch(open.group.epoch().as_u64());
        Ok(Processed::Message { sender, intent: payload.intent, body: payload.body, epoch })
    }

    /// A message whose encrypted sender is this device. Any member could have written that, so it must be one that we
    /// remember, and have not had yet.
    fn own_message(&self, open: &OpenChannel<'_>, authenticated: &[u8], event: &LogEvent) -> Result<Processed, Stop> {
        if event.sender != self.device {
            let (named, found) = (event.sender.clone(), self.device.clone());
            return Err(Violation::SenderMismatch { named, found }.into());
        }
        let may_be_forgotten = match AuthenticatedData::from_bytes(authenticated) {
            Ok(data) => open.records.may_be_forgotten(data.head.sequence)?,
            Err(_) => false,
        };
        match open.records.take_sent(&Digest::sha256(&event.mls))? {
            Some(Sent::OnItsWay) => Ok(Processed::OwnMessage),
            Some(Sent::Logged) => Err(Violation::NotSent.into()),
            None if may_be_forgotten => Err(Violation::NotSent.into()),
            None => {
                let is_first = open.records.leaf()?.is_none_or(|keys| keys.origin != Origin::OlderState);
                open.records.save_leaf(Origin::OlderState, event.gateway_time)?;
                Ok(Processed::NotRemembered { is_first })
            }
        }
    }

    fn proposal(&self, open: &mut OpenChannel<'_>, event: &LogEvent) -> Result<Processed, Stop> {
        let message = open.handshake(event, HandshakeKind::Proposal)?;
        let (sender, authenticated) = (message.sender().clone(), message.aad().to_vec());
        let ProcessedMessageContent::ProposalMessage(queued) = message.into_content() else {
            return Err(Violation::UnexpectedProposal.into());
        };
        open.check_named(&sender, event)?;
        open.check_head(&authenticated, event)?;
        let seat = check_leave(&queued, &open.roster).map_err(|_| Violation::UnexpectedProposal)?;
        let device = seat.uri.clone();
        // Our own proposal is there since we made it.
        let reference = queued.proposal_reference_ref();
        if !open.group.pending_proposals().any(|known| known.proposal_reference_ref() == reference) {
            open.group.store_pending_proposal(open.provider.storage(), *queued)?;
        }
        Ok(Processed::LeaveProposed { device })
    }

    fn commit_event(
        &self,
        open: &mut OpenChannel<'_>,
        federation: &Federation,
        event: &LogEvent,
    ) -> Result<Processed, Stop> {
        let message = match open.handshake(event, HandshakeKind::Commit) {
            Err(Stop::Violation(Violation::CannotProcess { .. })) if !self.is_signed(open, event) => {
                return Err(Violation::NotSigned.into());
            }
            message => message?,
        };
        let (sender, authenticated) = (message.sender().clone(), message.aad().to_vec());
        let mut void = Void { commit: open.group.pending_commit().is_some(), leave: open.is_leaving() };
        open.check_named(&sender, event)?;
        if sender == Sender::NewMemberCommit {
            self.check_rejoin(open, &message, event)?;
        } else {
            open.check_head(&authenticated, event)?;
        }
        let (summary, own_commit) = match message.into_content() {
            ProcessedMessageContent::OwnPendingCommit => {
                let staged = open.group.pending_commit().ok_or(Violation::NotSent)?;
                let summary = self.judge_commit(open, federation, staged, &sender, event)?;
                open.group.merge_pending_commit(&open.provider).map_err(library("merge the own commit"))?;
                void.commit = false;
                (summary, true)
            }
            ProcessedMessageContent::StagedCommitMessage(staged) => {
                let summary = self.judge_commit(open, federation, &staged, &sender, event)?;
                open.group.merge_staged_commit(&open.provider, *staged).map_err(library("merge a commit"))?;
                (summary, false)
            }
            _ => return Err(Violation::Malformed.into()),
        };
        self.after_merge(open, event, summary, own_commit, void)
    }

    /// What [`check_commit`] cannot know of a member who comes back: that it is another than this device, whose own way back
    /// is never judged by the group that it replaces; that it may still act; and that its head is one of this log.
    fn check_rejoin(&self, open: &OpenChannel<'_>, message: &ProcessedMessage, event: &LogEvent) -> Result<(), Stop> {
        if event.sender == self.device {
            return Err(if self.is_signed_here(message) { Violation::OlderState } else { Violation::NotSent }.into());
        }
        if open.leaving().any(|device| *device == event.sender) {
            let fault = "who is leaving does not come back";
            return Err(Violation::InvalidCommit(ProfileError::InvalidCommit { fault }).into());
        }
        open.check_rejoin_head(message.aad(), event)
    }

    /// Whether the member whom the gateway names for the commit has signed it, as everybody can see who knows the tree. The membership tag covers
    /// the signature, so of a commit that was altered openmls only says that the tag is wrong.
    fn is_signed(&self, open: &OpenChannel<'_>, event: &LogEvent) -> bool {
        let Ok(frame) = parse_handshake(&event.mls) else { return false };
        match open.group.public_group().process_message(&self.crypto, frame.message) {
            Ok(message) => open.check_named(message.sender(), event).is_ok(),
            Err(error) => !matches!(error, PublicProcessMessageError::ValidationError(_)),
        }
    }

    /// Whether an external commit, which openmls has verified by the leaf in it, is signed with this device's key.
    fn is_signed_here(&self, message: &ProcessedMessage) -> bool {
        let ProcessedMessageContent::StagedCommitMessage(staged) = message.content() else { return false };
        let leaf = staged.update_path_leaf_node();
        leaf.is_some_and(|leaf| leaf.signature_key().as_slice() == self.signer.public_key())
    }

    /// It is judged as of the gateway's time: a leaf must have been valid when it entered.
    fn judge_commit(
        &self,
        open: &OpenChannel<'_>,
        federation: &Federation,
        staged: &StagedCommit,
        sender: &Sender,
        event: &LogEvent,
    ) -> Result<CommitSummary, Violation> {
        let before = Before { roster: &open.roster, context: open.group.public_group().group_context() };
        check_commit(federation, &self.crypto, staged, sender, &event.sender, before, AsOf::logged(event.gateway_time))
            .map_err(Violation::InvalidCommit)
    }

    fn after_merge(
        &self,
        open: &mut OpenChannel<'_>,
        event: &LogEvent,
        summary: CommitSummary,
        own_commit: bool,
        void: Void,
    ) -> Result<Processed, Stop> {
        let removed_self = !open.group.is_active();
        if removed_self {
            open.group.delete(open.provider.storage())?;
            open.records.clear()?;
            open.record.standing = Standing::Ended;
        } else {
            if !summary.roster.matches(open.group.members()) {
                let detail = "the members are not those that the commit makes".to_owned();
                return Err(MlsError::Library { action: "merge a commit", detail }.into());
            }
            open.records.save_roster(&summary.roster)?;
            open.records.forget_before()?;
            if own_commit && summary.updated {
                open.records.save_leaf(Origin::OwnPath, event.gateway_time)?;
            }
            open.records.forget_sent()?;
        }
        open.records.raise_floor(open.record.group, summary.epoch)?;
        open.record.epoch_start = event.sequence;
        if summary.rejoined_from.is_some() {
            return Ok(Processed::Rejoined {
                epoch: summary.epoch,
                device: summary.committer.uri,
                own_commit: false,
                discarded_own_commit: void.commit,
                discarded_own_leave: void.leave,
            });
        }
        Ok(Processed::Membership {
            epoch: summary.epoch,
            by: summary.committer.uri,
            added: summary.added.into_iter().map(|one| one.uri).collect(),
            removed: summary.removed.into_iter().map(|one| one.uri).collect(),
            own_commit,
            removed_self,
            discarded_own_commit: void.commit,
        })
    }
}

impl OpenChannel<'_> {
    /// Parses and verifies a commit or proposal of this group's current epoch.
    pub(crate) fn handshake(&mut self, event: &LogEvent, kind: HandshakeKind) -> Result<ProcessedMessage, Stop> {
        let frame = parse_handshake(&event.mls).map_err(|_| Violation::Malformed)?;
        if frame.kind != kind || frame.group != self.record.group {
            return Err(Violation::Malformed.into());
        }
        self.verify(frame.message, |error| match error {
            // Verified by the own leaf's key, and not what waits.
            ProcessMessageError::InvalidCommit(StageCommitError::OwnCommitMismatch) => Violation::OlderState,
            error if has_outlived_a_leaf(error) => Violation::AwayTooLong,
            error => Violation::CannotProcess { detail: error.to_string() },
        })
    }

    fn verify(
        &mut self,
        message: ProtocolMessage,
        violation: impl FnOnce(&ProcessMessageError<KeystoreError>) -> Violation,
    ) -> Result<ProcessedMessage, Stop> {
        self.group.process_message(&self.provider, message).map_err(|error| match error {
            ProcessMessageError::StorageError(error) => Stop::Error(error.into()),
            other => Stop::Violation(violation(&other)),
        })
    }

    /// The gateway's name for the sender is the one on the leaf that signed.
    fn check_named(&self, sender: &Sender, event: &LogEvent) -> Result<DeviceUri, Violation> {
        if let Ok(seat) = check_sender(&self.roster, sender, &event.sender) {
            return Ok(seat.uri.clone());
        }
        match sender {
            Sender::Member(leaf) => match self.roster.at(leaf.u32()) {
                Some(seat) => Err(Violation::SenderMismatch { named: event.sender.clone(), found: seat.uri.clone() }),
                None => Err(Violation::Malformed),
            },
            Sender::NewMemberCommit => Err(Violation::InvalidCommit(ProfileError::SenderMismatch)),
            Sender::External(_) | Sender::NewMemberProposal => Err(Violation::UnexpectedProposal),
        }
    }

    /// The sender's head is one of this device's own chain, not older than the epoch and older than the event.
    fn check_head(&self, authenticated: &[u8], event: &LogEvent) -> Result<(), Stop> {
        let data = AuthenticatedData::from_bytes(authenticated).map_err(|_| Violation::Malformed)?;
        let sequence = data.head.sequence;
        let in_time = sequence >= self.record.epoch_start && sequence < event.sequence;
        let known = match sequence {
            _ if !in_time => None,
            // A creator need not wait for its first event.
            Sequence(0) => Some(chain_start(&event.channel).chain_hash),
            _ => self.records.chain_hash(sequence)?,
        };
        if known == Some(data.head.chain_hash) { Ok(()) } else { Err(Violation::HeadMismatch { sequence }.into()) }
    }

    /// Who comes back names the head of the GroupInfo that it used. That may be older than the epoch; from before this
    /// device's own start it is not compared (PROTOCOL 4).
    fn check_rejoin_head(&self, authenticated: &[u8], event: &LogEvent) -> Result<(), Stop> {
        let data = AuthenticatedData::from_bytes(authenticated).map_err(|_| Violation::Malformed)?;
        let sequence = data.head.sequence;
        let known = match sequence {
            Sequence(0) => Some(chain_start(&event.channel).chain_hash),
            _ => self.records.chain_hash(sequence)?,
        };
        let agrees = match known {
            Some(hash) => hash == data.head.chain_hash,
            None => self.records.chain_begin()?.is_none_or(|first| sequence < first),
        };
        match agrees && sequence < event.sequence {
            true => Ok(()),
            false => Err(Violation::HeadMismatch { sequence }.into()),
        }
    }
}

/// Whether a key package that the commit brings in has ended by the system's clock.
const fn has_outlived_a_leaf<E>(error: &ProcessMessageError<E>) -> bool {
    use KeyPackageVerifyError::LifetimeError as Lifetime;
    let ProcessMessageError::ValidationError(ValidationError::KeyPackageVerifyError(Lifetime(fault))) = error else {
        return false;
    };
    matches!(fault, LifetimeError::Expired { .. })
}

/// Own steps of the epoch that ends, which go with it.
#[derive(Clone, Copy)]
struct Void {
    commit: bool,
    leave: bool,
}

fn next_head(before: &Head, event: &LogEvent) -> Head {
    let link = ChainLink {
        sequence: event.sequence,
        kind: event.kind,
        gateway_time: event.gateway_time,
        expiry: event.expiry,
        sender: &event.sender,
        mls_hash: Digest::sha256(&event.mls),
    };
    chain_next(&before.chain_hash, &link)
}
