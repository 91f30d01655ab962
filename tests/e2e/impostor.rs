//! A gateway that has turned against its users: it stands before the real one with the real certificate, takes every
//! application in, and changes what the gateway answers on the way.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use http::uri::PathAndQuery;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lianxin_certs_dev::AppPaths;
use lianxin_proto::{Problem, ReasonCode};
use lianxin_sdk::{Client, Config, DeviceUri};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::talk::soon;
use crate::wire::{self, AsItIs};
use crate::zone::Zone;

/// A message on its way from the gateway to an application.
pub(crate) struct Passing<'a> {
    /// Whom it is for.
    pub(crate) to: &'a DeviceUri,
    /// The call, as `package.Service/Method`.
    pub(crate) method: &'a str,
    /// The protobuf message.
    pub(crate) message: Bytes,
}

/// What is passed on instead: nothing, another message, several.
type Change = Box<dyn FnMut(Passing<'_>) -> Vec<Bytes> + Send>;

/// A call that the impostor refuses itself, by the end of its name, and how.
type Refused = Arc<Mutex<Option<(&'static str, ReasonCode)>>>;

/// The gateway that lies.
pub(crate) struct Impostor {
    address: SocketAddr,
    change: Arc<Mutex<Change>>,
    refused: Refused,
    served: JoinHandle<()>,
}

/// How the impostor speaks for an application that comes to it.
#[derive(Clone)]
struct Known {
    certificate: CertificateDer<'static>,
    app: AppPaths,
}

impl Impostor {
    /// Stands before a zone's gateway and passes on everything as it is.
    pub(crate) async fn before(zone: &Zone) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let change: Arc<Mutex<Change>> = Arc::new(Mutex::new(Box::new(|passing| vec![passing.message])));
        let gateway = zone.minted.gateway();
        let tls = acceptor(&gateway.tls_certificate, &gateway.tls_key);
        let known = |department: &str| {
            let app = zone.app(department, "app-1");
            Known { certificate: CertificateDer::from_pem_file(&app.tls_certificate).expect("minted"), app }
        };
        let known = ["jiwei", "shenji", "weijian"].map(known);
        let refused = Refused::default();
        let (real, changes, refusals) = (zone.address(), Arc::clone(&change), Arc::clone(&refused));
        let served = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let how = (Arc::clone(&changes), Arc::clone(&refusals));
                tokio::spawn(serve(socket, tls.clone(), known.clone(), real, how));
            }
        });
        Self { address, change, refused, served }
    }

    /// From now on this becomes of what the gateway answers.
    pub(crate) fn lie(&self, change: impl FnMut(Passing<'_>) -> Vec<Bytes> + Send + 'static) {
        *self.change.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(change);
    }

    /// From now on calls whose name ends so are refused, and the gateway does not hear of them.
    pub(crate) fn refuse(&self, method: &'static str, code: ReasonCode) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some((method, code));
    }

    /// From now on it passes everything on as it is.
    pub(crate) fn be_honest(&self) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.lie(|passing| vec![passing.message]);
    }

    pub(crate) fn config(&self, zone: &Zone, department: &str) -> Config {
        let endpoint = Some(("127.0.0.1".to_owned(), self.address.port()));
        Config { endpoint, ..zone.config(department, "app-1") }
    }

    /// The first application of a department, connected through the impostor.
    pub(crate) async fn client(&self, zone: &Zone, department: &str) -> Client {
        let client = Client::open(self.config(zone, department)).await.expect("opens");
        soon("a connection", client.connected()).await.expect("connects");
        client
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.served.abort();
    }
}

fn acceptor(certificate: &Path, key: &Path) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = vec![CertificateDer::from_pem_file(certificate).expect("minted")];
    let key = PrivateKeyDer::from_pem_file(key).expect("minted");
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a known version")
        .with_client_cert_verifier(Arc::new(AnyClient(provider)))
        .with_single_cert(chain, key)
        .expect("they fit together");
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(
    socket: TcpStream,
    tls: TlsAcceptor,
    known: [Known; 3],
    real: SocketAddr,
    (change, refused): (Arc<Mutex<Change>>, Refused),
) {
    let Ok(stream) = tls.accept(socket).await else { return };
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
    let Some(Known { app, .. }) = known.into_iter().find(|known| Some(&known.certificate) == shown.as_ref()) else {
        return;
    };
    let Ok(upstream) = wire::channel_to(real, &app.tls_certificate, &app.tls_key).await else { return };
    let relay = Relay { upstream, device: app.uri, change, refused };
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let call = Call { method, relay: relay.clone() };
        async move { Ok::<_, Infallible>(tonic::server::Grpc::new(AsItIs).streaming(call, request).await) }
    });
    let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    // The application or the gateway has closed; either way there is nobody to tell.
    let _closed = http.serve_connection(TokioIo::new(stream), service).await;
}

/// The real gateway, as one application sees it.
#[derive(Clone)]
struct Relay {
    upstream: Channel,
    device: DeviceUri,
    change: Arc<Mutex<Change>>,
    refused: Refused,
}

/// One call that is passed on. On the wire every kind of call is a stream in both directions.
struct Call {
    method: String,
    relay: Relay,
}

impl tonic::server::StreamingService<Bytes> for Call {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (relay, method) = (self.relay.clone(), self.method.clone());
        Box::pin(async move {
            let refused = *relay.refused.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, code)) = refused.filter(|(name, _)| method.ends_with(name)) {
                return Err(Problem::new(code).into());
            }
            // A request that cannot be read ends here as it would at the gateway.
            let requests = request.into_inner().take_while(|read| std::future::ready(read.is_ok()));
            let requests = requests.filter_map(|read| std::future::ready(read.ok()));
            let mut real = tonic::client::Grpc::new(relay.upstream.clone());
            real.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let path = PathAndQuery::try_from(format!("/{method}")).expect("it was one");
            let answers = real.streaming(Request::new(requests), path, AsItIs).await?.into_inner();
            let changed = answers.flat_map(move |answer| {
                let passed = answer.map_or_else(
                    |status| vec![Err(status)],
                    |message| {
                        let passing = Passing { to: &relay.device, method: &method, message };
                        let mut change = relay.change.lock().unwrap_or_else(PoisonError::into_inner);
                        change(passing).into_iter().map(Ok).collect()
                    },
                );
                futures_util::stream::iter(passed)
            });
            Ok(Response::new(changed.boxed()))
        })
    }
}

/// The gateway behind it judges the callers.
#[derive(Debug)]
struct AnyClient(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
