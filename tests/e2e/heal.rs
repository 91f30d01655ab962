//! A channel that a commit has broken for good goes on in another group: by itself, without whoever made the commit, and with
//! everybody else.

use std::sync::Arc;

use lianxin_connection::CallError;
use lianxin_harness::Line;
use lianxin_mls::{CommitBundle, MlsError};
use lianxin_profile::{parse_group_info, stored_context};
use lianxin_proto::messages::History;
use lianxin_sdk::{Channel, ChannelId, Client, ClientError, DeviceUri, Event, Incarnation, ReasonCode, Sequence};
use lianxin_tlog::{EventKind, Head};
use lianxin_types::{Clock as _, Digest, Epoch, SystemClock};

use crate::forge::{self, Forger};
use crate::raw::{RawDevice, fresh_id};
use crate::refusals::assert_refused;
use crate::talk::{create, event, join, own, receive, send, soon, texts};
use crate::zone::Zone;

/// A member that means no good, and a device that it brings in by the commit that breaks the channel.
pub(crate) struct Villain {
    pub(crate) device: RawDevice,
    second: RawDevice,
    forger: Forger,
}

impl Villain {
    pub(crate) async fn in_channel(zone: &Zone, channel: &Channel) -> Self {
        let device = RawDevice::open(zone, "weijian", "app-1").await;
        device.publish(device.key_packages(1).await).await.expect("published");
        soon("an invite", channel.invite(std::slice::from_ref(&device.uri))).await.expect("invited");
        device.join_and_read(channel.id()).await;
        let app = zone.app("weijian", "app-1");
        let second = RawDevice::open(zone, "weijian", "app-2").await;
        second.publish(second.key_packages(1).await).await.expect("published");
        Self { device, second, forger: Forger::new(&app.mls_certificate, &app.mls_key) }
    }

    /// The same, in a channel of `member`, which brings it in.
    pub(crate) async fn beside(zone: &Zone, member: &RawDevice, channel: ChannelId) -> Self {
        let device = RawDevice::open(zone, "weijian", "app-1").await;
        member.add(channel, &device).await;
        let second = RawDevice::open(zone, "weijian", "app-2").await;
        second.publish(second.key_packages(1).await).await.expect("published");
        let app = zone.app("weijian", "app-1");
        Self { device, second, forger: Forger::new(&app.mls_certificate, &app.mls_key) }
    }

    pub(crate) const fn uri(&self) -> &DeviceUri {
        &self.device.uri
    }

    /// A commit that everybody can process, with a public state of which only members can tell that nobody can come back by it. Gives
    /// the epoch that it begins.
    pub(crate) async fn signs_a_wrong_group_info(&self, channel: ChannelId) -> Epoch {
        self.device.read(channel).await;
        let package = self.device.claim(channel, &self.second.uri).await.expect("claimed").remove(0);
        let mut bundle = self.device.invite_bundle(channel, &package).await;
        bundle.group_info = self.forger.with_extensions(&bundle.group_info, forge::external_pub(Some([9; 32])));
        self.device.commit(channel, &bundle, fresh_id()).await.expect("the gateway cannot see it");
        self.device.read(channel).await;
        self.device.view(channel).await.epoch
    }

    /// A commit that no member can process: the gateway cannot see it. By its public state they can come back.
    pub(crate) async fn spoils(&self, channel: ChannelId) -> Sequence {
        let bundle = self.bad_commit(channel).await;
        self.device.commit(channel, &bundle, fresh_id()).await.expect("the gateway cannot see it").sequence
    }

    async fn bad_commit(&self, channel: ChannelId) -> CommitBundle {
        self.device.read(channel).await;
        let package = self.device.claim(channel, &self.second.uri).await.expect("claimed").remove(0);
        let mut bundle = self.device.invite_bundle(channel, &package).await;
        *bundle.commit.last_mut().expect("not empty") ^= 1;
        bundle
    }

    /// A commit that no member can process, with a public state by which nobody can come back: the gateway can see neither.
    pub(crate) async fn breaks(&self, channel: ChannelId) -> Sequence {
        let mut bundle = self.bad_commit(channel).await;
        // A point of small order: what is encrypted to it has no secret, so HPKE refuses it.
        bundle.group_info = self.forger.with_extensions(&bundle.group_info, forge::external_pub(Some([0; 32])));
        self.device.commit(channel, &bundle, fresh_id()).await.expect("the gateway cannot see it").sequence
    }
}

