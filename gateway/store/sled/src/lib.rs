//! The embedded engine of a zone on sled 0.34.7: rows in directories of one zone's folder, acknowledged only after their
//! file's data has been synced.
//!
//! For: `gateway/src`, which alone names engines. Below: the `Engine` seam of `store`. Must never know: records, channels,
//! audit, policy; it sees rows. What sled does and does not promise, and why each rule here is there: the decision record
//! on the embedded store (PROTOCOL 10).
//!
//! A zone's folder: `lock` (process id of the holder), `format` (number), `zone` (its name), `fencing` (number, rises at each open),
//! `quarantine` (what was found damaged; there only then), `reserve` (space kept for audit records when the disk is full),
//! `buckets/<number>-<week>/` (one database each; `ready` is in it once it may hold something), `state/` (one database that
//! can be computed again; `state.new/` and `state.old/` while it is rewritten), `segments/<bucket>-<class>.seg` (what outlives
//! a bucket; the format is described in the module `segment` of `store`). A bucket that was dropped is renamed to
//! `<number>-<week>.dead` before it is removed.

mod check;
mod database;
mod disk;
mod engine;
mod folder;
mod migration;
mod segments;
mod shelf;
mod space;
mod state;

pub use check::check;
pub use disk::{Disk, RealDisk};
pub use engine::{SledEngine, keep_open, open, open_bounded, open_with};
pub use folder::{FORMAT, blob_files};
pub use shelf::FILES_MAX;
pub use space::SpaceBounds;
