//! The SDK's own records in the keystore: what they are called and how they are written. Each starts with a version byte.

use lianxin_tlog::Head;
use lianxin_types::{
    DecodeError, DeviceUri, Digest, Epoch, IdempotencyId, Incarnation, LIMITS, Reader, Sequence, Timestamp, Writer,
};

/// Log per channel: messages that wait for the gateway, in the order of sending.
pub(crate) const OUTBOX: &str = "outbox";
/// The last position that a channel's outbox gave out. Rows go when they are settled; their positions must not come again,
/// since a lane knows by position what it has handed over.
pub(crate) const OUTBOX_LAST: &str = "outbox-last";
/// Row per channel and kind: a creation, commit or leave that waits for the gateway.
pub(crate) const INTENT: &str = "intent";
/// The one row: key packages that wait for the gateway.
pub(crate) const PUBLISH: &str = "publish";
/// Row per channel and sequence: an invitation that is open.
pub(crate) const INVITATION: &str = "invitation";
/// Log of the device: which are open, in the order in which they came.
pub(crate) const INVITATION_ORDER: &str = "invitation-order";
/// Log per channel: the same of each channel.
pub(crate) const INVITATION_OF: &str = "invitation-of";
/// Row per channel: up to which sequence its invitations are declined.
pub(crate) const DECLINED: &str = "invitation-declined";
/// Row for each of them that the application is not told of, or not yet: it may be a seat in the group that carries the channel on.
pub(crate) const WITHHELD: &str = "invitation-withheld";
/// Row for each of them that is no such seat.
pub(crate) const NO_SEAT: &str = "invitation-no-seat";
/// Row per channel: since when this device waits for such a seat.
pub(crate) const SEAT_WAIT: &str = "seat-wait";
/// Log per channel: who made its last commits, by sequence.
pub(crate) const COMMITTER: &str = "committer";
/// Row per channel: what is known of an own commit that was reported.
pub(crate) const PAUSE: &str = "pause";
/// Log per channel: messages received and sent, by sequence.
pub(crate) const MESSAGE: &str = "message";
/// Log per channel: the sequences of own messages, so that what is unread can be counted without opening a message.
pub(crate) const OWN_MESSAGE: &str = "own-message";
/// Log of the device: events for the application.
pub(crate) const EVENT: &str = "event";
/// Row per channel, and one for events: how far the application has read.
pub(crate) const READ: &str = "read";
/// Rows: the trust bundle and revocation lists in use.
pub(crate) const TRUST: &str = "trust";

const VERSION: u8 = 1;
/// Longest stored MLS object: a bundle's part, or a message.
const MLS_BYTES_MAX: usize = LIMITS.commit_bundle_bytes_max;
/// Longest KeyPackageRef with its length, of any suite.
const REFERENCE_BYTES_MAX: usize = 1 + 64;

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

pub(crate) fn read_uri(reader: &mut Reader<'_>, field: &'static str) -> Result<DeviceUri, DecodeError> {
    reader.text(field, DeviceUri::BYTES_MAX)?.parse().map_err(|_| DecodeError::OutOfRange { field })
}

fn read_flag(reader: &mut Reader<'_>, field: &'static str) -> Result<bool, DecodeError> {
    match reader.u8(field)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::OutOfRange { field }),
    }
}

/// A message that waits for the gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OutboxRow {
    /// On the wire and inside the encrypted payload; stays the same however often the body is encrypted.
    pub(crate) id: IdempotencyId,
    /// The epoch that `mls` is for.
    pub(crate) epoch: Epoch,
    /// MLSMessage; empty while the group may not encrypt (others wait to leave).
    pub(crate) mls: Vec<u8>,
    /// The gateway has accepted it; its echo will settle it.
    pub(crate) accepted: bool,
    /// What the application sent.
    pub(crate) body: Vec<u8>,
}

impl OutboxRow {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut writer = start();
        writer.raw(&self.id.0).u64(self.epoch.0).u8(self.accepted.into()).bytes(&self.mls).bytes(&self.body).finish()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = open(bytes)?;
        let row = Self {
            id: IdempotencyId(reader.array("id")?),
            epoch: Epoch(reader.u64("epoch")?),
            accepted: read_flag(&mut reader, "accepted")?,
            mls: reader.bytes("mls", LIMITS.message_mls_bytes_max)?.to_vec(),
            body: reader.bytes("body", LIMITS.message_body_bytes_max)?.to_vec(),
        };
        reader.finish()?;
        Ok(row)
    }
}

/// Which change of a channel waits; at most one of each kind per channel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum IntentKind {
    Create = 1,
    Commit = 2,
    Leave = 3,
    Report = 4,
    Start = 5,
}

