//! Invitations: what the inbox brings, what of it the application is told, and what is a seat in the group that carries a channel on.

use std::collections::BTreeMap;

use lianxin_connection::Welcome;
use lianxin_keystore::Transaction;
use lianxin_mls::Mls;
use lianxin_tlog::Head;
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, Sequence};

use crate::event::keep;
use crate::rows::{INVITATION, InvitationRow, NO_SEAT, SEAT_WAIT, WITHHELD};
use crate::waiters::Failure;
use crate::{ClientError, Event, changes, outbox};

/// Whether the channel's log may still say what an invitation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Log {
    /// It is followed: up to the place of the invitation it tells of a group that carries the channel on, or that this device was
    /// taken out.
    Followed,
    /// The gateway gives this device no more of it, or never gave any.
    Ended,
}

/// What became of an invitation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invited {
    /// Stored, and the application is told.
    New,
    /// Known already.
    Known,
    /// Used already: the gateway may forget it.
    Used,
    /// Stored: it seats this device in the group that carries on a channel that it is in.
    Seat,
    /// Stored: what it is, the rest of the channel's log says.
    Withheld,
}

/// Stores an invitation from the inbox. It may be a seat in a group of which the rest of the channel's log tells.
pub(crate) fn invite(
    tx: &Transaction<'_>,
    mls: &Mls,
    inbox_id: u64,
    welcome: &Welcome,
    log: Log,
) -> Result<Invited, ClientError> {
    let channel = welcome.channel;
    let key = invitation_key(channel, welcome.head.sequence);
    if is_used(tx, mls, channel, welcome.head)? {
        delete(tx, &key)?;
        return Ok(Invited::Used);
    }
    let is_told = tx.get(INVITATION, &key)?.is_some() && tx.get(WITHHELD, &key)?.is_none();
    let row = InvitationRow {
        inbox_id,
        head: welcome.head,
        inviter: welcome.inviter.clone(),
        gateway_time: welcome.gateway_time,
        welcome: welcome.welcome.to_vec(),
    };
    tx.put(INVITATION, &key, &row.to_bytes())?;
    let is_seat = mls.awaited(tx, channel)?.is_some() && tx.get(NO_SEAT, &key)?.is_none();
    let is_withheld = !may_tell(tx, mls, channel, welcome.head, log)?;
    if !is_told && (is_seat || is_withheld) {
        tx.put(WITHHELD, &key, &[])?;
    }
    match (is_seat, is_told) {
        (true, _) => Ok(Invited::Seat),
        (false, true) => Ok(Invited::Known),
        (false, false) if is_withheld => Ok(Invited::Withheld),
        (false, false) => {
            tell(tx, channel, &key, &row)?;
            Ok(Invited::New)
        }
    }
}

/// Whether the device sits, or has taken the seat, where the invitation would seat it. Whose group is broken reads nothing of an own
/// seat.
fn is_used(tx: &Transaction<'_>, mls: &Mls, channel: ChannelId, head: Head) -> Result<bool, ClientError> {
    let is_read = mls.channel(tx, channel)?.is_some_and(|view| view.head.sequence >= head.sequence);
    let is_of_now = mls.broken_behind(tx, channel)?.is_none_or(|place| head.sequence <= place);
    Ok((is_read && is_of_now) || mls.taken_seat(tx, channel)? == Some(head))
}

/// Whether the log has said what an invitation is.
fn may_tell(tx: &Transaction<'_>, mls: &Mls, channel: ChannelId, head: Head, log: Log) -> Result<bool, ClientError> {
    let read = mls.head(tx, channel)?;
    Ok(log == Log::Ended || read.is_some_and(|read| read.sequence >= head.sequence))
}

/// From now on it is the application's.
fn tell(tx: &Transaction<'_>, channel: ChannelId, key: &[u8], row: &InvitationRow) -> Result<(), ClientError> {
    tx.delete(WITHHELD, key)?;
    keep(tx, &Event::Invited { channel, inviter: row.inviter.clone() })
}

