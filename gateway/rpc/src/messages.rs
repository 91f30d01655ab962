//! `lianxin.messages.v1.Messages`: the Send stream and history. The Receive stream has a file of its own.

use bytes::Bytes;
use futures_util::FutureExt as _;
use lianxin_operations::{Outgoing, Refusal, Sender, Sent};
use lianxin_proto::messages::{self, v1};
use lianxin_types::LIMITS;
use tonic::{Request, Response, Status, Streaming};

use crate::Face;
use crate::answer::{event, receipt};
use crate::outbox::{self, Room};
use crate::reader::{Lost, Reader};
use crate::status::{from_parse_error, to_problem, to_status};
use crate::stop::stopped;
use crate::unread;

#[tonic::async_trait]
impl v1::messages_server::Messages for Face {
    type SendStream = outbox::Outgoing<v1::SendResponse>;
    type ReceiveStream = outbox::Outgoing<v1::ReceiveResponse>;

    async fn send(&self, request: Request<Streaming<v1::SendRequest>>) -> Result<Response<Self::SendStream>, Status> {
        let caller = self.caller(&request)?;
        self.paced(&caller).await?;
        let sender = self.operations().sender(&caller).await.map_err(|refusal| to_status(&refusal))?;
        let (answers, stream) = Reader::new(self, self.closing(&request), ANSWERS);
        let sending = SendStream { face: self.clone(), sender, caller, answers };
        self.operations().spawn(sending.run(request.into_inner()));
        Ok(Response::new(stream))
    }

    async fn receive(
        &self,
        request: Request<Streaming<v1::ReceiveRequest>>,
    ) -> Result<Response<Self::ReceiveStream>, Status> {
        let caller = self.caller(&request)?;
        self.paced(&caller).await?;
        let closing = self.closing(&request);
        let stream = crate::receive::open(self, caller, closing, request.into_inner()).await?;
        Ok(Response::new(stream))
    }

    async fn history(&self, request: Request<v1::HistoryRequest>) -> Result<Response<v1::HistoryResponse>, Status> {
        let caller = self.caller(&request)?;
        let wanted: messages::History = self.parsed(&caller, "history", request.into_inner()).await?;
        let page = self.operations().history(&caller, wanted.channel, wanted.after, wanted.events_max).await;
        let page = page.map_err(|refusal| to_status(&refusal))?;
        let events = page.events.iter().map(|one| event(one)).collect();
        let answer = messages::HistoryPage { events, head: page.head, first_retained: page.first_retained };
        Ok(Response::new(answer.into()))
    }
}

/// What a client has sent by now.
struct Batch {
    requests: Vec<v1::SendRequest>,
    /// What ends the stream behind these.
    end: Option<End>,
}

enum End {
    /// The client has ended its half of the stream, or the connection is gone.
    Gone,
    /// What came next cannot be read.
    Unread(Refusal),
}

/// Waits for one request and takes what else has arrived, at most what may be without an answer.
async fn ready(requests: &mut Streaming<v1::SendRequest>) -> Batch {
    let mut batch = Batch { requests: Vec::new(), end: None };
    let mut next = Some(requests.message().await);
    while let Some(received) = next {
        match received {
            Ok(Some(request)) => batch.requests.push(request),
            Ok(None) => batch.end = Some(End::Gone),
            Err(status) => batch.end = Some(unread::refusal_of(&status).map_or(End::Gone, End::Unread)),
        }
        if batch.end.is_some() {
            break;
        }
        if batch.requests.len() == LIMITS.stream_sends_in_flight_max {
            break;
        }
        next = requests.message().now_or_never();
    }
    batch
}

/// Answers that wait for a slow client before nothing more is read of it.
const ANSWERS: Room = Room { pieces_max: LIMITS.stream_sends_in_flight_max, bytes_max: 256 * 1024 };
/// About what an answer takes: a receipt, or a refusal with its text.
const ANSWER_BYTES: usize = 256;

/// One Send stream: takes what is ready, commits it with one durability point, answers, takes the next.
struct SendStream {
    face: Face,
    sender: Sender,
    caller: lianxin_operations::Caller,
    answers: Reader<v1::SendResponse>,
}

