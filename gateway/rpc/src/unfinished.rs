//! A message that has begun must come to its end: who sends half of one, or a byte now and then, would hold the place of a
//! stream and a buffer for nothing. What lies between two messages has no deadline; a stream may be silent for as long as it likes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use lianxin_types::{Clock, Monotonic};
use thiserror::Error;
use tonic::body::Body;
use tonic::codegen::StdError;

/// A message was begun and did not come to its end in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a message was begun and not finished within {} s", within.as_secs())]
pub(crate) struct Unfinished {
    pub(crate) within: Duration,
}

/// The body of a request, which breaks off with [`Unfinished`] when a message takes too long.
pub(crate) struct TimelyBody {
    body: Body,
    framing: Framing,
    clock: Arc<dyn Clock>,
    within: Duration,
    due: Option<Due>,
}

/// When the message that is open must be there. Set when more of it is waited for the first time.
struct Due {
    moment: Monotonic,
    alarm: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// A deadline that is noticed so much later was not looked at: nobody read meanwhile, and flow control held the client up.
/// It gets the time once more.
const NOBODY_READ_AFTER: Duration = Duration::from_secs(1);

impl TimelyBody {
    /// Gives each message so long, from the first wait for the rest of it.
    pub(crate) fn new(body: Body, clock: Arc<dyn Clock>, within: Duration) -> Self {
        Self { body, framing: Framing::default(), clock, within, due: None }
    }

    /// Takes note of what has come.
    fn came(&mut self, bytes: &[u8]) -> Result<(), Unfinished> {
        if self.framing.take(bytes) == Seen::AnEnd {
            self.due = None;
        }
        let Some(due) = &self.due else { return Ok(()) };
        let now = self.clock.monotonic();
        if now >= due.moment.plus(NOBODY_READ_AFTER) {
            self.due = None;
        } else if now >= due.moment {
            return Err(Unfinished { within: self.within });
        }
        Ok(())
    }

    /// More is waited for.
    fn waits(&mut self, cx: &mut Context<'_>) -> Result<(), Unfinished> {
        if !self.framing.is_inside() {
            return Ok(());
        }
        let due = self.due.get_or_insert_with(|| {
            let moment = self.clock.monotonic().plus(self.within);
            Due { moment, alarm: self.clock.sleep_until(moment) }
        });
        match due.alarm.as_mut().poll(cx) {
            Poll::Ready(()) => Err(Unfinished { within: self.within }),
            Poll::Pending => Ok(()),
        }
    }
}

impl HttpBody for TimelyBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let in_time = match &polled {
            Poll::Ready(Some(Ok(frame))) => self.came(frame.data_ref().map_or(&[], |bytes| bytes)),
            Poll::Ready(_) => Ok(()),
            Poll::Pending => self.waits(cx),
        };
        match in_time {
            Ok(()) => polled.map_err(StdError::from),
            Err(unfinished) => Poll::Ready(Some(Err(unfinished.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Where a request's bytes stand in gRPC's framing: a byte of flags, four of length, big-endian, then the message.
#[derive(Debug, Default)]
struct Framing {
    prefix: [u8; PREFIX_BYTES],
    /// Bytes of the prefix that have come; none between two messages.
    known: usize,
    /// Bytes of the message that are still to come, once the prefix is whole.
    left: usize,
}

const PREFIX_BYTES: usize = 5;

/// What bytes brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// The end of at least one message.
    AnEnd,
    /// Less than that.
    NoEnd,
}

impl Framing {
    /// A message has begun and not ended.
    const fn is_inside(&self) -> bool {
        self.known > 0
    }

    fn take(&mut self, mut bytes: &[u8]) -> Seen {
        let mut seen = Seen::NoEnd;
        while !bytes.is_empty() {
            if self.known < PREFIX_BYTES {
                let (mine, rest) = bytes.split_at(bytes.len().min(PREFIX_BYTES - self.known));
                self.prefix[self.known..self.known + mine.len()].copy_from_slice(mine);
                (self.known, bytes) = (self.known + mine.len(), rest);
                let [_flags, length @ ..] = self.prefix;
                self.left = u32::from_be_bytes(length) as usize;
            } else {
                let taken = bytes.len().min(self.left);
                (self.left, bytes) = (self.left - taken, &bytes[taken..]);
            }
            if self.known == PREFIX_BYTES && self.left == 0 {
                (*self, seen) = (Self::default(), Seen::AnEnd);
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests;
