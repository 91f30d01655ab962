//! The SDK's MLS engine: bytes in, effects out. It holds a device's groups, makes commits and messages for the gateway's
//! log, and judges every event of that log by itself: who sent it, whether the log is the one that the sender saw, whether
//! a commit keeps the profile.
//!
//! For: `client-sdk/src`, which moves the bytes. Above: that. Below: `keystore`, `profile`, `trust`, `tlog`, `types`,
//! openmls. Must never know: the network, gRPC, files, what an application does with a message.
//!
//! Every call runs inside one keystore transaction that the caller opens and that carries its own rows too (cursor,
//! outbox). After an error the caller rolls that transaction back. Between calls the keystore may keep a group in memory, until
//! a transaction fails or a row of the group changes behind the engine's back.

mod channel;
mod commit;
mod create;
mod engine;
mod error;
mod event;
mod floor;
mod group_info;
mod identity;
mod incarnation;
mod join;
mod key_packages;
mod last_resort;
mod leaf;
mod one_time;
mod process;
mod provider;
mod record;
mod rejoin;
mod removal;
mod renewal;
mod report;
mod send;
mod view;

pub use commit::CommitBundle;
pub use create::{NewChannel, StartBundle};
pub use engine::Mls;
pub use error::{MlsError, Violation};
pub use event::{LogEvent, Processed};
pub use group_info::ServedGroupInfo;
pub use identity::MlsIdentity;
pub use join::Invitation;
pub use key_packages::NewKeyPackages;
pub use last_resort::LAST_RESORT_KEPT;
pub use leaf::LeafCare;
pub use lianxin_profile::{RemovalReason, ReportReason};
pub use one_time::KEY_PACKAGE_KEPT;
pub use renewal::Renewal;
pub use send::Encrypted;
pub use view::ChannelView;
