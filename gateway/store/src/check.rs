//! Whether a unit may be committed, decided before anything of it is changed.

use std::collections::BTreeSet;

use lianxin_tlog::{EventKind, Head};
use lianxin_types::{DeviceUri, Epoch, LIMITS, Sequence, Timestamp};

use crate::change::Taken;
use crate::claim;
use crate::draft::Draft;
use crate::engine::Engine;
use crate::key;
use crate::record::{damaged, scope_digest};
use crate::state::{RememberedRow, decode_item};
use crate::unit::{ChannelWrite, Effect, Expect, GroupEpoch, Idempotency, KeyPackageItem, Refused, Unit};
use crate::zone_store::{ChannelHead, StoreError};

/// The answer of a check: what the caller did wrong apart from what the engine did wrong.
pub(crate) type Checked<T> = Result<Result<T, Refused>, StoreError>;

/// Passes a refusal on to the caller.
macro_rules! allow {
    ($checked:expr) => {
        match $checked {
            Ok(value) => value,
            Err(refused) => return Ok(Err(refused)),
        }
    };
}

/// What an earlier call with the same scope and id got.
pub(crate) fn remembered<E: Engine>(
    draft: &Draft<'_, E>,
    call: &Idempotency,
) -> Result<Option<RememberedRow>, StoreError> {
    draft.read("remembered call", &key::remembered(&scope_digest(call)), RememberedRow::decode)
}

/// Checks the unit's event and effects; gives what each claim takes, in the order of the effects.
pub(crate) fn check<E: Engine>(draft: &mut Draft<'_, E>, unit: &Unit, now: Timestamp) -> Checked<Vec<Vec<Taken>>> {
    if let Some(write) = &unit.channel {
        allow!(check_event(draft, write)?);
    }
    let mut taken_before = BTreeSet::new();
    let mut taken = Vec::with_capacity(unit.effects.len());
    for effect in &unit.effects {
        taken.push(allow!(check_effect(draft, unit, effect, now, &mut taken_before)?));
    }
    Ok(Ok(taken))
}

fn check_event<E: Engine>(draft: &mut Draft<'_, E>, write: &ChannelWrite) -> Checked<()> {
    let sender = &write.event.sender;
    let (current, proposals) = match write.expect {
        Expect::Absent if draft.channel(&write.channel).is_some() => return Ok(Err(Refused::ChannelExists)),
        Expect::Absent => return Ok(Ok(())),
        Expect::Following => return Ok(Err(Refused::NotTogether)),
        Expect::Epoch(current) => (Some(current), None),
        Expect::State { current, proposals } | Expect::Own { current, proposals } => (Some(current), Some(proposals)),
        Expect::Member => (None, None),
    };
    let Some(channel) = draft.channel_mut(&write.channel) else { return Ok(Err(Refused::NoChannel)) };
    let head = channel.view();
    if !matches!(write.expect, Expect::Own { .. }) {
        allow!(check_sender(head, write, current));
    }
    let Some(current) = current else { return Ok(Ok(())) };
    if head.current() != current {
        return Ok(Err(Refused::WrongEpoch { current: head.epoch, head: channel.head.sequence }));
    }
    if proposals.is_some_and(|proposals| proposals != head.proposal_sequence) {
        return Ok(Err(Refused::ProposalsWait { sequence: head.proposal_sequence }));
    }
    // A leaf that must go blocks messages until its Remove is committed (PROTOCOL 1).
    if write.event.kind == EventKind::Application && head.removal_sequence > Sequence(0) {
        return Ok(Err(Refused::ProposalsWait { sequence: head.removal_sequence }));
    }
    let (epoch_sequence, last) = (head.epoch_sequence, channel.head.sequence);
    if draft.get(&key::duplicate(&write.channel, current.epoch, &write.event.mls_hash))?.is_some() {
        return Ok(Err(Refused::Duplicate));
    }
    let Some(Head { sequence, .. }) = write.event.head else { return Ok(Ok(())) };
    let previous = Sequence(draft.number(&key::previous_head(&write.channel, sender))?);
    let is_good = sequence >= epoch_sequence && sequence >= previous && sequence <= last;
    Ok(if is_good { Ok(()) } else { Err(Refused::BadHead) })
}

fn check_sender(head: &ChannelHead, write: &ChannelWrite, current: Option<GroupEpoch>) -> Result<(), Refused> {
    let sender = &write.event.sender;
    // Who is awaited may start another group in the place of one that has seated nobody.
    let is_stalled = head.epoch == Epoch(0) && current == Some(head.current());
    let may_start = write.event.kind == EventKind::Start && is_stalled && head.awaited.contains_key(sender);
    if !may_start && !head.members.contains_key(sender) {
        return Err(Refused::NotMember);
    }
    if head.leaving.contains(sender) {
        return Err(Refused::Leaving);
    }
    if matches!(write.event.kind, EventKind::Commit | EventKind::Start) && head.paused.contains(sender) {
        return Err(Refused::CommitterPaused);
    }
    Ok(())
}

/// Whether the unit's followers can stand directly behind it, whatever else is in the batch: nothing of them is decided at
/// the time of committing.
pub(crate) fn check_followers(unit: &Unit) -> Result<(), Refused> {
    let place = unit.channel.as_ref().map(|write| write.channel);
    let fits = |follower: &Unit| {
        let is_behind = follower
            .channel
            .as_ref()
            .is_some_and(|write| Some(write.channel) == place && write.expect == Expect::Following);
        let is_decided = |effect: &Effect| matches!(effect, Effect::Removing { .. } | Effect::GroupSnapshot { .. });
        is_behind
            && follower.idempotency.is_none()
            && follower.followers.is_empty()
            && follower.effects.iter().all(is_decided)
    };
    if unit.followers.iter().all(fits) { Ok(()) } else { Err(Refused::NotTogether) }
}

