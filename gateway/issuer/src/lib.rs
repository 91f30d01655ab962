//! A department's issuer: asks the gateway what the department's devices want renewed, and renews it with the department's own
//! authority, whose key never leaves this process.
//!
//! For: departments. Below: `connection`, `trust`, `types`. Must never know: channels, messages, MLS beyond a
//! device's certificate. It believes the gateway nothing: a request is signed by the device's MLS key, and what is not
//! signed, not the department's, not on its list of devices or revoked is refused ([`Desk::decide`]).

mod authority;
mod config;
mod desk;
mod run;

pub use authority::{AuthorityError, CertificateAuthority, LocalAuthority, Wanted};
pub use config::{Config, ConfigError};
pub use desk::{Desk, Devices, DevicesError};
pub use run::{RunError, run};
