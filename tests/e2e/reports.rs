//! Commits that members cannot process: reported, told to all, the committer stopped until its owner allows it.

use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::Signer as _;
use lianxin_certs_dev::read_signing_key;
use lianxin_profile::{Report, ReportReason};
use lianxin_proto::ReasonCode;
use lianxin_sdk::{Channel, ClientError, Event};
use lianxin_tlog::EventKind;
use lianxin_types::{ChannelId, Clock as _, Digest, GroupId, Incarnation, Sequence, SystemClock};

use crate::forge::Forger;
use crate::raw::{RawDevice, fresh_id};
use crate::refusals::assert_refused;
use crate::talk::{accept, create, event, join, receive, send, soon, texts};
use crate::zone::Zone;

/// What there is to say about the commit at `sequence`.
pub(crate) async fn report(device: &RawDevice, channel: ChannelId, sequence: u64) -> Report {
    let events = device.log(channel, Sequence(sequence - 1)).await;
    let commit = events.iter().find(|event| event.sequence == Sequence(sequence)).expect("in the log");
    let epoch = lianxin_profile::parse_handshake(&commit.mls).expect("a commit").epoch;
    let group = GroupId { channel, incarnation: Incarnation(0) };
    let reason = ReportReason::CannotProcess;
    Report { group, epoch, sequence: Sequence(sequence), commit: Digest::sha256(&commit.mls), reason }
}

pub(crate) fn signed(zone: &Zone, name: (&str, &str), report: &Report) -> Bytes {
    let key = read_signing_key(&zone.app(name.0, name.1).mls_key).expect("minted");
    report.signed(|bytes| key.sign(bytes).to_bytes()).into()
}

