//! A unit's effects as they stand in the journal: what was asked, and for a claim also what was taken, so that a replay
//! decides nothing anew.

use bytes::Bytes;
use lianxin_types::{DecodeError, DeviceUri, Epoch, Incarnation, Sequence, Writer};

use crate::record::{Fields, OWN_LIFE, enclose};
use crate::unit::{Effect, GroupEpoch, KeyPackageItem, Seat};

/// A package taken for a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) owner: DeviceUri,
    /// Its number among the owner's one-time packages, from 1; 0 for the last resort, which stays.
    pub(crate) ordinal: u64,
    pub(crate) item: KeyPackageItem,
}

/// An effect, decided.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) effect: Effect,
    /// For [`Effect::ClaimKeyPackages`], in the order of its owners; else empty.
    pub(crate) taken: Vec<Taken>,
}

const GROUP: u8 = 1;
const SNAPSHOT: u8 = 2;
const WELCOME: u8 = 3;
const LEAVING: u8 = 4;
const PUBLISH: u8 = 5;
const CLAIM: u8 = 6;
const USE_CLAIMS: u8 = 7;
const CONFIRM: u8 = 8;
const REMOVING: u8 = 9;
const REPORT: u8 = 10;
const ALLOW: u8 = 11;
/// Of the channel's first group.
const REPLACE_GROUP_INFO: u8 = 12;
const INCARNATION: u8 = 13;
/// Of a later group.
const REPLACE_LATER_GROUP_INFO: u8 = 14;
const DROP: u8 = 32;

fn write_count(writer: &mut Writer, count: usize) {
    writer.u32(u32::try_from(count).expect("limits keep every list far below 2^32"));
}

fn write_device(writer: &mut Writer, device: &DeviceUri) {
    writer.bytes(device.as_str().as_bytes());
}

fn write_devices(writer: &mut Writer, devices: &[DeviceUri]) {
    write_count(writer, devices.len());
    devices.iter().for_each(|device| write_device(writer, device));
}

/// reference 32, end of life u64, bytes with a 32-bit length.
pub(crate) fn write_item(writer: &mut Writer, item: &KeyPackageItem) {
    writer.raw(&item.reference.0).u64(item.not_after.0).bytes(&item.bytes);
}

/// Reads what [`write_item`] wrote.
///
/// # Errors
/// [`DecodeError`] if it did not write this.
pub(crate) fn read_item(fields: &mut Fields<'_>) -> Result<KeyPackageItem, DecodeError> {
    let reference = fields.digest("key package reference")?;
    let not_after = lianxin_types::Timestamp(fields.reader.u64("end of life")?);
    Ok(KeyPackageItem { reference, not_after, bytes: fields.view("key package")? })
}

/// count u32, then per change a kind u8 and its fields in the order of [`Effect`]; lists with a 32-bit count, byte strings
/// with a 32-bit length.
pub(crate) fn encode(changes: &[Change]) -> Vec<u8> {
    let mut writer = Writer::new();
    write_count(&mut writer, changes.len());
    for change in changes {
        write_change(&mut writer, change);
    }
    enclose(OWN_LIFE, None, &writer.finish())
}

fn write_change(writer: &mut Writer, change: &Change) {
    match &change.effect {
        Effect::Group { epoch, seated, unseated, group_info } => {
            writer.u8(GROUP).u64(epoch.0);
            write_count(writer, seated.len());
            for seat in seated {
                write_device(writer, &seat.device);
                writer.u32(seat.leaf);
            }
            write_devices(writer, unseated);
            writer.bytes(group_info);
        }
        Effect::Incarnation { incarnation, awaited } => {
            writer.u8(INCARNATION).u32(incarnation.0);
            write_devices(writer, awaited);
        }
        Effect::ReplaceGroupInfo { channel, current: GroupEpoch { incarnation, epoch }, group_info } => {
            match incarnation {
                Incarnation(0) => writer.u8(REPLACE_GROUP_INFO),
                Incarnation(later) => writer.u8(REPLACE_LATER_GROUP_INFO).u32(*later),
            };
            writer.raw(&channel.0).u64(epoch.0).bytes(group_info);
        }
        Effect::GroupSnapshot { state } => {
            writer.u8(SNAPSHOT).bytes(state);
        }
        Effect::Welcome { recipients, inviter, welcome, tree } => {
            writer.u8(WELCOME);
            write_devices(writer, recipients);
            write_device(writer, inviter);
            writer.bytes(welcome).bytes(tree);
        }
        Effect::Leaving { device } => {
            writer.u8(LEAVING);
            write_device(writer, device);
        }
        Effect::Removing { device } => {
            writer.u8(REMOVING);
            write_device(writer, device);
        }
        Effect::Report { reporter, committer, commit } => {
            writer.u8(REPORT);
            write_device(writer, reporter);
            write_device(writer, committer);
            writer.u64(commit.0);
        }
        Effect::AllowCommitter { channel, device } => {
            writer.u8(ALLOW).raw(&channel.0);
            write_device(writer, device);
        }
        Effect::PublishKeyPackages { owner, one_time, last_resort } => {
            writer.u8(PUBLISH);
            write_device(writer, owner);
            write_count(writer, one_time.len());
            one_time.iter().for_each(|item| write_item(writer, item));
            writer.u8(u8::from(last_resort.is_some()));
            last_resort.iter().for_each(|item| write_item(writer, item));
        }
        Effect::ClaimKeyPackages { channel, department, .. } => {
            writer.u8(CLAIM).raw(&channel.0).bytes(department.as_str().as_bytes());
            write_count(writer, change.taken.len());
            for taken in &change.taken {
                write_device(writer, &taken.owner);
                writer.u64(taken.ordinal);
                write_item(writer, &taken.item);
            }
        }
        Effect::UseClaims { channel, references } => {
            writer.u8(USE_CLAIMS).raw(&channel.0);
            write_count(writer, references.len());
            references.iter().for_each(|reference| {
                writer.raw(&reference.0);
            });
        }
        Effect::DropBuckets { before } => {
            writer.u8(DROP).u64(*before);
        }
        Effect::ConfirmInbox { device, ids } => {
            writer.u8(CONFIRM);
            write_device(writer, device);
            write_count(writer, ids.len());
            ids.iter().for_each(|id| {
                writer.u64(*id);
            });
        }
    }
}

