//! Seats in the group that carries a broken channel on: for who was away, and where nobody gives one.

use std::time::Duration;

use lianxin_sdk::{Client, ClientError, Event, Incarnation};
use lianxin_types::{Clock as _, SystemClock};

use crate::heal::{Villain, restored};
use crate::raw::RawDevice;
use crate::talk::{create, event, join, own, receive, send, soon, texts};
use crate::zone::Zone;

/// Its invitation is in the inbox before the log has told of the group, and the application takes every invitation that it is offered.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_while_the_channel_was_carried_on_is_seated_without_its_application_being_asked() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
    let channel = join(&at_jiwei, &shenji).await.id();
    event(&shenji, "its first invitation", |event| matches!(event, Event::Invited { .. }).then_some(())).await;
    let villain = Villain::in_channel(&zone, &at_jiwei).await;
    let own_uri = shenji.device().clone();
    shenji.close().await.expect("closes");
    send(&at_jiwei, "离线时").await;
    villain.breaks(channel).await;
    restored(&jiwei).await;
    soon("its seat", async {
        while !at_jiwei.info().await.expect("a member").members.contains(&own_uri) {
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    send(&at_jiwei, "换组后").await;

    let shenji = Client::open(zone.config("shenji", "app-1")).await.expect("opens");
    let mut offered = shenji.invitations();
    let seated = event(&shenji, "the own seat", |event| match event {
        Event::ChannelRestored { .. } => Some(()),
        Event::Invited { .. } => panic!("the application is not asked"),
        _ => None,
    });
    tokio::select! {
        () = seated => {}
        invitation = offered.next() => panic!("offered: {invitation:?}"),
    }
    assert_eq!(texts(&receive(&shenji.channel(channel), 2).await), ["离线时", "换组后"], "no hole");
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    drop(villain);
    zone.close().await;
}

/// Whoever has started the group goes on in it without the others, so nobody can start another in its place.
#[tokio::test(flavor = "multi_thread")]
async fn whom_nobody_seats_tells_its_application_and_goes_on_when_it_is_invited() {
    let zone = Zone::start().await;
    let jiwei = RawDevice::open(&zone, "jiwei", "app-1").await;
    let channel = jiwei.channel(&["jiwei", "shenji", "weijian"]).await;
    let shenji = zone.client("shenji", "app-1").await;
    jiwei.seat(channel, shenji.device()).await;
    let invitation = soon("an invitation", shenji.invitations().next()).await.expect("open").expect("one");
    let at_shenji = shenji.accept(invitation).await.expect("joins");
    event(&shenji, "its first invitation", |event| matches!(event, Event::Invited { .. }).then_some(())).await;
    let villain = Villain::beside(&zone, &jiwei, channel).await;
    soon("everything read", at_shenji.info()).await.expect("a member");

    let broken = villain.breaks(channel).await;
    crate::heal::jiwei_carries_on(&zone, &jiwei, channel, broken).await;
    let other = RawDevice::open(&zone, "jiwei", "app-2").await;
    other.publish(other.key_packages(1).await).await.expect("published");
    jiwei.seat(channel, &other.uri).await;

    event(&shenji, "another group", |event| matches!(event, Event::ChannelRestarted { .. }).then_some(())).await;
    let sender = at_shenji.clone();
    let sent = tokio::spawn(async move { sender.send("等着").await });
    SystemClock.sleep(Duration::from_secs(2)).await;
    zone.clock.advance(Duration::from_secs(601));
    let missing = event(&shenji, "that nobody seats it", |event| match event {
        Event::SeatMissing { channel: of, incarnation } => Some((of, incarnation)),
        Event::Invited { .. } | Event::ChannelRestored { .. } => panic!("nobody gives it a seat"),
        _ => None,
    });
    assert_eq!(missing.await, (channel, Incarnation(1)));
    let unsent = soon("an answer", sent).await.expect("no panic");
    assert!(matches!(unsent, Err(ClientError::NotServed)), "{unsent:?}");
    let next = soon("an answer", at_shenji.send("又一句")).await;
    assert!(matches!(next, Err(ClientError::NotServed)), "at once: {next:?}");

    jiwei.seat(channel, shenji.device()).await;
    restored(&shenji).await;
    send(&at_shenji, "到了").await;
    // What was stored has gone before it.
    assert_eq!(texts(&own(&at_shenji, 3).await), ["等着", "又一句", "到了"]);
    shenji.close().await.expect("closes");
    drop((villain, jiwei, other));
    zone.close().await;
}
