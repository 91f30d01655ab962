//! Frames of a Receive stream. Events are the same bytes for all subscribers; everything personal has its own kind.

use bytes::Bytes;
use lianxin_tlog::Head;
use lianxin_types::{ChannelId, DeviceUri, Digest, LIMITS, Sequence, Timestamp};

use super::v1::receive_response::Frame as Wire;
use super::{Event, decode_events, encode_events, problem, v1};
use crate::Problem;
use crate::fields::{self, ParseError};

/// One frame from the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Events of one channel, ascending and dense, at least one. The gateway uses [`events_frame`] instead.
    Events(Vec<Event>),
    /// First frame of a stream.
    Opened {
        /// Version of the trust bundle in use.
        bundle_version: u64,
        /// SHA-256 of that bundle as signed.
        bundle_digest: Digest,
        /// The gateway's time.
        gateway_time: Timestamp,
    },
    /// Everything stored when the client began to follow has been sent.
    CaughtUp {
        /// The channel.
        channel: ChannelId,
        /// The head when following began, or later; 0 for an empty channel.
        sequence: Sequence,
    },
    /// Events before `first_retained` are gone by retention.
    Gap {
        /// The channel.
        channel: ChannelId,
        /// The oldest sequence still there.
        first_retained: Sequence,
    },
    /// Something for this device alone, kept until confirmed.
    Inbox {
        /// Ascending per device; named when it is confirmed.
        inbox_id: u64,
        /// What it is.
        item: InboxItem,
    },
    /// Nothing else was sent for 15 seconds.
    Heartbeat {
        /// The gateway's time.
        gateway_time: Timestamp,
    },
    /// The gateway stops following a channel, or ends the stream.
    Closed {
        /// The channel; `None` if the whole stream ends.
        channel: Option<ChannelId>,
        /// Why.
        reason: Problem,
    },
    /// A kind that this build does not know: a newer gateway sent it, and it is skipped. Never sent.
    Unknown,
}

/// Something for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InboxItem {
    /// Somebody added the device to a channel.
    Welcome(Welcome),
    /// A kind that this build does not know: skipped and not confirmed. Never sent.
    Unknown,
}

/// An invitation to a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The channel.
    pub channel: ChannelId,
    /// The commit that added the device, and the chain hash there; the device reads from behind it.
    pub head: Head,
    /// MLSMessage with the Welcome.
    pub welcome: Bytes,
    /// Who committed the Add.
    pub inviter: DeviceUri,
    /// When the gateway accepted it.
    pub gateway_time: Timestamp,
}

/// A frame around events that [`encode_events`] encoded; the bytes are shared, not copied.
pub fn events_frame(encoded: Bytes) -> v1::ReceiveResponse {
    v1::ReceiveResponse { frame: Some(Wire::Events(encoded)) }
}

impl TryFrom<v1::ReceiveResponse> for Frame {
    type Error = ParseError;

    fn try_from(wire: v1::ReceiveResponse) -> Result<Self, ParseError> {
        let Some(wire) = wire.frame else { return Ok(Self::Unknown) };
        Ok(match wire {
            Wire::Events(encoded) => Self::Events(decode_events(encoded)?),
            Wire::Opened(opened) => Self::Opened {
                bundle_version: opened.bundle_version,
                bundle_digest: fields::digest("bundle_digest", &opened.bundle_digest)?,
                gateway_time: fields::time("gateway_time_us", opened.gateway_time_us)?,
            },
            Wire::CaughtUp(done) => {
                Self::CaughtUp { channel: fields::channel_id(&done.channel_id)?, sequence: Sequence(done.sequence) }
            }
            Wire::Gap(gap) => Self::Gap {
                channel: fields::channel_id(&gap.channel_id)?,
                first_retained: fields::position("first_retained", gap.first_retained)?,
            },
            Wire::Inbox(item) => Self::Inbox { inbox_id: item.inbox_id, item: InboxItem::parse(item.item)? },
            Wire::Heartbeat(beat) => {
                Self::Heartbeat { gateway_time: fields::time("gateway_time_us", beat.gateway_time_us)? }
            }
            Wire::Closed(closed) => {
                let channel = fields::optional(closed.channel_id);
                Self::Closed {
                    channel: channel.map(|id| fields::channel_id(&id)).transpose()?,
                    reason: problem("reason", &closed.reason)?,
                }
            }
        })
    }
}

impl From<Frame> for v1::ReceiveResponse {
    fn from(frame: Frame) -> Self {
        let wire = match frame {
            Frame::Events(events) => Wire::Events(encode_events(&events)),
            Frame::Opened { bundle_version, bundle_digest, gateway_time } => Wire::Opened(v1::Opened {
                bundle_version,
                bundle_digest: fields::wire(bundle_digest.0),
                gateway_time_us: gateway_time.0,
            }),
            Frame::CaughtUp { channel, sequence } => {
                Wire::CaughtUp(v1::CaughtUp { channel_id: fields::wire(channel.0), sequence: sequence.0 })
            }
            Frame::Gap { channel, first_retained } => {
                Wire::Gap(v1::Gap { channel_id: fields::wire(channel.0), first_retained: first_retained.0 })
            }
            Frame::Inbox { inbox_id, item } => Wire::Inbox(v1::InboxItem { inbox_id, item: item.into_wire() }),
            Frame::Heartbeat { gateway_time } => Wire::Heartbeat(v1::Heartbeat { gateway_time_us: gateway_time.0 }),
            Frame::Closed { channel, reason } => Wire::Closed(v1::Closed {
                channel_id: channel.map(|id| fields::wire(id.0)).unwrap_or_default(),
                reason: reason.to_bytes(),
            }),
            Frame::Unknown => return Self { frame: None },
        };
        Self { frame: Some(wire) }
    }
}

impl InboxItem {
    fn parse(wire: Option<v1::inbox_item::Item>) -> Result<Self, ParseError> {
        let Some(v1::inbox_item::Item::Welcome(wire)) = wire else { return Ok(Self::Unknown) };
        Ok(Self::Welcome(Welcome {
            channel: fields::channel_id(&wire.channel_id)?,
            head: Head {
                sequence: fields::position("sequence", wire.sequence)?,
                chain_hash: fields::digest("chain_hash", &wire.chain_hash)?,
            },
            welcome: fields::blob("welcome", wire.welcome, LIMITS.commit_bundle_bytes_max)?,
            inviter: fields::uri("inviter_uri", &wire.inviter_uri)?,
            gateway_time: fields::time("gateway_time_us", wire.gateway_time_us)?,
        }))
    }

    fn into_wire(self) -> Option<v1::inbox_item::Item> {
        let Self::Welcome(welcome) = self else { return None };
        Some(v1::inbox_item::Item::Welcome(v1::WelcomeItem {
            channel_id: fields::wire(welcome.channel.0),
            sequence: welcome.head.sequence.0,
            chain_hash: fields::wire(welcome.head.chain_hash.0),
            welcome: welcome.welcome,
            inviter_uri: welcome.inviter.as_str().to_owned(),
            gateway_time_us: welcome.gateway_time.0,
        }))
    }
}
