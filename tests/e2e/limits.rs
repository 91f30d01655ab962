//! The limits of PROTOCOL 12 over the wire: let through at the bound, refused one over, by name. Members, invites and
//! departments per channel stand at their bounds in the policy's own tests, channels per device in the store's.

use std::time::Duration;

use bytes::Bytes;
use lianxin_connection::{CallError, Connection, FrameStream, OutcomeStream, ReceiveControl, SendStream};
use lianxin_proto::channels::Commit;
use lianxin_proto::key_packages::{Claim, Publish};
use lianxin_proto::messages::{Frame, Send};
use lianxin_proto::{Problem, ReasonCode};
use lianxin_types::{ChannelId, Clock as _, LIMITS, SystemClock};

use crate::raw::{RawDevice, fresh_id};
use crate::talk::soon;
use crate::zone::Zone;

const INVENTED: ChannelId = ChannelId([0xEE; 16]);

fn problem<T: std::fmt::Debug>(answer: Result<T, CallError>) -> Problem {
    match answer {
        Err(CallError::Refused(problem)) => problem,
        other => panic!("not refused: {other:?}"),
    }
}

#[track_caller]
fn assert_too_large(problem: &Problem, limit: usize) {
    let found = (problem.code, problem.limit, problem.found);
    assert_eq!(found, (ReasonCode::TooLarge, limit as u64, limit as u64 + 1), "{problem:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_and_counts_are_let_through_at_the_bound_and_refused_one_over() {
    let zone = Zone::start().await;
    let connection = zone.connect(&zone.app("jiwei", "app-1")).await.expect("connects");

    let limit = LIMITS.message_mls_bytes_max;
    assert_eq!(send(&connection, limit).await.code, ReasonCode::ChannelNotAvailable);
    assert_too_large(&send(&connection, limit + 1).await, limit);

    let limit = LIMITS.commit_bundle_bytes_max;
    assert_eq!(commit(&connection, limit).await.code, ReasonCode::ChannelNotAvailable);
    assert_too_large(&commit(&connection, limit + 1).await, limit);

    let limit = LIMITS.invites_per_commit_max;
    assert_eq!(claim(&connection, limit).await.code, ReasonCode::ChannelNotAvailable);
    assert_too_large(&claim(&connection, limit + 1).await, limit);
}

async fn send(connection: &Connection, bytes: usize) -> Problem {
    let (sender, mut outcomes) = connection.send_stream();
    let mls = Bytes::from(vec![0; bytes]);
    sender.send(Send { id: fresh_id(), channel: INVENTED, mls }).await.expect("sent");
    let outcome = soon("an answer", outcomes.next()).await.expect("open").expect("inside the stream");
    outcome.result.expect_err("refused")
}

async fn commit(connection: &Connection, bytes: usize) -> Problem {
    let half = Bytes::from(vec![0; bytes / 2]);
    let rest = Bytes::from(vec![0; bytes - bytes / 2]);
    let commit = Commit { id: fresh_id(), channel: INVENTED, commit: half, welcome: None, group_info: rest };
    problem(soon("an answer", connection.commit(commit)).await)
}

async fn claim(connection: &Connection, owners: usize) -> Problem {
    let owner = |number| format!("lianxin://shenji/app/a{number}/1").parse().expect("well formed");
    let claim = Claim { id: fresh_id(), channel: INVENTED, owners: (0..owners).map(owner).collect() };
    problem(soon("an answer", connection.claim(claim)).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_stores_a_hundred_key_packages_and_not_one_more() {
    let zone = Zone::start().await;
    let device = RawDevice::open(&zone, "jiwei", "app-1").await;
    let made = device.key_packages(LIMITS.device_key_packages_max + 1).await;
    let connection = &device.connection;
    let publish = |packages: &[Bytes]| Publish { id: fresh_id(), key_packages: packages.to_vec(), last_resort: None };

    let all_at_once = problem(connection.publish(publish(&made)).await);
    assert_too_large(&all_at_once, LIMITS.device_key_packages_max);
    let (last, rest) = made.split_last().expect("not empty");
    connection.publish(publish(rest)).await.expect("a hundred");
    let over = problem(connection.publish(publish(std::slice::from_ref(last))).await);
    assert_eq!((over.code, over.limit), (ReasonCode::LimitReached, LIMITS.device_key_packages_max as u64));
    let count = connection.count().await.expect("counted");
    assert_eq!(count.one_time as usize, LIMITS.device_key_packages_max);

    let other = zone.connect(&zone.app("shenji", "app-1")).await.expect("connects");
    let stolen = problem(other.publish(publish(std::slice::from_ref(last))).await);
    assert_eq!(stolen.code, ReasonCode::SenderMismatch, "nobody publishes for another");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_has_four_connections_and_not_one_more() {
    let zone = Zone::start().await;
    let app = zone.app("jiwei", "app-1");
    let mut connections = Vec::new();
    for _ in 0..LIMITS.device_connections_max {
        connections.push(zone.connect(&app).await.expect("within the bound"));
    }
    zone.connect(&app).await.expect_err("one too many");
    zone.connect(&zone.app("jiwei", "app-2")).await.expect("another device has its own");
    connections.pop();
    soon("a place", async {
        while zone.connect(&app).await.is_err() {
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_has_sixteen_streams_each_way_over_all_its_connections_and_not_one_more() {
    let zone = Zone::start().await;
    let app = zone.app("jiwei", "app-1");
    let mut connections = Vec::new();
    for _ in 0..3 {
        connections.push(zone.connect(&app).await.expect("within the bound"));
    }
    let on = |number: usize| &connections[number / LIMITS.connection_streams_max as usize];

    let mut receiving = Vec::new();
    for number in 0..LIMITS.device_receive_streams_max {
        receiving.push(receive(on(number)).await.expect("within the bound"));
    }
    let refused = receive(&connections[2]).await.expect_err("one too many");
    assert_eq!((refused.code, refused.try_again), (ReasonCode::ResourceExhausted, true));
    receiving.pop();
    soon("the place of the stream that ended", async {
        while receive(&connections[2]).await.is_err() {
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    drop(receiving);

    let mut sending = Vec::new();
    for number in 0..LIMITS.device_send_streams_max {
        sending.push(sends(on(number)).await.expect("within the bound"));
    }
    let refused = sends(&connections[2]).await.expect_err("one too many");
    assert_eq!((refused.code, refused.try_again), (ReasonCode::ResourceExhausted, true));
    let other = zone.connect(&zone.app("jiwei", "app-2")).await.expect("connects");
    sends(&other).await.expect("another device has its own");

    drop((sending, connections, other));
    let bodies = zone.close().await.shared_bodies();
    let refused = bodies.iter().filter(|body| body["reason"] == "RESOURCE_EXHAUSTED");
    assert!(refused.clone().count() > 0 && refused.clone().all(|body| body["event"] == "calls-counted"));
}

type Receiving = (ReceiveControl, FrameStream);

/// An open Receive stream, or why there is none.
async fn receive(connection: &Connection) -> Result<Receiving, Problem> {
    let (control, mut frames) = connection.receive_stream();
    match soon("a stream", frames.next()).await.expect("an answer") {
        Ok(frame) => {
            assert!(matches!(frame, Frame::Opened { .. }), "{frame:?}");
            Ok((control, frames))
        }
        Err(CallError::Refused(problem)) => Err(problem),
        Err(other) => panic!("{other:?}"),
    }
}

/// An open Send stream, or why there is none; an answer inside it says that it is open.
async fn sends(connection: &Connection) -> Result<(SendStream, OutcomeStream), Problem> {
    let (sender, mut outcomes) = connection.send_stream();
    let message = Send { id: fresh_id(), channel: INVENTED, mls: Bytes::from_static(b"x") };
    sender.send(message).await.expect("the stream is not looked at yet");
    match soon("an answer", outcomes.next()).await.expect("an answer") {
        Ok(_) => Ok((sender, outcomes)),
        Err(CallError::Refused(problem)) => Err(problem),
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_eight_streams_and_the_ninth_waits() {
    let zone = Zone::start().await;
    let connection = zone.connect(&zone.app("jiwei", "app-1")).await.expect("connects");
    let mut streams = Vec::new();
    for _ in 0..LIMITS.connection_streams_max {
        let (control, mut frames) = connection.receive_stream();
        let frame = soon("a stream", frames.next()).await.expect("open").expect("opens");
        assert!(matches!(frame, Frame::Opened { .. }));
        streams.push((control, frames));
    }
    let (_control, mut ninth) = connection.receive_stream();
    tokio::select! {
        frame = ninth.next() => panic!("a ninth stream: {frame:?}"),
        () = SystemClock.sleep(Duration::from_millis(500)) => {}
    }
    streams.pop();
    let frame = soon("the place of the stream that ended", ninth.next()).await.expect("open").expect("opens");
    assert!(matches!(frame, Frame::Opened { .. }));
}
