//! The TCP listener and the stream of connections that were let in.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use lianxin_types::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::Stream;

use crate::admission::{Admission, Bounds};
use crate::connection::Accepted;
use crate::error::TransportError;
use crate::handshake::Doorkeeper;
use crate::refusal::{HandshakeRefusal, RefusalObserver, RefusalReason};
use crate::server_tls::ServerTls;
use crate::sources::{SourcePlace, Sources};
use crate::sweep::Sweep;

/// A bound address that does not accept yet.
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    doorkeeper: Arc<Doorkeeper>,
    sources: Sources,
    gate: Gate,
    on_refusal: RefusalObserver,
}

/// Asked for each new connection whether there is the strength for it. Called on the runtime's threads: it must not block.
pub type Gate = Arc<dyn Fn() -> bool + Send + Sync>;

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Listener {
    /// Binds `address`; port 0 picks a free one, see [`Listener::address`]. `on_refusal` is told of each connection that is
    /// not let in.
    ///
    /// # Errors
    /// [`TransportError::Bind`] if the address cannot be had.
    pub async fn bind(
        address: SocketAddr,
        tls: Arc<ServerTls>,
        bounds: Bounds,
        clock: Arc<dyn Clock>,
        on_refusal: RefusalObserver,
    ) -> Result<Self, TransportError> {
        let failed = |source| TransportError::Bind { address, source };
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        let doorkeeper = Doorkeeper { tls, admission: Admission::new(&bounds), clock, bounds, lines: Arc::default() };
        let (sources, gate) = (Sources::new(&bounds), Arc::new(|| true) as Gate);
        Ok(Self { tcp, address, doorkeeper: Arc::new(doorkeeper), sources, gate, on_refusal })
    }

    /// The same listener, which lets nobody in while `gate` says no.
    #[must_use]
    pub fn with_gate(self, gate: Gate) -> Self {
        Self { gate, ..self }
    }

    /// The address that is listened on.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What can be asked of it while it accepts.
    pub fn figures(&self) -> ListenerFigures {
        ListenerFigures { doorkeeper: Arc::clone(&self.doorkeeper) }
    }

    /// Starts to accept. The stream is for `tonic::transport::Server::serve_with_incoming_shutdown`; dropping it stops the
    /// listener and ends the handshakes that are under way, not the connections that were handed out.
    pub fn incoming(self) -> Incoming {
        let (sender, connections) = mpsc::channel(QUEUE_MAX);
        let sweep = Sweep {
            lines: Arc::clone(&self.doorkeeper.lines),
            bounds: self.doorkeeper.bounds,
            federation: self.doorkeeper.tls.federation(),
            clock: Arc::clone(&self.doorkeeper.clock),
            on_refusal: Arc::clone(&self.on_refusal),
        };
        let tasks = [tokio::spawn(self.accept(sender)), tokio::spawn(sweep.run())];
        Incoming { connections, tasks }
    }

    async fn accept(self, connections: mpsc::Sender<Accepted>) {
        let mut handshakes = JoinSet::new();
        let handshakes_max = self.doorkeeper.bounds.handshakes_max.max(1);
        loop {
            tokio::select! {
                Some(_) = handshakes.join_next() => {}
                accepted = self.tcp.accept(), if handshakes.len() < handshakes_max => match accepted {
                    Ok((tcp, source)) => match self.may_knock(source) {
                        Ok(place) => {
                            handshakes.spawn(self.handshake(tcp, source, place, connections.clone()));
                        }
                        // Not a byte is read of it: that is the cheapest answer there is.
                        Err(reason) => (self.on_refusal)(HandshakeRefusal { source: source.ip(), reason }),
                    },
                    Err(error) => {
                        // Out of file descriptors, or a connection that died in the queue: neither ends the gateway.
                        tracing::warn!(%error, "cannot accept a connection");
                        self.doorkeeper.clock.sleep(PAUSE_AFTER_ERROR).await;
                    }
                },
            }
        }
    }

    /// A handshake's place for this source.
    fn may_knock(&self, source: SocketAddr) -> Result<SourcePlace, RefusalReason> {
        let now = self.doorkeeper.clock.monotonic();
        let place = self.sources.enter(source.ip(), now).ok_or(RefusalReason::SourceFlood)?;
        if (self.gate)() { Ok(place) } else { Err(RefusalReason::Overloaded) }
    }

    fn handshake(
        &self,
        tcp: TcpStream,
        source: SocketAddr,
        source_place: SourcePlace,
        connections: mpsc::Sender<Accepted>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let doorkeeper = Arc::clone(&self.doorkeeper);
        let on_refusal = Arc::clone(&self.on_refusal);
        async move {
            let _source_place = source_place;
            let refuse = |reason: RefusalReason| {
                tracing::debug!(%reason, "connection refused");
                on_refusal(HandshakeRefusal { source: source.ip(), reason });
            };
            let place = match doorkeeper.enter() {
                Ok(place) => place,
                Err(reason) => return refuse(reason),
            };
            match doorkeeper.receive(tcp, source, place).await {
                // Nobody receives once the server drains; the connection closes then.
                Ok(accepted) => drop(connections.send(accepted).await),
                Err(refused) => {
                    refuse(refused.reason.clone());
                    doorkeeper.say_goodbye(refused).await;
                }
            }
        }
    }
}

/// What can be asked of a listener while it accepts. Cheap to clone.
#[derive(Clone)]
pub struct ListenerFigures {
    doorkeeper: Arc<Doorkeeper>,
}

impl fmt::Debug for ListenerFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ListenerFigures")
    }
}

impl ListenerFigures {
    /// Connections open now, in the handshake or after it.
    pub fn connections(&self) -> usize {
        self.doorkeeper.admission.places().0
    }

    /// Connections that may be open at the same time.
    pub fn connections_max(&self) -> usize {
        self.doorkeeper.admission.places().1
    }

    /// The chain that the next client is shown, leaf first, DER.
    pub fn certificate_chain(&self) -> Vec<Vec<u8>> {
        self.doorkeeper.tls.certificate_chain()
    }
}

/// The connections that were let in, in the order in which their handshakes ended. It never ends by itself and never errs.
#[derive(Debug)]
pub struct Incoming {
    connections: mpsc::Receiver<Accepted>,
    tasks: [JoinHandle<()>; 2],
}

impl Stream for Incoming {
    type Item = Result<Accepted, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(cx).map(|accepted| accepted.map(Ok))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Connections that are let in and not yet fetched; further handshakes wait with their result.
const QUEUE_MAX: usize = 16;

/// Lets the system recover from a shortage of file descriptors.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);
