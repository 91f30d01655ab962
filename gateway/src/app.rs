//! Putting the rooms together, serving, and stopping in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lianxin_operations::{Level, Operations};
use lianxin_rpc::{Patience, Peer};
use lianxin_store::ZoneStore;
use lianxin_transport::{CountCalls, HandshakeRefusal, Incoming, Listener, PeerCertificate, ServerTls};
use lianxin_types::{Clock, LIMITS, Random, SystemClock, SystemRandom};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::InterceptorLayer;

use crate::config::Config;
use crate::descriptors::Descriptors;
use crate::error::ServeError;
use crate::metrics::Sources;
use crate::readiness::Readiness;
use crate::reload::{ReloadHandle, ReloadParts, Reloader};
use crate::rooms::{Rooms, Secrets, patience, services};
use crate::telemetry::LogFilter;
use crate::trust::Trust;

/// A gateway that is bound and ready to serve.
pub struct Gateway {
    operations: Operations,
    store: Arc<dyn ZoneStore>,
    incoming: Incoming,
    address: SocketAddr,
    tasks: JoinSet<()>,
    readiness: Readiness,
    stopping: watch::Sender<bool>,
    clock: Arc<dyn Clock>,
    drain: watch::Receiver<Duration>,
    patience: Patience,
    call_duration_max: Duration,
    reloader: Reloader,
    reload: ReloadHandle,
}

/// HTTP/2 streams that a client has reset and we have not looked at yet: more of them end the connection.
const RESETS_PENDING_MAX: usize = 16;
/// All headers of a call together (RFC 9113 section 6.5.2). Ours are a path and a few words.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// The least that RFC 9113 allows: a large frame would make small ones wait.
const HTTP2_FRAME_BYTES_MAX: u32 = 16 * 1024;

impl Gateway {
    /// Opens the zone, records the start, and binds every listener.
    ///
    /// # Errors
    /// [`ServeError`]: the configuration's files, the zone, or a listener.
    pub async fn open(config: &Config) -> Result<Self, ServeError> {
        Self::open_by(config, Arc::new(SystemClock)).await
    }

