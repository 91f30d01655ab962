//! A gateway takes over another configuration and newer trust files while it serves: all of it or nothing, and on record.

use std::time::Duration;

use lianxin_certs_dev::FederationPlan;
use lianxin_connection::{ConnectError, Connection, RefusedReason};
use lianxin_gateway::ReloadError;
use lianxin_harness::{Stage, eventually};
use lianxin_proto::directory::GetTrust;
use lianxin_trust::Endpoint;
use lianxin_types::{Clock as _, SystemClock};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;

use crate::handshakes::shown_certificate;
use crate::talk::{create, join, receive, send, soon, texts};
use crate::zone::{Zone, audit, connect_to, open_store};

/// Sends the signal and waits until the process has counted so many reloads, taken over or refused.
async fn told(stage: &Stage, metric: &str, count: u64) {
    stage.gateway.hang_up().await.expect("runs");
    reaches(stage, metric, count).await;
}

async fn reaches(stage: &Stage, metric: &str, count: u64) {
    let reached = || async { stage.gateway.scrape(metric).await.is_ok_and(|value| value >= count) };
    eventually(Duration::from_secs(60), metric, reached).await.expect("the gateway gets there");
}

async fn connect(stage: &Stage, department: &str, app: &str) -> Result<Connection, ConnectError> {
    let address = stage.gateway.address();
    let endpoint = Endpoint { host: address.ip().to_string(), port: address.port() };
    let app = stage.minted.app(department, app).expect("minted");
    connect_to(&stage.minted, &app.tls_certificate, &app.tls_key, endpoint).await
}

/// The bundle's version and how many revocation lists are served.
async fn trust(stage: &Stage, connection: &Connection) -> (u64, Vec<bytes::Bytes>) {
    let trust = soon("the trust bundle", connection.trust(GetTrust { known_version: 0 })).await.expect("served");
    let roots = stage.minted.roots().expect("minted");
    let bundle = lianxin_trust::verify_bundle(&roots, &trust.trust_bundle).expect("verifies");
    (bundle.bundle.version, trust.revocation_lists)
}

