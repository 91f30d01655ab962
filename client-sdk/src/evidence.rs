//! What is kept of an event by which somebody did what an honest one does not do, so that it can be handed on: to the security
//! officer, who compares it with the audit log, or to another department.

use lianxin_connection::LogEntry;
use lianxin_keystore::Transaction;
use lianxin_mls::Violation;
use lianxin_tlog::Head;
use lianxin_types::{ChannelId, DecodeError, DeviceUri, Digest, IdempotencyId, Reader, Sequence, Timestamp, Writer};

use crate::ClientError;
use crate::rows::read_uri;

/// Rows by channel and sequence.
const EVIDENCE: &str = "evidence";
/// Log of the device: their keys and kinds in the order in which they came.
const ORDER: &str = "evidence-order";
/// Log per channel and kind: the same of each.
const ORDER_OF: &str = "evidence-order-of";
/// Kept of one kind in one channel: the first of them, and the last.
const EACH_MAX: u64 = 10;
const FIRST_KEPT: usize = 5;
/// Kept per device. The first of a kind in a channel goes last of all.
const EVIDENCE_MAX: u64 = 1000;
const VERSION: u8 = 1;
const MLS_BYTES_MAX: usize = 16 * 1024 * 1024;
const DETAIL_BYTES_MAX: usize = 1024;

/// What somebody did that an honest one does not do. Numbers are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ViolationKind {
    /// The gateway named another sender than the one who signed.
    SenderMismatch = 1,
    /// The sender had read another log than this device: a fork, an omission, or a head that is made up.
    HeadMismatch = 2,
    /// The bytes are not what the kind of the event says.
    Malformed = 3,
    /// A message opened, and its content is not of the format.
    BadPayload = 4,
    /// A message does not open.
    Undecryptable = 5,
    /// The gateway says that this device sent what it did not, or has logged what it had refused.
    NotSent = 6,
    /// A commit breaks a rule of the profile; the channel is broken.
    InvalidCommit = 7,
    /// A commit does not verify against the group; the channel is broken.
    CannotProcess = 8,
    /// The gateway asks for the removal of a member against whom nothing is known.
    UnfoundedRemoval = 9,
    /// A proposal of a kind that may not stand alone.
    UnexpectedProposal = 10,
    /// A report that its sender did not sign.
    UnsignedReport = 11,
    /// An event of a kind that has no place there.
    UnexpectedKind = 12,
    /// The start of a group that may not carry the channel on.
    InvalidStart = 13,
    /// What the gateway gives out as a member's commit is not what that member has signed; the channel is broken.
    NotSigned = 14,
    /// A member reports another commit than this device was given at that place: the gateway shows them different logs.
    OtherCommitReported = 15,
    /// A member has signed a GroupInfo, which the gateway served, by which whoever comes back would break the group. The evidence
    /// holds it, and no event of the log.
    WrongGroupInfo = 16,
    /// By its own word, a receipt or a refusal, the gateway has an event there, and gives nothing of the log from there on.
    Withheld = 17,
    /// An event is not what the gateway's receipt for it says, or stands elsewhere.
    ReceiptMismatch = 18,
}

impl ViolationKind {
    const ALL: [Self; 18] = [
        Self::SenderMismatch,
        Self::HeadMismatch,
        Self::Malformed,
        Self::BadPayload,
        Self::Undecryptable,
        Self::NotSent,
        Self::InvalidCommit,
        Self::CannotProcess,
        Self::UnfoundedRemoval,
        Self::UnexpectedProposal,
        Self::UnsignedReport,
        Self::UnexpectedKind,
        Self::InvalidStart,
        Self::NotSigned,
        Self::OtherCommitReported,
        Self::WrongGroupInfo,
        Self::Withheld,
        Self::ReceiptMismatch,
    ];

