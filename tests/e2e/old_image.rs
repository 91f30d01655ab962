//! A gateway whose disk was restored from an image that is older than what its devices have seen.

use lianxin_proto::ReasonCode;
use lianxin_sdk::{Client, ClientError, Event};
use lianxin_types::ChannelId;

use crate::quarantine::copy;
use crate::refusals::assert_recorded;
use crate::talk::{create, event, join, own, receive, send, soon, texts};
use crate::zone::Zone;

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_has_seen_more_than_the_restored_log_says_so_and_keeps_what_it_has() {
    let zone = Zone::start().await;
    let image = zone.folder("image");
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    send(&at_jiwei, "一").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["一"]);
    let zone = zone.restart_after(|stored| copy(stored, &image)).await;
    send(&at_jiwei, "二").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["二"]);
    // Both have it in their own logs, behind the echo.
    own(&at_jiwei, 2).await;

    let zone = zone
        .restart_after(|stored| {
            std::fs::remove_dir_all(stored).expect("removed");
            copy(&image, stored);
        })
        .await;
    let channel = at_jiwei.id();
    for (client, log) in [(&jiwei, &at_jiwei), (&shenji, &at_shenji)] {
        is_told(client, channel).await;
        assert_eq!(texts(&own(log, 2).await), ["一", "二"], "what was read stays");
        // Nobody waits for what may never go.
        let sent = soon("an answer", log.send("三")).await;
        assert!(matches!(sent, Err(ClientError::NotServed)), "{sent:?}");
    }
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    let bodies = assert_recorded(zone, &[ReasonCode::BadHead]).await;
    let count = |field: &str, value: &str| bodies.iter().filter(|body| body[field] == value).count();
    let (refused, opened) = (count("reason", "BAD_HEAD"), count("event", "receive-opened"));
    assert!((2..=opened).contains(&refused), "once on a stream at most: {refused} on {opened}");
}

/// The device learns that the gateway's log ends before what it has, in a word that an application can tell apart.
async fn is_told(client: &Client, channel: ChannelId) {
    let told = |event| match event {
        Event::GatewayBehind { channel: behind } => Some(behind),
        _ => None,
    };
    assert_eq!(event(client, "that the gateway is behind", told).await, channel);
}
