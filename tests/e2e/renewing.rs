//! The SDK renews its own certificates: in time, with one key however often it is killed, and from then on it is the new one
//! that counts. What nobody renews is told before its end, and after it by what it is.

use std::time::Duration;

use lianxin_connection::{PendingRenewal, RenewalOutcome};
use lianxin_harness::{Application, Call, Issuer, Opened, ensure_built};
use lianxin_sdk::{Channel, Client, ClientError, Config, Epoch, Event, Timestamp};
use lianxin_types::{Clock as _, SystemClock};

use crate::renewals::{checked, issued, say, work};
use crate::talk::{create, event, join, receive, send, soon, texts};
use crate::zone::{MovedClock, Zone};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// What `certs-dev` gives a device.
const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

impl Zone {
    /// The first application of `department` has certificates with so much of their life left.
    fn age(&self, department: &str, left: Duration) {
        let then = self.clock.now().plus(left).minus(LIFE);
        self.minted.at(then).renew_app(department, "app-1").expect("issued");
    }

    /// The real issuer of `department` for its first application, at work.
    async fn issuer(&self, department: &str) -> Issuer {
        let binaries = ensure_built().expect("the programs");
        let device = self.app(department, "app-1").uri;
        let mut issuer = Issuer::prepare(&binaries, &self.minted, &self.folder("issuer"), department, &[&device])
            .expect("configured");
        issuer.start().await.expect("at work");
        issuer
    }

    /// The first application of shenji as a process of its own.
    async fn application(&self) -> Application {
        let binaries = ensure_built().expect("the programs");
        let application = Application::start(&binaries, "lianxin-app", &self.folder("app.log")).expect("starts");
        let state = self.config("shenji", "app-1").state_dir;
        let open = Call::open(self.minted.folder(), "shenji", "app-1", state);
        application.call::<Opened>(open).await.expect("opens");
        application
    }
}

async fn renewed(client: &Client) -> Timestamp {
    event(client, "the next certificates", |event| match event {
        Event::CertificateRenewed { ends } => Some(ends),
        _ => None,
    })
    .await
}

