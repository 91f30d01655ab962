//! A device that may commit no more in a channel until its owner allows it: its application is told, and it goes on by itself then.

use std::time::Duration;

use lianxin_sdk::{Channel, Client, ClientError, DeviceUri, Event, ReasonCode, Sequence};
use lianxin_tlog::EventKind;
use lianxin_types::{Clock as _, SystemClock};

use crate::raw::{RawDevice, fresh_id};
use crate::reports::{report, signed};
use crate::restored::{in_state, lose_the_group};
use crate::talk::{accept, event, join, soon};
use crate::zone::Zone;

/// A channel in which jiwei has reported shenji's only commit, and the device that may allow shenji to commit again.
struct Story {
    zone: Zone,
    jiwei: RawDevice,
    shenji: Client,
    at_shenji: Channel,
    owner: Client,
    at_owner: Channel,
}

impl Story {
    async fn begin() -> Self {
        let zone = Zone::start().await;
        let jiwei = RawDevice::open(&zone, "jiwei", "app-1").await;
        let channel = jiwei.channel(&["jiwei", "shenji"]).await;
        let (shenji, owner) = (zone.client("shenji", "app-1").await, zone.client("shenji", "app-2").await);
        jiwei.seat(channel, shenji.device()).await;
        let at_shenji = accept(&shenji).await;
        let at_owner = join(&at_shenji, &owner).await;
        jiwei.read(channel).await;
        Self { zone, jiwei, shenji, at_shenji, owner, at_owner }
    }

    async fn jiwei_reports(&self) {
        let channel = self.at_shenji.id();
        let committed = self.jiwei.view(channel).await.head.sequence;
        let said = report(&self.jiwei, channel, committed.0).await;
        let bytes = signed(&self.zone, ("jiwei", "app-1"), &said);
        self.jiwei.report(channel, bytes, fresh_id()).await.expect("taken");
    }

    async fn told(&self) -> Option<DeviceUri> {
        let (of, reporter) = event(&self.shenji, "that it is paused", |event| match event {
            Event::CommitterPaused { channel, reporter } => Some((channel, reporter)),
            _ => None,
        })
        .await;
        assert_eq!(of, self.at_shenji.id());
        reporter
    }

    async fn allow(&self) {
        soon("an answer", self.at_owner.allow_committer(self.shenji.device())).await.expect("its owner allows it");
    }

    async fn until_jiwei_hears(&self) {
        let channel = self.at_shenji.id();
        soon("the message in the log", async {
            loop {
                let events = self.jiwei.log(channel, Sequence(0)).await;
                if events.iter().any(|event| event.kind == EventKind::Application) {
                    return;
                }
                SystemClock.sleep(Duration::from_millis(200)).await;
            }
        })
        .await;
    }

    async fn end(self) {
        let Self { zone, jiwei, shenji, owner, .. } = self;
        let mut events = shenji.events();
        let again = async {
            loop {
                let event = events.next().await.expect("open").expect("readable");
                assert!(!matches!(event, Event::CommitterPaused { .. }), "told once");
            }
        };
        tokio::select! {
            () = again => {}
            () = SystemClock.sleep(Duration::from_millis(500)) => {}
        }
        drop(events);
        for client in [shenji, owner] {
            client.close().await.expect("closes");
        }
        drop(jiwei);
        zone.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_must_commit_before_it_sends_is_told_of_the_pause_and_sends_when_it_is_allowed() {
    let mut story = Story::begin().await;
    let channel = story.at_shenji.id();
    story.jiwei_reports().await;
    event(&story.shenji, "the report", |event| match event {
        Event::CommitReported { committer, .. } => Some(committer),
        _ => None,
    })
    .await
    .expect("this device has read its own commit");
    story.shenji.close().await.expect("closes");
    in_state(&story.zone, move |mls, tx, federation| {
        for _ in 0..900 {
            mls.encrypt(tx, federation, channel, fresh_id(), "没被接受的".as_bytes())?;
        }
        Ok(())
    })
    .await;
    story.shenji = story.zone.client("shenji", "app-1").await;
    story.at_shenji = story.shenji.channel(channel);
    let sender = story.at_shenji.clone();
    let sent = tokio::spawn(async move { sender.send("等着").await });
    assert_eq!(story.told().await.as_ref(), Some(&story.jiwei.uri));
    let owner = story.owner.device().clone();
    let refused = soon("an answer", story.at_shenji.remove(&[owner])).await;
    let is_paused =
        matches!(&refused, Err(ClientError::Refused(problem)) if problem.code == ReasonCode::CommitterPaused);
    assert!(is_paused, "{refused:?}");
    story.allow().await;
    soon("a receipt", sent).await.expect("no panic").expect("accepted");
    story.until_jiwei_hears().await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_paused_and_has_lost_its_group_is_told_and_comes_back_when_it_is_allowed() {
    let mut story = Story::begin().await;
    let channel = story.at_shenji.id();
    story.shenji.clone().close().await.expect("closes");
    story.jiwei_reports().await;
    lose_the_group(&story.zone, channel).await;
    story.shenji = story.zone.client("shenji", "app-1").await;
    story.at_shenji = story.shenji.channel(channel);
    assert_eq!(story.told().await, None, "it reads no log");
    story.allow().await;
    event(&story.shenji, "the way back", |event| matches!(event, Event::MemberRejoined { .. }).then_some(())).await;
    story.end().await;
}
