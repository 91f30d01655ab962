//! Where invitations are kept: a row of up to 1 MiB for each, and small entries by which those of a channel, and the oldest of all,
//! are found without it.

use lianxin_keystore::Transaction;
use lianxin_types::{ChannelId, DecodeError, Reader, Sequence, Writer};

use crate::ClientError;
use crate::rows::{INVITATION, INVITATION_OF, INVITATION_ORDER, InvitationRow, NO_SEAT, WITHHELD};

/// One that is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kept {
    pub(crate) channel: ChannelId,
    pub(crate) sequence: Sequence,
    /// Of its row.
    pub(crate) bytes: u64,
    /// In the order in which they came.
    place: u64,
}

impl Kept {
    pub(crate) fn key(&self) -> Vec<u8> {
        key(self.channel, self.sequence)
    }

    /// channel 16, sequence u64, bytes u64.
    fn to_bytes(self) -> Vec<u8> {
        Writer::new().raw(&self.channel.0).u64(self.sequence.0).u64(self.bytes).finish()
    }

    fn from_bytes(place: u64, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let channel = ChannelId(reader.array("channel")?);
        let (sequence, bytes) = (Sequence(reader.u64("sequence")?), reader.u64("bytes")?);
        reader.finish()?;
        Ok(Self { channel, sequence, bytes, place })
    }
}

pub(crate) fn key(channel: ChannelId, sequence: Sequence) -> Vec<u8> {
    [&channel.0[..], &sequence.0.to_be_bytes()].concat()
}

pub(super) fn get(tx: &Transaction<'_>, key: &[u8]) -> Result<Option<InvitationRow>, ClientError> {
    Ok(tx.get(INVITATION, key)?.map(|row| InvitationRow::from_bytes(&row)).transpose()?)
}

/// Keeps an invitation in the place of one that came before into the same channel at the same sequence.
pub(crate) fn put(tx: &Transaction<'_>, channel: ChannelId, row: &InvitationRow) -> Result<(), ClientError> {
    let (sequence, stored) = (row.head.sequence, row.to_bytes());
    let known = of_channel(tx, channel)?.into_iter().find(|kept| kept.sequence == sequence);
    let place = match known {
        Some(kept) => kept.place,
        None => tx.log_last(INVITATION_ORDER, b"")?.unwrap_or(0) + 1,
    };
    let kept = Kept { channel, sequence, bytes: stored.len() as u64, place };
    tx.log_put(INVITATION_ORDER, b"", place, &kept.to_bytes())?;
    tx.log_put(INVITATION_OF, &channel.0, place, &kept.to_bytes())?;
    Ok(tx.put(INVITATION, &kept.key(), &stored)?)
}

pub(super) fn delete(tx: &Transaction<'_>, channel: ChannelId, sequence: Sequence) -> Result<(), ClientError> {
    for kept in of_channel(tx, channel)?.into_iter().filter(|kept| kept.sequence == sequence) {
        tx.log_delete(INVITATION_ORDER, b"", kept.place)?;
        tx.log_delete(INVITATION_OF, &channel.0, kept.place)?;
    }
    let key = key(channel, sequence);
    [INVITATION, WITHHELD, NO_SEAT].into_iter().try_for_each(|kind| Ok(tx.delete(kind, &key)?))
}

/// Those into a channel, ascending by sequence.
pub(super) fn of_channel(tx: &Transaction<'_>, channel: ChannelId) -> Result<Vec<Kept>, ClientError> {
    let mut kept = read(tx, INVITATION_OF, &channel.0)?;
    kept.sort_unstable_by_key(|kept| kept.sequence);
    Ok(kept)
}

/// All, the oldest first.
pub(super) fn all(tx: &Transaction<'_>) -> Result<Vec<Kept>, ClientError> {
    read(tx, INVITATION_ORDER, b"")
}

fn read(tx: &Transaction<'_>, kind: &'static str, owner: &[u8]) -> Result<Vec<Kept>, ClientError> {
    let entries = tx.log_read(kind, owner, 0, usize::MAX)?.into_iter();
    entries.map(|(place, bytes)| Ok(Kept::from_bytes(place, &bytes)?)).collect()
}
