//! What happened, as audit records: leaf, parts and salts, made before the committer and committed with the effect.
//!
//! For: `operations`, which emits exactly one event for every call. Below: `types`, `tlog`, `store`. Must never know:
//! contents, plain or encrypted, nor names of people; identities become pseudonyms here and nowhere later.

mod event;
mod pseudonym;
mod recorder;

pub use event::{AuditEvent, Change};
pub use pseudonym::{PseudonymKey, Pseudonyms};
pub use recorder::Recorder;
