//! Renewal with a real gateway and a department's real issuer, both processes of their own.

use std::path::Path;

use lianxin_certs_dev::{AppPaths, FederationPlan, Minted, mint, renewal_request};
use lianxin_connection::{CallError, Connection, Issued};
use lianxin_harness::{Gateway, Issuer, ensure_built};
use lianxin_proto::{Problem, ReasonCode};
use lianxin_trust::{Endpoint, RenewalRequest};
use lianxin_types::{Clock as _, SystemClock};

use crate::renewals::{pem, wire};
use crate::zone::connect_to;

struct Stage {
    minted: Minted,
    port: u16,
    gateway: Gateway,
    issuer: Issuer,
    app: AppPaths,
    folder: tempfile::TempDir,
}

impl Stage {
    /// A gateway that runs, and an issuer of shenji's for its first application that does not yet.
    async fn start() -> Self {
        let binaries = ensure_built().expect("the programs");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = Gateway::free_port().expect("a free port");
        let plan = FederationPlan { port, ..FederationPlan::default() };
        let minted = mint(&plan, &folder.path().join("federation"), &SystemClock).expect("mints");
        let app = minted.app("shenji", "app-1").expect("minted");
        let mut gateway = Gateway::prepare(&binaries, &minted, &folder.path().join("gateway")).expect("configured");
        gateway.start().await.expect("serves");
        let at = folder.path().join("issuer");
        let issuer = Issuer::prepare(&binaries, &minted, &at, "shenji", &[&app.uri]).expect("configured");
        Self { minted, port, gateway, issuer, app, folder }
    }

    async fn connect(&self, certificate: &Path, key: &Path) -> Connection {
        let address = Endpoint { host: "127.0.0.1".into(), port: self.port };
        connect_to(&self.minted, certificate, key, address).await.expect("connects")
    }

    async fn device(&self, app: &AppPaths) -> Connection {
        self.connect(&app.tls_certificate, &app.tls_key).await
    }

    fn request(&self) -> (RenewalRequest, String) {
        renewal_request(&self.app).expect("signed")
    }
}

async fn renew(device: &Connection, request: &RenewalRequest) -> Result<Issued, Problem> {
    device.renew(wire(request)).await.map_err(|error| match error {
        CallError::Refused(problem) => problem,
        other => panic!("neither yes nor no: {other:?}"),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_renews_goes_away_and_comes_back_and_says_the_same_again() {
    let mut stage = Stage::start().await;
    let device = stage.device(&stage.app).await;
    let (request, key) = stage.request();
    let problem = renew(&device, &request).await.expect_err("no issuer yet");
    assert_eq!((problem.code, problem.try_again), (ReasonCode::IssuerAway, true));

    stage.issuer.start().await.expect("at work");
    let issued = renew(&device, &request).await.expect("the same request as before");
    let (federation, now) = (stage.minted.federation().expect("verifies"), SystemClock.now());
    let renewing = request.check(&federation, now).expect("sound");
    renewing.check(&issued.tls_certificate, &issued.mls_certificate, &federation, now).expect("the device's own");
    assert_eq!(renew(&device, &request).await, Ok(issued.clone()), "a lost answer is had again");
    let (certificate, key_file) = (stage.folder.path().join("next.pem"), stage.folder.path().join("next.key"));
    std::fs::write(&certificate, pem(&issued.tls_certificate)).expect("written");
    std::fs::write(&key_file, key).expect("written");
    let renewed = stage.connect(&certificate, &key_file).await;

    stage.issuer.kill().await.expect("killed");
    let problem = renew(&renewed, &stage.request().0).await.expect_err("it is gone");
    assert_eq!((problem.code, problem.try_again), (ReasonCode::IssuerAway, true));
    stage.issuer.start().await.expect("at work");
    renew(&renewed, &stage.request().0).await.expect("issued");

    // The issuer finds a gateway that was gone, too.
    drop((device, renewed));
    stage.gateway.kill().await.expect("killed");
    stage.gateway.start().await.expect("serves");
    let device = stage.connect(&certificate, &key_file).await;
    let request = stage.request().0;
    loop {
        match renew(&device, &request).await {
            Ok(_) => break,
            Err(problem) => assert_eq!(problem.code, ReasonCode::IssuerAway, "it waits a while between two tries"),
        }
    }
    let ended = stage.issuer.stop().await.expect("stops");
    assert!(ended.success(), "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_renews_nobody_that_is_struck_off_its_list_or_revoked() {
    let mut stage = Stage::start().await;
    stage.issuer.start().await.expect("at work");
    let second = stage.minted.app("shenji", "app-2").expect("minted");
    let refused = async |device: &Connection, app: &AppPaths| {
        let request = renewal_request(app).expect("signed").0;
        renew(device, &request).await.expect_err("refused").code
    };
    let device = stage.device(&second).await;
    assert_eq!(refused(&device, &second).await, ReasonCode::RenewalRefused);
    assert!(stage.issuer.log().contains("unknown-device"), "{}", stage.issuer.log());
    stage.issuer.list_devices(&[&stage.app.uri, &second.uri]).expect("written");
    renew(&device, &renewal_request(&second).expect("signed").0).await.expect("it is on the list now");

    // The department has revoked it, and the gateway has not heard of it yet.
    stage.minted.revoke_app("shenji", "app-2").expect("revoked");
    assert_eq!(refused(&device, &second).await, ReasonCode::RenewalRefused);
    assert!(stage.issuer.log().contains("said=\"revoked\""), "{}", stage.issuer.log());
    renew(&stage.device(&stage.app).await, &stage.request().0).await.expect("others go on");
}
