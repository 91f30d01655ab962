//! The contract of Lianxin: generated wire types, wire to typed values, reason codes.
//!
//! For: `gateway/rpc`, which parses requests and builds responses, and `client-sdk/connection`, which does the reverse.
//! Above: those two, and whoever names a [`ReasonCode`]. Below: `types` and `tlog`. Must never know: sockets, stores,
//! policy, MLS beyond "these bytes". What another implementation must know stands in `proto/README.md`.
//!
//! Each subject's module has the generated code as `v1` and the typed values beside it. A typed value is made with
//! `TryFrom` from its wire form, sizes checked against [`lianxin_types::LIMITS`], and turned back with `From`.
//!
//! ```
//! use lianxin_proto::messages::{Send, v1};
//! use lianxin_proto::{Problem, ReasonCode};
//!
//! let error = Send::try_from(v1::SendRequest::default()).expect_err("it is empty");
//! let status = tonic::Status::from(error);
//! let problem = Problem::from_status(&status).expect("our own status");
//! assert_eq!((problem.code, problem.field.as_ref()), (ReasonCode::Malformed, "idempotency_id"));
//! ```

pub mod certificates;
pub mod channels;
pub mod directory;
pub mod key_packages;
pub mod messages;
pub mod types;

mod fields;
mod problem;
mod reasons;
mod receipt;

#[cfg(test)]
mod contract;
#[cfg(test)]
mod readme;

pub use fields::ParseError;
pub use problem::Problem;
pub use reasons::{ROWS, ReasonCode, ReasonRow};
pub use receipt::Receipt;

/// Version of the protocol that this build speaks; clients send it in `Hello`.
pub const PROTOCOL_VERSION: u32 = 1;

/// Encoded `google.protobuf.FileDescriptorSet` of the contract, comments included; for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/contract.binpb"));
