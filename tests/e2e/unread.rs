//! Requests that never become a message: no protobuf, over the bound of any request, none at all. Each is refused by name in
//! every call, is on record, and ends nothing but itself.

use bytes::Bytes;
use lianxin_proto::messages::{self, Frame, v1};
use lianxin_proto::{Problem, ReasonCode};
use lianxin_types::{LIMITS, Sequence};
use prost::Message as _;
use tonic::{Request, Status};

use crate::coverage::methods_of_the_contract;
use crate::raw::{RawDevice, fresh_id};
use crate::talk::soon;
use crate::wire::{self, AsItIs};
use crate::zone::Zone;

type Client = tonic::client::Grpc<tonic::transport::Channel>;

/// No field has number 0.
const NO_PROTOBUF: Bytes = Bytes::from_static(&[0x00, 0xFF]);

async fn client(zone: &Zone) -> Client {
    let app = zone.app("jiwei", "app-1");
    tonic::client::Grpc::new(wire::channel(zone, &app.tls_certificate, &app.tls_key).await.expect("let in"))
}

/// Sends these as one call's requests and gives the status that ends it, behind what was answered before.
async fn ask(client: &mut Client, method: &str, requests: Vec<Bytes>) -> (Vec<Bytes>, Status) {
    client.ready().await.expect("the connection stays");
    let path = http::uri::PathAndQuery::try_from(format!("/{method}")).expect("a path");
    let requests = Request::new(tokio_stream::iter(requests));
    let mut answers = match client.streaming(requests, path, AsItIs).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return (Vec::new(), status),
    };
    let mut before = Vec::new();
    loop {
        match soon("an answer", answers.message()).await {
            Ok(answer) => before.push(answer.unwrap_or_else(|| panic!("{method} ends without a word"))),
            Err(status) => return (before, status),
        }
    }
}

#[track_caller]
fn problem(status: &Status, method: &str) -> Problem {
    Problem::from_status(status).unwrap_or_else(|| panic!("{method}: {status:?} has no Problem"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_at_all_is_refused_by_name_in_every_call() {
    let zone = Zone::start().await;
    let mut client = client(&zone).await;
    let bound = LIMITS.commit_bundle_bytes_max + 64 * 1024;
    let (mut malformed, mut too_large) = (0, 0);
    for method in methods_of_the_contract() {
        let (_, status) = ask(&mut client, &method, vec![NO_PROTOBUF]).await;
        let found = problem(&status, &method);
        assert_eq!((found.code, &*found.field), (ReasonCode::Malformed, "request"), "{method}");
        malformed += 1;

        let (_, status) = ask(&mut client, &method, vec![vec![0; bound + 1].into()]).await;
        let found = problem(&status, &method);
        assert_eq!((found.code, found.limit, found.found), (ReasonCode::TooLarge, bound as u64, 0), "{method}");
        too_large += 1;

        if !method.starts_with("lianxin.messages.v1.Messages/") || method.ends_with("History") {
            let (_, status) = ask(&mut client, &method, vec![]).await;
            assert_eq!(problem(&status, &method).code, ReasonCode::Malformed, "{method} without a request");
            malformed += 1;
        }
    }
    drop(client);
    let bodies = zone.close().await.shared_bodies();
    let unread = |reason| {
        let of = |body: &&serde_json::Value| body["action"] == "unread-request" && body["reason"] == reason;
        bodies.iter().filter(of).count()
    };
    assert_eq!((unread("MALFORMED"), unread("TOO_LARGE")), (malformed, too_large));
    assert_eq!(bodies.iter().filter(|body| body["event"] == "refused").count(), malformed + too_large);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_before_it_is_answered_and_nothing_behind_it_is_read() {
    let zone = Zone::start().await;
    let jiwei = RawDevice::open(&zone, "jiwei", "app-1").await;
    let channel = jiwei.channel(&["jiwei"]).await;
    let mut client = client(&zone).await;
    let mut requests = Vec::new();
    for text in ["一", "二"] {
        let send = messages::Send { id: fresh_id(), channel, mls: jiwei.encrypt(channel, text).await };
        requests.push(Bytes::from(v1::SendRequest::from(send).encode_to_vec()));
    }
    requests.insert(1, NO_PROTOBUF);
    let (answers, status) = ask(&mut client, "lianxin.messages.v1.Messages/Send", requests).await;
    let answers: Vec<_> = answers.into_iter().map(|one| v1::SendResponse::decode(one).expect("of ours")).collect();
    assert!(
        matches!(&answers[..], [v1::SendResponse { outcome: Some(v1::send_response::Outcome::Receipt(_)), .. }]),
        "{answers:?}"
    );
    assert_eq!(problem(&status, "Send").code, ReasonCode::Malformed);
    assert_eq!(jiwei.log(channel, Sequence(0)).await.len(), 2, "the start, and what was said first");

    let (frames, status) = ask(&mut client, "lianxin.messages.v1.Messages/Receive", vec![NO_PROTOBUF]).await;
    let last = v1::ReceiveResponse::decode(frames.last().expect("a last frame").clone()).expect("of ours");
    let Ok(Frame::Closed { channel: None, reason }) = Frame::try_from(last) else { panic!("no reason: {frames:?}") };
    assert_eq!((reason.code, problem(&status, "Receive").code), (ReasonCode::Malformed, ReasonCode::Malformed));
    drop((jiwei, client));
    let bodies = zone.close().await.shared_bodies();
    assert_eq!(bodies.iter().filter(|body| body["action"] == "unread-request").count(), 2, "{bodies:#?}");
}
