//! Putting the rooms together, serving, and stopping in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lianxin_audit::{PseudonymKey, Pseudonyms};
use lianxin_delivery::Fanout;
use lianxin_identity::Callers;
use lianxin_operations::{Level, Operations, Parts};
use lianxin_rpc::{Face, Patience, Peer};
use lianxin_store::ZoneStore;
use lianxin_transport::{CountCalls, HandshakeRefusal, Incoming, Listener, PeerCertificate, ServerTls};
use lianxin_types::{Clock, Digest, LIMITS, SystemClock, SystemRandom};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::InterceptorLayer;

use crate::config::Config;
use crate::descriptors::Descriptors;
use crate::error::ServeError;
use crate::metrics::Sources;
use crate::readiness::Readiness;
use crate::reload::{PSEUDONYM_KEY, ReloadHandle, ReloadParts, Reloader};
use crate::strength::Strength;
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
        let removal_key = crate::removal_key::load(config, &trust.federation, clock.now())?;
        let key = crate::secret::load_or_create(&config.pseudonym_key, &SystemRandom)
            .map_err(|source| ServeError::File { path: config.pseudonym_key.clone(), source })?;
        contents.insert(PSEUDONYM_KEY, Digest::sha256(&key));
        let descriptors = Descriptors::claim(config)?;
        let store = crate::store::open(config, &clock)?;
        // The zone is ours now, and with it the file beside it.
        let kept = crate::trust::keep_at_start(config, &trust)?;
        let Trust { federation, predecessors, identity } = trust;
        let callers = Arc::new(Callers::new(federation, predecessors.clone(), Arc::clone(&clock)));
        let fanout = Fanout::new();
        let operations = Operations::new(Parts {
            store: Arc::clone(&store),
            callers: Arc::clone(&callers),
            pseudonyms: Pseudonyms::new(PseudonymKey::new(key)),
            removal_key,
            clock: Arc::clone(&clock),
            random: Arc::new(SystemRandom),
            fanout: Arc::clone(&fanout),
            queue_units_max: config.strength.queue_units_max,
            queue_bytes_max: config.strength.queue_bytes_max,
        });
        let mut tasks = JoinSet::new();
        if crate::store::takes_records(&*store) {
            let started = operations.started(VERSION, config.digest).await;
            started.map_err(|fault| ServeError::Audit { fault: fault.to_string() })?;
        } else {
            tasks.spawn(start_later(operations.clone(), Arc::clone(&store), Arc::clone(&clock), config.digest));
        }
        tasks.spawn(fanout.run(Arc::clone(&store), Arc::clone(&clock)));
        tasks.spawn(operations.clone().record_counts());
        tasks.spawn(operations.clone().sweep_removals());
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
        let Strength { stall_duration_max, message_duration_max, call_duration_max, .. } = config.strength;
        let patience = Patience { stall_duration_max, message_duration_max };
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
        let face = Face::new(self.operations.clone(), self.patience, stopping.subscribe());
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
            .add_service(health)
            .add_service(reflection)
            .add_service(face.channels())
            .add_service(face.messages())
            .add_service(face.key_packages())
            .add_service(face.directory());

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

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Records the start of a gateway whose zone took no records when it started: quarantined, or on a full disk. Until then it
/// serves nobody, since no call goes without its record.
async fn start_later(operations: Operations, store: Arc<dyn ZoneStore>, clock: Arc<dyn Clock>, configuration: Digest) {
    tracing::error!("the zone takes no records: alive and not ready until it does");
    loop {
        clock.sleep(Duration::from_millis(500)).await;
        if crate::store::takes_records(&*store) && operations.started(VERSION, configuration).await.is_ok() {
            tracing::info!("the zone takes records: started");
            return;
        }
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
