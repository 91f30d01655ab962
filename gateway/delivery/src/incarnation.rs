//! The next incarnation of a channel: another group that carries it on where a commit has broken the one before (PROTOCOL 2).

use std::sync::Arc;

use bytes::Bytes;
use lianxin_policy::{Permit, StartIncarnation};
use lianxin_profile::{Broken, GroupStart, label_reference, slot};
use lianxin_store::{ChannelHead, ChannelWrite, Effect, NewEvent, Seat};
use lianxin_tlog::{EventKind, Head};
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, DeviceUri, Digest, Epoch, Incarnation, LIMITS, Timestamp};

use crate::channels::{Channels, expect};
use crate::error::DeliveryError;
use crate::group::GroupState;
use crate::messages::check_head;
use crate::report::{commit_at, event_at};

/// A next incarnation that verified; it needs a permit to become a write.
pub struct PreparedIncarnation {
    state: GroupState,
    group_info: Bytes,
    incarnation: Incarnation,
    head: Head,
    culprit: Option<DeviceUri>,
    awaited: Vec<DeviceUri>,
    left: Vec<DeviceUri>,
    before: Arc<ChannelHead>,
    slot: [u8; 16],
}

impl Channels {
    /// Verifies the start of the channel's next incarnation. From a member: the current epoch began with a commit that it has
    /// reported and did not make, so nobody has found a way on since; and everything of [`lianxin_profile::check_next_start`].
    /// From a device that is awaited: whoever started the current incarnation has seated nobody for
    /// [`lianxin_types::Limits::seats_within`]; and everything of [`lianxin_profile::check_start_after`]. Blocking.
    ///
    /// # Errors
    /// [`DeliveryError::UnknownCommit`] if no commit stands there, or the caller has not reported it;
    /// [`DeliveryError::SeatsPending`] for a caller that is awaited and may be seated yet;
    /// [`DeliveryError::SenderMismatch`] for a creator who is not the caller; [`DeliveryError::BadHead`]; broken MLS or profile.
    pub fn verify_incarnation(
        &self,
        federation: &Federation,
        caller: &DeviceUri,
        channel: &ChannelId,
        (group_info, tree): (Bytes, &[u8]),
        now: Timestamp,
    ) -> Result<PreparedIncarnation, DeliveryError> {
        let (before, broken) = self.current(federation, channel)?;
        if before.awaited.contains_key(caller) {
            return self.verify_another(federation, caller, (before, &broken), (group_info, tree), now);
        }
        let commit = commit_at(self.store(), channel, before.epoch_sequence)?;
        let (culprit, sequence) = (commit.sender.clone(), commit.head.sequence);
        if !self.store().has_reported(channel, sequence, caller)? {
            return Err(DeliveryError::UnknownCommit);
        }
        let (group, roster) = (broken.id()?, broken.roster());
        let broken =
            Broken { group: &group, context: broken.context(), roster, culprit: Some(&culprit), commit: sequence };
        let (state, start) = GroupState::start_next(federation, &group_info, tree, broken, now)?;
        if start.roster.of(caller).is_none() {
            return Err(DeliveryError::SenderMismatch);
        }
        check_head(self.store(), channel, &start.head)?;
        let (mut awaited, mut left) = (Vec::new(), Vec::new());
        for (device, member) in before.members.iter().filter(|(device, _)| *device != caller) {
            // Whoever came in by that commit, or was about to go, has no part in what was before it, or is behind it.
            let stays = *device != culprit && member.joined < sequence && !before.leaving.contains(device);
            if stays { awaited.push(device.clone()) } else { left.push(device.clone()) }
        }
        Ok(prepared(state, &start, group_info, (awaited, left), (before, Some(culprit))))
    }

    /// A start in the place of an incarnation whose starter seats nobody.
    fn verify_another(
        &self,
        federation: &Federation,
        caller: &DeviceUri,
        (before, stalled): (Arc<ChannelHead>, &GroupState),
        (group_info, tree): (Bytes, &[u8]),
        now: Timestamp,
    ) -> Result<PreparedIncarnation, DeliveryError> {
        let (group, roster, since) = (stalled.id()?, stalled.roster(), before.epoch_sequence);
        let begun = event_at(self.store(), &group.channel, since)?.filter(|event| event.kind == EventKind::Start);
        let due = begun.is_some_and(|event| now >= event.gateway_time.plus(LIMITS.seats_within));
        if before.epoch != Epoch(0) || !due {
            return Err(DeliveryError::SeatsPending);
        }
        let stalled = Broken { group: &group, context: stalled.context(), roster, culprit: None, commit: since };
        let (state, start) = GroupState::start_after(federation, &group_info, tree, stalled, now)?;
        if start.roster.of(caller).is_none() {
            return Err(DeliveryError::SenderMismatch);
        }
        check_head(self.store(), &group.channel, &start.head)?;
        // Whoever is awaited already stays so, and whose start it was is awaited like them.
        let (left, awaited) = before.members.keys().cloned().partition(|device| before.leaving.contains(device));
        Ok(prepared(state, &start, group_info, (awaited, left), (before, None)))
    }
}

fn prepared(
    state: GroupState,
    start: &GroupStart,
    group_info: Bytes,
    (awaited, left): (Vec<DeviceUri>, Vec<DeviceUri>),
    (before, culprit): (Arc<ChannelHead>, Option<DeviceUri>),
) -> PreparedIncarnation {
    let slot = slot(start.context.slot_key(), &start.group.to_bytes(), Epoch(0));
    let (incarnation, head) = (start.group.incarnation, start.head);
    PreparedIncarnation { state, group_info, incarnation, head, culprit, awaited, left, before, slot }
}

impl PreparedIncarnation {
    /// Which of the channel's groups it is.
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Who made the commit that broke the group before, and is not taken along; `None` where the group before was in order, and
    /// only stood still.
    pub const fn culprit(&self) -> Option<&DeviceUri> {
        self.culprit.as_ref()
    }

    /// Who loses its leaf and is to be seated again; whoever was awaited before is so still.
    pub fn awaited(&self) -> &[DeviceUri] {
        &self.awaited
    }

    /// Slot of the audit leaf.
    pub const fn slot(&self) -> [u8; 16] {
        self.slot
    }

    /// The write, its effects, and the state to advance to once it is accepted.
    pub fn into_write(self, permit: &Permit<StartIncarnation>) -> (ChannelWrite, Vec<Effect>, GroupState) {
        let context = self.state.context();
        let (channel, caller) = (context.channel(), permit.caller().clone());
        let event = NewEvent {
            kind: EventKind::Start,
            sender: caller.clone(),
            expiry: context.label().expires(),
            label_reference: label_reference(context.label()),
            mls_hash: Digest::sha256(&self.group_info),
            mls: self.group_info.clone(),
            head: Some(self.head),
        };
        let effects = vec![
            Effect::Incarnation { incarnation: self.incarnation, awaited: self.awaited },
            Effect::Group {
                epoch: Epoch(0),
                seated: vec![Seat { device: caller, leaf: 0 }],
                unseated: self.left,
                group_info: self.group_info,
            },
            Effect::GroupSnapshot { state: self.state.to_snapshot() },
        ];
        (ChannelWrite { channel, expect: expect(&self.before), event }, effects, self.state)
    }
}
