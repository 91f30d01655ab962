//! Who belongs to the federation: the trust bundle under its root keys, and the way from a certificate to an identity.
//!
//! For: both ends. The gateway and every SDK decide with the same code whose certificate stands for whom (PROTOCOL 1, 9).
//! Above: `profile`, `identity`, `transport`, `connection`, `mls`. Below: `types`. Must never know: files, sockets, the
//! system's clock, MLS, protobuf: bytes and the time come in, an identity or a typed refusal goes out.
//!
//! The way: pinned [`RootKeys`] + a signed note = [`VerifiedBundle`] ([`verify_bundle`]); the bundle + revocation lists =
//! [`Federation`]; a certificate + its [`Usage`] + the time = [`Identity`] ([`Federation::identify`]).

mod bundle;
mod certificate;
mod der;
mod federation;
mod note;
mod past;
mod renewal;
mod revocation;
mod roots;
mod succession;
mod usage;
mod verified;

pub use bundle::{Department, Endpoint, REMOVAL_KEYS_BEFORE_MAX, TrustBundle, Zone};
pub use certificate::{CertificateError, Identity};
pub use federation::{Federation, FederationError, RevocationListView};
pub use note::{NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX};
pub use past::Past;
pub use renewal::{RENEWAL_PART_BYTES_MAX, RenewalError, RenewalRequest, Renewing};
pub use roots::{RootKey, RootKeys, RootKeysError};
pub use succession::SuccessionError;
pub use usage::Usage;
pub use verified::{BUNDLE_LABEL, BUNDLE_LIFETIME, BundleError, VerifiedBundle, sign_bundle, verify_bundle};
