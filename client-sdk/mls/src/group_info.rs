//! The GroupInfo that the gateway serves for the epoch: whether it is the group's, and one to replace it.

use lianxin_keystore::Transaction;
use lianxin_profile::{
    GroupInfoSigner, ProfileError, Seat, check_group_info, head_extension, open_group_info, same_epoch,
};
use lianxin_types::{ChannelId, DeviceUri, Epoch};

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
        /// The member whose leaf has signed it, and who is to answer for it; `None` if none has, so that it is the gateway's.
        signer: Option<DeviceUri>,
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
            Err(fault) => return Ok(ServedGroupInfo::Wrong { signer: None, fault }),
        };
        if served.epoch() != open.group.epoch() && served.group_id() == open.group.group_id() {
            return Ok(ServedGroupInfo::OtherEpoch { epoch: Epoch(served.epoch().as_u64()) });
        }
        let (ours, _) = open_group_info(&self.own_group_info(&open)?)?;
        let has_signed = |seat: &&Seat| {
            let signer = GroupInfoSigner { leaf: seat.leaf, signature_key: &seat.signature_key };
            check_group_info(&self.crypto, group_info, served.group_context(), signer).is_ok()
        };
        let Some(signer) = open.roster.seats().find(has_signed).map(|seat| seat.uri.clone()) else {
            let fault = ProfileError::InvalidGroupInfo { fault: "no member has signed it" };
            return Ok(ServedGroupInfo::Wrong { signer: None, fault });
        };
        Ok(match same_epoch(&served, &ours) {
            Ok(()) => ServedGroupInfo::Right,
            Err(fault) => ServedGroupInfo::Wrong { signer: Some(signer), fault },
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