/// jiwei's application reports the commit that broke the channel and starts the next group, by raw calls and without seating
/// anybody.
pub(crate) async fn jiwei_carries_on(zone: &Zone, jiwei: &RawDevice, channel: ChannelId, broken: Sequence) {
    jiwei.read(channel).await;
    let said = crate::reports::report(jiwei, channel, broken.0).await;
    jiwei.report(channel, crate::reports::signed(zone, ("jiwei", "app-1"), &said), fresh_id()).await.expect("taken");
    jiwei.read(channel).await;
    let start = jiwei.work(move |tx, mls, federation| mls.next_incarnation(tx, federation, channel)).await;
    jiwei.start_incarnation(channel, &start, fresh_id()).await.expect("who has reported it may");
    jiwei.read(channel).await;
}

/// That the channel was started anew, by whom and without whom.
async fn restarted(client: &Client) -> (Incarnation, DeviceUri, Option<DeviceUri>) {
    event(client, "another group", |event| match event {
        Event::ChannelRestarted { incarnation, by, culprit, .. } => Some((incarnation, by, culprit)),
        Event::MemberRejoined { .. } => panic!("there is no way back"),
        _ => None,
    })
    .await
}

pub(crate) async fn restored(client: &Client) {
    event(client, "the own seat", |event| matches!(event, Event::ChannelRestored { .. }).then_some(())).await;
}

/// All of them stand in one state of the group, with exactly these members.
async fn assert_together(channels: &[&Channel], members: &[&DeviceUri]) {
    let mut expect: Vec<DeviceUri> = members.iter().map(|uri| (*uri).clone()).collect();
    expect.sort();
    soon("one state", async {
        loop {
            let mut infos = Vec::new();
            for channel in channels {
                infos.push(channel.info().await.expect("a member"));
            }
            let same = |info: &lianxin_sdk::ChannelInfo| {
                let mut found = info.members.clone();
                found.sort();
                found == expect
                    && info.epoch_authenticator == infos[0].epoch_authenticator
                    && info.head == infos[0].head
                    && !info.is_broken
            };
            if infos.iter().all(same) {
                return;
            }
            SystemClock.sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_broken_for_good_goes_on_without_the_culprit_and_with_everybody_else() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let third = zone.client("shenji", "app-2").await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    let at_third = join(&at_jiwei, &third).await;
    let villain = Villain::in_channel(&zone, &at_jiwei).await;
    let channel = at_jiwei.id();
    send(&at_jiwei, "此前").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["此前"]);

    let broken = villain.breaks(channel).await;
    let (mut starters, members) = (Vec::new(), [jiwei.device(), shenji.device(), third.device()]);
    for client in [&jiwei, &shenji, &third] {
        let reported = event(client, "the violation", |event| match event {
            Event::Violation { sequence, sender, .. } => Some((sequence, sender)),
            _ => None,
        });
        assert_eq!(reported.await, (broken, villain.device.uri.clone()), "the culprit is named");
        let (incarnation, by, culprit) = restarted(client).await;
        assert_eq!((incarnation, culprit), (Incarnation(1), Some(villain.device.uri.clone())));
        starters.push(by);
        restored(client).await;
    }
    assert!(starters.iter().all(|by| *by == starters[0]) && members.contains(&&starters[0]), "{starters:?}");
    assert_together(&[&at_jiwei, &at_shenji, &at_third], &members).await;

    // Label, log and history go on.
    assert_eq!(at_third.info().await.expect("a member").label, crate::talk::label());
    send(&at_third, "此后").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["此后"]);
    assert_eq!(texts(&own(&at_jiwei, 2).await), ["此前", "此后"]);
    // The culprit is out, and what it knows does not bring it back.
    let wrong = villain.device.encrypt(channel, "还在吗").await;
    let answer = villain.device.send(channel, &[(fresh_id(), wrong)]).await.remove(0);
    assert_eq!(answer.expect_err("out").code, ReasonCode::NotMember);
    for client in [jiwei, shenji, third] {
        client.close().await.expect("closes");
    }
    drop(villain);
    let closed = zone.close().await;
    let bodies = closed.shared_bodies();
    let starts: Vec<_> = bodies.iter().filter(|body| body["event"] == "incarnation-started").collect();
    assert_eq!(starts.len(), 1, "{starts:?}");
    assert_eq!(
        (&starts[0]["incarnation"], &starts[0]["awaited"], &starts[0]["left"]),
        (&1.into(), &2.into(), &1.into())
    );
    let reported = bodies.iter().filter(|body| body["event"] == "commit-reported").count();
    assert!((1..=3).contains(&reported), "{reported} reports");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_meanwhile_goes_on_and_who_was_away_reads_everything_and_a_killed_gateway_keeps_nobody() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let third = zone.client("shenji", "app-2").await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    let at_third = join(&at_jiwei, &third).await;
    let villain = Villain::in_channel(&zone, &at_jiwei).await;
    let channel = at_jiwei.id();
    let own_uri = third.device().clone();
    soon("a key package for later", at_third.info()).await.expect("a member");
    third.close().await.expect("closes");
    send(&at_jiwei, "离线时").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["离线时"]);

    villain.breaks(channel).await;
    event(&jiwei, "the violation", |event| matches!(event, Event::Violation { .. }).then_some(())).await;
    // It waits for the way back, whatever that will be.
    let (sender, waiting) = (at_jiwei.clone(), "等着");
    let sent = tokio::spawn(async move { sender.send(waiting).await });
    // The gateway goes away in the middle of it.
    let zone = zone.restart().await;
    for client in [&jiwei, &shenji] {
        restored(client).await;
    }
    soon("a receipt", sent).await.expect("no panic").expect("accepted");
    assert_eq!(texts(&receive(&at_shenji, 1).await), [waiting]);

    let third = zone.client("shenji", "app-2").await;
    let at_third = third.channel(channel);
    let (_, _, culprit) = restarted(&third).await;
    assert_eq!(culprit.as_ref(), Some(&villain.device.uri));
    restored(&third).await;
    assert_together(&[&at_jiwei, &at_shenji, &at_third], &[jiwei.device(), shenji.device(), &own_uri]).await;
    // What was said before the break it reads; what was said in a group in which it had no seat yet it cannot.
    let heard = own(&at_third, 1).await;
    assert_eq!(heard[0].text(), Some("离线时"));
    send(&at_third, "我也在").await;
    assert_eq!(texts(&receive(&at_jiwei, 1).await), ["我也在"]);
    for client in [jiwei, shenji, third] {
        client.close().await.expect("closes");
    }
    drop(villain);
    let closed = zone.close().await;
    let starts = closed.shared_bodies().iter().filter(|body| body["event"] == "incarnation-started").count();
    assert_eq!(starts, 1);
}

