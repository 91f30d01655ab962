//! What is stored for one unit: three records of the journal under one leaf index. The unit itself, its audit record, and
//! its changes of state (only if it has any), apart because they are read, and one day dropped, at different times.
//!
//! Every stored record starts with format version u8, retention class u16, expiry u64 (0: none), seal kind u8 (0: none),
//! key id u64 (0: none), big-endian (PROTOCOL 10).

use bytes::Bytes;
use lianxin_tlog::{Audience, EventKind, Head, LEAF_BYTES, RetentionClass};
use lianxin_types::{
    ChannelId, DecodeError, DepartmentId, DeviceUri, Digest, IdempotencyId, Reader, Sequence, Timestamp, Writer,
    labelled_sha256,
};

use crate::unit::{Idempotency, NewEvent};
use crate::zone_store::{AuditRecord, StoreError, StoredEvent, StoredPart};

/// The newest version of every record that this build knows.
const VERSION: u8 = 1;
const SEAL_NONE: u8 = 0;
const KEY_NONE: u64 = 0;

/// Retention class of what lives by its own expiry or until it is replaced.
pub(crate) const OWN_LIFE: RetentionClass = RetentionClass(0);

/// Bound on one field of a stored record, far above what limits let in.
const FIELD_BYTES_MAX: usize = 1 << 28;

/// A record: header, then body.
pub(crate) fn enclose(class: RetentionClass, expiry: Option<Timestamp>, body: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u8(VERSION).u16(class.0).u64(expiry.map_or(0, |end| end.0)).u8(SEAL_NONE).u64(KEY_NONE).raw(body).finish()
}

/// The body of a record.
///
/// # Errors
/// [`DecodeError`] if the header is not one that this build can read.
pub(crate) fn disclose(record: &[u8]) -> Result<&[u8], DecodeError> {
    let mut reader = Reader::new(record);
    let version = reader.u8("record version")?;
    if version != VERSION {
        return Err(DecodeError::UnknownVersion { version });
    }
    let header = reader.raw("record header", HEADER_BYTES - 1)?;
    if header[10] != SEAL_NONE {
        return Err(DecodeError::OutOfRange { field: "seal kind" });
    }
    Ok(&record[HEADER_BYTES..])
}

const HEADER_BYTES: usize = 20;

/// The retention class in a record's header.
///
/// # Errors
/// [`DecodeError`] if the header is not one that this build can read.
pub(crate) fn retention_class(record: &[u8]) -> Result<RetentionClass, DecodeError> {
    disclose(record)?;
    let mut reader = Reader::new(&record[1..]);
    reader.u16("retention class").map(RetentionClass)
}

/// Turns a decoding error into the store's.
pub(crate) fn damaged(what: &'static str) -> impl FnOnce(DecodeError) -> StoreError {
    move |cause| {
        tracing::error!(what, %cause, "stored record is damaged");
        StoreError::Damaged { what }
    }
}

/// Reads fields, and byte strings as views of the one buffer that they lie in.
pub(crate) struct Fields<'a> {
    source: &'a Bytes,
    pub(crate) reader: Reader<'a>,
}

impl<'a> Fields<'a> {
    pub(crate) fn open(source: &'a Bytes) -> Result<Self, DecodeError> {
        Ok(Self { source, reader: Reader::new(disclose(source)?) })
    }

    pub(crate) fn view(&mut self, field: &'static str) -> Result<Bytes, DecodeError> {
        let bytes = self.reader.bytes(field, FIELD_BYTES_MAX)?;
        Ok(self.source.slice_ref(bytes))
    }

    pub(crate) fn device(&mut self, field: &'static str) -> Result<DeviceUri, DecodeError> {
        self.reader.text(field, DeviceUri::BYTES_MAX)?.parse().map_err(|_| DecodeError::OutOfRange { field })
    }

    pub(crate) fn department(&mut self, field: &'static str) -> Result<DepartmentId, DecodeError> {
        self.reader.text(field, 64)?.parse().map_err(|_| DecodeError::OutOfRange { field })
    }

    pub(crate) fn digest(&mut self, field: &'static str) -> Result<Digest, DecodeError> {
        self.reader.array(field).map(Digest)
    }

