//! Events of a channel's log, and the batch of them that is encoded once for all subscribers.

use bytes::Bytes;
use lianxin_tlog::EventKind;
use lianxin_types::{ChannelId, DeviceUri, Digest, IdempotencyId, LIMITS, Sequence, Timestamp};
use prost::Message;

use super::v1;
use crate::fields::{self, ParseError};

/// Events in one frame of a Receive stream.
pub const FRAME_EVENTS_MAX: usize = 256;

/// One accepted event of a channel: enough to compute the chain hash of PROTOCOL 4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The channel.
    pub channel: ChannelId,
    /// Its position, dense from 1.
    pub sequence: Sequence,
    /// Its kind.
    pub kind: EventKind,
    /// The TLS caller who sent it.
    pub sender: DeviceUri,
    /// When the gateway accepted it.
    pub gateway_time: Timestamp,
    /// When the zone stops keeping it; `None` for no end.
    pub expiry: Option<Timestamp>,
    /// SHA-256 of the channel's label at that moment.
    pub label_reference: Digest,
    /// The MLS bytes as accepted.
    pub mls: Bytes,
    /// Index of its leaf in the zone's audit log.
    pub leaf_index: u64,
    /// RFC 6962 leaf hash.
    pub leaf_hash: Digest,
    /// The id that its sender chose; zero for what the gateway sent itself.
    pub idempotency_id: IdempotencyId,
}

/// Encodes an [`v1::EventBatch`] once; [`super::events_frame`] wraps the same bytes for each subscriber.
pub fn encode_events(events: &[Event]) -> Bytes {
    v1::EventBatch { events: events.iter().map(Into::into).collect() }.encode_to_vec().into()
}

/// Reads an encoded [`v1::EventBatch`]: 1 to [`FRAME_EVENTS_MAX`] events of one channel, ascending and dense.
///
/// # Errors
/// [`ParseError`] if it is not that, or an event in it is not as the contract says.
pub fn decode_events(bytes: Bytes) -> Result<Vec<Event>, ParseError> {
    let batch = v1::EventBatch::decode(bytes).map_err(|_| ParseError::Malformed { field: FIELD })?;
    if batch.events.is_empty() {
        return Err(ParseError::Missing { field: FIELD });
    }
    parse_run(batch.events, FRAME_EVENTS_MAX)
}

/// Events of one channel, ascending and dense.
pub(super) fn parse_run(wire: Vec<v1::ChannelEvent>, events_max: usize) -> Result<Vec<Event>, ParseError> {
    fields::at_most(FIELD, wire.len(), events_max)?;
    let events = wire.into_iter().map(Event::try_from).collect::<Result<Vec<_>, _>>()?;
    let follows = |one: &Event, next: &Event| {
        one.channel == next.channel && one.sequence.0.checked_add(1) == Some(next.sequence.0)
    };
    if events.windows(2).all(|pair| follows(&pair[0], &pair[1])) {
        Ok(events)
    } else {
        Err(ParseError::Malformed { field: FIELD })
    }
}

impl TryFrom<v1::ChannelEvent> for Event {
    type Error = ParseError;

    fn try_from(wire: v1::ChannelEvent) -> Result<Self, ParseError> {
        let kind = u8::try_from(wire.kind).ok().and_then(|kind| EventKind::try_from(kind).ok());
        Ok(Self {
            channel: fields::channel_id(&wire.channel_id)?,
            sequence: fields::position("sequence", wire.sequence)?,
            kind: kind.ok_or(ParseError::Malformed { field: "kind" })?,
            sender: fields::uri("sender_uri", &wire.sender_uri)?,
            gateway_time: fields::time("gateway_time_us", wire.gateway_time_us)?,
            expiry: fields::end(wire.expiry_us),
            label_reference: fields::digest("label_reference", &wire.label_reference)?,
            mls: fields::blob("mls", wire.mls, LIMITS.commit_bundle_bytes_max)?,
            leaf_index: wire.leaf_index,
            leaf_hash: fields::digest("leaf_hash", &wire.leaf_hash)?,
            idempotency_id: fields::idempotency_id(&wire.idempotency_id)?,
        })
    }
}

impl From<&Event> for v1::ChannelEvent {
    fn from(event: &Event) -> Self {
        Self {
            channel_id: fields::wire(event.channel.0),
            sequence: event.sequence.0,
            kind: event.kind as i32,
            sender_uri: event.sender.as_str().to_owned(),
            gateway_time_us: event.gateway_time.0,
            expiry_us: fields::end_to_wire(event.expiry),
            label_reference: fields::wire(event.label_reference.0),
            mls: event.mls.clone(),
            leaf_index: event.leaf_index,
            leaf_hash: fields::wire(event.leaf_hash.0),
            promise: None,
            idempotency_id: fields::wire(event.idempotency_id.0),
        }
    }
}

const FIELD: &str = "events";
