//! Every parser that bytes from outside, from a disk or from a neighbour can reach, and valid bytes for it, made by the real
//! SDK in a federation that is minted for the purpose.
//!
//! For: the test over all parsers in this folder, and `tests/fuzz` (one target per parser). Must never know: sockets and
//! processes; those are in `tests/harness` and `tests/e2e`.
//!
//! What is not here: the SDK's own rows, which lie sealed in its database and are tested beside it, and the operator's
//! configuration file.

mod channel;
mod corpus;
mod depth;
mod device;
mod federation;
mod parsers;
mod stock;

pub use channel::Channel;
pub use corpus::write_corpus;
pub use depth::Depth;
pub use device::{Device, fresh_id};
pub use federation::{Office, office};
pub use parsers::{Parser, Shape, all, parse};
