//! Messages on the wire: requests and responses of `lianxin.messages.v1` as typed values.

use bytes::Bytes;
use lianxin_types::{ChannelId, IdempotencyId, LIMITS, Sequence};

use crate::fields::{self, ParseError};
use crate::{Problem, Receipt};

mod event;
mod frame;
#[cfg(test)]
mod tests;

pub use event::{Event, FRAME_EVENTS_MAX, decode_events, encode_events};
pub use frame::{Frame, InboxItem, Welcome, events_frame};

/// Generated from `api/lianxin/messages/v1/`. One field differs from the contract in Rust and not on the wire:
/// `ReceiveResponse.events` is the encoded [`v1::EventBatch`], so that one encoding serves all subscribers.
#[expect(
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated; the .proto files are documented"
)]
pub mod v1 {
    tonic::include_proto!("lianxin.messages.v1");
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// Recognises a repeat.
    pub id: IdempotencyId,
    /// The channel.
    pub channel: ChannelId,
    /// MLSMessage with a PrivateMessage.
    pub mls: Bytes,
}

impl TryFrom<v1::SendRequest> for Send {
    type Error = ParseError;

    fn try_from(wire: v1::SendRequest) -> Result<Self, ParseError> {
        Ok(Self {
            id: fields::idempotency_id(&wire.idempotency_id)?,
            channel: fields::channel_id(&wire.channel_id)?,
            mls: fields::blob("mls_message", wire.mls_message, LIMITS.message_mls_bytes_max)?,
        })
    }
}

impl From<Send> for v1::SendRequest {
    fn from(send: Send) -> Self {
        Self {
            idempotency_id: fields::wire(send.id.0),
            channel_id: fields::wire(send.channel.0),
            mls_message: send.mls,
        }
    }
}

/// What became of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendOutcome {
    /// From the request.
    pub id: IdempotencyId,
    /// Accepted or refused.
    pub result: Result<Receipt, Problem>,
}

impl SendOutcome {
    /// The refusal of a request that could not be parsed; the id is echoed as it came, cut to 16 bytes.
    pub fn refused_unparsed(raw_id: &Bytes, problem: &Problem) -> v1::SendResponse {
        let idempotency_id = raw_id.slice(..raw_id.len().min(IdempotencyId::LENGTH));
        v1::SendResponse { idempotency_id, outcome: Some(v1::send_response::Outcome::Refusal(problem.to_bytes())) }
    }
}

impl TryFrom<v1::SendResponse> for SendOutcome {
    type Error = ParseError;

    fn try_from(wire: v1::SendResponse) -> Result<Self, ParseError> {
        let id = fields::idempotency_id(&wire.idempotency_id)?;
        let result = match fields::present("outcome", wire.outcome)? {
            v1::send_response::Outcome::Receipt(receipt) => Ok((*receipt).try_into()?),
            v1::send_response::Outcome::Refusal(bytes) => Err(problem("refusal", &bytes)?),
        };
        Ok(Self { id, result })
    }
}

impl From<SendOutcome> for v1::SendResponse {
    fn from(outcome: SendOutcome) -> Self {
        let wire = match outcome.result {
            Ok(receipt) => v1::send_response::Outcome::Receipt(Box::new(receipt.into())),
            Err(problem) => v1::send_response::Outcome::Refusal(problem.to_bytes()),
        };
        Self { idempotency_id: fields::wire(outcome.id.0), outcome: Some(wire) }
    }
}

/// What the client wants of its Receive stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receive {
    /// Follow a channel; again with another cursor starts over.
    Follow {
        /// The channel.
        channel: ChannelId,
        /// The last sequence that the client has; 0 for none.
        after: Sequence,
    },
    /// Stop following a channel.
    Unfollow {
        /// The channel.
        channel: ChannelId,
    },
    /// What the client has stored.
    Confirm {
        /// Channels and the last sequence stored of each, at most 1,000.
        cursors: Vec<(ChannelId, Sequence)>,
        /// Inbox items that need not come again, at most 1,000.
        inbox: Vec<u64>,
    },
}

impl TryFrom<v1::ReceiveRequest> for Receive {
    type Error = ParseError;

