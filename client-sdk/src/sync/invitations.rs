//! Invitations: what the inbox brings, what of it the application is told, and what is a seat in the group that carries a channel on.

use std::collections::{BTreeSet, HashSet};

use lianxin_connection::Welcome;
use lianxin_keystore::Transaction;
use lianxin_mls::Mls;
use lianxin_tlog::Head;
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, Reader, Sequence, Writer};

use super::kept_invitations::{Kept, all, delete, get, key, of_channel, put};
use crate::event::keep;
use crate::rows::{DECLINED, InvitationRow, NO_SEAT, SEAT_WAIT, WITHHELD};
use crate::wishes::{self, Ending, Settled};
use crate::{ClientError, Event, Invitation, outbox};

/// How many are kept, and how many bytes of them.
pub(crate) const KEPT_MAX: usize = 200;
pub(crate) const KEPT_BYTES_MAX: u64 = 16 * 1024 * 1024;

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
    HeldBack,
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
    let sequence = welcome.head.sequence;
    let key = key(channel, sequence);
    if is_used(tx, mls, channel, welcome.head)? || declined(tx, channel)?.is_some_and(|last| sequence <= last) {
        delete(tx, channel, sequence)?;
        return Ok(Invited::Used);
    }
    let is_told = is_kept(tx, channel, sequence)? && tx.get(WITHHELD, &key)?.is_none();
    let row = InvitationRow {
        inbox_id,
        head: welcome.head,
        inviter: welcome.inviter.clone(),
        gateway_time: welcome.gateway_time,
        welcome: welcome.welcome.to_vec(),
    };
    put(tx, channel, &row)?;
    // What was declined is over with a newer one.
    tx.delete(DECLINED, &channel.0)?;
    let is_seat = mls.awaited(tx, channel)?.is_some() && tx.get(NO_SEAT, &key)?.is_none();
    let is_held_back = !may_tell(tx, mls, channel, welcome.head, log)?;
    if !is_told && (is_seat || is_held_back) {
        tx.put(WITHHELD, &key, &[])?;
    }
    match (is_seat, is_told) {
        (true, _) => Ok(Invited::Seat),
        (false, true) => Ok(Invited::Known),
        (false, false) if is_held_back => Ok(Invited::HeldBack),
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

/// So many and so large ones are not kept: the oldest go, as if the application had declined them, but for seats that are waited for.
/// Gives their inbox items.
pub(crate) fn push_out(tx: &Transaction<'_>, mls: &Mls) -> Result<Vec<u64>, ClientError> {
    let kept = all(tx)?;
    let mut left = (kept.len(), kept.iter().map(|one| one.bytes).sum::<u64>());
    let mut pushed_out = Vec::new();
    // The newest is the one that has just come.
    for Kept { channel, sequence, bytes, .. } in kept.into_iter().rev().skip(1).rev() {
        if left.0 <= KEPT_MAX && left.1 <= KEPT_BYTES_MAX {
            break;
        }
        if mls.awaited(tx, channel)?.is_some() {
            continue;
        }
        pushed_out.extend(get(tx, &key(channel, sequence))?.map(|row| row.inbox_id));
        delete(tx, channel, sequence)?;
        note_declined(tx, channel, sequence)?;
        left = (left.0 - 1, left.1 - bytes);
        tracing::warn!(?channel, "too many invitations are open: the oldest is dropped");
    }
    Ok(pushed_out)
}

/// Up to where the application wants none of the channel.
fn declined(tx: &Transaction<'_>, channel: ChannelId) -> Result<Option<Sequence>, ClientError> {
    let Some(bytes) = tx.get(DECLINED, &channel.0)? else { return Ok(None) };
    let mut reader = Reader::new(&bytes);
    let last = Sequence(reader.u64("declined")?);
    reader.finish()?;
    Ok(Some(last))
}

fn note_declined(tx: &Transaction<'_>, channel: ChannelId, sequence: Sequence) -> Result<(), ClientError> {
    let last = declined(tx, channel)?.max(Some(sequence)).unwrap_or(sequence);
    Ok(tx.put(DECLINED, &channel.0, &Writer::new().u64(last.0).finish())?)
}

/// Whether the application has declined to come into the channel.
pub(crate) fn is_declined(tx: &Transaction<'_>, channel: ChannelId) -> Result<bool, ClientError> {
    Ok(declined(tx, channel)?.is_some())
}

/// Declines an invitation, and older ones into the channel. Gives their inbox items.
pub(crate) fn decline(tx: &Transaction<'_>, channel: ChannelId, sequence: Sequence) -> Result<Vec<u64>, ClientError> {
    let inbox_ids = drop_invitations(tx, channel, sequence)?;
    if inbox_ids.is_empty() {
        return Err(ClientError::InvitationGone);
    }
    note_declined(tx, channel, sequence)?;
    Ok(inbox_ids)
}

/// The gateway names all channels of which this device is a member: what was declined of others is over.
pub(crate) fn forget_declined(tx: &Transaction<'_>, listed: &BTreeSet<ChannelId>) -> Result<(), ClientError> {
    for (key, _) in tx.list(DECLINED)? {
        if ChannelId::try_from(&key[..]).is_ok_and(|channel| !listed.contains(&channel)) {
            tx.delete(DECLINED, &key)?;
        }
    }
    Ok(())
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
    pub(crate) is_held_back: bool,
}

/// The channel's log has been read on: what is neither used nor a seat, nor ahead in the log, is the application's.
pub(crate) fn offer(tx: &Transaction<'_>, mls: &Mls, channel: ChannelId, log: Log) -> Result<Offered, ClientError> {
    let mut offered = Offered::default();
    for kept in of_channel(tx, channel)? {
        let key = kept.key();
        if tx.get(WITHHELD, &key)?.is_none() {
            continue;
        }
        let Some(row) = get(tx, &key)? else { continue };
        if is_used(tx, mls, channel, row.head)? {
            offered.used.push(row.inbox_id);
            delete(tx, channel, kept.sequence)?;
        } else if mls.awaited(tx, channel)?.is_some() {
            offered.is_seat = true;
        } else if !may_tell(tx, mls, channel, row.head, log)? {
            offered.is_held_back = true;
        } else {
            tell(tx, channel, &key, &row)?;
            offered.is_new = true;
        }
    }
    Ok(offered)
}

/// The place of the newest invitation into the channel that may be a seat.
pub(crate) fn newest_seat(tx: &Transaction<'_>, channel: ChannelId) -> Result<Option<Sequence>, ClientError> {
    for kept in of_channel(tx, channel)?.into_iter().rev() {
        if tx.get(NO_SEAT, &kept.key())?.is_none() {
            return Ok(Some(kept.sequence));
        }
    }
    Ok(None)
}

/// Takes the seat that an invitation gives. Gives its inbox item; `None` if the invitation is gone.
pub(crate) fn take_seat(
    tx: &Transaction<'_>,
    mls: &Mls,
    federation: &Federation,
    (channel, sequence): (ChannelId, Sequence),
    tree: Vec<u8>,
) -> Result<Option<u64>, ClientError> {
    let Some(row) = get(tx, &key(channel, sequence))? else { return Ok(None) };
    let InvitationRow { inbox_id, head, inviter, welcome, .. } = row;
    mls.take_seat(tx, federation, &lianxin_mls::Invitation { channel, head, welcome, tree, inviter })?;
    delete(tx, channel, sequence)?;
    tx.delete(SEAT_WAIT, &channel.0)?;
    tx.delete(DECLINED, &channel.0)?;
    Ok(Some(inbox_id))
}

/// It could not be taken as a seat: it is the application's, unless it is of no use any more.
pub(crate) fn not_a_seat(
    tx: &Transaction<'_>,
    mls: &Mls,
    channel: ChannelId,
    sequence: Sequence,
) -> Result<Offered, ClientError> {
    let key = key(channel, sequence);
    let Some(row) = get(tx, &key)? else { return Ok(Offered::default()) };
    if is_used(tx, mls, channel, row.head)? {
        delete(tx, channel, sequence)?;
        return Ok(Offered { used: vec![row.inbox_id], ..Offered::default() });
    }
    tx.put(NO_SEAT, &key, &[])?;
    let is_new = tx.get(WITHHELD, &key)?.is_some();
    if is_new {
        tell(tx, channel, &key, &row)?;
    }
    Ok(Offered { is_new, ..Offered::default() })
}

/// Those that are the application's, the oldest first: the keys of all, and those that are not among `given`.
pub(crate) fn open_invitations(
    tx: &Transaction<'_>,
    given: &HashSet<Vec<u8>>,
) -> Result<(HashSet<Vec<u8>>, Vec<Invitation>), ClientError> {
    let (mut open, mut new) = (HashSet::new(), Vec::new());
    for kept in all(tx)? {
        let key = kept.key();
        if tx.get(WITHHELD, &key)?.is_some() {
            continue;
        }
        if !given.contains(&key)
            && let Some(InvitationRow { inviter, gateway_time, .. }) = get(tx, &key)?
        {
            new.push(Invitation { channel: kept.channel, inviter, gateway_time, sequence: kept.sequence });
        }
        open.insert(key);
    }
    Ok((open, new))
}

/// The Welcomes of all that are kept.
pub(crate) fn welcomes(tx: &Transaction<'_>) -> Result<Vec<Vec<u8>>, ClientError> {
    let mut welcomes = Vec::new();
    for kept in all(tx)? {
        welcomes.extend(get(tx, &kept.key())?.map(|row| row.welcome));
    }
    Ok(welcomes)
}

/// Whether an invitation into the channel is there.
pub(crate) fn is_invited(tx: &Transaction<'_>, channel: ChannelId) -> Result<bool, ClientError> {
    Ok(!of_channel(tx, channel)?.is_empty())
}

/// Whether the invitation is there.
pub(crate) fn is_kept(tx: &Transaction<'_>, channel: ChannelId, sequence: Sequence) -> Result<bool, ClientError> {
    Ok(of_channel(tx, channel)?.iter().any(|kept| kept.sequence == sequence))
}

/// An accepted invitation.
pub(crate) struct Accepted {
    /// To be confirmed: its inbox item, and those of older invitations into the channel, which are of no use any more.
    pub(crate) inbox_ids: Vec<u64>,
    /// What waited in an older group of the channel.
    pub(crate) settled: Settled,
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
    let row = get(tx, &key(channel, sequence))?.ok_or(ClientError::InvitationGone)?;
    let InvitationRow { head, inviter, welcome, .. } = row;
    mls.join(tx, federation, &lianxin_mls::Invitation { channel, head, welcome, tree, inviter })?;
    let inbox_ids = drop_invitations(tx, channel, sequence)?;
    tx.delete(DECLINED, &channel.0)?;
    let failed = outbox::drop_all(tx, channel, outbox::Read::InPart)?;
    let failed = failed.into_iter().map(|(id, failure)| (id, Err(failure)));
    let settled = failed.chain(wishes::epoch_ended(tx, channel, Ending::Invited)?).collect();
    Ok(Accepted { inbox_ids, settled })
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
    drop_invitations(tx, channel, sequence)
}

/// Deletes the invitation at this sequence and older ones of the channel; gives their inbox items.
fn drop_invitations(tx: &Transaction<'_>, channel: ChannelId, last: Sequence) -> Result<Vec<u64>, ClientError> {
    let mut inbox_ids = Vec::new();
    for kept in of_channel(tx, channel)?.into_iter().filter(|kept| kept.sequence <= last) {
        inbox_ids.extend(get(tx, &kept.key())?.map(|row| row.inbox_id));
        delete(tx, channel, kept.sequence)?;
    }
    Ok(inbox_ids)
}
