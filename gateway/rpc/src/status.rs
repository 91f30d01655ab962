//! The one place where refusals become reason codes on the wire.

use lianxin_operations::Refusal;
use lianxin_proto::{ParseError, Problem, ReasonCode};
use tonic::Status;

/// A refusal as the status of a call.
pub(crate) fn to_status(refusal: &Refusal) -> Status {
    to_problem(refusal).to_status()
}

/// A request that does not parse.
pub(crate) fn from_parse_error(error: &ParseError) -> Refusal {
    let problem = Problem::from(*error);
    match problem.code {
        ReasonCode::TooLarge => Refusal::TooLarge { field: error.field(), limit: problem.limit, found: problem.found },
        _ => Refusal::Malformed { field: error.field() },
    }
}

/// A refusal with its details.
pub(crate) fn to_problem(refusal: &Refusal) -> Problem {
    let problem = Problem::new(code(refusal));
    match refusal {
        Refusal::Malformed { field } => problem.with_field(field),
        Refusal::TooLarge { field, limit, found } => problem.with_field(field).with_limit(*limit).with_found(*found),
        Refusal::WrongEpoch { epoch, sequence } => problem.with_epoch(*epoch).with_sequence(*sequence),
        Refusal::PendingRemoves { sequence } => problem.with_sequence(*sequence),
        Refusal::DepartmentNotNamed { department } | Refusal::DepartmentUnknown { department } => {
            problem.with_department(department.clone())
        }
        Refusal::LimitReached { limit } => problem.with_limit(*limit),
        _ => problem,
    }
}

