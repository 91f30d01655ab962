//! What the engine remembers of a channel beside its group: where it is in the log, the chain, what it sent, what it had.

use lianxin_keystore::Transaction;
use lianxin_profile::Roster;
use lianxin_tlog::Head;
use lianxin_types::{
    ChannelId, DecodeError, DeviceUri, Digest, GroupId, IdempotencyId, Reader, Sequence, Writer, labelled_sha256,
};

use crate::MlsError;

/// Rows: one record per channel, its roster, the hashes of own messages on their way, and intents that were seen.
const RECORDS: &str = "mls-channel";
const ROSTERS: &str = "mls-roster";
const SENT: &str = "mls-sent";
const INTENTS: &str = "mls-intent";
/// Logs, by channel and sequence: chain hashes, and the order in which intents were seen.
const CHAIN: &str = "mls-chain";
const INTENT_ORDER: &str = "mls-intent-order";

/// Intents remembered per channel; the oldest are forgotten first. A repeat comes from a retry, so it comes soon.
const INTENTS_MAX: u64 = 10_000;
const VERSION: u8 = 1;
const DELETE_STEP: usize = 500;

/// How the device stands to the channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// A member.
    Active = 1,
    /// A member of a group that a bad commit broke.
    Broken = 2,
    /// No member any more; the group is deleted.
    Ended = 3,
}

/// One channel's record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ChannelRecord {
    /// The group that carries the channel.
    pub(crate) group: GroupId,
    pub(crate) standing: Standing,
    /// The last event processed.
    pub(crate) head: Head,
    /// The event that made the current epoch; nobody can have sent in it with an older head.
    pub(crate) epoch_start: Sequence,
    /// Intents remembered.
    pub(crate) intents: u64,
}

impl ChannelRecord {
    fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(VERSION).raw(&self.group.to_bytes()).u8(self.standing as u8);
        writer.u64(self.head.sequence.0).raw(&self.head.chain_hash.0);
        writer.u64(self.epoch_start.0).u64(self.intents).finish()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("record version")?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion { version });
        }
        let group = GroupId::try_from(reader.raw("group id", 20)?);
        let group = group.map_err(|_| DecodeError::OutOfRange { field: "group id" })?;
        let standing = match reader.u8("standing")? {
            1 => Standing::Active,
            2 => Standing::Broken,
            3 => Standing::Ended,
            _ => return Err(DecodeError::OutOfRange { field: "standing" }),
        };
        let sequence = Sequence(reader.u64("head sequence")?);
        let head = Head { sequence, chain_hash: Digest(reader.array("chain hash")?) };
        let epoch_start = Sequence(reader.u64("epoch start")?);
        let intents = reader.u64("intents")?;
        reader.finish()?;
        Ok(Self { group, standing, head, epoch_start, intents })
    }
}

/// The rows of one channel in a transaction.
#[derive(Clone, Copy)]
pub(crate) struct Records<'a> {
    tx: &'a Transaction<'a>,
    channel: ChannelId,
}

impl<'a> Records<'a> {
    pub(crate) const fn new(tx: &'a Transaction<'a>, channel: ChannelId) -> Self {
        Self { tx, channel }
    }

    /// Every channel with a record, ended ones included, ascending.
    pub(crate) fn all(tx: &Transaction<'_>) -> Result<Vec<(ChannelId, ChannelRecord)>, MlsError> {
        let parse = |(key, value): (Vec<u8>, Vec<u8>)| {
            let channel = ChannelId::try_from(&key[..]).map_err(|_| DecodeError::OutOfRange { field: "channel id" })?;
            Ok((channel, ChannelRecord::from_bytes(&value)?))
        };
        tx.list(RECORDS)?.into_iter().map(parse).collect()
    }

    pub(crate) fn load(&self) -> Result<Option<ChannelRecord>, MlsError> {
        let found = self.tx.get(RECORDS, &self.channel.0)?;
        Ok(found.map(|bytes| ChannelRecord::from_bytes(&bytes)).transpose()?)
    }

    pub(crate) fn save(&self, record: &ChannelRecord) -> Result<(), MlsError> {
        Ok(self.tx.put(RECORDS, &self.channel.0, &record.to_bytes())?)
    }

    pub(crate) fn roster(&self) -> Result<Roster, MlsError> {
        let bytes = self.tx.get(ROSTERS, &self.channel.0)?.ok_or(MlsError::NotMember)?;
        Ok(Roster::from_bytes(&bytes)?)
    }

    pub(crate) fn save_roster(&self, roster: &Roster) -> Result<(), MlsError> {
        Ok(self.tx.put(ROSTERS, &self.channel.0, &roster.to_bytes())?)
    }

    /// Adds a head to the chain.
    pub(crate) fn save_head(&self, head: &Head) -> Result<(), MlsError> {
        Ok(self.tx.log_put(CHAIN, &self.channel.0, head.sequence.0, &head.chain_hash.0)?)
    }

    /// The chain hash at `sequence`, if it is remembered.
    pub(crate) fn chain_hash(&self, sequence: Sequence) -> Result<Option<Digest>, MlsError> {
        let Some(before) = sequence.0.checked_sub(1) else { return Ok(None) };
        let found = self.tx.log_read(CHAIN, &self.channel.0, before, 1)?;
        let found = found.into_iter().find(|(position, _)| *position == sequence.0);
        Ok(found.and_then(|(_, hash)| Digest::try_from(&hash[..]).ok()))
    }

