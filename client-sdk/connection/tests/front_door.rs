//! A client at the gateway's real front door: who is let in, and what those hear who are not.

use std::sync::Arc;

use lianxin_certs_dev::{FederationPlan, Minted, Specimen, mint};
use lianxin_connection::{CallError, ConnectError, Connection, GatewayFault, RefusedReason, Target, TlsIdentity};
use lianxin_proto::directory::v1::directory_server::{Directory, DirectoryServer};
use lianxin_proto::directory::{GetTrust, HelloAnswer, v1};
use lianxin_proto::{Problem, ReasonCode};
use lianxin_transport::{Bounds, Listener, ServerIdentity, ServerTls};
use lianxin_trust::{CertificateError, Endpoint};
use lianxin_types::{Clock, Digest, SystemClock, Timestamp};
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};

/// Answers hello for one zone, or refuses everything.
struct Door {
    zone: &'static str,
    refusal: Option<ReasonCode>,
}

#[tonic::async_trait]
impl Directory for Door {
    async fn hello(&self, _: Request<v1::HelloRequest>) -> Result<Response<v1::HelloResponse>, Status> {
        if let Some(code) = self.refusal {
            return Err(Problem::new(code).into());
        }
        let answer = HelloAnswer {
            protocol_version: 1,
            capabilities: vec![],
            zone: self.zone.parse().expect("a zone"),
            caller: "lianxin://jiwei/app/x/y".parse().expect("a device"),
            bundle_version: 1,
            bundle_digest: Digest::ZERO,
            gateway_time: Timestamp(1),
            limits: vec![],
        };
        Ok(Response::new(answer.into()))
    }

    async fn get_trust(&self, _: Request<v1::GetTrustRequest>) -> Result<Response<v1::GetTrustResponse>, Status> {
        Err(Status::internal("a fault without particulars"))
    }
}

struct House {
    minted: Minted,
    port: u16,
    server: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl House {
    async fn open(door: Door, identity: impl FnOnce(&Minted) -> (Vec<u8>, Vec<u8>)) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let minted = mint(&FederationPlan::default(), folder.path(), &SystemClock).expect("minted");
        let (certificate, key) = identity(&minted);
        let identity = ServerIdentity::from_pem(&certificate, &key).expect("an identity");
        let federation = Arc::new(minted.federation().expect("a federation"));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let tls = ServerTls::new(identity, Arc::new(move || Arc::clone(&federation)), Arc::clone(&clock));
        let tls = Arc::new(tls.expect("settings"));
        let address = "127.0.0.1:0".parse().expect("an address");
        let listener = Listener::bind(address, tls, Bounds::default(), clock, Arc::new(|_| {})).await.expect("bound");
        let port = listener.address().port();
        let service = tonic::transport::Server::builder().add_service(DirectoryServer::new(door));
        let server = tokio::spawn(async move {
            service.serve_with_incoming(listener.incoming()).await.expect("serves");
        });
        Self { minted, port, server, _folder: folder }
    }

    async fn gateway() -> Self {
        Self::open(Door { zone: "cn-zj-1", refusal: None }, gateway).await
    }

    async fn connect(&self, identity: &TlsIdentity) -> Result<Connection, ConnectError> {
        let target = Target {
            zone: "cn-zj-1".parse().expect("a zone"),
            operator: "jiwei".parse().expect("a department"),
            address: Endpoint { host: "127.0.0.1".into(), port: self.port },
        };
        let federation = Arc::new(self.minted.federation().expect("a federation"));
        let connected = Connection::connect(&target, identity, federation, Arc::new(SystemClock), "test").await;
        connected.map(|(connection, _)| connection)
    }

    fn app(&self) -> TlsIdentity {
        let app = self.minted.app("shenji", "app-1").expect("an application");
        identity(&app.tls_certificate, &app.tls_key)
    }
}

fn gateway(minted: &Minted) -> (Vec<u8>, Vec<u8>) {
    let paths = minted.gateway();
    (read(&paths.tls_certificate), read(&paths.tls_key))
}

fn read(path: &std::path::Path) -> Vec<u8> {
    std::fs::read(path).expect("readable")
}

