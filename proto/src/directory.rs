//! The directory on the wire: requests and responses of `lianxin.directory.v1` as typed values.

use bytes::Bytes;
use lianxin_types::{DeviceUri, Digest, LIMITS, Timestamp, ZoneId};

use crate::fields::{self, ParseError};
use crate::{PROTOCOL_VERSION, Problem, ReasonCode};

/// Generated from `api/lianxin/directory/v1/`.
#[expect(
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated; the .proto files are documented"
)]
pub mod v1 {
    tonic::include_proto!("lianxin.directory.v1");
}

/// Capabilities that one side may name.
pub const CAPABILITIES_MAX: usize = 32;
/// Longest capability, client name or limit name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Earlier trust bundles in one answer: more than a year of weekly ones.
pub const EARLIER_BUNDLES_MAX: usize = 64;
/// Bytes of them in one answer, but never less than one bundle.
pub const EARLIER_BUNDLES_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Oldest version of the protocol that this build still speaks.
pub const PROTOCOL_VERSION_MIN: u32 = 1;

/// The first call on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Highest version that the client speaks.
    pub protocol_version: u32,
    /// Optional features of the client.
    pub capabilities: Vec<String>,
    /// Name and version of the client software; for logs only.
    pub client: String,
}

impl Hello {
    /// The version that both will speak.
    ///
    /// # Errors
    /// UPGRADE_REQUIRED if the client's highest is below [`PROTOCOL_VERSION_MIN`].
    pub fn agreed_version(&self) -> Result<u32, Problem> {
        if self.protocol_version < PROTOCOL_VERSION_MIN {
            return Err(Problem::new(ReasonCode::UpgradeRequired));
        }
        Ok(self.protocol_version.min(PROTOCOL_VERSION))
    }
}

impl TryFrom<v1::HelloRequest> for Hello {
    type Error = ParseError;

    fn try_from(wire: v1::HelloRequest) -> Result<Self, ParseError> {
        fields::at_most("client", wire.client.len(), NAME_BYTES_MAX)?;
        Ok(Self {
            protocol_version: wire.protocol_version,
            capabilities: capabilities(wire.capabilities)?,
            client: wire.client,
        })
    }
}

impl From<Hello> for v1::HelloRequest {
    fn from(hello: Hello) -> Self {
        Self { protocol_version: hello.protocol_version, capabilities: hello.capabilities, client: hello.client }
    }
}

/// The answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloAnswer {
    /// Version that both will speak.
    pub protocol_version: u32,
    /// Optional features of the gateway.
    pub capabilities: Vec<String>,
    /// The zone that the gateway serves.
    pub zone: ZoneId,
    /// The caller as the gateway understood it.
    pub caller: DeviceUri,
    /// Version of the trust bundle in use.
    pub bundle_version: u64,
    /// SHA-256 of that bundle as signed.
    pub bundle_digest: Digest,
    /// The gateway's time.
    pub gateway_time: Timestamp,
    /// The table of limits.
    pub limits: Vec<Limit>,
}

/// One limit as the gateway states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// As in [`lianxin_types::LimitRow`].
    pub name: String,
    /// The bound.
    pub value: u64,
    /// What is counted.
    pub unit: String,
}

impl Limit {
    /// The limits of this build.
    pub fn table() -> Vec<Self> {
        let row =
            |row: lianxin_types::LimitRow| Self { name: row.name.into(), value: row.value, unit: row.unit.into() };
        LIMITS.rows().into_iter().map(row).collect()
    }
}

impl TryFrom<v1::HelloResponse> for HelloAnswer {
    type Error = ParseError;

    fn try_from(wire: v1::HelloResponse) -> Result<Self, ParseError> {
        // A client cannot speak a version that it does not know.
        if !(PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION).contains(&wire.protocol_version) {
            return Err(ParseError::Malformed { field: "protocol_version" });
        }
        let limit = |limit: v1::Limit| Limit { name: limit.name, value: limit.value, unit: limit.unit };
        Ok(Self {
            protocol_version: wire.protocol_version,
            capabilities: capabilities(wire.capabilities)?,
            zone: wire.zone.parse().map_err(|_| ParseError::Malformed { field: "zone" })?,
            caller: fields::uri("caller_uri", &wire.caller_uri)?,
            bundle_version: wire.bundle_version,
            bundle_digest: fields::digest("bundle_digest", &wire.bundle_digest)?,
            gateway_time: fields::time("gateway_time_us", wire.gateway_time_us)?,
            limits: wire.limits.into_iter().map(limit).collect(),
        })
    }
}

impl From<HelloAnswer> for v1::HelloResponse {
    fn from(answer: HelloAnswer) -> Self {
        let limit = |limit: Limit| v1::Limit { name: limit.name, value: limit.value, unit: limit.unit };
        Self {
            protocol_version: answer.protocol_version,
            capabilities: answer.capabilities,
            zone: answer.zone.to_string(),
            caller_uri: answer.caller.as_str().to_owned(),
            bundle_version: answer.bundle_version,
            bundle_digest: fields::wire(answer.bundle_digest.0),
            gateway_time_us: answer.gateway_time.0,
            limits: answer.limits.into_iter().map(limit).collect(),
        }
    }
}

/// Asks for the federation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetTrust {
    /// Version of the trust bundle that the caller has in use; 0 to be given the newest only.
    pub known_version: u64,
}

impl From<v1::GetTrustRequest> for GetTrust {
    fn from(wire: v1::GetTrustRequest) -> Self {
        Self { known_version: wire.known_version }
    }
}