    /// The kind with this number.
    pub(crate) fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// `None` for what is nobody's fault, or only follows from an earlier one.
    pub(crate) const fn from_violation(violation: &Violation) -> Option<Self> {
        Some(match violation {
            Violation::SenderMismatch { .. } => Self::SenderMismatch,
            Violation::HeadMismatch { .. } => Self::HeadMismatch,
            Violation::Malformed => Self::Malformed,
            Violation::BadPayload => Self::BadPayload,
            Violation::Undecryptable => Self::Undecryptable,
            Violation::NotSent => Self::NotSent,
            Violation::InvalidCommit(_) => Self::InvalidCommit,
            Violation::CannotProcess { .. } => Self::CannotProcess,
            Violation::UnfoundedRemoval { .. } => Self::UnfoundedRemoval,
            Violation::UnexpectedProposal => Self::UnexpectedProposal,
            Violation::UnsignedReport => Self::UnsignedReport,
            Violation::UnexpectedKind => Self::UnexpectedKind,
            Violation::InvalidStart(_) => Self::InvalidStart,
            Violation::NotSigned => Self::NotSigned,
            Violation::OtherCommitReported { .. } => Self::OtherCommitReported,
            Violation::AwayTooLong | Violation::OlderState | Violation::ChannelBroken => return None,
        })
    }
}

/// An event as the gateway gave it to this device, and what was wrong with it.
///
/// [`Evidence::chain_hash`] is the device's own chain with this event in it (PROTOCOL 4): another member's chain hash at the same
/// sequence says whether both were given the same event. [`Evidence::leaf_hash`] is the gateway's promise of an audit leaf: the
/// audit log must hold it at [`Evidence::leaf_index`], with these bytes' hash in it. No key and no plaintext is in it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Evidence {
    /// What it was.
    pub kind: ViolationKind,
    /// In words.
    pub detail: String,
    /// Whose evidence it is.
    pub witness: DeviceUri,
    /// The channel.
    pub channel: ChannelId,
    /// The event's place in its log.
    pub sequence: Sequence,
    /// What the gateway said that it was: the number of the contract's `EventKind`.
    pub event_kind: u8,
    /// Whom the gateway named as the sender.
    pub sender: DeviceUri,
    /// When the gateway said that it accepted it.
    pub gateway_time: Timestamp,
    /// The sender's name for it, as the gateway said.
    pub idempotency_id: IdempotencyId,
    /// The MLS bytes.
    pub mls: Vec<u8>,
    /// Index of the audit leaf, as the gateway said.
    pub leaf_index: u64,
    /// RFC 6962 hash of the audit leaf, as the gateway said.
    pub leaf_hash: Digest,
    /// The witness's chain hash at `sequence`.
    pub chain_hash: Digest,
}

impl Evidence {
    /// version u8, kind u8, witness, channel 16, sequence u64, event kind u8, sender, gateway time u64, idempotency id 16, MLS
    /// bytes, leaf index u64, leaf hash 32, chain hash 32, detail; names, bytes and text with 32-bit lengths; big-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(VERSION).u8(self.kind as u8).bytes(self.witness.as_str().as_bytes()).raw(&self.channel.0);
        writer.u64(self.sequence.0).u8(self.event_kind).bytes(self.sender.as_str().as_bytes());
        writer.u64(self.gateway_time.0).raw(&self.idempotency_id.0).bytes(&self.mls);
        writer.u64(self.leaf_index).raw(&self.leaf_hash.0).raw(&self.chain_hash.0);
        writer.bytes(self.detail.as_bytes()).finish()
    }

    /// Reads what [`Evidence::to_bytes`] wrote, and nothing else.
    ///
    /// # Errors
    /// [`DecodeError`] for other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("evidence version")?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion { version });
        }
        let kind = ViolationKind::of(reader.u8("kind")?).ok_or(DecodeError::OutOfRange { field: "kind" })?;
        let (witness, channel) = (read_uri(&mut reader, "witness")?, ChannelId(reader.array("channel")?));
        let (sequence, event_kind) = (Sequence(reader.u64("sequence")?), reader.u8("event kind")?);
        let sender = read_uri(&mut reader, "sender")?;
        let gateway_time = Timestamp(reader.u64("gateway time")?);
        let idempotency_id = IdempotencyId(reader.array("idempotency id")?);
        let mls = reader.bytes("mls bytes", MLS_BYTES_MAX)?.to_vec();
        let (leaf_index, leaf_hash) = (reader.u64("leaf index")?, Digest(reader.array("leaf hash")?));
        let chain_hash = Digest(reader.array("chain hash")?);
        let detail = reader.text("detail", DETAIL_BYTES_MAX)?.to_owned();
        reader.finish()?;
        Ok(Self {
            kind,
            detail,
            witness,
            channel,
            sequence,
            event_kind,
            sender,
            gateway_time,
            idempotency_id,
            mls,
            leaf_index,
            leaf_hash,
            chain_hash,
        })
    }
}

