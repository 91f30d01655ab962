//! The answer that never came: accepted, durable, and the connection gone before the caller could read it. The caller repeats
//! the same bytes under the same id, and gets the receipt that it should have had.

use bytes::Bytes;
use lianxin_connection::Connection;
use lianxin_proto::Receipt;
use lianxin_proto::channels::{Commit, Leave};
use lianxin_proto::messages::{Event, Send};
use lianxin_types::{ChannelId, IdempotencyId, Sequence};

use crate::effort::share;
use crate::line::in_vain;
use crate::raw::{RawDevice, fresh_id};
use crate::zone::Zone;

/// A device on a line, its channel, and somebody who watches the log.
struct Stage {
    zone: Zone,
    jiwei: RawDevice,
    shenji: RawDevice,
    channel: ChannelId,
}

impl Stage {
    async fn set() -> Self {
        let zone = Zone::start().await;
        let jiwei = RawDevice::open(&zone, "jiwei", "app-1").await;
        let shenji = RawDevice::open(&zone, "shenji", "app-1").await;
        let channel = jiwei.channel(&["jiwei", "shenji", "weijian"]).await;
        jiwei.add(channel, &shenji).await;
        Self { zone, jiwei, shenji, channel }
    }

    async fn log(&self) -> Vec<Event> {
        self.jiwei.log(self.channel, Sequence(0)).await
    }

    /// Asks over a line that swallows the answer, waits until the event is in the log, cuts the line, and gives the event.
    async fn ask_in_vain<T: std::fmt::Debug>(&self, ask: impl AsyncFnOnce(Connection) -> T) -> Event {
        let before = self.log().await.len();
        let app = self.zone.app("shenji", "app-1");
        in_vain(&self.zone, &app, ask, async || self.log().await.len() > before).await;
        self.log().await.pop().expect("it was accepted")
    }

    /// The repeat got the receipt of this event, however often it is asked for, and there is no second event.
    async fn assert_same(&self, event: &Event, repeats: [Receipt; 2]) {
        for receipt in repeats {
            assert_eq!(
                (receipt.sequence, receipt.leaf_index, receipt.leaf_hash),
                (event.sequence, event.leaf_index, event.leaf_hash)
            );
        }
        assert_eq!(self.log().await.last().map(|last| last.sequence), Some(event.sequence), "no duplicate");
        for member in [&self.jiwei, &self.shenji] {
            member.read(self.channel).await;
        }
    }

    async fn assert_no_fork(&self) {
        for (from, to) in [(&self.jiwei, &self.shenji), (&self.shenji, &self.jiwei)] {
            let mls = from.encrypt(self.channel, "还在一起").await;
            from.send(self.channel, &[(fresh_id(), mls)]).await.remove(0).expect("accepted");
            from.read(self.channel).await;
            to.read(self.channel).await;
        }
        let (mine, yours) = (self.jiwei.view(self.channel).await, self.shenji.view(self.channel).await);
        assert_eq!((mine.epoch, mine.epoch_authenticator), (yours.epoch, yours.epoch_authenticator));
        assert_eq!((mine.head, mine.members), (yours.head, yours.members));
    }

