//! Decisions: a request goes in, a permit or a denial comes out.
//!
//! For: `operations`, whose guard asks, and `delivery`, whose effects demand a permit as an argument. Below: `types`. Must
//! never know: the store, the network, MLS bytes, the clock. It does no I/O, so a decision follows from its request alone.
//!
//! Today's rules are small: who may call, which departments a channel names, and the limits of a channel. Departments'
//! published documents come behind the same door.

mod decision;
mod engine;
mod lease;
mod permit;

pub use decision::{ChannelFacts, Denial, Request};
pub use engine::Engine;
pub use lease::{Generation, Lease, Stale};
pub use permit::{
    Action, AllowCommitter, ClaimKeyPackages, CommitChange, CreateChannel, Follow, IssueCertificates, Leave,
    ListChannels, OpenReceive, Permit, PublishKeyPackages, ReadHistory, ReadPublicState, ReadTrust, RenewCertificates,
    ReplaceGroupInfo, ReportCommit, SendMessage, StartIncarnation,
};
