//! One authenticated connection, as tonic takes it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use crate::admission::{DevicePlace, Place};
use crate::line::Line;

/// Who is at the other end: found in the extensions of every request that came over the connection.
///
/// The chain was accepted when the connection was opened. Whoever needs the identity later asks the federation again: a
/// certificate may be revoked while its connection is open.
#[derive(Clone)]
pub struct PeerCertificate {
    /// The client's chain in DER, leaf first; never empty.
    pub chain: Arc<Vec<Vec<u8>>>,
    /// Where the connection comes from.
    pub source: SocketAddr,
    /// The connection itself, to end it.
    pub line: Line,
}

impl fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerCertificate")
            .field("certificates", &self.chain.len())
            .field("source", &self.source)
            .finish()
    }
}

/// One connection after its handshake. Dropping it closes the connection and gives its places back.
pub struct Accepted {
    /// The decrypted byte stream.
    io: TlsStream<TcpStream>,
    /// Who is at the other end.
    peer: PeerCertificate,
    /// Ready once the connection is to end.
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Both places of [`crate::Bounds`] that it holds; declared last, so the socket closes first.
    _places: (Place, DevicePlace),
}

impl Accepted {
    pub(crate) fn new(io: TlsStream<TcpStream>, peer: PeerCertificate, place: Place, device: DevicePlace) -> Self {
        let closing = Box::pin(peer.line.closing().clone().cancelled_owned());
        Self { io, peer, closing, _places: (place, device) }
    }

    /// Who is at the other end.
    pub const fn peer(&self) -> &PeerCertificate {
        &self.peer
    }
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Connected for Accepted {
    type ConnectInfo = PeerCertificate;

    fn connect_info(&self) -> PeerCertificate {
        self.peer.clone()
    }
}

impl Accepted {
    /// An error once the connection is to end.
    fn is_open(&self) -> io::Result<()> {
        if self.peer.line.is_closed() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        self.peer.line.closing().cancel();
    }
}

impl AsyncRead for Accepted {
    /// Also wakes the reader when the connection is to end: a client that says nothing keeps nothing open.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.closing.as_mut().poll(cx).is_ready() {
            return Poll::Ready(self.is_open());
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.is_open()?;
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.is_open()?;
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_open()?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_open()?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
