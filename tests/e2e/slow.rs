//! Clients that are slow on purpose: a message begun and never finished, and a last word that nobody takes. Each costs the
//! gateway a bounded time and nobody else anything.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use lianxin_proto::messages::{Receive, Send, v1};
use lianxin_proto::{Problem, ReasonCode};
use lianxin_types::{ChannelId, Clock as _, LIMITS, Sequence, SystemClock};
use prost::Message as _;
use tokio::task::JoinHandle;
use tonic::Status;

use crate::attacks::Honest;
use crate::raw::fresh_id;
use crate::talk::soon;
use crate::wire;
use crate::zone::Zone;

const SEND: &str = "lianxin.messages.v1.Messages/Send";
const RECEIVE: &str = "lianxin.messages.v1.Messages/Receive";
const COUNT: &str = "lianxin.key_packages.v1.KeyPackages/Count";
const INVENTED: ChannelId = ChannelId([0xEE; 16]);

/// HTTP/2 by hand as this application, and what drives it: done when the connection is.
struct Wire {
    requests: h2::client::SendRequest<Bytes>,
    driven: JoinHandle<()>,
}

impl Wire {
    /// `window_bytes` is what each answer may have on its way.
    async fn open(zone: &Zone, app: &str, window_bytes: u32) -> Self {
        let app = zone.app("jiwei", app);
        let stream = wire::tls(zone.address(), &app.tls_certificate, &app.tls_key).await.expect("let in");
        let built = h2::client::Builder::new().initial_window_size(window_bytes).handshake(stream).await;
        let (requests, connection) = built.expect("speaks HTTP/2");
        let driven = tokio::spawn(async move {
            // However it ends.
            let _end = connection.await;
        });
        Self { requests, driven }
    }

    async fn call(&mut self, method: &str) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
        self.requests = self.requests.clone().ready().await.expect("open");
        let request = http::Request::post(format!("http://lianxin/{method}"));
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        self.requests.send_request(request.body(()).expect("a request"), false).expect("sent")
    }
}

/// A message as gRPC frames it.
fn framed(message: &impl prost::Message) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.encoded_len() as u32);
    message.encode(&mut framed).expect("room");
    framed.freeze()
}

fn nonsense() -> Bytes {
    framed(&v1::SendRequest::from(Send { id: fresh_id(), channel: INVENTED, mls: Bytes::from_static(b"x") }))
}

fn follow() -> Bytes {
    framed(&v1::ReceiveRequest::from(Receive::Follow { channel: INVENTED, after: Sequence(0) }))
}

