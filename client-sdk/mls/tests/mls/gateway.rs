//! The other end: a public group, the profile's checks, and one log.

use std::sync::Arc;

use lianxin_mls::{CommitBundle, Invitation, LogEvent, MlsError, NewChannel, Processed, StartBundle};
use lianxin_profile::{
    AsOf, Before, Broken, CommitSummary, GroupInfoSigner, ProfileError, Roster, check_commit, check_group_info,
    check_leave, check_next_start, check_sender, check_start, check_start_after, check_welcome, parse_group_info,
    parse_handshake, parse_tree, refused_by_library, stored_context,
};
use lianxin_tlog::{ChainLink, EventKind, Head, chain_next, chain_start};
use lianxin_trust::Federation;
use lianxin_types::{
    ChannelId, Classification, Clock as _, DeviceUri, Digest, GroupId, Label, Random as _, Sequence, SystemClock,
    SystemRandom,
};
use openmls::prelude::tls_codec::Serialize as _;
use openmls::prelude::{ProcessedMessageContent, ProposalStore, PublicGroup};
use openmls_memory_storage::MemoryStorage;
use openmls_rust_crypto::RustCrypto;

use crate::device::{Device, random_id};
use crate::federation::office;

pub(crate) struct Gateway {
    crypto: RustCrypto,
    storage: MemoryStorage,
    group: PublicGroup,
    roster: Roster,
    group_info: Vec<u8>,
    /// What it knows.
    pub(crate) federation: Arc<Federation>,
    pub(crate) channel: ChannelId,
    pub(crate) log: Vec<LogEvent>,
    pub(crate) heads: Vec<Head>,
}

pub(crate) fn new_channel(departments: &[&str]) -> NewChannel {
    let mut id = [0; 16];
    SystemRandom.fill(&mut id);
    NewChannel {
        channel: ChannelId(id),
        zone: "cn-zj-1".parse().expect("well formed"),
        label: Label::new(Classification::General3, "联合核查", "审计法", None).expect("valid"),
        departments: departments.iter().map(|name| name.parse().expect("well formed")).collect(),
    }
}

impl Gateway {
    /// `creator` starts a channel that names `departments`, and reads its first event.
    pub(crate) fn start(creator: &Device, departments: &[&str]) -> Self {
        let new = new_channel(departments);
        let channel = new.channel;
        let bundle = creator.run(move |mls, tx, federation| mls.create(tx, federation, &new)).expect("a start");
        let mut gateway = Self::accept(channel, &bundle).expect("an acceptable start");
        gateway.append(EventKind::Start, &creator.uri, bundle.group_info);
        assert_eq!(gateway.feed(creator), [Processed::Start]);
        gateway
    }

    pub(crate) fn accept(channel: ChannelId, bundle: &StartBundle) -> Result<Self, ProfileError> {
        let (crypto, storage) = (RustCrypto::default(), MemoryStorage::default());
        let tree = parse_tree(&bundle.ratchet_tree)?;
        let group_info = parse_group_info(&bundle.group_info)?;
        let (group, group_info) =
            PublicGroup::from_external(&crypto, &storage, tree, group_info, ProposalStore::default())
                .map_err(|_| ProfileError::InvalidMls { what: "start" })?;
        let start = check_start(&office().federation, &group, &group_info, SystemClock.now())?;
        assert_eq!(start.group.channel, channel);
        let heads = vec![chain_start(&channel)];
        let (roster, group_info) = (start.roster, bundle.group_info.clone());
        let federation = Arc::clone(&office().federation);
        Ok(Self { crypto, storage, group, roster, group_info, federation, channel, log: Vec::new(), heads })
    }

    /// Accepts the group that carries the channel on where the commit at `commit` broke it, as the real gateway does.
    pub(crate) fn restart(
        &mut self,
        sender: &Device,
        bundle: &StartBundle,
        (culprit, commit): (&Device, Sequence),
    ) -> Result<LogEvent, ProfileError> {
        self.go_on(sender, bundle, (Some(&culprit.uri), commit))
    }

    /// Accepts the group that carries the channel on in the place of the one that began at `start`, in which nobody was seated.
    pub(crate) fn start_instead(
        &mut self,
        sender: &Device,
        bundle: &StartBundle,
        start: Sequence,
    ) -> Result<LogEvent, ProfileError> {
        self.go_on(sender, bundle, (None, start))
    }