/// Another carries the channel on between a member's question for the way back and the gateway's answer, which is that it is no
/// member now: the log has told it more, and it waits for its seat.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_the_way_back_behind_the_next_group_waits_for_its_seat() {
    let zone = Zone::start().await;
    let jiwei = RawDevice::open(&zone, "jiwei", "app-1").await;
    let channel = jiwei.channel(&["jiwei", "shenji", "weijian"]).await;
    let line = Line::to(zone.address()).await.expect("a free port");
    let config = zone.config("shenji", "app-1").with_endpoint("127.0.0.1", line.address().port());
    let shenji = Client::open(config).await.expect("opens");
    soon("a connection", shenji.connected()).await.expect("connects");
    jiwei.seat(channel, shenji.device()).await;
    let invitation = soon("an invitation", shenji.invitations().next()).await.expect("open").expect("one");
    let at_shenji = shenji.accept(invitation).await.expect("joins");
    let villain = Villain::beside(&zone, &jiwei, channel).await;
    soon("everything read", at_shenji.info()).await.expect("a member");

    line.hold_requests();
    let broken = villain.breaks(channel).await;
    event(&shenji, "the violation", |event| matches!(event, Event::Violation { .. }).then_some(())).await;
    let (sender, waiting) = (at_shenji.clone(), "等着");
    let sent = tokio::spawn(async move { sender.send(waiting).await });
    // By now it has asked for the way back, as far as the line.
    SystemClock.sleep(std::time::Duration::from_secs(2)).await;
    jiwei_carries_on(&zone, &jiwei, channel, broken).await;
    restarted(&shenji).await;
    line.release();
    // Its question is answered, and that it may not send now.
    let answered = async {
        while !zone.statistics().refusals.contains_key("NOT_MEMBER") {
            SystemClock.sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    soon("an answer", answered).await;
    SystemClock.sleep(std::time::Duration::from_secs(1)).await;
    if sent.is_finished() {
        let reason = event(&shenji, "the reason", |event| match event {
            Event::ChannelGone { reason, .. } => Some(reason),
            _ => None,
        });
        panic!("given up: {:?}, {:?}", sent.await, reason.await);
    }
    // Nor can it invite; it is told why, and not that it is no member.
    let early = soon("an answer", at_shenji.invite(std::slice::from_ref(&jiwei.uri))).await;
    assert!(matches!(early, Err(ClientError::Mls(MlsError::Broken))), "{early:?}");
    jiwei.seat(channel, shenji.device()).await;
    event(&shenji, "the own seat", |event| match event {
        Event::ChannelRestored { .. } => Some(()),
        Event::ChannelGone { reason, .. } => panic!("given up: {reason}"),
        _ => None,
    })
    .await;
    let receipt = soon("a receipt", sent).await.expect("no panic").expect("accepted");
    assert!(receipt.sequence > broken);
    shenji.close().await.expect("closes");
}

/// Whoever starts the next group may be gone before it has seated anybody. The next member starts another, and the first one, should
/// it come back, has its seat there like everybody else.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_starter_seats_nobody_the_next_member_starts_another_group() {
    let zone = Zone::start().await;
    let jiwei = RawDevice::open(&zone, "jiwei", "app-1").await;
    jiwei.publish(jiwei.key_packages(2).await).await.expect("published");
    let channel = jiwei.channel(&["jiwei", "shenji", "weijian"]).await;
    for name in ["app-1", "app-2"] {
        let client = zone.client("shenji", name).await;
        jiwei.seat(channel, client.device()).await;
        let invitation = soon("an invitation", client.invitations().next()).await.expect("open").expect("one");
        let joined = client.accept(invitation).await.expect("joins");
        soon("everything read", joined.info()).await.expect("a member");
        client.close().await.expect("closes");
    }
    let villain = Villain::beside(&zone, &jiwei, channel).await;
    let broken = villain.breaks(channel).await;
    jiwei_carries_on(&zone, &jiwei, channel, broken).await;
    // That was its last step.

    let [first, other] = [zone.client("shenji", "app-1").await, zone.client("shenji", "app-2").await];
    let (at_first, at_other) = (first.channel(channel), other.channel(channel));
    let sender = at_first.clone();
    let sent = tokio::spawn(async move { sender.send("等着").await });
    let mut starters = Vec::new();
    for client in [&first, &other] {
        let (incarnation, by, culprit) = restarted(client).await;
        let expect = (Incarnation(1), jiwei.uri.clone(), Some(villain.device.uri.clone()));
        assert_eq!((incarnation, by, culprit), expect);
        let (incarnation, by, culprit) = restarted(client).await;
        assert_eq!((incarnation, culprit), (Incarnation(2), Some(villain.device.uri.clone())));
        starters.push(by);
        restored(client).await;
    }
    assert!(starters[0] == starters[1] && [first.device(), other.device()].contains(&&starters[0]), "{starters:?}");
    soon("a receipt", sent).await.expect("no panic").expect("accepted");
    assert_eq!(texts(&receive(&at_other, 1).await), ["等着"]);
    assert_together(&[&at_first, &at_other], &[first.device(), other.device(), &jiwei.uri]).await;
    // It comes back, and finds another group in the place of its own.
    for event in jiwei.log(channel, jiwei.view(channel).await.head.sequence).await {
        if event.kind == EventKind::Commit {
            break;
        }
        jiwei.take_in(event).await;
    }
    assert!(jiwei.view(channel).await.is_awaited);
    for client in [first, other] {
        client.close().await.expect("closes");
    }
    drop((villain, jiwei));
    let closed = zone.close().await;
    let bodies = closed.shared_bodies();
    let starts: Vec<_> = bodies.iter().filter(|body| body["event"] == "incarnation-started").collect();
    let numbers: Vec<_> = starts.iter().map(|body| (&body["incarnation"], &body["awaited"], &body["left"])).collect();
    assert_eq!(numbers, [(&1.into(), &2.into(), &1.into()), (&2.into(), &1.into(), &0.into())]);
}

