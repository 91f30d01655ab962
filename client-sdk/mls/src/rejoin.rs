//! Coming back by an external commit, with the same key, when the own group is broken or gone (PROTOCOL 5).

use lianxin_keystore::{Shelf, Transaction};
use lianxin_profile::{
    AuthenticatedData, Roster, Validity, capabilities, head_extension, open_group_info, parse_handshake, parse_tree,
    read_context,
};
use lianxin_tlog::{EventKind, Head};
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, Digest, Epoch, GroupId, Sequence, Timestamp};
use openmls::messages::group_info::VerifiableGroupInfo;
use openmls::prelude::{CommitMessageBundle, LeafNodeParameters, MlsGroup, Proposal, RatchetTreeIn};
use openmls_traits::OpenMlsProvider;

use crate::channel::{delete_group, mls_group_id};
use crate::commit::encode_bundle;
use crate::engine::{join_config, library};
use crate::floor::Floor;
use crate::leaf::Origin;
use crate::provider::Provider;
use crate::record::{ChannelRecord, Records, Rejoin, Standing};
use crate::{CommitBundle, LogEvent, Mls, MlsError, Processed};

impl Mls {
    /// Makes the external commit by which this device comes back into the channel's group, for the gateway's `Commit`, out
    /// of what `GetGroupInfo` gave. Everything in it is verified as a joiner does, and that the device has a leaf there,
    /// with the key that it has now. The new group takes the place of the old one when the commit's own bytes come back in
    /// the log; until then, or until [`Mls::discard_commit`], the old one stays.
    ///
    /// Only for a group that is broken or lost: [`Mls::discard`] forgets one first that is in order and can go no further,
    /// because events are missing. Whoever calls sees to it that the log has been read to its end; what came before the way
    /// back can never be read afterwards. No way back leads behind the group and the epoch that this device knows of, be it by its
    /// own group or by the log; what was only served binds nobody.
    ///
    /// # Errors
    /// [`MlsError::NotBroken`]; [`MlsError::CommitPending`] if a way back waits already; [`MlsError::OldGroupInfo`] for one of
    /// a group or an epoch that is over, [`MlsError::Overtaken`] for one of a group of which the log has not told yet;
    /// [`MlsError::Rejoin`], [`MlsError::Profile`], [`MlsError::Library`] for what does not verify or has no leaf of this
    /// device; [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn rejoin(
        &self,
        tx: &Transaction<'_>,
        federation: &Federation,
        channel: ChannelId,
        group_info: &[u8],
        tree: &[u8],
    ) -> Result<CommitBundle, MlsError> {
        let records = Records::new(tx, channel);
        let (group_info, head) = open_group_info(group_info)?;
        let tree = parse_tree(tree)?;
        let group =
            GroupId::try_from(group_info.group_id().as_slice()).map_err(|_| fault("its group id is not ours"))?;
        let context = read_context(group_info.group_context(), federation)?;
        if context.channel() != channel || group.channel != channel {
            return Err(fault("it is of another channel"));
        }
        let epoch = Epoch(group_info.epoch().as_u64());
        let record = self.way_back(tx, &records, (group, epoch), head)?;
        let provider = Provider::on(&self.crypto, tx, record.shelf.other());
        let (joined, bundle) = self.external_commit(&provider, federation, group_info, tree, &head)?;

        let roster = Roster::verify(federation, joined.members(), self.clock.now(), Validity::MayHaveEnded)?;
        roster.check_departments(&context)?;
        let own = roster.at(joined.own_leaf_index().u32()).ok_or(fault("it has no seat for this device"))?;
        if own.uri != self.device || own.signature_key != self.signer.public_key() {
            return Err(fault("the seat is not this device's"));
        }
        let bundle = encode_bundle(bundle)?;
        records.save_rejoin(&Rejoin { commit_hash: Digest::sha256(&bundle.commit), epoch, roster })?;
        records.save(&record)?;
        Ok(bundle)
    }

    /// The record of a channel whose group is broken, or that of one that is lost, made anew: its chain begins at the head in
    /// the GroupInfo, which a member has signed.
    fn way_back(
        &self,
        tx: &Transaction<'_>,
        records: &Records<'_>,
        (group, epoch): (GroupId, Epoch),
        head: Head,
    ) -> Result<ChannelRecord, MlsError> {
        let kept = records.load()?;
        let own = kept.as_ref().and_then(|record| self.own_epoch(tx, record));
        let known = kept.as_ref().map(|record| Floor::at(record.group, own.unwrap_or(Epoch(0))));
        let not_behind = records.check_floor(known, group, epoch);
        let record = kept.filter(|record| record.standing != Standing::Ended);
        let Some(mut record) = record else {
            not_behind?;
            records.clear()?;
            if head.sequence > Sequence(0) {
                records.save_head(&head)?;
            }
            let (shelf, standing, epoch_start) = (Shelf::First, Standing::Lost, head.sequence);
            return Ok(ChannelRecord { group, shelf, standing, head, epoch_start, intents: 0 });
        };
        match record.standing {
            // The group has been left behind: a seat comes in the next one.
            Standing::Awaited => return Err(MlsError::NotBroken),
            Standing::Active if own.is_some() => return Err(MlsError::NotBroken),
            Standing::Active => record.standing = Standing::Lost,
            Standing::Broken | Standing::Lost | Standing::Ended => {}
        }
        if records.rejoin()?.is_some() || records.next_start()?.is_some() {
            return Err(MlsError::CommitPending);
        }
        not_behind?;
        if record.group != group {
            // Who reads the log is told there of the group that carries the channel on, and waits for a seat in it.
            if record.standing == Standing::Broken {
                return Err(MlsError::Overtaken);
            }
            record.group = group;
            // They were to sit in the group that has been left behind.
            records.save_unseated(&[])?;
            records.save_late(&[])?;
        }
        let known = records.chain_hash(head.sequence)?;
        if known.is_some_and(|hash| hash != head.chain_hash) {
            return Err(fault("its signer has read another log than this device"));
        }
        Ok(record)
    }

    /// openmls verifies GroupInfo, tree and every leaf, and takes out the leaf that has our key.
    fn external_commit(
        &self,
        provider: &Provider<'_>,
        federation: &Federation,
        group_info: VerifiableGroupInfo,
        tree: RatchetTreeIn,
        head: &Head,
    ) -> Result<(MlsGroup, CommitMessageBundle), MlsError> {
        let action = "make an external commit";
        self.own_identity(federation)?;
        let mut removed = 0;
        let commit = MlsGroup::external_commit_builder()
            .with_ratchet_tree(tree)
            .with_config(join_config())
            .with_aad(AuthenticatedData { head: *head }.to_bytes().to_vec())
            // Lifetimes only bind leaves that enter; one that has run out since is reported and not fatal (PROTOCOL 1).
            .skip_lifetime_validation()
            .build_group(provider, group_info, self.credential())
            .map_err(library(action))?
            .leaf_node_parameters(LeafNodeParameters::builder().with_capabilities(capabilities()).build())
            .load_psks(provider.storage())
            .map_err(library(action))?
            .create_group_info_with_extensions([head_extension(head)])
            .map_err(library(action))?
            .build(provider.rand(), provider.crypto(), &self.signer, |queued| {
                removed += usize::from(matches!(queued.proposal(), Proposal::Remove(_)));
                true
            })
            .map_err(library(action))?;
        if removed != 1 {
            return Err(fault("it has no leaf with this device's key"));
        }
        commit.finalize(provider).map_err(library(action))
    }

    /// If a way back waits, a commit in the log settles it: it was that one, or its epoch is over.
    pub(crate) fn settle_rejoin(
        &self,
        tx: &Transaction<'_>,
        records: &Records<'_>,
        record: &ChannelRecord,
        event: &LogEvent,
        head: Head,
    ) -> Result<Option<Processed>, MlsError> {
        if event.kind != EventKind::Commit {
            return Ok(None);
        }
        let Some(rejoin) = records.rejoin()? else { return Ok(None) };
        if event.sender != self.device || rejoin.commit_hash != Digest::sha256(&event.mls) {
            // The commit that began the epoch may still be ahead, for who reads behind the head of the GroupInfo.
            let waits_in = (record.group.incarnation, rejoin.epoch);
            if parse_handshake(&event.mls).is_ok_and(|frame| (frame.group.incarnation, frame.epoch) >= waits_in) {
                self.drop_rejoin(tx, records, record)?;
            }
            return Ok(None);
        }
        let epoch = self.take_place(tx, records, record, rejoin, (head, event.gateway_time))?;
        Ok(Some(Processed::Rejoined {
            epoch,
            device: self.device.clone(),
            own_commit: true,
            discarded_own_commit: false,
            discarded_own_leave: false,
        }))
    }

    /// A device that has lost its group and comes back need not read the log up to its own external commit: the receipt says where
    /// that is. `commit` is what was sent and accepted at `head`, whose chain hash is the gateway's word; the first message of any
    /// member confirms or refutes it, as after an invitation. Gives the epoch, or `None` if no such way back of a lost group waits.
    ///
    /// # Errors
    /// [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn came_back(
        &self,
        tx: &Transaction<'_>,
        channel: ChannelId,
        commit: &[u8],
        (head, gateway_time): (Head, Timestamp),
    ) -> Result<Option<Epoch>, MlsError> {
        let records = Records::new(tx, channel);
        let Some(record) = records.load()?.filter(|record| record.standing == Standing::Lost) else { return Ok(None) };
        let rejoin = records.rejoin()?.filter(|rejoin| rejoin.commit_hash == Digest::sha256(commit));
        let Some(rejoin) = rejoin else { return Ok(None) };
        // Of what lies between the GroupInfo's head and this one nothing is known: another's head there is not compared (PROTOCOL 4).
        records.forget_chain()?;
        self.take_place(tx, &records, &record, rejoin, (head, gateway_time)).map(Some)
    }

    /// The way back is in the log at `head`: its group takes the place of the old one.
    fn take_place(
        &self,
        tx: &Transaction<'_>,
        records: &Records<'_>,
        record: &ChannelRecord,
        rejoin: Rejoin,
        (head, gateway_time): (Head, Timestamp),
    ) -> Result<Epoch, MlsError> {
        let shelf = record.shelf.other();
        let new = Provider::on(&self.crypto, tx, shelf);
        let group = MlsGroup::load(new.storage(), &mls_group_id(record.group))?.ok_or(MlsError::NotMember)?;
        let old = delete_group(&Provider::on(&self.crypto, tx, record.shelf), record.group);
        if record.standing != Standing::Lost {
            old?;
        }
        records.forget_rejoin()?;
        // Whom this device has to seat in the group does not know that it was broken here in between.
        let (unseated, late) = (records.unseated()?, records.late()?);
        records.forget_incarnation()?;
        records.save_unseated(&unseated)?;
        records.save_late(&late)?;
        records.forget_sent()?;
        records.save_roster(&rejoin.roster)?;
        records.save_leaf(Origin::OwnPath, gateway_time)?;
        records.save_head(&head)?;
        let (standing, epoch_start) = (Standing::Active, head.sequence);
        records.save(&ChannelRecord { shelf, standing, head, epoch_start, ..record.clone() })?;
        let epoch = Epoch(group.epoch().as_u64());
        records.raise_floor(record.group, epoch)?;
        Ok(epoch)
    }

    /// Forgets a way back that waits, with the group that it would have made. Gives whether there was one.
    pub(crate) fn drop_rejoin(
        &self,
        tx: &Transaction<'_>,
        records: &Records<'_>,
        record: &ChannelRecord,
    ) -> Result<bool, MlsError> {
        if records.rejoin()?.is_none() {
            return Ok(false);
        }
        delete_group(&Provider::on(&self.crypto, tx, record.shelf.other()), record.group)?;
        records.forget_rejoin()?;
        Ok(true)
    }
}

const fn fault(fault: &'static str) -> MlsError {
    MlsError::Rejoin { fault }
}
