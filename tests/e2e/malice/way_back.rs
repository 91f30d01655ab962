//! A gateway that lies to an application which has to come back: it keeps what is stored from it, or serves what the others have left.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use lianxin_proto::channels::v1::GetGroupInfoResponse;
use lianxin_proto::messages::v1::receive_response::Frame;
use lianxin_proto::messages::v1::{Gap, ReceiveResponse};
use lianxin_sdk::{Channel, Client, ClientError, DeviceUri, Epoch, Event, Sequence};
use lianxin_types::Incarnation;
use prost::Message as _;

use super::Story;
use crate::heal::Villain;
use crate::impostor::{Impostor, Passing};
use crate::seats::inbox_first;
use crate::talk::{accept, create, event, join, receive, send, soon, texts};
use crate::zone::Zone;

/// What the victim is given behind the gap.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AfterTheGap {
    Everything,
    NoEvents,
}

/// Instead of the first events that weijian is given: there are none before `first` any more.
fn gap_instead_of_events(
    story: &Story,
    first: Sequence,
    then: AfterTheGap,
) -> impl FnMut(Passing<'_>) -> Vec<Bytes> + Send + 'static {
    let victim = story.clients[2].device().clone();
    let mut gap = Some(Gap { channel_id: story.channels[0].id().0.to_vec().into(), first_retained: first.0 });
    move |passing| {
        if *passing.to != victim || !passing.method.ends_with("/Receive") {
            return vec![passing.message];
        }
        let response = ReceiveResponse::decode(passing.message.clone()).expect("the gateway's own");
        let Some(Frame::Events(_)) = response.frame else { return vec![passing.message] };
        match (gap.take(), then) {
            (Some(gap), _) => vec![ReceiveResponse { frame: Some(Frame::Gap(gap)) }.encode_to_vec().into()],
            (None, AfterTheGap::Everything) => vec![passing.message],
            (None, AfterTheGap::NoEvents) => vec![],
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gets_no_events_behind_its_head_any_more_comes_back_from_outside_and_reads_on() {
    let story = Story::begin().await;
    let (impostor, zone) = (&story.impostor, &story.zone);
    story.clients[2].clone().close().await.expect("closes");
    for _ in 0..3 {
        story.say("它不在").await;
    }
    // As if retention had taken all but the last of them.
    let last = story.channels[0].info().await.expect("a member").head;
    impostor.lie(gap_instead_of_events(&story, last, AfterTheGap::Everything));
    let weijian = impostor.client(zone, "weijian").await;
    let own = weijian.device().clone();
    let away = event(&weijian, "why it cannot go on", |event| match event {
        Event::AwayTooLong { sequence, .. } => Some(sequence),
        _ => None,
    });
    assert_eq!(away.await, last);
    event(&weijian, "the way back", |event| match event {
        Event::MemberRejoined { device, .. } if device == own => Some(()),
        _ => None,
    })
    .await;
    story.say("回来就好").await;
    let at_weijian = weijian.channel(story.channels[2].id());
    assert_eq!(texts(&receive(&at_weijian, 1).await), ["回来就好"]);
    send(&at_weijian, "在").await;
    weijian.close().await.expect("closes");
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_stopped_on_its_way_back_goes_on_with_it_when_it_starts_again() {
    let story = Story::begin().await;
    let (impostor, zone) = (&story.impostor, &story.zone);
    story.clients[2].clone().close().await.expect("closes");
    story.say("它不在").await;
    let last = story.channels[0].info().await.expect("a member").head;
    // It never hears that its way back was accepted.
    impostor.lie(gap_instead_of_events(&story, last.next(), AfterTheGap::NoEvents));
    let weijian = impostor.client(zone, "weijian").await;
    let own = weijian.device().clone();
    let is_back = |event| match event {
        Event::MemberRejoined { device, .. } if device == own => Some(()),
        _ => None,
    };
    event(&story.clients[0], "the way back, as others see it", is_back).await;
    weijian.close().await.expect("closes");

    impostor.be_honest();
    let weijian = impostor.client(zone, "weijian").await;
    event(&weijian, "the way back", is_back).await;
    story.say("回来就好").await;
    let at_weijian = weijian.channel(story.channels[2].id());
    assert_eq!(texts(&receive(&at_weijian, 1).await), ["回来就好"]);
    weijian.close().await.expect("closes");
    story.end().await;
}

/// What the gateway served of the group, first for a way back that was in order.
type Kept = Arc<Mutex<Option<Bytes>>>;

/// The first answer to `GetGroupInfo` is kept, and given again to whoever asks for another.
fn serve_old(kept: &Kept, passing: &Passing<'_>) -> Option<Bytes> {
    let is_asked = passing.method.ends_with("/GetGroupInfo");
    is_asked.then(|| kept.lock().expect("whole").get_or_insert_with(|| passing.message.clone()).clone())
}

fn is_back(own: &DeviceUri) -> impl FnMut(Event) -> Option<Epoch> {
    move |event| match event {
        Event::MemberRejoined { device, epoch, .. } if device == *own => Some(epoch),
        _ => None,
    }
}

/// The application is told which GroupInfo that is, and nobody waits; its device does not come back by it.
async fn is_told(weijian: &Client, channel: &Channel, old: Epoch) {
    let own = weijian.device().clone();
    let told = event(weijian, "that an old one is served", |event| match event {
        Event::OldGroupInfo { channel, incarnation, epoch } => Some((channel, incarnation, epoch)),
        Event::MemberRejoined { device, .. } if device == own => panic!("it has come back by an old one"),
        _ => None,
    });
    assert_eq!(told.await, (channel.id(), Incarnation(0), old));
    let unsent = soon("an answer", channel.send("它听不到")).await;
    assert!(matches!(unsent, Err(ClientError::NotServed)), "{unsent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_group_info_is_refused_and_told_and_the_right_one_leads_back() {
    let story = Story::begin().await;
    let (impostor, zone) = (&story.impostor, &story.zone);
    let own = story.clients[2].device().clone();
    let kept = Kept::default();
    let old = story.channels[0].info().await.expect("a member").epoch;
    story.clients[2].clone().close().await.expect("closes");
    // Twice it cannot go on; the second time it is served what was right the first time.
    let mut weijian = None;
    for round in 0..2 {
        for _ in 0..3 {
            story.say("它不在").await;
        }
        let last = story.channels[0].info().await.expect("a member").head;
        let mut behind_the_gap = gap_instead_of_events(&story, last, AfterTheGap::Everything);
        let keep = Arc::clone(&kept);
        impostor.lie(move |passing| match serve_old(&keep, &passing) {
            Some(old) => vec![old],
            None => behind_the_gap(passing),
        });
        let opened = impostor.client(zone, "weijian").await;
        if round == 0 {
            assert_eq!(event(&opened, "the way back", is_back(&own)).await, Epoch(old.0 + 1));
            opened.close().await.expect("closes");
        } else {
            weijian = Some(opened);
        }
    }
    let weijian = weijian.expect("opened");
    let at_weijian = weijian.channel(story.channels[2].id());
    is_told(&weijian, &at_weijian, old).await;
    impostor.be_honest();
    assert_eq!(event(&weijian, "the way back", is_back(&own)).await, Epoch(old.0 + 2));
    story.say("回来就好").await;
    assert_eq!(texts(&receive(&at_weijian, 1).await), ["回来就好"]);

    send(&at_weijian, "在").await;
    weijian.close().await.expect("closes");
    story.end().await;
}

/// A member breaks the group for all, and the others come back at once; shenji is served what was right before.
struct Broken {
    zone: Zone,
    impostor: Impostor,
    clients: [Client; 2],
    channels: [Channel; 2],
    served: Bytes,
    villain: Villain,
}

impl Broken {
    async fn begin() -> Self {
        let zone = Zone::start().await;
        let impostor = Impostor::before(&zone).await;
        let jiwei = zone.client("jiwei", "app-1").await;
        let shenji = impostor.client(&zone, "shenji").await;
        let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
        let at_shenji = join(&at_jiwei, &shenji).await;
        let villain = Villain::in_channel(&zone, &at_jiwei).await;
        let old = at_jiwei.info().await.expect("a member");
        let (group_info, ratchet_tree) = villain.device.served(at_jiwei.id()).await;
        let sequence = old.head.0;
        let served: Bytes = GetGroupInfoResponse { sequence, group_info, ratchet_tree }.encode_to_vec().into();
        let story = Self { zone, impostor, clients: [jiwei, shenji], channels: [at_jiwei, at_shenji], served, villain };
        story.lie(|passing| vec![passing.message]);
        story.villain.spoils(old.id).await;
        let [jiwei, shenji] = &story.clients;
        event(jiwei, "the way back of the others", is_back(jiwei.device())).await;
        is_told(shenji, &story.channels[1], old.epoch).await;
        story
    }

    fn lie(&self, mut others: impl FnMut(Passing<'_>) -> Vec<Bytes> + Send + 'static) {
        let served = self.served.clone();
        self.impostor.lie(move |passing| match passing.method.ends_with("/GetGroupInfo") {
            true => vec![served.clone()],
            false => others(passing),
        });
    }

    async fn end(self) {
        for client in self.clients {
            client.close().await.expect("closes");
        }
        drop(self.villain);
        self.zone.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_group_is_broken_does_not_come_back_by_an_old_group_info_either() {
    let story = Broken::begin().await;
    story.impostor.be_honest();
    let ([_, shenji], [at_jiwei, at_shenji]) = (&story.clients, &story.channels);
    event(shenji, "the way back", is_back(shenji.device())).await;
    // What was stored meanwhile goes first.
    send(at_shenji, "在").await;
    assert_eq!(texts(&receive(at_jiwei, 2).await), ["它听不到", "在"]);
    story.end().await;
}

/// One commit takes it out and lets it in again: of that its group reads nothing.
#[tokio::test(flavor = "multi_thread")]
async fn whose_way_back_is_barred_is_invited_again_and_its_application_is_told() {
    let story = Broken::begin().await;
    let ([_, shenji], [at_jiwei, _]) = (&story.clients, &story.channels);
    story.lie(inbox_first());
    soon("an invite", at_jiwei.invite(&[shenji.device().clone()])).await.expect("invited");
    event(shenji, "the invitation", |event| matches!(event, Event::Invited { .. }).then_some(())).await;
    let at_shenji = accept(shenji).await;
    send(&at_shenji, "又在了").await;
    assert_eq!(texts(&receive(at_jiwei, 1).await), ["又在了"]);
    story.end().await;
}
