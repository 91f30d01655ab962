//! Devices that were away: for long, without a certificate, without key packages, without their seat. `gateway/KEYS.md` has the
//! table of what becomes of each.

use std::time::Duration;

use lianxin_sdk::{Client, ClientError, Event, Sequence};
use lianxin_types::{Clock as _, SystemClock};

use crate::leaf_care::use_up;
use crate::removals::later;
use crate::talk::{accept, create, event, join, receive, send, soon, texts};
use crate::zone::Zone;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The zone so many days later, in steps in which the first application of jiwei gets new certificates and is opened.
async fn days_later(mut zone: Zone, days: u32) -> Zone {
    let mut left = days;
    while left > 0 {
        let step = left.min(20);
        zone = later(zone, step * DAY).await;
        zone.minted.at(zone.clock.now()).renew_app("jiwei", "app-1").expect("issued");
        let jiwei = Client::open(zone.config("jiwei", "app-1")).await.expect("opens");
        for channel in jiwei.channels().await.expect("readable") {
            let before = channel.info().await.expect("a member").epoch;
            soon("the renewal of its own leaf", async {
                while channel.info().await.expect("a member").epoch == before {
                    SystemClock.sleep(Duration::from_millis(20)).await;
                }
            })
            .await;
            send(&channel, "还在").await;
        }
        jiwei.close().await.expect("closes");
        left -= step;
    }
    zone
}

#[tokio::test(flavor = "multi_thread")]
async fn ninety_days_offline_it_has_lost_its_seat_and_keeps_what_it_read() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let channel = join(&at_jiwei, &shenji).await.id();
    send(&at_jiwei, "走之前").await;
    assert_eq!(texts(&receive(&shenji.channel(channel), 1).await), ["走之前"]);
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    let zone = days_later(zone, 90).await;
    zone.minted.at(zone.clock.now()).renew_app("shenji", "app-1").expect("issued");
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    event(&shenji, "the end of its seat", |event| match event {
        Event::Removed { .. } | Event::ChannelGone { .. } => Some(()),
        _ => None,
    })
    .await;
    let at_shenji = shenji.channel(channel);
    let history = at_shenji.history(Sequence(0), 10).await.expect("readable");
    assert_eq!(texts(&history)[0], "走之前");
    let refused = soon("a refusal", at_shenji.send("还能说吗")).await.expect_err("it has no seat");
    assert!(matches!(refused, ClientError::NotMember | ClientError::NotServed), "{refused:?}");
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    zone.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ended_while_it_was_offline_is_told_and_a_new_one_brings_everything_back() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let channel = join(&at_jiwei, &shenji).await.id();
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    let zone = days_later(zone, 36).await;
    let shenji = Client::open(zone.config("shenji", "app-1")).await.expect("opens");
    let error = soon("a refusal", shenji.connected()).await.expect_err("its certificate is over");
    let ClientError::CertificateEnded { ended, own } = error else { panic!("{error:?}") };
    assert!(own > ended.plus(5 * DAY) && own < ended.plus(7 * DAY));
    event(&shenji, "the end", |event| match event {
        Event::CertificateEnded { .. } => Some(()),
        _ => None,
    })
    .await;
    // It is stored, and goes when it can; whoever sent it need not wait.
    // It is stored, and goes when it can; whoever sent it need not wait.
    let waiting = shenji.channel(channel);
    tokio::select! {
        sent = waiting.send("写在断线时") => panic!("{sent:?}"),
        () = SystemClock.sleep(Duration::from_secs(1)) => {}
    }
    shenji.close().await.expect("closes");

    zone.minted.at(zone.clock.now()).renew_app("shenji", "app-1").expect("issued");
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    assert_eq!(texts(&receive(&shenji.channel(channel), 2).await), ["还在", "还在"], "what came meanwhile");
    assert_eq!(texts(&receive(&jiwei.channel(channel), 1).await), ["写在断线时"], "what waited");
    assert_eq!(jiwei.channel(channel).info().await.expect("a member").members.len(), 2);
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    zone.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_package_left_it_is_invited_by_everybody_all_the_same() {
    let zone = Zone::start().await;
    let shenji = zone.client("shenji", "app-1").await;
    let owner = shenji.device().clone();
    shenji.close().await.expect("closes");
    use_up(&zone, &owner).await;
    let mut inviters = Vec::new();
    for name in ["jiwei", "weijian"] {
        let client = zone.client(name, "app-1").await;
        let channel = create(&client, &[name, "shenji"]).await;
        soon("an invite", channel.invite(std::slice::from_ref(&owner))).await.expect("invited by the last resort");
        inviters.push((client, channel));
    }
    let shenji = zone.client("shenji", "app-1").await;
    for _ in &inviters {
        let joined = accept(&shenji).await;
        send(&joined, "到了").await;
    }
    for (client, channel) in inviters {
        assert_eq!(texts(&receive(&channel, 1).await), ["到了"]);
        client.close().await.expect("closes");
    }
    shenji.close().await.expect("closes");
    zone.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_while_it_was_offline_it_is_told_so_and_keeps_its_history() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let channel = join(&at_jiwei, &shenji).await.id();
    send(&at_jiwei, "读过的").await;
    assert_eq!(texts(&receive(&shenji.channel(channel), 1).await), ["读过的"]);
    let device = shenji.device().clone();
    shenji.close().await.expect("closes");
    send(&at_jiwei, "移除前").await;
    soon("a removal", at_jiwei.remove(std::slice::from_ref(&device))).await.expect("removed");
    send(&at_jiwei, "移除后").await;

    let shenji = zone.client("shenji", "app-1").await;
    // A gateway gives nothing of a channel to who has no seat in it, so not the commit that took it either.
    event(&shenji, "the end of its seat", |event| match event {
        Event::ChannelGone { channel: gone, .. } => (gone == channel).then_some(()),
        _ => None,
    })
    .await;
    let at_shenji = shenji.channel(channel);
    let history = at_shenji.history(Sequence(0), 10).await.expect("readable");
    assert_eq!(texts(&history), ["读过的"], "what it had, and nothing else");
    let refused = soon("a refusal", at_shenji.send("还能说吗")).await.expect_err("it has no seat");
    assert!(matches!(refused, ClientError::NotServed), "{refused:?}");
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    zone.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_and_invited_again_while_it_was_offline_nobody_waits_for_what_it_had_to_say_before() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let channel = join(&at_jiwei, &shenji).await.id();
    let devices = [shenji.device().clone()];
    shenji.close().await.expect("closes");
    soon("a removal", at_jiwei.remove(&devices)).await.expect("removed");
    send(&at_jiwei, "移除后").await;
    soon("an invite", at_jiwei.invite(&devices)).await.expect("invited again");

    let shenji = Client::open(zone.config("shenji", "app-1")).await.expect("opens");
    let before =
        soon("an answer", shenji.channel(channel).send("旧席位的话")).await.expect_err("it is of the old seat");
    assert!(matches!(before, ClientError::NotServed), "{before:?}");
    event(&shenji, "why", |event| match event {
        Event::ChannelGone { channel: gone, .. } => (gone == channel).then_some(()),
        Event::AwayTooLong { .. } => panic!("it does not go back past an invitation"),
        _ => None,
    })
    .await;
    let at_shenji = accept(&shenji).await;
    send(&at_shenji, "新席位的话").await;
    assert_eq!(texts(&receive(&at_jiwei, 1).await), ["新席位的话"], "and nothing of the old one");
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    zone.close().await;
}
