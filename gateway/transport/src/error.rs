//! Why the front door cannot be opened.

use std::net::SocketAddr;

use thiserror::Error;

/// A fault of the gateway's own set-up; what callers do wrong is a [`crate::RefusalReason`].
#[derive(Debug, Error)]
pub enum TransportError {
    /// The address is taken, or not one of this machine's.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The gateway's certificate or key file is not PEM, holds nothing, or holds something else.
    #[error("{what} of the gateway is not readable PEM")]
    Pem {
        /// `certificate chain` or `private key`.
        what: &'static str,
        /// What the parser said.
        source: rustls::pki_types::pem::Error,
    },
    /// The certificate chain is empty, the key is of an unknown kind, or the two do not belong together.
    #[error("certificate and private key of the gateway do not fit together")]
    Identity(#[source] rustls::Error),
    /// The TLS library refuses our own parameters.
    #[error("the TLS settings are refused by the library")]
    Settings(#[source] rustls::Error),
}
