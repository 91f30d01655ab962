//! A zone whose journal is damaged is never served: the gateway stays alive and says what is to be done, and serves again
//! when it has been done.

use std::fs;
use std::path::Path;
use std::time::Duration;

use lianxin_connection::{CallError, ConnectError};
use lianxin_harness::Stage;
use lianxin_proto::ReasonCode;
use lianxin_trust::Endpoint;
use lianxin_types::{Clock as _, SystemClock};

use crate::talk::{create, join, own, send, soon, texts};
use crate::zone::{check_store, connect_to};

/// Copies the folder of a gateway that has stopped.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a temporary folder");
    for entry in fs::read_dir(from).expect("readable") {
        let path = entry.expect("readable").path();
        let target = to.join(path.file_name().expect("named"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("copied");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_zone_is_closed_until_it_is_restored_and_the_gateway_lives_on() {
    let mut stage = Stage::start().await.expect("a gateway process");
    let jiwei = stage.client("jiwei", "app-1").await.expect("opens");
    let shenji = stage.client("shenji", "app-1").await.expect("opens");
    soon("a connection", shenji.connected()).await.expect("connects");
    let channel = create(&jiwei, &["jiwei", "shenji"]).await;
    join(&channel, &shenji).await;
    shenji.close().await.expect("closes");
    send(&channel, "一").await;
    stage.gateway.stop().await.expect("stops in order");
    let (zone, backup) = (stage.gateway.zone_folder(), stage.folder().join("backup"));
    copy(&zone, &backup);
    let buckets = fs::read_dir(zone.join("buckets")).expect("readable");
    let bucket = buckets.map(|entry| entry.expect("readable").path()).next().expect("one bucket");
    fs::File::options().write(true).open(bucket.join("db")).and_then(|file| file.set_len(2_000)).expect("cut off");

    // Alive, not ready; who calls is told that the zone cannot be had.
    stage.gateway.start_alive().await.expect("lives");
    let page = async |path: &'static str| stage.gateway.page(path).await.expect("alive");
    let ready = page("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("\nnot-ready zone-quarantined: "), "{ready}");
    assert!(page("/livez").await.starts_with("HTTP/1.1 200"));
    let metrics = page("/metrics").await;
    assert!(metrics.contains("lianxin_zone_quarantined 1") && metrics.contains("lianxin_zone_writable 0"), "{metrics}");
    let app = stage.minted.app("jiwei", "app-2").expect("minted");
    let address = stage.gateway.address();
    let endpoint = Endpoint { host: address.ip().to_string(), port: address.port() };
    match connect_to(&stage.minted, &app.tls_certificate, &app.tls_key, endpoint).await {
        Err(ConnectError::Hello(CallError::Refused(problem))) => assert_eq!(problem.code, ReasonCode::ZoneUnavailable),
        other => panic!("{:?}", other.map(|_| "connected")),
    }
    let log = fs::read_to_string(stage.gateway.log_file()).expect("readable");
    let mark = zone.join("quarantine");
    for wanted in
        ["quarantined", "lianxin-gateway store check", "restore it from a backup", &mark.display().to_string()]
    {
        assert!(log.contains(wanted), "the log says {wanted}: {log}");
    }
    // Removing the mark without mending anything brings it back.
    fs::remove_file(&mark).expect("it is there");
    soon("the mark", async {
        while !mark.exists() {
            SystemClock.sleep(Duration::from_millis(50)).await;
        }
    })
    .await;

    // Restored: it opens by itself, and goes on where it was.
    for name in ["buckets", "state"] {
        fs::remove_dir_all(zone.join(name)).expect("there");
    }
    copy(&backup, &zone);
    fs::remove_file(&mark).expect("it is there");
    soon("readiness", async {
        while !page("/readyz").await.starts_with("HTTP/1.1 200") {
            SystemClock.sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    send(&channel, "二").await;
    assert_eq!(texts(&own(&channel, 2).await), ["一", "二"]);
    jiwei.close().await.expect("closes");
    stage.gateway.stop().await.expect("stops in order");
    check_store(&zone, stage.folder());
}
