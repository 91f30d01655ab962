//! A device gets its next certificates over the connection that it has, from its department's issuer, through a gateway that
//! can issue nothing. The issuer here is the story's own, so that it can also lie.

use bytes::Bytes;
use lianxin_certs_dev::{AppPaths, renewal_request};
use lianxin_connection::{CallError, Connection, TlsIdentity};
use lianxin_proto::certificates::{Answer, Issued, PendingRenewal, Renew, RenewalOutcome, RenewalRefusal};
use lianxin_proto::{Problem, ReasonCode};
use lianxin_trust::{RenewalRequest, Renewing, Usage};
use lianxin_types::{Clock as _, DeviceUri, Digest, LIMITS, SystemClock};

use crate::raw::fresh_id;
use crate::refusals::assert_recorded;
use crate::talk::soon;
use crate::zone::Zone;

pub(crate) fn wire(request: &RenewalRequest) -> Renew {
    Renew {
        id: request.id,
        tls_request: request.tls_request.clone().into(),
        mls_certificate: request.mls_certificate.clone().into(),
        signature: request.signature,
    }
}

/// What the device of `app` may ask for.
pub(crate) fn asked(app: &AppPaths) -> Renew {
    wire(&renewal_request(app).expect("signed").0)
}

/// A request as an issuer reads it, checked.
pub(crate) fn checked(zone: &Zone, pending: &PendingRenewal) -> Renewing {
    let asked = &pending.request;
    let request = RenewalRequest {
        id: asked.id,
        tls_request: asked.tls_request.to_vec(),
        mls_certificate: asked.mls_certificate.to_vec(),
        signature: asked.signature,
    };
    assert_eq!(request.digest(), pending.name);
    request.check(&zone.minted.federation().expect("verifies"), zone.clock.now()).expect("sound")
}

/// What this department's authority issues for this device and these keys.
pub(crate) fn issued(zone: &Zone, department: &str, device: &DeviceUri, renewing: &Renewing) -> Issued {
    let certify = |usage, key: &[u8]| zone.minted.certify(department, device, usage, key).expect("issued").into();
    Issued {
        tls_certificate: certify(Usage::TlsClient, &renewing.tls_key),
        mls_certificate: certify(Usage::Mls, &renewing.mls_key),
    }
}

pub(crate) async fn work(issuer: &Connection) -> PendingRenewal {
    let mut pending = soon("something to issue", issuer.pending_renewals()).await.expect("an issuer may ask");
    assert_eq!(pending.renewals.len(), 1);
    pending.renewals.remove(0)
}

pub(crate) async fn say(issuer: &Connection, name: Digest, outcome: RenewalOutcome) -> Result<(), ReasonCode> {
    reason(issuer.answer_renewal(Answer { name, outcome }).await.map(|_| ()))
}

fn reason<T>(answer: Result<T, CallError>) -> Result<T, ReasonCode> {
    answer.map_err(|error| match error {
        CallError::Refused(Problem { code, .. }) => code,
        other => panic!("neither yes nor no: {other:?}"),
    })
}

async fn renew(device: &Connection, request: &RenewalRequest) -> Result<Issued, ReasonCode> {
    reason(soon("what becomes of it", device.renew(wire(request))).await)
}