impl SendStream {
    async fn run(mut self, mut requests: Streaming<v1::SendRequest>) {
        let face = self.face.clone();
        let mut stopping = face.stopping.clone();
        loop {
            let batch = tokio::select! {
                biased;
                () = stopped(&mut stopping) => break,
                refusal = self.sender.ended() => return self.answers.end(None, &refusal),
                batch = ready(&mut requests) => batch,
            };
            let turn = self.sender.turn_to_send(batch.requests.len());
            tokio::select! {
                biased;
                () = stopped(&mut stopping) => break,
                refusal = self.sender.ended() => return self.answers.end(None, &refusal),
                () = turn => {}
            }
            // Nothing more is read before these are answered: that bounds what may be without an answer.
            let answered = tokio::select! {
                biased;
                answered = self.answer(batch.requests) => answered,
                () = face.gave_up(&mut stopping) => break,
            };
            match answered.map(|()| batch.end) {
                Ok(None) => {}
                Ok(Some(End::Gone)) => return,
                Ok(Some(End::Unread(refusal))) => {
                    let refusal = face.operations().refused(&self.caller, unread::ACTION, refusal).await;
                    return self.answers.end(None, &refusal);
                }
                Err(Lost::Gone) => return,
                Err(Lost::Stalled) => return self.answers.cut_off(&self.caller, "send", None).await,
            }
        }
        self.answers.end(None, &Refusal::ShuttingDown);
    }

    /// Answers one batch in its order.
    async fn answer(&mut self, batch: Vec<v1::SendRequest>) -> Result<(), Lost> {
        let mut run: Vec<Outgoing> = Vec::with_capacity(batch.len());
        for request in batch {
            let raw_id: Bytes = request.idempotency_id.clone();
            match messages::Send::try_from(request) {
                Ok(send) => run.push(Outgoing { id: send.id, channel: send.channel, mls: send.mls }),
                Err(error) => {
                    self.send_run(std::mem::take(&mut run)).await?;
                    let refusal = from_parse_error(&error);
                    let refusal = self.face.operations().refused(&self.caller, "send", refusal).await;
                    let answer = messages::SendOutcome::refused_unparsed(&raw_id, &to_problem(&refusal));
                    self.answers.give(answer, ANSWER_BYTES).await?;
                }
            }
        }
        self.send_run(run).await
    }

    async fn send_run(&mut self, run: Vec<Outgoing>) -> Result<(), Lost> {
        if run.is_empty() {
            return Ok(());
        }
        for Sent { id, outcome } in self.sender.send(run).await {
            let result = outcome.map(receipt).map_err(|refusal| to_problem(&refusal));
            let answer = messages::SendOutcome { id, result };
            self.answers.give(answer.into(), ANSWER_BYTES).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::{Buf as _, BufMut as _, BytesMut};
    use http_body::Frame;
    use tonic::codec::{DecodeBuf, Decoder};

    use super::*;

    /// Everything that the client has sent, at once.
    struct Arrived(Option<Bytes>);

    impl http_body::Body for Arrived {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    /// Whose messages are all an id.
    struct Ids;

    impl Decoder for Ids {
        type Item = v1::SendRequest;
        type Error = Status;

        fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<v1::SendRequest>, Status> {
            let idempotency_id = buffer.copy_to_bytes(buffer.remaining());
            Ok(Some(v1::SendRequest { idempotency_id, ..v1::SendRequest::default() }))
        }
    }

    #[tokio::test]
    async fn no_more_is_taken_than_may_be_without_an_answer_and_nothing_of_it_is_lost() {
        let bound = LIMITS.stream_sends_in_flight_max;
        let mut arrived = BytesMut::new();
        for number in 0..2 * bound as u32 + 3 {
            arrived.put_slice(&[0, 0, 0, 0, 4]);
            arrived.put_u32(number);
        }
        let mut requests = Streaming::new_request(Ids, Arrived(Some(arrived.freeze())), None, None);
        let mut next = 0;
        for expected in [bound, bound, 3] {
            let batch = ready(&mut requests).await;
            assert_eq!(batch.requests.len(), expected);
            assert_eq!(batch.end.is_some(), expected < bound, "the client's end comes behind all of it");
            for request in batch.requests {
                assert_eq!(request.idempotency_id, u32::to_be_bytes(next).as_slice());
                next += 1;
            }
        }
    }
}