impl IntentKind {
    pub(crate) const ALL: [Self; 5] = [Self::Create, Self::Commit, Self::Leave, Self::Report, Self::Start];
}

/// A change of a channel that waits for the gateway: the bytes exactly as they are sent, and sent again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Intent {
    pub(crate) id: IdempotencyId,
    pub(crate) kind: IntentKind,
    /// The gateway has accepted it; its echo will settle it.
    pub(crate) accepted: bool,
    /// Create and Start: GroupInfo, tree. Commit: commit, Welcome or nothing, GroupInfo. Leave: proposal. Report: report.
    pub(crate) parts: Vec<Vec<u8>>,
}

impl Intent {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut writer = start();
        writer.raw(&self.id.0).u8(self.kind as u8).u8(self.accepted.into()).u8(self.parts.len() as u8);
        for part in &self.parts {
            writer.bytes(part);
        }
        writer.finish()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = open(bytes)?;
        let id = IdempotencyId(reader.array("id")?);
        let number = reader.u8("kind")?;
        let kind = IntentKind::ALL.into_iter().find(|kind| *kind as u8 == number);
        let kind = kind.ok_or(DecodeError::OutOfRange { field: "kind" })?;
        let accepted = read_flag(&mut reader, "accepted")?;
        let count = reader.u8("parts")?;
        let part = |_| reader.bytes("part", MLS_BYTES_MAX).map(<[u8]>::to_vec);
        let parts = (0..count).map(part).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self { id, kind, accepted, parts })
    }
}

/// A key package that was made here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct KeyPackageRow {
    /// MLSMessage.
    pub(crate) mls: Vec<u8>,
    /// Its KeyPackageRef, under which its private keys lie.
    pub(crate) reference: Vec<u8>,
}

/// Key packages that wait for the gateway: the bytes exactly as they are sent, and sent again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PublishRow {
    pub(crate) id: IdempotencyId,
    /// When they were made.
    pub(crate) made: Timestamp,
    pub(crate) one_time: Vec<KeyPackageRow>,
    pub(crate) last_resort: Option<KeyPackageRow>,
}

impl PublishRow {
    /// version u8, id 16, made u64, count of last resorts u8, count of the others u8, then MLSMessage and reference of each.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut writer = start();
        writer.raw(&self.id.0).u64(self.made.0).u8(self.last_resort.is_some().into()).u8(self.one_time.len() as u8);
        for package in self.last_resort.iter().chain(&self.one_time) {
            writer.bytes(&package.mls).bytes(&package.reference);
        }
        writer.finish()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = open(bytes)?;
        let (id, made) = (IdempotencyId(reader.array("id")?), Timestamp(reader.u64("made")?));
        let (has_last_resort, count) = (read_flag(&mut reader, "last resorts")?, reader.u8("key packages")?);
        let mut package = || {
            let mls = reader.bytes("key package", MLS_BYTES_MAX)?.to_vec();
            Ok(KeyPackageRow { mls, reference: reader.bytes("reference", REFERENCE_BYTES_MAX)?.to_vec() })
        };
        let last_resort = has_last_resort.then(&mut package).transpose()?;
        let one_time = (0..count).map(|_| package()).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self { id, made, one_time, last_resort })
    }

    /// The references of all of them.
    pub(crate) fn references(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.last_resort.iter().chain(&self.one_time).map(|package| &package.reference)
    }
}

/// An invitation that is open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct InvitationRow {
    /// To be confirmed once it is used.
    pub(crate) inbox_id: u64,
    pub(crate) head: Head,
    pub(crate) inviter: DeviceUri,
    pub(crate) gateway_time: Timestamp,
    pub(crate) welcome: Vec<u8>,
}

impl InvitationRow {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut writer = start();
        writer.u64(self.inbox_id).u64(self.head.sequence.0).raw(&self.head.chain_hash.0);
        writer.bytes(self.inviter.as_str().as_bytes()).u64(self.gateway_time.0).bytes(&self.welcome).finish()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = open(bytes)?;
        let row = Self {
            inbox_id: reader.u64("inbox id")?,
            head: Head { sequence: Sequence(reader.u64("sequence")?), chain_hash: Digest(reader.array("chain hash")?) },
            inviter: read_uri(&mut reader, "inviter")?,
            gateway_time: Timestamp(reader.u64("gateway time")?),
            welcome: reader.bytes("welcome", MLS_BYTES_MAX)?.to_vec(),
        };
        reader.finish()?;
        Ok(row)
    }
}

/// A wait for a seat in the group that carries a channel on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SeatWaitRow {
    /// Of the group.
    pub(crate) incarnation: Incarnation,
    pub(crate) since: Timestamp,
    /// Whether the application was told that nobody gives one.
    pub(crate) is_told: bool,
}