fn identity(certificate: &std::path::Path, key: &std::path::Path) -> TlsIdentity {
    TlsIdentity::from_pem(&read(certificate), &read(key)).expect("an identity")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_certificate_hears_its_own_reason() {
    let house = House::gateway().await;
    let expected = [
        (Specimen::Expired, RefusedReason::Expired),
        (Specimen::NotYetValid, RefusedReason::Expired),
        (Specimen::Revoked, RefusedReason::Revoked),
        (Specimen::WrongCa, RefusedReason::UnknownAuthority),
        (Specimen::OtherDepartment, RefusedReason::AccessDenied),
        (Specimen::WrongKindOfficer, RefusedReason::UnsupportedCertificate),
        (Specimen::WrongUsageMls, RefusedReason::UnsupportedCertificate),
    ];
    for (specimen, expected) in expected {
        let paths = house.minted.specimen(specimen);
        // More than once: the alert races with the client's first request.
        for _ in 0..5 {
            let refused = house.connect(&identity(&paths.tls_certificate, &paths.tls_key)).await;
            let reason = match refused {
                Err(ConnectError::Refused { reason }) => reason,
                other => panic!("{specimen:?}: {other:?}"),
            };
            assert_eq!(reason, expected, "{specimen:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_gateway_is_not_trusted() {
    let member = House::open(Door { zone: "cn-zj-1", refusal: None }, |minted| {
        let app = minted.app("jiwei", "app-2").expect("an application");
        (read(&app.tls_certificate), read(&app.tls_key))
    });
    let member = member.await;
    let refused = member.connect(&member.app()).await;
    let fault = GatewayFault::Certificate(CertificateError::WrongKind);
    assert!(matches!(&refused, Err(ConnectError::GatewayNotTrusted(found)) if *found == fault), "{refused:?}");

    let house = House::gateway().await;
    let target = Target {
        zone: "cn-zj-1".parse().expect("a zone"),
        operator: "weijian".parse().expect("a department"),
        address: Endpoint { host: "127.0.0.1".into(), port: house.port },
    };
    let federation = Arc::new(house.minted.federation().expect("a federation"));
    let refused = Connection::connect(&target, &house.app(), federation, Arc::new(SystemClock), "test").await;
    let is_expected = matches!(
        &refused,
        Err(ConnectError::GatewayNotTrusted(GatewayFault::OtherOperator { expected, found }))
            if expected.as_str() == "weijian" && found.as_str() == "jiwei"
    );
    assert!(is_expected, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_not_there_is_unreachable() {
    let house = House::gateway().await;
    house.server.abort();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = socket.local_addr().expect("an address").port();
    drop(socket);
    let house = House { port, ..house };
    let refused = house.connect(&house.app()).await;
    assert!(matches!(refused, Err(ConnectError::Unreachable(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_client_and_a_wrong_zone_are_told_so() {
    let house = House::open(Door { zone: "cn-zj-1", refusal: Some(ReasonCode::UpgradeRequired) }, gateway).await;
    let refused = house.connect(&house.app()).await;
    assert!(matches!(refused, Err(ConnectError::UpgradeRequired)), "{refused:?}");

    let house = House::open(Door { zone: "elsewhere", refusal: None }, gateway).await;
    let refused = house.connect(&house.app()).await;
    assert!(
        matches!(&refused, Err(ConnectError::OtherZone { found, .. }) if found.as_str() == "elsewhere"),
        "{refused:?}"
    );

    let house = House::open(Door { zone: "cn-zj-1", refusal: Some(ReasonCode::ZoneUnavailable) }, gateway).await;
    let refused = house.connect(&house.app()).await;
    let problem = match &refused {
        Err(ConnectError::Hello(error)) => error.refusal().map(|problem| problem.code),
        _ => None,
    };
    assert_eq!(problem, Some(ReasonCode::ZoneUnavailable), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_let_in_and_what_has_no_reason_is_unknown() {
    let house = House::gateway().await;
    let connection = house.connect(&house.app()).await.expect("let in");
    let fault = connection.trust(GetTrust { known_version: 0 }).await.expect_err("refused");
    assert!(matches!(fault, CallError::Unknown { .. }), "{fault:?}");

    // The service is not there at all, which is no refusal of the gateway's either.
    let (_control, mut frames) = connection.receive_stream();
    let ended = frames.next().await.expect("an error").expect_err("an error");
    assert!(matches!(ended, CallError::Unknown { .. }), "{ended:?}");
    assert!(frames.next().await.is_none());
}