    pub(crate) fn channel(&mut self) -> Result<ChannelId, DecodeError> {
        self.reader.array("channel").map(ChannelId)
    }

    /// 0 stands for none.
    pub(crate) fn time(&mut self, field: &'static str) -> Result<Option<Timestamp>, DecodeError> {
        Ok(Some(self.reader.u64(field)?).filter(|time| *time != 0).map(Timestamp))
    }

    pub(crate) fn head(&mut self) -> Result<Head, DecodeError> {
        let sequence = Sequence(self.reader.u64("sequence")?);
        Ok(Head { sequence, chain_hash: self.digest("chain hash")? })
    }
}

/// A call that will be recognised when it is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RememberedCall {
    pub(crate) scope: Digest,
    pub(crate) id: IdempotencyId,
    pub(crate) bytes_hash: Digest,
}

impl From<&Idempotency> for RememberedCall {
    fn from(call: &Idempotency) -> Self {
        Self { scope: scope_digest(call), id: call.id, bytes_hash: call.bytes_hash }
    }
}

/// SHA-256 over label, device with 32-bit length, channel or 16 zero bytes, call with 32-bit length, id.
pub(crate) fn scope_digest(call: &Idempotency) -> Digest {
    let mut writer = Writer::new();
    writer.bytes(call.device.as_str().as_bytes()).raw(&call.channel.map_or([0; 16], |channel| channel.0));
    let fields = writer.bytes(call.call.as_bytes()).raw(&call.id.0).finish();
    labelled_sha256("lianxin/idempotency/v1", &[&fields])
}

/// An event with its place, as it stands in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventRecord {
    pub(crate) channel: ChannelId,
    pub(crate) head: Head,
    pub(crate) kind: EventKind,
    pub(crate) sender: DeviceUri,
    pub(crate) expiry: Option<Timestamp>,
    pub(crate) label_reference: Digest,
    pub(crate) mls_hash: Digest,
    /// Sequence of the head that the sender named; `None` if it named none.
    pub(crate) sender_head: Option<Sequence>,
    pub(crate) mls: Bytes,
}

impl EventRecord {
    /// `event` at its place.
    pub(crate) fn new(channel: ChannelId, head: Head, event: NewEvent) -> Self {
        Self {
            channel,
            head,
            kind: event.kind,
            sender: event.sender,
            expiry: event.expiry,
            label_reference: event.label_reference,
            mls_hash: event.mls_hash,
            sender_head: event.head.map(|head| head.sequence),
            mls: event.mls,
        }
    }
}

/// The unit itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnitRecord {
    pub(crate) gateway_time: Timestamp,
    pub(crate) leaf_hash: Digest,
    pub(crate) has_changes: bool,
    pub(crate) call: Option<RememberedCall>,
    pub(crate) event: Option<EventRecord>,
}

const HAS_CHANGES: u8 = 1;
const HAS_CALL: u8 = 2;
const HAS_EVENT: u8 = 4;
const HAS_SENDER_HEAD: u8 = 8;

