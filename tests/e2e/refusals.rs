//! What a member may not do: each refused with its reason, without effect, and on record.

use bytes::Bytes;
use lianxin_proto::ReasonCode;
use lianxin_proto::key_packages::Publish;
use lianxin_sdk::{Classification, Event, Label};
use lianxin_types::{ChannelId, Clock as _, Epoch, Sequence, SystemClock, Timestamp};

use crate::raw::{Answer, RawDevice, answer, fresh_id};
use crate::talk::{accept, create, event, receive, send, soon, texts};
use crate::zone::Zone;

#[track_caller]
pub(crate) fn assert_refused(answer: &Answer, expect: ReasonCode) {
    let found = answer.as_ref().map_err(|problem| problem.code);
    assert_eq!(found, Err(expect), "{answer:?}");
}

/// Every code in `codes` has a record of a refusal in what the gateway left.
pub(crate) async fn assert_recorded(zone: Zone, codes: &[ReasonCode]) -> Vec<serde_json::Value> {
    let bodies = zone.close().await.shared_bodies();
    for code in codes {
        let found = bodies.iter().any(|body| {
            // What is behind a refused message is counted.
            (body["event"] == "refused" || body["event"] == "calls-counted")
                && format!("REASON_CODE_{}", body["reason"].as_str().unwrap_or_default()) == code.as_str_name()
        });
        assert!(found, "{code:?} has no audit record");
    }
    bodies
}

