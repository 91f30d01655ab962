//! A channel's group, open for one call.

use lianxin_keystore::Transaction;
use lianxin_profile::{AuthenticatedData, Roster, Seat, check_leave, check_removal};
use lianxin_types::{ChannelId, DeviceUri, Epoch, GroupId, Sequence};
use openmls::prelude::{MlsGroup, QueuedProposal};
use openmls_traits::OpenMlsProvider;

use crate::provider::Provider;
use crate::record::{ChannelRecord, Records, Standing};
use crate::{Mls, MlsError};

/// Everything of one channel that a call needs.
pub(crate) struct OpenChannel<'a> {
    pub(crate) provider: Provider<'a>,
    pub(crate) records: Records<'a>,
    pub(crate) record: ChannelRecord,
    pub(crate) roster: Roster,
    pub(crate) group: MlsGroup,
}

impl Mls {
    /// Loads a channel in which the device can act.
    pub(crate) fn open_active<'a>(
        &'a self,
        tx: &'a Transaction<'a>,
        channel: ChannelId,
    ) -> Result<OpenChannel<'a>, MlsError> {
        let records = Records::new(tx, channel);
        let record = records.load()?.ok_or(MlsError::NotMember)?;
        match record.standing {
            Standing::Active => self.open(tx, records, record),
            Standing::Broken | Standing::Lost | Standing::Awaited => Err(MlsError::Broken),
            Standing::Ended => Err(MlsError::NotMember),
        }
    }

    /// Loads the group that belongs to `record`.
    pub(crate) fn open<'a>(
        &'a self,
        tx: &'a Transaction<'a>,
        records: Records<'a>,
        record: ChannelRecord,
    ) -> Result<OpenChannel<'a>, MlsError> {
        let provider = Provider::on(&self.crypto, tx, record.shelf);
        let id = mls_group_id(record.group);
        let group = match provider.storage().kept(&id)? {
            Some(group) => group,
            None => MlsGroup::load(provider.storage(), &id)?.ok_or(MlsError::NotMember)?,
        };
        let roster = records.roster()?;
        Ok(OpenChannel { provider, records, record, roster, group })
    }

    /// Forgets a channel: a creation that the gateway refused, one that the device has left, or one whose group can go no
    /// further. What the log has come to stays known, so that no way back leads behind it. No error if there is nothing.
    ///
    /// # Errors
    /// [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn discard(&self, tx: &Transaction<'_>, channel: ChannelId) -> Result<(), MlsError> {
        let records = Records::new(tx, channel);
        let Some(record) = records.load()? else { return Ok(()) };
        self.drop_rejoin(tx, &records, &record)?;
        self.drop_next_group(tx, &records)?;
        match record.head.sequence {
            Sequence(0) => records.forget_floor()?,
            _ => records.raise_floor(record.group, self.own_epoch(tx, &record).unwrap_or(Epoch(0)))?,
        }
        delete_group(&Provider::on(&self.crypto, tx, record.shelf), record.group)?;
        records.clear()?;
        records.delete()
    }

    /// The epoch of the channel's group; `None` if that cannot be loaded.
    pub(crate) fn own_epoch(&self, tx: &Transaction<'_>, record: &ChannelRecord) -> Option<Epoch> {
        let kept = Provider::on(&self.crypto, tx, record.shelf);
        let group = MlsGroup::load(kept.storage(), &mls_group_id(record.group)).ok().flatten();
        group.map(|group| Epoch(group.epoch().as_u64()))
    }
}

impl OpenChannel<'_> {
    /// Ends a call after which everything of the group is stored. After any other end the group is read anew: it may be ahead
    /// of what is stored (facts/mls.md, crash safety).
    pub(crate) fn keep(self) -> Result<(), MlsError> {
        Ok(self.provider.storage().keep(&mls_group_id(self.record.group), self.group)?)
    }

    /// The authenticated data of whatever is sent next: the head processed.
    pub(crate) fn set_authenticated(&mut self) {
        let data = AuthenticatedData { head: self.record.head };
        self.group.set_aad(data.to_bytes().to_vec());
    }

    /// Members who wait to leave or are to be removed, this device included; who is both comes twice.
    pub(crate) fn leaving(&self) -> impl Iterator<Item = &DeviceUri> {
        let seats = self.group.pending_proposals().filter_map(|queued| going(queued, &self.roster));
        seats.map(|seat| &seat.uri)
    }

    /// Whether this device waits to leave or is to be removed.
    pub(crate) fn is_leaving(&self) -> bool {
        let own = self.group.own_leaf_index().u32();
        self.group.pending_proposals().any(|queued| going(queued, &self.roster).is_some_and(|seat| seat.leaf == own))
    }
}

/// Whom a proposal that waits takes out: who asked for it, or whom the gateway wants removed.
pub(crate) fn going<'a>(queued: &QueuedProposal, roster: &'a Roster) -> Option<&'a Seat> {
    check_leave(queued, roster).or_else(|_| check_removal(queued, roster)).ok()
}

/// openmls' form of a group id.
pub(crate) fn mls_group_id(group: GroupId) -> openmls::prelude::GroupId {
    openmls::prelude::GroupId::from_slice(&group.to_bytes())
}

/// Deletes a group and its secrets, if it is there.
pub(crate) fn delete_group(provider: &Provider<'_>, group: GroupId) -> Result<(), MlsError> {
    if let Some(mut found) = MlsGroup::load(provider.storage(), &mls_group_id(group))? {
        found.delete(provider.storage())?;
    }
    Ok(())
}
