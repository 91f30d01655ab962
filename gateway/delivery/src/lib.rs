//! Channels and what flows through them: commits validated against the public group, message framing, key packages,
//! inboxes, fan-out to subscribers.
//!
//! For: `operations`, which brings permits and commits the units prepared here. Below: `policy` (for `Permit` alone),
//! `profile`, `store`. Must never know: who may do what and why, audit records, protobuf, TLS. It never sees plaintext:
//! the group it holds is public, and application messages are parsed no further than their authenticated header.

mod channels;
mod error;
mod fanout;
mod group;
mod group_info;
mod incarnation;
mod key_packages;
mod look;
mod mailbox;
mod messages;
mod removal;
mod report;
mod subscription;

pub use channels::{Channels, CommitBundle, PreparedCommit, PreparedLeave, PreparedStart};
pub use error::DeliveryError;
pub use fanout::{DeliveryFigures, Fanout};
pub use group::GroupState;
pub use incarnation::PreparedIncarnation;
pub use key_packages::{PreparedKeyPackages, prepare_key_packages};
pub use look::{Look, PublicState};
pub use mailbox::Frame;
pub use messages::{NewMessage, prepare_message};
pub use removal::{PreparedRemoval, RemovalKey, RenewedRemoval};
pub use report::PreparedReport;
pub use subscription::{CatchUp, Delivery, Subscription};