/// The whole way, once: the device's next certificates.
pub(crate) async fn renewed(zone: &Zone, device: &Connection, app: &AppPaths) -> (Issued, String) {
    let department = app.uri.department().as_str();
    let issuer = zone.connect_issuer(department).await;
    let (request, key) = renewal_request(app).expect("signed");
    let ask = soon("the certificates", device.renew(wire(&request)));
    let answer = async {
        let pending = work(&issuer).await;
        let renewing = checked(zone, &pending);
        assert_eq!(renewing.device, app.uri);
        let given = issued(zone, department, &renewing.device, &renewing);
        say(&issuer, pending.name, RenewalOutcome::Issued(given.clone())).await.expect("taken");
        given
    };
    let (got, given) = tokio::join!(ask, answer);
    let got = got.expect("issued");
    assert_eq!(got, given, "the gateway changes nothing");
    (got, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_goes_on_with_the_certificates_that_its_issuer_gave_it() {
    let zone = Zone::start().await;
    let app = zone.app("shenji", "app-1");
    let device = zone.connect(&app).await.expect("connects");
    let (issued, key) = renewed(&zone, &device, &app).await;
    let request = renewal_request(&app).expect("signed").0;
    let federation = zone.minted.federation().expect("verifies");
    let now = SystemClock.now();
    let renewing = request.check(&federation, now).expect("sound");
    let other_key = renewing.check(&issued.tls_certificate, &issued.mls_certificate, &federation, now);
    other_key.expect_err("another request's key");
    drop(device);
    // The next connection is with the new certificate and the new key.
    let folder = zone.folder("renewed");
    std::fs::create_dir_all(&folder).expect("a folder");
    let (certificate, key_file) = (folder.join("tls.der"), folder.join("tls.key"));
    std::fs::write(&certificate, pem(&issued.tls_certificate)).expect("written");
    std::fs::write(&key_file, &key).expect("written");
    let read = |path: &std::path::Path| std::fs::read(path).expect("written");
    TlsIdentity::from_pem(&read(&certificate), &read(&key_file)).expect("they fit together");
    let moved = AppPaths { tls_certificate: certificate, tls_key: key_file, ..app.clone() };
    zone.connect(&moved).await.expect("the gateway knows it");
    let bodies = zone.close().await.shared_bodies();
    let of = |event: &str| bodies.iter().filter(|body| body["event"] == event).count();
    assert_eq!((of("certificate-requested"), of("renewals-read"), of("certificate-issued")), (1, 1, 1));
    let at = |event: &str| bodies.iter().position(|body| body["event"] == event);
    assert!(at("certificate-requested") < at("renewals-read"), "recorded before an issuer sees it");
}

pub(crate) fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_issuer_a_renewal_is_refused_and_tried_again() {
    let zone = Zone::start().await;
    let app = zone.app("shenji", "app-1");
    let device = zone.connect(&app).await.expect("connects");
    // Another department's issuer is nobody's but that department's.
    let other = zone.connect_issuer("jiwei").await;
    let (request, _) = renewal_request(&app).expect("signed");
    let CallError::Refused(problem) = device.renew(wire(&request)).await.expect_err("nobody is there") else {
        panic!("not refused")
    };
    assert_eq!((problem.code, problem.try_again), (ReasonCode::IssuerAway, true));
    drop(other);
    renewed(&zone, &device, &app).await;
    drop(device);
    let bodies = assert_recorded(zone, &[ReasonCode::IssuerAway]).await;
    let of = |event: &str| bodies.iter().filter(|body| body["event"] == event).count();
    assert_eq!((of("certificate-requested"), of("certificate-issued")), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_callers_own_request_reaches_no_issuer() {
    let zone = Zone::start().await;
    let (app, second) = (zone.app("shenji", "app-1"), zone.app("shenji", "app-2"));
    let device = zone.connect(&app).await.expect("connects");
    let issuer = zone.connect_issuer("shenji").await;
    let (of_second, _) = renewal_request(&second).expect("signed");
    assert_eq!(renew(&device, &of_second).await, Err(ReasonCode::SenderMismatch));
    let (mut forged, _) = renewal_request(&app).expect("signed");
    forged.signature[0] ^= 1;
    assert_eq!(renew(&device, &forged).await, Err(ReasonCode::SenderMismatch));
    let (mut swapped, _) = renewal_request(&app).expect("signed");
    swapped.tls_request = of_second.tls_request.clone();
    assert_eq!(renew(&device, &swapped).await, Err(ReasonCode::SenderMismatch));
    let (mut foreign, _) = renewal_request(&app).expect("signed");
    foreign.mls_certificate = zone.minted.certify("jiwei", &app.uri, Usage::Mls, &[9; 32]).expect("issued");
    assert_eq!(renew(&device, &foreign).await, Err(ReasonCode::InvalidCredential));
    // A member's certificate makes no issuer, and an issuer's no member.
    assert_eq!(reason(device.pending_renewals().await).map(|_| ()), Err(ReasonCode::WrongKind));
    let (own, _) = renewal_request(&app).expect("signed");
    assert_eq!(reason(issuer.renew(wire(&own)).await).map(|_| ()), Err(ReasonCode::WrongKind));
    assert_eq!(reason(issuer.count().await).map(|_| ()), Err(ReasonCode::WrongKind));
    drop((device, issuer));
    let bodies = zone.close().await.shared_bodies();
    assert!(bodies.iter().all(|body| body["event"] != "certificate-requested"), "{bodies:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_issuer_gives_out_wrongly_reaches_no_device() {
    let zone = Zone::start().await;
    let (app, second) = (zone.app("shenji", "app-1"), zone.app("shenji", "app-2"));
    let device = zone.connect(&app).await.expect("connects");
    let issuer = zone.connect_issuer("shenji").await;
    let (request, _) = renewal_request(&app).expect("signed");
    let lie = async {
        let PendingRenewal { name, .. } = &work(&issuer).await;
        let renewing = request.check(&zone.minted.federation().expect("verifies"), zone.clock.now()).expect("sound");
        let good = issued(&zone, "shenji", &app.uri, &renewing);
        let another_key = renewal_request(&app).expect("signed").0;
        let another_key = another_key.check(&zone.minted.federation().expect("verifies"), zone.clock.now());
        let wrong = [
            issued(&zone, "shenji", &app.uri, &another_key.expect("sound")),
            issued(&zone, "shenji", &second.uri, &renewing),
            issued(&zone, "jiwei", &app.uri, &renewing),
            Issued { tls_certificate: good.mls_certificate.clone(), mls_certificate: good.tls_certificate.clone() },
            Issued { tls_certificate: Bytes::from_static(b"junk"), ..good.clone() },
        ];
        for one in wrong {
            let said = say(&issuer, *name, RenewalOutcome::Issued(one)).await;
            assert_eq!(said, Err(ReasonCode::InvalidCredential));
        }
        say(&issuer, *name, RenewalOutcome::Issued(good.clone())).await.expect("it still waits");
        good
    };
    let (got, good) = tokio::join!(renew(&device, &request), lie);
    assert_eq!(got, Ok(good));
    drop((device, issuer));
    let bodies = assert_recorded(zone, &[ReasonCode::InvalidCredential]).await;
    assert_eq!(bodies.iter().filter(|body| body["event"] == "certificate-issued").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_answers_its_own_department_and_only_what_waits() {
    let zone = Zone::start().await;
    let app = zone.app("shenji", "app-1");
    let device = zone.connect(&app).await.expect("connects");
    let (own, other) = (zone.connect_issuer("shenji").await, zone.connect_issuer("jiwei").await);
    let (request, _) = renewal_request(&app).expect("signed");
    let answers = async {
        let pending = work(&own).await;
        let given = issued(&zone, "shenji", &app.uri, &checked(&zone, &pending));
        let outcome = RenewalOutcome::Issued(given);
        let foreign = say(&other, pending.name, outcome.clone()).await;
        assert_eq!(foreign, Err(ReasonCode::UnknownRenewal), "not even the right answer comes from another department");
        say(&own, pending.name, outcome.clone()).await.expect("it waits");
        assert_eq!(say(&own, pending.name, outcome).await, Err(ReasonCode::UnknownRenewal), "answered before");
    };
    let (got, ()) = tokio::join!(renew(&device, &request), answers);
    got.expect("issued");
    drop((device, own, other));
    assert_recorded(zone, &[ReasonCode::UnknownRenewal]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_issuer_refuses_is_refused_with_its_reason_in_the_log() {
    let zone = Zone::start().await;
    let app = zone.app("shenji", "app-1");
    let device = zone.connect(&app).await.expect("connects");
    let issuer = zone.connect_issuer("shenji").await;
    let (request, _) = renewal_request(&app).expect("signed");
    let refuse = async {
        let pending = work(&issuer).await;
        say(&issuer, pending.name, RenewalOutcome::Refused(RenewalRefusal::UnknownDevice)).await.expect("taken");
    };
    let (got, ()) = tokio::join!(renew(&device, &request), refuse);
    assert_eq!(got, Err(ReasonCode::RenewalRefused));
    drop((device, issuer));
    let bodies = assert_recorded(zone, &[ReasonCode::RenewalRefused]).await;
    let why: Vec<_> = bodies.iter().filter(|body| body["event"] == "certificate-refused").collect();
    assert_eq!((why.len(), &why[0]["reason"]), (1, &"unknown-device".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_asks_twelve_times_a_minute_and_not_once_more() {
    let zone = Zone::start().await;
    let app = zone.app("shenji", "app-1");
    let device = zone.connect(&app).await.expect("connects");
    let (mut request, _) = renewal_request(&app).expect("signed");
    request.tls_request.pop();
    for _ in 0..LIMITS.device_renewals_per_minute_max {
        assert_eq!(renew(&device, &request).await, Err(ReasonCode::Malformed), "asking counts, whatever for");
    }
    assert_eq!(renew(&device, &request).await, Err(ReasonCode::ResourceExhausted));
    let second = zone.connect(&zone.app("shenji", "app-2")).await.expect("connects");
    assert_eq!(renew(&second, &request).await, Err(ReasonCode::Malformed), "another device has a minute of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_id_stands_for_one_request_while_it_waits() {
    let zone = Zone::start().await;
    let app = zone.app("shenji", "app-1");
    let device = zone.connect(&app).await.expect("connects");
    let issuer = zone.connect_issuer("shenji").await;
    let id = fresh_id();
    let under_it = || {
        let request = renewal_request(&app).expect("signed").0;
        lianxin_certs_dev::sign_renewal(&app, id, request.tls_request).expect("signed")
    };
    let (first, second) = (under_it(), under_it());
    let answer = async {
        let pending = work(&issuer).await;
        assert_eq!(renew(&device, &second).await, Err(ReasonCode::IdReused));
        let given = issued(&zone, "shenji", &app.uri, &checked(&zone, &pending));
        say(&issuer, pending.name, RenewalOutcome::Issued(given)).await.expect("it waits");
    };
    let (got, ()) = tokio::join!(renew(&device, &first), answer);
    got.expect("issued");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_revoked_while_it_waits_gets_nothing_more() {
    let zone = Zone::start().await;
    let app = zone.app("shenji", "app-1");
    let device = zone.connect(&app).await.expect("connects");
    let issuer = zone.connect_issuer("shenji").await;
    let (request, _) = renewal_request(&app).expect("signed");
    let revoke = async {
        let pending = work(&issuer).await;
        let given = issued(&zone, "shenji", &app.uri, &checked(&zone, &pending));
        zone.minted.at(zone.clock.now()).revoke_app("shenji", "app-1").expect("revoked");
        zone.reload().await.expect("the list is read");
        (pending, given)
    };
    let ((pending, given), got) = tokio::join!(revoke, soon("its end", device.renew(wire(&request))));
    got.expect_err("its certificate has been revoked");
    // The answer finds nobody, and nothing is recorded as issued.
    let answered = say(&issuer, pending.name, RenewalOutcome::Issued(given)).await;
    assert_eq!(answered, Err(ReasonCode::UnknownRenewal));
    let bodies = zone.close().await.shared_bodies();
    assert!(bodies.iter().all(|body| body["event"] != "certificate-issued"));
    let refused = bodies.iter().find(|body| body["event"] == "refused" && body["reason"] == "CERTIFICATE_REVOKED");
    assert_eq!(refused.expect("recorded")["action"], "renew-certificates");
}
