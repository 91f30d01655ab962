//! Calls that put no event of theirs behind another into a log (start, publish, claim): copies at once, and a copy after the
//! answer was lost and the gateway has forgotten all that was only in its memory. Each is accepted once, and all copies get
//! the one receipt (PROTOCOL 7).

use bytes::Bytes;
use lianxin_connection::{CallError, Connection};
use lianxin_proto::channels::{Create, List};
use lianxin_proto::key_packages::{Claim, Claimed, Publish};
use lianxin_proto::{ReasonCode, Receipt};
use lianxin_types::{ChannelId, DeviceUri, LIMITS, Random, SystemRandom};
use serde_json::Value;

use crate::effort::share;
use crate::line::in_vain;
use crate::raw::{RawDevice, fresh_id};
use crate::talk::{label, soon};
use crate::zone::Zone;

/// Five copies at once, over two connections of the same device, as where one is only believed to be lost.
async fn five<T>(one: &Connection, other: &Connection, ask: impl AsyncFn(&Connection) -> T) -> [T; 5] {
    let copies = async { tokio::join!(ask(one), ask(other), ask(other), ask(one), ask(other)) };
    let (first, second, third, fourth, fifth) = soon("five answers", copies).await;
    [first, second, third, fourth, fifth]
}

/// All copies got the receipt of one audit leaf, which is given.
#[track_caller]
fn assert_one(receipts: &[Receipt]) -> Receipt {
    for receipt in receipts {
        assert_eq!(
            (receipt.sequence, receipt.leaf_index, receipt.leaf_hash, receipt.gateway_time),
            (receipts[0].sequence, receipts[0].leaf_index, receipts[0].leaf_hash, receipts[0].gateway_time)
        );
    }
    receipts[0]
}

fn all<T: std::fmt::Debug, E: std::fmt::Debug>(answers: impl IntoIterator<Item = Result<T, E>>) -> Vec<T> {
    answers.into_iter().map(|answer| answer.expect("the one receipt")).collect()
}

fn fresh_channel() -> ChannelId {
    ChannelId((&SystemRandom as &dyn Random).array())
}

