//! Application messages: read as far as they can be read, and made into an event.

use bytes::Bytes;
use lianxin_policy::{Permit, SendMessage};
use lianxin_profile::parse_application;
use lianxin_store::{ChannelHead, ChannelWrite, Expect, NewEvent, ZoneStore};
use lianxin_tlog::{EventKind, Head};
use lianxin_types::{ChannelId, Digest, Timestamp};

use crate::error::DeliveryError;
use crate::group::GroupState;

/// A message as the caller sent it.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// MLSMessage(PrivateMessage).
    pub mls: Bytes,
    /// SHA-256 of `mls`.
    pub mls_hash: Digest,
}

/// The write of one application message into the permit's channel, if its outside fits the channel as `head` shows it.
/// The committer compares epoch, seat, repeats and head positions again, at the moment of sequencing.
///
/// # Errors
/// [`DeliveryError`]: not an application message, other channel or epoch, a head that the journal does not have.
pub fn prepare_message(
    store: &dyn ZoneStore,
    permit: &Permit<SendMessage>,
    channel_head: &ChannelHead,
    message: NewMessage,
    expiry: Option<Timestamp>,
) -> Result<ChannelWrite, DeliveryError> {
    let channel = *permit.channel().ok_or(DeliveryError::NoChannel)?;
    let frame = parse_application(&message.mls)?;
    GroupState::check_frame(&channel, &frame, channel_head.current(), channel_head.head.sequence)?;
    check_head(store, &channel, &frame.authenticated.head)?;
    let event = NewEvent {
        kind: EventKind::Application,
        sender: permit.caller().clone(),
        expiry,
        label_reference: channel_head.label_reference,
        mls: message.mls,
        mls_hash: message.mls_hash,
        head: Some(frame.authenticated.head),
    };
    Ok(ChannelWrite { channel, expect: Expect::Epoch(channel_head.current()), event })
}

/// The journal must have exactly this head (PROTOCOL 4); it never changes, so the answer stays true.
pub(crate) fn check_head(store: &dyn ZoneStore, channel: &ChannelId, head: &Head) -> Result<(), DeliveryError> {
    match store.chain_at(channel, head.sequence)? {
        Some(chain_hash) if chain_hash == head.chain_hash => Ok(()),
        _ => Err(DeliveryError::BadHead),
    }
}
