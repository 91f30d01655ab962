//! The GroupInfo that a channel serves: by it a device comes back, and a member may replace a wrong one.

use bytes::Bytes;
use lianxin_policy::{Permit, ReplaceGroupInfo};
use lianxin_profile::{GroupInfoSigner, check_group_info, open_group_info};
use lianxin_store::{ChannelHead, Effect, GroupEpoch, ZoneStore};
use lianxin_tlog::Head;
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, Epoch};
use openmls_rust_crypto::RustCrypto;

use crate::channels::Channels;
use crate::error::DeliveryError;
use crate::messages::check_head;

/// A GroupInfo that may take the place of the one that is served.
#[derive(Debug)]
pub struct PreparedGroupInfo {
    channel: ChannelId,
    current: GroupEpoch,
    group_info: Bytes,
}

impl Channels {
    /// Verifies a GroupInfo that the permit's caller has made of the current epoch: as with a commit, its leaf has signed it,
    /// the context is the group's, `external_pub` and the head extension are there and nothing else. The head is one of this
    /// epoch, since only its members can make one. Blocking.
    ///
    /// # Errors
    /// [`DeliveryError`]: another channel or epoch, a GroupInfo that does not fit, a head that the journal does not have.
    pub fn verify_group_info(
        &self,
        federation: &Federation,
        permit: &Permit<ReplaceGroupInfo>,
        group_info: Bytes,
    ) -> Result<PreparedGroupInfo, DeliveryError> {
        let channel = *permit.channel().ok_or(DeliveryError::NoChannel)?;
        let (before, state) = self.current(federation, &channel)?;
        let (found, head) = open_group_info(&group_info)?;
        if found.group_id() != state.group().group_id() {
            return Err(DeliveryError::OtherChannel);
        }
        let epoch = state.epoch();
        if found.epoch().as_u64() != epoch.0 {
            return Err(DeliveryError::WrongEpoch { current: epoch, head: before.head.sequence });
        }
        let seat = state.roster().of(permit.caller()).ok_or(DeliveryError::SenderMismatch)?;
        let signer = GroupInfoSigner { leaf: seat.leaf, signature_key: &seat.signature_key };
        check_group_info(&RustCrypto::default(), &group_info, state.group().group_context(), signer)?;
        check_head(self.store(), &channel, &head)?;
        if head.sequence < before.epoch_sequence {
            return Err(DeliveryError::BadHead);
        }
        Ok(PreparedGroupInfo { channel, current: GroupEpoch { epoch, ..before.current() }, group_info })
    }
}

impl PreparedGroupInfo {
    /// The epoch that it is of.
    pub const fn epoch(&self) -> Epoch {
        self.current.epoch
    }

    /// The effect, on condition that the epoch is still this one.
    pub fn into_effect(self) -> Effect {
        let Self { channel, current, group_info } = self;
        Effect::ReplaceGroupInfo { channel, current, group_info }
    }
}

/// Who comes back names the head in the GroupInfo that it used: the one that is served now (PROTOCOL 4). So a commit made
/// with a GroupInfo that a member has replaced since is refused.
pub(crate) fn check_rejoin_head(
    store: &dyn ZoneStore,
    channel: &ChannelId,
    before: &ChannelHead,
    head: &Head,
) -> Result<(), DeliveryError> {
    let served = store.group_info(channel)?.ok_or(DeliveryError::NoChannel)?;
    if open_group_info(&served)?.1 == *head {
        return Ok(());
    }
    match store.head(channel)? {
        Some(now) if now.current() != before.current() => {
            Err(DeliveryError::WrongEpoch { current: now.epoch, head: now.head.sequence })
        }
        _ => Err(DeliveryError::BadHead),
    }
}
