//! Members that must go whether they want or not: the proposals that the gateway makes with the zone's removal key
//! (PROTOCOL 1, 5). It can ask and nothing more; members commit.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use lianxin_profile::{RemovalData, RemovalReason, label_reference, removal_message};
use lianxin_store::{ChannelHead, ChannelWrite, Effect, Expect, NewEvent};
use lianxin_tlog::EventKind;
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, DeviceUri, Digest, Epoch, GroupId, Label, Timestamp};

use crate::error::DeliveryError;
use crate::group::GroupState;

/// The zone's removal key in the hands of this gateway.
pub struct RemovalKey {
    gateway: DeviceUri,
    key: SigningKey,
}

impl RemovalKey {
    /// `key` is the zone's of the trust bundle; `gateway` is who uses it, the sender of what it signs.
    pub const fn new(gateway: DeviceUri, key: SigningKey) -> Self {
        Self { gateway, key }
    }

    /// Who uses it.
    pub const fn gateway(&self) -> &DeviceUri {
        &self.gateway
    }

    /// Its public half.
    pub(crate) fn public(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// The Remove of the member at `leaf` in this group and epoch.
    pub(crate) fn propose(&self, group: GroupId, epoch: Epoch, leaf: u32, data: &RemovalData) -> Bytes {
        removal_message(group, epoch, leaf, data, |signed| self.key.sign(signed).to_bytes()).into()
    }
}

impl fmt::Debug for RemovalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemovalKey").field("gateway", &self.gateway).finish_non_exhaustive()
    }
}

/// A member that must go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    /// Who.
    pub(crate) device: DeviceUri,
    /// Its leaf.
    pub(crate) leaf: u32,
    /// Why, and by which certificate.
    pub(crate) data: RemovalData,
}

/// A Remove by the gateway, verified against the group that it is for. It needs no permit: nobody asked for it.
pub struct PreparedRemoval {
    pub(crate) due: Due,
    pub(crate) proposal: Bytes,
    pub(crate) next: GroupState,
    pub(crate) gateway: DeviceUri,
    pub(crate) before: Arc<ChannelHead>,
}

/// A Remove that waited when its epoch ended, proposed anew for the next one: it stands directly behind the event that ended
/// the epoch (PROTOCOL 5).
pub struct RenewedRemoval {
    due: Due,
    proposal: Bytes,
    gateway: DeviceUri,
    epoch: Epoch,
    channel: ChannelId,
    label: Label,
}

/// Asks anew, in the state behind an event that ended an epoch, for everybody who must still go; gives the state in which all
/// of it waits. In a channel that names another removal key nobody can be asked for: it comes back all the same, and what is
/// due is asked for once a commit has moved the channel.
///
/// # Errors
/// [`DeliveryError::Profile`] for a credential that is none, [`DeliveryError::Group`].
pub(crate) fn renew(
    state: GroupState,
    key: &RemovalKey,
    federation: &Federation,
    now: Timestamp,
) -> Result<(Vec<RenewedRemoval>, GroupState), DeliveryError> {
    let mut renewed = Vec::new();
    let mut state = state;
    if !state.listens_to(key) {
        return Ok((renewed, state));
    }
    for due in state.due(federation, now)? {
        let (proposal, next) = state.ask_removal(key, &due)?;
        let context = state.context();
        let (channel, label) = (context.channel(), context.label().clone());
        let (gateway, epoch) = (key.gateway().clone(), state.epoch());
        renewed.push(RenewedRemoval { due, proposal, gateway, epoch, channel, label });
        state = next;
    }
    Ok((renewed, state))
}

impl RenewedRemoval {
    /// Who must go.
    pub fn device(&self) -> &DeviceUri {
        &self.due.device
    }

    /// Why.
    pub fn reason(&self) -> RemovalReason {
        self.due.data.reason
    }

    /// The epoch of the proposal.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The write and its effects; only for a follower of the event that ended the epoch before.
    pub fn into_write(self) -> (ChannelWrite, Vec<Effect>) {
        let event = event(self.gateway, &self.label, self.proposal);
        let write = ChannelWrite { channel: self.channel, expect: Expect::Following, event };
        (write, vec![Effect::Removing { device: self.due.device }])
    }
}

/// The event in the log; what it has in place of a head is its evidence.
fn event(gateway: DeviceUri, label: &Label, proposal: Bytes) -> NewEvent {
    NewEvent {
        kind: EventKind::Proposal,
        sender: gateway,
        expiry: label.expires(),
        label_reference: label_reference(label),
        mls_hash: Digest::sha256(&proposal),
        mls: proposal,
        head: None,
    }
}

impl PreparedRemoval {
    /// Who must go.
    pub fn device(&self) -> &DeviceUri {
        &self.due.device
    }

    /// Why.
    pub fn reason(&self) -> RemovalReason {
        self.due.data.reason
    }

    /// The epoch of the proposal.
    pub fn epoch(&self) -> Epoch {
        self.before.epoch
    }

    /// The write, its effects, and the state to advance to once it is accepted.
    pub fn into_write(self) -> (ChannelWrite, Vec<Effect>, GroupState) {
        let expect = Expect::Own { current: self.before.current(), proposals: self.before.proposal_sequence };
        let context = self.next.context();
        let event = event(self.gateway, context.label(), self.proposal);
        let write = ChannelWrite { channel: context.channel(), expect, event };
        (write, vec![Effect::Removing { device: self.due.device }], self.next)
    }
}
