//! Our profile of MLS (RFC 9420): code points, credentials, authenticated data, padding, and the acceptance rules that the
//! gateway and every SDK check independently of each other (PROTOCOL 1, 3, 4, 5).
//!
//! For: `gateway/delivery`, which holds a `PublicGroup`, and `client-sdk/mls`, which holds an `MlsGroup`; each rule takes
//! what both have (a staged commit, a group context, a roster). Above: those two. Below: `types`, `trust`, `tlog`, openmls.
//! Must never know: sockets, files, who may do what (that is policy), private keys, plaintext of a message beyond its
//! framing.
//!
//! Order of checks at both ends: parse ([`parse_handshake`]), let openmls verify and stage, then [`check_commit`], then
//! [`check_group_info`] and [`check_welcome`] for what came with it; merge last.

mod authenticated;
mod capabilities;
mod commit;
mod context;
mod credential;
mod error;
mod extensions;
mod group_info;
mod head;
mod key_package;
mod message;
mod payload;
mod rejoin;
mod removal;
mod report;
mod roster;
mod start;
mod welcome;

pub use authenticated::{AUTHENTICATED_DATA_BYTES, AuthenticatedData};
pub use capabilities::{CIPHERSUITE, capabilities, check_capabilities, required_capabilities};
pub use commit::{Added, AsOf, Before, CommitSummary, RemovalCause, Removed, check_commit, check_leave, check_sender};
pub use context::{CHANNEL_CONTEXT_EXTENSION, ChannelContext, ContextError, NamedDepartment, label_reference, slot};
pub use credential::{Validity, check_leaf, parse_chain, x509_credential};
pub use error::ProfileError;
pub use extensions::{
    external_sender, group_context_extensions, is_removal_key_listed, moved_forward, moved_to_removal_key,
    read_context, stored_context,
};
pub use group_info::{CheckedGroupInfo, GroupInfoSigner, check_group_info, open_group_info, same_epoch};
pub use head::{HEAD_EXTENSION, head_extension, read_head};
pub use key_package::{CheckedKeyPackage, check_key_package};
pub use message::{
    ApplicationFrame, HandshakeFrame, HandshakeKind, parse_application, parse_group_info, parse_handshake, parse_tree,
    parse_welcome,
};
pub use payload::{Payload, PayloadError};
pub use rejoin::refused_by_library;
pub use removal::{
    REMOVAL_DATA_BYTES, RemovalData, RemovalReason, check_removal, is_removal_sender, removal_due, removal_message,
};
pub use report::{REPORT_BYTES, Report, ReportReason, SignedReport};
pub use roster::{Roster, Seat};
pub use start::{Broken, GroupStart, NextStart, check_next_start, check_start, check_start_after, read_next_start};
pub use welcome::check_welcome;
