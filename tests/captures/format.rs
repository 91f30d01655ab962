//! The file: everything that went over the wire, what it means, and the keys to follow it. `proto/captures/README.md` says the same
//! for people.

use lianxin_types::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The number of this format; a file of another is not read.
pub(crate) const FORMAT: u32 = 1;

/// Bytes as lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl std::fmt::Debug for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl<T: AsRef<[u8]>> From<T> for Hex {
    fn from(bytes: T) -> Self {
        Self(bytes.as_ref().to_vec())
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Capture {
    pub(crate) format: u32,
    pub(crate) name: String,
    pub(crate) note: String,
    pub(crate) protocol_version: u32,
    /// By which certificates and lifetimes are to be judged.
    pub(crate) captured_us: u64,
    pub(crate) federation: FederationPart,
    pub(crate) channel: ChannelPart,
    pub(crate) exporter: ExporterPart,
    pub(crate) devices: Vec<DevicePart>,
    pub(crate) followers: Vec<FollowerPart>,
    pub(crate) events: Vec<EventPart>,
    pub(crate) wire: Vec<Item>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FederationPart {
    pub(crate) roots: serde_json::Value,
    pub(crate) trust_bundle: Hex,
    pub(crate) revocation_lists: Vec<Hex>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChannelPart {
    pub(crate) id: Hex,
    pub(crate) zone: String,
    pub(crate) departments: Vec<String>,
    pub(crate) purpose: String,
    pub(crate) legal_basis: String,
    pub(crate) slot_key: Hex,
    /// h0.
    pub(crate) chain_start: Hex,
}

/// What `exported` of each event is: MLS-Exporter (RFC 9420 section 8.5) of these.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExporterPart {
    pub(crate) label: String,
    pub(crate) context: Hex,
    pub(crate) length: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DevicePart {
    pub(crate) name: String,
    pub(crate) uri: String,
    pub(crate) tls_certificate: Hex,
    pub(crate) mls_certificate: Hex,
    /// Ed25519, the 32 secret bytes (RFC 8032).
    pub(crate) mls_signature_key: Hex,
    pub(crate) key_packages: Vec<KeyPackagePart>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyPackagePart {
    /// The MLSMessage.
    pub(crate) message: Hex,
    /// X25519, 32 secret bytes.
    pub(crate) init_key: Hex,
    pub(crate) leaf_key: Hex,
}

/// Who can be followed from a Welcome with nothing but the keys of its key package.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FollowerPart {
    pub(crate) device: String,
    /// The commit that seats it.
    pub(crate) joins: u64,
    /// The last event that it can process so.
    pub(crate) last: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventPart {
    pub(crate) sequence: u64,
    pub(crate) what: String,
    /// START, COMMIT, APPLICATION, PROPOSAL.
    pub(crate) kind: String,
    pub(crate) sender: String,
    pub(crate) gateway_time_us: u64,
    pub(crate) idempotency_id: Hex,
    pub(crate) mls: Hex,
    /// The head in the authenticated data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) names_head: Option<HeadPart>,
    pub(crate) chain_hash: Hex,
    pub(crate) leaf_index: u64,
    pub(crate) leaf_hash: Hex,
    /// Behind this event.
    pub(crate) epoch: u64,
    /// Not at the start, where nobody can be followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secrets: Option<SecretsPart>,
    /// Names of devices, ascending by leaf.
    pub(crate) members: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) group_info: Option<Hex>,
    /// The public tree behind a commit that seats somebody, and at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ratchet_tree: Option<Hex>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) welcome: Option<Hex>,
    /// What is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) plaintext: Option<PlaintextPart>,
}

/// What all members of an epoch come to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecretsPart {
    /// RFC 9420 section 8.7.
    pub(crate) epoch_authenticator: Hex,
    /// By [`ExporterPart`].
    pub(crate) exported: Hex,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeadPart {
    pub(crate) sequence: u64,
    pub(crate) chain_hash: Hex,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlaintextPart {
    pub(crate) payload: Hex,
    pub(crate) intent: Hex,
    pub(crate) text: String,
    /// The message by which it was handed in before, in the epoch before, and refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<Hex>,
}

/// One protobuf message, as it lay in the body of a gRPC call.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Item {
    pub(crate) number: u64,
    pub(crate) device: String,
    pub(crate) direction: Direction,
    /// `package.Service/Call`.
    pub(crate) call: String,
    /// Its full name.
    pub(crate) message: String,
    pub(crate) bytes: Hex,
    /// What a reader may want to see of its fields.
    pub(crate) notes: serde_json::Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Direction {
    ToGateway,
    FromGateway,
}

impl Capture {
    /// As a file: readable, with one line per field.
    pub(crate) fn to_text(&self) -> String {
        format!("{}\n", serde_json::to_string_pretty(self).expect("names and numbers"))
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.captured_us)
    }

    pub(crate) fn event(&self, sequence: u64) -> &EventPart {
        &self.events[usize::try_from(sequence).expect("few") - 1]
    }

    /// What was encrypted in the epoch that this commit ends, and refused because it came behind the commit.
    pub(crate) fn refused_by(&self, commit: &EventPart) -> Option<(&EventPart, &PlaintextPart, &Hex)> {
        let of_next = |event: &&EventPart| event.epoch == commit.epoch && commit.kind == "COMMIT";
        self.events.iter().filter(of_next).find_map(|event| {
            let plaintext = event.plaintext.as_ref()?;
            Some((event, plaintext, plaintext.refused.as_ref()?))
        })
    }

    /// The devices with these identities.
    pub(crate) fn names<'a>(&self, uris: impl IntoIterator<Item = &'a str>) -> anyhow::Result<Vec<String>> {
        let name = |uri: &str| {
            let found = self.devices.iter().find(|device| device.uri == uri);
            found.map(|device| device.name.clone()).ok_or_else(|| anyhow::anyhow!("{uri} is no device"))
        };
        uris.into_iter().map(name).collect()
    }

    pub(crate) fn device(&self, name: &str) -> anyhow::Result<&DevicePart> {
        let found = self.devices.iter().find(|device| device.name == name);
        found.ok_or_else(|| anyhow::anyhow!("there is no device {name}"))
    }
}
