//! The two long streams of a connection.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use lianxin_proto::messages::v1::messages_client::MessagesClient;
use lianxin_proto::messages::{Frame, Receive, Send, SendOutcome, v1};
use lianxin_types::LIMITS;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{CallError, Connection};

/// Longest frame: 1 MiB of events and what is around them.
const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Requests of a Receive stream that wait for the connection.
const CONTROLS_MAX: usize = 64;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, CallError>> + std::marker::Send>>;

/// The sending half of a Send stream. Dropping it tells the gateway that nothing more comes.
#[derive(Debug, Clone)]
pub struct SendStream(mpsc::Sender<v1::SendRequest>);

/// What became of the messages of a Send stream.
pub struct OutcomeStream(Answers<SendOutcome>);

/// The requesting half of a Receive stream. Dropping it ends the stream.
#[derive(Debug, Clone)]
pub struct ReceiveControl(mpsc::Sender<v1::ReceiveRequest>);

/// What the gateway sends on a Receive stream.
pub struct FrameStream(Answers<Frame>);

impl Connection {
    /// Opens a Send stream. The caller keeps at most 256 messages without an outcome. Nothing is sent until the outcomes
    /// are read.
    pub fn send_stream(&self) -> (SendStream, OutcomeStream) {
        let (sender, requests) = mpsc::channel(LIMITS.stream_sends_in_flight_max);
        let mut client = MessagesClient::new(self.line.clone());
        // The call is made by the first read, so that neither end waits for the other's first message.
        let answers = async move { client.send(ReceiverStream::new(requests)).await };
        (SendStream(sender), OutcomeStream(typed(answers)))
    }

    /// Opens a Receive stream. Nothing is sent until the frames are read; frames that are not read make the gateway stop
    /// sending, not this process grow.
    pub fn receive_stream(&self) -> (ReceiveControl, FrameStream) {
        let (sender, requests) = mpsc::channel(CONTROLS_MAX);
        let mut client = MessagesClient::new(self.line.clone()).max_decoding_message_size(FRAME_BYTES_MAX);
        let answers = async move { client.receive(ReceiverStream::new(requests)).await };
        (ReceiveControl(sender), FrameStream(typed(answers)))
    }
}

fn typed<W, T>(
    call: impl Future<Output = Result<tonic::Response<tonic::Streaming<W>>, tonic::Status>> + std::marker::Send + 'static,
) -> Answers<T>
where
    W: std::marker::Send + 'static,
    T: TryFrom<W, Error = lianxin_proto::ParseError> + std::marker::Send + 'static,
{
    let opened = futures_util::stream::once(call).flat_map(|opened| match opened {
        Ok(answers) => answers.into_inner().boxed(),
        Err(status) => futures_util::stream::iter([Err(status)]).boxed(),
    });
    opened.map(|item| T::try_from(item?).map_err(CallError::BadAnswer)).boxed()
}

/// The connection has gone.
fn gone<T>(_: mpsc::error::SendError<T>) -> CallError {
    CallError::Unknown { detail: "the stream has ended".into() }
}

impl SendStream {
    /// Hands a message to the connection; waits while 256 are waiting already.
    ///
    /// # Errors
    /// [`CallError::Unknown`] if the stream has ended.
    pub async fn send(&self, message: Send) -> Result<(), CallError> {
        self.0.send(message.into()).await.map_err(gone)
    }
}

impl OutcomeStream {
    /// The next outcome; `None` when the gateway ended the stream. Outcomes of one channel come in the order of its
    /// messages. After an error nothing more comes.
    pub async fn next(&mut self) -> Option<Result<SendOutcome, CallError>> {
        self.0.next().await
    }
}

impl ReceiveControl {
    /// Follows, unfollows or confirms.
    ///
    /// # Errors
    /// [`CallError::Unknown`] if the stream has ended.
    pub async fn request(&self, request: Receive) -> Result<(), CallError> {
        self.0.send(request.into()).await.map_err(gone)
    }
}

impl FrameStream {
    /// The next frame; `None` when the gateway ended the stream. After an error nothing more comes.
    pub async fn next(&mut self) -> Option<Result<Frame, CallError>> {
        self.0.next().await
    }
}

impl std::fmt::Debug for OutcomeStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OutcomeStream(..)")
    }
}

impl std::fmt::Debug for FrameStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrameStream(..)")
    }
}