impl SeatWaitRow {
    /// version u8, incarnation u32, since u64, told u8.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        start().u32(self.incarnation.0).u64(self.since.0).u8(u8::from(self.is_told)).finish()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = open(bytes)?;
        let incarnation = Incarnation(reader.u32("incarnation")?);
        let since = Timestamp(reader.u64("since")?);
        let is_told = match reader.u8("told")? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::OutOfRange { field: "told" }),
        };
        reader.finish()?;
        Ok(Self { incarnation, since, is_told })
    }
}

/// An own commit was reported: this device may commit no more until its owner allows it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct PauseRow {
    /// Whether the application was told.
    pub(crate) is_told: bool,
    /// Who said so last.
    pub(crate) reporter: Option<DeviceUri>,
}

impl PauseRow {
    /// version u8, told u8, known u8, reporter if it is.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut writer = start();
        writer.u8(self.is_told.into()).u8(self.reporter.is_some().into());
        if let Some(reporter) = &self.reporter {
            writer.bytes(reporter.as_str().as_bytes());
        }
        writer.finish()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = open(bytes)?;
        let (is_told, is_known) = (read_flag(&mut reader, "told")?, read_flag(&mut reader, "known")?);
        let reporter = is_known.then(|| read_uri(&mut reader, "reporter")).transpose()?;
        reader.finish()?;
        Ok(Self { is_told, reporter })
    }
}

/// Whether this device sent a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Another member did.
    Member,
    /// This device did.
    Own,
}

/// What the local log holds of a message, under its sequence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct MessageRow {
    pub(crate) sender: DeviceUri,
    pub(crate) origin: Origin,
    pub(crate) epoch: Epoch,
    pub(crate) gateway_time: Timestamp,
    pub(crate) expiry: Option<Timestamp>,
    pub(crate) leaf_index: u64,
    pub(crate) leaf_hash: Digest,
    pub(crate) body: Vec<u8>,
}

impl MessageRow {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut writer = start();
        writer.bytes(self.sender.as_str().as_bytes()).u8((self.origin == Origin::Own).into()).u64(self.epoch.0);
        writer.u64(self.gateway_time.0).u64(self.expiry.map_or(0, |end| end.0));
        writer.u64(self.leaf_index).raw(&self.leaf_hash.0).bytes(&self.body).finish()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = open(bytes)?;
        let sender = read_uri(&mut reader, "sender")?;
        let origin = if read_flag(&mut reader, "origin")? { Origin::Own } else { Origin::Member };
        let epoch = Epoch(reader.u64("epoch")?);
        let gateway_time = Timestamp(reader.u64("gateway time")?);
        let expiry = Some(reader.u64("expiry")?).filter(|end| *end != 0).map(Timestamp);
        let (leaf_index, leaf_hash) = (reader.u64("leaf index")?, Digest(reader.array("leaf hash")?));
        let body = reader.bytes("body", LIMITS.message_body_bytes_max)?.to_vec();
        reader.finish()?;
        Ok(Self { sender, origin, epoch, gateway_time, expiry, leaf_index, leaf_hash, body })
    }
}

#[cfg(test)]
mod tests {
    use lianxin_mutation::{Mutator, seed, share};

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn device() -> DeviceUri {
        "lianxin://a/app/b/c".parse().expect("well formed")
    }

    fn outbox() -> OutboxRow {
        OutboxRow { id: IdempotencyId([7; 16]), epoch: Epoch(3), mls: vec![0xAA], accepted: true, body: "好".into() }
    }

    fn intent() -> Intent {
        let parts = vec![vec![1], vec![], vec![2, 3]];
        Intent { id: IdempotencyId([7; 16]), kind: IntentKind::Commit, accepted: false, parts }
    }

    fn publish() -> PublishRow {
        let package = |number| KeyPackageRow { mls: vec![number], reference: vec![number, number] };
        PublishRow {
            id: IdempotencyId([7; 16]),
            made: Timestamp(3),
            one_time: vec![package(4), package(5)],
            last_resort: Some(package(6)),
        }
    }

    fn invitation() -> InvitationRow {
        InvitationRow {
            inbox_id: 5,
            head: Head { sequence: Sequence(6), chain_hash: Digest([8; 32]) },
            inviter: device(),
            gateway_time: Timestamp(9),
            welcome: vec![0xBB],
        }
    }

    fn seat_wait() -> SeatWaitRow {
        SeatWaitRow { incarnation: Incarnation(2), since: Timestamp(3), is_told: true }
    }

