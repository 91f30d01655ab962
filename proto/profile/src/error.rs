//! Why something does not keep the profile: one variant for each reason code of the contract that this room can give.

use lianxin_trust::CertificateError;
use lianxin_types::DepartmentId;
use thiserror::Error;

use crate::ContextError;

/// A rule of the profile that does not hold. The comment of each variant names the reason code it is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProfileError {
    /// `INVALID_MLS`: not an MLS message of the kind that belongs here, too long, or bytes are left over.
    #[error("not a valid {what}")]
    InvalidMls {
        /// What was expected.
        what: &'static str,
    },
    /// `INVALID_COMMIT`: the commit does not verify, or makes a group that may not be.
    #[error("commit refused: {fault}")]
    InvalidCommit {
        /// What is wrong with it.
        fault: &'static str,
    },
    /// `SENDER_MISMATCH`: a device comes back with another key than its leaf has. Who lost its key is seated by a member.
    #[error("a device comes back with the key that its leaf has")]
    RejoinKey,
    /// `PROPOSAL_NOT_ALLOWED`: a proposal of a kind, or from a sender, that the profile does not allow.
    #[error("proposal not allowed: {proposal}")]
    ProposalNotAllowed {
        /// Which kind, and from whom where that is the fault.
        proposal: &'static str,
    },
    /// `INVALID_GROUP_INFO`: it does not belong to the commit, or lacks or has an extension.
    #[error("group info refused: {fault}")]
    InvalidGroupInfo {
        /// What is wrong with it.
        fault: &'static str,
    },
    /// `INVALID_CONTEXT`: the group context is not as the profile demands.
    #[error("group context refused")]
    InvalidContext(#[from] ContextError),
    /// `SENDER_MISMATCH`: the leaf that signed is not the one that should have.
    #[error("the leaf that signed is not the sender's")]
    SenderMismatch,
    /// `INVALID_CREDENTIAL`: a credential does not verify, or is of another kind or key than its leaf.
    #[error("credential refused: {fault}")]
    InvalidCredential {
        /// What is wrong with it.
        fault: &'static str,
    },
    /// `INVALID_CREDENTIAL`: the certificate chain does not verify.
    #[error("certificate refused")]
    Certificate(#[source] CertificateError),
    /// `CREDENTIAL_EXPIRED`: the certificate is not valid at the time in question.
    #[error("the certificate is not valid at this time")]
    CredentialExpired,
    /// `CREDENTIAL_REVOKED`: the certificate is revoked.
    #[error("the certificate is revoked")]
    CredentialRevoked,
    /// `INVALID_KEY_PACKAGE`: malformed, expired, valid for too long, or of another suite.
    #[error("key package refused: {fault}")]
    InvalidKeyPackage {
        /// What is wrong with it.
        fault: &'static str,
    },
    /// `DEPARTMENT_NOT_NAMED`: a member belongs to a department that the channel does not name.
    #[error("department {department} is not named in the channel")]
    DepartmentNotNamed {
        /// The member's department.
        department: DepartmentId,
    },
    /// `INVALID_WELCOME`: a Welcome is missing, there for nobody, or for others than were added.
    #[error("welcome refused: {fault}")]
    InvalidWelcome {
        /// What is wrong with it.
        fault: &'static str,
    },
    /// `LIMIT_REACHED`: more than the protocol's limits allow (PROTOCOL 12).
    #[error("{found} {what}, allowed are {limit}")]
    LimitReached {
        /// What is counted.
        what: &'static str,
        /// The largest number allowed.
        limit: usize,
        /// The number found.
        found: usize,
    },
}
