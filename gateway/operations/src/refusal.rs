//! Every way to say no, by the contract's reason codes. Faces translate; nobody else makes up reasons.

use lianxin_delivery::DeliveryError;
use lianxin_policy::Denial;
use lianxin_profile::ProfileError;
use lianxin_store::{Refused, StoreError};
use lianxin_trust::CertificateError;
use lianxin_types::{DepartmentId, Epoch, Sequence};
use thiserror::Error;

/// Why a caller's request has no effect.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant is the reason code of the same name, documented in problem.proto")]
pub enum Refusal {
    #[error("protocol version {found} is too old")]
    UpgradeRequired { found: u32 },
    #[error("certificates of this kind may not call this service")]
    WrongKind,
    #[error("certificate is revoked")]
    CertificateRevoked,
    #[error("certificate is not valid now")]
    CertificateExpired,
    #[error("{field} is malformed")]
    Malformed { field: &'static str },
    #[error("{field} has {found}, allowed are {limit}")]
    TooLarge { field: &'static str, limit: u64, found: u64 },
    #[error("too much at once")]
    ResourceExhausted,
    #[error("zone cannot write now")]
    ZoneUnavailable,
    #[error("disk is full")]
    DiskFull,
    #[error("gateway is shutting down")]
    ShuttingDown,
    #[error("fault of the gateway")]
    Internal,
    #[error("idempotency id stands for other bytes")]
    IdReused,
    #[error("an earlier message of this channel was refused")]
    BehindRefused,
    #[error("trust bundle or revocation lists were replaced")]
    TrustChanged,
    #[error("client does not take what is sent")]
    TooSlow,
    #[error("channel is not available")]
    ChannelNotAvailable,
    #[error("channel exists")]
    ChannelExists,
    #[error("channel has expired")]
    ChannelExpired,
    #[error("caller is not a member any more")]
    NotMember,
    #[error("epoch {epoch:?} is current")]
    WrongEpoch { epoch: Epoch, sequence: Sequence },
    #[error("proposals wait to be committed")]
    PendingRemoves { sequence: Sequence },
    #[error("head is not the journal's")]
    BadHead,
    #[error("mls bytes were accepted before")]
    Duplicate,
    #[error("caller is leaving")]
    Leaving,
    #[error("a commit of the caller's was reported")]
    CommitterPaused,
    #[error("the log has no such commit")]
    UnknownCommit,
    #[error("caller is not another device of the owner's")]
    NotOwner,
    #[error("not a valid mls message for this call")]
    InvalidMls,
    #[error("commit does not verify")]
    InvalidCommit,
    #[error("group info does not fit")]
    InvalidGroupInfo,
    #[error("group context is not the profile's")]
    InvalidContext,
    #[error("leaf is not the caller's")]
    SenderMismatch,
    #[error("credential does not verify")]
    InvalidCredential,
    #[error("credential is not valid now")]
    CredentialExpired,
    #[error("credential is revoked")]
    CredentialRevoked,
    #[error("key package does not verify")]
    InvalidKeyPackage,
    #[error("key package was not claimed for this channel")]
    KeyPackageNotClaimed,
    #[error("owner has no key package left")]
    NoKeyPackage,
    #[error("proposal is not allowed")]
    ProposalNotAllowed,
    #[error("welcome does not fit")]
    InvalidWelcome,
    #[error("department {department} is not named by the channel")]
    DepartmentNotNamed { department: DepartmentId },
    #[error("department {department} is not in the trust bundle")]
    DepartmentUnknown { department: DepartmentId },
    #[error("zone is not this gateway's")]
    ZoneNotHere,
    #[error("limit of {limit} reached")]
    LimitReached { limit: u64 },
    #[error("no issuer of the department answers")]
    IssuerAway,
    #[error("issuer refused to renew")]
    RenewalRefused,
    #[error("no such renewal waits")]
    UnknownRenewal,
}

impl Refusal {
    /// The reason code's name in the contract, without its prefix.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::UpgradeRequired { .. } => "UPGRADE_REQUIRED",
            Self::WrongKind => "WRONG_KIND",
            Self::CertificateRevoked => "CERTIFICATE_REVOKED",
            Self::CertificateExpired => "CERTIFICATE_EXPIRED",
            Self::Malformed { .. } => "MALFORMED",
            Self::TooLarge { .. } => "TOO_LARGE",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::ZoneUnavailable => "ZONE_UNAVAILABLE",
            Self::DiskFull => "DISK_FULL",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::Internal => "INTERNAL",
            Self::IdReused => "ID_REUSED",
            Self::BehindRefused => "BEHIND_REFUSED",
            Self::TrustChanged => "TRUST_CHANGED",
            Self::TooSlow => "TOO_SLOW",
            Self::ChannelNotAvailable => "CHANNEL_NOT_AVAILABLE",
            Self::ChannelExists => "CHANNEL_EXISTS",
            Self::ChannelExpired => "CHANNEL_EXPIRED",
            Self::NotMember => "NOT_MEMBER",
            Self::WrongEpoch { .. } => "WRONG_EPOCH",
            Self::PendingRemoves { .. } => "PENDING_REMOVES",
            Self::BadHead => "BAD_HEAD",
            Self::Duplicate => "DUPLICATE",
            Self::Leaving => "LEAVING",
            Self::CommitterPaused => "COMMITTER_PAUSED",
            Self::UnknownCommit => "UNKNOWN_COMMIT",
            Self::NotOwner => "NOT_OWNER",
            Self::InvalidMls => "INVALID_MLS",
            Self::InvalidCommit => "INVALID_COMMIT",
            Self::InvalidGroupInfo => "INVALID_GROUP_INFO",
            Self::InvalidContext => "INVALID_CONTEXT",
            Self::SenderMismatch => "SENDER_MISMATCH",
            Self::InvalidCredential => "INVALID_CREDENTIAL",
            Self::CredentialExpired => "CREDENTIAL_EXPIRED",
            Self::CredentialRevoked => "CREDENTIAL_REVOKED",
            Self::InvalidKeyPackage => "INVALID_KEY_PACKAGE",
            Self::KeyPackageNotClaimed => "KEY_PACKAGE_NOT_CLAIMED",
            Self::NoKeyPackage => "NO_KEY_PACKAGE",
            Self::ProposalNotAllowed => "PROPOSAL_NOT_ALLOWED",
            Self::InvalidWelcome => "INVALID_WELCOME",
            Self::DepartmentNotNamed { .. } => "DEPARTMENT_NOT_NAMED",
            Self::DepartmentUnknown { .. } => "DEPARTMENT_UNKNOWN",
            Self::ZoneNotHere => "ZONE_NOT_HERE",
            Self::LimitReached { .. } => "LIMIT_REACHED",
            Self::IssuerAway => "ISSUER_AWAY",
            Self::RenewalRefused => "RENEWAL_REFUSED",
            Self::UnknownRenewal => "UNKNOWN_RENEWAL",
        }
    }

