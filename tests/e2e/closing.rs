//! Streams that the gateway ends: because their caller is none any more, because trust was replaced, because their client
//! does not read. Each learns the reason, and the others go on.

use std::time::Duration;

use bytes::Bytes;
use lianxin_connection::{CallError, Connection, FrameStream, OutcomeStream, ReceiveControl, SendStream};
use lianxin_proto::ReasonCode;
use lianxin_proto::messages::{Frame, Send};
use lianxin_sdk::Event;
use lianxin_types::{ChannelId, Clock as _, Digest, SystemClock};

use crate::raw::fresh_id;
use crate::talk::{create, join, receive, send, soon, texts};
use crate::zone::Zone;

const INVENTED: ChannelId = ChannelId([0xEE; 16]);

/// Both streams of a device, open and silent.
struct Open {
    connection: Connection,
    _sends: SendStream,
    outcomes: OutcomeStream,
    _control: ReceiveControl,
    frames: FrameStream,
    /// What the first frame said of the trust bundle.
    bundle: Digest,
}

impl Open {
    async fn of(zone: &Zone, department: &str, name: &str) -> Self {
        let connection = zone.connect(&zone.app(department, name)).await.expect("connects");
        let (sends, mut outcomes) = connection.send_stream();
        let (control, mut frames) = connection.receive_stream();
        let bundle = opened(&mut frames).await;
        // The call is made by the first look at its answers, and an answer says that it is open.
        let nonsense = Send { id: fresh_id(), channel: INVENTED, mls: Bytes::from_static(b"x") };
        sends.send(nonsense).await.expect("sent");
        soon("an answer", outcomes.next()).await.expect("open").expect("inside the stream");
        Self { connection, _sends: sends, outcomes, _control: control, frames, bundle }
    }

    /// Why the Receive stream ended: by its last frame, which the status must repeat.
    async fn receive_ends(&mut self) -> ReasonCode {
        soon("the end of the Receive stream", last_words(&mut self.frames)).await
    }

    /// Why the Send stream ended.
    async fn send_ends(&mut self) -> ReasonCode {
        match soon("the end of the Send stream", self.outcomes.next()).await {
            Some(Err(CallError::Refused(problem))) => problem.code,
            other => panic!("{other:?}"),
        }
    }

    /// Ready when the connection is gone.
    async fn is_cut(&self) {
        soon("the end of the connection", async {
            while !matches!(self.connection.count().await, Err(CallError::Unknown { .. })) {
                SystemClock.sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

async fn opened(frames: &mut FrameStream) -> Digest {
    match soon("a stream", frames.next()).await.expect("open").expect("opens") {
        Frame::Opened { bundle_digest, .. } => bundle_digest,
        other => panic!("{other:?}"),
    }
}

async fn last_words(frames: &mut FrameStream) -> ReasonCode {
    let reason = loop {
        if let Frame::Closed { channel: None, reason } = frames.next().await.expect("a reason").expect("a frame") {
            break reason.code;
        }
    };
    match frames.next().await {
        Some(Err(CallError::Refused(problem))) => assert_eq!(problem.code, reason, "the status repeats it"),
        other => panic!("{other:?}"),
    }
    reason
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_streams_of_a_revoked_device_end_at_once_with_the_reason_and_so_does_its_connection() {
    let zone = Zone::start().await;
    let mut revoked = Open::of(&zone, "jiwei", "app-1").await;
    let mut other = Open::of(&zone, "shenji", "app-1").await;
    zone.minted.revoke_app("jiwei", "app-1").expect("revoked");
    zone.reload().await.expect("taken over");
    assert_eq!(revoked.receive_ends().await, ReasonCode::CertificateRevoked);
    assert_eq!(revoked.send_ends().await, ReasonCode::CertificateRevoked);
    revoked.is_cut().await;

    assert_eq!(other.receive_ends().await, ReasonCode::TrustChanged);
    let sends_on = tokio::select! {
        end = other.outcomes.next() => panic!("{end:?}"),
        count = other.connection.count() => count,
    };
    sends_on.expect("its connection and its Send stream go on");
    let bodies = {
        drop((revoked, other));
        zone.close().await.shared_bodies()
    };
    let ended =
        bodies.iter().filter(|body| body["reason"] == "CERTIFICATE_REVOKED" && body["event"] == "refused").count();
    assert_eq!(ended, 2, "one record for each stream: {bodies:#?}");
    assert!(bodies.iter().any(|body| body["reason"] == "certificate_revoked"), "and one for the connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_streams_end_with_the_certificate_of_their_caller() {
    let zone = Zone::start().await;
    // Made nearly thirty days ago.
    const LEAF_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
    let before = LEAF_LIFETIME - Duration::from_secs(8);
    let old = zone.minted.at(SystemClock.now().minus(before)).mint_app("jiwei", "app-old").expect("issued");
    assert_eq!(old, zone.app("jiwei", "app-old"));
    let mut ending = Open::of(&zone, "jiwei", "app-old").await;
    assert_eq!(ending.receive_ends().await, ReasonCode::CertificateExpired);
    assert_eq!(ending.send_ends().await, ReasonCode::CertificateExpired);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_bundle_ends_receive_streams_and_the_sdk_comes_back_with_it() {
    let zone = Zone::start().await;
    let (jiwei, shenji) = (zone.client("jiwei", "app-1").await, zone.client("shenji", "app-1").await);
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    let mut watching = Open::of(&zone, "weijian", "app-1").await;

    let newer = zone.minted.set_endpoint("127.0.0.1", zone.address().port()).expect("signed");
    assert_ne!(newer.digest, watching.bundle);
    let mut comings = shenji.events();
    zone.reload().await.expect("taken over");
    assert_eq!(watching.receive_ends().await, ReasonCode::TrustChanged);
    let (_control, mut again) = watching.connection.receive_stream();
    assert_eq!(opened(&mut again).await, newer.digest, "a client learns the bundle when a stream opens");

    let back = async {
        let mut is_away = false;
        loop {
            match comings.next().await.expect("open").expect("readable") {
                Event::Disconnected { refused } => {
                    assert!(refused.is_none(), "no refusal");
                    is_away = true;
                }
                Event::Connected if is_away => break,
                _ => {}
            }
        }
    };
    soon("the SDK's return", back).await;
    soon("the new bundle", async {
        while shenji.bundle_version() != newer.bundle.version {
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    send(&at_jiwei, "新信任包之后").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["新信任包之后"]);
}
