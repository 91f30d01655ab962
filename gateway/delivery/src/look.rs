//! What the guard asks of a channel's group before it decides: its context, and whether somebody must go first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use lianxin_profile::{ChannelContext, open_group_info};
use lianxin_store::ChannelHead;
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, DeviceUri, Digest, Sequence, Timestamp};

use crate::channels::Channels;
use crate::error::DeliveryError;

/// A channel's group, as far as the guard may know it.
pub struct Look {
    /// The channel's head.
    pub head: Arc<ChannelHead>,
    /// What the channel says of itself.
    pub context: ChannelContext,
    /// Whether the caller sits there with a certificate that is revoked: it is to go, asked for or not.
    pub is_caller_revoked: bool,
    /// Whether a revoked member is there for whose removal nobody has looked yet, in this state and with these lists. Until then
    /// nothing may be sent (PROTOCOL 1).
    pub is_removal_due: bool,
    state: Sequence,
}

/// The public state of a channel's current epoch.
pub struct PublicState {
    /// The channel's head.
    pub head: Arc<ChannelHead>,
    /// As the last committer signed it, or who replaced it.
    pub group_info: Bytes,
    /// RFC 9420 `ratchet_tree`.
    pub tree: Bytes,
}

/// Which state of a channel has been looked through for members that must go, and with which federation.
#[derive(Default)]
pub(crate) struct Swept(Mutex<HashMap<ChannelId, (Sequence, Digest)>>);

/// Channels of which that is remembered; looking again costs some milliseconds.
const SWEPT_MAX: usize = 4096;

impl Channels {
    /// A channel's group for `caller`. Blocking.
    ///
    /// # Errors
    /// As [`Channels::current`].
    pub fn look(
        &self,
        federation: &Federation,
        channel: &ChannelId,
        caller: &DeviceUri,
        now: Timestamp,
    ) -> Result<Look, DeliveryError> {
        let (head, state) = self.current(federation, channel)?;
        let (context, is_caller_revoked) = (state.context().clone(), state.is_revoked(federation, caller, now));
        let is_swept = self.swept.is_swept(channel, state.sequence(), federation.digest());
        let is_removal_due = !is_swept && state.has_revoked(federation, now)?;
        Ok(Look { head, context, is_caller_revoked, is_removal_due, state: state.sequence() })
    }

    /// Whoever must go has been asked for as far as it goes, or that failed; it is not tried again before the group or the lists
    /// change, but for the sweep.
    pub fn has_been_swept(&self, federation: &Federation, look: &Look) {
        self.swept.remember(look.context.channel(), look.state, federation.digest());
    }

    /// What joins the group from outside: GroupInfo and tree of one and the same epoch. Blocking.
    ///
    /// # Errors
    /// As [`Channels::current`].
    pub fn public_state(&self, federation: &Federation, channel: &ChannelId) -> Result<PublicState, DeliveryError> {
        loop {
            let (_, state) = self.current(federation, channel)?;
            let group_info = self.store().group_info(channel)?.ok_or(DeliveryError::NoChannel)?;
            let head = self.store().head(channel)?.ok_or(DeliveryError::NoChannel)?;
            // A commit that came in between has replaced both, and the rows of the store are new a moment before its head is: so
            // what is served is compared itself. It comes again, for commits are validated one by one.
            let is_of_state = open_group_info(&group_info)?.0.group_context() == state.group_context();
            if is_of_state && head.epoch == state.epoch() && head.incarnation == state.incarnation()? {
                return Ok(PublicState { head, group_info, tree: state.tree()? });
            }
        }
    }
}

impl Swept {
    fn is_swept(&self, channel: &ChannelId, state: Sequence, federation: Digest) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(channel) == Some(&(state, federation))
    }

    fn remember(&self, channel: ChannelId, state: Sequence, federation: Digest) {
        let mut swept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.len() >= SWEPT_MAX {
            swept.clear();
        }
        swept.insert(channel, (state, federation));
    }
}
