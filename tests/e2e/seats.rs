//! Seats in the group that carries a broken channel on: for who was away, and where nobody gives one.

use std::time::Duration;

use bytes::Bytes;
use lianxin_proto::messages::v1::inbox_item::Item;
use lianxin_proto::messages::v1::receive_response::Frame;
use lianxin_proto::messages::v1::{Closed, EventKind, InboxItem, ReceiveResponse};
use lianxin_sdk::{Channel, Client, ClientError, Event, Incarnation, Problem, ReasonCode};
use lianxin_types::{ChannelId, Clock as _, SystemClock};
use prost::Message as _;

use crate::heal::{Villain, jiwei_carries_on, restored};
use crate::impostor::{Impostor, Passing};
use crate::malice::change_events;
use crate::raw::RawDevice;
use crate::talk::{accept, create, event, join, own, receive, send, soon, texts};
use crate::zone::Zone;

/// jiwei without the SDK, shenji with it and what the gateway tells it goes through the impostor, and a villain beside them.
struct Story {
    zone: Zone,
    impostor: Impostor,
    jiwei: RawDevice,
    shenji: Client,
    at_shenji: Channel,
    villain: Villain,
}

impl Story {
    async fn begin() -> Self {
        let zone = Zone::start().await;
        let impostor = Impostor::before(&zone).await;
        let jiwei = RawDevice::open(&zone, "jiwei", "app-1").await;
        let channel = jiwei.channel(&["jiwei", "shenji", "weijian"]).await;
        let shenji = impostor.client(&zone, "shenji").await;
        jiwei.seat(channel, shenji.device()).await;
        let at_shenji = accept(&shenji).await;
        event(&shenji, "its first invitation", |event| matches!(event, Event::Invited { .. }).then_some(())).await;
        let villain = Villain::beside(&zone, &jiwei, channel).await;
        soon("everything read", at_shenji.info()).await.expect("a member");
        Self { zone, impostor, jiwei, shenji, at_shenji, villain }
    }

    fn channel(&self) -> ChannelId {
        self.at_shenji.id()
    }

    /// The villain breaks the channel, and jiwei starts the next group.
    async fn restarts(&self) {
        let broken = self.villain.breaks(self.channel()).await;
        jiwei_carries_on(&self.zone, &self.jiwei, self.channel(), broken).await;
    }

    /// So nobody can start another group in the place of jiwei's.
    async fn jiwei_seats_another(&self) -> RawDevice {
        let other = RawDevice::open(&self.zone, "jiwei", "app-2").await;
        other.publish(other.key_packages(1).await).await.expect("published");
        self.jiwei.seat(self.channel(), &other.uri).await;
        other
    }

    async fn end(self) {
        self.shenji.close().await.expect("closes");
        drop((self.villain, self.jiwei));
        self.zone.close().await;
    }
}

/// What the gateway tells of channels and of invitations: the frame, if it is one.
pub(crate) fn frame_of(passing: &Passing<'_>) -> Option<Frame> {
    let is_told = passing.method.ends_with("/Receive");
    is_told.then(|| ReceiveResponse::decode(passing.message.clone()).expect("the gateway's own").frame)?
}

/// What the log says comes behind the next invitation.
pub(crate) fn inbox_first() -> impl FnMut(Passing<'_>) -> Vec<Bytes> + Send {
    let mut held = Some(Vec::<Bytes>::new());
    move |passing| match (frame_of(&passing), &mut held) {
        (Some(Frame::Events(_)), Some(held)) => {
            held.push(passing.message);
            vec![]
        }
        (Some(Frame::Inbox(_)), held) => [vec![passing.message], held.take().unwrap_or_default()].concat(),
        _ => vec![passing.message],
    }
}

