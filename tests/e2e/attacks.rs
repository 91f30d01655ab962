//! Attacks by those who hold a good certificate, or none: each ends after a bounded number of bytes, streams or connections,
//! and an honest department goes on working meanwhile.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use lianxin_certs_dev::AppPaths;
use lianxin_connection::CallError;
use lianxin_proto::messages::{Frame, History, Receive, Send};
use lianxin_proto::{Problem, ReasonCode};
use lianxin_sdk::Channel;
use lianxin_types::{ChannelId, Clock as _, LIMITS, Sequence, SystemClock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::raw::{RawDevice, fresh_id};
use crate::talk::{create, join, receive, send, soon};
use crate::wire;
use crate::zone::Zone;

/// Two departments that talk while somebody attacks.
pub(crate) struct Honest {
    sender: Channel,
    reader: Channel,
    _clients: [lianxin_sdk::Client; 2],
}

impl Honest {
    pub(crate) async fn at(zone: &Zone) -> Self {
        let clients = [zone.client("shenji", "app-1").await, zone.client("weijian", "app-1").await];
        let sender = create(&clients[0], &["shenji", "weijian"]).await;
        let reader = join(&sender, &clients[1]).await;
        Self { sender, reader, _clients: clients }
    }

    /// Every message arrives.
    pub(crate) async fn talk(&self, count: usize) {
        for number in 0..count {
            send(&self.sender, format!("第{number}条")).await;
        }
        receive(&self.reader, count).await;
    }
}

/// The path of a call that costs the gateway least.
const CALL: &str = "http://lianxin/lianxin.key_packages.v1.KeyPackages/Count";

fn call() -> http::Request<()> {
    let request = http::Request::post(CALL).header("content-type", "application/grpc").header("te", "trailers");
    request.body(()).expect("a request")
}

/// HTTP/2 by hand as an application of jiwei.
async fn http2(zone: &Zone) -> (h2::client::SendRequest<Bytes>, tokio::task::JoinHandle<()>) {
    let app = zone.app("jiwei", "app-1");
    let stream = wire::tls(zone.address(), &app.tls_certificate, &app.tls_key).await.expect("let in");
    let (requests, connection) = h2::client::handshake(stream).await.expect("speaks HTTP/2");
    let driven = tokio::spawn(async move {
        // However it ends.
        let _end = connection.await;
    });
    (requests, driven)
}

/// Begins calls, waits a moment and gives each up; how many until the gateway ended the connection.
async fn give_up_calls_slowly(zone: &Zone) -> usize {
    let (mut requests, driven) = http2(zone).await;
    for count in 0..RESETS_TRIED {
        if driven.is_finished() {
            return count;
        }
        let Ok(ready) = requests.ready().await else { return count };
        requests = ready;
        // The request is not ended, so the gateway goes on waiting for the rest of it.
        let Ok((_answer, mut stream)) = requests.send_request(call(), false) else { return count };
        SystemClock.sleep(Duration::from_millis(3)).await;
        stream.send_reset(h2::Reason::CANCEL);
    }
    panic!("{RESETS_TRIED} calls were given up and the connection is still open");
}

/// Begins calls and gives them up in one breath, frame by frame (RFC 9113), and waits for the end of the connection.
///
/// # Errors
/// If the gateway does not let it in.
pub(crate) async fn give_up_calls_at_once(gateway: SocketAddr, app: &AppPaths) -> std::io::Result<()> {
    let stream = wire::tls(gateway, &app.tls_certificate, &app.tls_key).await?;
    let mut frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        frames.extend_from_slice(&u32::try_from(payload.len()).expect("short").to_be_bytes()[1..]);
        frames.extend_from_slice(&[kind, flags]);
        frames.extend_from_slice(&stream.to_be_bytes());
        frames.extend_from_slice(payload);
    };
    const SETTINGS: u8 = 4;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    frame(SETTINGS, 0, 0, &[]);
    for number in 0..RESETS_TRIED as u32 {
        const END_HEADERS: u8 = 4;
        const CANCEL: [u8; 4] = [0, 0, 0, 8];
        let stream = 2 * number + 1;
        frame(HEADERS, END_HEADERS, stream, &header_block());
        frame(RST_STREAM, 0, stream, &CANCEL);
    }
    let (mut reading, mut writing) = tokio::io::split(stream);
    let write = async {
        // The gateway may be gone before it has read all.
        let _cut = writing.write_all(&frames).await;
        std::future::pending::<()>().await;
    };
    let read = async {
        let mut buffer = [0; 4_096];
        while matches!(reading.read(&mut buffer).await, Ok(1..)) {}
    };
    tokio::select! {
        () = write => {}
        () = read => {}
    }
    Ok(())
}

