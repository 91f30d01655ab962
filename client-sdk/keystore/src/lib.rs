//! Sealed local state of one device: SQLite on one thread, every value encrypted, and the openmls storage provider on it.
//!
//! For: `lianxin-mls` (MLS write sets) and `lianxin-sdk` (cursors, intents, the local log), which share one transaction.
//! Above: `lianxin-mls`, `lianxin-sdk`. Below: `lianxin-types`.
//! Must never know: the network, certificates, what the values mean. It never lets a plaintext value or a lookup key reach
//! the disk. What it does not defend against: somebody who puts a whole older folder back.

mod error;
mod folder;
mod kept;
mod key;
mod keystore;
mod mls;
mod seal;
mod transaction;

pub use error::KeystoreError;
pub use key::StateKey;
pub use keystore::{Enqueued, Keystore};
pub use mls::{MlsStorage, Shelf};
pub use transaction::{Row, Transaction};
