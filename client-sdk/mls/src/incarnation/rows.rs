//! What the engine remembers between a broken group and the one that follows it.

use lianxin_profile::{ChannelContext, ContextError, Roster};
use lianxin_tlog::{EventKind, Head};
use lianxin_types::{DecodeError, DeviceUri, Digest, GroupId, LIMITS, Reader, Sequence, Writer};

use crate::leaf::Origin;
use crate::record::Records;
use crate::{LogEvent, MlsError};

/// Rows, one per channel: the commit that broke the group, the own start that waits, the group that follows, the seat in it
/// that the log has not come to yet, and whom this device has still to seat.
const BREACHES: &str = "mls-breach";
const STARTS: &str = "mls-next-start";
const FOLLOWED: &str = "mls-followed";
const SEATS: &str = "mls-next-seat";
const TO_SEAT: &str = "mls-to-seat";
/// Those of them who cannot be seated yet, so that nobody waits for them.
const LATE: &str = "mls-to-seat-late";
/// Who of the broken group is to sit in the one that this device has started and in which nobody else is yet, it included.
const BEFORE: &str = "mls-before";
/// The last commit in the log, and whom the log names for it, whether this device could process it or not: the one behind which a
/// next incarnation starts, without whoever made it.
const LAST_COMMITS: &str = "mls-last-commit";
/// Its place and the SHA-256 of its bytes.
const LAST_COMMIT_HASHES: &str = "mls-last-commit-hash";

const VERSION: u8 = 1;
/// A roster of 1,000 members with the longest names.
const ROSTER_BYTES_MAX: usize = 1024 * 1024;
const CONTEXT_BYTES_MAX: usize = 64 * 1024;

/// The commit by which a group broke.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Breach {
    /// Its place.
    pub(crate) commit: Sequence,
    /// Whom the log names.
    pub(crate) committer: DeviceUri,
}

/// An own start that waits for the gateway; its group lies on the first shelf.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NextStart {
    /// SHA-256 of its GroupInfo.
    pub(crate) hash: Digest,
    /// The group.
    pub(crate) group: GroupId,
    /// This device alone.
    pub(crate) roster: Roster,
}

/// The group that follows, started by another member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Followed {
    /// The group.
    pub(crate) group: GroupId,
    /// Its context.
    pub(crate) context: ChannelContext,
    /// Where its start stands.
    pub(crate) start: Sequence,
}

/// A seat in the group that follows; that group lies on the first shelf.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NextSeat {
    /// The commit that seats this device, and the chain hash there.
    pub(crate) head: Head,
    /// The group.
    pub(crate) group: GroupId,
    /// Who sits there.
    pub(crate) roster: Roster,
    /// What keys the own leaf has.
    pub(crate) origin: Origin,
}

fn open(bytes: &[u8]) -> Result<Reader<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    match reader.u8("record version")? {
        VERSION => Ok(reader),
        version => Err(DecodeError::UnknownVersion { version }),
    }
}

fn start() -> Writer {
    let mut writer = Writer::new();
    writer.u8(VERSION);
    writer
}

fn read_device(reader: &mut Reader<'_>, field: &'static str) -> Result<DeviceUri, DecodeError> {
    reader.text(field, DeviceUri::BYTES_MAX)?.parse().map_err(|_| DecodeError::OutOfRange { field })
}

fn read_group(reader: &mut Reader<'_>) -> Result<GroupId, DecodeError> {
    GroupId::try_from(reader.raw("group id", 20)?).map_err(|_| DecodeError::OutOfRange { field: "group id" })
}

impl Breach {
    /// version u8, sequence u64, committer with a 32-bit length.
    fn to_bytes(&self) -> Vec<u8> {
        start().u64(self.commit.0).bytes(self.committer.as_str().as_bytes()).finish()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = open(bytes)?;
        let commit = Sequence(reader.u64("commit")?);
        let committer = read_device(&mut reader, "committer")?;
        reader.finish()?;
        Ok(Self { commit, committer })
    }
}