fn delete(tx: &Transaction<'_>, key: &[u8]) -> Result<(), ClientError> {
    [INVITATION, WITHHELD, NO_SEAT].into_iter().try_for_each(|kind| Ok(tx.delete(kind, key)?))
}

/// What became of those that were withheld.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Offered {
    /// The gateway may forget these.
    pub(crate) used: Vec<u64>,
    /// There is one for the application.
    pub(crate) is_new: bool,
    /// There is one that is a seat.
    pub(crate) is_seat: bool,
    /// There is one of which the log has not told yet.
    pub(crate) is_withheld: bool,
}

/// The channel's log has been read on: what is neither used nor a seat, nor ahead in the log, is the application's.
pub(crate) fn offer(tx: &Transaction<'_>, mls: &Mls, channel: ChannelId, log: Log) -> Result<Offered, ClientError> {
    let mut offered = Offered::default();
    for (key, _) in tx.list(WITHHELD)?.into_iter().filter(|(key, _)| key.starts_with(&channel.0)) {
        let Some(row) = tx.get(INVITATION, &key)? else { continue };
        let row = InvitationRow::from_bytes(&row)?;
        if is_used(tx, mls, channel, row.head)? {
            offered.used.push(row.inbox_id);
            delete(tx, &key)?;
        } else if mls.awaited(tx, channel)?.is_some() {
            offered.is_seat = true;
        } else if !may_tell(tx, mls, channel, row.head, log)? {
            offered.is_withheld = true;
        } else {
            tell(tx, channel, &key, &row)?;
            offered.is_new = true;
        }
    }
    Ok(offered)
}

/// The place of the newest invitation into the channel that may be a seat.
pub(crate) fn newest_seat(tx: &Transaction<'_>, channel: ChannelId) -> Result<Option<Sequence>, ClientError> {
    let mut newest = None;
    for (key, row) in tx.list(INVITATION)?.into_iter().filter(|(key, _)| key.starts_with(&channel.0)) {
        if tx.get(NO_SEAT, &key)?.is_none() {
            newest = newest.max(Some(InvitationRow::from_bytes(&row)?.head.sequence));
        }
    }
    Ok(newest)
}

/// Takes the seat that an invitation gives. Gives its inbox item; `None` if the invitation is gone.
pub(crate) fn take_seat(
    tx: &Transaction<'_>,
    mls: &Mls,
    federation: &Federation,
    (channel, sequence): (ChannelId, Sequence),
    tree: Vec<u8>,
) -> Result<Option<u64>, ClientError> {
    let key = invitation_key(channel, sequence);
    let Some(row) = tx.get(INVITATION, &key)? else { return Ok(None) };
    let InvitationRow { inbox_id, head, inviter, welcome, .. } = InvitationRow::from_bytes(&row)?;
    mls.take_seat(tx, federation, &lianxin_mls::Invitation { channel, head, welcome, tree, inviter })?;
    delete(tx, &key)?;
    tx.delete(SEAT_WAIT, &channel.0)?;
    Ok(Some(inbox_id))
}

/// It could not be taken as a seat: it is the application's, unless it is of no use any more.
pub(crate) fn not_a_seat(
    tx: &Transaction<'_>,
    mls: &Mls,
    channel: ChannelId,
    sequence: Sequence,
) -> Result<Offered, ClientError> {
    let key = invitation_key(channel, sequence);
    let Some(row) = tx.get(INVITATION, &key)? else { return Ok(Offered::default()) };
    let row = InvitationRow::from_bytes(&row)?;
    if is_used(tx, mls, channel, row.head)? {
        delete(tx, &key)?;
        return Ok(Offered { used: vec![row.inbox_id], ..Offered::default() });
    }
    tx.put(NO_SEAT, &key, &[])?;
    let is_new = tx.get(WITHHELD, &key)?.is_some();
    if is_new {
        tell(tx, channel, &key, &row)?;
    }
    Ok(Offered { is_new, ..Offered::default() })
}

