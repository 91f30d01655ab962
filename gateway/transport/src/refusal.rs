//! Why a connection was not let in, in words that an audit record can count by.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use lianxin_trust::CertificateError;

/// Told of every refusal, once each. Called on the runtime's threads: it must not block.
pub type RefusalObserver = Arc<dyn Fn(HandshakeRefusal) + Send + Sync>;

/// One connection that was not let in, or was ended. Operations counts these per source, reason and minute (PROTOCOL 8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeRefusal {
    /// Where it came from.
    pub source: IpAddr,
    /// Why it was refused.
    pub reason: RefusalReason,
}

/// Why a connection was refused before a caller was known, or right after, or was ended later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// The client showed no certificate (alert `certificate_required`).
    NoCertificate,
    /// The client showed a certificate that the federation does not accept for TLS; the alert tells which way.
    Certificate(CertificateError),
    /// The client cannot prove that it holds the certificate's key.
    KeyNotProven,
    /// The client does not speak TLS 1.3, or nothing in common with us, or no TLS at all.
    Protocol,
    /// The client did not ask for `h2`.
    NotHttp2,
    /// The client refused the gateway's certificate: its trust bundle is another one, or this is not its gateway.
    RefusedByClient,
    /// The client went away in the middle of the handshake.
    Disconnected,
    /// The handshake was not done in time.
    Timeout,
    /// The gateway holds as many connections as it may.
    ConnectionsFull,
    /// The device holds as many connections as it may (`device_connections_max`).
    DeviceConnectionsFull,
    /// The devices of the department together hold as many connections as they may.
    DepartmentConnectionsFull,
    /// The source opens connections faster than it may, or has too many handshakes open.
    SourceFlood,
    /// The gateway has more to do than it can: new connections wait.
    Overloaded,
    /// The client gave up call after call before their answers.
    ResetFlood,
    /// Nothing was asked for a long time; told to nobody, for it is no fault.
    Idle,
    /// The connection has come to its age; told to nobody, for it is no fault.
    Old,
}

impl RefusalReason {
    /// Every word that [`RefusalReason::code`] gives for what an observer is told of: all but `idle` and `old`.
    pub const CODES: &[&str] = &[
        "no_certificate",
        "certificate_malformed",
        "certificate_no_identity",
        "certificate_unknown_authority",
        "certificate_other_department",
        "certificate_wrong_usage",
        "certificate_wrong_kind",
        "certificate_expired",
        "certificate_not_yet_valid",
        "certificate_revoked",
        "key_not_proven",
        "protocol",
        "not_http2",
        "refused_by_client",
        "disconnected",
        "timeout",
        "connections_full",
        "device_connections_full",
        "department_connections_full",
        "source_flood",
        "overloaded",
        "reset_flood",
    ];

    /// A stable word for the audit record and for metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::Certificate(error) => certificate_code(error),
            Self::KeyNotProven => "key_not_proven",
            Self::Protocol => "protocol",
            Self::NotHttp2 => "not_http2",
            Self::RefusedByClient => "refused_by_client",
            Self::Disconnected => "disconnected",
            Self::Timeout => "timeout",
            Self::ConnectionsFull => "connections_full",
            Self::DeviceConnectionsFull => "device_connections_full",
            Self::DepartmentConnectionsFull => "department_connections_full",
            Self::SourceFlood => "source_flood",
            Self::Overloaded => "overloaded",
            Self::ResetFlood => "reset_flood",
            Self::Idle => "idle",
            Self::Old => "old",
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

const fn certificate_code(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Malformed => "certificate_malformed",
        CertificateError::NoIdentity => "certificate_no_identity",
        CertificateError::UnknownAuthority => "certificate_unknown_authority",
        CertificateError::OtherDepartment { .. } => "certificate_other_department",
        CertificateError::WrongUsage => "certificate_wrong_usage",
        CertificateError::WrongKind => "certificate_wrong_kind",
        CertificateError::Expired => "certificate_expired",
        CertificateError::NotYetValid => "certificate_not_yet_valid",
        CertificateError::Revoked => "certificate_revoked",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_word_in_the_list() {
        use CertificateError as C;
        use RefusalReason as R;
        let department = || "jiwei".parse().expect("well formed");
        let certificates = [
            C::Malformed,
            C::NoIdentity,
            C::UnknownAuthority,
            C::OtherDepartment { named: department(), issued_by: department() },
            C::WrongUsage,
            C::WrongKind,
            C::Expired,
            C::NotYetValid,
            C::Revoked,
        ];
        let others = [
            R::KeyNotProven,
            R::Protocol,
            R::NotHttp2,
            R::RefusedByClient,
            R::Disconnected,
            R::Timeout,
            R::ConnectionsFull,
            R::DeviceConnectionsFull,
            R::DepartmentConnectionsFull,
            R::SourceFlood,
            R::Overloaded,
            R::ResetFlood,
        ];
        let all = [R::NoCertificate].into_iter().chain(certificates.map(R::Certificate)).chain(others);
        assert_eq!(all.map(|reason| reason.code()).collect::<Vec<_>>(), R::CODES);
    }
}
