//! Rows of the state: everything in them can be computed again from the journal.

use bytes::Bytes;
use lianxin_tlog::Head;
use lianxin_types::{
    ChannelId, DecodeError, DeviceUri, Digest, Epoch, Incarnation, Reader, Sequence, Timestamp, Writer,
};

use crate::change::{read_item, write_item};
use crate::record::{Fields, OWN_LIFE, enclose};
use crate::unit::{Accepted, KeyPackageItem, Refused};
use crate::zone_store::{ChannelHead, GroupSnapshot};

/// The fixed part of a channel's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadRow {
    pub(crate) incarnation: Incarnation,
    pub(crate) epoch: Epoch,
    pub(crate) head: Head,
    pub(crate) epoch_sequence: Sequence,
    /// The oldest epoch whose accepted bytes may still be known.
    pub(crate) duplicates_from: Epoch,
    pub(crate) label_reference: Digest,
    pub(crate) proposal_sequence: Sequence,
    pub(crate) removal_sequence: Sequence,
    pub(crate) last_time: Timestamp,
    /// Number of the bucket that holds the last event.
    pub(crate) bucket: u64,
}

impl HeadRow {
    pub(crate) fn new(
        head: &ChannelHead,
        position: Head,
        last_time: Timestamp,
        bucket: u64,
        duplicates_from: Epoch,
    ) -> Self {
        Self {
            incarnation: head.incarnation,
            epoch: head.epoch,
            head: position,
            epoch_sequence: head.epoch_sequence,
            duplicates_from,
            label_reference: head.label_reference,
            proposal_sequence: head.proposal_sequence,
            removal_sequence: head.removal_sequence,
            last_time,
            bucket,
        }
    }

    /// epoch, sequence u64, chain hash 32, epoch's sequence, first epoch of known bytes u64, label reference 32, proposal's sequence,
    /// removal's sequence, last time, bucket u64; the incarnation u32 if it is not the first.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u64(self.epoch.0).u64(self.head.sequence.0).raw(&self.head.chain_hash.0);
        writer.u64(self.epoch_sequence.0).u64(self.duplicates_from.0).raw(&self.label_reference.0);
        writer.u64(self.proposal_sequence.0).u64(self.removal_sequence.0);
        writer.u64(self.last_time.0).u64(self.bucket);
        if self.incarnation != Incarnation(0) {
            writer.u32(self.incarnation.0);
        }
        enclose(OWN_LIFE, None, &writer.finish())
    }

    /// Reads what [`HeadRow::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if it did not write this.
    pub(crate) fn decode(record: Vec<u8>) -> Result<Self, DecodeError> {
        let source = Bytes::from(record);
        let mut fields = Fields::open(&source)?;
        let epoch = Epoch(fields.reader.u64("epoch")?);
        let head = fields.head()?;
        let epoch_sequence = Sequence(fields.reader.u64("epoch sequence")?);
        let duplicates_from = Epoch(fields.reader.u64("first epoch of known bytes")?);
        let label_reference = fields.digest("label reference")?;
        let proposal_sequence = Sequence(fields.reader.u64("proposal sequence")?);
        let removal_sequence = Sequence(fields.reader.u64("removal sequence")?);
        let last_time = Timestamp(fields.reader.u64("last time")?);
        let bucket = fields.reader.u64("bucket")?;
        let incarnation = match fields.reader.is_empty() {
            true => Incarnation(0),
            false => Incarnation(fields.reader.u32("incarnation")?),
        };
        fields.reader.finish()?;
        Ok(Self {
            incarnation,
            epoch,
            head,
            epoch_sequence,
            duplicates_from,
            label_reference,
            proposal_sequence,
            removal_sequence,
            last_time,
            bucket,
        })
    }
}

/// Whether a device is in a channel, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Place {
    /// It is not.
    #[default]
    None,
    /// With a leaf, and since when.
    Seated { leaf: u32, joined: Sequence },
    /// To be seated in a group that has just begun.
    Awaited { joined: Sequence },
}

/// What a channel knows of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RosterRow {
    pub(crate) place: Place,
    /// Sequence at which it asked to leave, or was asked for; 0 if neither.
    pub(crate) leaving: Sequence,
    /// Its newest commit that was reported, for which it is paused; 0 if it is not.
    pub(crate) paused: Sequence,
    /// Up to where its commits have been allowed, so that reports of them pause it no more.
    pub(crate) allowed: Sequence,
}

