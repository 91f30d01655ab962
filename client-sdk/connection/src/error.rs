//! Why a connection or a call failed, told apart by what the caller may conclude.

use lianxin_proto::{ParseError, Problem};
use lianxin_trust::CertificateError;
use lianxin_types::{DepartmentId, ZoneId};
use thiserror::Error;

/// Why there is no connection. No call has reached the gateway.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Name, address or port do not answer, or the connection broke before the gateway said anything.
    #[error("reach the gateway")]
    Unreachable(#[source] std::io::Error),
    /// No answer within the time allowed.
    #[error("reach the gateway in time")]
    TimedOut,
    /// The gateway refused our certificate or protocol, with a TLS alert.
    #[error("the gateway refused the connection: {reason}")]
    Refused {
        /// What the alert says.
        reason: RefusedReason,
    },
    /// The other end is not a gateway of the zone's operator.
    #[error("the other end is not the zone's gateway")]
    GatewayNotTrusted(#[source] GatewayFault),
    /// The gateway does not speak our version of the protocol any more.
    #[error("the gateway wants a newer version of this software")]
    UpgradeRequired,
    /// The gateway serves another zone.
    #[error("the gateway serves zone {found}, expected {expected}")]
    OtherZone {
        /// The zone asked for.
        expected: ZoneId,
        /// The zone it serves.
        found: ZoneId,
    },
    /// The first call failed.
    #[error("exchange versions with the gateway")]
    Hello(#[source] CallError),
    /// Our certificate and key do not fit together, or the endpoint's name is none.
    #[error("prepare the TLS connection")]
    Settings(#[source] rustls::Error),
}

/// What the gateway's TLS alert says about us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RefusedReason {
    /// We showed no certificate.
    #[error("a certificate is required")]
    CertificateRequired,
    /// No authority of the federation has issued our certificate.
    #[error("the certificate's authority is unknown")]
    UnknownAuthority,
    /// Our certificate is not valid now.
    #[error("the certificate has expired or is not valid yet")]
    Expired,
    /// Our certificate is revoked.
    #[error("the certificate is revoked")]
    Revoked,
    /// Our certificate names another department than the one that issued it.
    #[error("the certificate names another department")]
    AccessDenied,
    /// Our certificate is for another use or kind, or cannot be read.
    #[error("the certificate is for another use")]
    UnsupportedCertificate,
    /// No common protocol version.
    #[error("no common protocol version")]
    ProtocolVersion,
    /// Another alert, by its number in RFC 8446 section 6.
    #[error("alert {0}")]
    Other(u8),
}

/// Why a gateway's certificate does not convince.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GatewayFault {
    /// The federation does not know it as a gateway's.
    #[error("check the gateway's certificate")]
    Certificate(#[from] CertificateError),
    /// It is a gateway of a department that does not operate the zone.
    #[error("the gateway belongs to {found}, the zone is operated by {expected}")]
    OtherOperator {
        /// The zone's operator.
        expected: DepartmentId,
        /// The department that the certificate names.
        found: DepartmentId,
    },
    /// It does not prove that it holds its certificate's key, or breaks TLS 1.3 otherwise.
    #[error("complete the TLS 1.3 handshake")]
    Handshake,
}

/// Why a call has no answer to use. The variants are what exactly-once rests on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    /// The gateway says no: nothing was accepted under this request's id.
    #[error("the gateway refused: {0}")]
    Refused(Problem),
    /// The connection broke, or no answer came in time: the gateway may have accepted. Ask again with the same id and
    /// the same bytes.
    #[error("the outcome is unknown: {detail}")]
    Unknown {
        /// What broke, for a log; never content.
        detail: String,
    },
    /// The gateway answered something that the contract does not allow. The outcome is as unknown as above, but asking
    /// again will hardly help.
    #[error("understand the gateway's answer")]
    BadAnswer(#[from] ParseError),
}

impl CallError {
    /// The refusal, if it is one.
    pub const fn refusal(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }
}

impl From<tonic::Status> for CallError {
    /// A status with a [`Problem`] is the gateway's own word. Any other is made by something on the way.
    fn from(status: tonic::Status) -> Self {
        Problem::from_status(&status).map_or_else(
            || Self::Unknown { detail: format!("{:?}: {}", status.code(), status.message()) },
            Self::Refused,
        )
    }
}
