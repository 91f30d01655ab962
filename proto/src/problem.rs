//! Why a call was refused, as a value, as a `tonic::Status` and as bytes inside streams (PROTOCOL 7).

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use lianxin_types::{DepartmentId, Epoch, Sequence};
use prost::Message;
use prost_types::Any;
use tonic::Status;

use crate::reasons::{ReasonCode, ReasonRow};
use crate::types::v1;

/// A refusal. Fields that its reason does not use are 0, empty or `None`; the reason's row says which it uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Why.
    pub code: ReasonCode,
    /// Whether the same request may succeed later without a change by the application.
    pub try_again: bool,
    /// The channel's current epoch; with WRONG_EPOCH.
    pub epoch: Epoch,
    /// A sequence number to read up to; with WRONG_EPOCH and PENDING_REMOVES.
    pub sequence: Sequence,
    /// The bound that was exceeded; with TOO_LARGE and LIMIT_REACHED.
    pub limit: u64,
    /// What was found instead; with TOO_LARGE.
    pub found: u64,
    /// The field at fault by its name in the contract, at most 64 bytes; with MALFORMED and TOO_LARGE.
    pub field: Cow<'static, str>,
    /// The department concerned; with DEPARTMENT_NOT_NAMED and DEPARTMENT_UNKNOWN to those who may know.
    pub department: Option<DepartmentId>,
}

impl Problem {
    /// A refusal for `code` without particulars; `try_again` is from the code's row.
    pub fn new(code: ReasonCode) -> Self {
        Self {
            code,
            try_again: ReasonRow::of(code).is_some_and(|row| row.try_again),
            epoch: Epoch(0),
            sequence: Sequence(0),
            limit: 0,
            found: 0,
            field: Cow::Borrowed(""),
            department: None,
        }
    }

    /// With the channel's current epoch.
    #[must_use]
    pub fn with_epoch(self, epoch: Epoch) -> Self {
        Self { epoch, ..self }
    }

    /// With a sequence to read up to.
    #[must_use]
    pub fn with_sequence(self, sequence: Sequence) -> Self {
        Self { sequence, ..self }
    }

    /// With the bound that was exceeded.
    #[must_use]
    pub fn with_limit(self, limit: u64) -> Self {
        Self { limit, ..self }
    }

    /// With what was found instead.
    #[must_use]
    pub fn with_found(self, found: u64) -> Self {
        Self { found, ..self }
    }

    /// With the field at fault.
    #[must_use]
    pub fn with_field(self, field: &'static str) -> Self {
        Self { field: Cow::Borrowed(field), ..self }
    }

    /// With the department concerned. Only for callers who may know.
    #[must_use]
    pub fn with_department(self, department: DepartmentId) -> Self {
        Self { department: Some(department), ..self }
    }

    /// The refusal as the status of a call: gRPC code and text by reason, particulars in the details.
    pub fn to_status(&self) -> Status {
        let (code, message) = self.code_and_message();
        Status::with_details(code, message, self.to_bytes())
    }

    /// The refusal in a status; `None` if the status has no [`v1::Problem`] among its details, as for a connection that
    /// broke.
    pub fn from_status(status: &Status) -> Option<Self> {
        Self::from_bytes(status.details())
    }

    /// The refusal inside a stream: an encoded `google.rpc.Status` whose first detail is a [`v1::Problem`].
    pub fn to_bytes(&self) -> Bytes {
        let (code, message) = self.code_and_message();
        let detail = Any { type_url: TYPE_URL.to_owned(), value: v1::Problem::from(self).encode_to_vec() };
        RpcStatus { code: code as i32, message: message.to_owned(), details: vec![detail] }.encode_to_vec().into()
    }

    /// Reads what [`Problem::to_bytes`] wrote; `None` if it is something else. A code that this build does not know
    /// becomes `ReasonCode::Unspecified` with the sender's `try_again`.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let status = RpcStatus::decode(bytes).ok()?;
        let detail = status.details.into_iter().find(|detail| detail.type_url == TYPE_URL)?;
        Some(v1::Problem::decode(detail.value.as_slice()).ok()?.into())
    }

    fn code_and_message(&self) -> (tonic::Code, &'static str) {
        ReasonRow::of(self.code).map_or((tonic::Code::Unknown, "refused"), |row| (row.grpc, row.meaning))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code_and_message().1)?;
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        match (self.limit, self.found) {
            (0, _) => Ok(()),
            (limit, 0) => write!(f, " (limit {limit})"),
            (limit, found) => write!(f, " (limit {limit}, found {found})"),
        }
    }
}

