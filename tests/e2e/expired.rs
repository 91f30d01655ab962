//! A trust bundle past its end: what was agreed goes on, and nobody comes in or back before there is a newer one (PROTOCOL 9).

use std::time::Duration;

use lianxin_sdk::{Client, ClientError, Event};
use lianxin_trust::BUNDLE_LIFETIME;
use lianxin_types::{Clock as _, SystemClock, Timestamp};

use crate::heal::{Villain, restored};
use crate::restored::lose_the_group;
use crate::talk::{create, departments, event, join, label, receive, send, soon, texts};
use crate::zone::Zone;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The gateway has the next bundle, which was made at `made`.
async fn succeed(zone: &Zone, made: Timestamp) {
    zone.minted.at(made).succeed(|_| ()).expect("signed");
    zone.reload().await.expect("taken over");
}

async fn expire(zone: &Zone) {
    succeed(zone, SystemClock.now().minus(BUNDLE_LIFETIME + DAY)).await;
}

/// Waits until the application is told of the end, and looks on for a while.
async fn told_and_left(client: &Client, unwanted: impl Fn(&Event) -> bool) {
    let mut events = client.events();
    let mut told = 0;
    let watch = async {
        loop {
            let event = events.next().await.expect("open").expect("readable");
            assert!(!unwanted(&event), "{event:?}");
            told += usize::from(matches!(event, Event::TrustExpired { ended } if ended < SystemClock.now()));
        }
    };
    tokio::select! {
        () = watch => {}
        () = SystemClock.sleep(Duration::from_secs(4)) => {}
    }
    assert_eq!(told, 1, "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_lost_its_group_comes_back_when_there_is_a_trust_bundle_again() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let channel = join(&at_jiwei, &shenji).await.id();
    shenji.close().await.expect("closes");
    lose_the_group(&zone, channel).await;
    expire(&zone).await;
    send(&at_jiwei, "照常").await;

    let shenji = zone.client("shenji", "app-1").await;
    let back = |event: &Event| matches!(event, Event::MemberRejoined { .. });
    told_and_left(&shenji, back).await;
    let refused = soon("an answer", shenji.create(label(), &departments(&["shenji"]))).await.map(drop);
    assert!(matches!(refused, Err(ClientError::TrustExpired)), "{refused:?}");
    succeed(&zone, SystemClock.now()).await;
    event(&shenji, "the way back", |event| back(&event).then_some(())).await;
    send(&shenji.channel(channel), "回来了").await;
    assert_eq!(texts(&receive(&at_jiwei, 1).await), ["回来了"]);
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    zone.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seat_is_taken_when_there_is_a_trust_bundle_again() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
    let channel = join(&at_jiwei, &shenji).await.id();
    event(&shenji, "its first invitation", |event| matches!(event, Event::Invited { .. }).then_some(())).await;
    let villain = Villain::in_channel(&zone, &at_jiwei).await;
    let own = shenji.device().clone();
    shenji.close().await.expect("closes");
    villain.breaks(channel).await;
    restored(&jiwei).await;
    soon("its seat", async {
        while !at_jiwei.info().await.expect("a member").members.contains(&own) {
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    expire(&zone).await;

    let shenji = zone.client("shenji", "app-1").await;
    told_and_left(&shenji, |event| matches!(event, Event::ChannelRestored { .. })).await;
    succeed(&zone, SystemClock.now()).await;
    restored(&shenji).await;
    send(&at_jiwei, "坐下了").await;
    assert_eq!(texts(&receive(&shenji.channel(channel), 1).await), ["坐下了"]);
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    drop(villain);
    zone.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_channel_goes_on_in_another_group_when_there_is_a_trust_bundle_again() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    let villain = Villain::in_channel(&zone, &at_jiwei).await;
    soon("everything read", at_shenji.info()).await.expect("a member");
    expire(&zone).await;
    for client in [&jiwei, &shenji] {
        soon("the bundle", async {
            while client.bundle_version() < 2 {
                SystemClock.sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
    villain.breaks(at_jiwei.id()).await;
    let on = |event: &Event| matches!(event, Event::ChannelRestarted { .. } | Event::MemberRejoined { .. });
    told_and_left(&jiwei, on).await;
    succeed(&zone, SystemClock.now()).await;
    for client in [&jiwei, &shenji] {
        restored(client).await;
    }
    send(&at_jiwei, "又好了").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["又好了"]);
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    drop(villain);
    zone.close().await;
}
