//! The start of a group: epoch 0, its creator alone (PROTOCOL 5).

use lianxin_tlog::{Head, chain_start};
use lianxin_trust::Federation;
use lianxin_types::{GroupId, Timestamp};
use openmls::messages::group_info::GroupInfo;
use openmls::prelude::{LeafNodeIndex, PublicGroup};

use crate::{
    ChannelContext, ProfileError, Roster, Validity, group_info::check_extensions, key_package::check_leaf_form,
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
    let fault = |fault| ProfileError::InvalidGroupInfo { fault };
    let context = read_context(group.group_context(), federation)?;
    if group.group_context().epoch().as_u64() != 0 {
        return Err(fault("a group starts with epoch 0"));
    }
    let head = check_extensions(group_info.extensions())?;
    if head != chain_start(&context.channel()) {
        return Err(fault("its head is not that of a new channel"));
    }
    let roster = Roster::verify(federation, group.members(), now, Validity::MustBeValid)?;
    match group.leaf(LeafNodeIndex::new(0)) {
        Some(leaf) if roster.len() == 1 => {
            check_leaf_form(leaf)?;
        }
        _ => return Err(fault("a group starts with its creator alone")),
    }
    roster.check_departments(&context)?;
    let id = GroupId::try_from(group.group_id().as_slice()).map_err(|_| fault("its group id is not ours"))?;
    Ok(GroupStart { group: id, context, roster, head })
}