    /// Whether later messages of the channel must wait behind this one (PROTOCOL 6): it may be tried again.
    pub const fn holds_back(&self) -> bool {
        matches!(
            self,
            Self::WrongEpoch { .. }
                | Self::PendingRemoves { .. }
                | Self::ResourceExhausted
                | Self::ZoneUnavailable
                | Self::DiskFull
                | Self::ShuttingDown
                | Self::Internal
                | Self::BehindRefused
        )
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::WrongKind => Self::WrongKind,
            Denial::ChannelNotAvailable => Self::ChannelNotAvailable,
            Denial::NotMember => Self::NotMember,
            Denial::Leaving => Self::Leaving,
            Denial::CommitterPaused => Self::CommitterPaused,
            Denial::NotOwner => Self::NotOwner,
            Denial::ChannelExpired => Self::ChannelExpired,
            Denial::DepartmentNotNamed { department } => Self::DepartmentNotNamed { department },
            Denial::LimitReached { limit, .. } => Self::LimitReached { limit },
        }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::IdReused => Self::IdReused,
            Refused::ChannelExists => Self::ChannelExists,
            Refused::NoChannel => Self::ChannelNotAvailable,
            Refused::WrongEpoch { current, head } => Self::WrongEpoch { epoch: current, sequence: head },
            Refused::ProposalsWait { sequence } => Self::PendingRemoves { sequence },
            Refused::NotMember => Self::NotMember,
            Refused::Leaving => Self::Leaving,
            Refused::NotTogether => Self::Internal,
            Refused::CommitterPaused => Self::CommitterPaused,
            Refused::BadHead => Self::BadHead,
            Refused::Duplicate => Self::Duplicate,
            Refused::NoKeyPackage { .. } => Self::NoKeyPackage,
            // The committer's queue is full: this passes by itself, unlike the limits of the state.
            Refused::LimitReached { what: "queued units" | "queued bytes", .. } => Self::ResourceExhausted,
            Refused::LimitReached { limit, .. } => Self::LimitReached { limit },
            // No caller asks for a bucket to be dropped; what is done on the gateway's own account is tried again.
            Refused::BucketNeeded { .. } => Self::ZoneUnavailable,
            Refused::DiskFull => Self::DiskFull,
            Refused::Unavailable => Self::ZoneUnavailable,
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "zone cannot be read");
        Self::ZoneUnavailable
    }
}