impl RosterRow {
    /// place u8 (0 none, 1 seated, 2 awaited), leaf u32, joined, leaving, paused, allowed u64.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (place, leaf, joined) = match self.place {
            Place::None => (0, 0, Sequence(0)),
            Place::Seated { leaf, joined } => (1, leaf, joined),
            Place::Awaited { joined } => (2, 0, joined),
        };
        let mut writer = Writer::new();
        writer.u8(place).u32(leaf).u64(joined.0).u64(self.leaving.0);
        writer.u64(self.paused.0).u64(self.allowed.0);
        enclose(OWN_LIFE, None, &writer.finish())
    }

    /// Reads what [`RosterRow::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if it did not write this.
    pub(crate) fn decode(record: Vec<u8>) -> Result<Self, DecodeError> {
        let source = Bytes::from(record);
        let mut fields = Fields::open(&source)?;
        let place = fields.reader.u8("place")?;
        let (leaf, joined) = (fields.reader.u32("leaf")?, Sequence(fields.reader.u64("joined")?));
        let place = match place {
            0 => Place::None,
            1 => Place::Seated { leaf, joined },
            2 => Place::Awaited { joined },
            _ => return Err(DecodeError::OutOfRange { field: "place" }),
        };
        let leaving = Sequence(fields.reader.u64("leaving")?);
        let paused = Sequence(fields.reader.u64("paused")?);
        let allowed = Sequence(fields.reader.u64("allowed")?);
        fields.reader.finish()?;
        Ok(Self { place, leaving, paused, allowed })
    }
}

/// What a call got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RememberedRow {
    pub(crate) bytes_hash: Digest,
    /// Without key packages: those are in the journal.
    pub(crate) accepted: Accepted,
    /// How many key packages were taken.
    pub(crate) packages: u32,
}

impl RememberedRow {
    /// The answer to a repeat, still without key packages.
    ///
    /// # Errors
    /// [`Refused::IdReused`] if the repeat comes with other bytes.
    pub(crate) fn answer(&self, bytes_hash: &Digest) -> Result<Accepted, Refused> {
        if self.bytes_hash == *bytes_hash { Ok(self.accepted.clone().as_repeat()) } else { Err(Refused::IdReused) }
    }

    /// bytes hash 32, sequence u64, chain hash 32, gateway time, expiry, leaf index u64, leaf hash 32, packages u32.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let accepted = &self.accepted;
        let mut writer = Writer::new();
        writer.raw(&self.bytes_hash.0).u64(accepted.sequence.0).raw(&accepted.chain_hash.0);
        writer.u64(accepted.gateway_time.0).u64(accepted.expiry.map_or(0, |end| end.0)).u64(accepted.leaf_index);
        writer.raw(&accepted.leaf_hash.0).u32(self.packages);
        enclose(OWN_LIFE, None, &writer.finish())
    }

    /// Reads what [`RememberedRow::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if it did not write this.
    pub(crate) fn decode(record: Vec<u8>) -> Result<Self, DecodeError> {
        let source = Bytes::from(record);
        let mut fields = Fields::open(&source)?;
        let bytes_hash = fields.digest("bytes hash")?;
        let head = fields.head()?;
        let gateway_time = Timestamp(fields.reader.u64("gateway time")?);
        let expiry = fields.time("expiry")?;
        let leaf_index = fields.reader.u64("leaf index")?;
        let leaf_hash = fields.digest("leaf hash")?;
        let packages = fields.reader.u32("packages")?;
        fields.reader.finish()?;
        let accepted = Accepted {
            sequence: head.sequence,
            chain_hash: head.chain_hash,
            gateway_time,
            expiry,
            leaf_index,
            leaf_hash,
            key_packages: Vec::new(),
            is_repeat: false,
        };
        Ok(Self { bytes_hash, accepted, packages })
    }
}

/// An inbox entry; its Welcome lies once for all recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InboxRow {
    pub(crate) channel: ChannelId,
    pub(crate) head: Head,
    /// Which Welcome of the unit, from 0.
    pub(crate) ordinal: u8,
    pub(crate) inviter: DeviceUri,
    pub(crate) gateway_time: Timestamp,
}

impl InboxRow {
    /// channel 16, sequence u64, chain hash 32, ordinal u8, gateway time u64, inviter with a 32-bit length.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(&self.channel.0).u64(self.head.sequence.0).raw(&self.head.chain_hash.0).u8(self.ordinal);
        writer.u64(self.gateway_time.0).bytes(self.inviter.as_str().as_bytes());
        enclose(OWN_LIFE, None, &writer.finish())
    }

    /// Reads what [`InboxRow::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if it did not write this.
    pub(crate) fn decode(record: Vec<u8>) -> Result<Self, DecodeError> {
        let source = Bytes::from(record);
        let mut fields = Fields::open(&source)?;
        let channel = fields.channel()?;
        let head = fields.head()?;
        let ordinal = fields.reader.u8("ordinal")?;
        let gateway_time = Timestamp(fields.reader.u64("gateway time")?);
        let inviter = fields.device("inviter")?;
        fields.reader.finish()?;
        Ok(Self { channel, head, ordinal, inviter, gateway_time })
    }
}

