//! What a record of the journal does to the state. The committer and the replay at open both come through here, and it
//! decides nothing: everything that was decided is in the record.

use lianxin_tlog::{EventKind, Head};
use lianxin_types::{ChannelId, DepartmentId, DeviceUri, Digest, Epoch, Incarnation, Sequence, Timestamp};

use crate::change::Change;
use crate::check::packages;
use crate::claim;
use crate::draft::Draft;
use crate::engine::Engine;
use crate::forgetting::{forget_buckets, forget_duplicates, remember_time};
use crate::key;
use crate::record::{EventRecord, UnitRecord};
use crate::state::{
    InboxRow, Place as Standing, RememberedRow, RosterRow, encode_bytes, encode_department, encode_item, encode_number,
    encode_packages, encode_snapshot,
};
use crate::unit::{Accepted, Effect, KeyPackageItem, Seat};
use crate::zone_store::{GroupSnapshot, Member, StoreError};

/// A department's newest part.
pub(crate) struct DepartmentStep {
    pub(crate) department: DepartmentId,
    pub(crate) counter: u64,
    pub(crate) commitment: Digest,
}

/// A unit with its place.
pub(crate) struct Placed<'a> {
    pub(crate) leaf_index: u64,
    /// Number of the bucket that it lies in.
    pub(crate) bucket: u64,
    pub(crate) unit: &'a UnitRecord,
    pub(crate) changes: &'a [Change],
    pub(crate) departments: &'a [DepartmentStep],
}

impl Placed<'_> {
    /// The answer that its caller gets.
    pub(crate) fn accepted(&self) -> Accepted {
        let event = self.unit.event.as_ref();
        Accepted {
            sequence: event.map_or(Sequence(0), |event| event.head.sequence),
            chain_hash: event.map_or(Digest::ZERO, |event| event.head.chain_hash),
            gateway_time: self.unit.gateway_time,
            expiry: event.and_then(|event| event.expiry),
            leaf_index: self.leaf_index,
            leaf_hash: self.unit.leaf_hash,
            key_packages: self
                .changes
                .iter()
                .flat_map(|change| &change.taken)
                .map(|taken| taken.item.bytes.clone())
                .collect(),
            is_repeat: false,
        }
    }
}

/// Applies one record.
///
/// # Errors
/// [`StoreError`] if the engine failed or the state is damaged.
pub(crate) fn apply<E: Engine>(draft: &mut Draft<'_, E>, placed: &Placed<'_>) -> Result<(), StoreError> {
    for step in placed.departments {
        draft.put(key::department(&step.department), encode_department(step.counter, &step.commitment));
    }
    if let Some(call) = &placed.unit.call {
        let mut accepted = placed.accepted();
        let taken = std::mem::take(&mut accepted.key_packages);
        let row = RememberedRow { bytes_hash: call.bytes_hash, accepted, packages: taken.len() as u32 };
        draft.put(key::remembered(&call.scope), row.encode());
        if !taken.is_empty() {
            draft.put(key::remembered_packages(&call.scope), encode_packages(&taken));
        }
        remember_time(draft, &call.scope, placed.unit.gateway_time)?;
    }
    let time = placed.unit.gateway_time;
    let mut place = None;
    if let Some(event) = &placed.unit.event {
        apply_event(draft, event, time, placed.bucket)?;
        place = Some(Place { channel: event.channel, head: event.head, time });
    }
    let mut ordinal = 0;
    for change in placed.changes {
        apply_change(draft, change, place.as_ref(), time, &mut ordinal)?;
    }
    draft.put_number(key::APPLIED.to_vec(), placed.leaf_index + 1);
    Ok(())
}

/// The event that effects belong to.
struct Place {
    channel: ChannelId,
    head: Head,
    time: Timestamp,
}

const NO_EVENT: StoreError = StoreError::Damaged { what: "effect on a channel without an event" };

