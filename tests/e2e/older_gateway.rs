//! A gateway of an earlier version: its receipts do not name the chain hash, so a device that has lost its group learns from the log
//! where its way back is.

use bytes::Bytes;
use lianxin_proto::channels::v1::CommitResponse;
use lianxin_proto::messages::v1::receive_response::Frame;
use lianxin_proto::messages::v1::{Gap, ReceiveResponse};
use lianxin_sdk::{Client, ClientError, Event, Sequence};
use lianxin_types::ChannelId;
use prost::Message as _;

use crate::impostor::{Impostor, Passing};
use crate::restored::{in_state, lose_the_group};
use crate::talk::{create, event, join, receive, send, soon, texts};
use crate::zone::Zone;

/// What an earlier version answers.
fn earlier(passing: Passing<'_>) -> Vec<Bytes> {
    if !passing.method.ends_with("/Commit") {
        return vec![passing.message];
    }
    let mut answer = CommitResponse::decode(passing.message).expect("the gateway's own");
    answer.receipt.as_mut().expect("accepted").chain_hash = Bytes::new();
    vec![answer.encode_to_vec().into()]
}

/// The same, and in the place of the first events that it is asked for: there are none before `first`.
fn earlier_with_a_gap(channel: ChannelId, first: Sequence) -> impl FnMut(Passing<'_>) -> Vec<Bytes> + Send + 'static {
    let mut gap = Some(Gap { channel_id: channel.0.to_vec().into(), first_retained: first.0 });
    move |passing| {
        let is_events = passing.method.ends_with("/Receive")
            && matches!(
                ReceiveResponse::decode(passing.message.clone()).expect("the gateway's own").frame,
                Some(Frame::Events(_))
            );
        match gap.take_if(|_| is_events) {
            Some(gap) => vec![ReceiveResponse { frame: Some(Frame::Gap(gap)) }.encode_to_vec().into()],
            None => earlier(passing),
        }
    }
}

async fn is_back(client: &Client) {
    event(client, "the way back", |event| matches!(event, Event::MemberRejoined { .. }).then_some(())).await;
}

async fn rejoined(zone: Zone) -> usize {
    zone.close().await.shared_bodies().iter().filter(|body| body["event"] == "rejoined").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_does_not_say_where_the_way_back_is_sends_a_device_to_the_log() {
    let zone = Zone::start().await;
    let impostor = Impostor::before(&zone).await;
    let jiwei = zone.client("jiwei", "app-1").await;
    let shenji = impostor.client(&zone, "shenji").await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    join(&at_jiwei, &shenji).await;
    shenji.close().await.expect("closes");
    lose_the_group(&zone, at_jiwei.id()).await;
    send(&at_jiwei, "错过的").await;

    impostor.lie(earlier);
    let shenji = impostor.client(&zone, "shenji").await;
    is_back(&shenji).await;
    let at_shenji = shenji.channel(at_jiwei.id());
    send(&at_shenji, "回来了").await;
    assert_eq!(texts(&receive(&at_jiwei, 1).await), ["回来了"]);
    send(&at_jiwei, "好").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["好"], "and nothing of before");
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    assert_eq!(rejoined(zone).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_log_does_not_reach_back_either_it_says_so_and_a_later_receipt_brings_it_in() {
    let zone = Zone::start().await;
    let impostor = Impostor::before(&zone).await;
    let jiwei = zone.client("jiwei", "app-1").await;
    let shenji = impostor.client(&zone, "shenji").await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    join(&at_jiwei, &shenji).await;
    shenji.close().await.expect("closes");
    let channel = at_jiwei.id();
    lose_the_group(&zone, channel).await;
    let last = Sequence(send(&at_jiwei, "错过的").await);

    impostor.lie(earlier_with_a_gap(channel, last.next()));
    let shenji = impostor.client(&zone, "shenji").await;
    let reason = event(&shenji, "that it goes no further", |event| match event {
        Event::ChannelGone { channel: gone, reason } if gone == channel => Some(reason),
        Event::MemberRejoined { .. } => panic!("it has a gap before it"),
        _ => None,
    });
    assert_eq!(reason.await, format!("this device gets no events before {}", last.0 + 1));
    let sent = soon("an answer", shenji.channel(channel).send("先存着")).await;
    assert!(matches!(sent, Err(ClientError::NotServed)), "{sent:?}");
    shenji.close().await.expect("closes");

    // As an earlier version of the SDK left it, which waited for the log to say more.
    in_state(&zone, |_, tx, _| {
        let intents = tx.list("intent")?;
        let [(key, intent)] = &intents[..] else { panic!("the way back alone: {}", intents.len()) };
        let accepted = 18;
        assert_eq!(intent[accepted - 1..=accepted], [2, 0], "a commit, not accepted");
        let mut intent = intent.clone();
        intent[accepted] = 1;
        Ok(tx.put("intent", key, &intent)?)
    })
    .await;
    impostor.be_honest();
    let shenji = impostor.client(&zone, "shenji").await;
    is_back(&shenji).await;
    assert_eq!(texts(&receive(&at_jiwei, 1).await), ["先存着"]);
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    assert_eq!(rejoined(zone).await, 1, "it has come back once");
}