impl NextStart {
    /// version u8, hash 32, group id 20, roster with a 32-bit length.
    fn to_bytes(&self) -> Vec<u8> {
        start().raw(&self.hash.0).raw(&self.group.to_bytes()).bytes(&self.roster.to_bytes()).finish()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = open(bytes)?;
        let hash = Digest(reader.array("hash")?);
        let group = read_group(&mut reader)?;
        let roster = Roster::from_bytes(reader.bytes("roster", ROSTER_BYTES_MAX)?)?;
        reader.finish()?;
        Ok(Self { hash, group, roster })
    }
}

impl Followed {
    /// version u8, group id 20, sequence u64, context with a 32-bit length.
    fn to_bytes(&self) -> Vec<u8> {
        start().raw(&self.group.to_bytes()).u64(self.start.0).bytes(&self.context.to_bytes()).finish()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = open(bytes)?;
        let group = read_group(&mut reader)?;
        let sequence = Sequence(reader.u64("start")?);
        let context = ChannelContext::from_bytes(reader.bytes("context", CONTEXT_BYTES_MAX)?);
        let context = context.map_err(|error| match error {
            ContextError::Decode(error) => error,
            _ => DecodeError::OutOfRange { field: "context" },
        })?;
        reader.finish()?;
        Ok(Self { group, context, start: sequence })
    }
}

impl NextSeat {
    /// version u8, sequence u64, chain hash 32, group id 20, origin u8, roster with a 32-bit length.
    fn to_bytes(&self) -> Vec<u8> {
        let mut writer = start();
        writer.u64(self.head.sequence.0).raw(&self.head.chain_hash.0).raw(&self.group.to_bytes());
        writer.u8(self.origin as u8).bytes(&self.roster.to_bytes()).finish()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = open(bytes)?;
        let sequence = Sequence(reader.u64("sequence")?);
        let head = Head { sequence, chain_hash: Digest(reader.array("chain hash")?) };
        let group = read_group(&mut reader)?;
        let origin = Origin::of(reader.u8("origin")?).ok_or(DecodeError::OutOfRange { field: "origin" })?;
        let roster = Roster::from_bytes(reader.bytes("roster", ROSTER_BYTES_MAX)?)?;
        reader.finish()?;
        Ok(Self { head, group, roster, origin })
    }
}

