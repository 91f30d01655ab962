//! A department's application comes back with a state folder out of a backup: what it has done since is in the log, and it knows
//! nothing of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lianxin_certs_dev::read_signing_key;
use lianxin_connection::{Commit, GetGroupInfo, GroupInfo};
use lianxin_harness::Line;
use lianxin_keystore::{Keystore, StateKey, Transaction};
use lianxin_mls::{Mls, MlsError, MlsIdentity};
use lianxin_sdk::{Channel, Client, ClientError, Event, ReasonCode, Sequence, ViolationKind};
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, Clock as _, DeviceUri, SystemClock, SystemRandom};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::heal::{self, Villain};
use crate::quarantine::copy;
use crate::raw::fresh_id;
use crate::talk::{accept, create, event, join, own, receive, send, soon, texts};
use crate::zone::Zone;

/// Closes `client`, does something to its state folder, and opens it again.
async fn reopen(zone: &Zone, client: Client, change: impl FnOnce(&Path)) -> Client {
    client.close().await.expect("closes");
    change(&zone.config("shenji", "app-1").state_dir);
    zone.client("shenji", "app-1").await
}

fn put_back(backup: &Path, state: &Path) {
    std::fs::remove_dir_all(state).expect("removed");
    copy(backup, state);
}

async fn told_restored(client: &Client, channel: &Channel) -> Sequence {
    let told = |event| match event {
        Event::StateRestored { channel: found, sequence } => Some((found, sequence)),
        Event::Violation { kind, detail, .. } => panic!("{kind:?}: {detail}"),
        _ => None,
    };
    let (found, sequence) = event(client, "that the state is an older copy", told).await;
    assert_eq!(found, channel.id());
    sequence
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_since_the_backup_is_in_the_log_and_nothing_is_sent_with_its_keys() {
    let zone = Zone::start().await;
    let backup = zone.folder("backup");
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    send(&at_shenji, "一").await;
    own(&at_shenji, 1).await;
    let shenji = reopen(&zone, shenji, |state| copy(state, &backup)).await;
    let at_shenji = shenji.channel(at_shenji.id());
    let second = Sequence(send(&at_shenji, "二").await);
    send(&at_jiwei, "三").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["三"]);
    let before = at_shenji.info().await.expect("a member");

    let shenji = reopen(&zone, shenji, |state| put_back(&backup, state)).await;
    let at_shenji = shenji.channel(at_shenji.id());
    send(&at_shenji, "四").await;
    assert_eq!(told_restored(&shenji, &at_shenji).await, second);
    let after = at_shenji.info().await.expect("a member");
    assert_eq!(after.epoch.0, before.epoch.0 + 1, "it has made new keys by a commit of its own, and did not go away");
    assert_eq!(texts(&receive(&at_jiwei, 3).await), ["一", "二", "四"], "nothing is lost or repeated for the others");
    assert_eq!(texts(&own(&at_shenji, 3).await), ["一", "三", "四"], "an own message does not open for its sender");
    let evidence = shenji.evidence(at_shenji.id(), second).await.expect("readable").expect("kept");
    assert_eq!(evidence.kind, ViolationKind::NotSent);

    // An own commit that it knows nothing of takes it out of the group, and it comes back by itself.
    let shenji = reopen(&zone, shenji, |state| put_back(&backup, state)).await;
    let at_shenji = shenji.channel(at_shenji.id());
    let came_back = event(&shenji, "the way back", |event| match event {
        Event::MemberRejoined { device, .. } => Some(device),
        wrong @ (Event::CommitReported { .. } | Event::Violation { .. }) => panic!("nobody did wrong: {wrong:?}"),
        _ => None,
    });
    assert_eq!(came_back.await, *shenji.device());
    send(&at_shenji, "五").await;
    assert_eq!(texts(&receive(&at_jiwei, 1).await), ["五"]);
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_the_backup_knows_nothing_of_is_found_again() {
    let zone = Zone::start().await;
    let [old, stale] = ["backup", "stale"].map(|name| zone.folder(name));
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let shenji = reopen(&zone, shenji, |state| copy(state, &old)).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    soon("an invite", at_jiwei.invite(std::slice::from_ref(shenji.device()))).await.expect("invited");
    event(&shenji, "an invitation", |event| matches!(event, Event::Invited { .. }).then_some(())).await;
    let shenji = reopen(&zone, shenji, |state| copy(state, &stale)).await;
    let at_shenji = accept(&shenji).await;
    send(&at_jiwei, "一").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["一"]);
    send(&at_shenji, "二").await;
    // The gateway may forget the invitation.
    SystemClock.sleep(Duration::from_secs(6)).await;

    shenji.close().await.expect("closes");
    put_back(&old, &zone.config("shenji", "app-1").state_dir);
    let line = Line::to(zone.address()).await.expect("a free port");
    let config = zone.config("shenji", "app-1").with_endpoint("127.0.0.1", line.address().port());
    let opened = SystemClock.monotonic();
    let shenji = Client::open(config).await.expect("opens");
    soon("a connection", shenji.connected()).await.expect("connects");
    // It need not be one connection that lasts long enough to be sure.
    SystemClock.sleep(Duration::from_secs(25)).await;
    line.cut();
    assert_eq!(told_restored(&shenji, &at_shenji).await, Sequence(0));
    let took = SystemClock.monotonic().since(opened);
    assert!(took >= Duration::from_secs(45) && took < Duration::from_secs(65), "{took:?}");
    let at_shenji = shenji.channel(at_jiwei.id());
    event(&shenji, "the way back", |event| matches!(event, Event::MemberRejoined { .. }).then_some(())).await;
    send(&at_shenji, "三").await;
    assert_eq!(texts(&receive(&at_jiwei, 2).await), ["二", "三"]);

    // An invitation that was used since holds no more.
    let shenji = reopen(&zone, shenji, |state| put_back(&stale, state)).await;
    let invitation = soon("an invitation", shenji.invitations().next()).await.expect("one").expect("readable");
    match soon("an answer", shenji.accept(invitation)).await {
        Ok(_) => {}
        Err(ClientError::Refused(problem)) => assert_eq!(problem.code, ReasonCode::ChannelNotAvailable),
        Err(other) => panic!("{other:?}"),
    }
    let at_shenji = shenji.channel(at_jiwei.id());
    event(&shenji, "the way back", |event| matches!(event, Event::MemberRejoined { .. }).then_some(())).await;
    send(&at_shenji, "四").await;
    assert_eq!(texts(&receive(&at_jiwei, 1).await), ["四"]);
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
}

