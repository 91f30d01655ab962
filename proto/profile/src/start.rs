//! The start of a group: epoch 0, its creator alone (PROTOCOL 5).

use lianxin_tlog::{Head, chain_start};
use lianxin_trust::Federation;
use lianxin_types::{DeviceUri, GroupId, Sequence, Timestamp};
use openmls::messages::group_info::GroupInfo;
use openmls::prelude::{LeafNodeIndex, OpenMlsCrypto, PublicGroup};

use crate::{
    ChannelContext, GroupInfoSigner, ProfileError, Roster, Seat, Validity,
    group_info::{check_extensions, check_signer, open_group_info},
    key_package::check_leaf_form,
    read_context,
};

/// What starts.
#[derive(Debug, Clone)]
pub struct GroupStart {
    /// The group; its channel is the context's.
    pub group: GroupId,
    /// What all members will agree on.
    pub context: ChannelContext,
    /// The creator, at leaf 0.
    pub roster: Roster,
    /// The head before the first event.
    pub head: Head,
}

/// The start of a next incarnation, as a member reads it in the log.
#[derive(Debug, Clone)]
pub struct NextStart {
    /// The group that carries the channel on.
    pub group: GroupId,
    /// What its members will agree on.
    pub context: ChannelContext,
    /// The last event that the creator had processed; whether that is one of this log is for the reader to compare.
    pub head: Head,
}

/// A group that a commit has broken, as whoever checks its next incarnation knows it.
#[derive(Debug, Clone, Copy)]
pub struct Broken<'a> {
    /// The broken group.
    pub group: &'a GroupId,
    /// Its context, before the commit or after.
    pub context: &'a ChannelContext,
    /// Its members, before the commit or after.
    pub roster: &'a Roster,
    /// Who made the commit; `None` for a member for whom it was in order, and which has not been told.
    pub culprit: Option<&'a DeviceUri>,
    /// Where the commit stands in the channel's log.
    pub commit: Sequence,
}

/// Checks a group that `PublicGroup::from_external` has made of a GroupInfo and a tree (it has verified the signature by
/// the only leaf): epoch 0, one valid member whose department is named, our context, and a GroupInfo with exactly
/// `external_pub` and the head of a channel without events.
///
/// # Errors
/// [`ProfileError::InvalidGroupInfo`], [`ProfileError::InvalidContext`], [`ProfileError::DepartmentNotNamed`],
/// [`ProfileError::InvalidKeyPackage`] for a leaf that lacks a capability, and those of [`crate::check_leaf`].
pub fn check_start(
    federation: &Federation,
    group: &PublicGroup,
    group_info: &GroupInfo,
    now: Timestamp,
) -> Result<GroupStart, ProfileError> {
    let start = read_start(federation, group, group_info, now)?;
    match start.head == chain_start(&start.context.channel()) {
        true => Ok(start),
        false => Err(fault("its head is not that of a new channel")),
    }
}

/// As [`check_start`] for the group that goes on where `broken` ended: the next incarnation of the same channel; a context
/// that may follow; a creator who sat in the broken group with the same key and did not break it; and a head that has the
/// commit behind it. Whether the log has that head is for its keeper to say, as with every commit.
///
/// # Errors
/// As [`check_start`]; [`ProfileError::SenderMismatch`] for a creator who may not.
pub fn check_next_start(
    federation: &Federation,
    group: &PublicGroup,
    group_info: &GroupInfo,
    broken: Broken<'_>,
    now: Timestamp,
) -> Result<GroupStart, ProfileError> {
    let start = read_start(federation, group, group_info, now)?;
    check_follows(&start, broken)?;
    Ok(start)
}

