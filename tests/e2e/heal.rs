//! A channel that a commit has broken for good goes on in another group: by itself, without whoever made the commit, and with
//! everybody else.

use lianxin_sdk::{Channel, ChannelId, Client, DeviceUri, Event, Incarnation, Sequence};
use lianxin_types::{Clock as _, SystemClock};

use crate::forge::{self, Forger};
use crate::raw::{RawDevice, fresh_id};
use crate::talk::{create, event, join, own, receive, send, soon, texts};
use crate::zone::Zone;

/// A member that means no good, and a device that it brings in by the commit that breaks the channel.
struct Villain {
    device: RawDevice,
    second: RawDevice,
    forger: Forger,
}

impl Villain {
    async fn in_channel(zone: &Zone, channel: &Channel) -> Self {
        let device = RawDevice::open(zone, "weijian", "app-1").await;
        device.publish(device.key_packages(1).await).await.expect("published");
        soon("an invite", channel.invite(std::slice::from_ref(&device.uri))).await.expect("invited");
        device.join_and_read(channel.id()).await;
        let app = zone.app("weijian", "app-1");
        let second = RawDevice::open(zone, "weijian", "app-2").await;
        second.publish(second.key_packages(1).await).await.expect("published");
        Self { device, second, forger: Forger::new(&app.mls_certificate, &app.mls_key) }
    }

    /// A commit that no member can process, with a public state by which nobody can come back: the gateway can see neither.
    async fn breaks(&self, channel: ChannelId) -> Sequence {
        self.device.read(channel).await;
        let package = self.device.claim(channel, &self.second.uri).await.expect("claimed").remove(0);
        let mut bundle = self.device.invite_bundle(channel, &package).await;
        *bundle.commit.last_mut().expect("not empty") ^= 1;
        // A point of small order: what is encrypted to it has no secret, so HPKE refuses it.
        bundle.group_info = self.forger.with_extensions(&bundle.group_info, forge::external_pub(Some([0; 32])));
        self.device.commit(channel, &bundle, fresh_id()).await.expect("the gateway cannot see it").sequence
    }
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

async fn restored(client: &Client) {
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
    assert_eq!(answer.expect_err("out").code, lianxin_sdk::ReasonCode::NotMember);
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