/// Runs `f` on the state of shenji's first application, which is closed, as that application would.
pub(crate) async fn in_state<T: Send + 'static>(
    zone: &Zone,
    f: impl FnOnce(&Mls, &Transaction<'_>, &Federation) -> Result<T, MlsError> + Send + 'static,
) -> T {
    let (app, config) = (zone.app("shenji", "app-1"), zone.config("shenji", "app-1"));
    let certificate = CertificateDer::from_pem_file(&app.mls_certificate).expect("minted");
    let key = read_signing_key(&app.mls_key).expect("minted").to_bytes().into();
    let identity = MlsIdentity { chain: vec![certificate.to_vec()], key };
    let mls = Mls::new(identity, app.uri, Arc::new(SystemClock), Arc::new(SystemRandom)).expect("an engine");
    let state_key = StateKey::load_or_create(&config.state_dir.with_extension("key"), &SystemRandom).expect("there");
    let keystore = Keystore::open(&config.state_dir, &state_key, Arc::new(SystemRandom)).expect("opens");
    let federation = zone.minted.federation().expect("verifies");
    keystore.transaction::<_, MlsError>(move |tx| f(&mls, tx, &federation)).await.expect("the engine agrees")
}

/// Leaves shenji's state, which is closed, without its group and without a way back, as a refusal does.
pub(crate) async fn lose_the_group(zone: &Zone, channel: ChannelId) {
    let connection = zone.connect(&zone.app("shenji", "app-1")).await.expect("connects");
    let GroupInfo { group_info, ratchet_tree, .. } =
        connection.group_info(GetGroupInfo { channel }).await.expect("a member's");
    let lost = in_state(zone, move |mls, tx, federation| {
        mls.discard(tx, channel)?;
        mls.rejoin(tx, federation, channel, &group_info, &ratchet_tree)?;
        mls.discard_commit(tx, channel)?;
        mls.is_lost(tx, channel)
    });
    assert!(lost.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_group_without_a_way_back_is_come_back_into_at_the_next_connection() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    join(&at_jiwei, &shenji).await;
    shenji.close().await.expect("closes");
    lose_the_group(&zone, at_jiwei.id()).await;
    send(&at_jiwei, "错过的").await;

    let shenji = zone.client("shenji", "app-1").await;
    event(&shenji, "the way back", |event| matches!(event, Event::MemberRejoined { .. }).then_some(())).await;
    let at_shenji = shenji.channel(at_jiwei.id());
    send(&at_shenji, "回来了").await;
    assert_eq!(texts(&receive(&at_jiwei, 1).await), ["回来了"]);
    send(&at_jiwei, "好").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["好"]);
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_group_that_another_has_followed_is_not_missed() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
    join(&at_jiwei, &shenji).await;
    let villain = Villain::in_channel(&zone, &at_jiwei).await;
    shenji.close().await.expect("closes");
    lose_the_group(&zone, at_jiwei.id()).await;
    villain.breaks(at_jiwei.id()).await;
    heal::restored(&jiwei).await;
    // Its seat there is made; the invitation that goes with it waits, and is not needed.
    event(&jiwei, "the other's seat", |event| matches!(event, Event::MemberJoined { .. }).then_some(())).await;

    let shenji = zone.client("shenji", "app-1").await;
    event(&shenji, "the way back", |event| matches!(event, Event::MemberRejoined { .. }).then_some(())).await;
    let at_shenji = shenji.channel(at_jiwei.id());
    send(&at_shenji, "在新的群里").await;
    assert_eq!(texts(&receive(&at_jiwei, 1).await), ["在新的群里"]);
    send(&at_jiwei, "好").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["好"]);
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
}

