//! A second, naive implementation of what a zone promises: vectors and maps, no keys, no parts, no records.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lianxin_tlog::EventKind;
use lianxin_types::{ChannelId, DepartmentId, DeviceUri, Digest, Epoch, IdempotencyId, LIMITS, Sequence, Timestamp};

use crate::unit::{Effect, Expect, Refused, Unit};

/// What the model says of a unit; hashes are checked by the audit checker instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Predicted {
    pub(super) sequence: Sequence,
    pub(super) gateway_time: Timestamp,
    pub(super) leaf_index: u64,
    pub(super) key_packages: Vec<Bytes>,
    pub(super) is_repeat: bool,
}

#[derive(Debug, Clone)]
pub(super) struct ModelEvent {
    pub(super) sender: DeviceUri,
    pub(super) mls: Bytes,
    pub(super) kind: EventKind,
    pub(super) epoch: Epoch,
    pub(super) time: Timestamp,
    pub(super) leaf: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct ModelChannel {
    pub(super) events: Vec<ModelEvent>,
    pub(super) epoch: Epoch,
    pub(super) epoch_sequence: u64,
    pub(super) members: BTreeMap<DeviceUri, (u32, u64)>,
    pub(super) leaving: Vec<DeviceUri>,
    pub(super) known: BTreeSet<DeviceUri>,
    pub(super) proposal: u64,
    pub(super) group_info: Bytes,
    pub(super) snapshot: Option<(Epoch, u64, Bytes)>,
    named: BTreeMap<DeviceUri, u64>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct ModelPackages {
    pub(super) one_time: Vec<(Digest, Timestamp, Bytes)>,
    pub(super) last_resort: Option<(Digest, Timestamp, Bytes)>,
}

type Scope = (DeviceUri, Option<ChannelId>, &'static str, IdempotencyId);

/// Everything that a zone should hold.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) channels: BTreeMap<ChannelId, ModelChannel>,
    pub(super) packages: BTreeMap<DeviceUri, ModelPackages>,
    pub(super) claims: BTreeMap<(ChannelId, Digest), (DeviceUri, DepartmentId, Timestamp)>,
    /// All entries ever made, confirmed or not.
    pub(super) inboxes: BTreeMap<DeviceUri, Vec<(ChannelId, u64, Bytes, bool)>>,
    pub(super) cursors: BTreeMap<(DeviceUri, ChannelId), u64>,
    remembered: BTreeMap<Scope, (Digest, Predicted)>,
    pub(super) leaves: u64,
}

impl Model {
    /// What should become of the unit at `now`; changes the model if it is accepted.
    pub(super) fn commit(&mut self, unit: &Unit, now: Timestamp) -> Result<Predicted, Refused> {
        let scope = unit.idempotency.as_ref().map(|call| (call.device.clone(), call.channel, call.call, call.id));
        if let (Some(scope), Some(call)) = (&scope, &unit.idempotency)
            && let Some((bytes_hash, answer)) = self.remembered.get(scope)
        {
            let repeat = Predicted { is_repeat: true, ..answer.clone() };
            return if *bytes_hash == call.bytes_hash { Ok(repeat) } else { Err(Refused::IdReused) };
        }
        self.allowed(unit)?;
        let last = unit.channel.as_ref().and_then(|write| self.channels.get(&write.channel)?.events.last());
        let gateway_time = last.map_or(now, |last| last.time.max(now));
        let key_packages = self.take(unit, gateway_time)?;
        let sequence = self.append(unit, gateway_time);
        for effect in &unit.effects {
            self.apply(unit, effect, gateway_time, sequence);
        }
        let answer = Predicted {
            sequence: Sequence(sequence),
            gateway_time,
            leaf_index: self.leaves,
            key_packages,
            is_repeat: false,
        };
        self.leaves += 1;
        if let (Some(scope), Some(call)) = (scope, &unit.idempotency) {
            self.remembered.insert(scope, (call.bytes_hash, answer.clone()));
        }
        Ok(answer)
    }

    fn allowed(&self, unit: &Unit) -> Result<(), Refused> {
        for effect in &unit.effects {
            let Effect::ReplaceGroupInfo { channel, current, .. } = effect else { continue };
            let channel = self.channels.get(channel).ok_or(Refused::NoChannel)?;
            if channel.epoch != current.epoch {
                let head = Sequence(channel.events.len() as u64);
                return Err(Refused::WrongEpoch { current: channel.epoch, head });
            }
        }
        let Some(write) = &unit.channel else { return Ok(()) };
        let channel = self.channels.get(&write.channel);
        let (epoch, proposals) = match (write.expect, channel) {
            (Expect::Absent, None) => return Ok(()),
            (Expect::Absent, Some(_)) => return Err(Refused::ChannelExists),
            (Expect::Epoch(current), _) => (current.epoch, None),
            (Expect::State { current, proposals }, _) => (current.epoch, Some(proposals.0)),
            (other, _) => panic!("the random units do not expect {other:?}"),
        };
        let channel = channel.ok_or(Refused::NoChannel)?;
        let (event, count) = (&write.event, channel.events.len() as u64);
        if !channel.members.contains_key(&event.sender) {
            return Err(Refused::NotMember);
        }
        if channel.leaving.contains(&event.sender) {
            return Err(Refused::Leaving);
        }
        if epoch != channel.epoch {
            return Err(Refused::WrongEpoch { current: channel.epoch, head: Sequence(count) });
        }
        if proposals.is_some_and(|seen| seen != channel.proposal) {
            return Err(Refused::ProposalsWait { sequence: Sequence(channel.proposal) });
        }
        if channel.events.iter().any(|old| old.epoch == epoch && old.mls == event.mls) {
            return Err(Refused::Duplicate);
        }
        let Some(named) = event.head.map(|head| head.sequence.0) else { return Ok(()) };
        let previous = channel.named.get(&event.sender).copied().unwrap_or(0);
        if named < channel.epoch_sequence || named < previous || named > count { Err(Refused::BadHead) } else { Ok(()) }
    }

    fn take(&mut self, unit: &Unit, time: Timestamp) -> Result<Vec<Bytes>, Refused> {
        let mut packages = self.packages.clone();
        let mut claims = self.claims.clone();
        let mut taken = Vec::new();
        for effect in &unit.effects {
            let Effect::ClaimKeyPackages { channel, department, owners } = effect else { continue };
            for owner in owners {
                let stock = packages.entry(owner.clone()).or_default();
                if let Some(index) = stock.one_time.iter().position(|(_, end, _)| *end > time) {
                    let limit = LIMITS.department_unused_claims_max;
                    let theirs = |who: &DeviceUri, by: &DepartmentId| who == owner && by == department;
                    let living = claims.values().filter(|(who, by, end)| theirs(who, by) && *end > time).count();
                    if living >= limit {
                        let what = "unused claims of a department on a device";
                        return Err(Refused::LimitReached { what, limit: limit as u64 });
                    }
                    let (reference, end, bytes) = stock.one_time.remove(index);
                    claims.retain(|_, (who, by, end)| !theirs(who, by) || *end > time);
                    claims.insert((*channel, reference), (owner.clone(), department.clone(), end));
                    taken.push(bytes);
                } else if let Some((_, _, bytes)) = stock.last_resort.iter().find(|(_, end, _)| *end > time) {
                    taken.push(bytes.clone());
                } else {
                    return Err(Refused::NoKeyPackage { owner: owner.clone() });
                }
            }
        }
        self.packages = packages;
        self.claims = claims;
        Ok(taken)
    }

    fn append(&mut self, unit: &Unit, time: Timestamp) -> u64 {
        let Some(write) = &unit.channel else { return 0 };
        let channel = self.channels.entry(write.channel).or_default();
        let event = &write.event;
        let (epoch, leaf) = (channel.epoch, self.leaves);
        channel.events.push(ModelEvent {
            sender: event.sender.clone(),
            mls: event.mls.clone(),
            kind: event.kind,
            epoch,
            time,
            leaf,
        });
        let sequence = channel.events.len() as u64;
        if sequence == 1 {
            channel.epoch_sequence = 1;
        }
        if event.kind == EventKind::Proposal {
            channel.proposal = sequence;
        }
        if let Some(head) = event.head {
            channel.named.insert(event.sender.clone(), head.sequence.0);
        }
        sequence
    }

    fn apply(&mut self, unit: &Unit, effect: &Effect, time: Timestamp, sequence: u64) {
        let write = unit.channel.as_ref();
        match effect {
            Effect::Group { epoch, seated, unseated, group_info } => {
                let Some(channel) = write.and_then(|write| self.channels.get_mut(&write.channel)) else { return };
                channel.leaving.clear();
                for device in unseated {
                    channel.members.remove(device);
                }
                for seat in seated {
                    let joined = channel.members.get(&seat.device).map_or(sequence, |(_, joined)| *joined);
                    channel.members.insert(seat.device.clone(), (seat.leaf, joined));
                    channel.known.insert(seat.device.clone());
                }
                (channel.epoch, channel.epoch_sequence, channel.proposal) = (*epoch, sequence, 0);
                channel.group_info = group_info.clone();
            }
            Effect::ReplaceGroupInfo { channel, group_info, .. } => {
                let Some(channel) = self.channels.get_mut(channel) else { return };
                channel.group_info = group_info.clone();
            }
            Effect::GroupSnapshot { state } => {
                let Some(channel) = write.and_then(|write| self.channels.get_mut(&write.channel)) else { return };
                channel.snapshot = Some((channel.epoch, sequence, state.clone()));
            }
            Effect::Welcome { recipients, welcome, .. } => {
                let Some(id) = write.map(|write| write.channel) else { return };
                for recipient in recipients {
                    self.inboxes.entry(recipient.clone()).or_default().push((id, sequence, welcome.clone(), false));
                    self.channels.entry(id).or_default().known.insert(recipient.clone());
                }
            }
            Effect::Leaving { device } => {
                let Some(channel) = write.and_then(|write| self.channels.get_mut(&write.channel)) else { return };
                if channel.members.contains_key(device) && !channel.leaving.contains(device) {
                    channel.leaving.push(device.clone());
                }
            }
            Effect::PublishKeyPackages { owner, one_time, last_resort } => {
                let stock = self.packages.entry(owner.clone()).or_default();
                stock.one_time.retain(|(_, end, _)| *end > time);
                for item in one_time {
                    if stock.one_time.iter().all(|(reference, _, _)| *reference != item.reference) {
                        stock.one_time.push((item.reference, item.not_after, item.bytes.clone()));
                    }
                }
                if let Some(item) = last_resort {
                    stock.last_resort = Some((item.reference, item.not_after, item.bytes.clone()));
                }
            }
            Effect::ClaimKeyPackages { .. } | Effect::DropBuckets { .. } => {}
            Effect::Incarnation { .. }
            | Effect::Removing { .. }
            | Effect::Report { .. }
            | Effect::AllowCommitter { .. } => {
                panic!("the random units do not have {effect:?}")
            }
            Effect::UseClaims { channel, references } => {
                references.iter().for_each(|reference| {
                    self.claims.remove(&(*channel, *reference));
                });
            }
            Effect::ConfirmInbox { device, ids } => {
                let entries = self.inboxes.entry(device.clone()).or_default();
                for id in ids {
                    if let Some(entry) = (*id as usize).checked_sub(1).and_then(|index| entries.get_mut(index)) {
                        entry.3 = true;
                    }
                }
            }
        }
    }
}
