//! Writes down what goes over a line: every protobuf message of every call, as its bytes pass.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use http::Request;
use http_body::Frame;
use lianxin_connection::{Dial, Dialling, Line, Target};
use lianxin_gateway::InnerLine;
use tonic::Status;
use tonic::body::Body;

use crate::format::{Direction, Hex, Item};
use crate::wire::{message_of, notes};

/// What was written down, shared by all lines.
#[derive(Clone, Default)]
pub(crate) struct Tape(Arc<Mutex<Vec<Item>>>);

impl Tape {
    fn items(&self) -> MutexGuard<'_, Vec<Item>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take(&self) -> Vec<Item> {
        std::mem::take(&mut self.items())
    }

    fn write(&self, device: &'static str, direction: Direction, call: &str, bytes: &[u8]) {
        let message = message_of(call, direction).expect("a call of the contract");
        let notes = notes(&message, bytes).expect("a message of the contract");
        let mut items = self.items();
        let (number, device, call) = (items.len() as u64 + 1, device.to_owned(), call.to_owned());
        items.push(Item { number, device, direction, call, message, bytes: Hex::from(bytes), notes });
    }
}

/// A line of one device to the gateway in this process.
pub(crate) struct Recorder {
    pub(crate) device: &'static str,
    pub(crate) line: InnerLine,
    pub(crate) tape: Tape,
}

impl Dial for Recorder {
    fn dial<'a>(&'a self, _target: &'a Target) -> Dialling<'a> {
        let (device, line, tape) = (self.device, self.line.clone(), self.tape.clone());
        Box::pin(async move {
            Ok(Line::new(tower::service_fn(move |request: Request<Body>| {
                let (line, tape) = (line.clone(), tape.clone());
                let call = request.uri().path().trim_start_matches('/').to_owned();
                async move {
                    let tap = |direction| Tap { device, direction, call: call.clone(), tape: tape.clone() };
                    let (parts, body) = request.into_parts();
                    let body = Tapped::body(body, tap(Direction::ToGateway));
                    let (parts, body) = line.call(Request::from_parts(parts, body)).await.into_parts();
                    let body = Tapped::body(body, tap(Direction::FromGateway));
                    Ok::<_, Status>(http::Response::from_parts(parts, body))
                }
            })))
        })
    }
}

struct Tap {
    device: &'static str,
    direction: Direction,
    call: String,
    tape: Tape,
}

/// A body whose messages are written down as they pass.
struct Tapped {
    body: Body,
    tap: Tap,
    /// The beginning of a message.
    rest: BytesMut,
}

/// Compressed flag and length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;

impl Tapped {
    fn body(body: Body, tap: Tap) -> Body {
        Body::new(Self { body, tap, rest: BytesMut::new() })
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        while let Some(prefix) = self.rest.first_chunk::<PREFIX_BYTES>() {
            let [flag, length @ ..] = *prefix;
            assert_eq!(flag, 0, "nothing is compressed");
            let length = u32::from_be_bytes(length) as usize;
            if self.rest.len() < PREFIX_BYTES + length {
                return;
            }
            self.rest.advance(PREFIX_BYTES);
            let message = self.rest.split_to(length);
            self.tap.tape.write(self.tap.device, self.tap.direction, &self.tap.call, &message);
        }
    }
}

impl http_body::Body for Tapped {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(bytes) = frame.data_ref()
        {
            let bytes = bytes.clone();
            self.hear(&bytes);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
