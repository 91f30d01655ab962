//! Who must go is not heard from the moment on at which the gateway knows it, whatever else happens then.

use lianxin_proto::ReasonCode;
use lianxin_sdk::Event;
use lianxin_trust::Usage;
use lianxin_types::{Clock as _, SystemClock};

use crate::raw::fresh_id;
use crate::refusals::assert_refused;
use crate::talk::{create, event, join, receive, send, texts};
use crate::zone::Zone;

/// More than the sweep has gone through before the first message comes.
const CHANNELS: usize = 24;

#[tokio::test(flavor = "multi_thread")]
async fn who_is_revoked_is_heard_in_no_channel_any_more_also_before_the_sweep_has_come_there() {
    let zone = Zone::start().await;
    let [jiwei, weijian] = zone.raws(["jiwei", "weijian"]).await;
    let mut channels = Vec::new();
    for _ in 0..CHANNELS {
        let channel = jiwei.channel(&["jiwei", "weijian"]).await;
        jiwei.add(channel, &weijian).await;
        let doomed = weijian.encrypt(channel, "还在").await;
        channels.push((channel, doomed, jiwei.encrypt(channel, "太早").await));
    }
    // Only the MLS certificate is revoked: the device still gets in. The sweep begins with the lowest channel.
    channels.sort_by_key(|(channel, ..)| std::cmp::Reverse(channel.0));
    zone.revoke(&zone.app("weijian", "app-1").mls_certificate, Usage::Mls);
    zone.reload().await.expect("a newer list");
    for (channel, doomed, early) in channels {
        assert_refused(&weijian.send(channel, &[(fresh_id(), doomed)]).await[0], ReasonCode::Leaving);
        assert_refused(&jiwei.send(channel, &[(fresh_id(), early)]).await[0], ReasonCode::PendingRemoves);
    }
    drop((jiwei, weijian));
    let bodies = zone.close().await.shared_bodies();
    assert_eq!(bodies.iter().filter(|body| body["event"] == "removal-queued").count(), CHANNELS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_had_to_wait_for_a_rotated_key_is_asked_for_as_soon_as_the_channel_names_it() {
    let zone = Zone::start().await;
    let [jiwei, shenji, weijian] = zone.clients(["jiwei", "shenji", "weijian"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    join(&at_jiwei, &weijian).await;
    let gone = weijian.device().clone();
    // In one step the gateway gets another key and learns that a member must go, while the channel still names the old key.
    zone.minted.at(SystemClock.now()).rotate_removal_key().expect("rotated");
    zone.revoke(&zone.app("weijian", "app-1").mls_certificate, Usage::Mls);
    zone.reload().await.expect("taken over");
    event(&shenji, "the removal", |event| match event {
        Event::MemberLeft { device, .. } if device == gone => Some(()),
        _ => None,
    })
    .await;
    send(&at_jiwei, "两方继续").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["两方继续"]);
    for client in [jiwei, shenji, weijian] {
        client.close().await.expect("closes");
    }
    zone.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_must_go_and_cannot_be_asked_for_yet_keeps_nobody_from_coming_back_and_is_not_heard() {
    let zone = Zone::start().await;
    let [jiwei, shenji, weijian] = zone.raws(["jiwei", "shenji", "weijian"]).await;
    let channel = jiwei.channel(&["jiwei", "shenji", "weijian"]).await;
    jiwei.add(channel, &shenji).await;
    jiwei.add(channel, &weijian).await;
    shenji.read(channel).await;
    let doomed = weijian.encrypt(channel, "还在").await;
    zone.minted.at(SystemClock.now()).rotate_removal_key().expect("rotated");
    zone.revoke(&zone.app("weijian", "app-1").mls_certificate, Usage::Mls);
    zone.reload().await.expect("taken over");

    assert_refused(&weijian.send(channel, &[(fresh_id(), doomed)]).await[0], ReasonCode::Leaving);
    shenji.lose(channel).await;
    shenji.rejoin(channel).await;
    jiwei.read(channel).await;
    assert_eq!(jiwei.view(channel).await.epoch, shenji.view(channel).await.epoch);
    drop((jiwei, shenji, weijian));
    zone.close().await;
}