#[tokio::test(flavor = "multi_thread")]
async fn order_is_kept_after_a_refusal_and_the_loser_of_an_epoch_goes_on_from_there() {
    let zone = Zone::start().await;
    let [jiwei, shenji, weijian] = zone.raws(["jiwei", "shenji", "weijian"]).await;
    let channel = jiwei.channel(&["jiwei", "shenji", "weijian"]).await;
    jiwei.add(channel, &shenji).await;

    let (first, second) = (fresh_id(), fresh_id());
    let late = [(first, shenji.encrypt(channel, "一").await), (second, shenji.encrypt(channel, "二").await)];
    jiwei.add(channel, &weijian).await;
    let stream = shenji.connection.send_stream();
    let (sender, mut outcomes) = stream;
    let mut ask = async |id, mls: &Bytes| {
        let message = lianxin_proto::messages::Send { id, channel, mls: mls.clone() };
        sender.send(message).await.expect("sent");
        soon("an answer", outcomes.next()).await.expect("open").expect("inside the stream").result
    };
    let refused = ask(first, &late[0].1).await.expect_err("of the old epoch");
    assert_eq!((refused.code, refused.epoch), (ReasonCode::WrongEpoch, Epoch(2)));
    assert!(refused.sequence >= Sequence(3), "it says how far to read: {refused:?}");
    assert_refused(&ask(second, &late[1].1).await, ReasonCode::BehindRefused);

    shenji.read(channel).await;
    let again = [shenji.encrypt(channel, "一").await, shenji.encrypt(channel, "二").await];
    assert_refused(&ask(second, &again[1]).await, ReasonCode::BehindRefused);
    let one = ask(first, &again[0]).await.expect("goes on from the refused one");
    let two = ask(second, &again[1]).await.expect("and then the next");
    assert_eq!(two.sequence, one.sequence.next());
    assert_recorded(zone, &[ReasonCode::WrongEpoch, ReasonCode::BehindRefused]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_gets_the_same_receipt_and_other_bytes_or_another_id_get_none() {
    let zone = Zone::start().await;
    let jiwei = RawDevice::open(&zone, "jiwei", "app-1").await;
    let channel = jiwei.channel(&["jiwei"]).await;
    let id = fresh_id();
    let mls = jiwei.encrypt(channel, "一").await;
    let first = jiwei.send(channel, &[(id, mls.clone())]).await.remove(0).expect("accepted");
    let repeat = jiwei.send(channel, &[(id, mls.clone())]).await.remove(0).expect("the same again");
    assert_eq!(
        (repeat.sequence, repeat.leaf_index, repeat.leaf_hash),
        (first.sequence, first.leaf_index, first.leaf_hash)
    );
    let other = jiwei.encrypt(channel, "二").await;
    assert_refused(&jiwei.send(channel, &[(id, other)]).await[0], ReasonCode::IdReused);
    assert_refused(&jiwei.send(channel, &[(fresh_id(), mls)]).await[0], ReasonCode::Duplicate);
    assert_eq!(jiwei.log(channel, Sequence(0)).await.len(), 2, "the start and one message");

    let start = jiwei.start(ChannelId([5; 16]), &["jiwei"], crate::talk::label()).await;
    let id = fresh_id();
    let created = jiwei.create(&start, id).await.expect("created");
    assert_eq!(jiwei.create(&start, id).await.expect("the same again").leaf_index, created.leaf_index);
    assert_refused(&jiwei.create(&start, fresh_id()).await, ReasonCode::ChannelExists);
    let bodies = assert_recorded(zone, &[ReasonCode::IdReused, ReasonCode::Duplicate, ReasonCode::ChannelExists]).await;
    let repeats: Vec<_> = bodies.iter().filter(|body| body["event"] == "calls-counted").collect();
    assert!(!repeats.is_empty(), "repeats are counted, for the device that repeats");
    assert!(
        repeats.iter().all(|body| body["reason"] == "repeat" && body["caller_department"] == "jiwei"),
        "{repeats:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_the_journal_does_not_have_is_refused() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.raws(["jiwei", "shenji"]).await;
    let channel = jiwei.channel(&["jiwei", "shenji"]).await;
    jiwei.add(channel, &shenji).await;
    let mls = jiwei.encrypt(channel, "真").await;
    let accepted = jiwei.send(channel, &[(fresh_id(), mls)]).await.remove(0).expect("accepted");
    // It takes the event in with another time, so that its chain is another from here on.
    let mut events = shenji.log(channel, Sequence(accepted.sequence.0 - 1)).await;
    let mut changed = events.remove(0);
    changed.gateway_time = Timestamp(changed.gateway_time.0 + 1);
    shenji.take_in(changed).await;
    let mls = shenji.encrypt(channel, "假").await;
    assert_refused(&shenji.send(channel, &[(fresh_id(), mls)]).await[0], ReasonCode::BadHead);
    assert_recorded(zone, &[ReasonCode::BadHead]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_speaks_for_another() {
    let zone = Zone::start().await;
    let jiwei = zone.client("jiwei", "app-1").await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
    let shenji = RawDevice::open(&zone, "shenji", "app-1").await;
    let weijian = zone.client("weijian", "app-1").await;
    shenji.publish(shenji.key_packages(1).await).await.expect("published");
    soon("an invite", at_jiwei.invite(&[shenji.uri.clone(), weijian.device().clone()])).await.expect("invited");
    let at_weijian = accept(&weijian).await;
    let channel = at_jiwei.id();
    shenji.join_and_read(channel).await;

    // What shenji encrypted comes in over weijian's other connection: the gateway cannot read who encrypted it and names
    // the caller; every SDK sees that the names differ, and hides it.
    let thief = zone.connect(&zone.app("weijian", "app-1")).await.expect("connects");
    let stolen = shenji.encrypt(channel, "冒名").await;
    let (sender, mut outcomes) = thief.send_stream();
    let message = lianxin_proto::messages::Send { id: fresh_id(), channel, mls: stolen };
    sender.send(message).await.expect("sent");
    soon("an answer", outcomes.next())
        .await
        .expect("open")
        .expect("inside")
        .result
        .expect("accepted under its own name");
    let named = event(&jiwei, "a violation", |event| match event {
        Event::Violation { sender, detail, .. } => Some((sender, detail)),
        _ => None,
    });
    let (named, detail) = named.await;
    assert_eq!(named, *weijian.device(), "{detail}");
    send(&at_weijian, "本人").await;
    assert_eq!(texts(&receive(&at_jiwei, 1).await), ["本人"], "the stolen one is hidden");

    // A commit is signed in the open: the gateway itself refuses it under another's name.
    let bundle = {
        let id = channel;
        let device = weijian.device().clone();
        shenji.read(channel).await;
        shenji.work(move |tx, mls, federation| mls.remove(tx, federation, id, &[device])).await
    };
    let commit = lianxin_proto::channels::Commit {
        id: fresh_id(),
        channel,
        commit: bundle.commit.into(),
        welcome: None,
        group_info: bundle.group_info.into(),
    };
    assert_refused(&answer(thief.commit(commit).await), ReasonCode::SenderMismatch);
    for client in [jiwei, weijian] {
        client.close().await.expect("closes");
    }
    drop(thief);
    assert_recorded(zone, &[ReasonCode::SenderMismatch]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_bundle_is_taken_whole_and_sound_or_not_at_all() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.raws(["jiwei", "shenji"]).await;
    let channel = jiwei.channel(&["jiwei", "shenji"]).await;

    let nothing = jiwei.claim(channel, &shenji.uri).await.expect_err("it published none");
    assert_eq!(nothing.code, ReasonCode::NoKeyPackage);
    let packages = shenji.key_packages(2).await;
    let unclaimed = jiwei.invite_bundle(channel, &packages[0]).await;
    assert_refused(&jiwei.commit(channel, &unclaimed, fresh_id()).await, ReasonCode::KeyPackageNotClaimed);
    jiwei.discard(channel).await;

    shenji.publish(packages).await.expect("published");
    let claimed = jiwei.claim(channel, &shenji.uri).await.expect("claimed");
    let good = jiwei.invite_bundle(channel, &claimed[0]).await;
    let with = |change: fn(&mut lianxin_mls::CommitBundle)| {
        let mut bundle = good.clone();
        change(&mut bundle);
        bundle
    };
    let cases = [
        (with(|bundle| bundle.welcome.clear()), ReasonCode::InvalidWelcome),
        (with(|bundle| flip_last(&mut bundle.group_info)), ReasonCode::InvalidGroupInfo),
        (with(|bundle| bundle.group_info = bundle.welcome.clone()), ReasonCode::InvalidMls),
        (with(|bundle| bundle.commit.truncate(40)), ReasonCode::InvalidMls),
        (with(|bundle| flip_middle(&mut bundle.commit)), ReasonCode::InvalidCommit),
    ];
    for (bundle, expect) in &cases {
        assert_refused(&jiwei.commit(channel, bundle, fresh_id()).await, *expect);
    }
    assert_eq!(jiwei.log(channel, Sequence(0)).await.len(), 1, "nothing of it is in the log");
    jiwei.commit(channel, &good, fresh_id()).await.expect("the sound one is taken");
    assert_refused(&jiwei.commit(channel, &good, fresh_id()).await, ReasonCode::WrongEpoch);
    assert_recorded(zone, &[ReasonCode::NoKeyPackage, ReasonCode::KeyPackageNotClaimed, ReasonCode::InvalidWelcome])
        .await;
}

fn flip_last(bytes: &mut [u8]) {
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
}

/// Somewhere inside the update path: what it says is still well formed and not what was signed.
fn flip_middle(bytes: &mut [u8]) {
    let middle = bytes.len() * 3 / 4;
    bytes[middle] ^= 1;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_leaving_says_nothing_more_and_is_not_forgotten() {
    let zone = Zone::start().await;
    let [jiwei, shenji, weijian] = zone.raws(["jiwei", "shenji", "weijian"]).await;
    let channel = jiwei.channel(&["jiwei", "shenji", "weijian"]).await;
    jiwei.add(channel, &shenji).await;
    let last_words = shenji.encrypt(channel, "再见").await;

    weijian.publish(weijian.key_packages(1).await).await.expect("published");
    let claimed = jiwei.claim(channel, &weijian.uri).await.expect("claimed");
    // Made before it has read that somebody leaves.
    let forgetful = jiwei.invite_bundle(channel, &claimed[0]).await;
    let proposal = shenji.leave_proposal(channel).await;
    let leaving = shenji.leave(channel, proposal.clone()).await.expect("proposed");
    assert_refused(&shenji.send(channel, &[(fresh_id(), last_words)]).await[0], ReasonCode::Leaving);
    assert_refused(&shenji.leave(channel, proposal).await, ReasonCode::Leaving);

    let refused = jiwei.commit(channel, &forgetful, fresh_id()).await.expect_err("somebody waits to be removed");
    assert_eq!((refused.code, refused.sequence), (ReasonCode::PendingRemoves, leaving.sequence));
    jiwei.discard(channel).await;
    jiwei.read(channel).await;
    let mindful = jiwei.work(move |tx, mls, federation| mls.commit_pending(tx, federation, channel)).await;
    jiwei.commit(channel, &mindful, fresh_id()).await.expect("the one who leaves is removed");
    let gone =
        shenji.connection.history(lianxin_proto::messages::History { channel, after: Sequence(0), events_max: 1 });
    let lianxin_connection::CallError::Refused(gone) = gone.await.expect_err("no member any more") else {
        panic!("not refused")
    };
    assert_eq!(gone.code, ReasonCode::NotMember);
    assert_recorded(zone, &[ReasonCode::Leaving, ReasonCode::PendingRemoves, ReasonCode::NotMember]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_ends_with_its_label() {
    let zone = Zone::start().await;
    let jiwei = RawDevice::open(&zone, "jiwei", "app-1").await;
    let channel = ChannelId([6; 16]);
    let end = SystemClock.now().plus(std::time::Duration::from_millis(1_500));
    let label = Label::new(Classification::General1, "短", "无", Some(end)).expect("valid");
    let start = jiwei.start(channel, &["jiwei"], label).await;
    jiwei.create(&start, fresh_id()).await.expect("created in time");
    jiwei.read(channel).await;
    let mls = jiwei.encrypt(channel, "晚了").await;
    while SystemClock.now() < end {
        SystemClock.sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_refused(&jiwei.send(channel, &[(fresh_id(), mls)]).await[0], ReasonCode::ChannelExpired);
    assert_recorded(zone, &[ReasonCode::ChannelExpired]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_public_and_names_a_head_of_its_own_epoch() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.raws(["jiwei", "shenji"]).await;
    let channel = jiwei.channel(&["jiwei", "shenji"]).await;
    let old = jiwei.view(channel).await.head;
    jiwei.add(channel, &shenji).await;
    let app = zone.app("jiwei", "app-1");
    let forger = || crate::forge::Forger::new(&app.mls_certificate, &app.mls_key);
    let before = jiwei.log(channel, Sequence(0)).await.len();

    let known = jiwei.view(channel).await.head;
    let good = {
        let forger = forger();
        jiwei.without_trace(move |tx| forger.commit(tx, channel, known, &[])).await
    };
    let hidden = {
        let forger = forger();
        let commit = jiwei.without_trace(move |tx| forger.private_commit(tx, channel)).await;
        lianxin_mls::CommitBundle { commit, ..good.clone() }
    };
    assert_refused(&jiwei.commit(channel, &hidden, fresh_id()).await, ReasonCode::InvalidMls);
    let false_head = lianxin_tlog::Head { chain_hash: lianxin_types::Digest([9; 32]), ..known };
    for head in [old, false_head] {
        let (for_commit, for_message) = (forger(), forger());
        let commit = jiwei.without_trace(move |tx| for_commit.commit(tx, channel, head, &[])).await;
        assert_refused(&jiwei.commit(channel, &commit, fresh_id()).await, ReasonCode::BadHead);
        let message = jiwei.without_trace(move |tx| for_message.message(tx, channel, head)).await;
        assert_refused(&jiwei.send(channel, &[(fresh_id(), message)]).await[0], ReasonCode::BadHead);
    }

    // Without effect: the honest ones go on.
    assert_eq!(jiwei.log(channel, Sequence(0)).await.len(), before);
    let mls = jiwei.encrypt(channel, "照常").await;
    jiwei.send(channel, &[(fresh_id(), mls)]).await.remove(0).expect("accepted");
    for member in [&jiwei, &shenji] {
        member.read(channel).await;
    }
    let (mine, yours) = (jiwei.view(channel).await, shenji.view(channel).await);
    assert_eq!((mine.head, mine.epoch_authenticator), (yours.head, yours.epoch_authenticator));
    assert_recorded(zone, &[ReasonCode::InvalidMls, ReasonCode::BadHead]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_would_leave_nobody_behind_cannot_leave() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.raws(["jiwei", "shenji"]).await;
    let alone = jiwei.channel(&["jiwei"]).await;
    let proposal = jiwei.leave_proposal(alone).await;
    assert_refused(&jiwei.leave(alone, proposal).await, ReasonCode::ProposalNotAllowed);

    let channel = jiwei.channel(&["jiwei", "shenji"]).await;
    jiwei.add(channel, &shenji).await;
    let (first, second) = (jiwei.leave_proposal(channel).await, shenji.leave_proposal(channel).await);
    jiwei.leave(channel, first).await.expect("the other one stays");
    assert_refused(&shenji.leave(channel, second).await, ReasonCode::ProposalNotAllowed);
    drop((jiwei, shenji));
    assert_recorded(zone, &[ReasonCode::ProposalNotAllowed]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_packages_as_others_of_their_kind_are_another_call() {
    let zone = Zone::start().await;
    let [jiwei] = zone.raws(["jiwei"]).await;
    let [one, two]: [Bytes; 2] = jiwei.key_packages(2).await.try_into().expect("two");
    let id = fresh_id();
    let both = Publish { id, key_packages: vec![one.clone(), two.clone()], last_resort: None };
    soon("an answer", jiwei.connection.publish(both)).await.expect("published");
    let other = Publish { id, key_packages: vec![one], last_resort: Some(two) };
    assert_refused(&answer(soon("an answer", jiwei.connection.publish(other)).await), ReasonCode::IdReused);
}