/// The headers of a call (RFC 7541, literals without indexing).
fn header_block() -> Vec<u8> {
    const METHOD_POST: u8 = 0x83;
    const SCHEME_HTTP: u8 = 0x86;
    let path = b"/lianxin.key_packages.v1.KeyPackages/Count";
    let mut block = vec![METHOD_POST, SCHEME_HTTP, 0x04, path.len() as u8];
    block.extend_from_slice(path);
    block.extend_from_slice(b"\x01\x07lianxin");
    block.extend_from_slice(b"\x0f\x10\x10application/grpc");
    block.extend_from_slice(b"\x00\x02te\x08trailers");
    block
}

const RESETS_TRIED: usize = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_up_call_after_call_loses_its_connection_fast_or_slow() {
    let zone = Zone::start().await;
    let honest = Honest::at(&zone).await;
    let attacks = async {
        give_up_calls_at_once(zone.address(), &zone.app("jiwei", "app-1")).await.expect("let in");
        give_up_calls_slowly(&zone).await
    };
    let (_, slow) = tokio::join!(honest.talk(20), soon("the end of the attacks", attacks));
    // 64 and one each second.
    assert!((64..400).contains(&slow), "{slow}");
    soon("a record", async {
        while zone.statistics().handshake_refusals.is_empty() {
            SystemClock.sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    honest.talk(5).await;
    drop(honest);
    let bodies = zone.close().await.shared_bodies();
    assert!(bodies.iter().any(|body| body["reason"] == "reset_flood"), "it is on record: {bodies:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_end_is_given_up_and_others_are_answered() {
    let zone = Zone::start_with_strength("call_seconds_max = 1").await;
    let honest = Honest::at(&zone).await;
    let (mut requests, _driven) = http2(&zone).await;
    let mut waiting = Vec::new();
    for _ in 0..LIMITS.connection_streams_max {
        requests = requests.ready().await.expect("open");
        let (answer, mut stream) = requests.send_request(call(), false).expect("sent");
        // Three of the five bytes in front of every message.
        stream.send_data(Bytes::from_static(&[0, 0, 0]), false).expect("sent");
        waiting.push((answer, stream));
    }
    honest.talk(5).await;
    for (answer, _stream) in waiting {
        let answer = soon("an end", answer).await.expect("answered");
        let status = tonic::Status::from_header_map(answer.headers()).expect("a status instead of an answer");
        assert!(Problem::from_status(&status).is_none(), "its outcome is unknown: {status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_is_ended_with_its_reason_and_holds_nobody_up() {
    let zone = Zone::start_with_strength("stall_seconds_max = 1").await;
    let [writer, slow] = zone.raws(["jiwei", "shenji"]).await;
    let channel = writer.channel(&["jiwei", "shenji"]).await;
    writer.add(channel, &slow).await;
    let (control, mut unread) = slow.connection.receive_stream();
    assert!(matches!(soon("a stream", unread.next()).await, Some(Ok(Frame::Opened { .. }))));
    control.request(Receive::Follow { channel, after: Sequence(0) }).await.expect("asked");

    let honest = Honest::at(&zone).await;
    // More than the client's window and all that the gateway keeps for it.
    let body = "纪".repeat(LIMITS.message_body_bytes_max / 3 - 100);
    for _ in 0..120 {
        let message = (fresh_id(), writer.encrypt(channel, &body).await);
        writer.send(channel, &[message]).await.remove(0).expect("accepted");
    }
    honest.talk(5).await;
    soon("the end of the stream", async {
        while zone.statistics().streams_cut_off == 0 {
            SystemClock.sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let statistics = zone.statistics();
    assert!(statistics.moved_to_catch_up > 0, "its queue was full before: {statistics:?}");
    // What HTTP/2 had for it already comes first.
    let (mut events, mut reason) = (0, None);
    loop {
        match soon("the rest", unread.next()).await {
            Some(Ok(Frame::Events(batch))) => events += batch.len(),
            Some(Ok(Frame::Closed { channel: None, reason: why })) => reason = Some(why.code),
            Some(Ok(_)) => {}
            Some(Err(CallError::Refused(problem))) => {
                assert_eq!(Some(problem.code), reason, "the status repeats it");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(reason, Some(ReasonCode::TooSlow));
    assert!(events < 100, "{events} of 120 large messages were on their way");
    // From its cursor it gets everything.
    let events = caught_up(&slow, channel).await;
    assert_eq!(events, 121, "its own commit and the messages");
    drop((writer, slow, control, unread, honest));
    crate::refusals::assert_recorded(zone, &[ReasonCode::TooSlow]).await;
}

/// Events of a channel up to the head.
async fn caught_up(device: &RawDevice, channel: ChannelId) -> usize {
    let (control, mut frames) = device.connection.receive_stream();
    control.request(Receive::Follow { channel, after: Sequence(0) }).await.expect("asked");
    let mut events = 0;
    loop {
        match soon("the stored events", frames.next()).await.expect("open").expect("a frame") {
            Frame::Events(batch) => events += batch.len(),
            Frame::CaughtUp { .. } => return events,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_ended_and_one_with_a_stream_is_not() {
    let zone = Zone::start_with_strength("idle_seconds_max = 1").await;
    let idle = zone.connect(&zone.app("jiwei", "app-1")).await.expect("connects");
    let busy = zone.connect(&zone.app("jiwei", "app-2")).await.expect("connects");
    let (_control, mut frames) = busy.receive_stream();
    assert!(matches!(soon("a stream", frames.next()).await, Some(Ok(Frame::Opened { .. }))));
    // Each look is two seconds after the last one: twice what is allowed.
    for _ in 0..2 {
        SystemClock.sleep(Duration::from_secs(2)).await;
    }
    assert!(matches!(idle.count().await, Err(CallError::Unknown { .. })), "nobody asked anything");
    busy.count().await.expect("a stream is open");
    assert!(zone.close().await.shared_bodies().iter().all(|body| body["reason"] != "idle"), "it is no fault");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_ends_and_the_sdk_comes_back() {
    let zone = Zone::start_with_strength("connection_seconds_max = 2").await;
    let honest = Honest::at(&zone).await;
    let start = SystemClock.monotonic();
    while SystemClock.monotonic().since(start) < Duration::from_secs(5) {
        honest.talk(3).await;
        SystemClock.sleep(Duration::from_millis(100)).await;
    }
    let bodies = zone.close().await.shared_bodies();
    let sessions = bodies.iter().filter(|body| body["event"] == "session-opened").count();
    assert!(sessions > 2, "each client connected again: {sessions} sessions");
}

/// A TCP connection from another address of this machine.
async fn from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((source, 0).into()).expect("loopback has many addresses");
    socket.connect(to).await.expect("the system's queue has room")
}

const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// How many of these connections the gateway has ended.
async fn ended(sockets: &mut [TcpStream]) -> usize {
    let mut ended = 0;
    for socket in sockets {
        let mut byte = [0; 1];
        let is_over = tokio::select! {
            read = socket.read(&mut byte) => matches!(read, Ok(0) | Err(_)),
            () = SystemClock.sleep(Duration::from_millis(5)) => false,
        };
        ended += usize::from(is_over);
    }
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_floods_with_connections_is_ended_unread_and_others_come_in() {
    let strength = "source_connections_burst = 16\nsource_connections_per_second = 1";
    let zone = Zone::start_with_strength(strength).await;
    let honest = Honest::at(&zone).await;
    let mut sockets = Vec::new();
    for _ in 0..200 {
        sockets.push(from(ATTACKER, zone.address()).await);
    }
    honest.talk(5).await;
    zone.connect(&zone.app("jiwei", "app-1")).await.expect("another source comes in meanwhile");
    soon("the end of the others", async { while ended(&mut sockets).await < 200 - 40 {} }).await;
    assert!(zone.statistics().handshake_refusals.values().sum::<u64>() >= 160);
    drop((honest, sockets));
    let bodies = zone.close().await.shared_bodies();
    let records = bodies.iter().filter(|body| body["reason"] == "source_flood").count();
    assert!((1..=4).contains(&records), "counted, not recorded one by one: {records}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_silent_in_its_handshakes_does_not_hold_all_places() {
    let zone = Zone::start().await;
    let mut sockets = Vec::new();
    for _ in 0..80 {
        sockets.push(from(ATTACKER, zone.address()).await);
    }
    let honest = Honest::at(&zone).await;
    honest.talk(3).await;
    soon("the end of what is over the bound", async { while ended(&mut sockets).await < 16 {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_department_has_so_many_connections_and_others_have_their_own() {
    let zone = Zone::start_with_strength("department_connections_max = 2").await;
    let first = zone.connect(&zone.app("jiwei", "app-1")).await.expect("one of two");
    let _second = zone.connect(&zone.app("jiwei", "app-2")).await.expect("two of two");
    zone.connect(&zone.app("jiwei", "app-2")).await.expect_err("one too many");
    zone.connect(&zone.app("shenji", "app-1")).await.expect("another department has its own");
    drop(first);
    soon("a place", async {
        while zone.connect(&zone.app("jiwei", "app-1")).await.is_err() {
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let bodies = zone.close().await.shared_bodies();
    assert!(bodies.iter().any(|body| body["reason"] == "department_connections_full"), "{bodies:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_too_often_waits_for_its_turn_and_its_department_alone_does() {
    // As `pace.rs` says: a burst, then so many each second.
    const BURST: usize = 512;
    const PER_SECOND: usize = 256;
    let zone = Zone::start().await;
    let honest = Honest::at(&zone).await;
    let start = SystemClock.monotonic();
    let mut flood = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let connection = zone.connect(&zone.app("jiwei", "app-1")).await.expect("connects");
        for _ in 0..LIMITS.connection_streams_max {
            let connection = connection.clone();
            flood.spawn(async move {
                for _ in 0..(BURST + 2 * PER_SECOND) / 16 {
                    // All are answered in the end: this one is not so many at once that it would wait too long.
                    connection.count().await.expect("answered");
                }
            });
        }
    }
    let flooded = async { while flood.join_next().await.is_some() {} };
    tokio::join!(honest.talk(20), soon("the end of the flood", flooded));
    let time = SystemClock.monotonic().since(start);
    assert!(time > Duration::from_millis(1_800), "two seconds' worth behind the burst came within {time:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_department_that_floods_the_committer_is_refused_its_share_and_others_are_served() {
    // A share of two units.
    let zone = Zone::start_with_strength("queue_units_max = 8").await;
    let honest = Honest::at(&zone).await;
    let flooder = RawDevice::open(&zone, "jiwei", "app-1").await;
    let channel = flooder.channel(&["jiwei"]).await;
    let mut messages = Vec::new();
    for number in 0..200 {
        messages.push((fresh_id(), flooder.encrypt(channel, &format!("{number}")).await));
    }
    let flood = async {
        let (sender, mut outcomes) = flooder.connection.send_stream();
        let mut refused = 0;
        for (id, mls) in messages {
            sender.send(Send { id, channel, mls }).await.expect("sent");
        }
        for _ in 0..200 {
            let outcome = soon("an answer", outcomes.next()).await.expect("open").expect("inside the stream");
            if let Err(problem) = outcome.result {
                assert!(problem.try_again, "{problem:?}");
                refused += usize::from(problem.code == ReasonCode::ResourceExhausted);
            }
        }
        refused
    };
    let read = |_| async {
        let one = History { channel, after: Sequence(0), events_max: 1 };
        match soon("a page", flooder.connection.history(one)).await {
            Ok(_) => 0,
            Err(CallError::Refused(problem)) => usize::from(problem.code == ReasonCode::ResourceExhausted),
            Err(other) => panic!("{other:?}"),
        }
    };
    let reads = async { futures_util::future::join_all((0..50).map(read)).await.into_iter().sum::<usize>() };
    let (_, refused, unread) = tokio::join!(honest.talk(10), flood, reads);
    assert!(refused > 0 && unread > 0, "nobody has more than its share: {refused}, {unread}");
    assert!(zone.statistics().units_shed > 0);
    honest.talk(3).await;
    drop((honest, flooder));

    // No record each, and none is missing: the first of each minute, and then the count of all.
    let bodies = zone.close().await.shared_bodies();
    let mut counted = BTreeMap::new();
    for body in bodies.iter().filter(|body| body["event"] == "calls-counted" && body["reason"] == "RESOURCE_EXHAUSTED")
    {
        let (minute, count) = (body["minute"].as_u64().expect("a number"), body["count"].as_u64().expect("a number"));
        let most = counted.entry(minute).or_insert(0);
        *most = count.max(*most);
    }
    assert_eq!(counted.values().sum::<u64>(), (refused + unread) as u64, "{counted:?}");
}