fn list<T>(
    fields: &mut Fields<'_>,
    mut item: impl FnMut(&mut Fields<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = fields.reader.u32("count")?;
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(item(fields)?);
    }
    Ok(items)
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// [`DecodeError`] if it did not write this.
pub(crate) fn decode(record: Vec<u8>) -> Result<Vec<Change>, DecodeError> {
    let source = Bytes::from(record);
    let mut fields = Fields::open(&source)?;
    let changes = list(&mut fields, read_change)?;
    fields.reader.finish()?;
    Ok(changes)
}

/// A group that is not the channel's first.
fn read_later(fields: &mut Fields<'_>) -> Result<Incarnation, DecodeError> {
    match fields.reader.u32("incarnation")? {
        0 => Err(DecodeError::OutOfRange { field: "incarnation" }),
        later => Ok(Incarnation(later)),
    }
}

fn read_replacement(fields: &mut Fields<'_>, incarnation: Incarnation) -> Result<Effect, DecodeError> {
    let (channel, epoch) = (fields.channel()?, Epoch(fields.reader.u64("epoch")?));
    let current = GroupEpoch { incarnation, epoch };
    Ok(Effect::ReplaceGroupInfo { channel, current, group_info: fields.view("group info")? })
}

fn read_change(fields: &mut Fields<'_>) -> Result<Change, DecodeError> {
    let mut taken = Vec::new();
    let effect = match fields.reader.u8("effect kind")? {
        GROUP => {
            let epoch = Epoch(fields.reader.u64("epoch")?);
            let seated =
                list(fields, |fields| Ok(Seat { device: fields.device("seated")?, leaf: fields.reader.u32("leaf")? }))?;
            let unseated = list(fields, |fields| fields.device("unseated"))?;
            Effect::Group { epoch, seated, unseated, group_info: fields.view("group info")? }
        }
        INCARNATION => {
            let incarnation = read_later(fields)?;
            Effect::Incarnation { incarnation, awaited: list(fields, |fields| fields.device("awaited"))? }
        }
        REPLACE_GROUP_INFO => read_replacement(fields, Incarnation(0))?,
        REPLACE_LATER_GROUP_INFO => {
            let incarnation = read_later(fields)?;
            read_replacement(fields, incarnation)?
        }
        SNAPSHOT => Effect::GroupSnapshot { state: fields.view("group snapshot")? },
        WELCOME => {
            let recipients = list(fields, |fields| fields.device("recipient"))?;
            let inviter = fields.device("inviter")?;
            Effect::Welcome { recipients, inviter, welcome: fields.view("welcome")?, tree: fields.view("tree")? }
        }
        LEAVING => Effect::Leaving { device: fields.device("leaving")? },
        REMOVING => Effect::Removing { device: fields.device("removing")? },
        REPORT => {
            let (reporter, committer) = (fields.device("reporter")?, fields.device("committer")?);
            Effect::Report { reporter, committer, commit: Sequence(fields.reader.u64("commit")?) }
        }
        ALLOW => {
            let channel = fields.channel()?;
            Effect::AllowCommitter { channel, device: fields.device("allowed")? }
        }
        PUBLISH => {
            let owner = fields.device("owner")?;
            let one_time = list(fields, read_item)?;
            let has_last_resort = fields.reader.u8("last resort")? != 0;
            let last_resort = if has_last_resort { Some(read_item(fields)?) } else { None };
            Effect::PublishKeyPackages { owner, one_time, last_resort }
        }
        CLAIM => {
            let channel = fields.channel()?;
            let department = fields.department("department")?;
            taken = list(fields, |fields| {
                let owner = fields.device("owner")?;
                Ok(Taken { owner, ordinal: fields.reader.u64("ordinal")?, item: read_item(fields)? })
            })?;
            let owners = taken.iter().map(|taken| taken.owner.clone()).collect();
            Effect::ClaimKeyPackages { channel, department, owners }
        }
        USE_CLAIMS => {
            let channel = fields.channel()?;
            Effect::UseClaims { channel, references: list(fields, |fields| fields.digest("reference"))? }
        }
        DROP => Effect::DropBuckets { before: fields.reader.u64("first bucket that stays")? },
        CONFIRM => {
            let device = fields.device("device")?;
            Effect::ConfirmInbox { device, ids: list(fields, |fields| fields.reader.u64("inbox id"))? }
        }
        _ => return Err(DecodeError::OutOfRange { field: "effect kind" }),
    };
    Ok(Change { effect, taken })
}
