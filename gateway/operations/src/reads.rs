//! What a device may read of its channels: their list, and the public state that joiners and those who come back need.

use std::sync::Arc;

use bytes::Bytes;
use lianxin_audit::AuditEvent;
use lianxin_delivery::PublicState;
use lianxin_identity::Caller;
use lianxin_store::{ChannelHead, StoreError, ZoneStore};
use lianxin_types::{ChannelId, DeviceUri, Epoch, Incarnation, Sequence};

use crate::gate::Operations;
use crate::refusal::Refusal;

/// A channel of the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelSummary {
    /// The channel.
    pub channel: ChannelId,
    /// Current epoch.
    pub epoch: Epoch,
    /// Carrying group.
    pub incarnation: Incarnation,
    /// Last event.
    pub head: Sequence,
    /// The event that seated the caller.
    pub joined: Sequence,
    /// Members now.
    pub member_count: usize,
}

/// The public state of the current epoch.
#[derive(Debug, Clone)]
pub struct GroupInfoPage {
    /// As the last committer signed it.
    pub group_info: Bytes,
    /// The public tree.
    pub tree: Bytes,
    /// The channel's head when it was read.
    pub head: Sequence,
}

/// Channels on one page of a list.
const LIST_PAGE: usize = 200;
/// Invitations looked through at a time; each can be as large as a commit bundle.
const INBOX_PAGE: usize = 8;

impl Operations {
    /// The tree that goes with the Welcome made at `sequence`, for whom that commit seated.
    ///
    /// # Errors
    /// [`Refusal`] as listed at `Channels.GetWelcomeTree` in the contract.
    pub async fn welcome_tree(
        &self,
        caller: &Caller,
        channel: ChannelId,
        sequence: Sequence,
    ) -> Result<Bytes, Refusal> {
        const ACTION: &str = "welcome-tree";
        let facts = self.audited_facts(caller, ACTION, channel).await?;
        let permit = self.guard.engine.read_public_state(&self.request(caller, facts.as_ref()));
        let permit = self.permitted(caller, ACTION, facts.as_ref(), permit).await?;
        let version = permit.policy_version();
        self.guard.record_read(AuditEvent::WelcomeTreeRead, &caller.uri, Some(channel), version).await?;
        let (store, device) = (Arc::clone(&self.guard.store), caller.uri.clone());
        let tree = self
            .guard
            .blocking(move || {
                let head = store.head(&channel)?;
                let member = head.as_ref().and_then(|head| head.members.get(&device));
                let is_seated_there = match member {
                    // Who was seated by it in the group that carries the channel on has been there for longer.
                    Some(member) if member.joined < sequence => is_invited(&*store, &device, channel, sequence)?,
                    member => member.is_some_and(|member| member.joined == sequence),
                };
                if is_seated_there { store.welcome_tree(&channel, sequence) } else { Ok(None) }
            })
            .await??;
        match tree {
            Some(tree) => Ok(tree),
            None => Err(self.guard.refuse(&caller.uri, ACTION, Some(channel), Refusal::ChannelNotAvailable).await),
        }
    }

    /// GroupInfo and tree of the current epoch, for a member.
    ///
    /// # Errors
    /// [`Refusal`] as listed at `Channels.GetGroupInfo` in the contract.
    pub async fn group_info(&self, caller: &Caller, channel: ChannelId) -> Result<GroupInfoPage, Refusal> {
        const ACTION: &str = "group-info";
        let facts = self.audited_facts(caller, ACTION, channel).await?;
        let permit = self.guard.engine.read_public_state(&self.request(caller, facts.as_ref()));
        let permit = self.permitted(caller, ACTION, facts.as_ref(), permit).await?;
        let version = permit.policy_version();
        self.guard.record_read(AuditEvent::GroupInfoRead, &caller.uri, Some(channel), version).await?;
        let (guard, channels, device) = (Arc::clone(&self.guard), Arc::clone(&self.channels), caller.uri.clone());
        let page = self.guard.blocking(move || {
            let PublicState { head, group_info, tree } = channels.public_state(&guard.federation(), &channel)?;
            // It may have lost its leaf while the read was being recorded.
            match head.members.contains_key(&device) {
                true => Ok(GroupInfoPage { group_info, tree, head: head.head.sequence }),
                false => Err(Refusal::NotMember),
            }
        });
        match page.await? {
            Ok(page) => Ok(page),
            Err(refusal) => Err(self.guard.refuse(&caller.uri, ACTION, Some(channel), refusal).await),
        }
    }

    /// A page of the caller's channels behind `after`, ascending by id, and whether more follow.
    ///
    /// # Errors
    /// [`Refusal`] as listed at `Channels.List` in the contract.
    pub async fn list(
        &self,
        caller: &Caller,
        after: Option<ChannelId>,
    ) -> Result<(Vec<ChannelSummary>, bool), Refusal> {
        let permit = self.guard.engine.list_channels(&self.request(caller, None));
        let permit = self.permitted(caller, "list", None, permit).await?;
        let version = permit.policy_version();
        self.guard.record_read(AuditEvent::ChannelsListed, &caller.uri, None, version).await?;
        let (store, device) = (Arc::clone(&self.guard.store), caller.uri.clone());
        self.guard
            .blocking(move || {
                let mut ids = store.channels_of(&device, after.as_ref(), LIST_PAGE + 1)?;
                let has_more = ids.len() > LIST_PAGE;
                ids.truncate(LIST_PAGE);
                let mut page = Vec::with_capacity(ids.len());
                for channel in ids {
                    let head = store.head(&channel)?;
                    page.extend(head.and_then(|head| summary(channel, &head, &device)));
                }
                Ok((page, has_more))
            })
            .await?
    }
}

/// Whether the Welcome that was made at `sequence` waits for the device.
fn is_invited(
    store: &dyn ZoneStore,
    device: &DeviceUri,
    channel: ChannelId,
    sequence: Sequence,
) -> Result<bool, StoreError> {
    let mut after = 0;
    loop {
        let page = store.inbox(device, after, INBOX_PAGE)?;
        let Some(last) = page.last().map(|entry| entry.id) else { return Ok(false) };
        if page.iter().any(|entry| entry.channel == channel && entry.head.sequence == sequence) {
            return Ok(true);
        }
        after = last;
    }
}

fn summary(channel: ChannelId, head: &ChannelHead, device: &DeviceUri) -> Option<ChannelSummary> {
    let joined = head.in_channel_since(device)?;
    Some(ChannelSummary {
        channel,
        epoch: head.epoch,
        incarnation: head.incarnation,
        head: head.head.sequence,
        joined,
        member_count: head.members.len(),
    })
}