fn check_effect<E: Engine>(
    draft: &mut Draft<'_, E>,
    unit: &Unit,
    effect: &Effect,
    now: Timestamp,
    taken_before: &mut BTreeSet<(DeviceUri, u64)>,
) -> Checked<Vec<Taken>> {
    match effect {
        // These change the channel that the unit writes to.
        Effect::Incarnation { .. }
        | Effect::GroupSnapshot { .. }
        | Effect::Welcome { .. }
        | Effect::Leaving { .. }
        | Effect::Removing { .. }
        | Effect::Report { .. }
            if unit.channel.is_none() =>
        {
            Ok(Err(Refused::NoChannel))
        }
        Effect::AllowCommitter { channel, .. } if draft.channel(channel).is_none() => Ok(Err(Refused::NoChannel)),
        Effect::Report { reporter, commit, .. } => {
            let Some(write) = &unit.channel else { return Ok(Err(Refused::NoChannel)) };
            let is_repeated = draft.get(&key::reported(&write.channel, *commit, reporter))?.is_some();
            Ok(if is_repeated { Err(Refused::Duplicate) } else { Ok(Vec::new()) })
        }
        Effect::Group { seated, unseated, .. } => {
            let Some(write) = &unit.channel else { return Ok(Err(Refused::NoChannel)) };
            let is_new = |device: &DeviceUri| !unseated.contains(device);
            for seat in seated.iter().filter(|seat| is_new(&seat.device)) {
                let is_member = draft.get(&key::channel_of(&seat.device, &write.channel))?.is_some();
                let limit = LIMITS.device_channels_max as u64;
                if !is_member && draft.number(&key::channel_count(&seat.device))? >= limit {
                    return Ok(Err(Refused::LimitReached { what: "channels of a device", limit }));
                }
            }
            Ok(Ok(Vec::new()))
        }
        Effect::ReplaceGroupInfo { channel, current, .. } => {
            let Some(channel) = draft.channel_mut(channel) else { return Ok(Err(Refused::NoChannel)) };
            let head = channel.view();
            let refused = Refused::WrongEpoch { current: head.epoch, head: channel.head.sequence };
            Ok(if head.current() == *current { Ok(Vec::new()) } else { Err(refused) })
        }
        Effect::PublishKeyPackages { owner, one_time, .. } => {
            let living = living_packages(draft, owner, now)?;
            let fresh =
                one_time.iter().filter(|new| living.iter().all(|(_, old)| old.reference != new.reference)).count();
            let limit = LIMITS.device_key_packages_max;
            let refused = Refused::LimitReached { what: "key packages of a device", limit: limit as u64 };
            Ok(if living.len() + fresh > limit { Err(refused) } else { Ok(Vec::new()) })
        }
        Effect::ClaimKeyPackages { department, owners, .. } => {
            let mut taken = Vec::with_capacity(owners.len());
            for owner in owners {
                let one = allow!(choose(draft, owner, now, taken_before)?);
                let limit = LIMITS.department_unused_claims_max;
                if one.ordinal > 0 && claim::living(draft, owner, department, now)? >= limit {
                    let what = "unused claims of a department on a device";
                    return Ok(Err(Refused::LimitReached { what, limit: limit as u64 }));
                }
                taken.push(one);
            }
            Ok(Ok(taken))
        }
        _ => Ok(Ok(Vec::new())),
    }
}

/// The oldest one-time package that lives on, else the last resort, which is not used up.
fn choose<E: Engine>(
    draft: &Draft<'_, E>,
    owner: &DeviceUri,
    now: Timestamp,
    taken_before: &mut BTreeSet<(DeviceUri, u64)>,
) -> Checked<Taken> {
    for (ordinal, item) in living_packages(draft, owner, now)? {
        if taken_before.insert((owner.clone(), ordinal)) {
            return Ok(Ok(Taken { owner: owner.clone(), ordinal, item }));
        }
    }
    let last_resort = draft.read("last resort", &key::last_resort(owner), decode_item)?;
    Ok(match last_resort.filter(|item| item.not_after > now) {
        Some(item) => Ok(Taken { owner: owner.clone(), ordinal: 0, item }),
        None => Err(Refused::NoKeyPackage { owner: owner.clone() }),
    })
}

/// One-time packages with their numbers, oldest first.
pub(crate) fn packages<E: Engine>(
    draft: &Draft<'_, E>,
    owner: &DeviceUri,
) -> Result<Vec<(u64, KeyPackageItem)>, StoreError> {
    let prefix = key::one_times(owner);
    let mut packages = Vec::new();
    for (row_key, record) in draft.scan(&prefix)? {
        let ordinal = row_key[prefix.len()..].try_into().map(u64::from_be_bytes);
        let ordinal = ordinal.map_err(|_| StoreError::Damaged { what: "key package" })?;
        packages.push((ordinal, decode_item(record).map_err(damaged("key package"))?));
    }
    Ok(packages)
}

fn living_packages<E: Engine>(
    draft: &Draft<'_, E>,
    owner: &DeviceUri,
    now: Timestamp,
) -> Result<Vec<(u64, KeyPackageItem)>, StoreError> {
    let mut packages = packages(draft, owner)?;
    packages.retain(|(_, item)| item.not_after > now);
    Ok(packages)
}
