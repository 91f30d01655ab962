//! What the federation is: departments with their authorities and keys, zones with their operators and endpoints.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lianxin_types::{DepartmentId, Digest, Timestamp, ZoneId};
use serde::{Deserialize, Serialize};

use crate::verified::BundleError;

/// Number in `format`; a bundle with another number is refused untouched.
const FORMAT: u64 = 1;
/// Largest integer that JSON carries exactly (RFC 8785 by way of RFC 7493 section 2.2).
const INTEGER_MAX: u64 = (1 << 53) - 1;
/// Most removal keys of before that a zone lists.
pub const REMOVAL_KEYS_BEFORE_MAX: usize = 8;
/// Longest display name and host in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// The content of a trust bundle (PROTOCOL 9). Whether anyone signed it is [`crate::VerifiedBundle`]'s affair.
///
/// Its bytes are JCS (RFC 8785) with the members `departments`, `expires`, `format` (1), `issued`, `predecessor` (absent in
/// the first bundle), `version`, `zones`. Times are microseconds since 1970, keys and digests lower-case hexadecimal,
/// certificates base64 of their DER; departments and zones are sorted by id, none twice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrustBundle {
    /// Rises with every bundle; below 2^53.
    pub version: u64,
    /// When it was signed.
    pub issued: Timestamp,
    /// From when on it is stale; later than `issued`.
    pub expires: Timestamp,
    /// [`crate::VerifiedBundle::digest`] of the bundle that this one follows; `None` in the first.
    pub predecessor: Option<Digest>,
    /// The departments, sorted by id.
    pub departments: Vec<Department>,
    /// The zones, sorted by id.
    pub zones: Vec<Zone>,
}

/// A department of the federation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Department {
    /// Its name in identities.
    pub id: DepartmentId,
    /// Its name for people, e.g. 纪委监委: 1 to 256 bytes.
    pub name: String,
    /// DER certificates of the authorities that issue its certificates, without an intermediate in between.
    pub authorities: Vec<Vec<u8>>,
    /// Ed25519 keys of its witnesses; may be empty.
    pub witness_keys: Vec<[u8; 32]>,
    /// Ed25519 keys of its issuers; may be empty.
    pub issuer_keys: Vec<[u8; 32]>,
}

/// A place where data may live.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Zone {
    /// Its name.
    pub id: ZoneId,
    /// The department that operates it; its gateways' certificates name this department.
    pub department: DepartmentId,
    /// Where its gateways listen, in the order to try them.
    pub endpoints: Vec<Endpoint>,
    /// Ed25519 key of the external sender that may propose Removes (PROTOCOL 3).
    pub removal_key: [u8; 32],
    /// Removal keys of before, the newest first, at most [`REMOVAL_KEYS_BEFORE_MAX`]: channels that still name one go on, and
    /// move to `removal_key` with a commit. A stolen key is not listed any more.
    pub removal_keys_before: Vec<[u8; 32]>,
    /// Ed25519 key that signs promises (PROTOCOL 8).
    pub promise_key: [u8; 32],
    /// Ed25519 key that signs checkpoints of the zone's log.
    pub log_key: [u8; 32],
}

