//! Reports of commits that a member cannot process: verified against the log and the reporter's leaf (PROTOCOL 5).

use std::sync::Arc;

use bytes::Bytes;
use lianxin_policy::{Permit, ReportCommit};
use lianxin_profile::{ProfileError, Report, SignedReport, label_reference, parse_handshake};
use lianxin_store::{ChannelHead, ChannelWrite, Effect, Expect, NewEvent, StoredEvent, ZoneStore};
use lianxin_tlog::EventKind;
use lianxin_types::{ChannelId, DeviceUri, Digest, LIMITS, Sequence};
use openmls_rust_crypto::RustCrypto;

use crate::error::DeliveryError;
use crate::group::GroupState;

/// A report that verified; it needs a permit to become a write.
pub struct PreparedReport {
    report: Report,
    bytes: Bytes,
    committer: DeviceUri,
    state: Arc<GroupState>,
}

/// Verifies a report of `caller`, who is in `state`, about a commit of the channel's log. Blocking.
///
/// # Errors
/// [`DeliveryError`]: no report or of another group, a caller who sits there no longer than the commit, another's signature, a
/// commit that the log does not have there, of that epoch, with that hash.
pub(crate) fn prepare_report(
    store: &dyn ZoneStore,
    head: &ChannelHead,
    state: Arc<GroupState>,
    caller: &DeviceUri,
    bytes: Bytes,
) -> Result<PreparedReport, DeliveryError> {
    let signed = SignedReport::from_bytes(&bytes).map_err(|_| ProfileError::InvalidMls { what: "report" })?;
    let report = *signed.unverified();
    let group = state.id()?;
    if report.group.channel != group.channel {
        return Err(DeliveryError::OtherChannel);
    }
    // A group that has been left behind is nothing that anybody must process.
    if report.group != group {
        return Err(DeliveryError::UnknownCommit);
    }
    let seat = state.roster().of(caller).ok_or(DeliveryError::SenderMismatch)?;
    signed.verify(&RustCrypto::default(), &seat.signature_key)?;
    let commit = commit_at(store, &report.group.channel, report.sequence)?;
    let is_that = parse_handshake(&commit.mls).is_ok_and(|frame| frame.epoch == report.epoch)
        && Digest::sha256(&commit.mls) == report.commit;
    // Who was seated by it, or later, never had to process it.
    let was_there = head.members.get(caller).is_some_and(|member| member.joined < report.sequence);
    if !is_that || !was_there {
        return Err(DeliveryError::UnknownCommit);
    }
    Ok(PreparedReport { report, bytes, committer: commit.sender.clone(), state })
}

/// The commit at a place of the log.
pub(crate) fn commit_at(
    store: &dyn ZoneStore,
    channel: &ChannelId,
    sequence: Sequence,
) -> Result<Arc<StoredEvent>, DeliveryError> {
    let found = event_at(store, channel, sequence)?;
    found.filter(|event| event.kind == EventKind::Commit).ok_or(DeliveryError::UnknownCommit)
}

/// The event at a place of the log; `None` if none stands there, or it is kept no longer.
pub(crate) fn event_at(
    store: &dyn ZoneStore,
    channel: &ChannelId,
    sequence: Sequence,
) -> Result<Option<Arc<StoredEvent>>, DeliveryError> {
    let Some(before) = sequence.0.checked_sub(1) else { return Ok(None) };
    let page = store.read(channel, Sequence(before), 1, LIMITS.frame_bytes_max)?;
    Ok(page.events.into_iter().find(|event| event.head.sequence == sequence))
}

impl PreparedReport {
    /// Who made the commit.
    pub fn committer(&self) -> &DeviceUri {
        &self.committer
    }

    /// What is reported.
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// The write and its effects; the group stays as it is.
    pub fn into_write(self, permit: &Permit<ReportCommit>) -> (ChannelWrite, Vec<Effect>) {
        let context = self.state.context();
        let event = NewEvent {
            kind: EventKind::Report,
            sender: permit.caller().clone(),
            expiry: context.label().expires(),
            label_reference: label_reference(context.label()),
            mls_hash: Digest::sha256(&self.bytes),
            mls: self.bytes,
            head: None,
        };
        let write = ChannelWrite { channel: context.channel(), expect: Expect::Member, event };
        let (reporter, commit) = (permit.caller().clone(), self.report.sequence);
        (write, vec![Effect::Report { reporter, committer: self.committer, commit }])
    }
}