/// Those that are the application's, with their keys.
pub(crate) fn open_invitations(tx: &Transaction<'_>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, ClientError> {
    let mut open = BTreeMap::new();
    for (key, row) in tx.list(INVITATION)? {
        if tx.get(WITHHELD, &key)?.is_none() {
            open.insert(key.to_vec(), row.to_vec());
        }
    }
    Ok(open)
}

/// The Welcomes of all that are kept.
pub(crate) fn welcomes(tx: &Transaction<'_>) -> Result<Vec<Vec<u8>>, ClientError> {
    let rows = tx.list(INVITATION)?.into_iter();
    rows.map(|(_, row)| Ok(InvitationRow::from_bytes(&row)?.welcome)).collect()
}

/// Whether an invitation into the channel is there.
pub(crate) fn is_invited(tx: &Transaction<'_>, channel: ChannelId) -> Result<bool, ClientError> {
    Ok(tx.list(INVITATION)?.iter().any(|(key, _)| key.starts_with(&channel.0)))
}

/// An accepted invitation.
pub(crate) struct Accepted {
    /// To be confirmed: its inbox item, and those of older invitations into the channel, which are of no use any more.
    pub(crate) inbox_ids: Vec<u64>,
    /// What waited in an older group of the channel.
    pub(crate) failed: outbox::Failures,
}

/// Joins by a stored invitation. An older group of the channel gives way, whether the device knows of its removal or not,
/// and so does what waited in it: it was for other members, and its keys are gone.
pub(crate) fn accept(
    tx: &Transaction<'_>,
    mls: &Mls,
    federation: &Federation,
    channel: ChannelId,
    sequence: Sequence,
    tree: Vec<u8>,
) -> Result<Accepted, ClientError> {
    let key = invitation_key(channel, sequence);
    let row = tx.get(INVITATION, &key)?.ok_or(ClientError::InvitationGone)?;
    let InvitationRow { head, inviter, welcome, .. } = InvitationRow::from_bytes(&row)?;
    mls.join(tx, federation, &lianxin_mls::Invitation { channel, head, welcome, tree, inviter })?;
    let inbox_ids = drop_invitations(tx, channel, &key)?;
    let (committed, left) = changes::epoch_ended(tx, channel)?;
    let mut failed = outbox::drop_all(tx, channel, outbox::Read::InPart)?;
    failed.extend(committed.into_iter().chain(left).map(|id| (id, Failure::GivenUp)));
    Ok(Accepted { inbox_ids, failed })
}

/// Deletes an invitation that cannot be opened, because the state is older than the key package that it was made for, and the older
/// ones of the channel; and a group that was to be followed there. Gives their inbox items.
pub(crate) fn give_up_invitation(
    tx: &Transaction<'_>,
    mls: &Mls,
    channel: ChannelId,
    sequence: Sequence,
) -> Result<Vec<u64>, ClientError> {
    if mls.awaited(tx, channel)?.is_some() && mls.taken_seat(tx, channel)?.is_none() {
        mls.discard(tx, channel)?;
    }
    drop_invitations(tx, channel, &invitation_key(channel, sequence))
}

/// Deletes the invitation with this key and older ones of the channel; gives their inbox items.
fn drop_invitations(tx: &Transaction<'_>, channel: ChannelId, last: &[u8]) -> Result<Vec<u64>, ClientError> {
    let mut inbox_ids = Vec::new();
    for (key, row) in tx.list(INVITATION)? {
        if key.starts_with(&channel.0) && *key <= *last {
            inbox_ids.push(InvitationRow::from_bytes(&row)?.inbox_id);
            delete(tx, &key)?;
        }
    }
    Ok(inbox_ids)
}

pub(crate) fn invitation_key(channel: ChannelId, sequence: Sequence) -> Vec<u8> {
    [&channel.0[..], &sequence.0.to_be_bytes()].concat()
}