/// All messages of an answer, and the status behind them.
async fn whole(answer: h2::client::ResponseFuture) -> (Vec<u8>, Status) {
    let answer = soon("an answer", answer).await.expect("answered");
    if let Some(status) = Status::from_header_map(answer.headers()) {
        return (Vec::new(), status);
    }
    let mut body = answer.into_body();
    let mut bytes = Vec::new();
    while let Some(data) = soon("the end", body.data()).await {
        let data = data.expect("in order");
        body.flow_control().release_capacity(data.len()).expect("it was received");
        bytes.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.expect("in order").expect("a status");
    (bytes, Status::from_header_map(&trailers).expect("a status"))
}

#[track_caller]
fn assert_too_slow(status: &Status, method: &str) {
    let code = Problem::from_status(status).map(|problem| (problem.code, problem.try_again));
    assert_eq!(code, Some((ReasonCode::TooSlow, true)), "{method}: {status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_not_finished_ends_its_call_by_name_and_silence_between_two_does_not() {
    let zone = Zone::start_with_strength("message_seconds_max = 2").await;
    let honest = Honest::at(&zone).await;
    let mut wire = Wire::open(&zone, "app-1", 65_535).await;
    let (silent, mut silence) = wire.call(SEND).await;
    silence.send_data(nonsense(), false).expect("sent");

    let mut waiting = Vec::new();
    for method in [SEND, RECEIVE, COUNT] {
        let (answer, mut stream) = wire.call(method).await;
        if method == SEND {
            stream.send_data(nonsense(), false).expect("sent");
        }
        stream.send_data(Bytes::from_static(&[0, 0, 0]), false).expect("sent");
        waiting.push((method, answer, stream));
    }
    // A byte now and then, of a message that would take most of an hour.
    let (trickled, mut trickle) = wire.call(SEND).await;
    let drip = tokio::spawn(async move {
        let length = LIMITS.message_mls_bytes_max as u32;
        let mut next = Bytes::copy_from_slice(&[&[0][..], &length.to_be_bytes()].concat());
        while trickle.send_data(next, false).is_ok() {
            next = Bytes::from_static(&[8]);
            SystemClock.sleep(Duration::from_millis(50)).await;
        }
    });
    honest.talk(5).await;
    for (method, answer, _stream) in waiting {
        let (bytes, status) = whole(answer).await;
        assert_too_slow(&status, method);
        if method == SEND {
            let answered = v1::SendResponse::decode(&bytes[5..]).expect("the answer to what was whole");
            assert!(matches!(answered.outcome, Some(v1::send_response::Outcome::Refusal(_))), "{answered:?}");
        }
    }
    assert_too_slow(&whole(trickled).await.1, "a byte now and then");
    soon("the end of the drip", drip).await.expect("it only sends");

    // Its stream has been silent for longer than a message may take.
    silence.send_data(nonsense(), true).expect("open");
    let (bytes, status) = whole(silent).await;
    assert_eq!(status.code(), tonic::Code::Ok, "{status:?}");
    let first = 5 + u32::from_be_bytes(bytes[1..5].try_into().expect("four bytes")) as usize;
    assert!(bytes.len() > first + 5, "both messages have their answers");
    drop((honest, wire));
    let bodies = zone.close().await.shared_bodies();
    let recorded = bodies.iter().filter(|body| body["action"] == "unread-request" && body["reason"] == "TOO_SLOW");
    assert_eq!(recorded.count(), 4, "one record for each: {bodies:#?}");
}

/// More small messages than tonic gathers, up to 32 KiB, before it looks whether HTTP/2 has room for them.
const GATHERED_MAX: usize = 1_500;

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_take_the_last_word_either_loses_its_connection_and_no_other() {
    let zone = Zone::start_with_strength("stall_seconds_max = 1").await;
    let other = zone.connect(&zone.app("jiwei", "app-1")).await.expect("connects");
    let (_control, mut frames) = other.receive_stream();
    soon("a stream", frames.next()).await.expect("open").expect("opens");

    // Their connections live and answer each ping; what comes is never taken.
    let window_bytes = 1_024;
    let mut at_send = Wire::open(&zone, "app-1", window_bytes).await;
    let (_unread_answers, mut sends) = at_send.call(SEND).await;
    for _ in 0..LIMITS.stream_sends_in_flight_max + GATHERED_MAX {
        sends.send_data(nonsense(), false).expect("sent");
    }
    let mut at_receive = Wire::open(&zone, "app-1", window_bytes).await;
    let (_unread_frames, mut follows) = at_receive.call(RECEIVE).await;
    for _ in 0..GATHERED_MAX {
        follows.send_data(follow(), false).expect("sent");
    }
    soon("the end of one connection", at_send.driven).await.expect("driven to its end");
    soon("the end of the other", at_receive.driven).await.expect("driven to its end");
    assert_eq!(zone.statistics().streams_cut_off, 2);
    other.count().await.expect("the same device's other connection goes on");
    drop((other, frames));
    let bodies = zone.close().await.shared_bodies();
    let cut = |action| {
        let of = |body: &&serde_json::Value| body["action"] == action && body["reason"] == "TOO_SLOW";
        bodies.iter().filter(of).count()
    };
    assert_eq!((cut("send"), cut("receive")), (1, 1), "{bodies:#?}");
}
