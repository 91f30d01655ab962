//! Certificates on the wire: requests and responses of `lianxin.certificates.v1` as typed values.

use bytes::Bytes;
use lianxin_types::{Digest, IdempotencyId};

use crate::fields::{self, ParseError};
use crate::receipt::{self, Receipt};

/// Generated from `api/lianxin/certificates/v1/`.
#[expect(
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated; the .proto files are documented"
)]
pub mod v1 {
    tonic::include_proto!("lianxin.certificates.v1");
}

/// Longest certification request, and longest certificate, in bytes.
pub const RENEWAL_PART_BYTES_MAX: usize = 8 * 1024;
/// Most renewals in one answer to an issuer.
pub const PENDING_RENEWALS_MAX: usize = 16;

pub use v1::RenewalRefusal;

/// What a device asks for; what is signed stands in `proto/README.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renew {
    /// Names the request.
    pub id: IdempotencyId,
    /// PKCS#10 in DER for the new TLS key.
    pub tls_request: Bytes,
    /// The MLS certificate of now, DER.
    pub mls_certificate: Bytes,
    /// Ed25519 signature of the MLS key.
    pub signature: [u8; 64],
}

impl TryFrom<v1::RenewRequest> for Renew {
    type Error = ParseError;

    fn try_from(wire: v1::RenewRequest) -> Result<Self, ParseError> {
        Ok(Self {
            id: fields::idempotency_id(&wire.idempotency_id)?,
            tls_request: fields::blob("tls_request", wire.tls_request, RENEWAL_PART_BYTES_MAX)?,
            mls_certificate: fields::blob("mls_certificate", wire.mls_certificate, RENEWAL_PART_BYTES_MAX)?,
            signature: fields::exact("signature", &wire.signature)?,
        })
    }
}

impl From<Renew> for v1::RenewRequest {
    fn from(renew: Renew) -> Self {
        Self {
            idempotency_id: fields::wire(renew.id.0),
            tls_request: renew.tls_request,
            mls_certificate: renew.mls_certificate,
            signature: fields::wire(renew.signature),
        }
    }
}

/// The next certificates, DER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// For the new TLS key.
    pub tls_certificate: Bytes,
    /// For the MLS key of before.
    pub mls_certificate: Bytes,
}

impl Issued {
    fn parse(tls_certificate: Bytes, mls_certificate: Bytes) -> Result<Self, ParseError> {
        Ok(Self {
            tls_certificate: fields::blob("tls_certificate", tls_certificate, RENEWAL_PART_BYTES_MAX)?,
            mls_certificate: fields::blob("mls_certificate", mls_certificate, RENEWAL_PART_BYTES_MAX)?,
        })
    }
}

impl TryFrom<v1::RenewResponse> for Issued {
    type Error = ParseError;

    fn try_from(wire: v1::RenewResponse) -> Result<Self, ParseError> {
        Self::parse(wire.tls_certificate, wire.mls_certificate)
    }
}

impl From<Issued> for v1::RenewResponse {
    fn from(issued: Issued) -> Self {
        Self { tls_certificate: issued.tls_certificate, mls_certificate: issued.mls_certificate }
    }
}

/// One request that waits for the issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRenewal {
    /// SHA-256 over what is signed.
    pub name: Digest,
    /// As the device sent it.
    pub request: Renew,
}

/// What waits for the issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Oldest first, at most [`PENDING_RENEWALS_MAX`].
    pub renewals: Vec<PendingRenewal>,
}

impl TryFrom<v1::PendingResponse> for Pending {
    type Error = ParseError;

    fn try_from(wire: v1::PendingResponse) -> Result<Self, ParseError> {
        fields::at_most("renewals", wire.renewals.len(), PENDING_RENEWALS_MAX)?;
        let renewal = |one: v1::PendingRenewal| {
            let name = fields::digest("renewal_id", &one.renewal_id)?;
            Ok(PendingRenewal { name, request: fields::present("request", one.request)?.try_into()? })
        };
        Ok(Self { renewals: wire.renewals.into_iter().map(renewal).collect::<Result<_, ParseError>>()? })
    }
}

impl From<Pending> for v1::PendingResponse {
    fn from(pending: Pending) -> Self {
        let renewal = |one: PendingRenewal| v1::PendingRenewal {
            renewal_id: fields::wire(one.name.0),
            request: Some(one.request.into()),
        };
        Self { renewals: pending.renewals.into_iter().map(renewal).collect() }
    }
}

/// What an issuer says of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenewalOutcome {
    /// Here are the certificates.
    Issued(Issued),
    /// Nothing is issued; never [`RenewalRefusal::Unspecified`].
    Refused(RenewalRefusal),
}

/// An issuer's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which request.
    pub name: Digest,
    /// What of it.
    pub outcome: RenewalOutcome,
}

impl TryFrom<v1::AnswerRequest> for Answer {
    type Error = ParseError;

