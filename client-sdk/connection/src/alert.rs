//! Catches the TLS alert that comes after the handshake. With TLS 1.3 a client is done before the gateway has looked at its
//! certificate (RFC 8446 section 4.4.2.4), so a refusal arrives as a read error of the first call, deep inside HTTP/2.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::RefusedReason;

/// Where the alert of one connection is found.
pub(crate) type AlertSlot = Arc<OnceLock<AlertDescription>>;

/// A stream that remembers the alert it met.
pub(crate) struct AlertCatcher<S> {
    stream: S,
    slot: AlertSlot,
}

impl<S> AlertCatcher<S> {
    pub(crate) const fn new(stream: S, slot: AlertSlot) -> Self {
        Self { stream, slot }
    }

    fn note<T>(&self, outcome: &Poll<io::Result<T>>) {
        if let Poll::Ready(Err(error)) = outcome
            && let Some(alert) = alert_in(error)
        {
            // The first alert ends the connection; a second one cannot matter.
            let _first_wins = self.slot.set(alert);
        }
    }
}

/// The alert that the other end sent, if the error is one.
pub(crate) fn alert_in(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// What an alert says about us (the gateway's mapping of RFC 8446 section 6.2).
pub(crate) fn reason_of(alert: AlertDescription) -> RefusedReason {
    match alert {
        AlertDescription::CertificateRequired => RefusedReason::CertificateRequired,
        AlertDescription::UnknownCA => RefusedReason::UnknownAuthority,
        AlertDescription::CertificateExpired => RefusedReason::Expired,
        AlertDescription::CertificateRevoked => RefusedReason::Revoked,
        AlertDescription::AccessDenied => RefusedReason::AccessDenied,
        AlertDescription::UnsupportedCertificate | AlertDescription::BadCertificate => {
            RefusedReason::UnsupportedCertificate
        }
        AlertDescription::ProtocolVersion => RefusedReason::ProtocolVersion,
        other => RefusedReason::Other(other.into()),
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AlertCatcher<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.note(&outcome);
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AlertCatcher<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.note(&outcome);
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
