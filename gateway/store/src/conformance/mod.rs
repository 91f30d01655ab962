//! What every engine must do: one suite, called by each engine's tests with its own [`Home`].

mod audit;
mod drops;
mod edges;
mod fixture;
mod forgetting;
mod incarnations;
mod model;
mod packages;
mod random;
mod records;
mod removals;
mod replaced;
mod reports;
mod stories;
mod storm;
mod suite;

pub use audit::check_audit;
pub use fixture::{
    ManualClock, block_on, change_group, channel, commit, device, drop_buckets, effects, message, start,
};
pub use records::{GOLDEN_RECORDS, RECORDS, RecordKind};
pub use suite::{Home, run, seed, times};