/// Both come to the same epoch, and agree on its secrets.
async fn assert_in_one_state(one: &Channel, two: &Channel) {
    soon("the same epoch", async {
        loop {
            let (mine, yours) = (one.info().await.expect("a member"), two.info().await.expect("a member"));
            if mine.head == yours.head && !mine.is_broken && !yours.is_broken {
                assert_eq!(mine.epoch_authenticator, yours.epoch_authenticator);
                assert_eq!((mine.epoch, mine.members), (yours.epoch, yours.members));
                return;
            }
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_breaks_its_readers_is_reported_by_them_and_stops_its_committer() {
    let zone = Zone::start().await;
    let jiwei = zone.client("jiwei", "app-1").await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
    let shenji = zone.client("shenji", "app-1").await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    let channel = at_jiwei.id();
    let bad = RawDevice::open(&zone, "weijian", "app-1").await;
    let owner = RawDevice::open(&zone, "weijian", "app-2").await;
    for device in [&bad, &owner] {
        device.publish(device.key_packages(1).await).await.expect("published");
        soon("an invite", at_jiwei.invite(std::slice::from_ref(&device.uri))).await.expect("invited");
        device.join_and_read(channel).await;
    }
    bad.read(channel).await;

    // Everything that a gateway can check is in order; the tag that only members can check is not.
    let mut bundle = bad.removal(channel, &owner.uri).await;
    *bundle.commit.last_mut().expect("not empty") ^= 1;
    let broken = bad.commit(channel, &bundle, fresh_id()).await.expect("the gateway cannot see it").sequence;
    for client in [&jiwei, &shenji] {
        let at = event(client, "a violation", |event| match event {
            Event::Violation { sequence, .. } => Some(sequence),
            _ => None,
        });
        assert_eq!(at.await, broken);
    }
    // Each of them says so by itself.
    let reporters = soon("two reports", async {
        loop {
            let events = bad.log(channel, broken).await;
            if events.len() == 2 {
                break events;
            }
        }
    })
    .await;
    assert!(reporters.iter().all(|event| event.kind == EventKind::Report));
    let mut names: Vec<_> = reporters.iter().map(|event| event.sender.clone()).collect();
    names.sort();
    let mut expect = vec![jiwei.device().clone(), shenji.device().clone()];
    expect.sort();
    assert_eq!(names, expect);

    assert_refused(&bad.commit(channel, &bundle, fresh_id()).await, ReasonCode::CommitterPaused);

    // And each comes back by itself, without a word from its application; then they talk on.
    for client in [&jiwei, &shenji] {
        let own = client.device().clone();
        event(client, "the way back", |event| match event {
            Event::MemberRejoined { device, .. } if device == own => Some(()),
            _ => None,
        })
        .await;
    }
    assert_in_one_state(&at_jiwei, &at_shenji).await;
    send(&at_jiwei, "回来了").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["回来了"]);
    send(&at_shenji, "我也是").await;
    assert_eq!(texts(&receive(&at_jiwei, 1).await), ["我也是"]);
    // Whom they do not trust any more they can take out.
    soon("a removal", at_shenji.remove(std::slice::from_ref(&bad.uri))).await.expect("removed");
    assert_in_one_state(&at_jiwei, &at_shenji).await;
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    drop((bad, owner));
    let bodies = zone.close().await.shared_bodies();
    assert_eq!(bodies.iter().filter(|body| body["event"] == "commit-reported").count(), 2);
    assert!(bodies.iter().any(|body| body["reason"] == "COMMITTER_PAUSED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_report_is_refused_and_a_true_one_counts_once_until_the_owner_allows() {
    let zone = Zone::start().await;
    let jiwei = RawDevice::open(&zone, "jiwei", "app-1").await;
    let second = RawDevice::open(&zone, "jiwei", "app-2").await;
    let shenji = RawDevice::open(&zone, "shenji", "app-1").await;
    let weijian = RawDevice::open(&zone, "weijian", "app-1").await;
    let outsider = RawDevice::open(&zone, "waibu", "app-1").await;
    let channel = jiwei.channel(&["jiwei", "shenji", "weijian"]).await;
    jiwei.add(channel, &second).await;
    jiwei.add(channel, &shenji).await;
    jiwei.add(channel, &weijian).await;
    let (last, own) = (4, ("shenji", "app-1"));

    // False reports, and from whom they may not come.
    let good = report(&shenji, channel, last).await;
    let by_another = signed(&zone, ("weijian", "app-1"), &good);
    assert_refused(&shenji.report(channel, by_another, fresh_id()).await, ReasonCode::SenderMismatch);
    for unknown in [
        Report { commit: Digest([7; 32]), ..good },
        Report { sequence: Sequence(99), ..good },
        Report { sequence: Sequence(1), ..good },
        Report { epoch: lianxin_types::Epoch(9), ..good },
    ] {
        let bytes = signed(&zone, own, &unknown);
        assert_refused(&shenji.report(channel, bytes, fresh_id()).await, ReasonCode::UnknownCommit);
    }
    let other = Report { group: GroupId { channel: ChannelId([1; 16]), ..good.group }, ..good };
    assert_refused(&shenji.report(channel, signed(&zone, own, &other), fresh_id()).await, ReasonCode::InvalidMls);
    assert_refused(&shenji.report(channel, Bytes::from_static(b"nonsense"), fresh_id()).await, ReasonCode::InvalidMls);
    // weijian came with that commit: it never had to process it.
    let too_young = signed(&zone, ("weijian", "app-1"), &good);
    assert_refused(&weijian.report(channel, too_young, fresh_id()).await, ReasonCode::UnknownCommit);
    let strange = signed(&zone, ("waibu", "app-1"), &good);
    assert_refused(&outsider.report(channel, strange, fresh_id()).await, ReasonCode::ChannelNotAvailable);
    assert_eq!(jiwei.log(channel, Sequence(last)).await.len(), 0, "nothing of it is in the log");

    // One that is signed by a member who was there: it counts, once.
    let (bytes, id) = (signed(&zone, own, &good), fresh_id());
    let accepted = shenji.report(channel, bytes.clone(), id).await.expect("taken");
    let repeat = shenji.report(channel, bytes.clone(), id).await.expect("the same again");
    assert_eq!((repeat.sequence, repeat.leaf_index), (accepted.sequence, accepted.leaf_index));
    assert_refused(&shenji.report(channel, bytes, fresh_id()).await, ReasonCode::Duplicate);
    let told = jiwei.log(channel, Sequence(last)).await;
    assert_eq!((told.len(), told[0].kind, &told[0].sender), (1, EventKind::Report, &shenji.uri));
    for device in [&jiwei, &second, &shenji, &weijian] {
        device.read(channel).await;
        assert!(!device.view(channel).await.is_broken, "a report breaks nothing");
    }

    // jiwei is stopped: it may speak and not commit, also over a restart.
    let bundle = jiwei.removal(channel, &weijian.uri).await;
    assert_refused(&jiwei.commit(channel, &bundle, fresh_id()).await, ReasonCode::CommitterPaused);
    let zone = zone.restart().await;
    let (mut jiwei, mut second, mut shenji) = (jiwei, second, shenji);
    jiwei.reconnect(&zone, "jiwei", "app-1").await;
    second.reconnect(&zone, "jiwei", "app-2").await;
    shenji.reconnect(&zone, "shenji", "app-1").await;
    assert_refused(&jiwei.commit(channel, &bundle, fresh_id()).await, ReasonCode::CommitterPaused);
    assert_refused(&jiwei.allow(channel, &jiwei.uri).await, ReasonCode::NotOwner);
    assert_refused(&shenji.allow(channel, &jiwei.uri).await, ReasonCode::NotOwner);
    let never_here = "lianxin://jiwei/app/never-here/1".parse().expect("well formed");
    assert_refused(&second.allow(channel, &never_here).await, ReasonCode::NotOwner);
    let id = fresh_id();
    let allowed = second.allow_as(channel, &jiwei.uri, id).await.expect("its owner allows it");
    let again = second.allow_as(channel, &jiwei.uri, id).await.expect("the same again");
    assert_eq!((again.leaf_index, again.leaf_hash), (allowed.leaf_index, allowed.leaf_hash));
    jiwei.commit(channel, &bundle, fresh_id()).await.expect("it may commit again");
    drop((jiwei, second, shenji, weijian, outsider));
    let bodies = zone.close().await.shared_bodies();
    assert_eq!(bodies.iter().filter(|body| body["event"] == "commit-reported").count(), 1);
    assert_eq!(bodies.iter().filter(|body| body["event"] == "committer-allowed").count(), 1);
    for code in ["SENDER_MISMATCH", "UNKNOWN_COMMIT", "DUPLICATE", "NOT_OWNER", "COMMITTER_PAUSED"] {
        assert!(bodies.iter().any(|body| body["reason"] == code), "{code} has no audit record");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_are_told_of_a_report_and_the_owners_other_device_lets_the_committer_go_on() {
    let zone = Zone::start().await;
    let jiwei = zone.client("jiwei", "app-1").await;
    let second = zone.client("jiwei", "app-2").await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let at_second = join(&at_jiwei, &second).await;
    let shenji = RawDevice::open(&zone, "shenji", "app-1").await;
    shenji.publish(shenji.key_packages(1).await).await.expect("published");
    soon("an invite", at_jiwei.invite(std::slice::from_ref(&shenji.uri))).await.expect("invited");
    let channel = at_jiwei.id();
    shenji.join_and_read(channel).await;
    // A commit of jiwei's that shenji had to process: it takes nobody out and lets nobody in but a third device.
    let weijian = zone.client("shenji", "app-2").await;
    let committed = soon("an invite", at_jiwei.invite(&[weijian.device().clone()])).await.expect("invited").sequence;
    accept(&weijian).await;
    let own = ("shenji", "app-1");
    let said = report(&shenji, channel, committed.0).await;
    shenji.report(channel, signed(&zone, own, &said), fresh_id()).await.expect("taken");
    let told = event(&second, "the report", |event| match event {
        Event::CommitReported { reporter, commit, committer, reason, .. } => {
            Some((reporter, commit, committer, reason))
        }
        _ => None,
    });
    let (reporter, commit, committer, reason) = told.await;
    assert_eq!((reporter, commit, reason), (shenji.uri.clone(), committed, ReportReason::CannotProcess));
    let committer = committer.expect("second has read that commit");
    assert_eq!(&committer, jiwei.device());
    let refused = soon("an answer", at_jiwei.remove(&[weijian.device().clone()])).await.expect_err("it is stopped");
    let is_paused = matches!(&refused, ClientError::Refused(problem) if problem.code == ReasonCode::CommitterPaused);
    assert!(is_paused, "{refused:?}");
    soon("an answer", at_second.allow_committer(&committer)).await.expect("its owner allows it");
    soon("a removal", at_jiwei.remove(&[weijian.device().clone()])).await.expect("it may commit again");
    for client in [jiwei, second, weijian] {
        client.close().await.expect("closes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_for_too_long_comes_back_by_itself_and_accuses_nobody() {
    const LIFETIME: u64 = 3;
    /// Where the forge lets a lifetime begin.
    const BEGAN_BEFORE: u64 = 3_600;
    let zone = Zone::start().await;
    let shenji = zone.client("shenji", "app-1").await;
    let jiwei = RawDevice::open(&zone, "jiwei", "app-1").await;
    let channel = jiwei.channel(&["jiwei", "shenji", "weijian"]).await;
    let packages = jiwei.claim(channel, shenji.device()).await.expect("claimed");
    let bundle = jiwei.invite_bundle(channel, &packages[0]).await;
    jiwei.commit(channel, &bundle, fresh_id()).await.expect("committed");
    jiwei.read(channel).await;
    accept(&shenji).await;
    shenji.close().await.expect("closes");

    // Meanwhile somebody is let in with a key package that does not live long.
    let guest = RawDevice::open(&zone, "weijian", "app-1").await;
    let app = zone.app("weijian", "app-1");
    let package = Bytes::from(Forger::new(&app.mls_certificate, &app.mls_key).key_package(BEGAN_BEFORE + LIFETIME));
    guest.publish(vec![package]).await.expect("published");
    let packages = jiwei.claim(channel, &guest.uri).await.expect("claimed");
    let bundle = jiwei.invite_bundle(channel, &packages[0]).await;
    let committed = jiwei.commit(channel, &bundle, fresh_id()).await.expect("committed").sequence;
    jiwei.read(channel).await;
    let missed = jiwei.encrypt(channel, "它不在").await;
    jiwei.send(channel, &[(fresh_id(), missed)]).await.remove(0).expect("accepted");
    SystemClock.sleep(Duration::from_secs(LIFETIME + 1)).await;

    let shenji = zone.client("shenji", "app-1").await;
    let own = shenji.device().clone();
    let away = event(&shenji, "why it cannot go on", |event| match event {
        Event::AwayTooLong { sequence, .. } => Some(sequence),
        Event::Violation { .. } => panic!("nobody did wrong: {event:?}"),
        _ => None,
    });
    assert_eq!(away.await, committed);
    event(&shenji, "the way back", |event| match event {
        Event::MemberRejoined { device, .. } if device == own => Some(()),
        _ => None,
    })
    .await;
    jiwei.read(channel).await;
    let again = jiwei.encrypt(channel, "又见面了").await;
    jiwei.send(channel, &[(fresh_id(), again)]).await.remove(0).expect("accepted");
    assert_eq!(texts(&receive(&shenji.channel(channel), 1).await), ["又见面了"]);
    shenji.close().await.expect("closes");
    drop((jiwei, guest));
    let bodies = zone.close().await.shared_bodies();
    assert!(bodies.iter().all(|body| body["event"] != "commit-reported"));
}
