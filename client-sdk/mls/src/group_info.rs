//! The GroupInfo that the gateway serves for the epoch: whether it is the group's, and one to replace it.

use lianxin_keystore::Transaction;
use lianxin_profile::{GroupInfoSigner, ProfileError, check_group_info, head_extension, open_group_info, same_epoch};
use lianxin_types::{ChannelId, Epoch};

use crate::channel::OpenChannel;
use crate::engine::library;
use crate::{Mls, MlsError};

/// What a member finds in a GroupInfo that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServedGroupInfo {
    /// It is of this device's epoch, and right in everything.
    Right,
    /// It is of another epoch: one of the two is behind, and this device cannot tell whether it is right.
    OtherEpoch {
        /// Its epoch.
        epoch: Epoch,
    },
    /// It is of this device's epoch and wrong: who comes back by it would break the group. Any member can replace it by
    /// [`Mls::group_info`].
    Wrong {
        /// What is wrong with it.
        fault: ProfileError,
    },
}

impl Mls {
    /// Judges what `GetGroupInfo` gave. Only a member can: the gateway knows neither the epoch's `external_pub` nor its
    /// confirmation tag, and takes the committer's word for both (PROTOCOL 5).
    ///
    /// # Errors
    /// [`MlsError::NotMember`], [`MlsError::Broken`]; [`MlsError::Library`], [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn check_group_info(
        &self,
        tx: &Transaction<'_>,
        channel: ChannelId,
        group_info: &[u8],
    ) -> Result<ServedGroupInfo, MlsError> {
        let open = self.open_active(tx, channel)?;
        let served = match open_group_info(group_info) {
            Ok((served, _)) => served,
            Err(fault) => return Ok(ServedGroupInfo::Wrong { fault }),
        };
        if served.epoch() != open.group.epoch() && served.group_id() == open.group.group_id() {
            return Ok(ServedGroupInfo::OtherEpoch { epoch: Epoch(served.epoch().as_u64()) });
        }
        let (ours, _) = open_group_info(&self.own_group_info(&open)?)?;
        let context = open.group.public_group().group_context();
        let mut signed = Err(ProfileError::SenderMismatch);
        for seat in open.roster.seats() {
            let signer = GroupInfoSigner { leaf: seat.leaf, signature_key: &seat.signature_key };
            signed = check_group_info(&self.crypto, group_info, context, signer).map(|_| ());
            if signed != Err(ProfileError::InvalidGroupInfo { fault: "its signer is not the committer" }) {
                break;
            }
        }
        Ok(match signed.and_then(|()| same_epoch(&served, &ours)) {
            Ok(()) => ServedGroupInfo::Right,
            Err(fault) => ServedGroupInfo::Wrong { fault },
        })
    }

    /// A GroupInfo of this device's epoch, signed by its leaf: MLSMessage for the gateway's `ReplaceGroupInfo`.
    ///
    /// # Errors
    /// As [`Mls::check_group_info`].
    pub fn group_info(&self, tx: &Transaction<'_>, channel: ChannelId) -> Result<Vec<u8>, MlsError> {
        self.own_group_info(&self.open_active(tx, channel)?)
    }

    fn own_group_info(&self, open: &OpenChannel<'_>) -> Result<Vec<u8>, MlsError> {
        let head = head_extension(&open.record.head);
        let made = open.group.export_group_info_with_additional_extensions(&self.crypto, &self.signer, false, [head]);
        made.map_err(library("make a group info"))?.to_bytes().map_err(library("encode a group info"))
    }
}
