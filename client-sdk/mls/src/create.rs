//! Starting a channel.

use lianxin_keystore::{Shelf, Transaction};
use lianxin_profile::{
    CIPHERSUITE, ChannelContext, ContextError, NamedDepartment, Roster, Validity, capabilities,
    group_context_extensions, head_extension,
};
use lianxin_tlog::{Head, chain_start};
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, DepartmentId, Digest, GroupId, Incarnation, Label, Sequence, ZoneId};
use openmls::prelude::{MlsGroup, MlsGroupCreateConfig, PURE_PLAINTEXT_WIRE_FORMAT_POLICY, tls_codec::Serialize};

use crate::channel::mls_group_id;
use crate::engine::{library, sender_ratchet};
use crate::leaf::Origin;
use crate::provider::Provider;
use crate::record::{ChannelRecord, Records, Standing};
use crate::{Mls, MlsError};

/// What a channel is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewChannel {
    /// 16 random bytes.
    pub channel: ChannelId,
    /// Where it lives.
    pub zone: ZoneId,
    /// What it is for.
    pub label: Label,
    /// The departments that may have members, in any order, the creator's among them.
    pub departments: Vec<DepartmentId>,
}

/// What the gateway's `Create` takes.
#[derive(Clone, PartialEq, Eq)]
pub struct StartBundle {
    /// MLSMessage with the GroupInfo of epoch 0.
    pub group_info: Vec<u8>,
    /// The tree of epoch 0.
    pub ratchet_tree: Vec<u8>,
}

impl std::fmt::Debug for StartBundle {
    /// Without the bytes: the GroupInfo holds the slot key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StartBundle").field("group_info_bytes", &self.group_info.len()).finish_non_exhaustive()
    }
}

impl Mls {
    /// Starts a group with this device alone. Until its first event comes back the channel stands at sequence 0; after a
    /// refusal, [`Mls::discard`].
    ///
    /// # Errors
    /// [`MlsError::AlreadyMember`] if there is a group for the channel; [`MlsError::Profile`] for a zone that the bundle
    /// does not know, departments out of bounds, or a certificate that is not valid; [`MlsError::Library`],
    /// [`MlsError::Keystore`].
    pub fn create(
        &self,
        tx: &Transaction<'_>,
        federation: &Federation,
        new: &NewChannel,
    ) -> Result<StartBundle, MlsError> {
        let records = Records::new(tx, new.channel);
        if records.load()?.is_some() {
            return Err(MlsError::AlreadyMember);
        }
        let context = self.context(new)?;
        let id = GroupId { channel: new.channel, incarnation: Incarnation(0) };
        let (group, roster) = self.new_group(&Provider::new(&self.crypto, tx), federation, id, &context)?;

        let head = chain_start(&new.channel);
        records.save_roster(&roster)?;
        records.save_leaf(Origin::OwnPath, self.clock.now())?;
        let (standing, epoch_start) = (Standing::Active, Sequence(0));
        let shelf = Shelf::First;
        records.save(&ChannelRecord { group: id, shelf, standing, head, epoch_start, intents: 0 })?;
        self.start_bundle(&group, &head)
    }

    /// A group of this device alone, and its members.
    pub(crate) fn new_group(
        &self,
        provider: &Provider<'_>,
        federation: &Federation,
        id: GroupId,
        context: &ChannelContext,
    ) -> Result<(MlsGroup, Roster), MlsError> {
        let known = federation.bundle().bundle.zone(context.zone());
        let removal_key = known.ok_or_else(|| ContextError::UnknownZone { zone: context.zone().clone() })?.removal_key;
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(CIPHERSUITE)
            .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(false)
            .max_past_epochs(0)
            .padding_size(0)
            .sender_ratchet_configuration(sender_ratchet())
            .capabilities(capabilities())
            .lifetime(self.lifetime(self.own_identity(federation)?.not_after))
            .with_group_context_extensions(group_context_extensions(context, &removal_key))
            .build();
        let group_id = mls_group_id(id);
        let group = MlsGroup::new_with_group_id(provider, &self.signer, &config, group_id, self.credential())
            .map_err(library("start a group"))?;
        let roster = Roster::verify(federation, group.members(), self.clock.now(), Validity::MustBeValid)?;
        roster.check_departments(context)?;
        Ok((group, roster))
    }

    /// What the gateway takes of a group that is new, for whoever has processed the log up to `head`.
    pub(crate) fn start_bundle(&self, group: &MlsGroup, head: &Head) -> Result<StartBundle, MlsError> {
        let group_info = group
            .export_group_info_with_additional_extensions(&self.crypto, &self.signer, false, [head_extension(head)])
            .map_err(library("make a group info"))?;
        let ratchet_tree = group.export_ratchet_tree().tls_serialize_detached().map_err(library("encode a tree"))?;
        Ok(StartBundle { group_info: group_info.to_bytes().map_err(library("encode a group info"))?, ratchet_tree })
    }

    /// No department has published a policy yet, so there is neither version nor envelope to name.
    fn context(&self, new: &NewChannel) -> Result<ChannelContext, MlsError> {
        let departments = new.departments.iter().cloned().map(NamedDepartment::without_policy).collect();
        let slot_key = self.random.array();
        let (zone, label) = (new.zone.clone(), new.label.clone());
        Ok(ChannelContext::new(new.channel, zone, label, departments, Digest::ZERO, slot_key)?)
    }
}
