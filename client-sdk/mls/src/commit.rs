//! Changing a group: commits and the proposal to leave.

use lianxin_keystore::Transaction;
use lianxin_profile::{
    AsOf, Before, ProfileError, Roster, check_commit, check_key_package, head_extension, moved_to_removal_key,
};
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, DeviceUri, LIMITS};
use openmls::prelude::{
    CommitMessageBundle, KeyPackage, LeafNodeIndex, LeafNodeParameters, MlsMessageOut, ProposalOrRefType,
    QueuedProposal, Sender,
};
use openmls_traits::OpenMlsProvider;

use crate::channel::{OpenChannel, going};
use crate::engine::library;
use crate::record::{Records, Standing};
use crate::{Mls, MlsError, Renewal};

/// What the gateway's `Commit` takes. The commit is merged when its own bytes come back in the log.
#[derive(Clone, PartialEq, Eq)]
pub struct CommitBundle {
    /// MLSMessage with the commit.
    pub commit: Vec<u8>,
    /// MLSMessage with the Welcome; empty if nobody is added.
    pub welcome: Vec<u8>,
    /// MLSMessage with the GroupInfo of the epoch that the commit makes.
    pub group_info: Vec<u8>,
}

impl std::fmt::Debug for CommitBundle {
    /// Without the bytes: the GroupInfo holds the slot key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("CommitBundle");
        shown.field("commit_bytes", &self.commit.len()).field("welcome_bytes", &self.welcome.len());
        shown.field("group_info_bytes", &self.group_info.len()).finish()
    }
}

#[derive(Default)]
struct Change {
    adds: Vec<KeyPackage>,
    removes: Vec<LeafNodeIndex>,
}

impl Mls {
    /// Adds the owners of `key_packages` (MLSMessages, 1 to 100), and takes out those who wait to leave or are to be removed. An owner whose
    /// device is a member already is seated anew.
    ///
    /// # Errors
    /// [`MlsError::Profile`] for a key package, a department or a number that the profile refuses;
    /// [`MlsError::CommitPending`], [`MlsError::Leaving`], [`MlsError::NotMember`], [`MlsError::Broken`],
    /// [`MlsError::Library`], [`MlsError::Keystore`].
    pub fn invite(
        &self,
        tx: &Transaction<'_>,
        federation: &Federation,
        channel: ChannelId,
        key_packages: &[Vec<u8>],
    ) -> Result<CommitBundle, MlsError> {
        let (found, limit) = (key_packages.len(), LIMITS.invites_per_commit_max);
        if found == 0 || found > limit {
            return Err(ProfileError::LimitReached { what: "devices added by one commit", limit, found }.into());
        }
        let open = self.open_active(tx, channel)?;
        let mut change = Change::default();
        for bytes in key_packages {
            let checked = check_key_package(federation, &self.crypto, bytes, self.clock.now())?;
            if let Some(seat) = open.roster.of(&checked.identity.uri) {
                change.removes.push(LeafNodeIndex::new(seat.leaf));
            }
            change.adds.push(checked.key_package);
        }
        self.commit(open, federation, change)
    }

    /// Takes out `devices`, and those who wait to leave or are to be removed.
    ///
    /// # Errors
    /// [`MlsError::UnknownDevice`] for one that is no member, [`MlsError::OwnRemoval`]; else as [`Mls::invite`].
    pub fn remove(
        &self,
        tx: &Transaction<'_>,
        federation: &Federation,
        channel: ChannelId,
        devices: &[DeviceUri],
    ) -> Result<CommitBundle, MlsError> {
        let open = self.open_active(tx, channel)?;
        let mut change = Change::default();
        for device in devices {
            let unknown = || MlsError::UnknownDevice { device: device.clone() };
            let seat = open.roster.of(device).ok_or_else(unknown)?;
            if *device == self.device {
                return Err(MlsError::OwnRemoval);
            }
            change.removes.push(LeafNodeIndex::new(seat.leaf));
        }
        self.commit(open, federation, change)
    }

    /// Takes out those who wait to leave or are to be removed.
    ///
    /// # Errors
    /// [`MlsError::NothingPending`]; else as [`Mls::invite`].
    pub fn commit_pending(
        &self,
        tx: &Transaction<'_>,
        federation: &Federation,
        channel: ChannelId,
    ) -> Result<CommitBundle, MlsError> {
        let open = self.open_active(tx, channel)?;
        if open.leaving().next().is_none() && self.renewal_of(&open, federation)? == Renewal::Nothing {
            return Err(MlsError::NothingPending);
        }
        self.commit(open, federation, Change::default())
    }

    /// Proposes that this device leaves: a PublicMessage for the gateway's `Leave`. From now on it can only wait for a
    /// member to commit it.
    ///
    /// # Errors
    /// [`MlsError::CommitPending`], [`MlsError::Leaving`], [`MlsError::NotMember`], [`MlsError::Broken`],
    /// [`MlsError::Library`], [`MlsError::Keystore`].
    pub fn leave(&self, tx: &Transaction<'_>, channel: ChannelId) -> Result<Vec<u8>, MlsError> {
        let mut open = self.open_active(tx, channel)?;
        open.check_idle()?;
        open.set_authenticated();
        let message = open.group.leave_group(&open.provider, &self.signer).map_err(library("propose to leave"))?;
        encode(message)
    }

