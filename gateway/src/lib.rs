//! The gateway's composition: the only room that knows all others, their configuration, and the process around them.
//!
//! For: the `lianxin-gateway` binary, and tests that parse its configuration. Below: everything under `gateway/`. Must
//! never know: what a request means; it hands sockets, clock, randomness and store to the rooms that do.

mod app;
mod config;
mod descriptors;
mod embedded;
mod error;
mod metrics;
mod readiness;
mod reload;
mod removal_key;
mod rooms;
mod secret;
mod store;
mod strength;
mod support_bundle;
mod telemetry;
mod trust;

pub use app::Gateway;
pub use config::{Change, Config, ConfigError, Key};
pub use descriptors::Descriptors;
pub use embedded::{Embedded, InnerLine};
pub use error::ServeError;
pub use lianxin_operations::StatisticsView;
pub use metrics::{METRICS, MetricKind, MetricRow};
pub use reload::{ReloadError, ReloadHandle, Reloaded};
pub use store::check_store;
pub use strength::Strength;
pub use support_bundle::{SupportEntry, SupportError, SupportRequest, write_support_bundle};
pub use telemetry::{LogFilter, start_logging};
pub use trust::check_trust;
