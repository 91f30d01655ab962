//! The Receive stream: what the client asks goes in, what happens comes out.

use lianxin_operations::{Caller, Delivery, Receiver, Refusal};
use lianxin_proto::messages::{self, Frame, v1};
use lianxin_types::{ChannelId, LIMITS};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::Face;
use crate::answer::event;
use crate::status::{from_parse_error, to_problem, to_status};
use crate::stop::stopped;

type Frames = mpsc::Sender<Result<v1::ReceiveResponse, Status>>;

/// Frames that wait for a slow client before the gateway stops reading for it.
const FRAMES_WAITING_MAX: usize = 16;

/// Opens the stream: its first frame says what the gateway knows of the federation.
pub(crate) async fn open(
    face: &Face,
    caller: Caller,
    requests: Streaming<v1::ReceiveRequest>,
) -> Result<mpsc::Receiver<Result<v1::ReceiveResponse, Status>>, Status> {
    let receiver = face.operations().receiver(&caller).await.map_err(|refusal| to_status(&refusal))?;
    let (frames, stream) = mpsc::channel(FRAMES_WAITING_MAX);
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
    frames: Frames,
}

impl ReceiveStream {
    async fn run(mut self, requests: Streaming<v1::ReceiveRequest>, opened: v1::ReceiveResponse) {
        if self.frames.send(Ok(opened)).await.is_err() {
            return;
        }
        let ended = self.serve(requests).await;
        if let Err(refusal) = ended {
            let closed = Frame::Closed { channel: None, reason: to_problem(&refusal) };
            // Whoever is too slow to hear it learns it from the end of the stream.
            let _full_or_gone = self.frames.try_send(Ok(closed.into()));
            let _full_or_gone = self.frames.try_send(Err(to_status(&refusal)));
        }
    }

    /// Serves until the client goes away (`Ok`) or something ends the stream (`Err`).
    async fn serve(&mut self, requests: Streaming<v1::ReceiveRequest>) -> Result<(), Refusal> {
        let mut stopping = self.face.stopping.clone();
        let frames = self.frames.clone();
        let (queue, mut asked) = mpsc::channel(LIMITS.connection_streams_max as usize);
        let _reader = AbortOnDrop(tokio::spawn(read(requests, queue)));
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut stopping) => return Err(Refusal::ShuttingDown),
                () = frames.closed() => return Ok(()),
                request = asked.recv() => match request {
                    Some(request) => self.ask(request).await?,
                    None => return Ok(()),
                },
                delivery = self.receiver.next() => {
                    let frame = wire(delivery?);
                    tokio::select! {
                        sent = self.frames.send(Ok(frame)) => if sent.is_err() { return Ok(()) },
                        () = stopped(&mut stopping) => return Err(Refusal::ShuttingDown),
                    }
                }
            }
        }
    }

    async fn ask(&mut self, request: v1::ReceiveRequest) -> Result<(), Refusal> {
        let request = match messages::Receive::try_from(request) {
            Ok(request) => request,
            Err(error) => {
                let refusal = from_parse_error(&error);
                return Err(self.face.operations().refused(&self.caller, "receive", refusal).await);
            }
        };
        match request {
            messages::Receive::Follow { channel, after } => {
                if let Err(refusal) = self.receiver.follow(channel, after).await {
                    self.close(channel, &refusal).await;
                }
            }
            messages::Receive::Unfollow { channel } => self.receiver.unfollow(&channel),
            messages::Receive::Confirm { cursors, inbox } => self.receiver.confirm(&cursors, inbox).await?,
        }
        Ok(())
    }

    async fn close(&self, channel: ChannelId, refusal: &Refusal) {
        let closed = Frame::Closed { channel: Some(channel), reason: to_problem(refusal) };
        let _gone = self.frames.send(Ok(closed.into())).await;
    }
}

async fn read(mut requests: Streaming<v1::ReceiveRequest>, queue: mpsc::Sender<v1::ReceiveRequest>) {
    while let Ok(Some(request)) = requests.message().await {
        if queue.send(request).await.is_err() {
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

fn wire(delivery: Delivery) -> v1::ReceiveResponse {
    match delivery {
        Delivery::Events(frame) => messages::events_frame(frame.encoded(|events| {
            let events: Vec<_> = events.iter().map(|one| event(one)).collect();
            messages::encode_events(&events)
        })),
        Delivery::CaughtUp { channel, sequence } => Frame::CaughtUp { channel, sequence }.into(),
        Delivery::Gap { channel, first_retained } => Frame::Gap { channel, first_retained }.into(),
        Delivery::Inbox(entry) => {
            let welcome = messages::Welcome {
                channel: entry.channel,
                head: entry.head,
                welcome: entry.welcome,
                inviter: entry.inviter,
                gateway_time: entry.gateway_time,
            };
            Frame::Inbox { inbox_id: entry.id, item: messages::InboxItem::Welcome(welcome) }.into()
        }
        Delivery::NotMember { channel } => {
            Frame::Closed { channel: Some(channel), reason: to_problem(&Refusal::NotMember) }.into()
        }
        Delivery::Heartbeat { now } => Frame::Heartbeat { gateway_time: now }.into(),
    }
}
