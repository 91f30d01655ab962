//! The GroupInfo that a channel serves: by it a device comes back.

use lianxin_profile::open_group_info;
use lianxin_store::{ChannelHead, ZoneStore};
use lianxin_tlog::Head;
use lianxin_types::ChannelId;

use crate::error::DeliveryError;

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
        Some(now) if now.epoch != before.epoch => {
            Err(DeliveryError::WrongEpoch { current: now.epoch, head: now.head.sequence })
        }
        _ => Err(DeliveryError::BadHead),
    }
}
