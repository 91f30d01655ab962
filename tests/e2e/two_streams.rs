//! Two Send streams of one device: each keeps its own order, and neither can bring what the device says out of order as long
//! as each begins with the oldest message that has no receipt.

use lianxin_connection::{OutcomeStream, SendStream};
use lianxin_proto::ReasonCode;
use lianxin_proto::messages::Send;
use lianxin_types::{ChannelId, IdempotencyId, Sequence};

use bytes::Bytes;

use crate::raw::{Answer, RawDevice, fresh_id};
use crate::refusals::assert_refused;
use crate::talk::soon;
use crate::zone::Zone;

/// One of the streams.
struct Line {
    channel: ChannelId,
    sender: SendStream,
    outcomes: OutcomeStream,
}

impl Line {
    fn of(device: &RawDevice, channel: ChannelId) -> Self {
        let (sender, outcomes) = device.connection.send_stream();
        Self { channel, sender, outcomes }
    }

    async fn ask(&mut self, (id, mls): &(IdempotencyId, Bytes)) -> Answer {
        let message = Send { id: *id, channel: self.channel, mls: mls.clone() };
        self.sender.send(message).await.expect("sent");
        soon("an answer", self.outcomes.next()).await.expect("open").expect("inside the stream").result
    }
}

/// A device whose connection has died without a word starts over on a new one while the gateway still works on the old one.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_left_behind_cannot_bring_what_its_successor_sends_out_of_order() {
    let zone = Zone::start().await;
    let [jiwei, shenji, weijian] = zone.raws(["jiwei", "shenji", "weijian"]).await;
    let channel = jiwei.channel(&["jiwei", "shenji", "weijian"]).await;
    jiwei.add(channel, &shenji).await;
    let ids = [fresh_id(), fresh_id(), fresh_id()];
    let [mut before, mut now] = [Vec::new(), Vec::new()];
    for (id, body) in ids.into_iter().zip(["一", "二", "三"]) {
        before.push((id, shenji.encrypt(channel, body).await));
    }
    jiwei.add(channel, &weijian).await;

    let (mut old, mut new) = (Line::of(&shenji, channel), Line::of(&shenji, channel));
    assert_refused(&old.ask(&before[0]).await, ReasonCode::WrongEpoch);
    shenji.read(channel).await;
    for (id, body) in ids.into_iter().zip(["一", "二", "三"]) {
        now.push((id, shenji.encrypt(channel, body).await));
    }
    // What comes on the old one is behind its refusal, however good it is and whatever the new one has sent.
    assert_refused(&old.ask(&before[1]).await, ReasonCode::BehindRefused);
    assert_refused(&old.ask(&now[1]).await, ReasonCode::BehindRefused);
    let first = new.ask(&now[0]).await.expect("the successor begins with the oldest");
    assert_refused(&old.ask(&now[2]).await, ReasonCode::BehindRefused);
    // The old one goes on from the refused message: it is there already, and then both may send what is next.
    assert_eq!(old.ask(&now[0]).await.expect("the same again").sequence, first.sequence);
    let second = old.ask(&now[1]).await.expect("the next");
    assert_eq!(new.ask(&now[1]).await.expect("the same again").sequence, second.sequence);
    new.ask(&now[2]).await.expect("the last");

    let log = shenji.log(channel, Sequence(first.sequence.0 - 1)).await;
    let said: Vec<_> = log.iter().map(|event| event.idempotency_id).collect();
    assert_eq!(said, ids, "each once, in the order in which the device said them");
}
