//! What can go wrong, and what others can do wrong.

use lianxin_keystore::KeystoreError;
use lianxin_profile::{ContextError, PayloadError, ProfileError};
use lianxin_trust::CertificateError;
use lianxin_types::{DecodeError, DeviceUri, Epoch, Incarnation, Sequence};
use thiserror::Error;

/// Why a call failed. The transaction it ran in must be rolled back.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MlsError {
    /// The local state could not be read or written.
    #[error("use the local state")]
    Keystore(#[from] KeystoreError),
    /// What was handed in, or what was made of it, does not keep the profile.
    #[error("keep the profile")]
    Profile(#[from] ProfileError),
    /// A stored record is not of this version's format.
    #[error("read a stored record")]
    Record(#[from] DecodeError),
    /// openmls refused.
    #[error("{action}: {detail}")]
    Library {
        /// What was tried.
        action: &'static str,
        /// openmls' own words; they hold no secrets.
        detail: String,
    },
    /// The message is longer than 64 KiB.
    #[error("message cannot be sent")]
    Payload(#[from] PayloadError),
    /// The device has no group for this channel.
    #[error("not a member of the channel")]
    NotMember,
    /// The device has a group for this channel already.
    #[error("a member of the channel already")]
    AlreadyMember,
    /// A commit that the group had to refuse is in the log; the channel can be read no further.
    #[error("the channel's group is broken")]
    Broken,
    /// The group is in order: there is nothing to come back from.
    #[error("the channel's group is in order")]
    NotBroken,
    /// The device cannot come back by this GroupInfo and tree.
    #[error("way back refused: {fault}")]
    Rejoin {
        /// Why not.
        fault: &'static str,
    },
    /// The GroupInfo is of a group that the log has not told of yet, as happens while others carry the channel on: read it first.
    #[error("the way back leads into a group of which the log has not told yet")]
    Overtaken,
    /// The GroupInfo is of a group or an epoch that is over, as happens while others change the group: ask for it again. One that was
    /// asked for when this device knew that already, and is older all the same, is no honest gateway's.
    #[error("the GroupInfo is of group {} and epoch {}, the log has come to {} and {}", found.0.0, found.1.0, known.0.0, known.1.0)]
    OldGroupInfo {
        /// What the GroupInfo is of.
        found: (Incarnation, Epoch),
        /// The newest group and epoch of which this device knows.
        known: (Incarnation, Epoch),
    },
    /// A removal that the gateway asks for, or a commit, cannot be judged by this device's trust bundle and revocation lists:
    /// they may be behind. Fetch them, then [`crate::Mls::process`] judges for good.
    #[error("the trust bundle may be too old to judge an event")]
    TrustBehind {
        /// The member that is to be removed, or the committer.
        device: DeviceUri,
    },
    /// An own commit waits for the gateway's answer.
    #[error("an own commit is not confirmed yet")]
    CommitPending,
    /// Others wait to leave: commit that first (RFC 9420 section 12.4).
    #[error("proposals must be committed first")]
    ProposalsPending,
    /// A member's certificate is revoked: nothing is encrypted for it. Its removal comes from the gateway and must be committed
    /// first (PROTOCOL 1).
    #[error("a member is revoked and still in the group")]
    MemberRevoked {
        /// Which.
        device: DeviceUri,
    },
    /// The device was invited by its last resort, and has made no keys of its own yet: it commits first (PROTOCOL 5).
    #[error("the own leaf still has the keys of a last resort")]
    LastResortKeys,
    /// The log has something that this device sent and does not know of: its state was put back from an older copy. The keys for its
    /// messages may have been used already, so it commits first and sends with new ones. (Of what is not in the log it learns nothing.)
    #[error("the device's state is an older copy: it makes new keys first")]
    OlderState,
    /// Of what this device has encrypted last nothing is in the log, and it is so much that others might not open what comes next: it
    /// makes new keys first.
    #[error("too many messages in a row are not in the log: the device makes new keys first")]
    TooFarAhead,
    /// The key package that an invitation was made for is not in the local state.
    #[error("the invitation is for a key package that this device does not have")]
    KeyPackageGone,
    /// Others who sat in the group before are still to be seated in the one that this device has started: what is sent before they
    /// are they could never read.
    #[error("members of the group before are to be seated first")]
    SeatsPending,
    /// The device has proposed to leave, and may only wait.
    #[error("the device is leaving the channel")]
    Leaving,
    /// There is nothing to commit.
    #[error("no proposals are pending")]
    NothingPending,
    /// The device named is not a member.
    #[error("a device named is not a member")]
    UnknownDevice {
        /// Which.
        device: DeviceUri,
    },
    /// A member cannot remove itself by a commit; it leaves.
    #[error("a member leaves and does not remove itself")]
    OwnRemoval,
    /// Asked for a device's key package, the gateway answered with another device's: adding it would let somebody in whom
    /// nobody invited.
    #[error("the gateway gave another device's key package: asked for {}, got {}", asked.as_str(), found.as_str())]
    ForeignKeyPackage {
        /// Who is to be invited.
        asked: DeviceUri,
        /// Whose key package came.
        found: DeviceUri,
    },
    /// The gateway answered a claim with too few or too many key packages.
    #[error("the gateway gave {found} key packages for {asked} devices")]
    KeyPackageCount {
        /// Devices asked for.
        asked: usize,
        /// Key packages that came.
        found: usize,
    },
    /// The invitation is not what it says.
    #[error("invitation refused: {fault}")]
    Invitation {
        /// What is wrong with it.
        fault: &'static str,
    },
    /// Another group carries the channel on, in which the device is not seated yet: the log is read no further.
    #[error("the device is not seated in the group that carries the channel on")]
    NotSeated,
    /// Events were left out before this one; read the log from the one expected.
    #[error("event {} came where {} was expected", found.0, expected.0)]
    Gap {
        /// The next sequence of the channel.
        expected: Sequence,
        /// The event's.
        found: Sequence,
    },
}

impl MlsError {
    /// Whether a newer trust bundle may know what this one does not: an authority, or the zone's removal key.
    pub const fn may_be_mended_by_newer_trust(&self) -> bool {
        matches!(self, Self::Profile(error) if is_about_keys(error))
    }
}

/// Whether a newer bundle may know the key that this one does not: an authority's, or the zone's removal key.
pub(crate) const fn is_about_keys(error: &ProfileError) -> bool {
    matches!(
        error,
        ProfileError::Certificate(CertificateError::UnknownAuthority)
            | ProfileError::InvalidContext(ContextError::ExternalSender)
    )
}

impl Violation {
    /// Whether whoever is named for the commit may have done wrong: its content is theirs, and it cannot be followed. Not if this device
    /// cannot follow it for a reason of its own, and not if only the gateway can have done it: an honest one takes no commit that its
    /// sender has not signed, with another head than the log's, or that it cannot read itself.
    pub(crate) const fn is_the_commits_fault(&self) -> bool {
        match self {
            Self::CannotProcess { .. } => true,
            // Who signed, and when that was, are the gateway's words.
            Self::InvalidCommit(error) => {
                !matches!(error, ProfileError::SenderMismatch | ProfileError::CredentialExpired)
            }
            _ => false,
        }
    }
}

impl From<ContextError> for MlsError {
    fn from(error: ContextError) -> Self {
        Self::Profile(error.into())
    }
}

/// Something in the log that an honest gateway and honest members do not do. The event is counted into the chain and
/// hidden; after a commit with a violation the channel is broken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Violation {
    /// The gateway names another sender than the one whose leaf signed.
    #[error("the gateway named another sender than the one who signed")]
    SenderMismatch {
        /// Whom the gateway named.
        named: DeviceUri,
        /// Whose leaf it is.
        found: DeviceUri,
    },
    /// The sender saw another log than this device: a fork, an omission, or a false alarm that the gateway let through.
    #[error("the sender's log differs at {sequence:?}")]
    HeadMismatch {
        /// The position that the sender named.
        sequence: Sequence,
    },
    /// The bytes are not what the kind of the event says.
    #[error("the event's bytes are not of its kind")]
    Malformed,
    /// The message opened, and its content is not of the format.
    #[error("the message's content is malformed")]
    BadPayload,
    /// The message does not open: another epoch, altered bytes, or a sender who repeats itself.
    #[error("the message does not open")]
    Undecryptable,
    /// The gateway says that this device sent something that it never did.
    #[error("this device did not send that")]
    NotSent,
    /// A commit or a start that is signed with this device's key, and that it does not remember: its state is an older copy. It
    /// cannot follow, and that is nobody's fault.
    #[error("this device sent that and does not remember it: its state is an older copy")]
    OlderState,
    /// The commit does not keep the profile; the channel is broken.
    #[error("the commit does not keep the profile")]
    InvalidCommit(#[source] ProfileError),
    /// The commit does not verify against the group; the channel is broken.
    #[error("the commit cannot be processed: {detail}")]
    CannotProcess {
        /// openmls' own words.
        detail: String,
    },
    /// What the gateway gives out as a commit is not what the member named for it has signed. No honest gateway takes that, so the
    /// gateway has altered it; the channel is broken, by nobody who sits in it.
    #[error("the commit is not one that its sender has signed")]
    NotSigned,
    /// A member reports another commit than the one that this device was given at that place: the gateway shows them different logs.
    #[error("a report is about another commit than this device was given at {sequence:?}")]
    OtherCommitReported {
        /// The place.
        sequence: Sequence,
    },
    /// The commit adds a device with a key package that was good when the commit came in and has ended since. The MLS library
    /// holds lifetimes against the system's clock, so this device was away for too long and cannot follow; the commit is nobody's fault.
    #[error("a key package that the commit adds has ended since: this device was away for too long")]
    AwayTooLong,
    /// The gateway asks for the removal of a member against whom nothing is known; it is not committed.
    #[error("the gateway asks for the removal of a member without evidence")]
    UnfoundedRemoval {
        /// The member.
        device: DeviceUri,
    },
    /// A proposal other than a member's to leave, or the gateway's to remove a member.
    #[error("a proposal of a kind that may not stand alone")]
    UnexpectedProposal,
    /// A report that is not signed by the member whom the log names, or not about this group.
    #[error("a report that its sender did not sign")]
    UnsignedReport,
    /// The start of a group that is to carry the channel on, and may not.
    #[error("the start of a group that may not carry the channel on")]
    InvalidStart(#[source] ProfileError),
    /// An event of a kind that has no place there.
    #[error("an event of a kind that has no place there")]
    UnexpectedKind,
    /// An earlier commit broke the channel, so this event cannot be judged.
    #[error("the channel is broken")]
    ChannelBroken,
}
