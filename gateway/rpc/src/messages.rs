//! `lianxin.messages.v1.Messages`: the Send stream and history. The Receive stream has a file of its own.

use bytes::Bytes;
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
        tokio::spawn(sending.run(request.into_inner()));
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

/// One Send stream: takes what is ready, commits it with one durability point, answers, takes the next.
struct SendStream {
    face: Face,
    sender: Sender,
    caller: lianxin_operations::Caller,
    answers: mpsc::Sender<Result<v1::SendResponse, Status>>,
}

impl SendStream {
    async fn run(mut self, mut requests: Streaming<v1::SendRequest>) {
        let (queue, mut waiting) = mpsc::channel(LIMITS.stream_sends_in_flight_max);
        let mut stopping = self.face.stopping.clone();
        let reader = tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                if queue.send(request).await.is_err() {
                    return;
                }
            }
        });
        let mut batch = Vec::new();
        loop {
            let taken = tokio::select! {
                biased;
                () = stopped(&mut stopping) => 0,
                taken = waiting.recv_many(&mut batch, LIMITS.stream_sends_in_flight_max) => taken,
            };
            if taken == 0 || !self.answer(std::mem::take(&mut batch)).await {
                break;
            }
        }
        if *stopping.borrow() {
            let status = to_status(&Refusal::ShuttingDown);
            let _gone = self.answers.send(Err(status)).await;
        }
        reader.abort();
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