/// epoch, sequence u64, then the view.
pub(crate) fn encode_snapshot(snapshot: &GroupSnapshot) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u64(snapshot.epoch.0).u64(snapshot.sequence.0).bytes(&snapshot.state);
    enclose(OWN_LIFE, None, &writer.finish())
}

/// Reads what [`encode_snapshot`] wrote.
///
/// # Errors
/// [`DecodeError`] if it did not write this.
pub(crate) fn decode_snapshot(record: Vec<u8>) -> Result<GroupSnapshot, DecodeError> {
    let source = Bytes::from(record);
    let mut fields = Fields::open(&source)?;
    let epoch = Epoch(fields.reader.u64("epoch")?);
    let sequence = Sequence(fields.reader.u64("sequence")?);
    let state = fields.view("group snapshot")?;
    fields.reader.finish()?;
    Ok(GroupSnapshot { epoch, sequence, state })
}

/// The sequence in what [`encode_snapshot`] wrote, or in the beginning of it.
///
/// # Errors
/// [`DecodeError`] if it did not write this.
pub(crate) fn view_sequence(beginning: &[u8]) -> Result<Sequence, DecodeError> {
    let mut reader = Reader::new(crate::record::disclose(beginning)?);
    reader.u64("epoch")?;
    Ok(Sequence(reader.u64("sequence")?))
}

/// A key package.
pub(crate) fn encode_item(item: &KeyPackageItem) -> Vec<u8> {
    let mut writer = Writer::new();
    write_item(&mut writer, item);
    enclose(OWN_LIFE, None, &writer.finish())
}

/// Reads what [`encode_item`] wrote.
///
/// # Errors
/// [`DecodeError`] if it did not write this.
pub(crate) fn decode_item(record: Vec<u8>) -> Result<KeyPackageItem, DecodeError> {
    let source = Bytes::from(record);
    let mut fields = Fields::open(&source)?;
    let item = read_item(&mut fields)?;
    fields.reader.finish()?;
    Ok(item)
}

/// One number.
pub(crate) fn encode_number(number: u64) -> Vec<u8> {
    enclose(OWN_LIFE, None, &number.to_be_bytes())
}

/// Reads what [`encode_number`] wrote.
///
/// # Errors
/// [`DecodeError`] if it did not write this.
pub(crate) fn decode_number(record: &[u8]) -> Result<u64, DecodeError> {
    let mut reader = Reader::new(crate::record::disclose(record)?);
    let number = reader.u64("number")?;
    reader.finish()?;
    Ok(number)
}

/// A department's counter and the commitment of its last part.
pub(crate) fn encode_department(counter: u64, last: &Digest) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u64(counter).raw(&last.0);
    enclose(OWN_LIFE, None, &writer.finish())
}

/// Reads what [`encode_department`] wrote.
///
/// # Errors
/// [`DecodeError`] if it did not write this.
pub(crate) fn decode_department(record: &[u8]) -> Result<(u64, Digest), DecodeError> {
    let mut reader = Reader::new(crate::record::disclose(record)?);
    let counter = reader.u64("counter")?;
    let last = Digest(reader.array("commitment")?);
    reader.finish()?;
    Ok((counter, last))
}

/// Bytes and nothing else.
pub(crate) fn encode_bytes(bytes: &[u8]) -> Vec<u8> {
    enclose(OWN_LIFE, None, bytes)
}

/// Reads what [`encode_bytes`] wrote.
///
/// # Errors
/// [`DecodeError`] if it did not write this.
pub(crate) fn decode_bytes(record: Vec<u8>) -> Result<Bytes, DecodeError> {
    let source = Bytes::from(record);
    let body = crate::record::disclose(&source)?;
    Ok(source.slice_ref(body))
}

/// Key packages in the order in which they were taken.
pub(crate) fn encode_packages(packages: &[Bytes]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u32(u32::try_from(packages.len()).expect("limits keep every list far below 2^32"));
    for package in packages {
        writer.bytes(package);
    }
    enclose(OWN_LIFE, None, &writer.finish())
}

/// Reads what [`encode_packages`] wrote.
///
/// # Errors
/// [`DecodeError`] if it did not write this.
pub(crate) fn decode_packages(record: Vec<u8>) -> Result<Vec<Bytes>, DecodeError> {
    let source = Bytes::from(record);
    let mut fields = Fields::open(&source)?;
    let count = fields.reader.u32("packages")?;
    let mut packages = Vec::new();
    for _ in 0..count {
        packages.push(fields.view("key package")?);
    }
    fields.reader.finish()?;
    Ok(packages)
}