    /// The same by another clock, for a test that is about time. Every judgement of a validity and every time in log and
    /// audit is by this one.
    ///
    /// # Errors
    /// As [`Gateway::open`].
    pub async fn open_by(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, ServeError> {
        let started = clock.now();
        let (trust, mut contents) = crate::trust::load(config, &*clock)?;
        let random: Arc<dyn Random> = Arc::new(SystemRandom);
        let secrets = Secrets::load(config, &trust, &mut contents, &*clock, &*random)?;
        let descriptors = Descriptors::claim(config)?;
        let store = crate::store::open(config, &clock)?;
        // The zone is ours now, and with it the file beside it.
        let kept = crate::trust::keep_at_start(config, &trust)?;
        let Trust { federation, predecessors, identity } = trust;
        let trusted = (federation, predecessors.clone());
        let seams = (Arc::clone(&clock), random);
        let Rooms { operations, callers, mut tasks } =
            Rooms::open(config, trusted, secrets, Arc::clone(&store), seams).await?;
        let tls = {
            let callers = Arc::clone(&callers);
            ServerTls::new(identity, Arc::new(move || callers.federation()), Arc::clone(&clock))?
        };
        let tls = Arc::new(tls);
        let listener = listen(config, descriptors, Arc::clone(&tls), Arc::clone(&clock), operations.clone()).await?;
        let address = listener.address();
        let (stopping, stopped) = watch::channel(false);
        let readiness = Readiness {
            operations: operations.clone(),
            store: Arc::clone(&store),
            listener: listener.figures(),
            clock: Arc::clone(&clock),
            stopping: stopped,
        };
        if let Some(address) = config.metrics {
            let page = tokio::net::TcpListener::bind(address).await;
            let page = page.map_err(|source| ServeError::Metrics { address, source })?;
            let sources = Sources { readiness: readiness.clone(), folder: config.store.clone(), started };
            tasks.spawn(crate::metrics::serve(page, sources));
        }
        let (drain_sender, drain) = watch::channel(Duration::from_secs(config.drain_seconds_max));
        let (patience, call_duration_max) = (patience(&config.strength), config.strength.call_duration_max);
        let incoming = listener.incoming();
        let parts = ReloadParts { operations: operations.clone(), tls, drain: drain_sender, clock: Arc::clone(&clock) };
        let (reloader, reload) = Reloader::new(config.clone(), contents, predecessors, kept, parts);
        Ok(Self {
            operations,
            store,
            incoming,
            address,
            tasks,
            readiness,
            stopping,
            clock,
            drain,
            patience,
            call_duration_max,
            reloader,
            reload,
        })
    }

    /// What the gateway does, for who wants to look at its counters.
    pub fn operations(&self) -> &Operations {
        &self.operations
    }

    /// Lets a reload set this log's filter.
    #[must_use]
    pub fn with_log(mut self, log: LogFilter) -> Self {
        self.reloader.log = Some(log);
        self
    }

    /// Asks the gateway to read its configuration again, once it serves.
    pub fn reload_handle(&self) -> ReloadHandle {
        self.reload.clone()
    }

    /// Where departments connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is ready, then lets open calls end within the drain time, records the stop and closes the zone.
    ///
    /// # Errors
    /// [`ServeError::Server`] if the RPC server fails.
    pub async fn serve(mut self, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), ServeError> {
        self.tasks.spawn(self.reloader.run());
        let (health_reporter, health) = tonic_health::server::health_reporter();
        // Nobody is told that a gateway serves before it was looked at.
        health_reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        let stopping = self.stopping;
        self.tasks.spawn(self.readiness.tell(health_reporter));
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(lianxin_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|fault| ServeError::Reflection { fault: fault.to_string() })?;
        let services = services(self.operations.clone(), self.patience, stopping.subscribe());
        let server = tonic::transport::Server::builder()
            .max_concurrent_streams(Some(LIMITS.connection_streams_max))
            .initial_stream_window_size(Some(1024 * 1024))
            .initial_connection_window_size(Some(4 * 1024 * 1024))
            .http2_keepalive_interval(Some(Duration::from_secs(20)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .http2_max_pending_accept_reset_streams(Some(RESETS_PENDING_MAX))
            .http2_max_local_error_reset_streams(Some(RESETS_PENDING_MAX))
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .max_frame_size(HTTP2_FRAME_BYTES_MAX)
            .timeout(self.call_duration_max)
            .tcp_nodelay(true)
            .layer(CountCalls)
            .layer(InterceptorLayer::new(name_peer))
            .add_routes(services.add_service(health).add_service(reflection));

        let told = {
            let stopping = stopping.clone();
            async move {
                stop.await;
                tracing::info!("stopping: streams end, open calls may finish");
                stopping.send_replace(true);
            }
        };
        let drained = {
            let (clock, drain, mut stopping) = (Arc::clone(&self.clock), self.drain.clone(), stopping.subscribe());
            async move {
                // An error means that the sender is gone, which is a stop too.
                drop(stopping.wait_for(|stopping| *stopping).await);
                let drain = *drain.borrow();
                clock.sleep(drain).await;
            }
        };
        let drain = self.drain.clone();
        let served = tokio::select! {
            served = server.serve_with_incoming_shutdown(self.incoming, told) => served,
            () = drained => {
                tracing::warn!(seconds = drain.borrow().as_secs(), "calls still open after the drain time are cut");
                Ok(())
            }
        };
        let drain = *drain.borrow();
        // The listener is gone: what is still being done was begun before, and belongs before the record of the stop.
        tokio::select! {
            () = self.operations.settled() => {}
            () = self.clock.sleep(drain) => tracing::warn!("operations still open after the drain time"),
        }
        self.operations.stopped().await;
        self.tasks.shutdown().await;
        drop((self.operations, self.store));
        tracing::info!("stopped");
        Ok(served?)
    }
}

async fn listen(
    config: &Config,
    descriptors: Descriptors,
    tls: Arc<ServerTls>,
    clock: Arc<dyn Clock>,
    operations: Operations,
) -> Result<Listener, ServeError> {
    let bounds = config.strength.bounds(&descriptors);
    let watched = operations.clone();
    let observer = Arc::new(move |refusal: HandshakeRefusal| {
        tracing::info!(reason = refusal.reason.code(), "connection refused");
        operations.connection_refused(refusal.source, refusal.reason.code());
    });
    let gate = Arc::new(move || watched.pressure() == Level::Calm);
    let listener = Listener::bind(config.listen, tls, bounds, clock, observer).await?;
    Ok(listener.with_gate(gate))
}

/// Hands the connection's certificate to the face, in the face's own word for it.
fn name_peer(mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
    if let Some(peer) = request.extensions().get::<PeerCertificate>() {
        let peer = Peer { chain: Arc::clone(&peer.chain), closing: peer.line.closing().clone() };
        request.extensions_mut().insert(peer);
    }
    Ok(request)
}
