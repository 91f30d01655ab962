//! Ids, sequence numbers and digests (PROTOCOL 2, 9). Debug output never shows a whole id: it ends up in logs.

use std::fmt;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Why bytes are not an id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} is {expected} bytes, found {found}")]
pub struct InvalidId {
    /// Which id.
    pub what: &'static str,
    /// Its length in bytes.
    pub expected: usize,
    /// The length found.
    pub found: usize,
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $length:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $length]);

        impl $name {
            /// Its length in bytes.
            pub const LENGTH: usize = $length;

            /// The id as it stands on the wire.
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }

            /// The id in lower-case hexadecimal, whole: for the one who owns it, never for a log.
            pub fn to_hex(&self) -> String {
                hex::encode(self.0)
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = InvalidId;

            fn try_from(bytes: &[u8]) -> Result<Self, InvalidId> {
                let found = bytes.len();
                <[u8; $length]>::try_from(bytes).map($name).map_err(|_| InvalidId { what: $what, expected: $length, found })
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}:{}", $what, short(&self.0))
            }
        }
    };
}

byte_id!(
    /// A channel: 16 random bytes from its creator (PROTOCOL 2).
    ChannelId, 16, "channel id"
);
byte_id!(
    /// Names one call of one device so that a repeat is recognised: 16 random bytes (PROTOCOL 2, 7).
    IdempotencyId, 16, "idempotency id"
);
byte_id!(
    /// A SHA-256 value.
    Digest, 32, "digest"
);

impl Digest {
    /// All zero: stands for "nothing yet" where a format says so.
    pub const ZERO: Self = Self([0; 32]);

    /// SHA-256 of `bytes`, without a label.
    pub fn sha256(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

/// SHA-256 over an ASCII label, a zero byte, and the parts in order (PROTOCOL 9). Callers frame the parts themselves.
pub fn labelled_sha256(label: &str, parts: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(label.as_bytes());
    hash.update([0]);
    for part in parts {
        hash.update(part);
    }
    Digest(hash.finalize().into())
}

/// The first three bytes of a salted hash: enough to follow an id through one process's log, not to name it. The salt is
/// drawn once per process, so two logs cannot be joined on it.
fn short(bytes: &[u8]) -> String {
    static SALT: std::sync::OnceLock<[u8; 16]> = std::sync::OnceLock::new();
    let salt = SALT.get_or_init(|| (&crate::SystemRandom as &dyn crate::Random).array());
    hex::encode(&labelled_sha256("lianxin/debug-id/v1", &[salt, bytes]).0[..3])
}

/// Position of an event in a channel's log: dense, from 1, over all incarnations (PROTOCOL 2). Zero is "before the first".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The next position. No channel reaches 2^64 - 1; what somebody claims to be there has itself as the next.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// An MLS epoch (RFC 9420 section 8.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Epoch(pub u64);

/// Which MLS group carries the channel: 0 for the first, one more for each group that replaced a broken one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Incarnation(pub u32);

/// The MLS group id of a channel's incarnation: channel id, then the incarnation as 32 bits big-endian (PROTOCOL 2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GroupId {
    /// The channel.
    pub channel: ChannelId,
    /// Its incarnation.
    pub incarnation: Incarnation,
}

impl GroupId {
    /// The 20 bytes on the wire.
    pub fn to_bytes(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..16].copy_from_slice(&self.channel.0);
        bytes[16..].copy_from_slice(&self.incarnation.0.to_be_bytes());
        bytes
    }
}

impl TryFrom<&[u8]> for GroupId {
    type Error = InvalidId;

    fn try_from(bytes: &[u8]) -> Result<Self, InvalidId> {
        let found = bytes.len();
        let bytes = <[u8; 20]>::try_from(bytes).map_err(|_| InvalidId { what: "group id", expected: 20, found })?;
        let (channel, incarnation) = bytes.split_at(16);
        let mut number = [0; 4];
        number.copy_from_slice(incarnation);
        Ok(Self { channel: ChannelId::try_from(channel)?, incarnation: Incarnation(u32::from_be_bytes(number)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_id_is_the_channel_and_its_incarnation() {
        let id = GroupId { channel: ChannelId([7; 16]), incarnation: Incarnation(258) };
        assert_eq!(hex::encode(id.to_bytes()), "0707070707070707070707070707070700000102");
        assert_eq!(GroupId::try_from(&id.to_bytes()[..]), Ok(id));
        assert_eq!(GroupId::try_from(&[0; 19][..]), Err(InvalidId { what: "group id", expected: 20, found: 19 }));
    }

    #[test]
    fn debug_shows_a_short_hash_only() {
        let id = ChannelId([0xAB; 16]);
        let shown = format!("{id:?}");
        assert!(!shown.contains("abab"), "{shown}");
        assert_eq!(shown.len(), "channel id:".len() + 6);
    }

    #[test]
    fn labelled_hash_golden() {
        let digest = labelled_sha256("lianxin/test/v1", &[b"a", b"b"]);
        assert_eq!(digest, Digest::sha256(b"lianxin/test/v1\0ab"));
    }
}