/// Its invitation is in the inbox before the log has told of the group, and the application takes every invitation that it is offered.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_while_the_channel_was_carried_on_is_seated_without_its_application_being_asked() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
    let channel = join(&at_jiwei, &shenji).await.id();
    event(&shenji, "its first invitation", |event| matches!(event, Event::Invited { .. }).then_some(())).await;
    let villain = Villain::in_channel(&zone, &at_jiwei).await;
    let own_uri = shenji.device().clone();
    shenji.close().await.expect("closes");
    send(&at_jiwei, "离线时").await;
    villain.breaks(channel).await;
    restored(&jiwei).await;
    soon("its seat", async {
        while !at_jiwei.info().await.expect("a member").members.contains(&own_uri) {
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    send(&at_jiwei, "换组后").await;

    let shenji = Client::open(zone.config("shenji", "app-1")).await.expect("opens");
    let mut offered = shenji.invitations();
    let seated = event(&shenji, "the own seat", |event| match event {
        Event::ChannelRestored { .. } => Some(()),
        Event::Invited { .. } => panic!("the application is not asked"),
        _ => None,
    });
    tokio::select! {
        () = seated => {}
        invitation = offered.next() => panic!("offered: {invitation:?}"),
    }
    assert_eq!(texts(&receive(&shenji.channel(channel), 2).await), ["离线时", "换组后"], "no hole");
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    drop(villain);
    zone.close().await;
}

/// Whoever has started the group goes on in it without the others, so nobody can start another in its place.
async fn is_told_that_nobody_seats_it(story: &Story) {
    event(&story.shenji, "another group", |event| matches!(event, Event::ChannelRestarted { .. }).then_some(())).await;
    let sender = story.at_shenji.clone();
    let sent = tokio::spawn(async move { sender.send("等着").await });
    SystemClock.sleep(Duration::from_secs(2)).await;
    story.zone.clock.advance(Duration::from_secs(601));
    let missing = event(&story.shenji, "that nobody seats it", |event| match event {
        Event::SeatMissing { channel: of, incarnation } => Some((of, incarnation)),
        Event::Invited { .. } | Event::ChannelRestored { .. } => panic!("nobody gives it a seat"),
        _ => None,
    });
    assert_eq!(missing.await, (story.channel(), Incarnation(1)));
    let unsent = soon("an answer", sent).await.expect("no panic");
    assert!(matches!(unsent, Err(ClientError::NotServed)), "{unsent:?}");
    let next = tokio::select! {
        next = story.at_shenji.send("又一句") => next,
        () = SystemClock.sleep(Duration::from_secs(10)) => panic!("not at once"),
    };
    assert!(matches!(next, Err(ClientError::NotServed)), "{next:?}");
}

async fn goes_on_when_it_is_invited(story: Story) {
    story.jiwei.seat(story.channel(), story.shenji.device()).await;
    restored(&story.shenji).await;
    send(&story.at_shenji, "到了").await;
    // What was stored has gone before it.
    assert_eq!(texts(&own(&story.at_shenji, 3).await), ["等着", "又一句", "到了"]);
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_nobody_seats_tells_its_application_and_goes_on_when_it_is_invited() {
    let story = Story::begin().await;
    story.restarts().await;
    let _other = story.jiwei_seats_another().await;
    is_told_that_nobody_seats_it(&story).await;
    goes_on_when_it_is_invited(story).await;
}

/// For all that it knows it may start another group; the gateway does not take that, and keeps from it why.
#[tokio::test(flavor = "multi_thread")]
async fn whose_own_start_is_refused_again_and_again_tells_its_application_that_it_has_no_seat() {
    let story = Story::begin().await;
    let (shenji, mut is_started) = (story.shenji.device().clone(), false);
    story.impostor.lie(move |passing| {
        change_events(passing, &shenji, &mut |event| {
            is_started |= event.kind == EventKind::Start as i32;
            if is_started && event.kind == EventKind::Commit as i32 { vec![] } else { vec![event] }
        })
    });
    story.restarts().await;
    let _other = story.jiwei_seats_another().await;
    is_told_that_nobody_seats_it(&story).await;
    story.impostor.be_honest();
    goes_on_when_it_is_invited(story).await;
}

/// The gateway's answers to what it sends, and its own invitation, come before the log's word of the break and of the group that
/// carries the channel on.
#[tokio::test(flavor = "multi_thread")]
async fn who_hears_of_its_seat_before_it_hears_of_the_group_loses_nothing_and_its_application_is_not_asked() {
    let story = Story::begin().await;
    story.impostor.lie(inbox_first());
    story.restarts().await;
    let sender = story.at_shenji.clone();
    let sent = tokio::spawn(async move { sender.send("等着").await });
    soon("an answer", async {
        while !story.zone.statistics().refusals.contains_key("NOT_MEMBER") {
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let told = event(&story.shenji, "nothing", |event| (!matches!(event, Event::MemberJoined { .. })).then_some(event));
    tokio::select! {
        event = told => panic!("{event:?}"),
        () = SystemClock.sleep(Duration::from_secs(1)) => {}
    }
    assert!(!sent.is_finished(), "given up: {:?}", sent.await);
    story.jiwei.seat(story.channel(), story.shenji.device()).await;
    event(&story.shenji, "the own seat", |event| match event {
        Event::ChannelRestored { .. } => Some(()),
        Event::Invited { .. } => panic!("the application is not asked"),
        Event::ChannelGone { reason, .. } => panic!("given up: {reason}"),
        _ => None,
    })
    .await;
    soon("a receipt", sent).await.expect("no panic").expect("accepted");
    story.end().await;
}

/// Nobody waits for whom there are no keys to be seated with.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_goes_when_none_of_those_who_are_left_can_be_seated_yet() {
    let zone = Zone::start().await;
    let jiwei = zone.client("jiwei", "app-1").await;
    let shenji = RawDevice::open(&zone, "shenji", "app-1").await;
    shenji.publish(shenji.key_packages(1).await).await.expect("published");
    let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
    soon("an invite", at_jiwei.invite(std::slice::from_ref(&shenji.uri))).await.expect("invited");
    let villain = Villain::in_channel(&zone, &at_jiwei).await;
    villain.breaks(at_jiwei.id()).await;
    event(&jiwei, "the violation", |event| matches!(event, Event::Violation { .. }).then_some(())).await;
    send(&at_jiwei, "等着").await;
    assert_eq!(at_jiwei.info().await.expect("a member").members, [jiwei.device().clone()]);
    // It is seated when it has some.
    shenji.publish(shenji.key_packages(1).await).await.expect("published");
    event(&jiwei, "the seat", |event| match event {
        Event::MemberJoined { device, epoch, .. } if epoch.0 == 1 && device == shenji.uri => Some(()),
        _ => None,
    })
    .await;
    jiwei.close().await.expect("closes");
    drop((villain, shenji));
    zone.close().await;
}

/// It was taken out and invited again while it was away; its invitation comes first, and of its old place the gateway says no more.
#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_that_was_withheld_for_the_log_is_told_when_the_gateway_gives_that_up() {
    let zone = Zone::start().await;
    let impostor = Impostor::before(&zone).await;
    let jiwei = zone.client("jiwei", "app-1").await;
    let shenji = impostor.client(&zone, "shenji").await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let channel = join(&at_jiwei, &shenji).await.id();
    event(&shenji, "its first invitation", |event| matches!(event, Event::Invited { .. }).then_some(())).await;
    let devices = [shenji.device().clone()];
    shenji.close().await.expect("closes");
    soon("a removal", at_jiwei.remove(&devices)).await.expect("removed");
    let again = soon("an invite", at_jiwei.invite(&devices)).await.expect("invited again").sequence.0;

    let reason = Problem::new(ReasonCode::NotMember).to_bytes();
    let closed = Frame::Closed(Closed { channel_id: channel.0.to_vec().into(), reason });
    let closed: Bytes = ReceiveResponse { frame: Some(closed) }.encode_to_vec().into();
    let of_shenji = devices[0].clone();
    impostor.lie(move |passing| match frame_of(&passing).filter(|_| *passing.to == of_shenji) {
        Some(Frame::Events(_) | Frame::Gap(_) | Frame::CaughtUp(_) | Frame::Closed(_)) => vec![],
        Some(Frame::Inbox(InboxItem { item: Some(Item::Welcome(welcome)), .. })) if welcome.sequence == again => {
            vec![passing.message, closed.clone()]
        }
        _ => vec![passing.message],
    });
    let shenji = impostor.client(&zone, "shenji").await;
    let mut is_gone = false;
    event(&shenji, "the invitation", |event| match event {
        Event::ChannelGone { .. } => {
            is_gone = true;
            None
        }
        Event::Invited { .. } => Some(()),
        _ => None,
    })
    .await;
    assert!(is_gone, "told before the log has had its say");
    impostor.be_honest();
    let at_shenji = accept(&shenji).await;
    send(&at_jiwei, "又在了").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["又在了"]);
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    zone.close().await;
}
