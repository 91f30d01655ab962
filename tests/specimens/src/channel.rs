//! A channel with the gateway's own state of its group, and a log that its devices read. Nothing is sent anywhere.

use anyhow::{Context as _, Result};
use lianxin_delivery::GroupState;
use lianxin_mls::{CommitBundle, Invitation, LogEvent, NewChannel, StartBundle};
use lianxin_profile::CommitSummary;
use lianxin_tlog::{ChainLink, EventKind, Head, chain_next, chain_start};
use lianxin_types::{
    ChannelId, Classification, Clock as _, DepartmentId, DeviceUri, Digest, Label, Random, SystemClock, SystemRandom,
};

use crate::{Device, fresh_id, office};

/// One channel.
pub struct Channel {
    /// Its id.
    pub id: ChannelId,
    /// GroupInfo and tree of its start.
    pub start: StartBundle,
    /// The gateway's state after the last event.
    pub state: GroupState,
    /// Its events, in order.
    pub log: Vec<LogEvent>,
    head: Head,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("id", &self.id).field("events", &self.log.len()).finish_non_exhaustive()
    }
}

impl Channel {
    /// `creator` starts a channel that names `departments`, and reads its first event.
    ///
    /// # Errors
    /// If the engine or the gateway's rules refuse.
    pub fn start(creator: &Device, departments: &[&str]) -> Result<Self> {
        let departments: Result<Vec<DepartmentId>, _> = departments.iter().map(|name| name.parse()).collect();
        let new = NewChannel {
            channel: ChannelId((&SystemRandom as &dyn Random).array()),
            zone: "cn-zj-1".parse()?,
            label: Label::new(Classification::General3, "联合核查", "审计法第三十七条", None)?,
            departments: departments?,
        };
        let id = new.channel;
        let start = creator.run(move |mls, tx, federation| mls.create(tx, federation, &new))?;
        let now = SystemClock.now();
        let (state, _) = GroupState::start(&office().federation(), &start.group_info, &start.ratchet_tree, now)?;
        let mut channel = Self { id, state, log: Vec::new(), head: chain_start(&id), start };
        channel.append(EventKind::Start, &creator.uri, channel.start.group_info.clone());
        channel.feed(creator)?;
        Ok(channel)
    }

    /// The gateway's rules accept the commit of `sender`, or say why not; then it is in the log.
    ///
    /// # Errors
    /// If they refuse.
    pub fn commit(&mut self, sender: &Device, bundle: &CommitBundle) -> Result<CommitSummary> {
        let now = SystemClock.now();
        let verified = self.state.verify_commit(&office().federation(), &sender.uri, &bundle.commit, now)?;
        self.state = verified.next;
        self.append(EventKind::Commit, &sender.uri, bundle.commit.clone());
        Ok(verified.summary)
    }

    /// The same for a proposal to leave.
    ///
    /// # Errors
    /// If the rules refuse.
    pub fn leave(&mut self, sender: &Device, proposal: Vec<u8>) -> Result<()> {
        self.state = self.state.verify_leave(&sender.uri, &proposal)?.next;
        self.append(EventKind::Proposal, &sender.uri, proposal);
        Ok(())
    }

    /// The same for a Remove that the zone's gateway asks for.
    ///
    /// # Errors
    /// If the rules refuse.
    pub fn removal(&mut self, gateway: &DeviceUri, proposal: Vec<u8>) -> Result<()> {
        self.state = self.state.verify_removal(&proposal)?;
        self.append(EventKind::Proposal, gateway, proposal);
        Ok(())
    }

    /// The head of the log.
    pub fn head(&self) -> Head {
        self.head
    }

    /// `inviter` adds `newcomers`, `members` read it, the newcomers join. Gives the bundle.
    ///
    /// # Errors
    /// If the engine or the rules refuse.
    pub fn seat(&mut self, inviter: &Device, members: &[&Device], newcomers: &[&Device]) -> Result<CommitBundle> {
        let packages: Vec<_> = newcomers.iter().map(|one| one.key_package()).collect();
        let id = self.id;
        let bundle = inviter.run(move |mls, tx, federation| mls.invite(tx, federation, id, &packages))?;
        self.commit(inviter, &bundle)?;
        members.iter().try_for_each(|member| self.feed(member))?;
        let invitation = self.invitation(inviter, &bundle)?;
        for newcomer in newcomers {
            let invitation = invitation.clone();
            newcomer.run(move |mls, tx, federation| mls.join(tx, federation, &invitation).map(|_| ()))?;
        }
        Ok(bundle)
    }

    /// What lies in the inbox of those whom the last event has added.
    ///
    /// # Errors
    /// If the tree cannot be encoded.
    pub fn invitation(&self, inviter: &Device, bundle: &CommitBundle) -> Result<Invitation> {
        Ok(Invitation {
            channel: self.id,
            head: self.head,
            welcome: bundle.welcome.clone(),
            tree: self.state.tree()?.to_vec(),
            inviter: inviter.uri.clone(),
        })
    }

    /// Gives `device` everything behind its head.
    ///
    /// # Errors
    /// If it is no member, or does not take an event in.
    pub fn feed(&self, device: &Device) -> Result<()> {
        let after = device.view(self.id)?.context("it is no member")?.head.sequence;
        self.log.iter().filter(|event| event.sequence > after).try_for_each(|event| {
            device.process(event)?;
            Ok(())
        })
    }

    fn append(&mut self, kind: EventKind, sender: &DeviceUri, mls: Vec<u8>) {
        let event = LogEvent {
            channel: self.id,
            sequence: self.head.sequence.next(),
            kind,
            sender: sender.clone(),
            gateway_time: SystemClock.now(),
            expiry: None,
            mls,
            idempotency_id: fresh_id(),
        };
        let link = ChainLink {
            sequence: event.sequence,
            kind,
            gateway_time: event.gateway_time,
            expiry: None,
            sender: &event.sender,
            mls_hash: Digest::sha256(&event.mls),
        };
        self.head = chain_next(&self.head.chain_hash, &link);
        self.log.push(event);
    }
}
