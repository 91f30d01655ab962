//! A gateway that accepts, and gives nothing more of the log: its own word proves what it keeps back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use lianxin_proto::messages::v1::receive_response::Frame;
use lianxin_proto::messages::v1::{CaughtUp, EventBatch, ReceiveResponse};
use lianxin_sdk::{ClientError, Event, ViolationKind};
use lianxin_types::{Digest, Sequence};
use prost::Message as _;

use crate::impostor::Passing;
use crate::malice::Story;
use crate::talk::{event, receive, send, soon, texts};

/// What the gateway says of the end of the log that it has cut short.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// That it is where the cut is.
    AtTheCut,
    /// The truth.
    Behind,
}

impl Story {
    /// From now on weijian is given nothing behind what it has.
    async fn cut(&self, end: End) -> Sequence {
        let head = self.channels[2].info().await.expect("a member").head;
        self.impostor.lie(move |passing| cut(passing, head, end));
        head
    }
}

fn cut(passing: Passing<'_>, head: Sequence, end: End) -> Vec<Bytes> {
    if !passing.method.ends_with("/Receive") {
        return vec![passing.message];
    }
    let response = ReceiveResponse::decode(passing.message.clone()).expect("the gateway's own");
    match response.frame {
        Some(Frame::Events(batch)) => {
            let mut batch = EventBatch::decode(batch).expect("the gateway's own");
            batch.events.retain(|event| event.sequence <= head.0);
            let frame = Some(Frame::Events(batch.encode_to_vec().into()));
            if batch.events.is_empty() { vec![] } else { vec![ReceiveResponse { frame }.encode_to_vec().into()] }
        }
        Some(Frame::CaughtUp(told)) if end == End::AtTheCut => {
            let frame = Some(Frame::CaughtUp(CaughtUp { sequence: told.sequence.min(head.0), ..told }));
            vec![ReceiveResponse { frame }.encode_to_vec().into()]
        }
        _ => vec![passing.message],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_accepted_and_is_kept_back_is_named_and_nobody_waits_for_it() {
    let story = Story::begin().await;
    let head = story.cut(End::AtTheCut).await;
    let shenji = story.clients[1].device().clone();
    let change = soon("an answer", story.channels[2].remove(&[shenji])).await;
    assert!(matches!(change, Err(ClientError::NotServed)), "{change:?}");
    let weijian = &story.clients[2];
    let (sequence, sender) = event(weijian, "what is kept back", |event| match event {
        Event::Violation { sequence, sender, kind: ViolationKind::Withheld, .. } => Some((sequence, sender)),
        _ => None,
    })
    .await;
    assert_eq!((sequence, &sender), (head.next(), weijian.device()));
    let kept = weijian.evidence(story.channels[2].id(), sequence).await.expect("readable").expect("kept");
    assert!(!kept.mls.is_empty() && kept.leaf_hash != Digest::ZERO && kept.chain_hash != Digest::ZERO);

    // It was true: and from an honest gateway weijian reads on.
    story.impostor.be_honest();
    let Story { zone, impostor, clients: [jiwei, shenji, weijian], channels } = story;
    weijian.close().await.expect("closes");
    let weijian = impostor.client(&zone, "weijian").await;
    send(&channels[0], "接着").await;
    assert_eq!(texts(&receive(&weijian.channel(channels[2].id()), 1).await), ["接着"]);
    assert_eq!(channels[0].info().await.expect("a member").members.len(), 2);
    Story { zone, impostor, clients: [jiwei, shenji, weijian], channels }.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_before_its_end_is_asked_for_and_given_up() {
    let story = Story::begin().await;
    let head = story.cut(End::Behind).await;
    // It cannot be sent: somebody else's change is kept back.
    let shenji = story.clients[1].device().clone();
    soon("a removal", story.channels[0].remove(&[shenji])).await.expect("removed");
    let sent = soon("an answer", story.channels[2].send("听得到吗")).await;
    assert!(matches!(sent, Err(ClientError::NotServed)), "{sent:?}");
    let reason = event(&story.clients[2], "an end", |event| match event {
        Event::ChannelGone { reason, .. } => Some(reason),
        _ => None,
    });
    let (before, behind) = (head.0, head.0 + 2);
    assert_eq!(reason.await, format!("the gateway has no events between {before} and {behind}"));
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_echo_that_is_not_what_its_receipt_says_is_named() {
    let story = Story::begin().await;
    let victim = story.clients[2].device().as_str().to_owned();
    let changed = Arc::new(AtomicU64::new(0));
    let at = Arc::clone(&changed);
    story.impostor.lie(move |passing| {
        if !passing.method.ends_with("/Receive") {
            return vec![passing.message];
        }
        let response = ReceiveResponse::decode(passing.message.clone()).expect("the gateway's own");
        let Some(Frame::Events(batch)) = response.frame else { return vec![passing.message] };
        let mut batch = EventBatch::decode(batch).expect("the gateway's own");
        for event in batch.events.iter_mut().filter(|event| event.sender_uri == victim) {
            event.leaf_index += 1;
            at.store(event.sequence, Ordering::SeqCst);
        }
        let frame = Some(Frame::Events(batch.encode_to_vec().into()));
        vec![ReceiveResponse { frame }.encode_to_vec().into()]
    });
    let told = event(&story.clients[2], "the difference", |event| match event {
        Event::Violation { sequence, kind: ViolationKind::ReceiptMismatch, .. } => Some(sequence),
        _ => None,
    });
    // Whether the receipt or the echo comes first is the gateway's choice.
    let talk = async {
        loop {
            send(&story.channels[2], "在").await;
        }
    };
    let told = tokio::select! {
        told = told => told,
        () = talk => unreachable!("without end"),
    };
    assert!((1..=changed.load(Ordering::SeqCst)).contains(&told.0));
    story.end().await;
}
