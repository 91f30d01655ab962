//! What the SDK looks after by itself: the keys of its leaf, and its clock.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lianxin_connection::CallError;
use lianxin_harness::Line;
use lianxin_proto::ReasonCode;
use lianxin_proto::key_packages::Claim;
use lianxin_sdk::{Client, Config, Epoch, Event, LeafCare};
use lianxin_types::{Clock as _, DeviceUri, SystemClock};

use crate::raw::{RawDevice, fresh_id};
use crate::restored::in_state;
use crate::talk::{accept, create, join, receive, send, soon, texts};
use crate::zone::{MovedClock, Zone};

/// Takes every one-time key package of `owner`: one department may have 32 that it does not use, so it takes two.
pub(crate) async fn use_up(zone: &Zone, owner: &DeviceUri) {
    let mut last = Bytes::new();
    for department in ["jiwei", "weijian"] {
        let raw = RawDevice::open(zone, department, "app-2").await;
        let channel = raw.channel(&[department, "shenji"]).await;
        loop {
            let claim = Claim { id: fresh_id(), channel, owners: vec![owner.clone()] };
            match soon("an answer", raw.connection.claim(claim)).await {
                // It is the last resort that comes again and again.
                Ok(claimed) if claimed.key_packages[0] == last => return,
                Ok(claimed) => last = claimed.key_packages[0].clone(),
                Err(CallError::Refused(problem)) if problem.code == ReasonCode::LimitReached => break,
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    panic!("the last resort never came");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_invited_by_its_last_resort_has_keys_of_its_own_before_it_says_anything() {
    let zone = Zone::start().await;
    let shenji = zone.client("shenji", "app-1").await;
    let owner = shenji.device().clone();
    // Nobody publishes new ones while it is away.
    shenji.close().await.expect("closes");
    use_up(&zone, &owner).await;

    let jiwei = zone.client("jiwei", "app-1").await;
    let channel = create(&jiwei, &["jiwei", "shenji"]).await;
    soon("an invite", channel.invite(std::slice::from_ref(&owner))).await.expect("invited by the last resort");
    let before = channel.info().await.expect("a member").epoch;
    let shenji = zone.client("shenji", "app-1").await;
    let at_shenji = accept(&shenji).await;
    send(&at_shenji, "用自己的钥").await;
    assert_eq!(texts(&receive(&channel, 1).await), ["用自己的钥"]);
    assert_eq!(channel.info().await.expect("a member").epoch, Epoch(before.0 + 1), "it committed first");

    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    // And the last resort that others know has been replaced by another.
    let bodies = zone.close().await.shared_bodies();
    let published = bodies.iter().filter(|body| body["event"] == "key-packages-published");
    let of_shenji = published.filter(|body| body["departments"] == serde_json::json!(["shenji"]));
    let last_resorts: Vec<_> = of_shenji.map(|body| body["last_resort"].as_bool().expect("said")).collect();
    assert_eq!(last_resorts.iter().filter(|is_there| **is_there).count(), 2, "{last_resorts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_is_told_with_both_times_and_one_that_is_right_is_not() {
    const AHEAD: Duration = Duration::from_secs(600);
    let zone = Zone::start().await;
    for (ahead, expect) in [(AHEAD, true), (Duration::from_secs(20), false)] {
        let clock = Arc::new(MovedClock::default());
        clock.advance(ahead);
        let client = Client::open(Config { clock, ..zone.config("jiwei", "app-1") }).await.expect("opens");
        let mut events = client.events();
        soon("a connection", client.connected()).await.expect("connects");
        // The first channel that is caught up comes behind the word about the clock.
        let channel = create(&client, &["jiwei"]).await;
        send(&channel, "现在几点").await;
        let told = soon("the events until then", async {
            let mut told = None;
            loop {
                match events.next().await.expect("open").expect("readable") {
                    Event::ClockDiffers { gateway, own } => told = Some((gateway, own)),
                    Event::CaughtUp { .. } => break told,
                    _ => {}
                }
            }
        })
        .await;
        assert_eq!(told.is_some(), expect, "{ahead:?} ahead");
        if let Some((gateway, own)) = told {
            let difference = own.0 - gateway.0;
            assert!((500_000_000..700_000_000).contains(&difference), "{difference} microseconds");
        }
        client.close().await.expect("closes");
    }
    zone.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_have_grown_old_are_renewed_without_a_word_and_everybody_talks_on() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    let before = at_jiwei.info().await.expect("a member").epoch;
    shenji.close().await.expect("closes");
    let soon_after = LeafCare { after_joining: Duration::from_millis(1), ..LeafCare::default() };
    let config = Config { leaf_care: soon_after, ..zone.config("shenji", "app-1") };
    let shenji = Client::open(config).await.expect("opens");
    soon("a later epoch", async {
        while at_jiwei.info().await.expect("a member").epoch == before {
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    drop(at_shenji);
    let at_shenji = shenji.channel(at_jiwei.id());
    send(&at_jiwei, "换过钥了").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["换过钥了"]);
    assert_eq!(at_jiwei.info().await.expect("a member").epoch, Epoch(before.0 + 1), "once");
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    zone.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_nine_hundred_messages_that_were_refused_the_next_one_goes_out_with_new_keys() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let channel = join(&at_jiwei, &shenji).await.id();
    shenji.close().await.expect("closes");
    in_state(&zone, move |mls, tx, federation| {
        for _ in 0..900 {
            mls.encrypt(tx, federation, channel, fresh_id(), "没被接受的".as_bytes())?;
        }
        Ok(())
    })
    .await;
    let before = at_jiwei.info().await.expect("a member").epoch;
    let shenji = zone.client("shenji", "app-1").await;
    send(&shenji.channel(channel), "接受了").await;
    assert_eq!(texts(&receive(&at_jiwei, 1).await), ["接受了"]);
    assert_eq!(at_jiwei.info().await.expect("a member").epoch, Epoch(before.0 + 1), "it committed first");
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    zone.close().await;
}

/// The session goes on meanwhile: what is too far ahead when it is stored is not when the echo of the one before has come.
#[tokio::test(flavor = "multi_thread")]
async fn after_nine_hundred_messages_without_an_echo_the_next_one_waits_for_no_other_connection() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let channel = join(&at_jiwei, &shenji).await.id();
    shenji.close().await.expect("closes");
    in_state(&zone, move |mls, tx, federation| {
        for _ in 0..899 {
            mls.encrypt(tx, federation, channel, fresh_id(), "没被接受的".as_bytes())?;
        }
        Ok(())
    })
    .await;
    let line = Line::to(zone.address()).await.expect("a free port");
    let config = zone.config("shenji", "app-1").with_endpoint("127.0.0.1", line.address().port());
    let shenji = Client::open(config).await.expect("opens");
    soon("a connection", shenji.connected()).await.expect("connects");
    let at_shenji = shenji.channel(channel);
    line.hold_requests();
    let words = ["第九百", "第九百零一", "第九百零二"];
    let sent: Vec<_> = words
        .into_iter()
        .map(|word| {
            let at = at_shenji.clone();
            async move { soon("a receipt", at.send(word)).await.expect("accepted") }
        })
        .collect();
    let sent = tokio::spawn(futures_util::future::join_all(sent));
    // They are stored before anything of the first one comes back.
    SystemClock.sleep(Duration::from_secs(2)).await;
    line.release();
    sent.await.expect("all of them");
    assert_eq!(texts(&receive(&at_jiwei, 3).await), words);
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    drop(line);
    zone.close().await;
}
