//! Application messages on their way out.

use std::sync::PoisonError;

use lianxin_keystore::Transaction;
use lianxin_profile::{Payload, parse_chain};
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, Digest, Epoch, IdempotencyId};

use crate::channel::OpenChannel;
use crate::engine::library;
use crate::leaf::Origin;
use crate::{Mls, MlsError};

/// What the gateway's `Send` takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encrypted {
    /// MLSMessage with the PrivateMessage.
    pub mls: Vec<u8>,
    /// The epoch that it can be accepted in; in another one it must be encrypted again.
    pub epoch: Epoch,
}

impl Mls {
    /// Encrypts `body` (0 to 64 KiB) with the head processed as authenticated data. `intent` is the application's, and
    /// the same when a message is encrypted again: recipients drop a repeat.
    ///
    /// # Errors
    /// [`MlsError::Payload`] if the body is too long; [`MlsError::ProposalsPending`] if others wait to leave;
    /// [`MlsError::MemberRevoked`]; [`MlsError::LastResortKeys`], [`MlsError::OlderState`] and [`MlsError::TooFarAhead`] until an
    /// own commit ([`Mls::commit_pending`]) has made new keys; [`MlsError::SeatsPending`]; [`MlsError::Leaving`], [`MlsError::NotMember`], [`MlsError::Broken`], [`MlsError::Library`],
    /// [`MlsError::Keystore`].
    pub fn encrypt(
        &self,
        tx: &Transaction<'_>,
        federation: &Federation,
        channel: ChannelId,
        intent: IdempotencyId,
        body: &[u8],
    ) -> Result<Encrypted, MlsError> {
        let payload = Payload { intent, body: body.to_vec() }.to_bytes()?;
        let mut open = self.open_active(tx, channel)?;
        if open.is_leaving() {
            return Err(MlsError::Leaving);
        }
        if open.group.has_pending_proposals() {
            return Err(MlsError::ProposalsPending);
        }
        self.check_nobody_is_revoked(&open, federation)?;
        match open.records.leaf()?.map(|keys| keys.origin) {
            Some(Origin::LastResort) => return Err(MlsError::LastResortKeys),
            Some(Origin::OlderState) => return Err(MlsError::OlderState),
            Some(Origin::OwnPath | Origin::OneTime) | None => {}
        }
        if open.records.unseated()?.iter().any(|device| open.roster.of(device).is_none()) {
            return Err(MlsError::SeatsPending);
        }
        if open.records.is_too_far_ahead()? {
            return Err(MlsError::TooFarAhead);
        }
        open.set_authenticated();
        let epoch = Epoch(open.group.epoch().as_u64());
        let message = open.group.create_message(&open.provider, &self.signer, &payload);
        let mls = message.map_err(library("encrypt"))?.to_bytes().map_err(library("encode a message"))?;
        open.records.save_sent(&Digest::sha256(&mls), open.record.head.sequence)?;
        open.keep()?;
        Ok(Encrypted { mls, epoch })
    }

    /// Whatever the gateway asks or does not ask: a member whose certificate this device knows to be revoked gets nothing.
    /// Looked at once for each epoch and federation.
    fn check_nobody_is_revoked(&self, open: &OpenChannel<'_>, federation: &Federation) -> Result<(), MlsError> {
        let (group, now) = (open.record.group, self.clock.now());
        let channel = group.channel;
        let found = (group.incarnation, Epoch(open.group.epoch().as_u64()), federation.digest());
        let mut unrevoked = self.unrevoked.lock().unwrap_or_else(PoisonError::into_inner);
        if unrevoked.get(&channel) == Some(&found) {
            return Ok(());
        }
        for member in open.group.members() {
            let chain = parse_chain(&member.credential)?;
            if chain.iter().any(|certificate| federation.is_revoked(certificate, now)) {
                let seat = open.roster.at(member.index.u32()).ok_or(MlsError::NotMember)?;
                return Err(MlsError::MemberRevoked { device: seat.uri.clone() });
            }
        }
        unrevoked.insert(channel, found);
        Ok(())
    }
}