/// As [`check_next_start`] where the group before, too, was a next incarnation, in which nobody but its own creator ever sat:
/// the roster of `broken` is that creator's alone. That this creator sat in the group that broke, with the same key, is for the
/// members to say, who were there.
///
/// # Errors
/// As [`check_start`].
pub fn check_start_after(
    federation: &Federation,
    group: &PublicGroup,
    group_info: &GroupInfo,
    broken: Broken<'_>,
    now: Timestamp,
) -> Result<GroupStart, ProfileError> {
    let start = read_start(federation, group, group_info, now)?;
    check_carries_on(&start.group, &start.context, &start.head, broken)?;
    Ok(start)
}

/// As [`check_next_start`], for a member of the broken group who reads it in the log: the GroupInfo alone, signed with the key
/// that `creator` had there. The members it will have, and their certificates, are checked with the Welcome.
///
/// # Errors
/// As [`check_next_start`].
pub fn read_next_start(
    federation: &Federation,
    crypto: &impl OpenMlsCrypto,
    group_info: &[u8],
    creator: &DeviceUri,
    broken: Broken<'_>,
) -> Result<NextStart, ProfileError> {
    let (group_info, head) = open_group_info(group_info)?;
    let context = read_context(group_info.group_context(), federation)?;
    if group_info.epoch().as_u64() != 0 {
        return Err(fault("a group starts with epoch 0"));
    }
    let group = read_id(group_info.group_id().as_slice())?;
    check_carries_on(&group, &context, &head, broken)?;
    let before = broken.roster.of(creator).filter(|_| Some(creator) != broken.culprit);
    let signature_key = &before.ok_or(ProfileError::SenderMismatch)?.signature_key;
    check_signer(crypto, &group_info, GroupInfoSigner { leaf: 0, signature_key })?;
    Ok(NextStart { group, context, head })
}

fn check_follows(start: &GroupStart, broken: Broken<'_>) -> Result<(), ProfileError> {
    check_carries_on(&start.group, &start.context, &start.head, broken)?;
    let may = |seat: &Seat| {
        let before = broken.roster.of(&seat.uri);
        Some(&seat.uri) != broken.culprit && before.is_some_and(|before| before.signature_key == seat.signature_key)
    };
    match start.roster.seats().all(may) {
        true => Ok(()),
        false => Err(ProfileError::SenderMismatch),
    }
}

fn check_carries_on(
    group: &GroupId,
    context: &ChannelContext,
    head: &Head,
    broken: Broken<'_>,
) -> Result<(), ProfileError> {
    if group.channel != broken.group.channel {
        return Err(fault("it is of another channel"));
    }
    if broken.group.incarnation.0.checked_add(1) != Some(group.incarnation.0) {
        return Err(fault("it is not the next incarnation"));
    }
    broken.context.check_next_incarnation(context)?;
    match head.sequence < broken.commit {
        true => Err(fault("its head is older than the commit that broke the group")),
        false => Ok(()),
    }
}

fn read_id(bytes: &[u8]) -> Result<GroupId, ProfileError> {
    GroupId::try_from(bytes).map_err(|_| fault("its group id is not ours"))
}

/// What every start keeps, of a channel or of a later incarnation.
fn read_start(
    federation: &Federation,
    group: &PublicGroup,
    group_info: &GroupInfo,
    now: Timestamp,
) -> Result<GroupStart, ProfileError> {
    let context = read_context(group.group_context(), federation)?;
    if group.group_context().epoch().as_u64() != 0 {
        return Err(fault("a group starts with epoch 0"));
    }
    let head = check_extensions(group_info.extensions())?;
    let roster = Roster::verify(federation, group.members(), now, Validity::MustBeValid)?;
    match group.leaf(LeafNodeIndex::new(0)) {
        Some(leaf) if roster.len() == 1 => {
            check_leaf_form(leaf)?;
        }
        _ => return Err(fault("a group starts with its creator alone")),
    }
    roster.check_departments(&context)?;
    Ok(GroupStart { group: read_id(group.group_id().as_slice())?, context, roster, head })
}

const fn fault(fault: &'static str) -> ProfileError {
    ProfileError::InvalidGroupInfo { fault }
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
