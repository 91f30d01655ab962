//! The Receive stream: what the client asks goes in, what happens comes out.

use std::convert::Infallible;

use lianxin_operations::{Caller, Delivery, Receiver, Refusal};
use lianxin_proto::messages::{self, Frame, v1};
use lianxin_types::LIMITS;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::Face;
use crate::answer::event;
use crate::outbox::{Outgoing, Room};
use crate::reader::{Lost, Reader};
use crate::status::{from_parse_error, to_problem, to_status};
use crate::stop::stopped;
use crate::unread;

/// Frames that wait for a slow client before the gateway stops reading for it.
const FRAMES: Room = Room { pieces_max: 16, bytes_max: LIMITS.frame_bytes_max };
/// About what a frame takes that holds no bytes of a member's.
const SMALL_FRAME_BYTES: usize = 256;

/// Opens the stream: its first frame says what the gateway knows of the federation.
pub(crate) async fn open(
    face: &Face,
    caller: Caller,
    closing: CancellationToken,
    requests: Streaming<v1::ReceiveRequest>,
) -> Result<Outgoing<v1::ReceiveResponse>, Status> {
    let receiver = face.operations().receiver(&caller).await.map_err(|refusal| to_status(&refusal))?;
    let (frames, stream) = Reader::new(face, closing, FRAMES);
    let known = face.operations().agreement();
    let opened = Frame::Opened {
        bundle_version: known.bundle_version,
        bundle_digest: known.bundle_digest,
        gateway_time: known.now,
    };
    let receiving = ReceiveStream { face: face.clone(), caller, receiver, frames };
    face.operations().spawn(receiving.run(requests, opened.into()));
    Ok(stream)
}

struct ReceiveStream {
    face: Face,
    caller: Caller,
    receiver: Receiver,
    frames: Reader<v1::ReceiveResponse>,
}

/// Why a stream is over.
enum End {
    /// The client has gone, or does not read.
    Lost(Lost),
    /// The gateway ends it.
    Refused(Refusal),
}

impl From<Lost> for End {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl ReceiveStream {
    async fn run(mut self, requests: Streaming<v1::ReceiveRequest>, opened: v1::ReceiveResponse) {
        let ended = match self.frames.give(opened, SMALL_FRAME_BYTES).await {
            Ok(()) => self.serve(requests).await,
            Err(lost) => End::Lost(lost),
        };
        if let Err(refusal) = self.receiver.merge_cursors().await {
            tracing::debug!(%refusal, "how far the device has read is not written");
        }
        let closed = |refusal| Frame::Closed { channel: None, reason: to_problem(refusal) }.into();
        match ended {
            End::Lost(Lost::Gone) => {}
            End::Lost(Lost::Stalled) => {
                self.frames.cut_off(&self.caller, "receive", Some(closed(&Refusal::TooSlow))).await;
            }
            End::Refused(refusal) => self.frames.end(Some(closed(&refusal)), &refusal),
        }
    }

    /// Serves until the client goes away or something ends the stream.
    async fn serve(&mut self, requests: Streaming<v1::ReceiveRequest>) -> End {
        match self.serve_on(requests).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn serve_on(&mut self, requests: Streaming<v1::ReceiveRequest>) -> Result<Infallible, End> {
        let mut stopping = self.face.stopping.clone();
        let (queue, mut asked) = mpsc::channel(LIMITS.connection_streams_max as usize);
        let _reader = AbortOnDrop(tokio::spawn(read(requests, queue)));
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut stopping) => return Err(Refusal::ShuttingDown.into()),
                () = self.frames.gone() => return Err(Lost::Gone.into()),
                request = asked.recv() => match request {
                    Some(Ok(request)) => self.ask(request, &mut stopping).await?,
                    Some(Err(refusal)) => {
                        return Err(self.face.operations().refused(&self.caller, unread::ACTION, refusal).await.into());
                    }
                    None => return Err(Lost::Gone.into()),
                },
                delivery = self.receiver.next() => {
                    let (frame, bytes) = wire(delivery?);
                    tokio::select! {
                        biased;
                        () = stopped(&mut stopping) => return Err(Refusal::ShuttingDown.into()),
                        refusal = self.receiver.ended() => return Err(refusal.into()),
                        given = self.frames.give(frame, bytes) => given?,
                    }
                }
            }
        }
    }

    async fn ask(&mut self, request: v1::ReceiveRequest, stopping: &mut watch::Receiver<bool>) -> Result<(), End> {
        let request = match messages::Receive::try_from(request) {
            Ok(request) => request,
            Err(error) => {
                let refusal = from_parse_error(&error);
                return Err(self.face.operations().refused(&self.caller, "receive", refusal).await.into());
            }
        };
        match request {
            messages::Receive::Follow { channel, after } => {
                let turn = self.receiver.turn_to_follow();
                tokio::select! {
                    biased;
                    () = stopped(stopping) => return Err(Refusal::ShuttingDown.into()),
                    () = self.frames.gone() => return Err(Lost::Gone.into()),
                    refusal = self.receiver.ended() => return Err(refusal.into()),
                    () = turn => {}
                }
                if let Err(refusal) = self.receiver.follow(channel, after).await {
                    let closed = Frame::Closed { channel: Some(channel), reason: to_problem(&refusal) };
                    self.frames.give(closed.into(), SMALL_FRAME_BYTES).await?;
                }
            }
            messages::Receive::Unfollow { channel } => self.receiver.unfollow(&channel),
            messages::Receive::Confirm { cursors, inbox } => self.receiver.confirm(&cursors, inbox).await?,
        }
        Ok(())
    }
}

/// Hands on what the client asks, and at its end a refusal if the stream ends with what cannot be read.
async fn read(mut requests: Streaming<v1::ReceiveRequest>, queue: mpsc::Sender<Result<v1::ReceiveRequest, Refusal>>) {
    loop {
        let (asked, is_last) = match requests.message().await {
            Ok(Some(request)) => (Ok(request), false),
            Ok(None) => return,
            Err(status) => match unread::refusal_of(&status) {
                Some(refusal) => (Err(refusal), true),
                None => return,
            },
        };
        if queue.send(asked).await.is_err() || is_last {
            return;
        }
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The frame, and about how many bytes it takes.
fn wire(delivery: Delivery) -> (v1::ReceiveResponse, usize) {
    let small = |frame: Frame| (frame.into(), SMALL_FRAME_BYTES);
    match delivery {
        Delivery::Events(frame) => {
            let encoded = frame.encoded(|events| {
                let events: Vec<_> = events.iter().map(|one| event(one)).collect();
                messages::encode_events(&events)
            });
            let bytes = encoded.len();
            (messages::events_frame(encoded), bytes)
        }
        Delivery::CaughtUp { channel, sequence } => small(Frame::CaughtUp { channel, sequence }),
        Delivery::Gap { channel, first_retained } => small(Frame::Gap { channel, first_retained }),
        Delivery::Inbox(entry) => {
            let bytes = entry.welcome.len() + SMALL_FRAME_BYTES;
            let welcome = messages::Welcome {
                channel: entry.channel,
                head: entry.head,
                welcome: entry.welcome,
                inviter: entry.inviter,
                gateway_time: entry.gateway_time,
            };
            let item = messages::InboxItem::Welcome(welcome);
            (Frame::Inbox { inbox_id: entry.id, item }.into(), bytes)
        }
        Delivery::NotMember { channel } => {
            small(Frame::Closed { channel: Some(channel), reason: to_problem(&Refusal::NotMember) })
        }
        Delivery::Heartbeat { now } => small(Frame::Heartbeat { gateway_time: now }),
    }
}