impl From<GetTrust> for v1::GetTrustRequest {
    fn from(wanted: GetTrust) -> Self {
        Self { known_version: wanted.known_version }
    }
}

/// The federation as signed. Nothing in it is verified here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The signed note with the trust bundle.
    pub trust_bundle: Bytes,
    /// DER X.509 revocation lists, one for each department that has one.
    pub revocation_lists: Vec<Bytes>,
    /// The signed notes of bundles between the one that the caller has and the newest, oldest first; at most
    /// [`EARLIER_BUNDLES_MAX`].
    pub earlier_bundles: Vec<Bytes>,
}

impl TryFrom<v1::GetTrustResponse> for Trust {
    type Error = ParseError;

    fn try_from(wire: v1::GetTrustResponse) -> Result<Self, ParseError> {
        if wire.trust_bundle.is_empty() {
            return Err(ParseError::Missing { field: "trust_bundle" });
        }
        fields::at_most("earlier_bundles", wire.earlier_bundles.len(), EARLIER_BUNDLES_MAX)?;
        Ok(Self {
            trust_bundle: wire.trust_bundle,
            revocation_lists: wire.revocation_lists,
            earlier_bundles: wire.earlier_bundles,
        })
    }
}

impl From<Trust> for v1::GetTrustResponse {
    fn from(trust: Trust) -> Self {
        Self {
            trust_bundle: trust.trust_bundle,
            revocation_lists: trust.revocation_lists,
            earlier_bundles: trust.earlier_bundles,
        }
    }
}

fn capabilities(names: Vec<String>) -> Result<Vec<String>, ParseError> {
    fields::at_most("capabilities", names.len(), CAPABILITIES_MAX)?;
    for name in &names {
        fields::at_most("capabilities", name.len(), NAME_BYTES_MAX)?;
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(protocol_version: u32) -> Hello {
        Hello { protocol_version, capabilities: vec!["x".repeat(64); 32], client: "c".repeat(64) }
    }

    fn answer() -> HelloAnswer {
        HelloAnswer {
            protocol_version: PROTOCOL_VERSION,
            capabilities: Vec::new(),
            zone: "demo".parse().expect("well formed"),
            caller: "lianxin://jiwei/app/a/1".parse().expect("well formed"),
            bundle_version: 1,
            bundle_digest: Digest([1; 32]),
            gateway_time: Timestamp(5),
            limits: Limit::table(),
        }
    }

    #[test]
    fn an_old_client_is_told_to_upgrade_and_a_newer_one_steps_down() {
        let problem = hello(0).agreed_version().expect_err("version 0 does not exist");
        assert_eq!(problem.code, ReasonCode::UpgradeRequired);
        assert_eq!(hello(1).agreed_version(), Ok(1));
        assert_eq!(hello(7).agreed_version(), Ok(PROTOCOL_VERSION));
    }

    #[test]
    fn a_hello_stands_at_its_limits_and_not_one_over() {
        let parse = |hello: Hello| Hello::try_from(v1::HelloRequest::from(hello));
        assert_eq!(parse(hello(1)), Ok(hello(1)));
        let many = Hello { capabilities: vec![String::new(); 33], ..hello(1) };
        assert_eq!(parse(many), Err(ParseError::TooLarge { field: "capabilities", limit: 32, found: 33 }));
        let long = Hello { capabilities: vec!["x".repeat(65)], ..hello(1) };
        assert_eq!(parse(long), Err(ParseError::TooLarge { field: "capabilities", limit: 64, found: 65 }));
        let talkative = Hello { client: "c".repeat(65), ..hello(1) };
        assert_eq!(parse(talkative), Err(ParseError::TooLarge { field: "client", limit: 64, found: 65 }));
    }

    #[test]
    fn an_answer_in_an_unknown_version_or_without_caller_is_refused() {
        let refused = |change: fn(&mut v1::HelloResponse)| {
            let mut wire = v1::HelloResponse::from(answer());
            change(&mut wire);
            HelloAnswer::try_from(wire).expect_err("not as the contract says").field()
        };
        assert_eq!(refused(|wire| wire.protocol_version = 2), "protocol_version");
        assert_eq!(refused(|wire| wire.protocol_version = 0), "protocol_version");
        assert_eq!(refused(|wire| wire.caller_uri.clear()), "caller_uri");
        assert_eq!(refused(|wire| wire.zone.clear()), "zone");
        assert_eq!(refused(|wire| wire.bundle_digest.clear()), "bundle_digest");
        assert_eq!(HelloAnswer::try_from(v1::HelloResponse::from(answer())), Ok(answer()));
        assert_eq!(answer().limits.len(), LIMITS.rows().len());
    }

    #[test]
    fn trust_comes_back_from_the_wire_and_is_never_empty() {
        let trust = |count| Trust {
            trust_bundle: Bytes::from_static(b"note"),
            revocation_lists: vec![Bytes::from_static(b"crl")],
            earlier_bundles: vec![Bytes::from_static(b"earlier"); count],
        };
        let parse = |trust: Trust| Trust::try_from(v1::GetTrustResponse::from(trust));
        assert_eq!(parse(trust(64)), Ok(trust(64)));
        let many = ParseError::TooLarge { field: "earlier_bundles", limit: 64, found: 65 };
        assert_eq!(parse(trust(65)), Err(many));
        let empty = v1::GetTrustResponse::default();
        assert_eq!(Trust::try_from(empty), Err(ParseError::Missing { field: "trust_bundle" }));
    }
}
