//! Why something cannot be delivered.

use lianxin_profile::ProfileError;
use lianxin_store::StoreError;
use lianxin_types::{DepartmentId, Epoch, Sequence};
use thiserror::Error;

/// Why an effect cannot be prepared. Nothing was changed.
#[derive(Debug, Error)]
pub enum DeliveryError {
    /// The bytes break RFC 9420 or our profile of it.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The zone cannot be read.
    #[error("zone cannot be read")]
    Store(#[from] StoreError),
    /// There is no such channel.
    #[error("no such channel")]
    NoChannel,
    /// The bytes are of another epoch than the current one.
    #[error("epoch {current:?} is current")]
    WrongEpoch {
        /// The current epoch.
        current: Epoch,
        /// The channel's last sequence.
        head: Sequence,
    },
    /// Proposals wait and the commit leaves them out.
    #[error("proposals up to {sequence:?} wait")]
    PendingRemoves {
        /// The one to read up to.
        sequence: Sequence,
    },
    /// The head in the authenticated data is not in the journal.
    #[error("head is not in the journal")]
    BadHead,
    /// The leaf that signed is not the caller's.
    #[error("leaf is not the caller's")]
    SenderMismatch,
    /// The bytes belong to another channel than the call names.
    #[error("bytes of another channel")]
    OtherChannel,
    /// The log has no such commit, or the caller was not there before it.
    #[error("the log has no such commit")]
    UnknownCommit,
    /// Another group carries the channel on, and its creator has time yet to seat the caller.
    #[error("seats in the next group are pending")]
    SeatsPending,
    /// A one-time key package was not claimed for this channel, or a last resort is not its owner's newest.
    #[error("key package was not claimed for this channel")]
    KeyPackageNotClaimed,
    /// The channel's zone is another.
    #[error("zone is not this gateway's")]
    ZoneNotHere,
    /// A department named by the channel is not in the trust bundle.
    #[error("department {department} is not in the trust bundle")]
    DepartmentUnknown {
        /// Which.
        department: DepartmentId,
    },
    /// The stored view of a group cannot be used: a fault of the gateway.
    #[error("public group: {fault}")]
    Group {
        /// What is wrong with it.
        fault: &'static str,
    },
}
