//! Messages that wait for the gateway, inside a transaction: put in, encrypted again, settled. The MLS ratchet and the row
//! move together; the network is never touched here.

use lianxin_connection::LogEntry;
use lianxin_keystore::Transaction;
use lianxin_mls::{Mls, MlsError};
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, Epoch, IdempotencyId, Reader, Writer};

use crate::ClientError;
use crate::rows::{MESSAGE, MessageRow, OUTBOX, OUTBOX_LAST, OWN_MESSAGE, Origin, OutboxRow};
use crate::waiters::Failure;

/// Callers of `send` in one channel that wait for the gateway; more callers wait for room.
pub(crate) const OUTBOX_MAX: usize = 200;
/// Messages of one channel that wait, those of callers who gave up waiting included. PROTOCOL 6 wants fewer than 500.
const STORED_MAX: u64 = 450;
/// Rows read at a time.
const PAGE: usize = 32;

/// What one transaction settled: callers learn it after the commit.
pub(crate) type Failures = Vec<(IdempotencyId, Failure)>;

/// Encrypts and stores a message behind those that wait.
pub(crate) fn put(
    tx: &Transaction<'_>,
    mls: &Mls,
    federation: &Federation,
    channel: ChannelId,
    id: IdempotencyId,
    body: Vec<u8>,
) -> Result<(), ClientError> {
    let position = next_position(tx, channel)?;
    let first = tx.log_read(OUTBOX, &channel.0, 0, 1)?.first().map_or(position, |(position, _)| *position);
    if position - first >= STORED_MAX {
        return Err(ClientError::OutboxFull);
    }
    let mut row = OutboxRow { id, epoch: Epoch(0), mls: Vec::new(), accepted: false, body };
    if waits_to_encrypt(tx, channel)? {
        // In the order in which they go out, for others open few that come late ([`encrypt_waiting`]).
        return Ok(tx.log_put(OUTBOX, &channel.0, position, &row.to_bytes())?);
    }
    match encrypt(tx, mls, federation, channel, &mut row) {
        Ok(()) => {}
        // A row without ciphertext: it is encrypted when what must come before it has come.
        Err(error) if passes(&error) => {}
        Err(MlsError::NotMember | MlsError::Leaving) => return Err(ClientError::NotMember),
        Err(error) => return Err(error.into()),
    }
    Ok(tx.log_put(OUTBOX, &channel.0, position, &row.to_bytes())?)
}

/// Whether the last message that is stored has no ciphertext yet.
fn waits_to_encrypt(tx: &Transaction<'_>, channel: ChannelId) -> Result<bool, ClientError> {
    let Some(last) = tx.log_last(OUTBOX, &channel.0)? else { return Ok(false) };
    Ok(page(tx, channel, last.saturating_sub(1))?.iter().any(|(_, row)| row.mls.is_empty()))
}

/// A position that no message of the channel had before.
fn next_position(tx: &Transaction<'_>, channel: ChannelId) -> Result<u64, ClientError> {
    let last = match tx.get(OUTBOX_LAST, &channel.0)? {
        Some(bytes) => {
            let mut reader = Reader::new(&bytes);
            let last = reader.u64("last outbox position")?;
            reader.finish()?;
            last
        }
        None => 0,
    };
    tx.put(OUTBOX_LAST, &channel.0, &Writer::new().u64(last + 1).finish())?;
    Ok(last + 1)
}

/// What became of messages that were to be encrypted.
#[derive(Debug, Default)]
pub(crate) struct Encrypted {
    /// Those that never will be: they are gone.
    pub(crate) failures: Failures,
    /// How many have a ciphertext now.
    pub(crate) count: usize,
}

/// Encrypts everything for the state that the group has just come to. Whatever the gateway accepted for the one before stands in
/// front of the event that ended it and is settled by now, and nothing more of it can be accepted: so a second ciphertext cannot
/// make a second message. Within an epoch it could: there only [`encrypt_waiting`] will do.
pub(crate) fn encrypt_again(
    tx: &Transaction<'_>,
    mls: &Mls,
    federation: &Federation,
    channel: ChannelId,
) -> Result<Failures, ClientError> {
    Ok(encrypt_rows(tx, mls, federation, channel, |row| !row.accepted)?.failures)
}

/// Encrypts what has no ciphertext, because something came before it that may have passed. Those that have one keep it: the
/// gateway may have it already.
pub(crate) fn encrypt_waiting(
    tx: &Transaction<'_>,
    mls: &Mls,
    federation: &Federation,
    channel: ChannelId,
) -> Result<Encrypted, ClientError> {
    encrypt_rows(tx, mls, federation, channel, |row| row.mls.is_empty())
}

