//! The 60 bytes that stand in a zone's audit log for one event (PROTOCOL 8).

use lianxin_types::{DecodeError, Digest, Reader, Writer};
use sha2::{Digest as _, Sha256};

/// Bytes of a leaf.
pub const LEAF_BYTES: usize = 60;

/// What an event is about, coarse enough for a leaf that anyone may read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EventFamily {
    /// A channel started or its group changed.
    Channel = 1,
    /// An application message.
    Message = 2,
    /// Key packages published or claimed.
    KeyPackage = 3,
    /// Something was read: history, group info, tree, directory.
    Read = 4,
    /// Something was refused.
    Refusal = 5,
    /// A device came, went, or confirmed a delivery.
    Session = 6,
    /// The gateway itself: start, stop, bundle, configuration.
    Gateway = 7,
}

impl TryFrom<u8> for EventFamily {
    type Error = DecodeError;

    fn try_from(value: u8) -> Result<Self, DecodeError> {
        [Self::Channel, Self::Message, Self::KeyPackage, Self::Read, Self::Refusal, Self::Session, Self::Gateway]
            .into_iter()
            .find(|family| *family as u8 == value)
            .ok_or(DecodeError::OutOfRange { field: "event family" })
    }
}

/// How long the parts of a record are kept; the numbers get their meaning from the retention schedule.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RetentionClass(pub u16);

impl RetentionClass {
    /// Audit parts: never under 180 days.
    pub const AUDIT: Self = Self(1);
}

/// One leaf. It commits to the parts without showing anything of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// What the event is about.
    pub family: EventFamily,
    /// How long its parts are kept.
    pub retention_class: RetentionClass,
    /// Hours since 1970.
    pub hour: u64,
    /// Derived from group and epoch for a commit or start, random otherwise.
    pub slot: [u8; 16],
    /// From `leaf_commitment`.
    pub commitment: Digest,
}

const VERSION: u8 = 1;

impl Leaf {
    /// version u8, family u8, retention class u16, hour u64, slot 16 bytes, commitment 32 bytes; big-endian.
    pub fn to_bytes(&self) -> [u8; LEAF_BYTES] {
        let mut writer = Writer::new();
        writer.u8(VERSION).u8(self.family as u8).u16(self.retention_class.0).u64(self.hour);
        let bytes = writer.raw(&self.slot).raw(&self.commitment.0).finish();
        bytes.try_into().expect("the fields above add up to 60 bytes")
    }

    /// Reads what [`Leaf::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not a leaf of version 1.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("leaf version")?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion { version });
        }
        let family = EventFamily::try_from(reader.u8("event family")?)?;
        let retention_class = RetentionClass(reader.u16("retention class")?);
        let hour = reader.u64("hour")?;
        let slot = reader.array("slot")?;
        let commitment = Digest(reader.array("commitment")?);
        reader.finish()?;
        Ok(Self { family, retention_class, hour, slot, commitment })
    }

    /// The leaf's hash in the tree.
    pub fn hash(&self) -> Digest {
        leaf_hash(&self.to_bytes())
    }
}

/// SHA-256(0x00, leaf bytes), RFC 6962 section 2.1.
pub fn leaf_hash(bytes: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update([0]);
    hash.update(bytes);
    Digest(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_and_back() {
        let leaf = Leaf {
            family: EventFamily::Message,
            retention_class: RetentionClass::AUDIT,
            hour: 500_000,
            slot: [0xAA; 16],
            commitment: Digest([0xBB; 32]),
        };
        let bytes = leaf.to_bytes();
        let expect = format!("01020001000000000007a120{}{}", "aa".repeat(16), "bb".repeat(32));
        assert_eq!(hex::encode(bytes), expect);
        assert_eq!(Leaf::from_bytes(&bytes), Ok(leaf));
        assert_eq!(Leaf::from_bytes(&bytes[..59]), Err(DecodeError::Truncated { field: "commitment" }));
        let mut newer = bytes;
        newer[0] = 2;
        assert_eq!(Leaf::from_bytes(&newer), Err(DecodeError::UnknownVersion { version: 2 }));
    }

    #[test]
    fn the_hash_of_an_empty_leaf_is_rfc_6962s() {
        // RFC 6962 test vector: the leaf hash of the empty string.
        let expect = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
        assert_eq!(leaf_hash(b"").to_hex(), expect);
    }
}
