//! The next incarnation of a channel whose group a commit has broken for good: started by a member, followed by the others,
//! each of whom is seated anew (PROTOCOL 2, 5).

use lianxin_keystore::{Shelf, Transaction};
use lianxin_profile::{Broken, ChannelContext, ProfileError, read_next_start, stored_context};
use lianxin_tlog::{EventKind, Head};
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, DeviceUri, Digest, Epoch, GroupId, Incarnation, Sequence};
use openmls::prelude::MlsGroup;
use openmls_traits::OpenMlsProvider;

use crate::channel::{delete_group, mls_group_id};
use crate::error::is_about_keys;
use crate::join::Joined;
use crate::leaf::Origin;
use crate::process::TrustAge;
use crate::provider::Provider;
use crate::record::{ChannelRecord, Records, Standing};
use crate::{Invitation, LogEvent, Mls, MlsError, Processed, StartBundle, Violation};

mod rows;

pub(crate) use rows::{Breach, Followed, NextSeat, NextStart};

impl Mls {
    /// Makes the group that carries a broken channel on, with this device alone, for the gateway's `StartIncarnation`: same
    /// channel, zone, label and departments, the next incarnation in the id, another slot key. It takes the place of the broken
    /// one when its own bytes come back in the log; until then, or until [`Mls::discard_commit`], that stays.
    ///
    /// Only when there is no way back into the group ([`Mls::rejoin`]), for whoever is left behind is out of the channel; or, for a
    /// device that is awaited, when whoever started the group that it waits for seats nobody: the gateway takes that after
    /// [`lianxin_types::Limits::seats_within`].
    ///
    /// # Errors
    /// [`MlsError::NotBroken`], also if the log names this device for the commit that broke the group;
    /// [`MlsError::CommitPending`] if a way out or a seat waits already; [`MlsError::Profile`] for an own certificate that is not valid;
    /// [`MlsError::NotMember`], [`MlsError::Library`], [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn next_incarnation(
        &self,
        tx: &Transaction<'_>,
        federation: &Federation,
        channel: ChannelId,
    ) -> Result<StartBundle, MlsError> {
        let records = Records::new(tx, channel);
        let record = records.load()?.ok_or(MlsError::NotMember)?;
        let head = record.head;
        let (last, old) = match (record.standing, records.followed()?) {
            (Standing::Broken, _) if records.breach()?.is_some_and(|breach| breach.committer != self.device) => {
                (record.group, self.context_of(tx, record)?)
            }
            (Standing::Awaited, Some(followed)) => (followed.group, followed.context),
            _ => return Err(MlsError::NotBroken),
        };
        if records.rejoin()?.is_some() || records.next_start()?.is_some() || records.next_seat()?.is_some() {
            return Err(MlsError::CommitPending);
        }
        let number = last.incarnation.0.checked_add(1).ok_or(MlsError::NotBroken)?;
        let id = GroupId { channel, incarnation: Incarnation(number) };
        let departments = old.departments().to_vec();
        let (zone, label) = (old.zone().clone(), old.label().clone());
        let slot_key = self.random.array();
        let context = ChannelContext::new(channel, zone, label, departments, old.envelope_digest(), slot_key)?;
        let (group, roster) = self.new_group(&Provider::new(&self.crypto, tx), federation, id, &context)?;
        let bundle = self.start_bundle(&group, &head)?;
        records.save_next_start(&NextStart { hash: Digest::sha256(&bundle.group_info), group: id, roster })?;
        Ok(bundle)
    }

    /// The devices that sat in the group before and that this device, which has started the one after it, has still to seat,
    /// ascending by leaf; those who could not be seated so far come last. None in a channel that it has not started.
    ///
    /// # Errors
    /// [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn unseated(&self, tx: &Transaction<'_>, channel: ChannelId) -> Result<Vec<DeviceUri>, MlsError> {
        let records = Records::new(tx, channel);
        if !records.load()?.is_some_and(|record| record.standing == Standing::Active) {
            return Ok(Vec::new());
        }
        let roster = records.roster()?;
        let all = records.unseated()?.into_iter().chain(records.late()?);
        Ok(all.filter(|device| roster.of(device).is_none()).collect())
    }

    /// `late` cannot be seated now, so messages wait for them no longer; `never` cannot be seated at all, and it is for the
    /// application to invite them when they can.
    ///
    /// # Errors
    /// [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn defer_seats(
        &self,
        tx: &Transaction<'_>,
        channel: ChannelId,
        late: &[DeviceUri],
        never: &[DeviceUri],
    ) -> Result<(), MlsError> {
        let records = Records::new(tx, channel);
        let (mut waiting, mut deferred) = (records.unseated()?, records.late()?);
        deferred.extend(waiting.extract_if(.., |device| late.contains(device)));
        for list in [&mut waiting, &mut deferred] {
            list.retain(|device| !never.contains(device));
        }
        records.save_unseated(&waiting)?;
        records.save_late(&deferred)
    }

    /// Takes an invitation into the group that carries the channel on: verified as in [`Mls::join`], that it is that group or a
    /// later one, and that its inviter sat in the group before, with the same key. This device is seated when the log has been
    /// read up to the commit that the invitation names, by [`Processed::Seated`]; so its chain of heads has no hole.
    ///
    /// # Errors
    /// [`MlsError::NotBroken`] if no group follows here; [`MlsError::AlreadyMember`] for an invitation that is not newer than
    /// the log that was read; else as [`Mls::join`].
    pub fn take_seat(
        &self,
        tx: &Transaction<'_>,
        federation: &Federation,
        invitation: &Invitation,
    ) -> Result<(), MlsError> {
        let records = Records::new(tx, invitation.channel);
        let record = records.load()?.filter(|record| record.standing == Standing::Awaited);
        let (Some(record), Some(followed)) = (record, records.followed()?) else { return Err(MlsError::NotBroken) };
        if invitation.head.sequence <= record.head.sequence {
            return Err(MlsError::AlreadyMember);
        }
        let before = records.roster()?;
        if let Some(seat) = records.next_seat()? {
            delete_group(&Provider::new(&self.crypto, tx), seat.group)?;
        }
        let Joined { group, context, roster, origin } = self.open_invitation(tx, federation, invitation)?;
        match group.incarnation {
            _ if group.channel != invitation.channel => return Err(fault("it is of another channel")),
            same if same == followed.group.incarnation => followed.context.check_successor(&context)?,
            later if later > followed.group.incarnation => followed.context.check_next_incarnation(&context)?,
            _ => return Err(fault("it is of a group that has been left behind")),
        }
        let key =
            |roster: &lianxin_profile::Roster| roster.of(&invitation.inviter).map(|seat| seat.signature_key.clone());
        if key(&before).is_none() || key(&before) != key(&roster) {
            return Err(fault("the inviter was not in the group before"));
        }
        records.save_next_seat(&NextSeat { head: invitation.head, group, roster, origin })
    }

    /// The group that carries the channel on and in which this device waits to be seated; `None` if it waits for no seat.
    ///
    /// # Errors
    /// [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn awaited(&self, tx: &Transaction<'_>, channel: ChannelId) -> Result<Option<GroupId>, MlsError> {
        let records = Records::new(tx, channel);
        let record = records.load()?.filter(|record| record.standing == Standing::Awaited);
        Ok(record.map(|_| records.followed()).transpose()?.flatten().map(|followed| followed.group))
    }

    /// Behind which place a broken group reads nothing that concerns this device, be it that it is taken out and invited again; `None`
    /// if the channel's group is not broken.
    ///
    /// # Errors
    /// [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn broken_behind(&self, tx: &Transaction<'_>, channel: ChannelId) -> Result<Option<Sequence>, MlsError> {
        let record = Records::new(tx, channel).load()?.filter(|record| record.standing == Standing::Broken);
        Ok(record.map(|record| record.epoch_start))
    }

    /// The place of the seat that was taken ([`Mls::take_seat`]) and to which the log has not come yet.
    ///
    /// # Errors
    /// [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn taken_seat(&self, tx: &Transaction<'_>, channel: ChannelId) -> Result<Option<Head>, MlsError> {
        Ok(Records::new(tx, channel).next_seat()?.map(|seat| seat.head))
    }

    /// A start that is not the channel's first: the own one that waits, another member's, or one that may not be.
    pub(crate) fn settle_start(
        &self,
        tx: &Transaction<'_>,
        federation: &Federation,
        records: &Records<'_>,
        record: &ChannelRecord,
        (event, head): (&LogEvent, Head),
        trust: TrustAge,
    ) -> Result<Option<Processed>, MlsError> {
        let has_group = matches!(record.standing, Standing::Active | Standing::Broken | Standing::Awaited);
        if event.kind != EventKind::Start || event.sequence == Sequence(1) || !has_group {
            return Ok(None);
        }
        let own = records.next_start()?.filter(|own| own.hash == Digest::sha256(&event.mls));
        if let Some(start) = own.filter(|_| event.sender == self.device) {
            return self.begin_next(tx, records, record, (event, head), start).map(Some);
        }
        let last = records.last_commit()?;
        let (before, context, begun) = match records.followed()? {
            Some(followed) => (followed.group, followed.context, followed.start),
            None => (record.group, self.context_of(tx, record.clone())?, record.epoch_start),
        };
        let commit = last.as_ref().map_or(begun, |last| last.commit.max(begun));
        // Who has started a group and is alone there knows from the one before who may start another in its place.
        let roster = records.before()?.map_or_else(|| records.roster(), Ok)?;
        let culprit = last.map(|last| last.committer);
        let broken = Broken { group: &before, context: &context, roster: &roster, culprit: culprit.as_ref(), commit };
        let found = read_next_start(federation, &self.crypto, &event.mls, &event.sender, broken);
        let violation = match found {
            Ok(found) if event.sender == self.device => {
                // The channel goes on in a group that an older copy of this state knows nothing of, and this one is at its end.
                self.drop_rejoin(tx, records, record)?;
                self.drop_next_group(tx, records)?;
                delete_group(&Provider::on(&self.crypto, tx, record.shelf), record.group)?;
                records.clear()?;
                records.raise_floor(found.group, Epoch(0))?;
                records.save(&ChannelRecord { head, standing: Standing::Ended, ..record.clone() })?;
                return Ok(Some(Processed::Hidden(Violation::OlderState)));
            }
            Ok(found) if records.chain_hash(found.head.sequence)? == Some(found.head.chain_hash) => {
                self.drop_rejoin(tx, records, record)?;
                self.drop_next_start(tx, records)?;
                if records.next_seat()?.is_some_and(|seat| seat.group.incarnation < found.group.incarnation) {
                    self.drop_next_group(tx, records)?;
                }
                let incarnation = found.group.incarnation;
                let (group, context, start) = (found.group, found.context, event.sequence);
                records.save_followed(&Followed { group, context, start })?;
                records.raise_floor(group, Epoch(0))?;
                records.save_roster(&roster)?;
                records.forget_before()?;
                records.save_head(&head)?;
                records.save(&ChannelRecord { head, standing: Standing::Awaited, ..record.clone() })?;
                let (by, own_start) = (event.sender.clone(), false);
                return Ok(Some(Processed::Incarnation { incarnation, by, culprit, own_start }));
            }
            Ok(found) => Violation::HeadMismatch { sequence: found.head.sequence },
            Err(error) if trust == TrustAge::MayBeBehind && is_about_keys(&error) => {
                return Err(MlsError::TrustBehind { device: event.sender.clone() });
            }
            Err(error) => Violation::InvalidStart(error),
        };
        tracing::warn!(channel = ?event.channel, sequence = event.sequence.0, %violation, "start hidden");
        let is_alone = records.before()?.is_some();
        let standing = if is_alone { Standing::Awaited } else { record.standing };
        if standing == Standing::Awaited {
            // The gateway counts it, since it does not know what key an awaited device had; nobody will take a seat there.
            let group = GroupId { incarnation: Incarnation(before.incarnation.0.saturating_add(1)), ..before };
            records.save_followed(&Followed { group, context, start: event.sequence })?;
        }
        if is_alone {
            records.save_roster(&roster)?;
            records.forget_before()?;
        }
        records.save_head(&head)?;
        records.save(&ChannelRecord { head, standing, ..record.clone() })?;
        Ok(Some(Processed::Hidden(violation)))
    }

    /// The own start is in the log: its group takes the place of the broken one.
    fn begin_next(
        &self,
        tx: &Transaction<'_>,
        records: &Records<'_>,
        record: &ChannelRecord,
        (event, head): (&LogEvent, Head),
        start: NextStart,
    ) -> Result<Processed, MlsError> {
        let last = records.last_commit()?;
        let culprit = last.map(|last| last.committer);
        let open = self.open(tx, *records, record.clone())?;
        let leaving: Vec<DeviceUri> = open.leaving().cloned().collect();
        let before = open.roster.only(|seat| culprit.as_ref() != Some(&seat.uri) && !leaving.contains(&seat.uri));
        let others = before.seats().map(|seat| &seat.uri).filter(|device| **device != self.device);
        let unseated: Vec<DeviceUri> = others.cloned().collect();
        delete_group(&Provider::on(&self.crypto, tx, record.shelf), record.group)?;
        records.forget_incarnation()?;
        records.forget_sent()?;
        records.save_unseated(&unseated)?;
        records.save_before(&before)?;
        records.save_roster(&start.roster)?;
        records.save_leaf(Origin::OwnPath, event.gateway_time)?;
        records.save_head(&head)?;
        let (standing, epoch_start, shelf) = (Standing::Active, event.sequence, Shelf::First);
        records.save(&ChannelRecord { group: start.group, shelf, standing, head, epoch_start, ..record.clone() })?;
        Ok(Processed::Incarnation {
            incarnation: start.group.incarnation,
            by: self.device.clone(),
            culprit,
            own_start: true,
        })
    }

    /// An event of a channel in which the device is not seated yet: counted up to the commit that seats it, and not read. Without
    /// an invitation that may be the next commit.
    pub(crate) fn await_seat(
        &self,
        tx: &Transaction<'_>,
        records: &Records<'_>,
        record: ChannelRecord,
        event: &LogEvent,
        head: Head,
    ) -> Result<Processed, MlsError> {
        let seat = records.next_seat()?.filter(|seat| seat.head.sequence >= event.sequence);
        if seat.is_none() && event.kind == EventKind::Commit {
            return Err(MlsError::NotSeated);
        }
        records.note_commit(event)?;
        records.save_head(&head)?;
        let Some(seat) = seat.filter(|seat| seat.head.sequence == event.sequence) else {
            records.save(&ChannelRecord { head, ..record })?;
            return Ok(Processed::Hidden(Violation::ChannelBroken));
        };
        let provider = Provider::new(&self.crypto, tx);
        let is_followed = records.followed()?.is_some_and(|followed| followed.group == seat.group);
        if seat.head != head || !is_followed {
            delete_group(&provider, seat.group)?;
            records.forget_next_seat()?;
            records.save(&ChannelRecord { head, ..record })?;
            return Ok(Processed::Hidden(Violation::HeadMismatch { sequence: event.sequence }));
        }
        let group = MlsGroup::load(provider.storage(), &mls_group_id(seat.group))?.ok_or(MlsError::NotMember)?;
        delete_group(&Provider::on(&self.crypto, tx, record.shelf), record.group)?;
        records.forget_incarnation()?;
        records.forget_sent()?;
        records.save_roster(&seat.roster)?;
        records.save_leaf(seat.origin, event.gateway_time)?;
        let (standing, epoch_start, shelf) = (Standing::Active, event.sequence, Shelf::First);
        records.save(&ChannelRecord { group: seat.group, shelf, standing, head, epoch_start, ..record })?;
        let epoch = Epoch(group.epoch().as_u64());
        records.raise_floor(seat.group, epoch)?;
        Ok(Processed::Seated { epoch })
    }

    /// Forgets an own next incarnation that waits. Gives whether there was one.
    pub(crate) fn drop_next_start(&self, tx: &Transaction<'_>, records: &Records<'_>) -> Result<bool, MlsError> {
        let Some(start) = records.next_start()? else { return Ok(false) };
        delete_group(&Provider::new(&self.crypto, tx), start.group)?;
        records.forget_next_start()?;
        Ok(true)
    }

    /// Forgets every group that was to take the place of the channel's.
    pub(crate) fn drop_next_group(&self, tx: &Transaction<'_>, records: &Records<'_>) -> Result<(), MlsError> {
        self.drop_next_start(tx, records)?;
        if let Some(seat) = records.next_seat()? {
            delete_group(&Provider::new(&self.crypto, tx), seat.group)?;
            records.forget_next_seat()?;
        }
        Ok(())
    }

    fn context_of(&self, tx: &Transaction<'_>, record: ChannelRecord) -> Result<ChannelContext, MlsError> {
        let channel = record.group.channel;
        let open = self.open(tx, Records::new(tx, channel), record)?;
        Ok(stored_context(open.group.public_group().group_context()).map_err(ProfileError::from)?)
    }
}

const fn fault(fault: &'static str) -> MlsError {
    MlsError::Invitation { fault }
}