    async fn call_commit(
        &self,
        connection: Connection,
        id: IdempotencyId,
        bundle: &lianxin_mls::CommitBundle,
    ) -> String {
        let (commit, group_info) = (Bytes::from(bundle.commit.clone()), Bytes::from(bundle.group_info.clone()));
        let commit = Commit { id, channel: self.channel, commit, welcome: None, group_info };
        format!("{:?}", connection.commit(commit).await)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_answer_was_lost_is_in_the_log_once() {
    let stage = Stage::set().await;
    let (id, mls) = (fresh_id(), stage.shenji.encrypt(stage.channel, "收到了吗").await);
    let (channel, bytes) = (stage.channel, mls.clone());
    let event = stage.ask_in_vain(async move |connection| {
        let (sender, mut outcomes) = connection.send_stream();
        sender.send(Send { id, channel, mls: bytes }).await.expect("sent");
        format!("{:?}", outcomes.next().await)
    });
    let event = event.await;
    assert_eq!(event.idempotency_id, id);
    let again = [(id, mls.clone()), (id, mls)];
    let answers = stage.shenji.send(channel, &again).await;
    let [Ok(first), Ok(second)] = answers[..] else { panic!("{answers:?}") };
    stage.assert_same(&event, [first, second]).await;
    stage.assert_no_fork().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_begins_one_epoch() {
    let stage = Stage::set().await;
    let weijian = RawDevice::open(&stage.zone, "weijian", "app-1").await;
    stage.jiwei.add(stage.channel, &weijian).await;
    stage.shenji.read(stage.channel).await;
    let (id, bundle) = (fresh_id(), stage.shenji.removal(stage.channel, &weijian.uri).await);
    let event = stage.ask_in_vain(async |connection| stage.call_commit(connection, id, &bundle).await).await;
    let first = stage.shenji.commit(stage.channel, &bundle, id).await.expect("the same again");
    let second = stage.shenji.commit(stage.channel, &bundle, id).await.expect("and again");
    stage.assert_same(&event, [first, second]).await;
    stage.assert_no_fork().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_many_times_at_once_is_accepted_once_and_all_get_its_receipt() {
    let stage = Stage::set().await;
    let weijian = RawDevice::open(&stage.zone, "weijian", "app-1").await;
    let (channel, app) = (stage.channel, stage.zone.app("shenji", "app-1"));
    // A second connection of the same device, as after one that is only believed to be lost.
    let other = stage.zone.connect(&app).await.expect("connects");
    for round in 0..share(10, 200) {
        stage.jiwei.add(channel, &weijian).await;
        stage.shenji.read(channel).await;
        let before = stage.log().await.len();
        let (id, bundle) = (fresh_id(), stage.shenji.removal(channel, &weijian.uri).await);
        let (commit, group_info) = (Bytes::from(bundle.commit.clone()), Bytes::from(bundle.group_info.clone()));
        let again = || Commit { id, channel, commit: commit.clone(), welcome: None, group_info: group_info.clone() };
        // Two are judged at a time (PROTOCOL 10): the others have looked for a repeat in vain, and then see the next epoch.
        let (first, second, third, fourth, fifth) = tokio::join!(
            stage.shenji.connection.commit(again()),
            other.commit(again()),
            other.commit(again()),
            other.commit(again()),
            other.commit(again())
        );
        let answers = [first, second, third, fourth, fifth];
        let receipts: Vec<Receipt> = answers.into_iter().map(|answer| answer.expect("one receipt for all")).collect();
        let event = stage.log().await.pop().expect("it was accepted");
        assert_eq!(stage.log().await.len(), before + 1, "round {round}");
        for receipt in receipts {
            stage.assert_same(&event, [receipt; 2]).await;
        }
    }
    stage.assert_no_fork().await;

    let (id, proposal) = (fresh_id(), stage.shenji.leave_proposal(channel).await);
    let leave = || Leave { id, channel, proposal: proposal.clone() };
    let answers = tokio::join!(stage.shenji.connection.leave(leave()), other.leave(leave()));
    let (Ok(first), Ok(second)) = answers else { panic!("{answers:?}") };
    let event = stage.log().await.pop().expect("it was accepted");
    stage.assert_same(&event, [first, second]).await;
    drop((stage.jiwei, stage.shenji, weijian, other));
    let bodies = stage.zone.close().await.shared_bodies();
    let of_call = |body: &&serde_json::Value| body["action"] == "commit" || body["action"] == "leave";
    let refused: Vec<_> = bodies.iter().filter(|body| body["event"] == "refused").filter(of_call).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_whose_answer_was_lost_is_gone_once() {
    let stage = Stage::set().await;
    stage.shenji.lose(stage.channel).await;
    let (id, bundle) = (fresh_id(), stage.shenji.rejoin_bundle(stage.channel).await);
    let event = stage.ask_in_vain(async |connection| stage.call_commit(connection, id, &bundle).await).await;
    let first = stage.shenji.commit(stage.channel, &bundle, id).await.expect("the same again");
    let second = stage.shenji.commit(stage.channel, &bundle, id).await.expect("and again");
    stage.assert_same(&event, [first, second]).await;
    stage.assert_no_fork().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leave_whose_answer_was_lost_waits_once() {
    let stage = Stage::set().await;
    let (id, channel) = (fresh_id(), stage.channel);
    let proposal = stage.shenji.leave_proposal(channel).await;
    let bytes = proposal.clone();
    let event = stage.ask_in_vain(async move |connection| {
        format!("{:?}", connection.leave(Leave { id, channel, proposal: bytes }).await)
    });
    let event = event.await;
    let again = async || {
        let leave = Leave { id, channel, proposal: proposal.clone() };
        stage.shenji.connection.leave(leave).await.expect("the same again")
    };
    stage.assert_same(&event, [again().await, again().await]).await;
}
