//! Something impossible in one channel: it stays in that channel, is told, and the others go on.

use std::time::Duration;

use lianxin_proto::channels::v1::CreateResponse;
use lianxin_sdk::{ClientError, Event};
use lianxin_types::{Clock as _, SystemClock};
use prost::Message as _;

use crate::impostor::Impostor;
use crate::talk::{create, departments, event, join, label, receive, send, soon, texts};
use crate::zone::Zone;

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_cannot_be_true_ends_its_channel_and_no_other() {
    let zone = Zone::start().await;
    let impostor = Impostor::before(&zone).await;
    let shenji = zone.client("shenji", "app-1").await;
    let jiwei = impostor.client(&zone, "jiwei").await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    impostor.lie(|passing| {
        if !passing.method.ends_with("/Create") {
            return vec![passing.message];
        }
        let mut answer = CreateResponse::decode(passing.message).expect("the gateway's own");
        answer.receipt.as_mut().expect("accepted").sequence = 2;
        vec![answer.encode_to_vec().into()]
    });
    let refused = soon("an answer", jiwei.create(label(), &departments(&["jiwei"]))).await;
    assert!(matches!(refused, Err(ClientError::NotServed)), "{refused:?}");
    let reason = event(&jiwei, "what is wrong", |event| match event {
        Event::ChannelGone { channel, reason } if channel != at_jiwei.id() => Some(reason),
        _ => None,
    });
    assert!(reason.await.starts_with("this device cannot process what the gateway gives"));

    // The connection has not even noticed.
    let goes_on = async {
        for text in ["一", "二", "三"] {
            send(&at_jiwei, text).await;
            SystemClock.sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = goes_on => {}
        _ended = event(&jiwei, "an end", |event| matches!(event, Event::Disconnected { .. }).then_some(())) => {
            panic!("it ended the connection");
        }
    }
    assert_eq!(texts(&receive(&at_shenji, 3).await), ["一", "二", "三"]);
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    zone.close().await;
}