/// Waits until the group has come to `epoch`.
async fn leaf_renewed(channel: &Channel, epoch: Epoch) {
    soon("the leaf's renewal", async {
        while channel.info().await.expect("a member").epoch < epoch {
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_end_soon_are_renewed_and_it_is_the_new_ones_that_count() {
    let zone = Zone::start().await;
    zone.age("shenji", 6 * DAY);
    let issuer = zone.issuer("shenji").await;
    // Nothing is renewed of whose certificates two thirds are left.
    let jiwei = zone.client("jiwei", "app-1").await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let shenji = zone.client("shenji", "app-1").await;
    let ends = renewed(&shenji).await;
    assert!(ends > zone.clock.now().plus(29 * DAY), "{ends:?}");

    let at_shenji = join(&at_jiwei, &shenji).await;
    // Its key packages were those of before; its leaf follows with a commit of its own.
    leaf_renewed(&at_jiwei, Epoch(2)).await;
    send(&at_jiwei, "之前").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["之前"]);
    // The department takes back the old ones: neither the connection nor the leaf hangs on them any more.
    zone.minted.revoke_app("shenji", "app-1").expect("revoked");
    zone.reload().await.expect("taken over");
    send(&at_shenji, "新证书").await;
    assert_eq!(texts(&receive(&at_jiwei, 1).await), ["新证书"]);
    shenji.close().await.expect("closes");
    let shenji = zone.client("shenji", "app-1").await;
    send(&shenji.channel(at_jiwei.id()), "再开还是新的").await;
    assert_eq!(texts(&receive(&at_jiwei, 1).await), ["再开还是新的"]);
    drop(issuer);
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    let bodies = zone.close().await.shared_bodies();
    let of = |event: &str| bodies.iter().filter(|body| body["event"] == event).count();
    assert_eq!((of("certificate-requested"), of("certificate-issued")), (1, 1), "once, and for one device");
    let published = bodies.iter().filter(|body| body["event"] == "key-packages-published");
    let of_shenji = published.filter(|body| body["departments"] == serde_json::json!(["shenji"]));
    let last_resorts = of_shenji.filter(|body| body["last_resort"] == true).count();
    assert_eq!(last_resorts, 2, "the one that others may be given carries the new certificate");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_was_there_before_carries_the_new_certificate() {
    let zone = Zone::start().await;
    zone.age("shenji", 6 * DAY);
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    let before = at_jiwei.info().await.expect("a member").epoch;
    shenji.close().await.expect("closes");
    let _issuer = zone.issuer("shenji").await;
    drop(at_shenji);
    let shenji = zone.client("shenji", "app-1").await;
    renewed(&shenji).await;
    leaf_renewed(&at_jiwei, Epoch(before.0 + 1)).await;
    zone.minted.revoke_app("shenji", "app-1").expect("revoked");
    zone.reload().await.expect("taken over");
    send(&at_jiwei, "它还在").await;
    assert_eq!(texts(&receive(&shenji.channel(at_jiwei.id()), 1).await), ["它还在"]);
    assert_eq!(at_jiwei.info().await.expect("a member").members.len(), 2);
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    zone.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_killed_while_it_waits_asks_for_the_same_key_and_never_has_no_identity() {
    let zone = Zone::start().await;
    zone.age("shenji", 6 * DAY);
    let issuer = zone.connect_issuer("shenji").await;
    let mut asked: Option<PendingRenewal> = None;
    for _ in 0..3 {
        let application = zone.application().await;
        let pending = work(&issuer).await;
        if let Some(before) = &asked {
            assert_eq!(pending.request, before.request, "the same request, byte for byte");
        }
        asked = Some(pending);
        application.kill().await.expect("killed");
    }
    drop(issuer);
    // Killed while the answer is on its way, is stored, is used: it always comes back, with the one or the other.
    let _issuer = zone.issuer("shenji").await;
    for turn in 0..12 {
        let application = zone.application().await;
        SystemClock.sleep(Duration::from_millis(15 * turn)).await;
        application.kill().await.expect("killed");
    }
    let application = zone.application().await;
    application.call::<serde_json::Value>(Call::Connected).await.expect("lets it in");
    application.close().await.expect("closes");
    let shenji = zone.client("shenji", "app-1").await;
    let ends = renewed(&shenji).await;
    assert!(ends > zone.clock.now().plus(29 * DAY), "{ends:?}");
    shenji.close().await.expect("closes");
    let bodies = zone.close().await.shared_bodies();
    let issued = bodies.iter().filter(|body| body["event"] == "certificate-issued").count();
    assert!(issued >= 1, "by the department's issuer");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_nobody_averts_is_told_once_with_the_reason() {
    let zone = Zone::start().await;
    zone.age("shenji", 4 * DAY);
    let shenji = zone.client("shenji", "app-1").await;
    let (ends, reason) = event(&shenji, "the end that comes", |event| match event {
        Event::CertificateEnding { ends, reason } => Some((ends, reason)),
        Event::CertificateRenewed { .. } => panic!("by nobody"),
        _ => None,
    })
    .await;
    let left = ends.0 - zone.clock.now().0;
    assert!((3 * DAY.as_micros()..5 * DAY.as_micros()).contains(&u128::from(left)), "{left}");
    assert!(reason.contains("issuer"), "{reason}");
    shenji.close().await.expect("closes");
    // Told again only when half of what is left has gone by, however often it is opened and asks in vain.
    let shenji = zone.client("shenji", "app-1").await;
    let again =
        event(&shenji, "the end, again", |event| matches!(event, Event::CertificateEnding { .. }).then_some(()));
    tokio::select! {
        () = again => panic!("told twice"),
        // The gateway waits five seconds for an issuer.
        () = SystemClock.sleep(Duration::from_secs(8)) => {}
    }
    shenji.close().await.expect("closes");
    let shenji = zone.client("shenji", "app-1").await;
    let issuer = zone.connect_issuer("shenji").await;
    let pending = work(&issuer).await;
    let renewing = checked(&zone, &pending);
    let given = issued(&zone, "shenji", &renewing.device, &renewing);
    say(&issuer, pending.name, RenewalOutcome::Issued(given)).await.expect("taken");
    event(&shenji, "the next certificates, and no other word", |event| match event {
        Event::CertificateRenewed { .. } => Some(()),
        Event::CertificateEnding { .. } => panic!("told twice"),
        _ => None,
    })
    .await;
    shenji.close().await.expect("closes");
    zone.close().await;
}

/// What is said to whoever wants a connection, once there is none.
async fn refusal(client: &Client) -> ClientError {
    soon("a refusal", async {
        loop {
            if let Err(error) = client.connected().await {
                break error;
            }
            SystemClock.sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ends_under_an_open_client_is_told_as_that_and_a_new_one_brings_it_back() {
    let zone = Zone::start().await;
    zone.age("shenji", Duration::from_secs(8));
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    let channel = at_shenji.id();
    send(&at_shenji, "还行").await;
    let ClientError::CertificateEnded { ended, own } = refusal(&shenji).await else { panic!("something else") };
    assert!(own > ended && own.0 - ended.0 < 60_000_000, "{ended:?} {own:?}");
    let told = event(&shenji, "the end", |event| match event {
        Event::CertificateEnded { ended, .. } => Some(ended),
        _ => None,
    })
    .await;
    assert_eq!(told, ended);
    assert_eq!(texts(&at_shenji.history(lianxin_sdk::Sequence(0), 10).await.expect("readable")), ["还行"]);
    shenji.close().await.expect("closes");
    // Its department gives it new ones, by hand, for the same MLS key.
    zone.minted.at(zone.clock.now()).renew_app("shenji", "app-1").expect("issued");
    let shenji = zone.client("shenji", "app-1").await;
    send(&shenji.channel(channel), "回来了").await;
    assert_eq!(texts(&receive(&at_jiwei, 2).await), ["还行", "回来了"]);
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    zone.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_is_not_taken_for_a_certificate_that_is_over() {
    const AHEAD: Duration = Duration::from_secs(2 * 3600);
    let zone = Zone::start().await;
    zone.age("shenji", LIFE + AHEAD);
    let clock = std::sync::Arc::new(MovedClock::default());
    clock.advance(AHEAD);
    let client = Client::open(Config { clock, ..zone.config("shenji", "app-1") }).await.expect("opens");
    let error = soon("a refusal", client.connected()).await.expect_err("not valid yet, says the gateway");
    let ClientError::CertificateDisputed { begins, ends, own } = error else { panic!("{error:?}") };
    assert!(begins < own && own < ends && begins > SystemClock.now());
    client.close().await.expect("closes");
    zone.close().await;
}