impl UnitRecord {
    /// flags u8, gateway time u64, leaf hash 32; call: scope 32, id 16, bytes hash 32; event: channel 16, sequence u64,
    /// chain hash 32, kind u8, expiry u64, label reference 32, MLS hash 32, sender's head u64, sender and MLS bytes with
    /// 32-bit lengths.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let sender_head = self.event.as_ref().and_then(|event| event.sender_head);
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let flags = flag(self.has_changes, HAS_CHANGES)
            | flag(self.call.is_some(), HAS_CALL)
            | flag(self.event.is_some(), HAS_EVENT)
            | flag(sender_head.is_some(), HAS_SENDER_HEAD);
        let mut writer = Writer::new();
        writer.u8(flags).u64(self.gateway_time.0).raw(&self.leaf_hash.0);
        if let Some(call) = &self.call {
            writer.raw(&call.scope.0).raw(&call.id.0).raw(&call.bytes_hash.0);
        }
        if let Some(event) = &self.event {
            writer.raw(&event.channel.0).u64(event.head.sequence.0).raw(&event.head.chain_hash.0);
            writer.u8(event.kind as u8).u64(event.expiry.map_or(0, |end| end.0));
            writer.raw(&event.label_reference.0).raw(&event.mls_hash.0).u64(sender_head.unwrap_or_default().0);
            writer.bytes(event.sender.as_str().as_bytes()).bytes(&event.mls);
        }
        let expiry = self.event.as_ref().and_then(|event| event.expiry);
        enclose(OWN_LIFE, expiry, &writer.finish())
    }

    /// Reads what [`UnitRecord::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if it did not write this.
    pub(crate) fn decode(record: Vec<u8>) -> Result<Self, DecodeError> {
        let source = Bytes::from(record);
        let mut fields = Fields::open(&source)?;
        let flags = fields.reader.u8("flags")?;
        let gateway_time = Timestamp(fields.reader.u64("gateway time")?);
        let leaf_hash = fields.digest("leaf hash")?;
        let call = if flags & HAS_CALL == 0 {
            None
        } else {
            let scope = fields.digest("scope")?;
            let id = IdempotencyId(fields.reader.array("idempotency id")?);
            Some(RememberedCall { scope, id, bytes_hash: fields.digest("bytes hash")? })
        };
        let event = if flags & HAS_EVENT == 0 { None } else { Some(decode_event(&mut fields, flags)?) };
        fields.reader.finish()?;
        Ok(Self { gateway_time, leaf_hash, has_changes: flags & HAS_CHANGES != 0, call, event })
    }

    /// The event as readers get it; `None` if the unit made none.
    pub(crate) fn stored_event(&self, leaf_index: u64) -> Option<StoredEvent> {
        let event = self.event.as_ref()?;
        Some(StoredEvent {
            channel: event.channel,
            head: event.head,
            kind: event.kind,
            sender: event.sender.clone(),
            gateway_time: self.gateway_time,
            expiry: event.expiry,
            label_reference: event.label_reference,
            mls: event.mls.clone(),
            leaf_index,
            leaf_hash: self.leaf_hash,
            idempotency_id: self.call.as_ref().map_or(IdempotencyId([0; 16]), |call| call.id),
        })
    }
}

fn decode_event(fields: &mut Fields<'_>, flags: u8) -> Result<EventRecord, DecodeError> {
    let channel = fields.channel()?;
    let head = fields.head()?;
    let kind = EventKind::try_from(fields.reader.u8("event kind")?)?;
    let expiry = fields.time("expiry")?;
    let label_reference = fields.digest("label reference")?;
    let mls_hash = fields.digest("mls hash")?;
    let sender_head = Some(Sequence(fields.reader.u64("sender head")?)).filter(|_| flags & HAS_SENDER_HEAD != 0);
    let sender = fields.device("sender")?;
    let mls = fields.view("mls bytes")?;
    Ok(EventRecord { channel, head, kind, sender, expiry, label_reference, mls_hash, sender_head, mls })
}

/// leaf 60, parts u16; each: audience, salt 32, header, body; byte strings with 32-bit lengths.
pub(crate) fn encode_audit(class: RetentionClass, leaf: &[u8; LEAF_BYTES], parts: &[StoredPart]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.raw(leaf).u16(u16::try_from(parts.len()).expect("one part per department and limits allow 64 departments"));
    for part in parts {
        writer.bytes(part.audience.as_bytes()).raw(&part.salt).bytes(&part.header).bytes(&part.body);
    }
    enclose(class, None, &writer.finish())
}

/// Reads what [`encode_audit`] wrote.
///
/// # Errors
/// [`DecodeError`] if it did not write this.
pub(crate) fn decode_audit(leaf_index: u64, record: &[u8]) -> Result<AuditRecord, DecodeError> {
    let mut reader = Reader::new(disclose(record)?);
    let leaf = reader.array("leaf")?;
    let count = reader.u16("parts")?;
    let mut parts = Vec::new();
    for _ in 0..count {
        let audience = match reader.text("audience", 64)? {
            "" => Audience::Shared,
            name => Audience::Department(name.parse().map_err(|_| DecodeError::OutOfRange { field: "audience" })?),
        };
        let salt = reader.array("salt")?;
        let header = reader.bytes("part header", FIELD_BYTES_MAX)?.to_vec();
        parts.push(StoredPart { audience, salt, header, body: reader.bytes("part body", FIELD_BYTES_MAX)?.to_vec() });
    }
    reader.finish()?;
    Ok(AuditRecord { leaf_index, leaf, parts })
}