    /// Remembers the hash of an own message, so that nobody can say that this device sent what it did not.
    pub(crate) fn save_sent(&self, hash: &Digest) -> Result<(), MlsError> {
        Ok(self.tx.put(SENT, &self.sent_key(hash), &[])?)
    }

    /// Whether this device sent the bytes with this hash, once.
    pub(crate) fn take_sent(&self, hash: &Digest) -> Result<bool, MlsError> {
        let key = self.sent_key(hash);
        let known = self.tx.get(SENT, &key)?.is_some();
        self.tx.delete(SENT, &key)?;
        Ok(known)
    }

    fn sent_key(&self, hash: &Digest) -> Vec<u8> {
        [&self.channel.0[..], &hash.0].concat()
    }

    /// Forgets own messages of an epoch that is over: they cannot be accepted any more.
    pub(crate) fn forget_sent(&self) -> Result<(), MlsError> {
        for (key, _) in self.tx.list(SENT)? {
            if key.starts_with(&self.channel.0) {
                self.tx.delete(SENT, &key)?;
            }
        }
        Ok(())
    }

    /// Remembers an intent of a sender. Gives whether it is new. The sender is part of the key, or one member could make
    /// others drop another's message.
    pub(crate) fn note_intent(
        &self,
        record: &mut ChannelRecord,
        sender: &DeviceUri,
        intent: &IdempotencyId,
        sequence: Sequence,
    ) -> Result<bool, MlsError> {
        let parts: [&[u8]; 3] = [&self.channel.0, &intent.0, sender.as_str().as_bytes()];
        let key = labelled_sha256("lianxin/intent-seen/v1", &parts);
        if self.tx.get(INTENTS, &key.0)?.is_some() {
            return Ok(false);
        }
        if record.intents >= INTENTS_MAX {
            for (position, oldest) in self.tx.log_read(INTENT_ORDER, &self.channel.0, 0, 1)? {
                self.tx.delete(INTENTS, &oldest)?;
                self.tx.log_delete(INTENT_ORDER, &self.channel.0, position)?;
                record.intents -= 1;
            }
        }
        self.tx.put(INTENTS, &key.0, &[])?;
        self.tx.log_put(INTENT_ORDER, &self.channel.0, sequence.0, &key.0)?;
        record.intents += 1;
        Ok(true)
    }

    /// Deletes everything but the record.
    pub(crate) fn clear(&self) -> Result<(), MlsError> {
        self.tx.delete(ROSTERS, &self.channel.0)?;
        self.forget_sent()?;
        loop {
            let step = self.tx.log_read(INTENT_ORDER, &self.channel.0, 0, DELETE_STEP)?;
            if step.is_empty() {
                break;
            }
            for (position, key) in step {
                self.tx.delete(INTENTS, &key)?;
                self.tx.log_delete(INTENT_ORDER, &self.channel.0, position)?;
            }
        }
        loop {
            let step = self.tx.log_read(CHAIN, &self.channel.0, 0, DELETE_STEP)?;
            if step.is_empty() {
                break;
            }
            for (position, _) in step {
                self.tx.log_delete(CHAIN, &self.channel.0, position)?;
            }
        }
        Ok(())
    }

    /// Deletes the record.
    pub(crate) fn delete(&self) -> Result<(), MlsError> {
        Ok(self.tx.delete(RECORDS, &self.channel.0)?)
    }
}

#[cfg(test)]
mod tests {
    use lianxin_mutation::{Mutator, seed, share};
    use lianxin_types::Incarnation;

    use super::*;

    fn record() -> ChannelRecord {
        ChannelRecord {
            group: GroupId { channel: ChannelId([0xAA; 16]), incarnation: Incarnation(0) },
            standing: Standing::Broken,
            head: Head { sequence: Sequence(3), chain_hash: Digest([0xBB; 32]) },
            epoch_start: Sequence(2),
            intents: 1,
        }
    }

    /// One encoding for each record: a mutant is refused, or is itself what would have been written for another one.
    #[test]
    fn mutants_are_refused_or_read_as_they_stand() {
        let (bytes, mut mutator) = (lianxin_mutation::lengths(&record().to_bytes()), Mutator::new(seed()));
        for number in 0..share(500, 10_000) {
            let mutant = mutator.mutate(&bytes, &bytes);
            if let Ok(read) = ChannelRecord::from_bytes(&mutant.bytes) {
                assert_eq!(read.to_bytes(), mutant.bytes, "mutant {number} of seed {}: {:?}", seed(), mutant.how);
            }
        }
    }

    #[test]
    fn golden_and_back() {
        let record = record();
        let bytes = record.to_bytes();
        let expect = [
            format!("01{}0000000002", "aa".repeat(16)),
            format!("0000000000000003{}", "bb".repeat(32)),
            "00000000000000020000000000000001".to_owned(),
        ];
        let shown: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, expect.concat());
        assert_eq!(ChannelRecord::from_bytes(&bytes), Ok(record));
        assert!(ChannelRecord::from_bytes(&bytes[..20]).is_err());
    }
}