    /// Drops the own commit that waits, the external commit by which the device was to come back, or the next incarnation that
    /// it was to start. Only after the gateway
    /// has refused it for good: if it is in the log after all, the channel breaks.
    ///
    /// # Errors
    /// [`MlsError::NotMember`], [`MlsError::Broken`], [`MlsError::Keystore`].
    pub fn discard_commit(&self, tx: &Transaction<'_>, channel: ChannelId) -> Result<(), MlsError> {
        let records = Records::new(tx, channel);
        let record = records.load()?.ok_or(MlsError::NotMember)?;
        // A way out may have been settled by another's event in the log before its refusal came.
        let is_settled = matches!(record.standing, Standing::Broken | Standing::Lost | Standing::Awaited);
        if self.drop_rejoin(tx, &records, &record)? || self.drop_next_start(tx, &records)? || is_settled {
            return Ok(());
        }
        let mut open = self.open_active(tx, channel)?;
        Ok(open.group.clear_pending_commit(open.provider.storage())?)
    }

    /// Every commit renews the own leaf: that heals the group after a compromise, fills the tree, and carries a renewed
    /// certificate. And it moves the channel to the zone's removal key in use.
    fn commit(
        &self,
        mut open: OpenChannel<'_>,
        federation: &Federation,
        mut change: Change,
    ) -> Result<CommitBundle, MlsError> {
        open.check_idle()?;
        let leaving: Vec<_> = open.leaving().filter_map(|uri| open.roster.of(uri)).map(|seat| seat.leaf).collect();
        change.removes.retain(|leaf| !leaving.contains(&leaf.u32()));
        change.removes.sort_unstable_by_key(|leaf| leaf.u32());
        change.removes.dedup();
        open.set_authenticated();
        let OpenChannel { provider, group, roster, record, .. } = &mut open;
        let renewed = LeafNodeParameters::builder().with_credential_with_key(self.credential()).build();
        let action = "make a commit";
        let moved = moved_to_removal_key(group.public_group().group_context().extensions(), federation)?;
        let mut builder = group.commit_builder();
        if let Some(extensions) = moved {
            builder = builder.propose_group_context_extensions(extensions).map_err(library(action))?;
        }
        let bundle = builder
            .leaf_node_parameters(renewed)
            .force_self_update(true)
            .propose_adds(change.adds)
            .propose_removals(change.removes)
            .load_psks(provider.storage())
            .map_err(library(action))?
            .create_group_info_with_extensions([head_extension(&record.head)])
            .map_err(library(action))?
            .build(provider.rand(), provider.crypto(), &self.signer, |queued| belongs(queued, roster))
            .map_err(library(action))?
            .stage_commit(provider)
            .map_err(library(action))?;
        self.check_own(&open, federation)?;
        open.keep()?;
        encode_bundle(bundle)
    }

    /// What we would refuse from others we do not send.
    fn check_own(&self, open: &OpenChannel<'_>, federation: &Federation) -> Result<(), MlsError> {
        let staged = open.group.pending_commit().ok_or(MlsError::CommitPending)?;
        let sender = Sender::Member(open.group.own_leaf_index());
        let before = Before { roster: &open.roster, context: open.group.public_group().group_context() };
        check_commit(
            federation,
            &self.crypto,
            staged,
            &sender,
            &self.device,
            before,
            AsOf::arriving(self.clock.now()),
        )?;
        Ok(())
    }
}

impl OpenChannel<'_> {
    /// No own commit or proposal waits.
    fn check_idle(&self) -> Result<(), MlsError> {
        if self.group.pending_commit().is_some() {
            return Err(MlsError::CommitPending);
        }
        if self.is_leaving() { Err(MlsError::Leaving) } else { Ok(()) }
    }
}

/// Our own proposals of this commit, and of those that wait the ones that take somebody out.
fn belongs(queued: &QueuedProposal, roster: &Roster) -> bool {
    queued.proposal_or_ref_type() == ProposalOrRefType::Proposal || going(queued, roster).is_some()
}

fn encode(message: MlsMessageOut) -> Result<Vec<u8>, MlsError> {
    message.to_bytes().map_err(library("encode a message"))
}

pub(crate) fn encode_bundle(bundle: CommitMessageBundle) -> Result<CommitBundle, MlsError> {
    let (commit, welcome, group_info) = bundle.into_messages();
    let missing = || MlsError::Library { action: "make a commit", detail: "no group info was made".to_owned() };
    let bundle = CommitBundle {
        commit: encode(commit)?,
        welcome: welcome.map(encode).transpose()?.unwrap_or_default(),
        group_info: encode(group_info.ok_or_else(missing)?)?,
    };
    let found = bundle.commit.len() + bundle.welcome.len() + bundle.group_info.len();
    let limit = LIMITS.commit_bundle_bytes_max;
    if found > limit {
        return Err(ProfileError::LimitReached { what: "bytes of a commit bundle", limit, found }.into());
    }
    Ok(bundle)
}