/// So many records of `event`, and nobody was refused `action`.
fn assert_recorded(bodies: &[Value], event: &str, action: &str, count: usize) {
    assert_eq!(bodies.iter().filter(|body| body["event"] == event).count(), count, "{event}");
    let refused: Vec<_> = bodies.iter().filter(|body| body["event"] == "refused" && body["action"] == action).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

async fn channels_of(device: &RawDevice) -> usize {
    device.connection.list(List::default()).await.expect("a page").channels.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_started_many_times_at_once_is_there_once() {
    let zone = Zone::start().await;
    let [jiwei] = zone.raws(["jiwei"]).await;
    let other = zone.connect(&zone.app("jiwei", "app-1")).await.expect("connects");
    let rounds = share(5, 100);
    for round in 1..=rounds {
        let bundle = jiwei.start(fresh_channel(), &["jiwei", "shenji"], label()).await;
        let (id, group_info) = (fresh_id(), Bytes::from(bundle.group_info));
        let ratchet_tree = Bytes::from(bundle.ratchet_tree);
        let create = || Create { id, group_info: group_info.clone(), ratchet_tree: ratchet_tree.clone() };
        let answers = five(&jiwei.connection, &other, async |connection| connection.create(create()).await).await;
        assert_one(&all(answers));
        assert_eq!(channels_of(&jiwei).await, round);
    }
    drop((jiwei, other));
    assert_recorded(&zone.close().await.shared_bodies(), "channel-started", "create-channel", rounds);
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_that_are_published_many_times_at_once_are_there_once() {
    let zone = Zone::start().await;
    let [shenji] = zone.raws(["shenji"]).await;
    let other = zone.connect(&zone.app("shenji", "app-1")).await.expect("connects");
    let rounds = share(5, 20);
    for round in 1..=rounds {
        let (id, key_packages) = (fresh_id(), shenji.key_packages(4).await);
        let publish = || Publish { id, key_packages: key_packages.clone(), last_resort: None };
        let answers = five(&shenji.connection, &other, async |connection| connection.publish(publish()).await).await;
        assert_one(&all(answers));
        assert_eq!(shenji.connection.count().await.expect("counted").one_time as usize, 4 * round);
    }
    drop((shenji, other));
    assert_recorded(&zone.close().await.shared_bodies(), "key-packages-published", "publish-key-packages", rounds);
}

/// Asks in vain until the device's minute has room for one more.
async fn use_up_the_minute(device: &RawDevice, channel: ChannelId, used: usize) {
    let mut left = LIMITS.device_claims_per_minute_max - 1 - used;
    while left > 0 {
        let count = left.min(LIMITS.invites_per_commit_max);
        let nobody =
            |number| -> DeviceUri { format!("lianxin://jiwei/app/nobody-{number}/1").parse().expect("a name") };
        let claim = Claim { id: fresh_id(), channel, owners: (0..count).map(nobody).collect() };
        let Err(CallError::Refused(problem)) = device.connection.claim(claim).await else { panic!("nobody is there") };
        assert_eq!(problem.code, ReasonCode::NoKeyPackage);
        left -= count;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_comes_many_times_at_once_takes_one_package_and_counts_once() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.raws(["jiwei", "shenji"]).await;
    let channel = jiwei.channel(&["jiwei", "shenji"]).await;
    let other = zone.connect(&zone.app("jiwei", "app-1")).await.expect("connects");
    shenji.publish(shenji.key_packages(10).await).await.expect("published");
    let owners = vec![shenji.uri.clone()];
    let rounds = 5;
    for round in 1..=rounds {
        if round == rounds {
            use_up_the_minute(&jiwei, channel, rounds - 1).await;
        }
        let id = fresh_id();
        let claim = || Claim { id, channel, owners: owners.clone() };
        let answers = five(&jiwei.connection, &other, async |connection| connection.claim(claim()).await).await;
        let claimed: Vec<Claimed> = all(answers);
        assert!(claimed.iter().all(|one| one.key_packages.len() == 1 && one.key_packages == claimed[0].key_packages));
        assert_one(&claimed.into_iter().map(|one| one.receipt).collect::<Vec<_>>());
        assert_eq!(shenji.connection.count().await.expect("counted").one_time as usize, 10 - round);
    }
    // The minute is full now, so the last round's copies did go past it.
    let refused = jiwei.claim(channel, &shenji.uri).await.expect_err("one too many");
    assert_eq!(refused.code, ReasonCode::ResourceExhausted);
    drop((jiwei, shenji, other));
    let bodies = zone.close().await.shared_bodies();
    assert_eq!(bodies.iter().filter(|body| body["event"] == "key-packages-claimed").count(), rounds);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_whose_answers_were_lost_are_answered_after_a_restart() {
    let zone = Zone::start().await;
    let [mut jiwei, mut shenji] = zone.raws(["jiwei", "shenji"]).await;
    let (jiwei_app, shenji_app) = (zone.app("jiwei", "app-1"), zone.app("shenji", "app-1"));

    let channel = fresh_channel();
    let bundle = jiwei.start(channel, &["jiwei", "shenji"], label()).await;
    let (group_info, ratchet_tree) = (Bytes::from(bundle.group_info), Bytes::from(bundle.ratchet_tree));
    let create = Create { id: fresh_id(), group_info, ratchet_tree };
    let ask = async |connection: Connection| connection.create(create.clone()).await;
    in_vain(&zone, &jiwei_app, ask, async || channels_of(&jiwei).await == 1).await;

    let publish = Publish { id: fresh_id(), key_packages: shenji.key_packages(3).await, last_resort: None };
    let ask = async |connection: Connection| connection.publish(publish.clone()).await;
    let left = async |device: &RawDevice| device.connection.count().await.expect("counted").one_time;
    in_vain(&zone, &shenji_app, ask, async || left(&shenji).await == 3).await;

    let claim = Claim { id: fresh_id(), channel, owners: vec![shenji.uri.clone()] };
    let ask = async |connection: Connection| connection.claim(claim.clone()).await;
    in_vain(&zone, &jiwei_app, ask, async || left(&shenji).await == 2).await;

    let zone = zone.restart().await;
    jiwei.reconnect(&zone, "jiwei", "app-1").await;
    shenji.reconnect(&zone, "shenji", "app-1").await;
    let other = zone.connect(&jiwei_app).await.expect("connects");
    let created = five(&jiwei.connection, &other, async |connection| connection.create(create.clone()).await).await;
    assert_eq!(assert_one(&all(created)).sequence.0, 1);
    let second = zone.connect(&shenji_app).await.expect("connects");
    let published =
        five(&shenji.connection, &second, async |connection| connection.publish(publish.clone()).await).await;
    assert_one(&all(published));
    let claimed = five(&jiwei.connection, &other, async |connection| connection.claim(claim.clone()).await).await;
    let claimed = all(claimed);
    assert!(claimed.iter().all(|one| one.key_packages == claimed[0].key_packages));
    assert!(publish.key_packages.contains(&claimed[0].key_packages[0]), "one of those that were published");
    assert_one(&claimed.into_iter().map(|one| one.receipt).collect::<Vec<_>>());
    assert_eq!((channels_of(&jiwei).await, left(&shenji).await), (1, 2));

    drop((jiwei, shenji, other, second));
    let bodies = zone.close().await.shared_bodies();
    assert_recorded(&bodies, "channel-started", "create-channel", 1);
    assert_recorded(&bodies, "key-packages-published", "publish-key-packages", 1);
    assert_recorded(&bodies, "key-packages-claimed", "claim-key-packages", 1);
}
