//! What the engine remembers of a channel beside its group: where it is in the log, the chain, what it sent, what it had.

use lianxin_keystore::{Shelf, Transaction};
use lianxin_profile::Roster;
use lianxin_tlog::Head;
use lianxin_types::{
    ChannelId, DecodeError, DeviceUri, Digest, Epoch, GroupId, IdempotencyId, Reader, Sequence, Timestamp, Writer,
    labelled_sha256,
};

use crate::MlsError;
use crate::leaf::{LeafKeys, Origin};

mod sent;

pub(crate) use sent::Sent;

/// Rows: one record per channel, its roster, intents that were seen, the way back that waits for the gateway, and how old the keys
/// of the own leaf are.
const RECORDS: &str = "mls-channel";
const ROSTERS: &str = "mls-roster";
const INTENTS: &str = "mls-intent";
const REJOINS: &str = "mls-rejoin";
const LEAVES: &str = "mls-leaf";
/// Logs by channel: chain hashes by sequence, and in which order intents were seen.
const CHAIN: &str = "mls-chain";
const INTENT_ORDER: &str = "mls-intent-order";

/// Intents remembered per channel; the oldest are forgotten first. A repeat comes from a retry, so it comes soon.
const INTENTS_MAX: u64 = 10_000;
/// Version 1 had no shelf: its groups lie on the first.
const VERSION: u8 = 2;
const REJOIN_VERSION: u8 = 1;
/// A roster of 1,000 members with the longest names.
const ROSTER_BYTES_MAX: usize = 1024 * 1024;
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
    /// The device has lost the group and is on its way back: it counts the log and can read nothing of it.
    Lost = 4,
    /// A member of a group that another has followed, and not seated in that one yet: the log is read no further.
    Awaited = 5,
}

/// An external commit that waits for the gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rejoin {
    /// SHA-256 of its bytes.
    pub(crate) commit_hash: Digest,
    /// The epoch that it would end.
    pub(crate) epoch: Epoch,
    /// Who sits in the group that it makes; that group lies on the shelf that is not the record's.
    pub(crate) roster: Roster,
}

impl Rejoin {
    /// version u8, hash of the commit 32, epoch u64, roster with a 32-bit length.
    fn to_bytes(&self) -> Vec<u8> {
        Writer::new()
            .u8(REJOIN_VERSION)
            .raw(&self.commit_hash.0)
            .u64(self.epoch.0)
            .bytes(&self.roster.to_bytes())
            .finish()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("rejoin version")?;
        if version != REJOIN_VERSION {
            return Err(DecodeError::UnknownVersion { version });
        }
        let commit_hash = Digest(reader.array("commit hash")?);
        let epoch = Epoch(reader.u64("epoch")?);
        let roster = Roster::from_bytes(reader.bytes("roster", ROSTER_BYTES_MAX)?)?;
        reader.finish()?;
        Ok(Self { commit_hash, epoch, roster })
    }
}

/// One channel's record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ChannelRecord {
    /// The group that carries the channel.
    pub(crate) group: GroupId,
    /// Where it lies.
    pub(crate) shelf: Shelf,
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
        writer.u64(self.epoch_start.0).u64(self.intents).u8(shelf_byte(self.shelf)).finish()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("record version")?;
        if !(1..=VERSION).contains(&version) {
            return Err(DecodeError::UnknownVersion { version });
        }
        let group = GroupId::try_from(reader.raw("group id", 20)?);
        let group = group.map_err(|_| DecodeError::OutOfRange { field: "group id" })?;
        let standing = match reader.u8("standing")? {
            1 => Standing::Active,
            2 => Standing::Broken,
            3 => Standing::Ended,
            4 => Standing::Lost,
            5 => Standing::Awaited,
            _ => return Err(DecodeError::OutOfRange { field: "standing" }),
        };
        let sequence = Sequence(reader.u64("head sequence")?);
        let head = Head { sequence, chain_hash: Digest(reader.array("chain hash")?) };
        let epoch_start = Sequence(reader.u64("epoch start")?);
        let intents = reader.u64("intents")?;
        let shelf = match version {
            1 => Shelf::First,
            _ => read_shelf(&mut reader)?,
        };
        reader.finish()?;
        Ok(Self { group, shelf, standing, head, epoch_start, intents })
    }
}

const fn shelf_byte(shelf: Shelf) -> u8 {
    match shelf {
        Shelf::First => 1,
        Shelf::Second => 2,
    }
}