impl From<CertificateError> for Refusal {
    fn from(error: CertificateError) -> Self {
        match error {
            CertificateError::Expired | CertificateError::NotYetValid => Self::CertificateExpired,
            CertificateError::Revoked => Self::CertificateRevoked,
            _ => Self::WrongKind,
        }
    }
}

impl From<ProfileError> for Refusal {
    fn from(error: ProfileError) -> Self {
        match error {
            ProfileError::InvalidMls { .. } => Self::InvalidMls,
            ProfileError::InvalidCommit { .. } => Self::InvalidCommit,
            ProfileError::ProposalNotAllowed { .. } => Self::ProposalNotAllowed,
            ProfileError::InvalidGroupInfo { .. } => Self::InvalidGroupInfo,
            ProfileError::InvalidContext(_) => Self::InvalidContext,
            ProfileError::SenderMismatch | ProfileError::RejoinKey => Self::SenderMismatch,
            ProfileError::InvalidCredential { .. } | ProfileError::Certificate(_) => Self::InvalidCredential,
            ProfileError::CredentialExpired => Self::CredentialExpired,
            ProfileError::CredentialRevoked => Self::CredentialRevoked,
            ProfileError::InvalidKeyPackage { .. } => Self::InvalidKeyPackage,
            ProfileError::DepartmentNotNamed { department } => Self::DepartmentNotNamed { department },
            ProfileError::InvalidWelcome { .. } => Self::InvalidWelcome,
            ProfileError::LimitReached { limit, .. } => Self::LimitReached { limit: limit as u64 },
        }
    }
}

impl From<DeliveryError> for Refusal {
    fn from(error: DeliveryError) -> Self {
        match error {
            DeliveryError::Profile(error) => error.into(),
            DeliveryError::Store(error) => error.into(),
            DeliveryError::NoChannel => Self::ChannelNotAvailable,
            DeliveryError::WrongEpoch { current, head } => Self::WrongEpoch { epoch: current, sequence: head },
            DeliveryError::PendingRemoves { sequence } => Self::PendingRemoves { sequence },
            DeliveryError::BadHead => Self::BadHead,
            DeliveryError::SenderMismatch => Self::SenderMismatch,
            DeliveryError::OtherChannel => Self::InvalidMls,
            DeliveryError::UnknownCommit => Self::UnknownCommit,
            DeliveryError::SeatsPending => Self::NotMember,
            DeliveryError::KeyPackageNotClaimed => Self::KeyPackageNotClaimed,
            DeliveryError::ZoneNotHere => Self::ZoneNotHere,
            DeliveryError::DepartmentUnknown { department } => Self::DepartmentUnknown { department },
            DeliveryError::Group { .. } => Self::Internal,
        }
    }
}