/// A commit of shenji, whose state is closed, that takes `device` out, and that the gateway has refused as far as shenji knows.
async fn refused_removal(zone: &Zone, channel: ChannelId, device: &DeviceUri) -> Commit {
    let gone = device.clone();
    let bundle = in_state(zone, move |mls, tx, federation| {
        let bundle = mls.remove(tx, federation, channel, &[gone])?;
        mls.discard_commit(tx, channel)?;
        Ok(bundle)
    });
    let bundle = bundle.await;
    let (commit, group_info) = (bundle.commit.into(), bundle.group_info.into());
    Commit { id: fresh_id(), channel, commit, welcome: None, group_info }
}

/// shenji's way back into the channel, and that it is heard there.
async fn is_back(shenji: &Client, at_jiwei: &Channel, text: &str) {
    event(shenji, "the way back", |event| matches!(event, Event::MemberRejoined { .. }).then_some(())).await;
    send(&shenji.channel(at_jiwei.id()), text).await;
    assert_eq!(texts(&receive(at_jiwei, 1).await), [text]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_own_commit_that_was_refused_and_is_logged_all_the_same_leaves_proof() {
    let zone = Zone::start().await;
    let [jiwei, shenji, weijian] = zone.clients(["jiwei", "shenji", "weijian"]).await;
    let colleague = zone.client("jiwei", "app-2").await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
    for other in [&shenji, &weijian, &colleague] {
        join(&at_jiwei, other).await;
    }
    let channel = at_jiwei.id();
    shenji.close().await.expect("closes");
    let connection = zone.connect(&zone.app("shenji", "app-1")).await.expect("connects");

    // While it is away it may be that the state is older than the log: the text says so, and the proof is kept.
    let removal = refused_removal(&zone, channel, weijian.device()).await;
    let logged = connection.commit(removal).await.expect("acceptable").sequence;
    let shenji = zone.client("shenji", "app-1").await;
    assert_eq!(told_restored(&shenji, &at_jiwei).await, logged);
    let kept = shenji.evidence(channel, logged).await.expect("readable").expect("kept");
    assert_eq!((kept.kind, &kept.sender, kept.sequence), (ViolationKind::NotSent, shenji.device(), logged));
    is_back(&shenji, &at_jiwei, "第一次").await;

    // Before its eyes it is the gateway's doing.
    shenji.close().await.expect("closes");
    let removal = refused_removal(&zone, channel, colleague.device()).await;
    let shenji = Client::open(zone.config("shenji", "app-1")).await.expect("opens");
    event(&shenji, "the end of the backlog", |event| matches!(event, Event::CaughtUp { .. }).then_some(())).await;
    let logged = connection.commit(removal).await.expect("acceptable").sequence;
    let told = event(&shenji, "a violation", |event| match event {
        Event::Violation { sequence, kind, sender, detail, .. } => Some((sequence, kind, sender, detail)),
        Event::StateRestored { .. } => panic!("nothing was put back"),
        _ => None,
    });
    let (sequence, kind, sender, detail) = told.await;
    assert_eq!((sequence, kind, &sender), (logged, ViolationKind::NotSent, shenji.device()));
    let kept = shenji.evidence(channel, logged).await.expect("readable").expect("kept");
    assert_eq!((kept.kind, kept.detail, kept.sequence), (kind, detail, sequence));
    is_back(&shenji, &at_jiwei, "第二次").await;
    for client in [jiwei, shenji, weijian, colleague] {
        client.close().await.expect("closes");
    }
}
