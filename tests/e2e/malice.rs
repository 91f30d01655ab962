//! A gateway that lies to an application: whatever it leaves out, changes, invents or mixes up is refused or raised by the
//! SDK, by name.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::Signer as _;
use lianxin_certs_dev::read_signing_key;
use lianxin_mls::{MlsError, Violation};
use lianxin_profile::{RemovalData, RemovalReason, removal_message};
use lianxin_proto::directory::v1::GetTrustResponse;
use lianxin_proto::key_packages::v1::ClaimResponse;
use lianxin_proto::messages::v1::receive_response::Frame;
use lianxin_proto::messages::v1::{ChannelEvent, EventBatch, EventKind, ReceiveResponse};
use lianxin_sdk::{Channel, Client, ClientError, DeviceUri, Event, Evidence};
use lianxin_types::{Clock as _, Digest, GroupId, Incarnation, Sequence, SystemClock};
use prost::Message as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::forge::Forger;
use crate::impostor::{Impostor, Passing};
use crate::talk::{create, event, join, own, receive, send, soon, texts};
use crate::zone::Zone;

mod way_back;

/// Three departments in a channel; what the gateway tells weijian goes through the impostor.
pub(crate) struct Story {
    pub(crate) zone: Zone,
    pub(crate) impostor: Impostor,
    pub(crate) clients: [Client; 3],
    pub(crate) channels: [Channel; 3],
}

impl Story {
    pub(crate) async fn begin() -> Self {
        let zone = Zone::start().await;
        let impostor = Impostor::before(&zone).await;
        let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
        let weijian = impostor.client(&zone, "weijian").await;
        let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
        let at_shenji = join(&at_jiwei, &shenji).await;
        let at_weijian = join(&at_jiwei, &weijian).await;
        let story =
            Self { zone, impostor, clients: [jiwei, shenji, weijian], channels: [at_jiwei, at_shenji, at_weijian] };
        story.say("都在").await;
        assert_eq!(texts(&story.hear(1).await), ["都在"]);
        story
    }

    /// jiwei says something, and knows that it stands in the log.
    async fn say(&self, text: &str) -> u64 {
        let before = own(&self.channels[0], 0).await.len();
        let sequence = send(&self.channels[0], text).await;
        own(&self.channels[0], before + 1).await;
        sequence
    }

    /// What weijian's application is given.
    async fn hear(&self, count: usize) -> Vec<lianxin_sdk::Message> {
        receive(&self.channels[2], count).await
    }

    /// The next violation that weijian's application is told. What it may hand on of it says the same.
    async fn violation(&self) -> (u64, String) {
        let weijian = &self.clients[2];
        let (sequence, sender, kind, detail) = event(weijian, "a violation", |event| match event {
            Event::Violation { sequence, sender, kind, detail, .. } => Some((sequence, sender, kind, detail)),
            _ => None,
        })
        .await;
        let channel = self.channels[2].id();
        let kept = weijian.evidence(channel, sequence).await.expect("readable").expect("kept");
        let handed_on = Evidence::from_bytes(&kept.to_bytes()).expect("whoever gets it can read it");
        assert_eq!(handed_on, kept);
        assert_eq!((kept.channel, kept.sequence, &kept.witness), (channel, sequence, weijian.device()));
        assert_eq!((kept.kind, &kept.detail, kept.sender), (kind, &detail, sender));
        assert!(!kept.mls.is_empty() && kept.chain_hash != Digest::ZERO && kept.leaf_hash != Digest::ZERO);
        assert_eq!(weijian.evidence(channel, Sequence(1)).await.expect("readable"), None, "nothing of honest events");
        (sequence.0, detail)
    }

    /// From now on this becomes of the events that weijian is given.
    fn lie(&self, mut change: impl FnMut(ChannelEvent) -> Vec<ChannelEvent> + Send + 'static) {
        let victim = self.clients[2].device().clone();
        self.impostor.lie(move |passing| change_events(passing, &victim, &mut change));
    }

