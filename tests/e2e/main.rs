//! End-to-end stories: real TLS, real MLS, real sled in a temporary folder; where a process is killed, a real process.
//!
//! For: what users were promised, told from their side. Each file is a subject; `zone.rs` starts the gateway that the
//! stories talk to.

mod attacks;
mod closing;
mod codes;
mod conversation;
mod copies;
mod coverage;
mod crash;
mod due;
mod effort;
mod expired;
mod flood;
mod follow;
mod forge;
mod full_disk;
mod handshakes;
mod heal;
mod impostor;
mod invite;
mod issuer;
mod key_packages;
mod leaf_care;
mod limits;
mod line;
mod live;
mod lost_replies;
mod malice;
mod metrics;
mod missed_bundles;
mod mutants;
mod offline;
mod old_image;
mod older_gateway;
mod operation;
mod order;
mod publishing;
mod quarantine;
mod races;
mod raw;
mod readiness;
mod reading;
mod refusals;
mod rejoin;
mod reload;
mod removals;
mod renewals;
mod renewing;
mod reports;
mod restored;
mod rotation;
mod sdk_kills;
mod seats;
mod served;
mod slow;
mod spans;
mod support_bundle;
mod talk;
mod two_streams;
mod unread;
mod waiting;
mod wire;
#[cfg(target_os = "linux")]
mod write_faults;
mod zone;
