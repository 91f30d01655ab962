//! What is known of a channel.

use lianxin_keystore::Transaction;
use lianxin_tlog::Head;
use lianxin_types::{ChannelId, DecodeError, DepartmentId, DeviceUri, Digest, Epoch, Label, ZoneId};

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
    /// What all members of the epoch agree on, and nobody else knows (RFC 9420 section 8.7): two devices with the same value
    /// are in the same group state.
    pub epoch_authenticator: Digest,
    /// Whether an own commit, or the own way out of a broken group, waits for the gateway.
    pub has_pending_commit: bool,
    /// Members who wait to leave, and those whom the gateway wants removed.
    pub pending_leaves: Vec<DeviceUri>,
    /// This device's place among `members`, from 0: by it members take turns.
    pub own_position: usize,
    /// Whether a bad commit broke the group; it can be read no further.
    pub is_broken: bool,
    /// Whether another group carries the channel on in which this device is to be seated yet.
    pub is_awaited: bool,
}

impl Mls {
    /// The channel as this device knows it; `None` if it is no member, no member any more, or has lost its group.
    ///
    /// # Errors
    /// [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn channel(&self, tx: &Transaction<'_>, channel: ChannelId) -> Result<Option<ChannelView>, MlsError> {
        let records = Records::new(tx, channel);
        let Some(record) = records.load()? else { return Ok(None) };
        if matches!(record.standing, Standing::Ended | Standing::Lost) {
            return Ok(None);
        }
        let open = self.open(tx, records, record)?;
        let context = lianxin_profile::stored_context(open.group.public_group().group_context())?;
        let own = open.group.own_leaf_index().u32();
        // One that a broken group holds can never be accepted any more.
        let has_own_commit = open.record.standing == Standing::Active && open.group.pending_commit().is_some();
        let view = ChannelView {
            channel,
            epoch: Epoch(open.group.epoch().as_u64()),
            label: context.label().clone(),
            zone: context.zone().clone(),
            departments: context.departments().iter().map(|one| one.id.clone()).collect(),
            members: open.roster.seats().map(|seat| seat.uri.clone()).collect(),
            head: open.record.head,
            epoch_authenticator: Digest::try_from(open.group.epoch_authenticator().as_slice())
                .map_err(|_| DecodeError::OutOfRange { field: "epoch authenticator" })?,
            has_pending_commit: has_own_commit
                || open.records.rejoin()?.is_some()
                || open.records.next_start()?.is_some(),
            pending_leaves: open.leaving().cloned().collect(),
            own_position: open.roster.seats().position(|seat| seat.leaf == own).unwrap_or_default(),
            is_broken: open.record.standing == Standing::Broken,
            is_awaited: open.record.standing == Standing::Awaited,
        };
        open.keep()?;
        Ok(Some(view))
    }

    /// The last event that this device has counted in the channel, also while it has no group; `None` for a channel that it
    /// knows nothing of. Its log is to be read behind this.
    ///
    /// # Errors
    /// [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn head(&self, tx: &Transaction<'_>, channel: ChannelId) -> Result<Option<Head>, MlsError> {
        Ok(Records::new(tx, channel).load()?.map(|record| record.head))
    }

    /// Whether the device has lost the channel's group and has made no way back yet.
    ///
    /// # Errors
    /// [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn is_lost(&self, tx: &Transaction<'_>, channel: ChannelId) -> Result<bool, MlsError> {
        let records = Records::new(tx, channel);
        let is_lost = records.load()?.is_some_and(|record| record.standing == Standing::Lost);
        Ok(is_lost && records.rejoin()?.is_none())
    }

    /// Whether the device has lost the channel's group, and its way back waits for the gateway.
    ///
    /// # Errors
    /// [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn is_coming_back(&self, tx: &Transaction<'_>, channel: ChannelId) -> Result<bool, MlsError> {
        let records = Records::new(tx, channel);
        let is_lost = records.load()?.is_some_and(|record| record.standing == Standing::Lost);
        Ok(is_lost && records.rejoin()?.is_some())
    }

    /// The channels whose group this device has lost, ascending by id, whether a way back waits or not.
    ///
    /// # Errors
    /// [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn lost(&self, tx: &Transaction<'_>) -> Result<Vec<ChannelId>, MlsError> {
        let all = Records::all(tx)?.into_iter();
        Ok(all.filter(|(_, record)| record.standing == Standing::Lost).map(|(channel, _)| channel).collect())
    }

    /// The channels whose group this device has, ascending by id.
    ///
    /// # Errors
    /// [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn channels(&self, tx: &Transaction<'_>) -> Result<Vec<ChannelId>, MlsError> {
        let all = Records::all(tx)?.into_iter();
        let has_group = |standing| matches!(standing, Standing::Active | Standing::Broken | Standing::Awaited);
        Ok(all.filter(|(_, record)| has_group(record.standing)).map(|(channel, _)| channel).collect())
    }
}