fn read_shelf(reader: &mut Reader<'_>) -> Result<Shelf, DecodeError> {
    match reader.u8("shelf")? {
        1 => Ok(Shelf::First),
        2 => Ok(Shelf::Second),
        _ => Err(DecodeError::OutOfRange { field: "shelf" }),
    }
}

/// The rows of one channel in a transaction.
#[derive(Clone, Copy)]
pub(crate) struct Records<'a> {
    pub(crate) tx: &'a Transaction<'a>,
    pub(crate) channel: ChannelId,
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

    /// The keys of the own leaf; `None` if they were made before this was remembered.
    pub(crate) fn leaf(&self) -> Result<Option<LeafKeys>, MlsError> {
        let found = self.tx.get(LEAVES, &self.channel.0)?;
        Ok(found.map(|bytes| LeafKeys::from_bytes(&bytes)).transpose()?)
    }

    pub(crate) fn save_leaf(&self, origin: Origin, since: Timestamp) -> Result<(), MlsError> {
        Ok(self.tx.put(LEAVES, &self.channel.0, &LeafKeys { origin, since }.to_bytes())?)
    }

    /// The way back that waits.
    pub(crate) fn rejoin(&self) -> Result<Option<Rejoin>, MlsError> {
        let found = self.tx.get(REJOINS, &self.channel.0)?;
        Ok(found.map(|bytes| Rejoin::from_bytes(&bytes)).transpose()?)
    }

    pub(crate) fn save_rejoin(&self, rejoin: &Rejoin) -> Result<(), MlsError> {
        Ok(self.tx.put(REJOINS, &self.channel.0, &rejoin.to_bytes())?)
    }

    pub(crate) fn forget_rejoin(&self) -> Result<(), MlsError> {
        Ok(self.tx.delete(REJOINS, &self.channel.0)?)
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

    /// The first sequence whose chain hash is remembered: this device's own start.
    pub(crate) fn chain_begin(&self) -> Result<Option<Sequence>, MlsError> {
        let first = self.tx.log_read(CHAIN, &self.channel.0, 0, 1)?;
        Ok(first.first().map(|(position, _)| Sequence(*position)))
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

    /// Deletes everything but the record and the floor of a way back.
    pub(crate) fn clear(&self) -> Result<(), MlsError> {
        self.forget_incarnation()?;
        self.tx.delete(ROSTERS, &self.channel.0)?;
        self.tx.delete(LEAVES, &self.channel.0)?;
        self.forget_sent()?;
        self.drain(INTENT_ORDER, |key| Ok(self.tx.delete(INTENTS, key)?))?;
        self.forget_chain()
    }

    /// Forgets every chain hash: what comes begins a chain of its own.
    pub(crate) fn forget_chain(&self) -> Result<(), MlsError> {
        self.drain(CHAIN, |_| Ok(()))
    }

    /// Deletes a log of the channel, with what each entry names.
    fn drain(&self, log: &'static str, also: impl Fn(&[u8]) -> Result<(), MlsError>) -> Result<(), MlsError> {
        loop {
            let step = self.tx.log_read(log, &self.channel.0, 0, DELETE_STEP)?;
            if step.is_empty() {
                return Ok(());
            }
            for (position, value) in step {
                also(&value)?;
                self.tx.log_delete(log, &self.channel.0, position)?;
            }
        }
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
            shelf: Shelf::Second,
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
            format!("02{}0000000002", "aa".repeat(16)),
            format!("0000000000000003{}", "bb".repeat(32)),
            "0000000000000002000000000000000102".to_owned(),
        ];
        let shown: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, expect.concat());
        assert_eq!(ChannelRecord::from_bytes(&bytes), Ok(record.clone()));
        assert!(ChannelRecord::from_bytes(&bytes[..20]).is_err());
        let mut older = bytes[..bytes.len() - 1].to_vec();
        older[0] = 1;
        assert_eq!(ChannelRecord::from_bytes(&older), Ok(ChannelRecord { shelf: Shelf::First, ..record }));
    }

    #[test]
    fn golden_way_back() {
        let rejoin = Rejoin { commit_hash: Digest([0xCC; 32]), epoch: Epoch(7), roster: Roster::default() };
        let bytes = rejoin.to_bytes();
        let shown: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, format!("01{}0000000000000007000000050100000000", "cc".repeat(32)));
        assert_eq!(Rejoin::from_bytes(&bytes), Ok(rejoin));
        assert!(Rejoin::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    }
}
