//! Devices whose certificates are revoked: their streams end, the gateway asks for their removal, members see to it.

use std::time::Duration;

use lianxin_proto::ReasonCode;
use lianxin_sdk::{Event, RemovalReason};
use lianxin_tlog::EventKind;
use lianxin_trust::Usage;
use lianxin_types::{Clock as _, Epoch, IdempotencyId, Kind, Sequence, SystemClock};

use crate::raw::{RawDevice, fresh_id};
use crate::refusals::assert_refused;
use crate::talk::{accept, create, event, join, receive, send, soon, texts};
use crate::zone::Zone;

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_out_and_the_others_talk_on_without_doing_anything() {
    let zone = Zone::start().await;
    let [jiwei, shenji, weijian] = zone.clients(["jiwei", "shenji", "weijian"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    soon("an invite", at_jiwei.invite(&[weijian.device().clone()])).await.expect("invited");
    accept(&weijian).await;
    send(&at_jiwei, "三方都在").await;
    let gone = weijian.device().clone();

    // Its department revokes it while it is connected: its streams end, and no new connection is let in.
    let app = zone.app("weijian", "app-1");
    zone.revoke(&app.tls_certificate, Usage::TlsClient);
    zone.revoke(&app.mls_certificate, Usage::Mls);
    zone.reload().await.expect("a newer list");
    let refused = event(&weijian, "a refused connection", |event| match event {
        Event::Disconnected { refused: Some(refused) } => Some(refused),
        _ => None,
    });
    assert!(refused.await.to_string().contains("revoked"));

    // Nobody asks for anything: a message is sent, and it arrives once the revoked device is out.
    send(&at_jiwei, "两方继续").await;
    let asked = event(&shenji, "what the gateway asks for", |event| match event {
        Event::RemovalAsked { device, reason, .. } => Some((device, reason)),
        _ => None,
    });
    assert_eq!(asked.await, (gone.clone(), RemovalReason::CertificateRevoked));
    let left = event(&shenji, "the removal", |event| match event {
        Event::MemberLeft { device, .. } => Some(device),
        _ => None,
    });
    assert_eq!(left.await, gone);
    assert_eq!(texts(&receive(&at_shenji, 2).await), ["三方都在", "两方继续"]);
    let (jiwei_sees, shenji_sees) = (at_jiwei.info().await.expect("read"), at_shenji.info().await.expect("read"));
    assert_eq!(jiwei_sees.epoch, shenji_sees.epoch);
    assert_eq!(jiwei_sees.members, [jiwei.device().clone(), shenji.device().clone()]);

    for client in [jiwei, shenji, weijian] {
        client.close().await.expect("closes");
    }
    let bodies = zone.close().await.shared_bodies();
    let queued: Vec<_> = bodies.iter().filter(|body| body["event"] == "removal-queued").collect();
    assert_eq!(queued.len(), 1, "{queued:?}");
    assert_eq!(queued[0]["reason"], "certificate-revoked");
    assert_eq!(queued[0]["departments"], serde_json::json!(["weijian"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_invited_before_a_revocation_and_comes_after_it_joins_and_talks() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
    join(&at_jiwei, &shenji).await;
    let weijian = zone.client("weijian", "app-1").await;
    let newcomer = weijian.device().clone();
    weijian.close().await.expect("closes");
    soon("an invite", at_jiwei.invite(&[newcomer])).await.expect("invited");

    let app = zone.app("shenji", "app-1");
    zone.revoke(&app.tls_certificate, Usage::TlsClient);
    zone.revoke(&app.mls_certificate, Usage::Mls);
    zone.reload().await.expect("a newer list");
    send(&at_jiwei, "它走了").await;

    // The tree of its invitation has the revoked device in it; the log behind that has its removal.
    let weijian = zone.client("weijian", "app-1").await;
    let at_weijian = accept(&weijian).await;
    assert_eq!(texts(&receive(&at_weijian, 1).await), ["它走了"]);
    send(&at_weijian, "我来了").await;
    assert_eq!(texts(&receive(&at_jiwei, 1).await), ["我来了"]);
    let members = at_weijian.info().await.expect("read").members;
    assert_eq!(members, [jiwei.device().clone(), weijian.device().clone()]);
    for client in [jiwei, shenji, weijian] {
        client.close().await.expect("closes");
    }
    zone.close().await;
}

/// The zone so much later: what a gateway needs has been renewed in time.
pub(crate) async fn later(zone: Zone, by: Duration) -> Zone {
    zone.clock.advance(by);
    let minted = zone.minted.at(zone.clock.now());
    minted.succeed(|_| ()).expect("signed");
    minted.renew_gateway_certificate().expect("issued");
    ["jiwei", "shenji", "weijian"].iter().for_each(|name| minted.renew_revocation_list(name).expect("signed"));
    zone.restart().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_is_over_stays_for_two_weeks_and_is_removed_then() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    // A certificate lives for 30 days: 13 and 15 days after its end.
    for (age, stays) in [(43, true), (45, false)] {
        let zone = Zone::start().await;
        let jiwei = zone.client("jiwei", "app-1").await;
        let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
        let channel = at_jiwei.id();
        for name in ["shenji", "weijian"] {
            let other = zone.client(name, "app-1").await;
            join(&at_jiwei, &other).await;
            other.close().await.expect("closes");
        }
        jiwei.close().await.expect("closes");

        // Two renew in time, and their leaves with them; of the third nobody takes care.
        let zone = later(zone, 20 * DAY).await;
        let minted = zone.minted.at(zone.clock.now());
        ["jiwei", "shenji"].iter().for_each(|name| minted.renew_app(name, "app-1").expect("issued"));
        for (name, epoch) in [("jiwei", Epoch(3)), ("shenji", Epoch(4))] {
            let client = zone.client(name, "app-1").await;
            let at_client = client.channel(channel);
            soon("a renewed leaf", async {
                while at_client.info().await.expect("read").epoch < epoch {
                    SystemClock.sleep(Duration::from_millis(20)).await;
                }
            })
            .await;
            client.close().await.expect("closes");
        }
        let zone = later(zone, (age - 20) * DAY).await;
        let (jiwei, shenji) = (zone.client("jiwei", "app-1").await, zone.client("shenji", "app-1").await);
        let (at_jiwei, at_shenji) = (jiwei.channel(channel), shenji.channel(channel));
        if !stays {
            let asked = event(&shenji, "what the gateway asks for", |event| match event {
                Event::RemovalAsked { reason, .. } => Some(reason),
                _ => None,
            });
            assert_eq!(asked.await, RemovalReason::CertificateExpired);
        }
        send(&at_jiwei, "还在吗").await;
        assert_eq!(texts(&receive(&at_shenji, 1).await), ["还在吗"]);
        let members = at_shenji.info().await.expect("read").members;
        assert_eq!(members.len(), if stays { 3 } else { 2 }, "{members:?}");
        for client in [jiwei, shenji] {
            client.close().await.expect("closes");
        }
        let bodies = zone.close().await.shared_bodies();
        let queued: Vec<_> = bodies.iter().filter(|body| body["event"] == "removal-queued").collect();
        assert_eq!(queued.len(), usize::from(!stays));
        assert!(queued.iter().all(|body| body["reason"] == "certificate-expired"), "{queued:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_removal_waits_nothing_else_is_taken_and_a_commit_must_carry_it() {
    let zone = Zone::start().await;
    let mut jiwei = RawDevice::open(&zone, "jiwei", "app-1").await;
    let mut shenji = RawDevice::open(&zone, "shenji", "app-1").await;
    let mut weijian = RawDevice::open(&zone, "weijian", "app-1").await;
    let channel = jiwei.channel(&["jiwei", "shenji", "weijian"]).await;
    jiwei.add(channel, &shenji).await;
    jiwei.add(channel, &weijian).await;
    shenji.read(channel).await;
    let before = weijian.view(channel).await.head.sequence;

    let last_commit = weijian.removal(channel, &shenji.uri).await;
    // Only the MLS certificate is revoked: the device still gets in, and is not heard any more.
    zone.revoke(&zone.app("weijian", "app-1").mls_certificate, Usage::Mls);
    let forgetful = jiwei.removal(channel, &shenji.uri).await;
    // Encrypted by who does not know yet; afterwards their engines refuse.
    let doomed_message = weijian.encrypt(channel, "还在").await;
    let early_message = shenji.encrypt(channel, "太早").await;
    zone.reload().await.expect("a newer list");
    let zone = zone.restart().await.restart().await;
    jiwei.reconnect(&zone, "jiwei", "app-1").await;
    shenji.reconnect(&zone, "shenji", "app-1").await;
    weijian.reconnect(&zone, "weijian", "app-1").await;
    let events = soon("the removal", async {
        loop {
            let events = jiwei.log(channel, before).await;
            if !events.is_empty() {
                return events;
            }
        }
    })
    .await;
    assert_eq!(events.len(), 1, "asked for once, however often the gateway starts");
    let asked = &events[0];
    assert_eq!((asked.kind, asked.sender.kind()), (EventKind::Proposal, Kind::Gateway));
    assert_eq!(asked.idempotency_id, IdempotencyId([0; 16]));

    // Who is to go: no message, no commit, no leave.
    assert_refused(&weijian.send(channel, &[(fresh_id(), doomed_message)]).await[0], ReasonCode::Leaving);
    assert_refused(&weijian.commit(channel, &last_commit, fresh_id()).await, ReasonCode::Leaving);
    weijian.discard(channel).await;
    let proposal = weijian.leave_proposal(channel).await;
    assert_refused(&weijian.leave(channel, proposal).await, ReasonCode::Leaving);

    // Everybody else: no message, and no commit that leaves it in, both told how far to read.
    let refused = shenji.send(channel, &[(fresh_id(), early_message)]).await.remove(0).expect_err("a removal waits");
    assert_eq!((refused.code, refused.sequence), (ReasonCode::PendingRemoves, asked.sequence));
    let refused = jiwei.commit(channel, &forgetful, fresh_id()).await.expect_err("it leaves the revoked device in");
    assert_eq!((refused.code, refused.sequence), (ReasonCode::PendingRemoves, asked.sequence));
    jiwei.discard(channel).await;

    jiwei.read(channel).await;
    let mindful = jiwei.work(move |tx, mls, federation| mls.commit_pending(tx, federation, channel)).await;
    jiwei.commit(channel, &mindful, fresh_id()).await.expect("the revoked device is removed");
    for device in [&jiwei, &shenji] {
        device.read(channel).await;
        let view = device.view(channel).await;
        assert_eq!(view.members, [jiwei.uri.clone(), shenji.uri.clone()]);
    }
    let message = shenji.encrypt(channel, "继续").await;
    shenji.send(channel, &[(fresh_id(), message)]).await.remove(0).expect("nothing waits any more");
    let gone =
        weijian.connection.history(lianxin_proto::messages::History { channel, after: Sequence(0), events_max: 1 });
    let lianxin_connection::CallError::Refused(gone) = gone.await.expect_err("no member any more") else {
        panic!("not refused")
    };
    assert_eq!(gone.code, ReasonCode::NotMember);
    drop((jiwei, shenji, weijian));
    let bodies = zone.close().await.shared_bodies();
    assert_eq!(bodies.iter().filter(|body| body["event"] == "removal-queued").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_from_outside_does_not_make_anybody_forget_a_removal() {
    let zone = Zone::start().await;
    let mut jiwei = RawDevice::open(&zone, "jiwei", "app-1").await;
    let mut shenji = RawDevice::open(&zone, "shenji", "app-1").await;
    let weijian = RawDevice::open(&zone, "weijian", "app-1").await;
    let channel = jiwei.channel(&["jiwei", "shenji", "weijian"]).await;
    jiwei.add(channel, &shenji).await;
    jiwei.add(channel, &weijian).await;
    shenji.read(channel).await;
    let before = jiwei.view(channel).await.head.sequence;
    zone.revoke(&zone.app("weijian", "app-1").mls_certificate, Usage::Mls);
    zone.reload().await.expect("a newer list");
    soon("the removal", async { while jiwei.log(channel, before).await.is_empty() {} }).await;
    jiwei.reconnect(&zone, "jiwei", "app-1").await;
    jiwei.read(channel).await;

    // It has not heard of the revocation yet.
    shenji.lose(channel).await;
    let bundle = shenji.rejoin_bundle(channel).await;
    let back = shenji.commit(channel, &bundle, fresh_id()).await.expect("a removal that waits does not keep it out");
    shenji.reconnect(&zone, "shenji", "app-1").await;
    let behind = jiwei.log(channel, back.sequence).await;
    assert_eq!(behind.len(), 1, "asked for again, directly behind it");
    assert_eq!((behind[0].kind, behind[0].sender.kind()), (EventKind::Proposal, Kind::Gateway));
    assert_eq!(behind[0].sequence, back.sequence.next());
    for device in [&jiwei, &shenji] {
        device.read(channel).await;
        assert_eq!(device.view(channel).await.pending_leaves, std::slice::from_ref(&weijian.uri));
    }
    let mindful = shenji.work(move |tx, mls, federation| mls.commit_pending(tx, federation, channel)).await;
    shenji.commit(channel, &mindful, fresh_id()).await.expect("it is removed after all");
    for device in [&jiwei, &shenji] {
        device.read(channel).await;
        assert_eq!(device.view(channel).await.members.len(), 2);
    }
    drop((jiwei, shenji, weijian));
    let bodies = zone.close().await.shared_bodies();
    assert_eq!(bodies.iter().filter(|body| body["event"] == "removal-queued").count(), 2);
}
