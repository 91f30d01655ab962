//! `lianxin.messages.v1.Messages`: the Send stream and history. The Receive stream has a file of its own.

use bytes::Bytes;
use futures_util::FutureExt as _;
use lianxin_operations::{Outgoing, Refusal, Sender, Sent};
use lianxin_proto::messages::{self, v1};
use lianxin_types::LIMITS;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::Face;
use crate::answer::{event, receipt};
use crate::status::{from_parse_error, to_problem, to_status};
use crate::stop::stopped;

#[tonic::async_trait]
impl v1::messages_server::Messages for Face {
    type SendStream = ReceiverStream<Result<v1::SendResponse, Status>>;
    type ReceiveStream = ReceiverStream<Result<v1::ReceiveResponse, Status>>;

    async fn send(&self, request: Request<Streaming<v1::SendRequest>>) -> Result<Response<Self::SendStream>, Status> {
        let caller = self.caller(&request)?;
        let (answers, stream) = mpsc::channel(LIMITS.stream_sends_in_flight_max);
        let sending = SendStream { face: self.clone(), sender: self.operations().sender(&caller), caller, answers };
        self.operations().spawn(sending.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn receive(
        &self,
        request: Request<Streaming<v1::ReceiveRequest>>,
    ) -> Result<Response<Self::ReceiveStream>, Status> {
        let caller = self.caller(&request)?;
        let stream = crate::receive::open(self, caller, request.into_inner()).await?;
        Ok(Response::new(ReceiverStream::new(stream)))
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
    /// The client has ended its half of the stream, or the connection is gone.
    is_last: bool,
}

/// Waits for one request and takes what else has arrived, at most what may be without an answer.
async fn ready(requests: &mut Streaming<v1::SendRequest>) -> Batch {
    let mut batch = Batch { requests: Vec::new(), is_last: false };
    let mut next = Some(requests.message().await);
    while let Some(received) = next {
        let Ok(Some(request)) = received else {
            batch.is_last = true;
            break;
        };
        batch.requests.push(request);
        if batch.requests.len() == LIMITS.stream_sends_in_flight_max {
            break;
        }
        next = requests.message().now_or_never();
    }
    batch
}

/// One Send stream: takes what is ready, commits it with one durability point, answers, takes the next.
struct SendStream {
    face: Face,
    sender: Sender,
    caller: lianxin_operations::Caller,
    answers: mpsc::Sender<Result<v1::SendResponse, Status>>,
}

impl SendStream {
    async fn run(mut self, mut requests: Streaming<v1::SendRequest>) {
        let face = self.face.clone();
        let mut stopping = face.stopping.clone();
        loop {
            let batch = tokio::select! {
                biased;
                () = stopped(&mut stopping) => break,
                batch = ready(&mut requests) => batch,
            };
            // Nothing more is read before these are answered: that bounds what may be without an answer.
            let answered = tokio::select! {
                answered = self.answer(batch.requests) => answered,
                () = face.gave_up(&mut stopping) => break,
            };
            if batch.is_last || !answered {
                return;
            }
        }
        // Whoever does not listen any more learns it from the connection.
        let _full_or_gone = self.answers.try_send(Err(to_status(&Refusal::ShuttingDown)));
    }

    /// Answers one batch in its order; false once nobody listens any more.
    async fn answer(&mut self, batch: Vec<v1::SendRequest>) -> bool {
        let mut run: Vec<Outgoing> = Vec::with_capacity(batch.len());
        for request in batch {
            let raw_id: Bytes = request.idempotency_id.clone();
            match messages::Send::try_from(request) {
                Ok(send) => run.push(Outgoing { id: send.id, channel: send.channel, mls: send.mls }),
                Err(error) => {
                    if !self.send_run(std::mem::take(&mut run)).await {
                        return false;
                    }
                    let refusal = from_parse_error(&error);
                    let refusal = self.face.operations().refused(&self.caller, "send", refusal).await;
                    let answer = messages::SendOutcome::refused_unparsed(&raw_id, &to_problem(&refusal));
                    if self.answers.send(Ok(answer)).await.is_err() {
                        return false;
                    }
                }
            }
        }
        self.send_run(run).await
    }

    async fn send_run(&mut self, run: Vec<Outgoing>) -> bool {
        if run.is_empty() {
            return true;
        }
        for Sent { id, outcome } in self.sender.send(run).await {
            let result = outcome.map(receipt).map_err(|refusal| to_problem(&refusal));
            let answer = messages::SendOutcome { id, result };
            if self.answers.send(Ok(answer.into())).await.is_err() {
                return false;
            }
        }
        true
    }
}