    fn go_on(
        &mut self,
        sender: &Device,
        bundle: &StartBundle,
        (culprit, commit): (Option<&DeviceUri>, Sequence),
    ) -> Result<LogEvent, ProfileError> {
        let (crypto, storage) = (RustCrypto::default(), MemoryStorage::default());
        let (tree, group_info) = (parse_tree(&bundle.ratchet_tree)?, parse_group_info(&bundle.group_info)?);
        let (group, group_info) =
            PublicGroup::from_external(&crypto, &storage, tree, group_info, ProposalStore::default())
                .map_err(|_| ProfileError::InvalidMls { what: "start" })?;
        let before = GroupId::try_from(self.group.group_id().as_slice()).expect("ours");
        let context = stored_context(self.group.group_context())?;
        let broken = Broken { group: &before, context: &context, roster: &self.roster, culprit, commit };
        let check = if culprit.is_some() { check_next_start } else { check_start_after };
        let start = check(&self.federation, &group, &group_info, broken, SystemClock.now())?;
        assert!(start.roster.of(&sender.uri).is_some() && self.heads.contains(&start.head));
        (self.group, self.storage, self.roster) = (group, storage, start.roster);
        self.group_info = bundle.group_info.clone();
        Ok(self.append(EventKind::Start, &sender.uri, bundle.group_info.clone()))
    }

    /// Puts anything into the log, as a gateway could that checks nothing.
    pub(crate) fn append(&mut self, kind: EventKind, sender: &DeviceUri, mls: Vec<u8>) -> LogEvent {
        let before = self.heads[self.heads.len() - 1];
        let event = LogEvent {
            channel: self.channel,
            sequence: before.sequence.next(),
            kind,
            sender: sender.clone(),
            gateway_time: SystemClock.now(),
            expiry: None,
            mls,
            idempotency_id: random_id(),
        };
        self.heads.push(chain_next(&before.chain_hash, &link(&event)));
        self.log.push(event.clone());
        event
    }

    /// Accepts a commit bundle as the real gateway does, or says why not.
    pub(crate) fn commit(&mut self, sender: &Device, bundle: &CommitBundle) -> Result<CommitSummary, ProfileError> {
        let frame = parse_handshake(&bundle.commit)?;
        let processed = self
            .group
            .process_message(&self.crypto, frame.message)
            .map_err(|error| refused_by_library(&frame.sender, &error))?;
        let mls_sender = processed.sender().clone();
        let ProcessedMessageContent::StagedCommitMessage(staged) = processed.into_content() else {
            return Err(ProfileError::InvalidMls { what: "commit" });
        };
        let before = Before { roster: &self.roster, context: self.group.group_context() };
        let now = SystemClock.now();
        let summary = check_commit(
            &self.federation,
            &self.crypto,
            &staged,
            &mls_sender,
            &sender.uri,
            before,
            AsOf::arriving(now),
        )?;
        let signer = GroupInfoSigner { leaf: summary.committer.leaf, signature_key: &summary.committer.signature_key };
        let checked = check_group_info(&self.crypto, &bundle.group_info, staged.group_context(), signer)?;
        assert!(self.heads.contains(&checked.head), "the committer's head is one of the log's");
        check_welcome(&bundle.welcome, &summary.added)?;
        self.group.merge_commit(&self.storage, *staged).expect("memory does not fail");
        assert!(summary.roster.matches(self.group.members()), "the roster is what the group is");
        self.roster = summary.roster.clone();
        self.group_info = bundle.group_info.clone();
        self.append(EventKind::Commit, &sender.uri, bundle.commit.clone());
        Ok(summary)
    }

    /// Whether openmls takes a handshake message for one of this group's.
    pub(crate) fn verifies(&self, bytes: &[u8]) -> bool {
        parse_handshake(bytes).is_ok_and(|frame| self.group.process_message(&self.crypto, frame.message).is_ok())
    }

    /// Keeps a proposal as a gateway would that checks nothing.
    pub(crate) fn store_unchecked(&mut self, bytes: &[u8]) {
        let frame = parse_handshake(bytes).expect("a proposal");
        let processed = self.group.process_message(&self.crypto, frame.message).expect("openmls takes it");
        let ProcessedMessageContent::ProposalMessage(queued) = processed.into_content() else { panic!("a proposal") };
        self.group.add_proposal(&self.storage, *queued).expect("memory does not fail");
    }