fn apply_event<E: Engine>(
    draft: &mut Draft<'_, E>,
    event: &EventRecord,
    time: Timestamp,
    bucket: u64,
) -> Result<(), StoreError> {
    let id = event.channel;
    let sequence = event.head.sequence;
    if sequence == Sequence(1) {
        draft.start_channel(id);
    }
    let channel =
        draft.channel_mut(&id).ok_or(StoreError::Damaged { what: "event of a channel that was not started" })?;
    let is_new_bucket = channel.bucket != bucket;
    let epoch = channel.view().epoch;
    channel.head = event.head;
    channel.last_time = time;
    channel.bucket = bucket;
    if sequence == Sequence(1) {
        let head = channel.edit();
        head.epoch_sequence = sequence;
        head.label_reference = event.label_reference;
    }
    if event.kind == EventKind::Proposal {
        channel.edit().proposal_sequence = sequence;
    }
    let forgets_duplicates = channel.duplicates_from < epoch;
    if is_new_bucket {
        draft.put_number(key::bucket_of(&id, sequence), bucket);
        forget_buckets(draft, &id)?;
    }
    if forgets_duplicates {
        let left = forget_duplicates(draft, &id, epoch)?;
        draft.channel_mut(&id).ok_or(NO_EVENT)?.duplicates_from = left;
    }
    draft.put(key::duplicate(&id, epoch, &event.mls_hash), encode_bytes(&[]));
    if let Some(named) = event.sender_head {
        draft.put_number(key::previous_head(&id, &event.sender), named.0);
    }
    Ok(())
}

fn apply_change<E: Engine>(
    draft: &mut Draft<'_, E>,
    change: &Change,
    place: Option<&Place>,
    time: Timestamp,
    ordinal: &mut u8,
) -> Result<(), StoreError> {
    match &change.effect {
        Effect::Group { epoch, seated, unseated, group_info } => {
            let place = place.ok_or(NO_EVENT)?;
            apply_group(draft, place, *epoch, seated, unseated)?;
            draft.put(key::group_info(&place.channel), encode_bytes(group_info));
        }
        Effect::Incarnation { incarnation, awaited } => {
            apply_incarnation(draft, place.ok_or(NO_EVENT)?, *incarnation, awaited)?;
        }
        Effect::ReplaceGroupInfo { channel, group_info, .. } => {
            draft.put(key::group_info(channel), encode_bytes(group_info));
        }
        Effect::GroupSnapshot { state } => {
            let place = place.ok_or(NO_EVENT)?;
            let epoch = draft.channel_mut(&place.channel).ok_or(NO_EVENT)?.view().epoch;
            let snapshot = GroupSnapshot { epoch, sequence: place.head.sequence, state: state.clone() };
            draft.put(key::snapshot(&place.channel), encode_snapshot(&snapshot));
        }
        Effect::Welcome { recipients, .. } if recipients.is_empty() => {}
        Effect::Welcome { recipients, inviter, welcome, tree } => {
            let place = place.ok_or(NO_EVENT)?;
            let (channel, sequence) = (&place.channel, place.head.sequence);
            draft.put(key::welcome(channel, sequence, *ordinal), encode_bytes(welcome));
            draft.put(key::welcome_tree(channel, sequence, *ordinal), encode_bytes(tree));
            draft.put_number(key::welcome_waiting(channel, sequence, *ordinal), recipients.len() as u64);
            for recipient in recipients {
                put_inbox(draft, place, recipient, inviter, *ordinal)?;
            }
            *ordinal = ordinal.saturating_add(1);
        }
        Effect::Leaving { device } => apply_leaving(draft, place.ok_or(NO_EVENT)?, device)?,
        Effect::Removing { device } => {
            let place = place.ok_or(NO_EVENT)?;
            apply_leaving(draft, place, device)?;
            draft.channel_mut(&place.channel).ok_or(NO_EVENT)?.edit().removal_sequence = place.head.sequence;
        }
        Effect::Report { reporter, committer, commit } => {
            apply_report(draft, place.ok_or(NO_EVENT)?, reporter, committer, *commit)?;
        }
        Effect::AllowCommitter { channel, device } => apply_allowed(draft, channel, device)?,
        Effect::PublishKeyPackages { owner, one_time, last_resort } => {
            publish(draft, owner, one_time, last_resort.as_ref(), time)?
        }
        Effect::ClaimKeyPackages { channel, department, .. } => {
            for taken in change.taken.iter().filter(|taken| taken.ordinal > 0) {
                draft.delete(key::one_time(&taken.owner, taken.ordinal));
                claim::note(draft, channel, department, taken, time)?;
            }
        }
        Effect::UseClaims { channel, references } => {
            for reference in references {
                claim::forget(draft, channel, reference)?;
            }
        }
        Effect::DropBuckets { before } => {
            let dropped = draft.number(key::DROPPED)?;
            draft.put_number(key::DROPPED.to_vec(), dropped.max(*before));
        }
        Effect::ConfirmInbox { device, ids } => {
            for id in ids {
                confirm(draft, device, *id)?;
            }
        }
    }
    Ok(())
}