    fn try_from(wire: v1::ReceiveRequest) -> Result<Self, ParseError> {
        match fields::present("action", wire.action)? {
            v1::receive_request::Action::Follow(follow) => Ok(Self::Follow {
                channel: fields::channel_id(&follow.channel_id)?,
                after: Sequence(follow.after_sequence),
            }),
            v1::receive_request::Action::Unfollow(unfollow) => {
                Ok(Self::Unfollow { channel: fields::channel_id(&unfollow.channel_id)? })
            }
            v1::receive_request::Action::Confirm(confirm) => {
                fields::at_most("cursors", confirm.cursors.len(), LIMITS.device_channels_max)?;
                fields::at_most("inbox_ids", confirm.inbox_ids.len(), LIMITS.device_channels_max)?;
                let cursor = |wire: &v1::Cursor| Ok((fields::channel_id(&wire.channel_id)?, Sequence(wire.sequence)));
                let cursors = confirm.cursors.iter().map(cursor).collect::<Result<_, ParseError>>()?;
                Ok(Self::Confirm { cursors, inbox: confirm.inbox_ids })
            }
        }
    }
}

impl From<Receive> for v1::ReceiveRequest {
    fn from(receive: Receive) -> Self {
        let action = match receive {
            Receive::Follow { channel, after } => v1::receive_request::Action::Follow(v1::Follow {
                channel_id: fields::wire(channel.0),
                after_sequence: after.0,
            }),
            Receive::Unfollow { channel } => {
                v1::receive_request::Action::Unfollow(v1::Unfollow { channel_id: fields::wire(channel.0) })
            }
            Receive::Confirm { cursors, inbox } => {
                let cursor = |(channel, sequence): (ChannelId, Sequence)| v1::Cursor {
                    channel_id: fields::wire(channel.0),
                    sequence: sequence.0,
                };
                let cursors = cursors.into_iter().map(cursor).collect();
                v1::receive_request::Action::Confirm(v1::Confirm { cursors, inbox_ids: inbox })
            }
        };
        Self { action: Some(action) }
    }
}

/// Asks for a page of a channel's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// The channel.
    pub channel: ChannelId,
    /// Only events behind this; 0 for all that the caller may read.
    pub after: Sequence,
    /// At most this many, 1 to 500.
    pub events_max: usize,
}

impl TryFrom<v1::HistoryRequest> for History {
    type Error = ParseError;

    fn try_from(wire: v1::HistoryRequest) -> Result<Self, ParseError> {
        let asked = wire.events_max as usize;
        fields::at_most("events_max", asked, LIMITS.history_events_max)?;
        Ok(Self {
            channel: fields::channel_id(&wire.channel_id)?,
            after: Sequence(wire.after_sequence),
            events_max: if asked == 0 { LIMITS.history_events_max } else { asked },
        })
    }
}

impl From<History> for v1::HistoryRequest {
    fn from(history: History) -> Self {
        Self {
            channel_id: fields::wire(history.channel.0),
            after_sequence: history.after.0,
            events_max: u32::try_from(history.events_max).unwrap_or(u32::MAX),
        }
    }
}

/// A page of a channel's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    /// Ascending and dense, of one channel; at most 500 events or about 1 MiB.
    pub events: Vec<Event>,
    /// The channel's head when the page was read.
    pub head: Sequence,
    /// The oldest sequence still there and open to the caller.
    pub first_retained: Sequence,
}

impl TryFrom<v1::HistoryResponse> for HistoryPage {
    type Error = ParseError;

    fn try_from(wire: v1::HistoryResponse) -> Result<Self, ParseError> {
        Ok(Self {
            events: event::parse_run(wire.events, LIMITS.history_events_max)?,
            head: Sequence(wire.head_sequence),
            first_retained: Sequence(wire.first_retained),
        })
    }
}

impl From<HistoryPage> for v1::HistoryResponse {
    fn from(page: HistoryPage) -> Self {
        Self {
            events: page.events.iter().map(Into::into).collect(),
            head_sequence: page.head.0,
            first_retained: page.first_retained.0,
        }
    }
}

fn problem(field: &'static str, bytes: &[u8]) -> Result<Problem, ParseError> {
    Problem::from_bytes(bytes).ok_or(ParseError::Malformed { field })
}
