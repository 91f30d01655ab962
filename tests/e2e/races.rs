//! What happens when two things happen at once, or much later.

use std::time::Duration;

use lianxin_connection::CallError;
use lianxin_profile::{parse_group_info, parse_tree};
use lianxin_proto::ReasonCode;
use lianxin_proto::channels::{GetGroupInfo, GetWelcomeTree};
use lianxin_sdk::Event;
use lianxin_types::{Clock as _, Sequence, SystemClock};
use openmls::group::{ProposalStore, PublicGroup};
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::OpenMlsProvider as _;

use crate::effort::share;
use crate::raw::{RawDevice, fresh_id};
use crate::talk::{accept, create, event, join, receive, send, soon, texts};
use crate::zone::Zone;

#[tokio::test(flavor = "multi_thread")]
async fn two_members_leave_in_one_epoch_and_both_are_removed() {
    let zone = Zone::start().await;
    let [jiwei, shenji, weijian] = zone.raws(["jiwei", "shenji", "weijian"]).await;
    let channel = jiwei.channel(&["jiwei", "shenji", "weijian"]).await;
    jiwei.add(channel, &shenji).await;
    jiwei.add(channel, &weijian).await;
    shenji.read(channel).await;
    let (one, two) = (shenji.leave_proposal(channel).await, weijian.leave_proposal(channel).await);
    let (one, two) = tokio::join!(shenji.leave(channel, one), weijian.leave(channel, two));
    let (one, two) = (one.expect("proposed"), two.expect("proposed as well"));

    jiwei.read(channel).await;
    let both = jiwei.work(move |tx, mls, federation| mls.commit_pending(tx, federation, channel)).await;
    let done = jiwei.commit(channel, &both, fresh_id()).await.expect("one commit removes both");
    assert!(done.sequence > one.sequence.max(two.sequence));
    jiwei.read(channel).await;
    let view = jiwei.view(channel).await;
    assert_eq!(view.members, std::slice::from_ref(&jiwei.uri));
    let mls = jiwei.encrypt(channel, "独自").await;
    jiwei.send(channel, &[(fresh_id(), mls)]).await.remove(0).expect("the channel goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_but_one_leaves_at_once_and_the_sdks_see_to_it() {
    let zone = Zone::start().await;
    let [jiwei, shenji, weijian] = zone.clients(["jiwei", "shenji", "weijian"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    let at_weijian = join(&at_jiwei, &weijian).await;
    let (one, two) = soon("leaving", async { tokio::join!(at_shenji.leave(), at_weijian.leave()) }).await;
    one.expect("left");
    two.expect("left");
    soon("being alone", async {
        while at_jiwei.info().await.expect("known").members.len() > 1 {
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    send(&at_jiwei, "还在").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_and_invited_again_while_offline_it_comes_back_by_the_new_invitation() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    send(&at_jiwei, "之前").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["之前"]);
    let device = shenji.device().clone();
    drop(at_shenji);
    shenji.close().await.expect("closes");
    soon("a removal", at_jiwei.remove(std::slice::from_ref(&device))).await.expect("removed");
    send(&at_jiwei, "不给它").await;
    soon("an invite", at_jiwei.invite(&[device])).await.expect("invited again");

    // Whether it comes back is for its application to say: it is told, and does nothing by itself.
    let shenji = zone.client("shenji", "app-1").await;
    event(&shenji, "the end of the older group", |event| match event {
        Event::ChannelGone { .. } => Some(()),
        Event::AwayTooLong { .. } | Event::MemberRejoined { .. } => panic!("by itself: {event:?}"),
        _ => None,
    })
    .await;
    let again = accept(&shenji).await;
    assert_eq!(again.id(), at_jiwei.id());
    send(&at_jiwei, "之后").await;
    assert_eq!(texts(&receive(&again, 1).await), ["之后"]);
    send(&again, "回来了").await;
    assert_eq!(texts(&receive(&at_jiwei, 1).await), ["回来了"]);
    let log = again.history(Sequence(0), 100).await.expect("readable");
    assert_eq!(texts(&log), ["之前", "之后", "回来了"], "what was said without it stays unread");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ends_while_connected_ends_the_callers_rights() {
    let zone = Zone::start().await;
    let short = zone.minted.at(SystemClock.now().minus(Duration::from_secs(30 * 24 * 3_600 - 4)));
    short.mint_app("jiwei", "short").expect("minted");
    let device = RawDevice::open(&zone, "jiwei", "short").await;
    let channel = device.channel(&["jiwei"]).await;
    let late = device.encrypt(channel, "晚了").await;
    let (sender, mut outcomes) = device.connection.send_stream();
    let message = |mls| lianxin_proto::messages::Send { id: fresh_id(), channel, mls };
    let timely = device.encrypt(channel, "及时").await;
    sender.send(message(timely)).await.expect("sent");
    soon("an answer", outcomes.next()).await.expect("open").expect("inside").result.expect("valid still");

    // The skew that both ends tolerate (PROTOCOL 12) does not lengthen a caller's rights on an open stream.
    let end = SystemClock.now().plus(Duration::from_secs(5));
    while SystemClock.now() < end {
        SystemClock.sleep(Duration::from_millis(50)).await;
    }
    // Nothing goes in any more, or it is not answered: the stream's last word says why.
    let _ended = sender.send(message(late)).await;
    let last = soon("the last word", outcomes.next()).await.expect("a word");
    let CallError::Refused(problem) = last.expect_err("no answer to what came late") else { panic!("no reason") };
    assert_eq!(problem.code, ReasonCode::CertificateExpired);
    let bodies = zone.close().await.shared_bodies();
    assert!(bodies.iter().any(|body| body["event"] == "refused" && body["reason"] == "CERTIFICATE_EXPIRED"));
    let accepted = bodies.iter().filter(|body| body["event"] == "message-accepted").count();
    assert_eq!(accepted, 1, "only the one that came in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_of_a_welcome_is_for_whom_it_seated() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.raws(["jiwei", "shenji"]).await;
    let channel = jiwei.channel(&["jiwei", "shenji"]).await;
    let packages = shenji.key_packages(1).await;
    shenji.publish(packages).await.expect("published");
    let claimed = jiwei.claim(channel, &shenji.uri).await.expect("claimed");
    let bundle = jiwei.invite_bundle(channel, &claimed[0]).await;
    let seated = jiwei.commit(channel, &bundle, fresh_id()).await.expect("committed").sequence;
    let wanted = || GetWelcomeTree { channel, sequence: seated };
    assert!(!shenji.connection.welcome_tree(wanted()).await.expect("served").ratchet_tree.is_empty());
    let other = jiwei.connection.welcome_tree(wanted()).await.expect_err("not seated by it");
    let CallError::Refused(problem) = other else { panic!("{other:?}") };
    assert_eq!(problem.code, ReasonCode::ChannelNotAvailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn membership_is_told_before_any_message_that_it_concerns() {
    let zone = Zone::start().await;
    let [jiwei, shenji, weijian] = zone.clients(["jiwei", "shenji", "weijian"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    let at_weijian = join(&at_jiwei, &weijian).await;
    send(&at_weijian, "我来了").await;
    receive(&at_shenji, 1).await;
    let mut joined = Vec::new();
    let came = event(&shenji, "who came", |event| match event {
        Event::MemberJoined { device, by, .. } => {
            joined.push((device, by));
            joined.iter().any(|(device, _)| device == weijian.device()).then(|| joined.clone())
        }
        _ => None,
    });
    let came = came.await;
    assert!(came.iter().all(|(_, by)| by == jiwei.device()), "{came:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_commits_in_one_epoch_exactly_one_is_accepted_and_both_members_go_on_together() {
    let zone = Zone::start().await;
    let [jiwei, shenji, third] = zone.raws(["jiwei", "shenji", "weijian"]).await;
    let channel = jiwei.channel(&["jiwei", "shenji", "weijian"]).await;
    jiwei.add(channel, &shenji).await;
    for round in 0..share(5, 200) {
        jiwei.add(channel, &third).await;
        shenji.read(channel).await;
        let (one, two) = (jiwei.removal(channel, &third.uri).await, shenji.removal(channel, &third.uri).await);
        let answers = tokio::join!(jiwei.commit(channel, &one, fresh_id()), shenji.commit(channel, &two, fresh_id()));
        let (won, lost) = match answers {
            (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
            other => panic!("round {round}: {other:?}"),
        };
        assert_eq!(lost.code, ReasonCode::WrongEpoch, "round {round}");
        assert!(lost.sequence >= won.sequence, "it is told how far to read: {lost:?}");
        jiwei.read(channel).await;
        shenji.read(channel).await;
        let (mine, yours) = (jiwei.view(channel).await, shenji.view(channel).await);
        assert_eq!((mine.epoch, &mine.members, mine.head), (yours.epoch, &yours.members, yours.head), "round {round}");
        assert_eq!(mine.epoch_authenticator, yours.epoch_authenticator, "round {round}");
        assert_eq!(mine.epoch, lost.epoch);
        for (from, to) in [(&jiwei, &shenji), (&shenji, &jiwei)] {
            let mls = from.encrypt(channel, "同一个纪元").await;
            from.send(channel, &[(fresh_id(), mls)]).await.remove(0).expect("accepted");
            from.read(channel).await;
            to.read(channel).await;
        }
    }
}

/// GroupInfo and tree are of one epoch, as openmls sees it.
fn belong_together(group_info: &[u8], tree: &[u8]) -> bool {
    let provider = OpenMlsRustCrypto::default();
    let (tree, info) = (parse_tree(tree).expect("a tree"), parse_group_info(group_info).expect("a GroupInfo"));
    PublicGroup::from_external(provider.crypto(), provider.storage(), tree, info, ProposalStore::new()).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_removed_while_it_reads_the_public_state_gets_nothing_newer_and_every_page_is_of_one_epoch() {
    const READERS: usize = 8;
    let zone = Zone::start().await;
    let [jiwei, weijian] = zone.raws(["jiwei", "weijian"]).await;
    let channel = jiwei.channel(&["jiwei", "weijian"]).await;
    for round in 0..share(6, 40) {
        jiwei.add(channel, &weijian).await;
        let bundle = jiwei.removal(channel, &weijian.uri).await;
        let read_on = |_| async {
            let mut pages = Vec::new();
            loop {
                match soon("a page", weijian.connection.group_info(GetGroupInfo { channel })).await {
                    Ok(page) => pages.push(page),
                    Err(CallError::Refused(problem)) => break (pages, problem.code),
                    Err(other) => panic!("{other:?}"),
                }
            }
        };
        let readers = futures_util::future::join_all((0..READERS).map(read_on));
        let (pages, removed) = tokio::join!(readers, jiwei.commit(channel, &bundle, fresh_id()));
        let removed = removed.expect("accepted").sequence;
        for (pages, code) in pages {
            assert!(matches!(code, ReasonCode::NotMember | ReasonCode::ChannelNotAvailable), "{code:?}");
            for page in pages {
                assert!(page.sequence < removed, "round {round}: {:?} lies behind {removed:?}", page.sequence);
                assert!(belong_together(&page.group_info, &page.ratchet_tree), "round {round}");
            }
        }
        jiwei.read(channel).await;
        weijian.lose(channel).await;
    }
}
