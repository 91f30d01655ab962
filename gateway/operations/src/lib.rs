//! Everything that can be asked of the gateway, one file per subject, behind the guard.
//!
//! For: the faces (`rpc`). Below: `identity`, `policy`, `delivery`, `audit`, `store`, which do not know each other; this
//! room conducts them. Must never know: protobuf, gRPC, TLS, configuration, which engine stores a zone. Every
//! effect has its audit record in the same unit, every read and refusal one of its own; repeats, and refusals before a
//! caller is known, are counted per minute (PROTOCOL 8). What cannot be audited is refused.

mod certificates;
mod channels;
mod counts;
mod cursors;
mod device_rate;
mod directory;
mod gate;
mod group_info;
mod guard;
mod incarnations;
mod key_packages;
mod messages;
mod pace;
mod pressure;
mod reads;
mod receive;
mod refusal;
mod reload;
mod removals;
mod renewals;
mod reports;
mod run;
mod statistics;
mod streams;
mod turns;
mod watch;

pub use certificates::{Certificates, RenewalAnswer};
pub use directory::{Agreement, EarlierBundles, Trust};
pub use gate::{Operations, Parts, Receipt};
pub use lianxin_delivery::{CommitBundle, Delivery, DeliveryFigures, Frame, RemovalKey};
pub use lianxin_identity::Caller;
pub use lianxin_store::{InboxEntry, StoredEvent};
pub use lianxin_trust::RenewalRequest;
pub use messages::{HistoryPage, Outgoing, Sender, Sent};
pub use pressure::Level;
pub use reads::{ChannelSummary, GroupInfoPage};
pub use receive::{FollowAnswer, Receiver};
pub use refusal::Refusal;
pub use reload::TrustInForce;
pub use statistics::{Statistics, StatisticsView};
