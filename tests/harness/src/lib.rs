//! Real processes for tests and the demo: a minted federation, a gateway that can be killed, applications of departments.
//!
//! For: `tests/e2e`, `tests/load` and the binaries `lianxin-demo`, `lianxin-app` and `lianxin-culprit` of this crate. Below: the
//! SDK, its engine and connection for the culprit, and `certs-dev`. Must never know: the inside of the gateway; it starts the gateway's binary and looks at its files from
//! outside, as an operator or a thief would.
//!
//! ```no_run
//! use lianxin_harness::Stage;
//!
//! # async fn story() -> anyhow::Result<()> {
//! let mut stage = Stage::start().await?;
//! let jiwei = stage.client("jiwei", "app-1").await?;
//! stage.gateway.kill().await?;
//! stage.gateway.start().await?;
//! jiwei.connected().await?;
//! # Ok(()) }
//! ```

mod application;
mod binaries;
mod calls;
mod deadline;
mod disk_fault;
mod disk_search;
mod gateway;
mod issuer;
mod line;
mod stage;

pub use application::{Answering, Application};
pub use binaries::{Binaries, ensure_built, ensure_examples_built};
pub use calls::{
    Answer, Call, ChannelInfo, Credentials, EventInfo, Joined, Listed, MessageInfo, Opened, Refusal, Request, SentInfo,
};
pub use deadline::{before, eventually};
pub use disk_fault::{DiskFault, Fault};
pub use disk_search::{DiskSearch, Found};
pub use gateway::Gateway;
pub use issuer::Issuer;
pub use line::Line;
pub use stage::Stage;
