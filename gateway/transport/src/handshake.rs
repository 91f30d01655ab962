//! One handshake: from a TCP connection to an authenticated one, or to a reason.

use std::net::SocketAddr;
use std::sync::Arc;

use lianxin_trust::Identity;
use lianxin_types::{Clock, LIMITS};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::admission::{Admission, Bounds, DevicePlace, Place};
use crate::connection::{Accepted, PeerCertificate};
use crate::line::{Line, Watched};
use crate::refusal::RefusalReason;
use crate::server_tls::{ALPN_HTTP2, ServerTls};
use crate::sweep::Lines;
use crate::verifier::{ClientVerifier, Finding};

/// What all handshakes of a listener share.
pub(crate) struct Doorkeeper {
    pub(crate) tls: Arc<ServerTls>,
    pub(crate) admission: Admission,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) bounds: Bounds,
    pub(crate) lines: Arc<Lines>,
}

/// A connection that is not let in, and what is left of it.
pub(crate) struct Refused {
    /// Why.
    pub(crate) reason: RefusalReason,
    leaving: Option<Leaving>,
}

/// A refused connection that still has its alert to deliver.
enum Leaving {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl From<RefusalReason> for Refused {
    fn from(reason: RefusalReason) -> Self {
        Self { reason, leaving: None }
    }
}

/// Who is let in.
struct Authenticated {
    io: TlsStream<TcpStream>,
    chain: Vec<Vec<u8>>,
    identity: Identity,
    device: DevicePlace,
}

impl Doorkeeper {
    /// A place for a connection that just came, held until it is gone.
    ///
    /// # Errors
    /// [`RefusalReason::ConnectionsFull`].
    pub(crate) fn enter(&self) -> Result<Place, RefusalReason> {
        self.admission.enter().ok_or(RefusalReason::ConnectionsFull)
    }

    /// Lets `tcp` in, or says why not; done within the handshake's longest duration in every case.
    pub(crate) async fn receive(&self, tcp: TcpStream, source: SocketAddr, place: Place) -> Result<Accepted, Refused> {
        tokio::select! {
            // The one who is just in time is let in.
            biased;
            done = self.authenticate(tcp) => {
                let Authenticated { io, chain, identity, device } = done?;
                let (chain, clock) = (Arc::new(chain), Arc::clone(&self.clock));
                let line = Line::new(&identity.uri, &self.bounds, clock);
                let ends = identity.not_after.plus(LIMITS.clock_skew_max);
                let (watched, judged) = (line.clone(), Arc::clone(&chain));
                self.lines.add(Watched { line: watched, chain: judged, source: source.ip(), ends, doom: None });
                Ok(Accepted::new(io, PeerCertificate { chain, source, line }, place, device))
            }
            () = self.clock.sleep(self.bounds.handshake_duration_max) => Err(RefusalReason::Timeout.into()),
        }
    }

    async fn authenticate(&self, tcp: TcpStream) -> Result<Authenticated, Refused> {
        // Small frames go out at once; waiting for more costs every message a round trip.
        tcp.set_nodelay(true).map_err(|_| RefusalReason::Disconnected)?;
        let (config, verifier) = self.tls.for_connection().map_err(|error| {
            tracing::error!(%error, "the TLS settings that worked at the start are refused now");
            RefusalReason::Protocol
        })?;
        let io = TlsAcceptor::from(config).accept(tcp).into_fallible().await.map_err(|(error, tcp)| Refused {
            reason: reason_of(&error, &verifier),
            leaving: Some(Leaving::Tcp(tcp)),
        })?;
        let (_, session) = io.get_ref();
        if session.alpn_protocol() != Some(ALPN_HTTP2) {
            return Err(Refused { reason: RefusalReason::NotHttp2, leaving: Some(Leaving::Tls(Box::new(io))) });
        }
        // The library does not end a handshake without having asked the verifier; if it ever did, nobody gets in.
        let Some(Ok(identity)) = verifier.take_finding() else {
            return Err(RefusalReason::NoCertificate.into());
        };
        let chain = session.peer_certificates().unwrap_or_default().iter().map(|der| der.to_vec()).collect();
        match self.admission.enter_device(&identity.uri) {
            Ok(device) => Ok(Authenticated { io, chain, identity, device }),
            Err(reason) => Err(Refused { reason, leaving: Some(Leaving::Tls(Box::new(io))) }),
        }
    }

    /// Closes our side and reads what the client still sends, so that the system does not reset the connection and swallow
    /// the alert that says why. Bounded in bytes, and in time by the handshake's longest duration.
    pub(crate) async fn say_goodbye(&self, refused: Refused) {
        let goodbye = async {
            match refused.leaving {
                Some(Leaving::Tcp(tcp)) => close_and_drain(tcp).await,
                Some(Leaving::Tls(tls)) => close_and_drain(tls).await,
                None => {}
            }
        };
        tokio::select! {
            () = goodbye => {}
            () = self.clock.sleep(self.bounds.handshake_duration_max) => {}
        }
    }
}

async fn close_and_drain(mut io: impl AsyncRead + AsyncWrite + Unpin) {
    if io.shutdown().await.is_err() {
        return;
    }
    let mut rest = [0; 1024];
    for _ in 0..REST_READS_MAX {
        if !matches!(io.read(&mut rest).await, Ok(1..)) {
            return;
        }
    }
}

/// Why the library gave up. The verifier knows better than the library's error, which is made for the alert.
fn reason_of(error: &std::io::Error, verifier: &ClientVerifier) -> RefusalReason {
    use rustls::Error;
    if let Some(Finding::Err(error)) = verifier.take_finding() {
        return RefusalReason::Certificate(error);
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::NoCertificatesPresented) => RefusalReason::NoCertificate,
        Some(Error::NoApplicationProtocol) => RefusalReason::NotHttp2,
        Some(Error::AlertReceived(_)) => RefusalReason::RefusedByClient,
        Some(Error::InvalidCertificate(_)) => RefusalReason::KeyNotProven,
        Some(_) => RefusalReason::Protocol,
        None => RefusalReason::Disconnected,
    }
}

/// Reads of up to 1 KiB each.
const REST_READS_MAX: usize = 64;
