//! Fields of wire messages, parsed where they enter into types that cannot be wrong.

use bytes::Bytes;
use lianxin_types::{ChannelId, DeviceUri, Digest, IdempotencyId, Sequence, Timestamp};
use thiserror::Error;

use crate::{Problem, ReasonCode};

/// Why a wire message is not what the contract says. Becomes a [`Problem`] with MALFORMED or TOO_LARGE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ParseError {
    /// A field that must be there is absent or empty.
    #[error("{field} is missing")]
    Missing {
        /// Its name in the contract.
        field: &'static str,
    },
    /// A field has another length, form or order than the contract says.
    #[error("{field} is malformed")]
    Malformed {
        /// Its name in the contract.
        field: &'static str,
    },
    /// A field has more bytes or items than its limit.
    #[error("{field} has {found}, at most {limit} are allowed")]
    TooLarge {
        /// Its name in the contract.
        field: &'static str,
        /// The bound, in bytes or items.
        limit: u64,
        /// What was found, in the same unit.
        found: u64,
    },
}

impl ParseError {
    /// The field at fault, by its name in the contract.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Missing { field } | Self::Malformed { field } | Self::TooLarge { field, .. } => field,
        }
    }
}

impl From<ParseError> for Problem {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::Missing { field } | ParseError::Malformed { field } => {
                Self::new(ReasonCode::Malformed).with_field(field)
            }
            ParseError::TooLarge { field, limit, found } => {
                Self::new(ReasonCode::TooLarge).with_field(field).with_limit(limit).with_found(found)
            }
        }
    }
}

impl From<ParseError> for tonic::Status {
    fn from(error: ParseError) -> Self {
        Problem::from(error).into()
    }
}

pub(crate) fn channel_id(bytes: &[u8]) -> Result<ChannelId, ParseError> {
    exact("channel_id", bytes)
}

pub(crate) fn idempotency_id(bytes: &[u8]) -> Result<IdempotencyId, ParseError> {
    exact("idempotency_id", bytes)
}

pub(crate) fn digest(field: &'static str, bytes: &[u8]) -> Result<Digest, ParseError> {
    exact(field, bytes)
}

pub(crate) fn exact<'a, T: TryFrom<&'a [u8]>>(field: &'static str, bytes: &'a [u8]) -> Result<T, ParseError> {
    if bytes.is_empty() {
        return Err(ParseError::Missing { field });
    }
    T::try_from(bytes).map_err(|_| ParseError::Malformed { field })
}

pub(crate) fn uri(field: &'static str, text: &str) -> Result<DeviceUri, ParseError> {
    if text.is_empty() {
        return Err(ParseError::Missing { field });
    }
    text.parse().map_err(|_| ParseError::Malformed { field })
}

/// A position that names an event, so not 0.
pub(crate) fn position(field: &'static str, value: u64) -> Result<Sequence, ParseError> {
    if value == 0 { Err(ParseError::Missing { field }) } else { Ok(Sequence(value)) }
}

/// A moment that must be there.
pub(crate) fn time(field: &'static str, microseconds: u64) -> Result<Timestamp, ParseError> {
    if microseconds == 0 { Err(ParseError::Missing { field }) } else { Ok(Timestamp(microseconds)) }
}

/// A moment where 0 stands for none.
pub(crate) const fn end(microseconds: u64) -> Option<Timestamp> {
    if microseconds == 0 { None } else { Some(Timestamp(microseconds)) }
}

pub(crate) fn end_to_wire(end: Option<Timestamp>) -> u64 {
    end.map_or(0, |end| end.0)
}

/// 1 to `bytes_max` bytes.
pub(crate) fn blob(field: &'static str, bytes: Bytes, bytes_max: usize) -> Result<Bytes, ParseError> {
    if bytes.is_empty() {
        return Err(ParseError::Missing { field });
    }
    at_most(field, bytes.len(), bytes_max)?;
    Ok(bytes)
}

/// Empty stands for none.
pub(crate) fn optional(bytes: Bytes) -> Option<Bytes> {
    (!bytes.is_empty()).then_some(bytes)
}

pub(crate) const fn at_most(field: &'static str, found: usize, limit: usize) -> Result<(), ParseError> {
    if found > limit {
        return Err(ParseError::TooLarge { field, limit: limit as u64, found: found as u64 });
    }
    Ok(())
}

pub(crate) fn present<T>(field: &'static str, value: Option<T>) -> Result<T, ParseError> {
    value.ok_or(ParseError::Missing { field })
}

pub(crate) fn wire<const N: usize>(id: [u8; N]) -> Bytes {
    Bytes::copy_from_slice(&id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_another_length_are_refused() {
        assert_eq!(channel_id(&[]), Err(ParseError::Missing { field: "channel_id" }));
        assert_eq!(channel_id(&[1; 15]), Err(ParseError::Malformed { field: "channel_id" }));
        assert_eq!(channel_id(&[1; 17]), Err(ParseError::Malformed { field: "channel_id" }));
        assert_eq!(channel_id(&[1; 16]), Ok(ChannelId([1; 16])));
        assert_eq!(digest("leaf_hash", &[1; 31]), Err(ParseError::Malformed { field: "leaf_hash" }));
        assert_eq!(uri("sender_uri", "lianxin://a"), Err(ParseError::Malformed { field: "sender_uri" }));
        assert_eq!(uri("sender_uri", ""), Err(ParseError::Missing { field: "sender_uri" }));
    }

    #[test]
    fn a_blob_stands_at_its_limit_and_not_one_over() {
        let blob = |length| blob("commit", Bytes::from(vec![0; length]), 4).map(|bytes| bytes.len());
        assert_eq!(blob(0), Err(ParseError::Missing { field: "commit" }));
        assert_eq!(blob(5), Err(ParseError::TooLarge { field: "commit", limit: 4, found: 5 }));
        assert_eq!(blob(4), Ok(4));
    }

    #[test]
    fn an_error_becomes_the_problem_that_names_the_field() {
        let problem = Problem::from(ParseError::TooLarge { field: "commit", limit: 4, found: 5 });
        assert_eq!((problem.code, problem.limit, problem.found), (ReasonCode::TooLarge, 4, 5));
        assert_eq!(problem.field, "commit");
        let status = tonic::Status::from(ParseError::Missing { field: "receipt" });
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        let problem = Problem::from_status(&status).expect("our own status");
        assert_eq!((problem.code, problem.field.as_ref()), (ReasonCode::Malformed, "receipt"));
    }
}
