//! Key packages on the wire: requests and responses of `lianxin.key_packages.v1` as typed values.

use std::collections::BTreeSet;

use bytes::Bytes;
use lianxin_types::{ChannelId, DeviceUri, IdempotencyId, LIMITS};

use crate::fields::{self, ParseError};
use crate::receipt::{self, Receipt};

/// Generated from `api/lianxin/key_packages/v1/`.
#[expect(
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated; the .proto files are documented"
)]
pub mod v1 {
    tonic::include_proto!("lianxin.key_packages.v1");
}

/// Key packages to store for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Recognises a repeat.
    pub id: IdempotencyId,
    /// MLSMessages with one-time KeyPackages, at most 100, with the last resort at most 1 MiB together.
    pub key_packages: Vec<Bytes>,
    /// MLSMessage with the last resort; `None` to keep the stored one.
    pub last_resort: Option<Bytes>,
}

impl TryFrom<v1::PublishRequest> for Publish {
    type Error = ParseError;

    fn try_from(wire: v1::PublishRequest) -> Result<Self, ParseError> {
        fields::at_most("key_packages", wire.key_packages.len(), LIMITS.device_key_packages_max)?;
        let bytes = wire.key_packages.iter().map(Bytes::len).sum::<usize>() + wire.last_resort.len();
        fields::at_most("key_packages", bytes, LIMITS.commit_bundle_bytes_max)?;
        if bytes == 0 {
            return Err(ParseError::Missing { field: "key_packages" });
        }
        Ok(Self {
            id: fields::idempotency_id(&wire.idempotency_id)?,
            key_packages: packages(wire.key_packages)?,
            last_resort: fields::optional(wire.last_resort),
        })
    }
}

impl From<Publish> for v1::PublishRequest {
    fn from(publish: Publish) -> Self {
        Self {
            idempotency_id: fields::wire(publish.id.0),
            key_packages: publish.key_packages,
            last_resort: publish.last_resort.unwrap_or_default(),
        }
    }
}

impl From<Receipt> for v1::PublishResponse {
    fn from(receipt: Receipt) -> Self {
        Self { receipt: Some(receipt.into()) }
    }
}

impl TryFrom<v1::PublishResponse> for Receipt {
    type Error = ParseError;

    fn try_from(wire: v1::PublishResponse) -> Result<Self, ParseError> {
        receipt::required(wire.receipt)
    }
}

/// Asks for one key package of each owner, for one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Recognises a repeat.
    pub id: IdempotencyId,
    /// The channel that they are for.
    pub channel: ChannelId,
    /// Whose, 1 to 100, each once.
    pub owners: Vec<DeviceUri>,
}

impl TryFrom<v1::ClaimRequest> for Claim {
    type Error = ParseError;

    fn try_from(wire: v1::ClaimRequest) -> Result<Self, ParseError> {
        const FIELD: &str = "owner_uris";
        fields::at_most(FIELD, wire.owner_uris.len(), LIMITS.invites_per_commit_max)?;
        let owners = wire.owner_uris.iter().map(|text| fields::uri(FIELD, text)).collect::<Result<Vec<_>, _>>()?;
        if owners.is_empty() {
            return Err(ParseError::Missing { field: FIELD });
        }
        if owners.iter().collect::<BTreeSet<_>>().len() != owners.len() {
            return Err(ParseError::Malformed { field: FIELD });
        }
        Ok(Self {
            id: fields::idempotency_id(&wire.idempotency_id)?,
            channel: fields::channel_id(&wire.channel_id)?,
            owners,
        })
    }
}

impl From<Claim> for v1::ClaimRequest {
    fn from(claim: Claim) -> Self {
        Self {
            idempotency_id: fields::wire(claim.id.0),
            channel_id: fields::wire(claim.channel.0),
            owner_uris: claim.owners.iter().map(|owner| owner.as_str().to_owned()).collect(),
        }
    }
}

/// What was claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// MLSMessages with KeyPackages in the order of the claim's owners.
    pub key_packages: Vec<Bytes>,
    /// Of the claim; its sequence is 0.
    pub receipt: Receipt,
}

impl TryFrom<v1::ClaimResponse> for Claimed {
    type Error = ParseError;