fn apply_incarnation<E: Engine>(
    draft: &mut Draft<'_, E>,
    place: &Place,
    incarnation: Incarnation,
    awaited: &[DeviceUri],
) -> Result<(), StoreError> {
    let channel = draft.channel_mut(&place.channel).ok_or(NO_EVENT)?;
    // Epochs begin at 0 again.
    channel.duplicates_from = Epoch(0);
    let head = channel.edit();
    head.incarnation = incarnation;
    let mut rows = Vec::new();
    for device in awaited {
        if let Some(Member { joined, .. }) = head.members.remove(device) {
            head.awaited.insert(device.clone(), joined);
            rows.push((device, joined));
        }
    }
    for (device, joined) in rows {
        edit_roster(draft, &place.channel, device, |row| {
            (row.place, row.leaving) = (Standing::Awaited { joined }, Sequence(0));
        })?;
    }
    Ok(())
}

fn apply_group<E: Engine>(
    draft: &mut Draft<'_, E>,
    place: &Place,
    epoch: Epoch,
    seated: &[Seat],
    unseated: &[DeviceUri],
) -> Result<(), StoreError> {
    let channel = draft.channel_mut(&place.channel).ok_or(NO_EVENT)?.edit();
    channel.epoch = epoch;
    channel.epoch_sequence = place.head.sequence;
    channel.proposal_sequence = Sequence(0);
    channel.removal_sequence = Sequence(0);
    // Proposals end with their epoch: who asked to leave and is still there asks again.
    let asked = std::mem::take(&mut channel.leaving);
    let mut left = Vec::new();
    for device in unseated {
        if channel.members.remove(device).is_some() || channel.awaited.remove(device).is_some() {
            left.push(device);
        }
    }
    let mut rows = Vec::new();
    for device in asked {
        if let Some(Member { leaf, joined }) = channel.members.get(&device).copied() {
            rows.push((device, leaf, joined));
        }
    }
    let mut came = Vec::new();
    for Seat { device, leaf } in seated {
        // Who moves to another leaf, or from one group to the next, has been in the channel all the time.
        let before = channel.in_channel_since(device);
        let joined = before.unwrap_or(place.head.sequence);
        channel.awaited.remove(device);
        channel.members.insert(device.clone(), Member { leaf: *leaf, joined });
        if before.is_none() {
            came.push(device);
        }
        channel.known.insert(device.clone());
        rows.push((device.clone(), *leaf, joined));
    }
    for device in left {
        edit_roster(draft, &place.channel, device, |row| (row.place, row.leaving) = (Standing::None, Sequence(0)))?;
        draft.delete(key::channel_of(device, &place.channel));
        let count = key::channel_count(device);
        let others = draft.number(&count)?.saturating_sub(1);
        draft.put_number(count, others);
    }
    for device in came {
        draft.put(key::channel_of(device, &place.channel), encode_bytes(&[]));
        let count = key::channel_count(device);
        let others = draft.number(&count)?;
        draft.put_number(count, others + 1);
    }
    for (device, leaf, joined) in rows {
        edit_roster(draft, &place.channel, &device, |row| {
            (row.place, row.leaving) = (Standing::Seated { leaf, joined }, Sequence(0));
        })?;
    }
    Ok(())
}

/// What the channel knows of a device, changed; nothing is known of a new one.
fn edit_roster<E: Engine>(
    draft: &mut Draft<'_, E>,
    channel: &ChannelId,
    device: &DeviceUri,
    edit: impl FnOnce(&mut RosterRow),
) -> Result<(), StoreError> {
    let key = key::roster(channel, device);
    let mut row = draft.read("roster", &key, RosterRow::decode)?.unwrap_or_default();
    edit(&mut row);
    draft.put(key, row.encode());
    Ok(())
}

