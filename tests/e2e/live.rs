//! The gap between catch-up and live: a stream that begins to follow while others send loses nothing and doubles nothing.

use std::sync::Arc;

use lianxin_connection::{Connection, FrameStream, ReceiveControl};
use lianxin_proto::ReasonCode;
use lianxin_proto::messages::{Event, Frame, Receive};
use lianxin_sdk::Channel;
use lianxin_types::{ChannelId, Sequence};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::talk::{create, join, send, soon};
use crate::zone::Zone;

const DEPARTMENTS: [&str; 3] = ["jiwei", "shenji", "weijian"];
/// Messages of each sender; each department has two that take turns with nobody.
const EACH: u64 = 60;
const SENDERS_EACH: u64 = 2;
const STREAMS_EACH: u64 = 7;
/// Start and two joins.
const BEFORE: u64 = 3;
const MESSAGES: u64 = EACH * SENDERS_EACH * DEPARTMENTS.len() as u64;
const END: u64 = BEFORE + MESSAGES;
const INVENTED: ChannelId = ChannelId([0xEE; 16]);

#[tokio::test(flavor = "multi_thread")]
async fn the_gap_between_catch_up_and_live_loses_nothing() {
    let zone = Zone::start().await;
    let clients = [
        zone.client("jiwei", "app-1").await,
        zone.client("shenji", "app-1").await,
        zone.client("weijian", "app-1").await,
    ];
    let at_jiwei = create(&clients[0], &DEPARTMENTS).await;
    let at_shenji = join(&at_jiwei, &clients[1]).await;
    let at_weijian = join(&at_jiwei, &clients[2]).await;
    let channels = [at_jiwei, at_shenji, at_weijian];

    let (progress, head) = watch::channel(BEFORE);
    let progress = Arc::new(progress);
    let mut followers = JoinSet::new();
    for (department, seat) in DEPARTMENTS.into_iter().zip(1..) {
        let connection = zone.connect(&zone.app(department, "app-1")).await.expect("a second connection");
        for number in 0..STREAMS_EACH {
            let follower = Follower { channel: channels[0].id(), seat, number };
            followers.spawn(follower.run(connection.clone(), head.clone()));
        }
    }
    let mut senders = JoinSet::new();
    for channel in &channels {
        for _ in 0..SENDERS_EACH {
            senders.spawn(send_all(channel.clone(), Arc::clone(&progress)));
        }
    }
    while let Some(sent) = senders.join_next().await {
        sent.expect("every message is accepted");
    }
    assert_eq!(*head.borrow(), END);
    let mut live = 0;
    while let Some(seen) = followers.join_next().await {
        live += u64::from(seen.expect("a stream without loss") < END);
    }
    // The last of each department begins when everything is stored; the others must have met the gap for this to say anything.
    assert!(live >= STREAMS_EACH, "only {live} streams went from stored to live");
}

async fn send_all(channel: Channel, progress: Arc<watch::Sender<u64>>) {
    for number in 0..EACH {
        let sequence = send(&channel, format!("第{number}条")).await;
        progress.send_if_modified(|head| {
            let is_newer = sequence > *head;
            *head = sequence.max(*head);
            is_newer
        });
    }
}

/// One stream of a member.
struct Follower {
    channel: ChannelId,
    /// Sequence of the event that seated the member.
    seat: u64,
    number: u64,
}

impl Follower {
    /// Begins when its part of the messages is sent, from a cursor of its own, and reads to the end. Gives the sequence at
    /// which it had caught up.
    async fn run(self, connection: Connection, mut head: watch::Receiver<u64>) -> u64 {
        let begin = BEFORE + MESSAGES * self.number / (STREAMS_EACH - 1);
        soon("messages", head.wait_for(|head| *head >= begin)).await.expect("sending goes on");
        let known = *head.borrow();
        let after = match self.number % 3 {
            0 => 0,
            1 => BEFORE + (known - BEFORE) / 2,
            _ => known,
        };
        let (control, mut frames) = connection.receive_stream();
        let request = Receive::Follow { channel: self.channel, after: Sequence(after) };
        control.request(request).await.expect("asked");
        let first = (after + 1).max(self.seat);
        let mut seen = Seen { next: first, caught_up: None };
        while seen.next <= END || seen.caught_up.is_none() {
            let frame = soon("a frame", frames.next()).await.expect("open").expect("a frame");
            seen.take(self.channel, frame);
        }
        seen.nothing_more(self.channel, &control, &mut frames).await;
        let caught_up = seen.caught_up.expect("caught up once");
        assert!(caught_up >= known, "caught up at {caught_up}, and {known} was accepted before it began");
        caught_up
    }
}

/// What a stream has brought so far.
struct Seen {
    next: u64,
    caught_up: Option<u64>,
}

impl Seen {
    fn take(&mut self, channel: ChannelId, frame: Frame) {
        match frame {
            Frame::Events(events) => {
                for Event { channel: of, sequence, .. } in events {
                    assert_eq!((of, sequence.0), (channel, self.next), "the next event, once and in order");
                    self.next += 1;
                }
            }
            Frame::CaughtUp { channel: of, sequence } => {
                assert_eq!((of, sequence.0), (channel, self.next - 1), "what is stored comes before the word for it");
                assert_eq!(self.caught_up.replace(sequence.0), None, "caught up twice");
            }
            // Its SDK may not have confirmed the invitation yet.
            Frame::Opened { .. } | Frame::Heartbeat { .. } | Frame::Inbox { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    /// Whatever still waited comes before the answer to a question that is asked now.
    async fn nothing_more(&mut self, channel: ChannelId, control: &ReceiveControl, frames: &mut FrameStream) {
        let question = Receive::Follow { channel: INVENTED, after: Sequence(0) };
        control.request(question).await.expect("asked");
        loop {
            match soon("an answer", frames.next()).await.expect("open").expect("a frame") {
                Frame::Closed { channel: Some(INVENTED), reason } => {
                    assert_eq!(reason.code, ReasonCode::ChannelNotAvailable);
                    break;
                }
                other => self.take(channel, other),
            }
        }
        assert_eq!(self.next, END + 1, "nothing behind the last message");
    }
}
