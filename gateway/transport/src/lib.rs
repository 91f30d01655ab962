//! The gateway's front door: one TCP listener that speaks mutual TLS 1.3 and hands up authenticated byte streams.
//!
//! For: `gateway/src`, which feeds [`Incoming`] to tonic and gives the certificate in [`PeerCertificate`] to the rooms
//! above. Below: `trust` (who does a certificate belong to) and `types` (clock, limits).
//! Must never know: gRPC services, channels, policies, the store, or what a caller may do. It only says who is calling, and
//! it refuses who cannot say so; each refusal is told to an observer, because operations writes it into the audit log.
//! It also ends connections: when their certificate falls, when they idle, grow old, or give up call after call.
//!
//! One stack and one provider: rustls on aws-lc-rs, TLS 1.3 only, hybrid X25519MLKEM768 preferred, ALPN `h2` only, no
//! session resumption and no tickets, so that every connection shows its certificate anew (PROTOCOL 11).

mod admission;
mod calls;
mod connection;
mod error;
mod handshake;
mod line;
mod listener;
mod refusal;
mod server_tls;
mod sources;
mod sweep;
mod verifier;

pub use admission::Bounds;
pub use calls::{CountCalls, CountedCalls};
pub use connection::{Accepted, PeerCertificate};
pub use error::TransportError;
pub use line::Line;
pub use listener::{Gate, Incoming, Listener, ListenerFigures};
pub use refusal::{HandshakeRefusal, RefusalObserver, RefusalReason};
pub use server_tls::{FederationSource, ServerIdentity, ServerTls};