/// A gateway's listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// DNS name or IP address, as in the gateway's certificate: 1 to 256 bytes.
    pub host: String,
    /// TCP port; 0 means that it is not known yet.
    pub port: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BundleJson {
    departments: Vec<DepartmentJson>,
    expires: u64,
    format: u64,
    issued: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    predecessor: Option<String>,
    version: u64,
    zones: Vec<ZoneJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DepartmentJson {
    authorities: Vec<String>,
    id: String,
    issuer_keys: Vec<String>,
    name: String,
    witness_keys: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ZoneJson {
    department: String,
    endpoints: Vec<EndpointJson>,
    id: String,
    log_key: String,
    promise_key: String,
    removal_key: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    removal_keys_before: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointJson {
    host: String,
    port: u16,
}

/// Just enough to tell a newer format from garbage.
#[derive(Deserialize)]
struct FormatJson {
    format: u64,
}

impl TrustBundle {
    /// The department of that name.
    pub fn department(&self, id: &DepartmentId) -> Option<&Department> {
        self.departments.iter().find(|department| department.id == *id)
    }

    /// The zone of that name.
    pub fn zone(&self, id: &ZoneId) -> Option<&Zone> {
        self.zones.iter().find(|zone| zone.id == *id)
    }

    /// The JCS bytes, with departments and zones in the order of their ids.
    pub fn to_json_bytes(&self) -> Vec<u8> {
        let mut departments: Vec<_> = self.departments.iter().map(DepartmentJson::from).collect();
        departments.sort_by(|a, b| a.id.cmp(&b.id));
        let mut zones: Vec<_> = self.zones.iter().map(ZoneJson::from).collect();
        zones.sort_by(|a, b| a.id.cmp(&b.id));
        let json = BundleJson {
            departments,
            expires: self.expires.0,
            format: FORMAT,
            issued: self.issued.0,
            predecessor: self.predecessor.map(|digest| digest.to_hex()),
            version: self.version,
            zones,
        };
        serde_json_canonicalizer::to_vec(&json).expect("strings and integers always serialise")
    }

    /// Reads the JCS bytes. Says nothing about who signed them.
    ///
    /// # Errors
    /// [`BundleError::Format`] for a newer format, [`BundleError::Json`] for other bytes, [`BundleError::Field`] for a
    /// value outside its range, [`BundleError::NotCanonical`] if the bytes are not the JCS form of what they say.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        let json_error = |error: serde_json::Error| BundleError::Json { reason: error.to_string() };
        let FormatJson { format } = serde_json::from_slice(bytes).map_err(json_error)?;
        if format != FORMAT {
            return Err(BundleError::Format { format });
        }
        let json: BundleJson = serde_json::from_slice(bytes).map_err(json_error)?;
        let bundle = Self {
            version: integer("version", json.version)?,
            issued: Timestamp(integer("issued", json.issued)?),
            expires: Timestamp(integer("expires", json.expires)?),
            predecessor: json.predecessor.map(|text| key("predecessor", &text).map(Digest)).transpose()?,
            departments: json.departments.into_iter().map(Department::try_from).collect::<Result<_, _>>()?,
            zones: json.zones.into_iter().map(Zone::try_from).collect::<Result<_, _>>()?,
        };
        bundle.check()?;
        // One text per content, so that two implementations can never read two bundles out of one signature.
        if bundle.to_json_bytes() != bytes {
            return Err(BundleError::NotCanonical);
        }
        Ok(bundle)
    }

    fn check(&self) -> Result<(), BundleError> {
        if self.expires <= self.issued {
            return Err(BundleError::Field { field: "expires" });
        }
        if !self.departments.is_sorted_by(|a, b| a.id < b.id) {
            return Err(BundleError::Field { field: "departments" });
        }
        if !self.zones.is_sorted_by(|a, b| a.id < b.id) {
            return Err(BundleError::Field { field: "zones" });
        }
        if self.zones.iter().any(|zone| !zone.has_good_removal_keys()) {
            return Err(BundleError::Field { field: "removal_keys_before" });
        }
        if self.zones.iter().any(|zone| self.department(&zone.department).is_none()) {
            return Err(BundleError::Field { field: "department of a zone" });
        }
        Ok(())
    }
}

impl Zone {
    /// The zone's removal keys, the one in use first, then those of before, the newest first.
    pub fn removal_keys(&self) -> impl Iterator<Item = &[u8; 32]> {
        std::iter::once(&self.removal_key).chain(&self.removal_keys_before)
    }

    fn has_good_removal_keys(&self) -> bool {
        let twice = |(index, key)| self.removal_keys().take(index).any(|before| before == key);
        self.removal_keys_before.len() <= REMOVAL_KEYS_BEFORE_MAX && !self.removal_keys().enumerate().any(twice)
    }
}

impl From<&Department> for DepartmentJson {
    fn from(department: &Department) -> Self {
        Self {
            authorities: department.authorities.iter().map(|der| BASE64.encode(der)).collect(),
            id: department.id.to_string(),
            issuer_keys: department.issuer_keys.iter().map(hex::encode).collect(),
            name: department.name.clone(),
            witness_keys: department.witness_keys.iter().map(hex::encode).collect(),
        }
    }
}

impl TryFrom<DepartmentJson> for Department {
    type Error = BundleError;

    fn try_from(json: DepartmentJson) -> Result<Self, BundleError> {
        let certificate = |text: &String| BASE64.decode(text).map_err(|_| BundleError::Field { field: "authorities" });
        Ok(Self {
            id: json.id.parse().map_err(|_| BundleError::Field { field: "id of a department" })?,
            name: text("name of a department", json.name)?,
            authorities: json.authorities.iter().map(certificate).collect::<Result<_, _>>()?,
            witness_keys: keys("witness_keys", &json.witness_keys)?,
            issuer_keys: keys("issuer_keys", &json.issuer_keys)?,
        })
    }
}

impl From<&Zone> for ZoneJson {
    fn from(zone: &Zone) -> Self {
        let endpoint = |endpoint: &Endpoint| EndpointJson { host: endpoint.host.clone(), port: endpoint.port };
        Self {
            department: zone.department.to_string(),
            endpoints: zone.endpoints.iter().map(endpoint).collect(),
            id: zone.id.to_string(),
            log_key: hex::encode(zone.log_key),
            promise_key: hex::encode(zone.promise_key),
            removal_key: hex::encode(zone.removal_key),
            removal_keys_before: zone.removal_keys_before.iter().map(hex::encode).collect(),
        }
    }
}

impl TryFrom<ZoneJson> for Zone {
    type Error = BundleError;

    fn try_from(json: ZoneJson) -> Result<Self, BundleError> {
        let endpoint = |json: EndpointJson| Ok(Endpoint { host: text("host", json.host)?, port: json.port });
        Ok(Self {
            id: json.id.parse().map_err(|_| BundleError::Field { field: "id of a zone" })?,
            department: json.department.parse().map_err(|_| BundleError::Field { field: "department of a zone" })?,
            endpoints: json.endpoints.into_iter().map(endpoint).collect::<Result<_, BundleError>>()?,
            removal_key: key("removal_key", &json.removal_key)?,
            removal_keys_before: keys("removal_keys_before", &json.removal_keys_before)?,
            promise_key: key("promise_key", &json.promise_key)?,
            log_key: key("log_key", &json.log_key)?,
        })
    }
}

fn integer(field: &'static str, value: u64) -> Result<u64, BundleError> {
    if value <= INTEGER_MAX { Ok(value) } else { Err(BundleError::Field { field }) }
}

fn text(field: &'static str, value: String) -> Result<String, BundleError> {
    let good = !value.is_empty() && value.len() <= TEXT_BYTES_MAX && !value.chars().any(char::is_control);
    if good { Ok(value) } else { Err(BundleError::Field { field }) }
}

fn keys(field: &'static str, texts: &[String]) -> Result<Vec<[u8; 32]>, BundleError> {
    texts.iter().map(|text| key(field, text)).collect()
}

fn key(field: &'static str, text: &str) -> Result<[u8; 32], BundleError> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| BundleError::Field { field })?;
    Ok(bytes)
}