/// Keeps an event with what was wrong with it; `head` is the witness's, with the event in it.
pub(crate) fn keep(
    tx: &Transaction<'_>,
    witness: &DeviceUri,
    event: &LogEntry,
    (kind, detail): (ViolationKind, &str),
    head: Head,
) -> Result<(), ClientError> {
    let evidence = Evidence {
        kind,
        detail: detail[..detail.floor_char_boundary(DETAIL_BYTES_MAX)].to_owned(),
        witness: witness.clone(),
        channel: event.channel,
        sequence: event.sequence,
        event_kind: event.kind as u8,
        sender: event.sender.clone(),
        gateway_time: event.gateway_time,
        idempotency_id: event.idempotency_id,
        mls: event.mls.to_vec(),
        leaf_index: event.leaf_index,
        leaf_hash: event.leaf_hash,
        chain_hash: head.chain_hash,
    };
    let key = key(event.channel, event.sequence);
    if tx.get(EVIDENCE, &key)?.is_none() {
        let entry = [&key[..], &[kind as u8]].concat();
        let place = tx.log_last(ORDER, b"")?.unwrap_or(0) + 1;
        tx.log_put(ORDER, b"", place, &entry)?;
        tx.log_put(ORDER_OF, &owner(&entry), place, &entry)?;
        make_room(tx, &entry)?;
    }
    Ok(tx.put(EVIDENCE, &key, &evidence.to_bytes())?)
}

/// Somebody who does much of one thing covers neither how it began nor anything else.
fn make_room(tx: &Transaction<'_>, newest: &[u8]) -> Result<(), ClientError> {
    if tx.log_count(ORDER_OF, &owner(newest), 0)? > EACH_MAX {
        let behind_the_first = tx.log_read(ORDER_OF, &owner(newest), 0, FIRST_KEPT + 1)?;
        for (place, entry) in behind_the_first.into_iter().skip(FIRST_KEPT) {
            forget(tx, place, &entry)?;
        }
    }
    if tx.log_count(ORDER, b"", 0)? <= EVIDENCE_MAX {
        return Ok(());
    }
    let all = tx.log_read(ORDER, b"", 0, usize::MAX)?;
    for (place, entry) in &all {
        let first = tx.log_read(ORDER_OF, &owner(entry), 0, 1)?;
        if first.first().is_some_and(|(first, _)| first != place) {
            return forget(tx, *place, entry);
        }
    }
    all.first().map_or(Ok(()), |(place, entry)| forget(tx, *place, entry))
}

fn forget(tx: &Transaction<'_>, place: u64, entry: &[u8]) -> Result<(), ClientError> {
    tx.delete(EVIDENCE, &entry[..entry.len() - 1])?;
    tx.log_delete(ORDER, b"", place)?;
    Ok(tx.log_delete(ORDER_OF, &owner(entry), place)?)
}

/// Channel and kind of an entry, which has the sequence between the two.
fn owner(entry: &[u8]) -> Vec<u8> {
    [&entry[..16], &entry[entry.len() - 1..]].concat()
}

/// What is kept of the event at `sequence`, if it was a violation.
pub(crate) fn get(
    tx: &Transaction<'_>,
    channel: ChannelId,
    sequence: Sequence,
) -> Result<Option<Evidence>, ClientError> {
    let stored = tx.get(EVIDENCE, &key(channel, sequence))?;
    Ok(stored.map(|bytes| Evidence::from_bytes(&bytes)).transpose()?)
}

