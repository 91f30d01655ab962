//! Coming back: a device whose group is lost or broken, with the same key; and everybody who may not.

use lianxin_mls::{CommitBundle, ServedGroupInfo};
use lianxin_profile::AuthenticatedData;
use lianxin_proto::ReasonCode;
use lianxin_sdk::Event;
use lianxin_tlog::{EventKind, Head};
use lianxin_types::{ChannelId, Clock as _, Digest, Sequence, SystemClock};
use openmls::prelude::Proposal;

use crate::forge::{self, Forger};
use crate::raw::{Answer, RawDevice, fresh_id};
use crate::talk::{accept, event, soon};
use crate::zone::Zone;

#[track_caller]
fn assert_refused(what: &str, answer: &Answer, expect: ReasonCode) {
    let found = answer.as_ref().map_err(|problem| problem.code);
    assert_eq!(found, Err(expect), "{what}: {answer:?}");
}

/// Members of three departments, all up to date.
async fn three(zone: &Zone) -> ([RawDevice; 3], ChannelId) {
    let jiwei = RawDevice::open(zone, "jiwei", "app-1").await;
    let shenji = RawDevice::open(zone, "shenji", "app-1").await;
    let weijian = RawDevice::open(zone, "weijian", "app-1").await;
    let channel = jiwei.channel(&["jiwei", "shenji", "weijian"]).await;
    jiwei.add(channel, &shenji).await;
    jiwei.add(channel, &weijian).await;
    shenji.read(channel).await;
    ([jiwei, shenji, weijian], channel)
}

