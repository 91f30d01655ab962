//! Parts of an audit record: one shared, at most one for each department concerned, each openable alone (PROTOCOL 8).

use hmac::{Hmac, Mac};
use lianxin_types::{ChannelId, DepartmentId, Digest, Sequence, Timestamp, Writer, labelled_sha256};
use sha2::Sha256;
use thiserror::Error;

/// Who may read a part.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Audience {
    /// Every department concerned.
    Shared,
    /// One department.
    Department(DepartmentId),
}

impl Audience {
    /// Empty for the shared part, else the department's name.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Shared => b"",
            Self::Department(department) => department.as_str().as_bytes(),
        }
    }
}

/// Why a body cannot be committed to.
#[derive(Debug, Error)]
pub enum BodyError {
    /// It is not an object, or has a null, a number that is not an integer in 0..2^53, or a float.
    #[error("audit bodies hold strings, booleans and integers below 2^53 only")]
    Value,
    /// It cannot be written canonically.
    #[error("canonical form")]
    Canonical(#[from] serde_json::Error),
}

/// A part as it is made before the committer: everything but the numbers.
#[derive(Clone, PartialEq, Eq)]
pub struct PartDraft {
    /// Who may read it.
    pub audience: Audience,
    /// 32 random bytes of its own.
    pub salt: [u8; 32],
    /// JCS (RFC 8785) bytes of an object.
    pub body: Vec<u8>,
    /// SHA-256 of `body`.
    pub body_hash: Digest,
}

impl std::fmt::Debug for PartDraft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartDraft").field("audience", &self.audience).field("bytes", &self.body.len()).finish()
    }
}

impl PartDraft {
    /// Writes `body` canonically and hashes it.
    ///
    /// # Errors
    /// [`BodyError::Value`] for a value outside the format, [`BodyError::Canonical`] if it cannot be written.
    pub fn new(audience: Audience, salt: [u8; 32], body: &serde_json::Value) -> Result<Self, BodyError> {
        if !body.is_object() || !allowed(body) {
            return Err(BodyError::Value);
        }
        let body = serde_json_canonicalizer::to_vec(body)?;
        let body_hash = Digest::sha256(&body);
        Ok(Self { audience, salt, body, body_hash })
    }
}

fn allowed(value: &serde_json::Value) -> bool {
    use serde_json::Value;
    match value {
        Value::Null => false,
        Value::Bool(_) | Value::String(_) => true,
        Value::Number(number) => number.as_u64().is_some_and(|number| number < 1 << 53),
        Value::Array(items) => items.iter().all(allowed),
        Value::Object(fields) => fields.values().all(allowed),
    }
}

/// Header of the shared part; the committer fills it in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SharedHeader {
    /// Index of the leaf in the zone's log.
    pub leaf_index: u64,
    /// When the gateway accepted the event.
    pub gateway_time: Timestamp,
    /// The channel; 16 zero bytes for what belongs to none.
    pub channel: ChannelId,
    /// Its sequence; 0 if the event is not in a channel's log.
    pub sequence: Sequence,
    /// Chain hash at that sequence; zero if there is none.
    pub chain_hash: Digest,
}

const HEADER_VERSION: u8 = 1;

impl SharedHeader {
    /// version u8, leaf index u64, gateway time u64, channel 16 bytes, sequence u64, chain hash 32 bytes; big-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(HEADER_VERSION).u64(self.leaf_index).u64(self.gateway_time.0);
        writer.raw(&self.channel.0).u64(self.sequence.0).raw(&self.chain_hash.0).finish()
    }
}

/// Header of a department's part; the committer fills it in. Gaps in the counter show to the department alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DepartmentHeader {
    /// Number of this part among the department's parts in this zone, from 1.
    pub counter: u64,
    /// Commitment of the department's previous part; zero before the first.
    pub previous: Digest,
}

impl DepartmentHeader {
    /// version u8, counter u64, previous commitment 32 bytes; big-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        Writer::new().u8(HEADER_VERSION).u64(self.counter).raw(&self.previous.0).finish()
    }
}

/// HMAC-SHA-256(salt, label, audience, header, SHA-256(body)); audience and header with 32-bit lengths in front.
pub fn part_commitment(salt: &[u8; 32], audience: &Audience, header: &[u8], body_hash: &Digest) -> Digest {
    let mut mac = Hmac::<Sha256>::new_from_slice(salt).expect("HMAC takes keys of every length");
    mac.update(b"lianxin/audit-part/v1\0");
    mac.update(&Writer::new().bytes(audience.as_bytes()).bytes(header).raw(&body_hash.0).finish());
    Digest(mac.finalize().into_bytes().into())
}

/// SHA-256 over label and the part commitments in order: the shared part first, then departments by name.
pub fn leaf_commitment(parts: &[Digest]) -> Digest {
    let parts: Vec<&[u8]> = parts.iter().map(|part| &part.0[..]).collect();
    labelled_sha256("lianxin/audit-leaf/v1", &parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn golden() {
        let draft = PartDraft::new(Audience::Shared, [7; 32], &json!({"b": 1, "a": "审计"})).expect("valid");
        assert_eq!(draft.body, r#"{"a":"审计","b":1}"#.as_bytes());
        let header = SharedHeader {
            leaf_index: 5,
            gateway_time: Timestamp(6),
            channel: ChannelId([1; 16]),
            sequence: Sequence(2),
            chain_hash: Digest([3; 32]),
        };
        assert_eq!(header.to_bytes().len(), 1 + 8 + 8 + 16 + 8 + 32);
        let shared = part_commitment(&draft.salt, &draft.audience, &header.to_bytes(), &draft.body_hash);
        assert_eq!(shared.to_hex(), "8fbe7f64c04bde270977bcf2b7e077aef48cbd4f53f85a30fdfb72d627a9045c");
        assert_eq!(
            leaf_commitment(&[shared, Digest::ZERO]).to_hex(),
            "9e0dca46ce00c7bfd670277c6011dcba0c005b8cc2f89f7d069d2d2ac393cf78"
        );
    }

    #[test]
    fn bodies_outside_the_format_are_refused() {
        for body in [
            json!(null),
            json!([1]),
            json!({"a": null}),
            json!({"a": 1.5}),
            json!({"a": -1}),
            json!({"a": [1u64 << 53]}),
        ] {
            assert!(PartDraft::new(Audience::Shared, [0; 32], &body).is_err(), "{body}");
        }
    }

    #[test]
    fn audience_header_and_body_are_bound() {
        let jiwei = Audience::Department("jiwei".parse().expect("well formed"));
        let base = part_commitment(&[1; 32], &jiwei, b"h", &Digest([2; 32]));
        assert_ne!(part_commitment(&[2; 32], &jiwei, b"h", &Digest([2; 32])), base);
        assert_ne!(part_commitment(&[1; 32], &Audience::Shared, b"h", &Digest([2; 32])), base);
        assert_ne!(part_commitment(&[1; 32], &jiwei, b"i", &Digest([2; 32])), base);
        assert_ne!(part_commitment(&[1; 32], &jiwei, b"h", &Digest([3; 32])), base);
    }
}