fn bodies(stage: &Stage) -> Vec<Value> {
    let records = audit(&*open_store(&stage.gateway.zone_folder()));
    records.iter().map(|record| serde_json::from_slice(&record.parts[0].body).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_takes_over_what_may_change_and_refuses_the_rest_by_name() {
    let mut stage = Stage::start().await.expect("a gateway process");
    let minted = stage.minted.at(SystemClock.now());
    let config = stage.gateway.config_file();
    let first_text = std::fs::read_to_string(&config).expect("written");
    let jiwei = connect(&stage, "jiwei", "app-1").await.expect("connects");
    assert_eq!(trust(&stage, &jiwei).await.0, 1);
    let shown = || async { shown_certificate(stage.gateway.address()).await };
    let on_disk = || CertificateDer::from_pem_file(minted.gateway().tls_certificate).expect("minted").to_vec();
    assert_eq!(shown().await, on_disk());

    // Given a newer bundle, a fresh revocation list, a renewed certificate and another filter: all are taken over.
    minted.succeed(|_| ()).expect("signed");
    minted.revoke_app("shenji", "app-1").expect("revoked");
    minted.renew_gateway_certificate().expect("renewed");
    let second_text = first_text.replace("filter = \"info,", "filter = \"warn,lianxin_rpc=info,");
    assert_ne!(second_text, first_text);
    std::fs::write(&config, &second_text).expect("written");
    told(&stage, "lianxin_reloads_total", 1).await;
    assert_eq!(shown().await, on_disk());
    let (version, lists) = trust(&stage, &jiwei).await;
    assert_eq!(version, 2, "the connection of before goes on");
    match connect(&stage, "shenji", "app-1").await {
        Err(ConnectError::Refused { reason: RefusedReason::Revoked }) => {}
        other => panic!("{other:?}"),
    }

    // Keys that need a restart are all named, and what else is new waits with them.
    minted.succeed(|_| ()).expect("signed");
    let moved = second_text.replace("cn-zj-1", "cn-zj-2").replace("listen = \"127", "listen = \"127.0.0.9:1\" #");
    std::fs::write(&config, moved.replace("drain_seconds_max = 5", "drain_seconds_max = 6")).expect("written");
    told(&stage, "lianxin_reload_refusals_total", 1).await;
    // A secret of another content under the same name.
    std::fs::write(&config, &second_text).expect("written");
    let secret = config.with_file_name("pseudonym.key");
    let secret_bytes = std::fs::read(&secret).expect("made at the start");
    std::fs::write(&secret, [9; 32]).expect("written");
    told(&stage, "lianxin_reload_refusals_total", 2).await;
    std::fs::write(&secret, secret_bytes).expect("written");
    // An unknown key; a key that is not the certificate's.
    std::fs::write(&config, format!("surprise = 1\n{second_text}")).expect("written");
    told(&stage, "lianxin_reload_refusals_total", 3).await;
    std::fs::write(&config, &second_text).expect("written");
    let (key_file, other_key) = (minted.gateway().tls_key, minted.app("jiwei", "app-1").expect("minted").tls_key);
    let key = std::fs::read(&key_file).expect("minted");
    std::fs::copy(other_key, &key_file).expect("copied");
    told(&stage, "lianxin_reload_refusals_total", 4).await;
    std::fs::write(&key_file, key).expect("written");
    assert_eq!(trust(&stage, &jiwei).await, (2, lists.clone()), "no refused reload changed anything");

    // A bundle with a lower version, beside a good new list: neither counts.
    let third = std::fs::read(minted.bundle_file()).expect("signed");
    std::fs::copy(minted.bundle_history_folder().join("1.note"), minted.bundle_file()).expect("copied");
    let list_file = minted.department("shenji").revocation_list;
    let list = std::fs::read(&list_file).expect("signed");
    minted.renew_revocation_list("shenji").expect("signed");
    told(&stage, "lianxin_reload_refusals_total", 5).await;
    // An older revocation list, beside a good new bundle: neither counts.
    let renewed = std::fs::read(&list_file).expect("signed");
    std::fs::write(minted.bundle_file(), &third).expect("written");
    std::fs::write(&list_file, &renewed).expect("written");
    told(&stage, "lianxin_reloads_total", 2).await;
    std::fs::write(&list_file, &list).expect("written");
    told(&stage, "lianxin_reload_refusals_total", 6).await;
    std::fs::write(&list_file, &renewed).expect("written");
    assert_eq!(trust(&stage, &jiwei).await.0, 3);

    // Not even a restart takes the older bundle.
    drop(jiwei);
    stage.gateway.stop().await.expect("stops");
    std::fs::copy(minted.bundle_history_folder().join("2.note"), minted.bundle_file()).expect("copied");
    let refused = stage.gateway.start().await.expect_err("an older bundle").to_string();
    assert!(refused.contains("trust bundle 2 is older than 3"), "{refused}");

    let bodies = bodies(&stage);
    let of = |event: &str| bodies.iter().filter(|body| body["event"] == event).cloned().collect::<Vec<_>>();
    let reloaded = of("reloaded");
    assert_eq!(reloaded.len(), 2);
    let keys = ["log.filter", "tls.certificate", "tls.key", "trust.bundle", "trust.revocation_lists"];
    assert_eq!((&reloaded[0]["changed"], &reloaded[0]["bundle_version"]), (&serde_json::json!(keys), &2.into()));
    assert_eq!(reloaded[0]["configuration_digest_before"], of("gateway-started")[0]["configuration_digest"]);
    assert_ne!(reloaded[0]["configuration_digest_before"], reloaded[0]["configuration_digest"]);
    assert_eq!(reloaded[1]["bundle_digest"], minted_digest(&minted, &third));
    let reasons: Vec<_> =
        of("reload-refused").iter().map(|body| (body["reason"].clone(), body["keys"].clone())).collect();
    let row = |reason: &str, keys: &[&str]| (Value::from(reason), serde_json::json!(keys));
    assert_eq!(
        reasons,
        [
            row("needs-restart", &["listen", "metrics.listen", "zone"]),
            row("needs-restart", &["audit.pseudonym_key"]),
            row("configuration", &[]),
            row("files", &[]),
            row("bundle-older", &[]),
            row("revocation-list-older", &[]),
        ]
    );
    let log = std::fs::read_to_string(stage.gateway.log_file()).expect("there");
    assert!(log.contains("zone, listen, metrics.listen"), "the log names every key: {log}");
}

fn minted_digest(minted: &lianxin_certs_dev::Minted, note: &[u8]) -> String {
    lianxin_trust::verify_bundle(&minted.roots().expect("minted"), note).expect("verifies").digest.to_hex()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_revocation_list_takes_effect_by_itself_while_others_talk() {
    let mut stage = Stage::set_up(FederationPlan::default()).expect("minted");
    let config = stage.gateway.config_file();
    let text = std::fs::read_to_string(&config).expect("written");
    std::fs::write(config, text.replace("[trust]", "[trust]\nreread_seconds = 1")).expect("written");
    stage.gateway.start().await.expect("a gateway process");
    let minted = stage.minted.at(SystemClock.now());
    let jiwei = stage.client("jiwei", "app-1").await.expect("opens");
    let shenji = stage.client("shenji", "app-1").await.expect("opens");
    for client in [&jiwei, &shenji] {
        soon("a connection", client.connected()).await.expect("connects");
    }
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    connect(&stage, "weijian", "app-1").await.expect("not revoked yet");
    minted.revoke_app("weijian", "app-1").expect("revoked");
    reaches(&stage, "lianxin_reloads_total", 1).await;
    match connect(&stage, "weijian", "app-1").await {
        Err(ConnectError::Refused { reason: RefusedReason::Revoked }) => {}
        other => panic!("{other:?}"),
    }
    send(&at_jiwei, "照常").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["照常"]);

    // A file that is bad for a while is one record, however often it is read.
    let good = std::fs::read(minted.bundle_file()).expect("signed");
    std::fs::write(minted.bundle_file(), "half a fi").expect("written");
    let read = stage.gateway.scrape("lianxin_trust_rereads_total").await.expect("exported");
    reaches(&stage, "lianxin_trust_rereads_total", read + 3).await;
    assert_eq!(stage.gateway.scrape("lianxin_reload_refusals_total").await.expect("exported"), 1);
    std::fs::write(minted.bundle_file(), good).expect("written");
    send(&at_jiwei, "仍然照常").await;
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    stage.gateway.stop().await.expect("stops");
    let bodies = bodies(&stage);
    let of = |event: &str| bodies.iter().filter(|body| body["event"] == event).collect::<Vec<_>>();
    assert_eq!((of("reloaded").len(), of("reload-refused").len()), (1, 1), "{bodies:#?}");
    assert_eq!(of("reloaded")[0]["changed"], serde_json::json!(["trust.revocation_lists"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_several_versions_ahead_needs_the_ones_between() {
    let zone = Zone::start().await;
    let minted = zone.minted.at(SystemClock.now());
    for _ in 0..3 {
        minted.succeed(|_| ()).expect("signed");
    }
    let refused = zone.reload().await.expect_err("the ones between are not known");
    assert!(matches!(&refused, ReloadError::Files(_)), "{refused:?}");
    let text = std::fs::read_to_string(zone.config_file()).expect("written");
    let history = format!("[trust]\nbundle_history = {:?}", minted.bundle_history_folder().display().to_string());
    std::fs::write(zone.config_file(), text.replace("[trust]", &history)).expect("written");
    let third = minted.bundle_history_folder().join("3.note");
    let note = std::fs::read(&third).expect("kept");
    std::fs::remove_file(&third).expect("removed");
    zone.reload().await.expect_err("one of them is missing");
    assert_eq!(served_version(&zone).await, 1);

    std::fs::write(&third, note).expect("written");
    let reloaded = zone.reload().await.expect("they lead here one by one");
    assert_eq!((reloaded.bundle_version, reloaded.changed), (4, vec!["trust.bundle", "trust.bundle_history"]));
    assert_eq!(served_version(&zone).await, 4);
    let bodies = zone.close().await.shared_bodies();
    let of = |event: &str| bodies.iter().filter(|body| body["event"] == event).collect::<Vec<_>>();
    assert!(of("reload-refused").iter().all(|body| body["reason"] == "bundle-chain-broken"), "{bodies:#?}");
    assert_eq!((of("reload-refused").len(), of("reloaded").len()), (2, 1));
}

async fn served_version(zone: &Zone) -> u64 {
    let connection = zone.connect(&zone.app("jiwei", "app-1")).await.expect("connects");
    let trust = soon("the trust bundle", connection.trust(GetTrust { known_version: 0 })).await.expect("served");
    let roots = zone.minted.roots().expect("minted");
    lianxin_trust::verify_bundle(&roots, &trust.trust_bundle).expect("verifies").bundle.version
}
