//! Accepting an invitation: nothing in it is believed that cannot be checked.

use lianxin_keystore::{Shelf, Transaction};
use lianxin_profile::{ChannelContext, Roster, Validity, parse_tree, parse_welcome, read_context, read_head};
use lianxin_tlog::Head;
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, DeviceUri, GroupId};
use openmls::prelude::{StagedWelcome, WelcomeError};

use crate::channel::delete_group;
use crate::engine::{join_config, library};
use crate::leaf::Origin;
use crate::provider::Provider;
use crate::record::{ChannelRecord, Records, Standing};
use crate::{ChannelView, Mls, MlsError};

/// An invitation as it comes out of the inbox, with the tree that belongs to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The channel.
    pub channel: ChannelId,
    /// The commit that added this device, and the chain hash there. The first message of any member confirms it.
    pub head: Head,
    /// MLSMessage with the Welcome.
    pub welcome: Vec<u8>,
    /// The public tree of the epoch that the commit made.
    pub tree: Vec<u8>,
    /// Who the gateway says has invited.
    pub inviter: DeviceUri,
}

/// The group that an invitation has opened.
pub(crate) struct Joined {
    pub(crate) group: GroupId,
    pub(crate) context: ChannelContext,
    pub(crate) roster: Roster,
    pub(crate) origin: Origin,
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Invitation");
        shown.field("channel", &self.channel).field("head", &self.head).field("inviter", &self.inviter);
        shown.field("welcome_bytes", &self.welcome.len()).field("tree_bytes", &self.tree.len()).finish()
    }
}

impl Mls {
    /// Joins. Verified are the tree and the group context against the signed GroupInfo, every member's credential (one
    /// that has expired or been revoked since it entered is taken, see [`Mls::encrypt`]), the departments, the external
    /// sender, and that the inviter is the member who signed. A key package of one use is gone afterwards; after an error it
    /// is still there.
    ///
    /// # Errors
    /// [`MlsError::AlreadyMember`] for an invitation that is not newer than the group at hand; [`MlsError::KeyPackageGone`] for one
    /// that cannot be opened: if the device has a leaf all the same, [`Mls::rejoin`] brings it in; [`MlsError::Invitation`],
    /// [`MlsError::Profile`], [`MlsError::Library`] for what does not verify or is for nobody here;
    /// [`MlsError::Keystore`].
    pub fn join(
        &self,
        tx: &Transaction<'_>,
        federation: &Federation,
        invitation: &Invitation,
    ) -> Result<ChannelView, MlsError> {
        let records = Records::new(tx, invitation.channel);
        self.make_room(tx, &records, invitation)?;
        let Joined { group, roster, origin, .. } = self.open_invitation(tx, federation, invitation)?;
        let head = invitation.head;
        records.save_roster(&roster)?;
        records.save_leaf(origin, self.clock.now())?;
        records.save_head(&head)?;
        let (standing, epoch_start) = (Standing::Active, head.sequence);
        let shelf = Shelf::First;
        records.save(&ChannelRecord { group, shelf, standing, head, epoch_start, intents: 0 })?;
        let view = self.channel(tx, invitation.channel)?.ok_or(MlsError::NotMember)?;
        records.raise_floor(group, view.epoch)?;
        Ok(view)
    }

    /// Verifies an invitation, as [`Mls::join`] says, and stores the group that it opens, on the first shelf.
    pub(crate) fn open_invitation(
        &self,
        tx: &Transaction<'_>,
        federation: &Federation,
        invitation: &Invitation,
    ) -> Result<Joined, MlsError> {
        let provider = Provider::new(&self.crypto, tx);
        let welcome = parse_welcome(&invitation.welcome)?;
        let origin = match self.is_by_last_resort(tx, &welcome)? {
            true => Origin::LastResort,
            false => Origin::OneTime,
        };
        let (staged, group) = self.stage(&provider, invitation)?;
        let context = read_context(staged.group_context(), federation)?;
        if context.channel() != invitation.channel {
            return Err(fault("it is for another channel"));
        }
        let roster = Roster::verify(federation, staged.members(), self.clock.now(), Validity::MayHaveEnded)?;
        roster.check_departments(&context)?;
        self.check_seats(&staged, &roster, invitation)?;
        staged.into_group(&provider).map_err(library("join a group"))?;
        self.note_used(tx, &welcome)?;
        Ok(Joined { group, context, roster, origin })
    }

    /// An older group of the channel gives way to a newer invitation: the device was removed, or is seated anew.
    fn make_room(&self, tx: &Transaction<'_>, records: &Records<'_>, invitation: &Invitation) -> Result<(), MlsError> {
        let Some(record) = records.load()? else { return Ok(()) };
        let is_newer = match record.standing {
            // Who was leaving may have been invited anew by the very commit that took it out.
            Standing::Ended => invitation.head.sequence >= record.head.sequence,
            // It has read on, and nothing of what that commit did.
            Standing::Broken => invitation.head.sequence > record.epoch_start,
            Standing::Active | Standing::Lost | Standing::Awaited => invitation.head.sequence > record.head.sequence,
        };
        if !is_newer {
            return Err(MlsError::AlreadyMember);
        }
        self.drop_rejoin(tx, records, &record)?;
        self.drop_next_group(tx, records)?;
        delete_group(&Provider::on(&self.crypto, tx, record.shelf), record.group)?;
        records.clear()
    }

    fn stage(&self, provider: &Provider<'_>, invitation: &Invitation) -> Result<(StagedWelcome, GroupId), MlsError> {
        let welcome = parse_welcome(&invitation.welcome)?;
        let tree = parse_tree(&invitation.tree)?;
        let action = "open a welcome";
        let builder = StagedWelcome::build_from_welcome(provider, &join_config(), welcome);
        let builder = builder.map_err(|error| match error {
            WelcomeError::NoMatchingKeyPackage => MlsError::KeyPackageGone,
            error => library(action)(error),
        })?;
        let processed = builder.processed_welcome();
        if !processed.psks().is_empty() {
            return Err(fault("it asks for a pre-shared key"));
        }
        let group_info = processed.unverified_group_info();
        if group_info.extensions().ratchet_tree().is_some() {
            return Err(fault("it has a tree inside"));
        }
        if read_head(group_info.extensions())?.sequence >= invitation.head.sequence {
            return Err(fault("the inviter's head is not before the commit"));
        }
        let group =
            GroupId::try_from(group_info.group_id().as_slice()).map_err(|_| fault("its group id is not ours"))?;
        // Lifetimes only bind leaves that enter; one that has run out since is reported and not fatal (PROTOCOL 1).
        let staged = builder.with_ratchet_tree(tree).skip_lifetime_validation().build().map_err(library(action))?;
        Ok((staged, group))
    }

    /// The own seat is ours, and the inviter is the member who signed.
    fn check_seats(&self, staged: &StagedWelcome, roster: &Roster, invitation: &Invitation) -> Result<(), MlsError> {
        let own = roster.at(staged.own_leaf_index().u32()).ok_or(fault("it has no seat for this device"))?;
        if own.uri != self.device || own.signature_key != self.signer.public_key() {
            return Err(fault("the seat is not this device's"));
        }
        let inviter = roster.at(staged.welcome_sender_index().u32()).ok_or(fault("the inviter is no member"))?;
        if inviter.uri != invitation.inviter {
            return Err(fault("another than the one named has invited"));
        }
        Ok(())
    }
}

const fn fault(fault: &'static str) -> MlsError {
    MlsError::Invitation { fault }
}
