//! One mutual-TLS connection to the gateway of a zone, and typed calls over it.
//!
//! For: `lianxin-sdk` and the command line tools. Above: those. Below: `lianxin-proto`, `lianxin-trust`, `lianxin-types`.
//! Must never know: MLS keys, the local state, what a message says. Wire types stop here: values of `lianxin-proto` go in
//! and come out, and every failure says whether the gateway has definitely not accepted ([`CallError::Refused`]) or the
//! outcome is unknown ([`CallError::Unknown`]).

mod alert;
mod calls;
mod connection;
mod dial;
mod error;
mod identity;
mod streams;
mod verifier;

pub use connection::{Connection, Target};
pub use dial::{Dial, Dialling, Line};
pub use error::{CallError, ConnectError, GatewayFault, RefusedReason};
pub use identity::{NewTlsKey, TlsIdentity};
pub use streams::{FrameStream, OutcomeStream, ReceiveControl, SendStream};

/// The contract's typed values that calls take and give. Generated wire types go no further than this crate.
pub use lianxin_proto::certificates::{Answer, Issued, Pending, PendingRenewal, Renew, RenewalOutcome, RenewalRefusal};
pub use lianxin_proto::channels::{
    AllowCommitter, Commit, Create, GetGroupInfo, GetWelcomeTree, GroupInfo, Leave, List, ReplaceGroupInfo, Report,
    StartIncarnation, WelcomeTree,
};
pub use lianxin_proto::directory::{GetTrust, Trust};
pub use lianxin_proto::key_packages::{Claim, Publish};
pub use lianxin_proto::messages::{
    Event as LogEntry, FRAME_EVENTS_MAX, Frame, InboxItem, Receive, Send, SendOutcome, Welcome,
};
pub use lianxin_proto::{Problem, ReasonCode, Receipt};