    fn try_from(wire: v1::AnswerRequest) -> Result<Self, ParseError> {
        const FIELD: &str = "refusal";
        let refusal = RenewalRefusal::try_from(wire.refusal).map_err(|_| ParseError::Malformed { field: FIELD })?;
        let outcome = match refusal {
            RenewalRefusal::Unspecified => {
                RenewalOutcome::Issued(Issued::parse(wire.tls_certificate, wire.mls_certificate)?)
            }
            // Both at once is neither.
            _ if !wire.tls_certificate.is_empty() || !wire.mls_certificate.is_empty() => {
                return Err(ParseError::Malformed { field: FIELD });
            }
            reason => RenewalOutcome::Refused(reason),
        };
        Ok(Self { name: fields::digest("renewal_id", &wire.renewal_id)?, outcome })
    }
}

impl From<Answer> for v1::AnswerRequest {
    fn from(answer: Answer) -> Self {
        let renewal_id = fields::wire(answer.name.0);
        match answer.outcome {
            RenewalOutcome::Issued(Issued { tls_certificate, mls_certificate }) => {
                Self { renewal_id, tls_certificate, mls_certificate, refusal: RenewalRefusal::Unspecified.into() }
            }
            RenewalOutcome::Refused(reason) => Self { renewal_id, refusal: reason.into(), ..Self::default() },
        }
    }
}

impl From<Receipt> for v1::AnswerResponse {
    fn from(receipt: Receipt) -> Self {
        Self { receipt: Some(receipt.into()) }
    }
}

impl TryFrom<v1::AnswerResponse> for Receipt {
    type Error = ParseError;

    fn try_from(wire: v1::AnswerResponse) -> Result<Self, ParseError> {
        receipt::required(wire.receipt)
    }
}

impl RenewalRefusal {
    /// The word for it in audit records and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Unsound => "unsound",
            Self::UnknownDevice => "unknown-device",
            Self::Revoked => "revoked",
            Self::OtherDepartment => "other-department",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::tests::receipt;

    fn renew(bytes: usize) -> Renew {
        let blob = Bytes::from(vec![7; bytes]);
        Renew { id: IdempotencyId([1; 16]), tls_request: blob.clone(), mls_certificate: blob, signature: [3; 64] }
    }

    fn issued(bytes: usize) -> Issued {
        let blob = Bytes::from(vec![7; bytes]);
        Issued { tls_certificate: blob.clone(), mls_certificate: blob }
    }

    #[test]
    fn a_renewal_stands_at_its_limits_and_not_one_over() {
        let parse = |renew: Renew| Renew::try_from(v1::RenewRequest::from(renew));
        assert_eq!(parse(renew(0)), Err(ParseError::Missing { field: "tls_request" }));
        assert_eq!(parse(renew(8_193)), Err(ParseError::TooLarge { field: "tls_request", limit: 8_192, found: 8_193 }));
        assert_eq!(parse(renew(8_192)), Ok(renew(8_192)));
        let long = Renew { tls_request: Bytes::from_static(b"1"), ..renew(8_193) };
        assert!(matches!(parse(long), Err(ParseError::TooLarge { field: "mls_certificate", .. })));
        let short = v1::RenewRequest { signature: Bytes::from(vec![3; 63]), ..renew(1).into() };
        assert_eq!(Renew::try_from(short), Err(ParseError::Malformed { field: "signature" }));
    }

    #[test]
    fn what_waits_comes_back_from_the_wire_and_is_bounded() {
        let pending =
            |count| Pending { renewals: vec![PendingRenewal { name: Digest([5; 32]), request: renew(3) }; count] };
        let parse = |pending: Pending| Pending::try_from(v1::PendingResponse::from(pending));
        assert_eq!(parse(pending(0)), Ok(pending(0)));
        assert_eq!(parse(pending(16)), Ok(pending(16)));
        assert_eq!(parse(pending(17)), Err(ParseError::TooLarge { field: "renewals", limit: 16, found: 17 }));
        let empty = v1::PendingRenewal { renewal_id: fields::wire([5; 32]), request: None };
        let wire = v1::PendingResponse { renewals: vec![empty] };
        assert_eq!(Pending::try_from(wire), Err(ParseError::Missing { field: "request" }));
    }

    #[test]
    fn an_answer_is_certificates_or_a_reason_and_never_both_or_neither() {
        let name = Digest([5; 32]);
        let parse = |answer: Answer| Answer::try_from(v1::AnswerRequest::from(answer));
        let given = Answer { name, outcome: RenewalOutcome::Issued(issued(9)) };
        assert_eq!(parse(given.clone()), Ok(given.clone()));
        let refused = Answer { name, outcome: RenewalOutcome::Refused(RenewalRefusal::Revoked) };
        assert_eq!(parse(refused.clone()), Ok(refused.clone()));
        let neither = v1::AnswerRequest { refusal: 0, ..refused.into() };
        assert_eq!(Answer::try_from(neither), Err(ParseError::Missing { field: "tls_certificate" }));
        for reason in [RenewalRefusal::Revoked as i32, 99] {
            let both = v1::AnswerRequest { refusal: reason, ..given.clone().into() };
            assert_eq!(Answer::try_from(both), Err(ParseError::Malformed { field: "refusal" }));
        }
        assert_eq!(Issued::try_from(v1::RenewResponse::from(issued(9))), Ok(issued(9)));
        assert_eq!(Receipt::try_from(v1::AnswerResponse::from(receipt())), Ok(receipt()));
    }
}