    /// Whether the commit alone would be accepted; changes nothing.
    pub(crate) fn would_accept(&self, sender: &Device, bundle: &CommitBundle) -> bool {
        let Ok(frame) = parse_handshake(&bundle.commit) else { return false };
        let Ok(processed) = self.group.process_message(&self.crypto, frame.message) else { return false };
        let mls_sender = processed.sender().clone();
        let ProcessedMessageContent::StagedCommitMessage(staged) = processed.into_content() else { return false };
        let before = Before { roster: &self.roster, context: self.group.group_context() };
        let now = SystemClock.now();
        check_commit(&self.federation, &self.crypto, &staged, &mls_sender, &sender.uri, before, AsOf::arriving(now))
            .is_ok()
    }

    /// Accepts a proposal to leave.
    pub(crate) fn leave(&mut self, sender: &Device, proposal: Vec<u8>) -> Result<LogEvent, ProfileError> {
        let frame = parse_handshake(&proposal)?;
        let processed = self
            .group
            .process_message(&self.crypto, frame.message)
            .map_err(|_| ProfileError::InvalidMls { what: "proposal" })?;
        let mls_sender = processed.sender().clone();
        let ProcessedMessageContent::ProposalMessage(queued) = processed.into_content() else {
            return Err(ProfileError::InvalidMls { what: "proposal" });
        };
        check_leave(&queued, &self.roster)?;
        check_sender(&self.roster, &mls_sender, &sender.uri)?;
        self.group.add_proposal(&self.storage, *queued).expect("memory does not fail");
        Ok(self.append(EventKind::Proposal, &sender.uri, proposal))
    }

    /// What lies in the inbox of those whom the last event has added.
    pub(crate) fn invitation(&self, bundle: &CommitBundle) -> Invitation {
        let tree = self.group.export_ratchet_tree().tls_serialize_detached().expect("a tree");
        Invitation {
            channel: self.channel,
            head: self.heads[self.heads.len() - 1],
            welcome: bundle.welcome.clone(),
            tree,
            inviter: self.log[self.log.len() - 1].sender.clone(),
        }
    }

    /// GroupInfo and tree of the current epoch.
    pub(crate) fn served(&self) -> (Vec<u8>, Vec<u8>) {
        let tree = self.group.export_ratchet_tree().tls_serialize_detached().expect("a tree");
        (self.group_info.clone(), tree)
    }

    /// `inviter` adds `newcomers`; everybody in `members` reads it; the newcomers join.
    pub(crate) fn seat(&mut self, inviter: &Device, members: &[&Device], newcomers: &[&Device]) {
        let packages: Vec<_> = newcomers.iter().map(|one| one.key_package()).collect();
        let channel = self.channel;
        let bundle = inviter.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &packages));
        let bundle = bundle.expect("an invitation");
        self.commit(inviter, &bundle).expect("an acceptable commit");
        for member in members {
            self.feed(member);
        }
        let invitation = self.invitation(&bundle);
        for newcomer in newcomers {
            join(newcomer, &invitation).expect("a join");
        }
    }

    /// Gives `device` everything behind its head; panics on an error.
    pub(crate) fn feed(&self, device: &Device) -> Vec<Processed> {
        let channel = self.channel;
        let head = device.run(move |mls, tx, _| mls.head(tx, channel)).expect("a readable state");
        let after = head.expect("it knows the channel").sequence;
        let behind = self.log.iter().filter(|event| event.sequence > after);
        behind.map(|event| device.process(event).expect("processed")).collect()
    }

    /// `sender` says `body`.
    pub(crate) fn say(&mut self, sender: &Device, body: &[u8]) -> LogEvent {
        let sent = sender.encrypt(self.channel, body).expect("encrypted");
        self.append(EventKind::Application, &sender.uri, sent.mls)
    }
}

pub(crate) fn join(device: &Device, invitation: &Invitation) -> Result<(), MlsError> {
    let invitation = invitation.clone();
    device.run(move |mls, tx, federation| mls.join(tx, federation, &invitation)).map(|_| ())
}

pub(crate) fn link(event: &LogEvent) -> ChainLink<'_> {
    ChainLink {
        sequence: event.sequence,
        kind: event.kind,
        gateway_time: event.gateway_time,
        expiry: event.expiry,
        sender: &event.sender,
        mls_hash: Digest::sha256(&event.mls),
    }
}

/// The body, if it is a message from `sender`.
pub(crate) fn body_from(processed: &Processed, from: &Device) -> Option<Vec<u8>> {
    match processed {
        Processed::Message { sender, body, .. } if *sender == from.uri => Some(body.clone()),
        _ => None,
    }
}