fn code(refusal: &Refusal) -> ReasonCode {
    match refusal {
        Refusal::UpgradeRequired { .. } => ReasonCode::UpgradeRequired,
        Refusal::WrongKind => ReasonCode::WrongKind,
        Refusal::CertificateRevoked => ReasonCode::CertificateRevoked,
        Refusal::CertificateExpired => ReasonCode::CertificateExpired,
        Refusal::Malformed { .. } => ReasonCode::Malformed,
        Refusal::TooLarge { .. } => ReasonCode::TooLarge,
        Refusal::ResourceExhausted => ReasonCode::ResourceExhausted,
        Refusal::ZoneUnavailable => ReasonCode::ZoneUnavailable,
        Refusal::DiskFull => ReasonCode::DiskFull,
        Refusal::ShuttingDown => ReasonCode::ShuttingDown,
        Refusal::Internal => ReasonCode::Internal,
        Refusal::IdReused => ReasonCode::IdReused,
        Refusal::BehindRefused => ReasonCode::BehindRefused,
        Refusal::TrustChanged => ReasonCode::TrustChanged,
        Refusal::TooSlow => ReasonCode::TooSlow,
        Refusal::ChannelNotAvailable => ReasonCode::ChannelNotAvailable,
        Refusal::ChannelExists => ReasonCode::ChannelExists,
        Refusal::ChannelExpired => ReasonCode::ChannelExpired,
        Refusal::NotMember => ReasonCode::NotMember,
        Refusal::WrongEpoch { .. } => ReasonCode::WrongEpoch,
        Refusal::PendingRemoves { .. } => ReasonCode::PendingRemoves,
        Refusal::BadHead => ReasonCode::BadHead,
        Refusal::Duplicate => ReasonCode::Duplicate,
        Refusal::Leaving => ReasonCode::Leaving,
        Refusal::CommitterPaused => ReasonCode::CommitterPaused,
        Refusal::UnknownCommit => ReasonCode::UnknownCommit,
        Refusal::NotOwner => ReasonCode::NotOwner,
        Refusal::InvalidMls => ReasonCode::InvalidMls,
        Refusal::InvalidCommit => ReasonCode::InvalidCommit,
        Refusal::InvalidGroupInfo => ReasonCode::InvalidGroupInfo,
        Refusal::InvalidContext => ReasonCode::InvalidContext,
        Refusal::SenderMismatch => ReasonCode::SenderMismatch,
        Refusal::InvalidCredential => ReasonCode::InvalidCredential,
        Refusal::CredentialExpired => ReasonCode::CredentialExpired,
        Refusal::CredentialRevoked => ReasonCode::CredentialRevoked,
        Refusal::InvalidKeyPackage => ReasonCode::InvalidKeyPackage,
        Refusal::KeyPackageNotClaimed => ReasonCode::KeyPackageNotClaimed,
        Refusal::NoKeyPackage => ReasonCode::NoKeyPackage,
        Refusal::ProposalNotAllowed => ReasonCode::ProposalNotAllowed,
        Refusal::InvalidWelcome => ReasonCode::InvalidWelcome,
        Refusal::DepartmentNotNamed { .. } => ReasonCode::DepartmentNotNamed,
        Refusal::DepartmentUnknown { .. } => ReasonCode::DepartmentUnknown,
        Refusal::ZoneNotHere => ReasonCode::ZoneNotHere,
        Refusal::LimitReached { .. } => ReasonCode::LimitReached,
        Refusal::IssuerAway => ReasonCode::IssuerAway,
        Refusal::RenewalRefused => ReasonCode::RenewalRefused,
        Refusal::UnknownRenewal => ReasonCode::UnknownRenewal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lianxin_types::{Epoch, Sequence};

    fn every_refusal() -> Vec<Refusal> {
        let department = || "jiwei".parse().expect("well formed");
        vec![
            Refusal::UpgradeRequired { found: 0 },
            Refusal::WrongKind,
            Refusal::CertificateRevoked,
            Refusal::CertificateExpired,
            Refusal::Malformed { field: "a" },
            Refusal::TooLarge { field: "a", limit: 1, found: 2 },
            Refusal::ResourceExhausted,
            Refusal::ZoneUnavailable,
            Refusal::DiskFull,
            Refusal::ShuttingDown,
            Refusal::Internal,
            Refusal::IdReused,
            Refusal::BehindRefused,
            Refusal::TrustChanged,
            Refusal::TooSlow,
            Refusal::ChannelNotAvailable,
            Refusal::ChannelExists,
            Refusal::ChannelExpired,
            Refusal::NotMember,
            Refusal::WrongEpoch { epoch: Epoch(1), sequence: Sequence(2) },
            Refusal::PendingRemoves { sequence: Sequence(2) },
            Refusal::BadHead,
            Refusal::Duplicate,
            Refusal::Leaving,
            Refusal::CommitterPaused,
            Refusal::UnknownCommit,
            Refusal::NotOwner,
            Refusal::InvalidMls,
            Refusal::InvalidCommit,
            Refusal::InvalidGroupInfo,
            Refusal::InvalidContext,
            Refusal::SenderMismatch,
            Refusal::InvalidCredential,
            Refusal::CredentialExpired,
            Refusal::CredentialRevoked,
            Refusal::InvalidKeyPackage,
            Refusal::KeyPackageNotClaimed,
            Refusal::NoKeyPackage,
            Refusal::ProposalNotAllowed,
            Refusal::InvalidWelcome,
            Refusal::DepartmentNotNamed { department: department() },
            Refusal::DepartmentUnknown { department: department() },
            Refusal::ZoneNotHere,
            Refusal::LimitReached { limit: 1 },
            Refusal::IssuerAway,
            Refusal::RenewalRefused,
            Refusal::UnknownRenewal,
        ]
    }

    /// The audit record shows the name, the caller the code: they must be the same word, and none may be missing.
    #[test]
    fn names_in_the_audit_are_the_codes_of_the_contract() {
        let mut names = std::collections::BTreeSet::new();
        for refusal in every_refusal() {
            let expect = format!("REASON_CODE_{}", refusal.name());
            assert_eq!(code(&refusal).as_str_name(), expect);
            names.insert(expect);
        }
        let codes: std::collections::BTreeSet<_> =
            lianxin_proto::ROWS.iter().map(|row| row.code.as_str_name().to_owned()).collect();
        assert_eq!(names, codes);
    }

    /// A client that may try a message again must find its order kept. The rest that may be tried again is no answer to a
    /// message.
    #[test]
    fn what_may_be_tried_again_holds_the_channel_back() {
        let no_answers = [Refusal::NoKeyPackage, Refusal::TrustChanged, Refusal::TooSlow, Refusal::IssuerAway];
        for refusal in every_refusal() {
            let try_again = Problem::new(code(&refusal)).try_again && !no_answers.contains(&refusal);
            assert_eq!(refusal.holds_back(), try_again, "{refusal:?}");
        }
    }

    #[test]
    fn details_travel() {
        let problem = to_problem(&Refusal::WrongEpoch { epoch: Epoch(7), sequence: Sequence(9) });
        let back = Problem::from_status(&problem.to_status()).expect("has a detail");
        assert_eq!((back.epoch, back.sequence, back.code), (Epoch(7), Sequence(9), ReasonCode::WrongEpoch));
    }
}
