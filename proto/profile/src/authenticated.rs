//! The authenticated data of what members send: the last head that the sender has processed (PROTOCOL 4).

use lianxin_tlog::Head;
use lianxin_types::{DecodeError, Digest, Reader, Sequence, Writer};

/// Bytes of the authenticated data.
pub const AUTHENTICATED_DATA_BYTES: usize = 41;

const VERSION: u8 = 1;

/// The head that the sender had processed; the same for commits, proposals and application messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuthenticatedData {
    /// Last sequence processed, and the chain hash there.
    pub head: Head,
}

impl AuthenticatedData {
    /// version u8, sequence u64, chain hash 32 bytes; big-endian.
    pub fn to_bytes(&self) -> [u8; AUTHENTICATED_DATA_BYTES] {
        let bytes = Writer::new().u8(VERSION).u64(self.head.sequence.0).raw(&self.head.chain_hash.0).finish();
        bytes.try_into().expect("the fields above add up to 41 bytes")
    }

    /// Reads what [`AuthenticatedData::to_bytes`] wrote, and nothing else.
    ///
    /// # Errors
    /// [`DecodeError`] for every other length or version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("authenticated data version")?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion { version });
        }
        let sequence = Sequence(reader.u64("sequence")?);
        let chain_hash = Digest(reader.array("chain hash")?);
        reader.finish()?;
        Ok(Self { head: Head { sequence, chain_hash } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_and_back() {
        let data = AuthenticatedData { head: Head { sequence: Sequence(515), chain_hash: Digest([0xAB; 32]) } };
        let bytes = data.to_bytes();
        assert_eq!(hex::encode(bytes), format!("010000000000000203{}", "ab".repeat(32)));
        assert_eq!(AuthenticatedData::from_bytes(&bytes), Ok(data));
    }

    #[test]
    fn other_bytes_are_refused() {
        let bytes = AuthenticatedData { head: Head { sequence: Sequence(1), chain_hash: Digest::ZERO } }.to_bytes();
        for cut in 0..bytes.len() {
            assert!(AuthenticatedData::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(AuthenticatedData::from_bytes(&longer), Err(DecodeError::Trailing { count: 1 }));
        let mut newer = bytes;
        newer[0] = 2;
        assert_eq!(AuthenticatedData::from_bytes(&newer), Err(DecodeError::UnknownVersion { version: 2 }));
    }
}