fn key(channel: ChannelId, sequence: Sequence) -> Vec<u8> {
    [&channel.0[..], &sequence.0.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence() -> Evidence {
        Evidence {
            kind: ViolationKind::HeadMismatch,
            detail: "日志不同".to_owned(),
            witness: "lianxin://a/app/b/c".parse().expect("well formed"),
            channel: ChannelId([7; 16]),
            sequence: Sequence(9),
            event_kind: 2,
            sender: "lianxin://d/app/e/f".parse().expect("well formed"),
            gateway_time: Timestamp(11),
            idempotency_id: IdempotencyId([3; 16]),
            mls: vec![0xAB; 5],
            leaf_index: 12,
            leaf_hash: Digest([4; 32]),
            chain_hash: Digest([5; 32]),
        }
    }

    #[test]
    fn it_is_read_as_it_was_written_and_nothing_else_is() {
        let bytes = evidence().to_bytes();
        assert_eq!(Evidence::from_bytes(&bytes), Ok(evidence()));
        for cut in 0..bytes.len() {
            assert!(Evidence::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Evidence::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn numbers_of_kinds_are_their_own() {
        let numbers = ViolationKind::ALL.map(|kind| kind as u8);
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
        for number in 0..=u8::MAX {
            let found = ViolationKind::of(number).map(|kind| kind as u8);
            assert_eq!(found, Some(number).filter(|number| numbers.contains(number)));
        }
    }

    fn kept(events: &[(u8, u64, ViolationKind)]) -> Vec<(u8, u64)> {
        let folder = tempfile::tempdir().expect("a folder");
        let key = lianxin_keystore::StateKey::from_bytes([1; 32]);
        let random = std::sync::Arc::new(lianxin_types::SystemRandom);
        let keystore = lianxin_keystore::Keystore::open(folder.path(), &key, random).expect("opens");
        let events = events.to_vec();
        let kept = keystore.transaction_blocking::<_, ClientError>(move |tx| {
            for (channel, sequence, kind) in &events {
                let event = LogEntry {
                    channel: ChannelId([*channel; 16]),
                    sequence: Sequence(*sequence),
                    kind: lianxin_tlog::EventKind::Application,
                    sender: evidence().sender,
                    gateway_time: Timestamp(1),
                    expiry: None,
                    label_reference: Digest::ZERO,
                    mls: vec![1].into(),
                    leaf_index: 1,
                    leaf_hash: Digest([4; 32]),
                    idempotency_id: IdempotencyId([3; 16]),
                };
                let head = Head { sequence: Sequence(*sequence), chain_hash: Digest([5; 32]) };
                keep(tx, &evidence().witness, &event, (*kind, "x"), head)?;
            }
            let rows = tx.list(EVIDENCE)?;
            assert_eq!(tx.log_count(ORDER, b"", 0)?, rows.len() as u64);
            rows.iter().map(|(_, row)| Ok(Evidence::from_bytes(row)?)).collect::<Result<Vec<_>, ClientError>>()
        });
        kept.expect("stored").into_iter().map(|one| (one.channel.0[0], one.sequence.0)).collect()
    }

    #[test]
    fn a_flood_of_one_kind_in_one_channel_covers_neither_its_beginning_nor_anything_else() {
        let mut events = vec![(1, 1, ViolationKind::InvalidCommit), (2, 1, ViolationKind::BadPayload)];
        events.extend((2..502).map(|sequence| (1, sequence, ViolationKind::BadPayload)));
        events.push((1, 501, ViolationKind::BadPayload));
        let expect = [(1, 1)].into_iter().chain((2..=6).chain(497..=501).map(|sequence| (1, sequence)));
        assert_eq!(kept(&events), expect.chain([(2, 1)]).collect::<Vec<_>>());
    }

    #[test]
    fn in_all_a_thousand_are_kept_and_the_first_of_each_kind_in_a_channel_longest() {
        let events: Vec<_> =
            (0..120).flat_map(|channel| (1..=9).map(move |at| (channel, at, ViolationKind::BadPayload))).collect();
        let kept = kept(&events);
        assert_eq!(kept.len(), 1000);
        assert!((0..120).all(|channel| kept.contains(&(channel, 1))));
        assert_eq!(&kept[..3], [(0, 1), (1, 1), (2, 1)], "the oldest others went");
    }
}
