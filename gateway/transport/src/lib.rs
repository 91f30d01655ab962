//! The gateway's front door: one TCP listener that speaks mutual TLS 1.3 and hands up authenticated byte streams.
//!
//! For: `gateway/src`, which feeds [`Incoming`] to tonic and gives the certificate in [`PeerCertificate`] to the rooms
//! above. Below: `trust` (who does a certificate belong to) and `types` (clock, limits).
//! Must never know: gRPC services, channels, policies, the store, or what a caller may do. It only says who is calling, and
//! it refuses who cannot say so; each refusal is told to an observer, because operations writes it into the audit log.
//!
//! One stack and one provider: rustls on aws-lc-rs, TLS 1.3 only, hybrid X25519MLKEM768 preferred, ALPN `h2` only, no
//! session resumption and no tickets, so that every connection shows its certificate anew (PROTOCOL 11).

mod admission;
mod connection;
mod error;
mod handshake;
mod listener;
mod refusal;
mod server_tls;
mod verifier;

pub use admission::Bounds;
pub use connection::{Accepted, PeerCertificate};
pub use error::TransportError;
pub use listener::{Incoming, Listener};
pub use refusal::{HandshakeRefusal, RefusalObserver, RefusalReason};
pub use server_tls::{FederationSource, ServerIdentity, ServerTls};