fn apply_report<E: Engine>(
    draft: &mut Draft<'_, E>,
    place: &Place,
    reporter: &DeviceUri,
    committer: &DeviceUri,
    commit: Sequence,
) -> Result<(), StoreError> {
    draft.put(key::reported(&place.channel, commit, reporter), encode_bytes(&[]));
    let mut is_paused = false;
    edit_roster(draft, &place.channel, committer, |row| {
        if commit > row.allowed {
            row.paused = row.paused.max(commit);
        }
        is_paused = row.paused > Sequence(0);
    })?;
    if is_paused {
        draft.channel_mut(&place.channel).ok_or(NO_EVENT)?.edit().paused.insert(committer.clone());
    }
    Ok(())
}

fn apply_allowed<E: Engine>(
    draft: &mut Draft<'_, E>,
    channel: &ChannelId,
    device: &DeviceUri,
) -> Result<(), StoreError> {
    let found = draft.channel_mut(channel).ok_or(NO_EVENT)?;
    let last = found.head.sequence;
    found.edit().paused.remove(device);
    edit_roster(draft, channel, device, |row| (row.paused, row.allowed) = (Sequence(0), last))
}

fn apply_leaving<E: Engine>(draft: &mut Draft<'_, E>, place: &Place, device: &DeviceUri) -> Result<(), StoreError> {
    let sequence = place.head.sequence;
    let channel = draft.channel_mut(&place.channel).ok_or(NO_EVENT)?.edit();
    if !channel.members.contains_key(device) || channel.leaving.contains(device) {
        return Ok(());
    }
    channel.leaving.push(device.clone());
    edit_roster(draft, &place.channel, device, |row| row.leaving = sequence)
}

fn put_inbox<E: Engine>(
    draft: &mut Draft<'_, E>,
    place: &Place,
    recipient: &DeviceUri,
    inviter: &DeviceUri,
    ordinal: u8,
) -> Result<(), StoreError> {
    let last = key::inbox_last(recipient);
    let id = draft.number(&last)? + 1;
    draft.put_number(last, id);
    let row = InboxRow {
        channel: place.channel,
        head: place.head,
        ordinal,
        inviter: inviter.clone(),
        gateway_time: place.time,
    };
    draft.put(key::inbox(recipient, id), row.encode());
    let channel = draft.channel_mut(&place.channel).ok_or(NO_EVENT)?;
    if !channel.view().known.contains(recipient) {
        channel.edit().known.insert(recipient.clone());
        draft.put(key::roster(&place.channel, recipient), RosterRow::default().encode());
    }
    Ok(())
}

fn publish<E: Engine>(
    draft: &mut Draft<'_, E>,
    owner: &DeviceUri,
    one_time: &[KeyPackageItem],
    last_resort: Option<&KeyPackageItem>,
    time: Timestamp,
) -> Result<(), StoreError> {
    let mut known = Vec::new();
    for (ordinal, item) in packages(draft, owner)? {
        if item.not_after <= time {
            draft.delete(key::one_time(owner, ordinal));
        } else {
            known.push(item.reference);
        }
    }
    let last = key::one_time_last(owner);
    let mut ordinal = draft.number(&last)?;
    for item in one_time {
        if known.contains(&item.reference) {
            continue;
        }
        known.push(item.reference);
        ordinal += 1;
        draft.put(key::one_time(owner, ordinal), encode_item(item));
    }
    draft.put(last, encode_number(ordinal));
    if let Some(item) = last_resort {
        draft.put(key::last_resort(owner), encode_item(item));
    }
    Ok(())
}

/// Takes an entry out of an inbox, and the Welcome away with its last reader.
fn confirm<E: Engine>(draft: &mut Draft<'_, E>, device: &DeviceUri, id: u64) -> Result<(), StoreError> {
    let entry = key::inbox(device, id);
    let Some(row) = draft.read("inbox entry", &entry, InboxRow::decode)? else { return Ok(()) };
    draft.delete(entry);
    let (channel, sequence, ordinal) = (&row.channel, row.head.sequence, row.ordinal);
    let waiting = key::welcome_waiting(channel, sequence, ordinal);
    let others = draft.number(&waiting)?.saturating_sub(1);
    if others > 0 {
        draft.put_number(waiting, others);
        return Ok(());
    }
    draft.delete(waiting);
    draft.delete(key::welcome(channel, sequence, ordinal));
    draft.delete(key::welcome_tree(channel, sequence, ordinal));
    Ok(())
}