/// Everybody is in the same state, and what anybody says everybody can read.
async fn assert_together(channel: ChannelId, members: &[&RawDevice]) {
    for speaker in members {
        let mls = speaker.encrypt(channel, "都在").await;
        speaker.send(channel, &[(fresh_id(), mls)]).await.remove(0).expect("accepted");
        for member in members {
            member.read(channel).await;
        }
    }
    let first = members[0].view(channel).await;
    for member in members {
        let view = member.view(channel).await;
        assert!(!view.is_broken && !view.has_pending_commit);
        assert_eq!((view.epoch, view.epoch_authenticator), (first.epoch, first.epoch_authenticator));
        assert_eq!((view.members, view.head), (first.members.clone(), first.head));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_its_group_comes_back_by_itself_and_its_repeat_gets_the_same_receipt() {
    let zone = Zone::start().await;
    let ([jiwei, shenji, weijian], channel) = three(&zone).await;
    assert_together(channel, &[&jiwei, &shenji, &weijian]).await;
    shenji.lose(channel).await;
    let missed = jiwei.encrypt(channel, "它听不到").await;
    jiwei.send(channel, &[(fresh_id(), missed)]).await.remove(0).expect("accepted");

    let (id, bundle) = (fresh_id(), shenji.rejoin_bundle(channel).await);
    let receipt = shenji.commit(channel, &bundle, id).await.expect("it may come back");
    let repeat = shenji.commit(channel, &bundle, id).await.expect("the same again");
    assert_eq!((repeat.sequence, repeat.leaf_hash), (receipt.sequence, receipt.leaf_hash));
    assert_refused("another id", &shenji.commit(channel, &bundle, fresh_id()).await, ReasonCode::WrongEpoch);
    for member in [&jiwei, &shenji, &weijian] {
        member.read(channel).await;
    }
    assert_together(channel, &[&jiwei, &shenji, &weijian]).await;
    let first = shenji.log(channel, Sequence(0)).await.first().map(|event| event.sequence);
    assert_eq!(first, Some(Sequence(2)), "it has been a member since it was invited");

    // Everybody loses everything, one after the other, and nobody is left out.
    for member in [&jiwei, &weijian, &shenji] {
        member.lose(channel).await;
        member.rejoin(channel).await;
    }
    for member in [&jiwei, &shenji, &weijian] {
        member.read(channel).await;
    }
    assert_together(channel, &[&jiwei, &shenji, &weijian]).await;
    drop((jiwei, shenji, weijian));
    let bodies = zone.close().await.shared_bodies();
    assert_eq!(bodies.iter().filter(|body| body["event"] == "rejoined").count(), 4, "{bodies:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_comes_back_who_has_no_leaf_or_another_key_or_wants_more_than_that() {
    let zone = Zone::start().await;
    let [jiwei, colleague] =
        [RawDevice::open(&zone, "jiwei", "app-1").await, RawDevice::open(&zone, "jiwei", "app-2").await];
    let shenji = RawDevice::open(&zone, "shenji", "app-1").await;
    let weijian = RawDevice::open(&zone, "weijian", "app-1").await;
    let stranger = RawDevice::open(&zone, "waibu", "app-1").await;
    let channel = jiwei.channel(&["jiwei", "shenji", "weijian"]).await;
    for other in [&colleague, &shenji, &weijian] {
        jiwei.add(channel, other).await;
    }
    // Its leaf is blank afterwards: whoever comes back sits there, whichever leaf it takes out.
    let removal = jiwei.removal(channel, &colleague.uri).await;
    jiwei.commit(channel, &removal, fresh_id()).await.expect("removed");
    for member in [&jiwei, &shenji, &weijian] {
        member.read(channel).await;
    }
    // Whoever holds GroupInfo and tree can make the bytes: members leak.
    let (group_info, tree) = jiwei.served(channel).await;
    let of = |department, name| {
        let app = zone.app(department, name);
        Forger::new(&app.mls_certificate, &app.mls_key)
    };
    let before = jiwei.log(channel, Sequence(0)).await.len();

    let bundle = of("waibu", "app-1").external_commit(&group_info, &tree);
    let answer = stranger.commit(channel, &bundle, fresh_id()).await;
    assert_refused("a stranger", &answer, ReasonCode::ChannelNotAvailable);
    let bundle = of("jiwei", "app-2").external_commit(&group_info, &tree);
    let answer = colleague.commit(channel, &bundle, fresh_id()).await;
    assert_refused("who was a member", &answer, ReasonCode::NotMember);
    let (certificate, key) = zone.minted.mint_mls_again("shenji", "app-1").expect("minted");
    let bundle = Forger::new(&certificate, &key).external_commit(&group_info, &tree);
    let answer = shenji.commit(channel, &bundle, fresh_id()).await;
    assert_refused("another key", &answer, ReasonCode::SenderMismatch);

    let forger = of("shenji", "app-1");
    let good = forger.external_commit(&group_info, &tree);
    let answer = weijian.commit(channel, &good, fresh_id()).await;
    assert_refused("under another's name", &answer, ReasonCode::SenderMismatch);
    let (own, other) = (forge::remove(2), forge::remove(3));
    assert_eq!(forge::proposals_of(&good.commit), [forge::external_init(&good.commit), own.clone()].concat());
    let keeps_its_leaf = |proposal: &Proposal| !matches!(proposal, Proposal::Remove(_));
    let bundle = forger.external_commit_of(&group_info, &tree, keeps_its_leaf);
    assert_eq!(forge::proposals_of(&bundle.commit), forge::external_init(&bundle.commit));
    let answer = shenji.commit(channel, &bundle, fresh_id()).await;
    assert_refused("a second leaf", &answer, ReasonCode::ProposalNotAllowed);
    // Another's leaf instead of the own one: the path is then of another tree, which openmls finds first.
    let proposals = [forge::external_init(&good.commit), other.clone()];
    let commit = forger.with_proposals(&good.commit, &group_info, &proposals);
    let answer = shenji.commit(channel, &CommitBundle { commit, ..good.clone() }, fresh_id()).await;
    assert_refused("the Remove of a foreign leaf", &answer, ReasonCode::InvalidCommit);
    let package = colleague.key_packages(1).await.remove(0);
    for (what, more) in [
        ("two Removes", vec![own.clone(), other]),
        ("an Add", vec![own.clone(), forge::add(&package)]),
        ("a pre-shared key", vec![own.clone(), forge::pre_shared_key()]),
    ] {
        let proposals = [vec![forge::external_init(&good.commit)], more].concat();
        let commit = forger.with_proposals(&good.commit, &group_info, &proposals);
        let bundle = CommitBundle { commit, ..good.clone() };
        let answer = shenji.commit(channel, &bundle, fresh_id()).await;
        assert_refused(what, &answer, ReasonCode::ProposalNotAllowed);
    }
    let head = Head { sequence: Sequence(2), chain_hash: Digest([9; 32]) };
    let false_head = AuthenticatedData { head }.to_bytes();
    let commit = forger.with_authenticated(&good.commit, &group_info, &false_head);
    let answer = shenji.commit(channel, &CommitBundle { commit, ..good.clone() }, fresh_id()).await;
    assert_refused("a false head", &answer, ReasonCode::BadHead);
    let welcome = group_info.to_vec();
    let answer = shenji.commit(channel, &CommitBundle { welcome, ..good.clone() }, fresh_id()).await;
    assert_refused("a Welcome for nobody", &answer, ReasonCode::InvalidWelcome);

    weijian.leave(channel, weijian.leave_proposal(channel).await).await.expect("it may leave");
    weijian.lose(channel).await;
    let bundle = weijian.rejoin_bundle(channel).await;
    let answer = weijian.commit(channel, &bundle, fresh_id()).await;
    assert_refused("who is leaving", &answer, ReasonCode::Leaving);

    // Nothing of it had an effect: the log has the leave and no more, and the honest device comes back.
    assert_eq!(jiwei.log(channel, Sequence(0)).await.len(), before + 1);
    shenji.lose(channel).await;
    shenji.rejoin(channel).await;
    jiwei.read(channel).await;
    assert_together(channel, &[&jiwei, &shenji]).await;
    drop((jiwei, shenji, weijian, stranger, colleague));
    let bodies = zone.close().await.shared_bodies();
    for reason in [
        "CHANNEL_NOT_AVAILABLE",
        "NOT_MEMBER",
        "SENDER_MISMATCH",
        "PROPOSAL_NOT_ALLOWED",
        "INVALID_COMMIT",
        "BAD_HEAD",
        "INVALID_WELCOME",
        "LEAVING",
    ] {
        let found = bodies
            .iter()
            .any(|body| body["event"] == "refused" && body["action"] == "commit" && body["reason"] == reason);
        assert!(found, "{reason} has no audit record");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_leaving_when_another_came_back_asks_again_by_itself() {
    let zone = Zone::start().await;
    let jiwei = RawDevice::open(&zone, "jiwei", "app-1").await;
    let shenji = RawDevice::open(&zone, "shenji", "app-1").await;
    let weijian = zone.client("weijian", "app-1").await;
    let channel = jiwei.channel(&["jiwei", "shenji", "weijian"]).await;
    jiwei.add(channel, &shenji).await;
    let package = soon("a key package of an application that has just connected", async {
        loop {
            match jiwei.claim(channel, weijian.device()).await {
                Ok(mut claimed) => break claimed.remove(0),
                Err(problem) => assert_eq!(problem.code, ReasonCode::NoKeyPackage),
            }
            SystemClock.sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    let bundle = jiwei.invite_bundle(channel, &package).await;
    jiwei.commit(channel, &bundle, fresh_id()).await.expect("invited");
    for member in [&jiwei, &shenji] {
        member.read(channel).await;
    }
    let at_weijian = accept(&weijian).await;

    soon("leaving", at_weijian.leave()).await.expect("proposed");
    shenji.lose(channel).await;
    shenji.rejoin(channel).await;
    let came_back = event(&weijian, "who came back", |event| match event {
        Event::MemberRejoined { device, .. } => Some(device),
        _ => None,
    });
    assert_eq!(came_back.await, shenji.uri);
    soon("the second proposal", async {
        loop {
            let log = jiwei.log(channel, Sequence(0)).await;
            if log.iter().filter(|event| event.kind == EventKind::Proposal).count() == 2 {
                break;
            }
            SystemClock.sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    jiwei.read(channel).await;
    let removal = jiwei.work(move |tx, mls, federation| mls.commit_pending(tx, federation, channel)).await;
    jiwei.commit(channel, &removal, fresh_id()).await.expect("it is let go");
    let gone = event(&weijian, "the end", |event| matches!(event, Event::Removed { .. }).then_some(()));
    gone.await;
    for member in [&jiwei, &shenji] {
        member.read(channel).await;
    }
    assert_together(channel, &[&jiwei, &shenji]).await;
    weijian.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_group_info_is_noticed_and_replaced_by_a_member_and_the_way_back_is_good_again() {
    let zone = Zone::start().await;
    let ([jiwei, shenji, weijian], channel) = three(&zone).await;
    let stranger = RawDevice::open(&zone, "waibu", "app-1").await;
    let fourth = RawDevice::open(&zone, "shenji", "app-2").await;
    let of = |department, name| {
        let app = zone.app(department, name);
        Forger::new(&app.mls_certificate, &app.mls_key)
    };
    let old_epoch = shenji.group_info(channel).await;

    // The gateway sees that a key is missing, and cannot see that it is a wrong one.
    fourth.publish(fourth.key_packages(1).await).await.expect("published");
    let package = jiwei.claim(channel, &fourth.uri).await.expect("claimed").remove(0);
    let good = jiwei.invite_bundle(channel, &package).await;
    let forger = of("jiwei", "app-1");
    let with = |key| {
        let group_info = forger.with_extensions(&good.group_info, forge::external_pub(key));
        CommitBundle { group_info, ..good.clone() }
    };
    let answer = jiwei.commit(channel, &with(None), fresh_id()).await;
    assert_refused("no external_pub", &answer, ReasonCode::InvalidGroupInfo);
    jiwei.commit(channel, &with(Some([9; 32])), fresh_id()).await.expect("only a member can tell");
    for member in [&jiwei, &shenji, &weijian] {
        member.read(channel).await;
    }
    let judge = async |member: &RawDevice| {
        let (group_info, _) = member.served(channel).await;
        member.work(move |tx, mls, _| mls.check_group_info(tx, channel, &group_info)).await
    };
    let fault = lianxin_profile::ProfileError::InvalidGroupInfo { fault: "its external_pub is another" };
    let signer = Some(jiwei.uri.clone());
    assert_eq!(judge(&shenji).await, ServedGroupInfo::Wrong { signer, fault });
    weijian.lose(channel).await;
    let astray = weijian.rejoin_bundle(channel).await;

    let ours = shenji.group_info(channel).await;
    let answer = stranger.replace(channel, ours.clone(), fresh_id()).await;
    assert_refused("a stranger", &answer, ReasonCode::ChannelNotAvailable);
    let answer = jiwei.replace(channel, ours.clone(), fresh_id()).await;
    assert_refused("signed by another", &answer, ReasonCode::InvalidGroupInfo);
    let answer = shenji.replace(channel, old_epoch, fresh_id()).await;
    assert_refused("of an epoch that is over", &answer, ReasonCode::WrongEpoch);
    let forger = of("shenji", "app-1");
    let without = forger.with_extensions(&ours, forge::external_pub(None)).into();
    let answer = shenji.replace(channel, without, fresh_id()).await;
    assert_refused("without external_pub", &answer, ReasonCode::InvalidGroupInfo);
    let known = shenji.view(channel).await.head;
    for (what, head) in [
        ("a false head", Head { chain_hash: Digest([9; 32]), ..known }),
        ("a head before the epoch", lianxin_tlog::chain_start(&channel)),
    ] {
        let group_info = forger.with_extensions(&ours, forge::other_head(head)).into();
        assert_refused(what, &shenji.replace(channel, group_info, fresh_id()).await, ReasonCode::BadHead);
    }
    let id = fresh_id();
    let done = shenji.replace(channel, ours.clone(), id).await.expect("a member may");
    let again = shenji.replace(channel, ours.clone(), id).await.expect("the same again");
    assert_eq!((done.sequence, done.leaf_hash), (Sequence(0), again.leaf_hash));
    assert_eq!(jiwei.served(channel).await.0, ours);
    assert_eq!(judge(&jiwei).await, ServedGroupInfo::Right);

    // What was made by the wrong one would have broken the group for all; the head in it says so.
    let answer = weijian.commit(channel, &astray, fresh_id()).await;
    assert_refused("made by the wrong one", &answer, ReasonCode::BadHead);
    weijian.discard(channel).await;
    weijian.rejoin(channel).await;
    fourth.join_and_read(channel).await;
    for member in [&jiwei, &shenji] {
        member.read(channel).await;
    }
    assert_together(channel, &[&jiwei, &shenji, &weijian, &fourth]).await;
    drop((jiwei, shenji, weijian, stranger, fourth));
    let bodies = zone.close().await.shared_bodies();
    assert_eq!(bodies.iter().filter(|body| body["event"] == "group-info-replaced").count(), 1);
    for reason in ["CHANNEL_NOT_AVAILABLE", "INVALID_GROUP_INFO", "WRONG_EPOCH", "BAD_HEAD"] {
        let found = bodies.iter().any(|body| body["action"] == "replace-group-info" && body["reason"] == reason);
        assert!(found, "{reason} has no audit record");
    }
}