    fn try_from(wire: v1::ClaimResponse) -> Result<Self, ParseError> {
        fields::at_most("key_packages", wire.key_packages.len(), LIMITS.invites_per_commit_max)?;
        Ok(Self { key_packages: packages(wire.key_packages)?, receipt: receipt::required(wire.receipt)? })
    }
}

impl From<Claimed> for v1::ClaimResponse {
    fn from(claimed: Claimed) -> Self {
        Self { key_packages: claimed.key_packages, receipt: Some(claimed.receipt.into()) }
    }
}

/// What is left of the caller's key packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// One-time packages stored and not expired.
    pub one_time: u32,
    /// Whether a last resort is stored and not expired.
    pub last_resort: bool,
}

impl From<v1::CountResponse> for Count {
    fn from(wire: v1::CountResponse) -> Self {
        Self { one_time: wire.one_time, last_resort: wire.last_resort }
    }
}

impl From<Count> for v1::CountResponse {
    fn from(count: Count) -> Self {
        Self { one_time: count.one_time, last_resort: count.last_resort }
    }
}

fn packages(wire: Vec<Bytes>) -> Result<Vec<Bytes>, ParseError> {
    wire.into_iter().map(|package| fields::blob("key_packages", package, LIMITS.commit_bundle_bytes_max)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::tests::receipt;

    fn publish(count: usize, bytes: usize) -> Publish {
        Publish {
            id: IdempotencyId([1; 16]),
            key_packages: vec![vec![7; bytes].into(); count],
            last_resort: Some(Bytes::from_static(b"last")),
        }
    }

    fn claim(owners: usize) -> Claim {
        let owner = |number| format!("lianxin://jiwei/app/a/{number}").parse().expect("well formed");
        Claim { id: IdempotencyId([1; 16]), channel: ChannelId([2; 16]), owners: (0..owners).map(owner).collect() }
    }

    #[test]
    fn publishing_stands_at_its_limits_and_not_one_over() {
        let parse = |publish: Publish| Publish::try_from(v1::PublishRequest::from(publish));
        assert_eq!(parse(publish(101, 1)), Err(ParseError::TooLarge { field: "key_packages", limit: 100, found: 101 }));
        assert_eq!(parse(publish(100, 1)), Ok(publish(100, 1)));
        let most = LIMITS.commit_bundle_bytes_max - 4;
        assert!(matches!(
            parse(publish(1, most + 1)),
            Err(ParseError::TooLarge { limit: 1_048_576, found: 1_048_577, .. })
        ));
        assert_eq!(parse(publish(1, most)), Ok(publish(1, most)));
        assert_eq!(parse(publish(1, 0)), Err(ParseError::Missing { field: "key_packages" }));
        let nothing = Publish { last_resort: None, ..publish(0, 0) };
        assert_eq!(parse(nothing), Err(ParseError::Missing { field: "key_packages" }));
        let last_resort_alone = publish(0, 0);
        assert_eq!(parse(last_resort_alone.clone()), Ok(last_resort_alone));
    }

    #[test]
    fn a_claim_names_each_owner_once_and_at_most_a_hundred() {
        let parse = |claim: Claim| Claim::try_from(v1::ClaimRequest::from(claim));
        assert_eq!(parse(claim(0)), Err(ParseError::Missing { field: "owner_uris" }));
        assert_eq!(parse(claim(101)), Err(ParseError::TooLarge { field: "owner_uris", limit: 100, found: 101 }));
        assert_eq!(parse(claim(100)), Ok(claim(100)));
        let twice = Claim { owners: [claim(1).owners, claim(1).owners].concat(), ..claim(0) };
        assert_eq!(parse(twice), Err(ParseError::Malformed { field: "owner_uris" }));
        let wire = v1::ClaimRequest { owner_uris: vec!["张三".into()], ..claim(1).into() };
        assert_eq!(Claim::try_from(wire), Err(ParseError::Malformed { field: "owner_uris" }));
    }

    #[test]
    fn answers_come_back_from_the_wire() {
        let claimed = Claimed { key_packages: vec![Bytes::from_static(b"one")], receipt: receipt() };
        assert_eq!(Claimed::try_from(v1::ClaimResponse::from(claimed.clone())), Ok(claimed));
        assert_eq!(Receipt::try_from(v1::PublishResponse::from(receipt())), Ok(receipt()));
        let count = Count { one_time: 3, last_resort: true };
        assert_eq!(Count::from(v1::CountResponse::from(count)), count);
    }
}