    pub(crate) async fn end(self) {
        for client in self.clients {
            client.close().await.expect("closes");
        }
        self.zone.close().await;
    }
}

/// Each changed event goes out in a frame of its own.
pub(crate) fn change_events(
    passing: Passing<'_>,
    victim: &DeviceUri,
    change: &mut impl FnMut(ChannelEvent) -> Vec<ChannelEvent>,
) -> Vec<Bytes> {
    if passing.to != victim || !passing.method.ends_with("/Receive") {
        return vec![passing.message];
    }
    let response = ReceiveResponse::decode(passing.message.clone()).expect("the gateway's own");
    let Some(Frame::Events(batch)) = response.frame else { return vec![passing.message] };
    let changed = EventBatch::decode(batch).expect("the gateway's own").events.into_iter().flat_map(change);
    let batch = |event| EventBatch { events: vec![event] }.encode_to_vec().into();
    let frame = |event| ReceiveResponse { frame: Some(Frame::Events(batch(event))) };
    changed.map(|event| frame(event).encode_to_vec().into()).collect()
}

fn says(violation: &Violation) -> String {
    violation.to_string()
}

fn head_mismatch(sequence: u64) -> String {
    says(&Violation::HeadMismatch { sequence: Sequence(sequence) })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_left_out_is_asked_for_and_then_named() {
    let story = Story::begin().await;
    let mut hidden = 0;
    story.lie(move |event| {
        if hidden == 0 {
            hidden = event.sequence;
        }
        if event.sequence == hidden { vec![] } else { vec![event] }
    });
    let left_out = story.say("一").await;
    story.say("二").await;
    let reason = event(&story.clients[2], "an end", |event| match event {
        Event::ChannelGone { reason, .. } => Some(reason),
        _ => None,
    });
    let (before, behind) = (left_out - 1, left_out + 1);
    assert_eq!(reason.await, format!("the gateway has no events between {before} and {behind}"));
    // It goes through, and this device will not see that on this connection: nobody waits for it.
    let shenji = story.clients[1].device().clone();
    let change = soon("an answer", story.channels[2].remove(&[shenji])).await;
    assert!(matches!(change, Err(ClientError::NotServed)), "{change:?}");

    // Nothing is lost by it: from an honest gateway everything comes, once and in order.
    story.impostor.be_honest();
    let Story { zone, impostor, clients: [jiwei, shenji, weijian], channels } = story;
    weijian.close().await.expect("closes");
    let weijian = impostor.client(&zone, "weijian").await;
    assert_eq!(texts(&receive(&weijian.channel(channels[2].id()), 2).await), ["一", "二"]);
    Story { zone, impostor, clients: [jiwei, shenji, weijian], channels }.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_answer_is_lost_before_its_channel_is_given_up_does_not_keep_anybody_waiting() {
    let story = Story::begin().await;
    let victim = story.clients[2].device().clone();
    let mut is_kept_back = |event: ChannelEvent| match event.kind == EventKind::Commit as i32 {
        true => vec![],
        false => vec![event],
    };
    let mut answers = 0;
    story.impostor.lie(move |passing| {
        if *passing.to == victim && passing.method.ends_with("/Commit") {
            answers += 1;
            return if answers == 1 { vec![] } else { vec![passing.message] };
        }
        change_events(passing, &victim, &mut is_kept_back)
    });
    let shenji = story.clients[1].device().clone();
    let devices = std::slice::from_ref(&shenji);
    let (change, _) = tokio::join!(soon("an answer", story.channels[2].remove(devices)), async {
        let gone = event(&story.clients[0], "the removal", |event| match event {
            Event::MemberLeft { device, .. } => Some(device),
            _ => None,
        });
        assert_eq!(gone.await, shenji);
        // Behind the commit, which weijian is not given.
        story.say("之后").await
    });
    assert!(matches!(change, Err(ClientError::NotServed)), "{change:?}");
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_left_out_without_a_hole_shows_in_what_the_next_one_says() {
    let story = Story::begin().await;
    let mut hidden = 0;
    story.lie(move |mut event| {
        if hidden == 0 {
            hidden = event.sequence;
            return vec![];
        }
        event.sequence -= 1;
        vec![event]
    });
    let left_out = story.say("一").await;
    story.say("二").await;
    // The sender of the second has seen the first there; here the second itself stands in its place.
    assert_eq!(story.violation().await, (left_out, head_mismatch(left_out)));
    story.say("三").await;
    assert_eq!(story.violation().await, (left_out + 1, head_mismatch(left_out + 1)));
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_events_in_each_others_place_show_in_what_the_next_one_says() {
    let story = Story::begin().await;
    let mut held: VecDeque<ChannelEvent> = VecDeque::new();
    let mut are_swapped = false;
    story.lie(move |mut event| {
        if are_swapped {
            return vec![event];
        }
        let Some(mut first) = held.pop_front() else {
            held.push_back(event);
            return vec![];
        };
        are_swapped = true;
        std::mem::swap(&mut first.sequence, &mut event.sequence);
        vec![event, first]
    });
    let first = story.say("一").await;
    let second = send(&story.channels[1], "二").await;
    story.say("三").await;
    let (at, detail) = story.violation().await;
    assert!([first, second, second + 1].contains(&at), "{at}");
    assert!(detail.starts_with("the sender's log differs"), "{detail}");
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_is_moved_back_shows_in_what_the_next_one_says() {
    let story = Story::begin().await;
    let mut is_done = false;
    story.lie(move |mut event| {
        if !is_done {
            event.gateway_time_us -= 3_600_000_000;
            is_done = true;
        }
        vec![event]
    });
    let back_dated = story.say("一").await;
    story.say("二").await;
    assert_eq!(story.violation().await, (back_dated + 1, head_mismatch(back_dated)));
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_kept_from_one_member_leaves_it_alone_with_a_fork_it_sees() {
    let story = Story::begin().await;
    let mut hidden = 0;
    story.lie(move |mut event| {
        if event.kind == EventKind::Commit as i32 {
            hidden += 1;
            return vec![];
        }
        event.sequence -= hidden;
        vec![event]
    });
    let shenji = story.clients[1].device().clone();
    let removed = soon("a removal", story.channels[0].remove(&[shenji])).await.expect("removed").sequence.0;
    story.say("只有两方了").await;
    let (at, detail) = story.violation().await;
    assert_eq!(at, removed);
    assert!([head_mismatch(removed), says(&Violation::Undecryptable)].contains(&detail), "{detail}");
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_under_another_name_is_hidden_and_both_names_are_told() {
    let story = Story::begin().await;
    let named = story.clients[1].device().clone();
    let other = named.as_str().to_owned();
    story.lie(move |event| vec![ChannelEvent { sender_uri: other.clone(), ..event }]);
    let at = story.say("假如是审计局说的").await;
    let found = story.clients[0].device().clone();
    assert_eq!(story.violation().await, (at, says(&Violation::SenderMismatch { named, found })));
    assert_eq!(own(&story.channels[2], 1).await.len(), 1, "the message is not shown under a wrong name");
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_device_is_said_to_have_sent_and_has_not_is_told() {
    let story = Story::begin().await;
    let (named, found) = (story.clients[2].device().clone(), story.clients[0].device().clone());
    let victim = named.as_str().to_owned();
    story.lie(move |event| vec![ChannelEvent { sender_uri: victim.clone(), ..event }]);
    let at = story.say("假如是你自己说的").await;
    assert_eq!(story.violation().await, (at, says(&Violation::SenderMismatch { named, found })));
    assert_eq!(own(&story.channels[2], 1).await.len(), 1, "it is not among the own messages");
    story.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ghost_in_the_place_of_an_invited_device_is_not_let_in() {
    let zone = Zone::start().await;
    let impostor = Impostor::before(&zone).await;
    let shenji = zone.client("shenji", "app-1").await;
    let jiwei = impostor.client(&zone, "jiwei").await;
    let channel = create(&jiwei, &["jiwei", "shenji"]).await;
    // A device that the gateway's operator has won over: of a department that the channel names, with good certificates.
    let ghost = zone.app("shenji", "app-2");
    let package = Forger::new(&ghost.mls_certificate, &ghost.mls_key).key_package(24 * 3_600);
    impostor.lie(move |passing| {
        if !passing.method.ends_with("/Claim") {
            return vec![passing.message];
        }
        let mut answer = ClaimResponse::decode(passing.message).expect("the gateway's own");
        answer.key_packages = vec![package.clone().into()];
        vec![answer.encode_to_vec().into()]
    });
    let invited = shenji.device().clone();
    let refused = soon("an answer", channel.invite(std::slice::from_ref(&invited))).await;
    match refused {
        Err(ClientError::Mls(MlsError::ForeignKeyPackage { asked, found })) => {
            assert_eq!((asked, found), (invited, ghost.uri));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(channel.info().await.expect("a member").members, [jiwei.device().clone()]);
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    zone.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_trust_bundle_is_refused_and_the_newer_one_stays() {
    let story = Story::begin().await;
    let Story { zone, impostor, clients: [jiwei, shenji, weijian], .. } = story;
    let first = std::fs::read(zone.minted.bundle_file()).expect("minted");
    zone.minted.at(SystemClock.now()).succeed(|_| ()).expect("signed");
    zone.reload().await.expect("taken over");
    soon("the second bundle", async {
        while weijian.bundle_version() < 2 {
            SystemClock.sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    weijian.close().await.expect("closes");

    impostor.lie(move |passing| {
        if !passing.method.ends_with("/GetTrust") {
            return vec![passing.message];
        }
        let mut answer = GetTrustResponse::decode(passing.message).expect("the gateway's own");
        answer.trust_bundle = first.clone().into();
        vec![answer.encode_to_vec().into()]
    });
    let weijian = impostor.client(&zone, "weijian").await;
    let refused = event(&weijian, "a refused bundle", |event| match event {
        Event::TrustRefused { reason } => Some(reason),
        _ => None,
    });
    let reason = refused.await;
    assert!(reason.contains("older") || reason.contains("lower"), "{reason}");
    assert_eq!(weijian.bundle_version(), 2);
    for client in [jiwei, shenji, weijian] {
        client.close().await.expect("closes");
    }
    zone.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_the_gateway_asks_for_without_evidence_is_named_and_not_obeyed() {
    let story = Story::begin().await;
    let key = read_signing_key(&story.zone.minted.gateway().removal_key).expect("minted");
    let info = story.channels[2].info().await.expect("a member");
    let accused = story.clients[1].device().clone();
    let group = GroupId { channel: info.id, incarnation: Incarnation(0) };
    let evidence = Digest::sha256(
        &CertificateDer::from_pem_file(story.zone.app("shenji", "app-1").mls_certificate).expect("minted"),
    );
    let data = RemovalData { reason: RemovalReason::CertificateRevoked, evidence };
    let proposal = removal_message(group, info.epoch, 1, &data, |signed| key.sign(signed).to_bytes());
    let mut added = 0;
    story.lie(move |mut event| {
        if added > 0 {
            event.sequence += added;
            return vec![event];
        }
        added = 1;
        let forged = ChannelEvent {
            kind: EventKind::Proposal as i32,
            sender_uri: "lianxin://jiwei/gateway/g/1".to_owned(),
            mls: proposal.clone().into(),
            ..event.clone()
        };
        event.sequence += 1;
        vec![forged, event]
    });
    let at = story.say("审计局还在").await;
    assert_eq!(story.violation().await, (at, says(&Violation::UnfoundedRemoval { device: accused.clone() })));
    assert!(
        story.channels[2].info().await.expect("a member").members.contains(&accused),
        "nobody is removed on its word"
    );
    story.end().await;
}
