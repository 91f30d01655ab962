//! What is known of a channel.

use lianxin_keystore::Transaction;
use lianxin_tlog::Head;
use lianxin_types::{ChannelId, DepartmentId, DeviceUri, Epoch, Label, ZoneId};

use crate::record::{Records, Standing};
use crate::{Mls, MlsError};

/// A channel that the device is a member of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelView {
    /// The channel.
    pub channel: ChannelId,
    /// The group's epoch.
    pub epoch: Epoch,
    /// What it is for.
    pub label: Label,
    /// Where it lives.
    pub zone: ZoneId,
    /// Departments that may have members, ascending.
    pub departments: Vec<DepartmentId>,
    /// Members, ascending by leaf.
    pub members: Vec<DeviceUri>,
    /// The last event processed.
    pub head: Head,
    /// Whether an own commit waits for the gateway.
    pub has_pending_commit: bool,
    /// Members who wait to leave.
    pub pending_leaves: Vec<DeviceUri>,
    /// This device's place among `members`, from 0: by it members take turns.
    pub own_position: usize,
    /// Whether a bad commit broke the group; it can be read no further.
    pub is_broken: bool,
}

impl Mls {
    /// The channel as this device knows it; `None` if it is no member, or no member any more.
    ///
    /// # Errors
    /// [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn channel(&self, tx: &Transaction<'_>, channel: ChannelId) -> Result<Option<ChannelView>, MlsError> {
        let records = Records::new(tx, channel);
        let Some(record) = records.load()? else { return Ok(None) };
        if record.standing == Standing::Ended {
            return Ok(None);
        }
        let open = self.open(tx, records, record)?;
        let context = lianxin_profile::stored_context(open.group.public_group().group_context())?;
        let own = open.group.own_leaf_index().u32();
        Ok(Some(ChannelView {
            channel,
            epoch: Epoch(open.group.epoch().as_u64()),
            label: context.label().clone(),
            zone: context.zone().clone(),
            departments: context.departments().iter().map(|one| one.id.clone()).collect(),
            members: open.roster.seats().map(|seat| seat.uri.clone()).collect(),
            head: open.record.head,
            has_pending_commit: open.group.pending_commit().is_some(),
            pending_leaves: open.leaving().cloned().collect(),
            own_position: open.roster.seats().position(|seat| seat.leaf == own).unwrap_or_default(),
            is_broken: open.record.standing == Standing::Broken,
        }))
    }

    /// The channels that this device is a member of, ascending by id.
    ///
    /// # Errors
    /// [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn channels(&self, tx: &Transaction<'_>) -> Result<Vec<ChannelId>, MlsError> {
        let all = Records::all(tx)?.into_iter();
        Ok(all.filter(|(_, record)| record.standing != Standing::Ended).map(|(channel, _)| channel).collect())
    }
}
