//! Key packages on their way to the gateway: what could not be published goes again as it is, what is refused goes with its keys,
//! and nothing of it grows.

use bytes::Bytes;
use lianxin_proto::ReasonCode;
use lianxin_sdk::Client;

use crate::impostor::{Impostor, Passing};
use crate::restored::in_state;
use crate::talk::{create, join, receive, send, soon, texts};
use crate::zone::Zone;

/// What the gateway has of a device that lacks nothing: 50 of one use and a last resort.
const FULL: u64 = 51;
const PUBLISH: &str = "KeyPackages/Publish";

/// The private keys in the state of shenji's application, which is closed.
async fn keys(zone: &Zone) -> u64 {
    in_state(zone, |_, tx, _| Ok(tx.mls().key_package_count()?)).await
}

/// shenji's application comes through the impostor and goes again: publishing is tried before it counts as connected.
async fn visit(zone: &Zone, impostor: &Impostor) {
    impostor.client(zone, "shenji").await.close().await.expect("closes");
}

async fn assert_can_be_invited(zone: &Zone, shenji: Client) {
    let jiwei = zone.client("jiwei", "app-1").await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    send(&at_jiwei, "请进").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["请进"]);
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
}

/// How often shenji has published, by the audit log.
async fn published(zone: Zone) -> usize {
    let bodies = zone.close().await.shared_bodies();
    let published = bodies.iter().filter(|body| body["event"] == "key-packages-published");
    published.filter(|body| body["departments"] == serde_json::json!(["shenji"])).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_disk_refuses_is_published_as_it_is_when_there_is_space() {
    let zone = Zone::start().await;
    let impostor = Impostor::before(&zone).await;
    impostor.refuse(PUBLISH, ReasonCode::DiskFull);
    for attempt in 1..=4 {
        visit(&zone, &impostor).await;
        assert_eq!(keys(&zone).await, FULL, "private keys after {attempt} attempts");
    }
    impostor.be_honest();
    visit(&zone, &impostor).await;
    assert_eq!(keys(&zone).await, FULL, "those that waited");
    let shenji = impostor.client(&zone, "shenji").await;
    assert_can_be_invited(&zone, shenji).await;
    assert_eq!(keys(&zone).await, FULL - 1, "a key is used once");
    assert_eq!(published(zone).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_good_leaves_no_private_key_behind() {
    let zone = Zone::start().await;
    let impostor = Impostor::before(&zone).await;
    impostor.refuse(PUBLISH, ReasonCode::InvalidKeyPackage);
    for attempt in 1..=3 {
        visit(&zone, &impostor).await;
        assert_eq!(keys(&zone).await, 0, "private keys after {attempt} attempts");
    }
    impostor.be_honest();
    let shenji = impostor.client(&zone, "shenji").await;
    assert_can_be_invited(&zone, shenji).await;
    assert_eq!(published(zone).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_whose_answer_is_lost_is_asked_for_again_and_counts_once() {
    let zone = Zone::start().await;
    let impostor = Impostor::before(&zone).await;
    let lost = |passing: Passing<'_>| -> Vec<Bytes> {
        if passing.method.ends_with(PUBLISH) { vec![] } else { vec![passing.message] }
    };
    impostor.lie(lost);
    for attempt in 1..=3 {
        visit(&zone, &impostor).await;
        assert_eq!(keys(&zone).await, FULL, "private keys after {attempt} attempts");
    }
    impostor.be_honest();
    let shenji = impostor.client(&zone, "shenji").await;
    let left = soon("a count", zone.connect(&zone.app("shenji", "app-1")).await.expect("connects").count()).await;
    assert_eq!(left.expect("counted").one_time, 50);
    assert_can_be_invited(&zone, shenji).await;
    assert_eq!(published(zone).await, 1);
}
