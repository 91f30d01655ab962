//! Readiness apart from liveness: every reason by its word, on the page, in the metrics and in the gRPC health service.

use std::time::Duration;

use lianxin_harness::{Stage, eventually};
use lianxin_trust::BUNDLE_LIFETIME;
use lianxin_types::{Clock as _, LIMITS, SystemClock};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::talk::soon;
use crate::wire::channel_to;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// As certs-dev issues leaves.
const LEAF_LIFETIME: Duration = Duration::from_secs(30 * DAY.as_secs());

async fn page(stage: &Stage, path: &str) -> String {
    stage.gateway.page(path).await.expect("alive")
}

/// Waits until `/readyz` answers with this status and names this reason; then liveness must be as ever.
async fn says(stage: &Stage, status: &str, line: &str) {
    let found = || async {
        let page = page(stage, "/readyz").await;
        page.starts_with(&format!("HTTP/1.1 {status}")) && page.contains(line)
    };
    eventually(Duration::from_secs(60), line, found).await.expect("it says so");
    assert!(page(stage, "/livez").await.starts_with("HTTP/1.1 200"), "the process lives");
}

async fn taken_over(stage: &Stage) {
    let before = stage.gateway.scrape("lianxin_reloads_total").await.expect("exported");
    stage.gateway.hang_up().await.expect("runs");
    let done = || async { stage.gateway.scrape("lianxin_reloads_total").await.is_ok_and(|count| count > before) };
    eventually(Duration::from_secs(60), "a reload", done).await.expect("taken over");
}

/// What the health service says next to who watches it.
async fn next(watch: &mut tonic::Streaming<HealthCheckResponse>) -> ServingStatus {
    let said = soon("the health service", watch.message()).await.expect("answers").expect("goes on");
    said.status()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_overdue_warns_what_cannot_serve_is_not_ready_and_the_process_lives_throughout() {
    let mut stage = Stage::start().await.expect("a gateway process");
    let minted = stage.minted.clone();
    let (now, app) = (SystemClock.now(), minted.app("jiwei", "app-1").expect("minted"));
    says(&stage, "200", "\r\n\r\nok\n").await;
    let channel = channel_to(stage.gateway.address(), &app.tls_certificate, &app.tls_key).await.expect("connects");
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let watch = health.watch(HealthCheckRequest { service: String::new() }).await.expect("answers");
    let mut watch = watch.into_inner();
    // It may be asked before it was looked at for the first time.
    while next(&mut watch).await != ServingStatus::Serving {}

    // Given a bundle and a list that end within a day, then ones that are over: both warn, nobody is sent elsewhere.
    let soon_over = minted.at(now.minus(BUNDLE_LIFETIME - DAY / 2));
    soon_over.succeed(|_| ()).expect("signed");
    soon_over.renew_revocation_list("shenji").expect("signed");
    taken_over(&stage).await;
    says(&stage, "200", "ok\nwarning trust-bundle-expiring: ").await;
    says(&stage, "200", "\nwarning revocation-list-expiring: ").await;
    let over = minted.at(now.minus(BUNDLE_LIFETIME + DAY));
    over.succeed(|_| ()).expect("signed");
    over.renew_revocation_list("shenji").expect("signed");
    taken_over(&stage).await;
    says(&stage, "200", "ok\nwarning trust-bundle-expired: ").await;
    says(&stage, "200", "\nwarning revocation-list-expired: ").await;
    let metrics = page(&stage, "/metrics").await;
    for wanted in [
        "lianxin_ready 1",
        "lianxin_readiness_reason{reason=\"trust-bundle-expired\"} 1",
        "lianxin_readiness_reason{reason=\"revocation-list-expired\"} 1",
        "lianxin_readiness_reason{reason=\"trust-bundle-expiring\"} 0",
        "lianxin_readiness_reason{reason=\"draining\"} 0",
    ] {
        assert!(metrics.contains(wanted), "{wanted} is not in {metrics}");
    }

    // Given a certificate that is over soon: a warning, and then no client connects and nobody is sent here.
    let moment = SystemClock.now().plus(Duration::from_secs(12));
    minted.at(moment.minus(LEAF_LIFETIME + LIMITS.clock_skew_max)).renew_gateway_certificate().expect("issued");
    taken_over(&stage).await;
    says(&stage, "200", "warning certificate-expiring: ").await;
    says(&stage, "503", "not ready\nnot-ready certificate-unusable: ").await;
    assert_eq!(next(&mut watch).await, ServingStatus::NotServing);
    assert_eq!(stage.gateway.scrape("lianxin_ready").await.expect("exported"), 0);
    minted.at(SystemClock.now()).renew_gateway_certificate().expect("issued");
    minted.at(SystemClock.now()).succeed(|_| ()).expect("signed");
    minted.at(SystemClock.now()).renew_revocation_list("shenji").expect("signed");
    taken_over(&stage).await;
    says(&stage, "200", "\r\n\r\nok\n").await;
    assert_eq!(next(&mut watch).await, ServingStatus::Serving);

    // Told to stop, while a call is open: who asks for work is sent elsewhere at once, and the open call is told.
    let process = stage.gateway.process_id().expect("runs").to_string();
    let told = std::process::Command::new("kill").args(["-TERM", &process]).status().expect("runs");
    assert!(told.success());
    says(&stage, "503", "not-ready draining: ").await;
    assert_eq!(next(&mut watch).await, ServingStatus::NotServing);
    assert!(stage.gateway.stop().await.expect("stops in time").success());
}
