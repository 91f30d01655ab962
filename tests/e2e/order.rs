//! Order on a Send stream behind a refusal, for a client that does not wait for each answer.

use bytes::Bytes;
use lianxin_connection::{OutcomeStream, SendStream};
use lianxin_proto::ReasonCode;
use lianxin_proto::messages::Send;
use lianxin_types::{ChannelId, IdempotencyId};

use crate::raw::{Answer, fresh_id};
use crate::refusals::assert_refused;
use crate::talk::soon;
use crate::zone::Zone;

/// A Send stream and the channel that it is used for.
struct Stream {
    channel: ChannelId,
    sender: SendStream,
    outcomes: OutcomeStream,
}

impl Stream {
    /// Sends all of these before it looks at an answer.
    async fn send(&mut self, messages: &[(IdempotencyId, Bytes)]) -> Vec<Answer> {
        for (id, mls) in messages {
            let message = Send { id: *id, channel: self.channel, mls: mls.clone() };
            self.sender.send(message).await.expect("sent");
        }
        let mut answers = Vec::new();
        for (id, _) in messages {
            let outcome = soon("an answer", self.outcomes.next()).await.expect("open").expect("inside the stream");
            assert_eq!(outcome.id, *id, "answers come in the order of the stream");
            answers.push(outcome.result);
        }
        answers
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_behind_a_refusal_waits_and_goes_on_with_it_in_one_go_or_when_it_is_refused_for_good() {
    let zone = Zone::start().await;
    let [jiwei, shenji, weijian] = zone.raws(["jiwei", "shenji", "weijian"]).await;
    let channel = jiwei.channel(&["jiwei", "shenji", "weijian"]).await;
    jiwei.add(channel, &shenji).await;
    let (sender, outcomes) = shenji.connection.send_stream();
    let mut stream = Stream { channel, sender, outcomes };
    let ids = [fresh_id(), fresh_id(), fresh_id()];
    let encrypted = async || {
        let mut messages = Vec::new();
        for (id, text) in ids.into_iter().zip(["一", "二", "三"]) {
            messages.push((id, shenji.encrypt(channel, text).await));
        }
        messages
    };

    let late = encrypted().await;
    jiwei.add(channel, &weijian).await;
    let answers = stream.send(&late).await;
    assert_refused(&answers[0], ReasonCode::WrongEpoch);
    assert_refused(&answers[1], ReasonCode::BehindRefused);
    assert_refused(&answers[2], ReasonCode::BehindRefused);
    shenji.read(channel).await;
    let mut next = None;
    for answer in stream.send(&encrypted().await).await {
        let sequence = answer.expect("the refused one is back, and the others are behind it").sequence;
        assert!(next.is_none_or(|next| next == sequence), "one behind the other");
        next = Some(sequence.next());
    }

    let late = (fresh_id(), shenji.encrypt(channel, "四").await);
    let removal = jiwei.removal(channel, &weijian.uri).await;
    jiwei.commit(channel, &removal, fresh_id()).await.expect("committed");
    assert_refused(&stream.send(std::slice::from_ref(&late)).await[0], ReasonCode::WrongEpoch);
    shenji.read(channel).await;
    let five = (fresh_id(), shenji.encrypt(channel, "五").await);
    assert_refused(&stream.send(std::slice::from_ref(&five)).await[0], ReasonCode::BehindRefused);
    let answers = stream.send(&[(late.0, Bytes::from_static(b"no message")), five]).await;
    assert_refused(&answers[0], ReasonCode::InvalidMls);
    answers[1].as_ref().expect("nothing is before it any more");
}
