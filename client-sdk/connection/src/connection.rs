//! From an address to a connection that has said hello.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use lianxin_proto::directory::{Hello, HelloAnswer};
use lianxin_proto::{PROTOCOL_VERSION, ReasonCode};
use lianxin_trust::{Endpoint as Address, Federation};
use lianxin_types::{Clock, DepartmentId, ZoneId};
use rustls::client::{ClientConfig, Resumption};
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt as _;

use crate::alert::{AlertCatcher, AlertSlot, alert_in, reason_of};
use crate::identity::provider;
use crate::verifier::GatewayVerifier;
use crate::{CallError, ConnectError, Dial, GatewayFault, Line, TlsIdentity};

/// How long TCP, TLS and the first call may take together.
const CONNECT_DURATION_MAX: Duration = Duration::from_secs(15);
/// How long a call may take before its outcome counts as unknown.
const CALL_DURATION_MAX: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_WAIT_MAX: Duration = Duration::from_secs(20);
/// Bytes that the gateway may send before we have read them, per stream and in all.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Which gateway.
#[derive(Debug, Clone)]
pub struct Target {
    /// The zone it must serve.
    pub zone: ZoneId,
    /// The department that operates the zone, from the trust bundle; the gateway's certificate must name it.
    pub operator: DepartmentId,
    /// Where it listens.
    pub address: Address,
}

/// One connection to one gateway. It does not reconnect: once broken every call answers [`CallError::Unknown`], and the
/// owner opens another. Cheap to clone; the connection closes with the last clone.
#[derive(Clone)]
pub struct Connection {
    pub(crate) line: Line,
    clock: Arc<dyn Clock>,
}

impl Connection {
    /// Connects with TLS 1.3 and our certificate, checks the gateway's certificate against the federation, and exchanges
    /// versions. `client` names this software for the gateway's log, at most 64 bytes.
    ///
    /// # Errors
    /// [`ConnectError`]; a refusal of our certificate arrives as [`ConnectError::Refused`].
    pub async fn connect(
        target: &Target,
        identity: &TlsIdentity,
        federation: Arc<Federation>,
        clock: Arc<dyn Clock>,
        client: &str,
    ) -> Result<(Self, HelloAnswer), ConnectError> {
        let limit = clock.sleep(CONNECT_DURATION_MAX);
        tokio::select! {
            biased;
            connected = Self::open(target, identity, federation, clock, client) => connected,
            () = limit => Err(ConnectError::TimedOut),
        }
    }

    async fn open(
        target: &Target,
        identity: &TlsIdentity,
        federation: Arc<Federation>,
        clock: Arc<dyn Clock>,
        client: &str,
    ) -> Result<(Self, HelloAnswer), ConnectError> {
        let stream = handshake(target, identity, federation, Arc::clone(&clock)).await?;
        let alert = AlertSlot::default();
        let channel = http2(AlertCatcher::new(stream, Arc::clone(&alert))).await?;
        let line = Line::new(channel.map_err(|error| tonic::Status::from_error(error.into())));
        Self::greet(line, target, clock, client).await.map_err(|error| match (alert.get(), error) {
            (Some(alert), ConnectError::Hello(_) | ConnectError::UpgradeRequired) => {
                ConnectError::Refused { reason: reason_of(*alert) }
            }
            (_, error) => error,
        })
    }

    /// Connects over another line than mutual TLS, and exchanges versions.
    ///
    /// # Errors
    /// What `dial` answers; [`ConnectError::Hello`], [`ConnectError::UpgradeRequired`], [`ConnectError::OtherZone`],
    /// [`ConnectError::TimedOut`].
    pub async fn connect_by(
        dial: &dyn Dial,
        target: &Target,
        clock: Arc<dyn Clock>,
        client: &str,
    ) -> Result<(Self, HelloAnswer), ConnectError> {
        let limit = clock.sleep(CONNECT_DURATION_MAX);
        let connected = async { Self::greet(dial.dial(target).await?, target, clock, client).await };
        tokio::select! {
            biased;
            connected = connected => connected,
            () = limit => Err(ConnectError::TimedOut),
        }
    }

    async fn greet(
        line: Line,
        target: &Target,
        clock: Arc<dyn Clock>,
        client: &str,
    ) -> Result<(Self, HelloAnswer), ConnectError> {
        let connection = Self { line, clock };
        let hello = Hello { protocol_version: PROTOCOL_VERSION, capabilities: vec![], client: client.to_owned() };
        let answer = connection.hello(hello).await.map_err(|error| match error {
            CallError::Refused(problem) if problem.code == ReasonCode::UpgradeRequired => ConnectError::UpgradeRequired,
            error => ConnectError::Hello(error),
        })?;
        if answer.zone != target.zone {
            return Err(ConnectError::OtherZone { expected: target.zone.clone(), found: answer.zone });
        }
        Ok((connection, answer))
    }

    /// Ends waiting for an answer that does not come.
    pub(crate) async fn bounded<T>(&self, call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        tokio::select! {
            biased;
            answer = call => answer,
            () = self.clock.sleep(CALL_DURATION_MAX) => Err(CallError::Unknown { detail: "no answer in time".into() }),
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection(..)")
    }
}

async fn handshake(
    target: &Target,
    identity: &TlsIdentity,
    federation: Arc<Federation>,
    clock: Arc<dyn Clock>,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let Address { host, port } = &target.address;
    let provider = Arc::new(provider());
    let algorithms = provider.signature_verification_algorithms;
    let verifier = Arc::new(GatewayVerifier::new(federation, target.operator.clone(), clock, algorithms));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(ConnectError::Settings)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&identity.0))));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    let name = ServerName::try_from(host.clone())
        .map_err(|_| ConnectError::Settings(rustls::Error::General("the endpoint's host is not a name".into())))?;
    let tcp = TcpStream::connect((host.as_str(), *port)).await.map_err(ConnectError::Unreachable)?;
    tcp.set_nodelay(true).map_err(ConnectError::Unreachable)?;
    let connected = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
    connected.map_err(|error| match (verifier.take_fault(), alert_in(&error)) {
        (Some(fault), _) => ConnectError::GatewayNotTrusted(fault),
        (None, Some(alert)) => ConnectError::Refused { reason: reason_of(alert) },
        (None, None) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            ConnectError::GatewayNotTrusted(GatewayFault::Handshake)
        }
        (None, None) => ConnectError::Unreachable(error),
    })
}

/// HTTP/2 over exactly this stream. tonic would connect again by itself; it gets nothing to connect with, because a
/// broken connection is for the session to notice.
async fn http2(stream: AlertCatcher<TlsStream<TcpStream>>) -> Result<Channel, ConnectError> {
    let only = Arc::new(Mutex::new(Some(stream)));
    let connector = tower::service_fn(move |_: http::Uri| {
        let taken = only.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move { taken.map(TokioIo::new).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    let endpoint = Endpoint::from_static("http://lianxin")
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_WAIT_MAX)
        .keep_alive_while_idle(true);
    let connected = endpoint.connect_with_connector(connector).await;
    connected.map_err(|error| ConnectError::Unreachable(io::Error::other(error)))
}
