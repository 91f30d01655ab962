//! What is asked, and how a no looks.

use lianxin_types::{ChannelId, DepartmentId, DeviceUri, Timestamp};
use thiserror::Error;

/// Everything that a decision may depend on. The guard gathers it; the engine looks nowhere else.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Who asks.
    pub caller: &'a DeviceUri,
    /// When.
    pub now: Timestamp,
    /// The channel, for actions in one.
    pub channel: Option<ChannelFacts<'a>>,
    /// Departments of devices that the action would add or reach.
    pub departments_added: &'a [DepartmentId],
    /// Members that the channel would have afterwards; 0 if the action changes none.
    pub members_after: usize,
    /// Devices that the action adds or claims for.
    pub devices_added: usize,
}

/// What is known about a channel.
#[derive(Debug, Clone, Copy)]
pub struct ChannelFacts<'a> {
    /// The channel.
    pub id: ChannelId,
    /// Departments that its group context names.
    pub departments: &'a [DepartmentId],
    /// End of its label.
    pub expires: Option<Timestamp>,
    /// Whether the caller owns a leaf of the current epoch.
    pub is_member: bool,
    /// Whether it sat in the group before this one and is to be seated again.
    pub is_awaited: bool,
    /// Whether the caller or its department ever had to do with it.
    pub is_known: bool,
    /// Whether the caller asked to leave, or is to be removed.
    pub is_leaving: bool,
    /// Whether a commit of the caller's was reported and its owner has not allowed it to commit again.
    pub is_paused: bool,
    /// Whether the caller itself is or was in it.
    pub was_member: bool,
}

/// A no, with what the caller may learn of the reason.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Denial {
    /// Only applications and persons' devices may do this.
    #[error("this kind of identity may not call")]
    WrongKind,
    /// Not there, or not for the caller.
    #[error("channel is not available")]
    ChannelNotAvailable,
    /// The caller's leaf is gone.
    #[error("caller is not a member any more")]
    NotMember,
    /// The caller asked to leave.
    #[error("caller is leaving")]
    Leaving,
    /// A commit of the caller's was reported.
    #[error("a commit of the caller's was reported")]
    CommitterPaused,
    /// The caller is not another device of the owner's department.
    #[error("caller is not another device of the owner's department in the channel")]
    NotOwner,
    /// The channel's label has ended.
    #[error("channel has expired")]
    ChannelExpired,
    /// The channel does not name this department.
    #[error("department {department} is not named by the channel")]
    DepartmentNotNamed {
        /// Which.
        department: DepartmentId,
    },
    /// A bound is reached.
    #[error("limit of {limit} {what} reached")]
    LimitReached {
        /// What is counted.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
}
