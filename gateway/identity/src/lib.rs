//! Who calls: from a verified certificate chain to a caller, by the trust bundle and revocation lists in use.
//!
//! For: `operations`, which asks for every call. Below: `types`, `trust`. Must never know: sockets and TLS sessions, the
//! store, what the caller wants. Which federation is in use is decided here alone, so that a new bundle or revocation
//! list takes effect everywhere at once.

mod callers;
mod vigil;

pub use callers::{Caller, Callers};
pub use vigil::{Confirmed, Vigil};