impl std::error::Error for Problem {}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        problem.to_status()
    }
}

impl From<ReasonCode> for Problem {
    fn from(code: ReasonCode) -> Self {
        Self::new(code)
    }
}

impl From<&Problem> for v1::Problem {
    fn from(problem: &Problem) -> Self {
        Self {
            code: problem.code.into(),
            try_again: problem.try_again,
            epoch: problem.epoch.0,
            sequence: problem.sequence.0,
            limit: problem.limit,
            found: problem.found,
            field: problem.field.clone().into_owned(),
            department: problem.department.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }
}

impl From<v1::Problem> for Problem {
    /// Takes what it can: a refusal stays one even if a particular of it is not understood.
    fn from(wire: v1::Problem) -> Self {
        let code = wire.code();
        let field = if wire.field.len() <= FIELD_BYTES_MAX { wire.field } else { String::new() };
        Self {
            code,
            try_again: wire.try_again,
            epoch: Epoch(wire.epoch),
            sequence: Sequence(wire.sequence),
            limit: wire.limit,
            found: wire.found,
            field: Cow::Owned(field),
            department: wire.department.parse().ok(),
        }
    }
}

/// `google.rpc.Status`, which every gRPC language has; written out here because its crate brings far more.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

const TYPE_URL: &str = "type.googleapis.com/lianxin.types.v1.Problem";
const FIELD_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong_epoch() -> Problem {
        Problem::new(ReasonCode::WrongEpoch).with_epoch(Epoch(5)).with_sequence(Sequence(42))
    }

    #[test]
    fn other_bytes_are_not_a_problem() {
        assert_eq!(Problem::from_bytes(b"\xff\xff"), None);
        assert_eq!(Problem::from_bytes(b""), None);
        assert_eq!(Problem::from_status(&Status::unavailable("connection refused")), None);
        let other = Any { type_url: "type.googleapis.com/other".into(), value: vec![8, 24] };
        let status = RpcStatus { code: 10, message: String::new(), details: vec![other] };
        assert_eq!(Problem::from_bytes(&status.encode_to_vec()), None);
        for cut in 1..wrong_epoch().to_bytes().len() {
            assert_ne!(Problem::from_bytes(&wrong_epoch().to_bytes()[..cut]), Some(wrong_epoch()), "cut at {cut}");
        }
    }

    #[test]
    fn golden() {
        // Encoded by hand, tag by tag, in Python.
        let expect: &[u8] = b"\x08\x0a\x12\x2dmessage or commit is not of the current epoch\
            \x1a\x38\x0a\x2ctype.googleapis.com/lianxin.types.v1.Problem\x12\x08\x08\x18\x10\x01\x18\x05\x20\x2a";
        assert_eq!(wrong_epoch().to_bytes(), expect);
        assert_eq!(Problem::from_bytes(expect), Some(wrong_epoch()));
    }

    #[test]
    fn every_reason_survives_a_status_with_its_grpc_code() {
        for row in crate::ROWS {
            let problem = Problem::new(row.code)
                .with_limit(3)
                .with_found(4)
                .with_field("commit")
                .with_department("shenji".parse().expect("well formed"));
            let status = problem.to_status();
            assert_eq!((status.code(), status.message()), (row.grpc, row.meaning));
            assert_eq!(problem.try_again, row.try_again);
            assert_eq!(Problem::from_status(&status), Some(problem));
        }
    }

    #[test]
    fn a_code_from_a_newer_gateway_is_still_a_refusal() {
        let wire = v1::Problem { code: 9_999, try_again: true, department: "Not A Name".into(), ..Default::default() };
        let problem = Problem::from(wire);
        assert_eq!((problem.code, problem.try_again, problem.department), (ReasonCode::Unspecified, true, None));
    }

    #[test]
    fn the_text_names_field_and_limit() {
        let problem = Problem::new(ReasonCode::TooLarge).with_field("commit").with_limit(3).with_found(4);
        assert_eq!(problem.to_string(), "a size or a count is over its limit: commit (limit 3, found 4)");
        assert_eq!(Problem::new(ReasonCode::Leaving).to_string(), "caller's leaf is to be removed");
    }
}