/// Only who has reported the commit of the current epoch carries the channel on, and only as the rules say.
#[tokio::test(flavor = "multi_thread")]
async fn a_next_group_that_may_not_be_is_refused_and_of_two_one_wins() {
    let zone = Zone::start().await;
    let [jiwei, shenji, weijian, stranger] = zone.raws(["jiwei", "shenji", "weijian", "waibu"]).await;
    let second = RawDevice::open(&zone, "jiwei", "app-2").await;
    let names = ["jiwei", "shenji", "weijian"];
    let channel = jiwei.channel(&names).await;
    for member in [&shenji, &weijian, &second] {
        jiwei.add(channel, member).await;
    }
    let before = shenji.view(channel).await.head;
    for member in [&shenji, &weijian] {
        member.read(channel).await;
    }
    let head = shenji.view(channel).await.head;
    let (federation, home): (_, lianxin_sdk::ZoneId) =
        (Arc::clone(&shenji.federation), "cn-zj-1".parse().expect("well formed"));
    let forger = |department| {
        let app = zone.app(department, "app-1");
        Forger::new(&app.mls_certificate, &app.mls_key)
    };
    let (ours, theirs) = (forger("shenji"), forger("weijian"));
    let by = |forger: &Forger, number, slot_key, head| {
        forger.start_behind(&federation, (channel, number), &home, &names, [slot_key; 32], head)
    };
    let good = by(&ours, 1, 8, head);
    let unknown = shenji.start_incarnation(channel, &good, fresh_id()).await;
    assert_refused(&unknown, ReasonCode::UnknownCommit);

    for (member, name) in [(&shenji, "shenji"), (&weijian, "weijian")] {
        let said = crate::reports::report(member, channel, head.sequence.0).await;
        let bytes = crate::reports::signed(&zone, (name, "app-1"), &said);
        member.report(channel, bytes, fresh_id()).await.expect("taken");
    }
    let (served, _) = shenji.served(channel).await;
    let served = parse_group_info(&served).expect("a group info");
    let slot_key = *stored_context(served.group_context()).expect("ours").slot_key();
    let false_head = Head { chain_hash: Digest([9; 32]), ..head };
    let cases = [
        ("the incarnation after the next", by(&ours, 2, 8, head), ReasonCode::InvalidGroupInfo),
        ("the same again", by(&ours, 0, 8, head), ReasonCode::InvalidGroupInfo),
        ("behind an older head", by(&ours, 1, 8, before), ReasonCode::InvalidGroupInfo),
        ("behind a false head", by(&ours, 1, 8, false_head), ReasonCode::BadHead),
        ("with another's leaf", by(&theirs, 1, 8, head), ReasonCode::SenderMismatch),
    ];
    for (what, start, expect) in cases {
        let answer = shenji.start_incarnation(channel, &start, fresh_id()).await;
        assert_eq!(answer.expect_err(what).code, expect, "{what}");
    }
    let same_key = ours.start_behind(&federation, (channel, 1), &home, &names, slot_key, head);
    assert_refused(&shenji.start_incarnation(channel, &same_key, fresh_id()).await, ReasonCode::InvalidContext);
    let fewer = ours.start_behind(&federation, (channel, 1), &home, &["jiwei", "shenji"], [8; 32], head);
    assert_refused(&shenji.start_incarnation(channel, &fewer, fresh_id()).await, ReasonCode::InvalidContext);
    let culprits = by(&forger("jiwei"), 1, 8, head);
    assert_refused(&jiwei.start_incarnation(channel, &culprits, fresh_id()).await, ReasonCode::CommitterPaused);
    let outside = by(&forger("waibu"), 1, 8, head);
    assert_refused(&stranger.start_incarnation(channel, &outside, fresh_id()).await, ReasonCode::ChannelNotAvailable);

    let id = fresh_id();
    let done = shenji.start_incarnation(channel, &good, id).await.expect("who has reported it may");
    let again = shenji.start_incarnation(channel, &good, id).await.expect("the same again");
    assert_eq!((done.sequence, done.leaf_hash), (again.sequence, again.leaf_hash));
    let late = weijian.start_incarnation(channel, &by(&theirs, 1, 9, head), fresh_id()).await;
    assert_refused(&late, ReasonCode::NotMember);
    // Who is awaited reads on, and does nothing else; who came by that commit, or made it, is out.
    let read = weijian.log(channel, head.sequence).await;
    assert_eq!(read.last().map(|event| (event.kind, event.sequence)), Some((EventKind::Start, done.sequence)));
    let word = (fresh_id(), weijian.encrypt(channel, "在吗").await);
    assert_refused(&weijian.send(channel, &[word]).await.remove(0), ReasonCode::NotMember);
    // Whoever has started the group has time yet to seat the others.
    weijian.read(channel).await;
    let instead = by(&theirs, 2, 9, weijian.view(channel).await.head);
    assert_refused(&weijian.start_incarnation(channel, &instead, fresh_id()).await, ReasonCode::NotMember);
    for gone in [&jiwei, &second] {
        let history = History { channel, after: Sequence(0), events_max: 10 };
        let answer = soon("an answer", gone.connection.history(history)).await;
        let Err(CallError::Refused(problem)) = answer else { panic!("{answer:?}") };
        assert_eq!(problem.code, ReasonCode::NotMember);
    }
    drop((jiwei, shenji, weijian, stranger, second));
    let closed = zone.close().await;
    let bodies = closed.shared_bodies();
    for code in ["UNKNOWN_COMMIT", "INVALID_GROUP_INFO", "BAD_HEAD", "SENDER_MISMATCH", "INVALID_CONTEXT"] {
        let found = bodies.iter().any(|body| body["action"] == "start-incarnation" && body["reason"] == code);
        assert!(found, "{code} has no audit record");
    }
    assert_eq!(bodies.iter().filter(|body| body["event"] == "incarnation-started").count(), 1);
}
