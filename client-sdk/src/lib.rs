//! The crate that a department's application embeds: end-to-end encrypted channels with other departments, through a
//! gateway that cannot read them.
//!
//! For: application developers; [`Client`] is the door. Above: bindings and the local daemon. Below: `lianxin-mls`,
//! `lianxin-connection`, `lianxin-keystore`. Must never know: how MLS works inside, wire formats, SQL. What it promises: a
//! message that `send` has stored is sent exactly once and in order, whatever breaks; what was received is kept until it is
//! read; every change of members is an event before any message that they could read.
//!
//! ```no_run
//! use lianxin_sdk::{Classification, Client, Config, Label};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::from_certs_dev("federation".as_ref(), "jiwei", "app-1", "state/jiwei")?;
//! let client = Client::open(config).await?;
//! let label = Label::new(Classification::General3, "联合核查", "审计法", None)?;
//! let channel = client.create(label, &["jiwei".parse()?, "shenji".parse()?]).await?;
//! channel.invite(&["lianxin://shenji/app/a7f3/app-1".parse()?]).await?;
//! let receipt = channel.send("材料已收到").await?;
//! println!("durable, in order and audited at {:?}", receipt.sequence);
//! let mut messages = channel.receive();
//! while let Some(message) = messages.next().await {
//!     let message = message?;
//!     println!("{:?}: {}", message.sender, message.text().unwrap_or("(not text)"));
//! }
//! client.close().await?;
//! # Ok(()) }
//! ```

mod calls;
mod certificates;
mod changes;
mod channel;
mod client;
mod config;
mod confine;
mod drive;
mod error;
mod event;
mod evidence;
mod gaps;
mod gone;
mod identity;
mod incarnation;
mod invited;
mod key_packages;
mod lane;
mod next;
mod outbox;
mod pauses;
mod planning;
mod proofs;
mod pump;
mod readers;
mod rows;
mod served;
mod session;
mod shared;
mod summary;
mod sync;
mod trust;
mod turns;
mod unknown;
mod waiters;
mod way_back;
mod wishes;
mod wishing;
mod withheld;

pub use channel::{Channel, ChannelInfo};
pub use client::{Client, Invitation};
pub use config::{Config, StateKeySource};
pub use error::{ClientError, ConfigError, TrustError};
pub use event::Event;
pub use evidence::{Evidence, ViolationKind};
pub use readers::{Events, Invitations, Message, Messages};
pub use rows::Origin;
pub use summary::ChannelSummary;
pub use wishes::{Change, NotMade};

pub use lianxin_connection::{ConnectError, GatewayFault, RefusedReason};
pub use lianxin_connection::{Problem, ReasonCode, Receipt};
pub use lianxin_keystore::{KeystoreError, StateKey};
pub use lianxin_mls::{LeafCare, MlsError, RemovalReason, ReportReason};
pub use lianxin_types::{
    ChannelId, Classification, DepartmentId, DeviceUri, Digest, Epoch, Incarnation, Label, Sequence, Timestamp, ZoneId,
};

/// The page of SDK code in the README, compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