fn encrypt_rows(
    tx: &Transaction<'_>,
    mls: &Mls,
    federation: &Federation,
    channel: ChannelId,
    is_meant: impl Fn(&OutboxRow) -> bool,
) -> Result<Encrypted, ClientError> {
    let mut encrypted = Encrypted::default();
    let mut after = 0;
    loop {
        let page = page(tx, channel, after)?;
        let Some((last, _)) = page.last() else { return Ok(encrypted) };
        after = *last;
        for (position, mut row) in page.into_iter().filter(|(_, row)| is_meant(row)) {
            row.mls.clear();
            match encrypt(tx, mls, federation, channel, &mut row) {
                Ok(()) => {
                    tx.log_put(OUTBOX, &channel.0, position, &row.to_bytes())?;
                    encrypted.count += 1;
                }
                Err(error) if passes(&error) => tx.log_put(OUTBOX, &channel.0, position, &row.to_bytes())?,
                Err(MlsError::NotMember | MlsError::Leaving) => {
                    tx.log_delete(OUTBOX, &channel.0, position)?;
                    encrypted.failures.push((row.id, Failure::NotMember));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether what keeps a message from being encrypted passes by itself: something is to be committed first, or the group is broken
/// and the device is on its way back into the channel.
const fn passes(error: &MlsError) -> bool {
    matches!(
        error,
        MlsError::ProposalsPending
            | MlsError::MemberRevoked { .. }
            | MlsError::LastResortKeys
            | MlsError::OlderState
            | MlsError::TooFarAhead
            | MlsError::SeatsPending
            | MlsError::Broken
    )
}

fn encrypt(
    tx: &Transaction<'_>,
    mls: &Mls,
    federation: &Federation,
    channel: ChannelId,
    row: &mut OutboxRow,
) -> Result<(), MlsError> {
    let encrypted = mls.encrypt(tx, federation, channel, row.id, &row.body)?;
    row.mls = encrypted.mls;
    row.epoch = encrypted.epoch;
    Ok(())
}

/// At most 32 rows behind a position, in order.
pub(crate) fn page(tx: &Transaction<'_>, channel: ChannelId, after: u64) -> Result<Vec<(u64, OutboxRow)>, ClientError> {
    let read = tx.log_read(OUTBOX, &channel.0, after, PAGE)?.into_iter();
    read.map(|(position, bytes)| Ok((position, OutboxRow::from_bytes(&bytes)?))).collect()
}

/// The own message came back in the log: the row becomes an entry of the local log. Rows come back in order, so the first
/// is nearly always the one.
pub(crate) fn settle(tx: &Transaction<'_>, event: &LogEntry) -> Result<(), ClientError> {
    let Some((position, row)) = find(tx, event.channel, event.idempotency_id)? else { return Ok(()) };
    tx.log_delete(OUTBOX, &event.channel.0, position)?;
    let message = MessageRow {
        sender: event.sender.clone(),
        origin: Origin::Own,
        epoch: row.epoch,
        gateway_time: event.gateway_time,
        expiry: event.expiry,
        leaf_index: event.leaf_index,
        leaf_hash: event.leaf_hash,
        body: row.body,
    };
    tx.log_put(OWN_MESSAGE, &event.channel.0, event.sequence.0, &[])?;
    Ok(tx.log_put(MESSAGE, &event.channel.0, event.sequence.0, &message.to_bytes())?)
}

/// The gateway has accepted: the row waits for its echo and is not sent again.
pub(crate) fn mark_accepted(tx: &Transaction<'_>, channel: ChannelId, id: IdempotencyId) -> Result<(), ClientError> {
    if let Some((position, mut row)) = find(tx, channel, id)? {
        row.accepted = true;
        tx.log_put(OUTBOX, &channel.0, position, &row.to_bytes())?;
    }
    Ok(())
}

/// The ciphertext of a message that waits; nothing if it waits no more.
pub(crate) fn bytes_of(tx: &Transaction<'_>, channel: ChannelId, id: IdempotencyId) -> Result<Vec<u8>, ClientError> {
    Ok(find(tx, channel, id)?.map(|(_, row)| row.mls).unwrap_or_default())
}

/// The gateway will never accept: the row goes.
pub(crate) fn drop_row(tx: &Transaction<'_>, channel: ChannelId, id: IdempotencyId) -> Result<(), ClientError> {
    if let Some((position, _)) = find(tx, channel, id)? {
        tx.log_delete(OUTBOX, &channel.0, position)?;
    }
    Ok(())
}

/// The log has something under the id of a message that waits, in other bytes: whether that was the message cannot be told. It is
/// sent no more.
pub(crate) fn give_up(tx: &Transaction<'_>, event: &LogEntry) -> Result<Failures, ClientError> {
    let Some((position, row)) = find(tx, event.channel, event.idempotency_id)? else { return Ok(Failures::new()) };
    tx.log_delete(OUTBOX, &event.channel.0, position)?;
    Ok(vec![(row.id, Failure::GivenUp)])
}

/// How far the log of a group was read that has ended for this device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// To its end: what has not come back was not accepted.
    ToTheEnd,
    /// Only so far: what has been encrypted may be in the rest.
    InPart,
}

/// The device has left, or comes in anew: nothing that waits will be sent any more.
pub(crate) fn drop_all(tx: &Transaction<'_>, channel: ChannelId, read: Read) -> Result<Failures, ClientError> {
    let mut failures = Failures::new();
    loop {
        let page = page(tx, channel, 0)?;
        if page.is_empty() {
            return Ok(failures);
        }
        for (position, row) in page {
            tx.log_delete(OUTBOX, &channel.0, position)?;
            let is_certain = read == Read::ToTheEnd || row.mls.is_empty();
            failures.push((row.id, if is_certain { Failure::NotMember } else { Failure::GivenUp }));
        }
    }
}

fn find(tx: &Transaction<'_>, channel: ChannelId, id: IdempotencyId) -> Result<Option<(u64, OutboxRow)>, ClientError> {
    let mut after = 0;
    // Decrypting one row is cheaper than a page, and the first is nearly always the one.
    for (position, bytes) in tx.log_read(OUTBOX, &channel.0, 0, 1)? {
        let row = OutboxRow::from_bytes(&bytes)?;
        if row.id == id {
            return Ok(Some((position, row)));
        }
        after = position;
    }
    loop {
        let page = page(tx, channel, after)?;
        let Some((last, _)) = page.last() else { return Ok(None) };
        after = *last;
        if let Some(found) = page.into_iter().find(|(_, row)| row.id == id) {
            return Ok(Some(found));
        }
    }
}