impl Records<'_> {
    fn between<T>(
        &self,
        kind: &'static str,
        read: impl FnOnce(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, MlsError> {
        let found = self.tx.get(kind, &self.channel.0)?;
        Ok(found.map(|bytes| read(&bytes)).transpose()?)
    }

    pub(crate) fn breach(&self) -> Result<Option<Breach>, MlsError> {
        self.between(BREACHES, Breach::from_bytes)
    }

    pub(crate) fn save_breach(&self, breach: &Breach) -> Result<(), MlsError> {
        Ok(self.tx.put(BREACHES, &self.channel.0, &breach.to_bytes())?)
    }

    pub(crate) fn last_commit(&self) -> Result<Option<Breach>, MlsError> {
        // A state of before it was remembered knows only the commit that broke its own group.
        self.between(LAST_COMMITS, Breach::from_bytes)?.map_or_else(|| self.breach(), |last| Ok(Some(last)))
    }

    /// Remembers the event if it is a commit.
    pub(crate) fn note_commit(&self, event: &LogEvent) -> Result<(), MlsError> {
        if event.kind == EventKind::Commit {
            let last = Breach { commit: event.sequence, committer: event.sender.clone() };
            self.tx.put(LAST_COMMITS, &self.channel.0, &last.to_bytes())?;
            let hash = start().u64(event.sequence.0).raw(&Digest::sha256(&event.mls).0).finish();
            self.tx.put(LAST_COMMIT_HASHES, &self.channel.0, &hash)?;
        }
        Ok(())
    }

    /// SHA-256 of the commit at `sequence`, if that was the last one in the log that this device was given.
    pub(crate) fn last_commit_hash(&self, sequence: Sequence) -> Result<Option<Digest>, MlsError> {
        let last = self.between(LAST_COMMIT_HASHES, |bytes| {
            let mut reader = open(bytes)?;
            let last = (Sequence(reader.u64("commit")?), Digest(reader.array("commit hash")?));
            reader.finish()?;
            Ok(last)
        })?;
        Ok(last.filter(|(commit, _)| *commit == sequence).map(|(_, hash)| hash))
    }

    pub(crate) fn before(&self) -> Result<Option<Roster>, MlsError> {
        self.between(BEFORE, Roster::from_bytes)
    }

    pub(crate) fn save_before(&self, roster: &Roster) -> Result<(), MlsError> {
        Ok(self.tx.put(BEFORE, &self.channel.0, &roster.to_bytes())?)
    }

    pub(crate) fn forget_before(&self) -> Result<(), MlsError> {
        Ok(self.tx.delete(BEFORE, &self.channel.0)?)
    }

    pub(crate) fn next_start(&self) -> Result<Option<NextStart>, MlsError> {
        self.between(STARTS, NextStart::from_bytes)
    }

    pub(crate) fn save_next_start(&self, next: &NextStart) -> Result<(), MlsError> {
        Ok(self.tx.put(STARTS, &self.channel.0, &next.to_bytes())?)
    }

    pub(crate) fn forget_next_start(&self) -> Result<(), MlsError> {
        Ok(self.tx.delete(STARTS, &self.channel.0)?)
    }

    pub(crate) fn followed(&self) -> Result<Option<Followed>, MlsError> {
        self.between(FOLLOWED, Followed::from_bytes)
    }

    pub(crate) fn save_followed(&self, followed: &Followed) -> Result<(), MlsError> {
        Ok(self.tx.put(FOLLOWED, &self.channel.0, &followed.to_bytes())?)
    }

    pub(crate) fn next_seat(&self) -> Result<Option<NextSeat>, MlsError> {
        self.between(SEATS, NextSeat::from_bytes)
    }

    pub(crate) fn save_next_seat(&self, seat: &NextSeat) -> Result<(), MlsError> {
        Ok(self.tx.put(SEATS, &self.channel.0, &seat.to_bytes())?)
    }

    pub(crate) fn forget_next_seat(&self) -> Result<(), MlsError> {
        Ok(self.tx.delete(SEATS, &self.channel.0)?)
    }

    pub(crate) fn unseated(&self) -> Result<Vec<DeviceUri>, MlsError> {
        self.devices(TO_SEAT)
    }

    pub(crate) fn late(&self) -> Result<Vec<DeviceUri>, MlsError> {
        self.devices(LATE)
    }

    fn devices(&self, kind: &'static str) -> Result<Vec<DeviceUri>, MlsError> {
        let read = |bytes: &[u8]| {
            let mut reader = open(bytes)?;
            let mut devices = Vec::new();
            while !reader.is_empty() && devices.len() < LIMITS.channel_members_max {
                devices.push(read_device(&mut reader, "device")?);
            }
            reader.finish()?;
            Ok(devices)
        };
        Ok(self.between(kind, read)?.unwrap_or_default())
    }

    pub(crate) fn save_unseated(&self, devices: &[DeviceUri]) -> Result<(), MlsError> {
        self.save_devices(TO_SEAT, devices)
    }

    pub(crate) fn save_late(&self, devices: &[DeviceUri]) -> Result<(), MlsError> {
        self.save_devices(LATE, devices)
    }

    /// version u8, then each device with a 32-bit length; no row for nobody.
    fn save_devices(&self, kind: &'static str, devices: &[DeviceUri]) -> Result<(), MlsError> {
        let mut writer = start();
        devices.iter().for_each(|device| {
            writer.bytes(device.as_str().as_bytes());
        });
        match devices.is_empty() {
            true => Ok(self.tx.delete(kind, &self.channel.0)?),
            false => Ok(self.tx.put(kind, &self.channel.0, &writer.finish())?),
        }
    }

    /// Forgets all of it: the channel has a group again, or is gone.
    pub(crate) fn forget_incarnation(&self) -> Result<(), MlsError> {
        for kind in [BREACHES, STARTS, FOLLOWED, SEATS, TO_SEAT, LATE, BEFORE, LAST_COMMITS, LAST_COMMIT_HASHES] {
            self.tx.delete(kind, &self.channel.0)?;
        }
        Ok(())
    }
}