    fn message() -> MessageRow {
        MessageRow {
            sender: device(),
            origin: Origin::Own,
            epoch: Epoch(1),
            gateway_time: Timestamp(2),
            expiry: None,
            leaf_index: 3,
            leaf_hash: Digest([4; 32]),
            body: vec![5],
        }
    }

    #[test]
    fn golden_and_back() {
        let ids = "07".repeat(16);
        assert_eq!(hex(&outbox().to_bytes()), format!("01{ids}00000000000000030100000001aa00000003e5a5bd"));
        assert_eq!(OutboxRow::from_bytes(&outbox().to_bytes()), Ok(outbox()));

        assert_eq!(hex(&intent().to_bytes()), format!("01{ids}02000300000001010000000000000002{}", "0203"));
        assert_eq!(Intent::from_bytes(&intent().to_bytes()), Ok(intent()));

        let packages = "0000000106000000020606".to_owned() + "0000000104000000020404" + "0000000105000000020505";
        assert_eq!(hex(&publish().to_bytes()), format!("01{ids}00000000000000030102{packages}"));
        assert_eq!(PublishRow::from_bytes(&publish().to_bytes()), Ok(publish()));

        let uri = "000000136c69616e78696e3a2f2f612f6170702f622f63";
        let head = format!("0100000000000000050000000000000006{}", "08".repeat(32));
        assert_eq!(hex(&invitation().to_bytes()), format!("{head}{uri}000000000000000900000001bb"));
        assert_eq!(InvitationRow::from_bytes(&invitation().to_bytes()), Ok(invitation()));

        assert_eq!(hex(&seat_wait().to_bytes()), "0100000002000000000000000301");
        assert_eq!(SeatWaitRow::from_bytes(&seat_wait().to_bytes()), Ok(seat_wait()));

        let pause = PauseRow { is_told: true, reporter: Some(device()) };
        assert_eq!(hex(&pause.to_bytes()), format!("010101{uri}"));
        assert_eq!(PauseRow::from_bytes(&pause.to_bytes()), Ok(pause));
        assert_eq!(PauseRow::from_bytes(&[1, 0, 0]), Ok(PauseRow::default()));

        let numbers = "01000000000000000100000000000000020000000000000000";
        let leaf = format!("0000000000000003{}", "04".repeat(32));
        assert_eq!(hex(&message().to_bytes()), format!("01{uri}{numbers}{leaf}0000000105"));
        assert_eq!(MessageRow::from_bytes(&message().to_bytes()), Ok(message()));
    }

    /// One encoding for each row: a mutant is refused, or is itself what the store would have written for another row.
    #[test]
    fn mutants_are_refused_or_read_as_they_stand() {
        let hold = |bytes: Vec<u8>, again: fn(&[u8]) -> Result<Vec<u8>, DecodeError>| {
            let (row, mut mutator) = (lianxin_mutation::lengths(&bytes), Mutator::new(seed()));
            let mut read = 0;
            for number in 0..share(500, 10_000) {
                let mutant = mutator.mutate(&row, &row);
                if let Ok(encoded) = again(&mutant.bytes) {
                    assert_eq!(encoded, mutant.bytes, "mutant {number} of seed {}: {:?}", seed(), mutant.how);
                    read += 1;
                }
            }
            assert!(read > 0, "no mutant came behind the first check");
        };
        hold(outbox().to_bytes(), |bytes| OutboxRow::from_bytes(bytes).map(|row| row.to_bytes()));
        hold(intent().to_bytes(), |bytes| Intent::from_bytes(bytes).map(|row| row.to_bytes()));
        hold(publish().to_bytes(), |bytes| PublishRow::from_bytes(bytes).map(|row| row.to_bytes()));
        hold(seat_wait().to_bytes(), |bytes| SeatWaitRow::from_bytes(bytes).map(SeatWaitRow::to_bytes));
        let pause = PauseRow { is_told: true, reporter: Some(device()) };
        hold(pause.to_bytes(), |bytes| PauseRow::from_bytes(bytes).map(|row| row.to_bytes()));
        hold(invitation().to_bytes(), |bytes| InvitationRow::from_bytes(bytes).map(|row| row.to_bytes()));
        hold(message().to_bytes(), |bytes| MessageRow::from_bytes(bytes).map(|row| row.to_bytes()));
    }

    #[test]
    fn other_bytes_are_refused() {
        let outbox =
            OutboxRow { id: IdempotencyId([7; 16]), epoch: Epoch(3), mls: vec![], accepted: false, body: vec![1] };
        let bytes = outbox.to_bytes();
        for cut in 0..bytes.len() {
            assert!(OutboxRow::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut newer = bytes;
        newer[0] = 2;
        assert_eq!(OutboxRow::from_bytes(&newer), Err(DecodeError::UnknownVersion { version: 2 }));
    }
}
