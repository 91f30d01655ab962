//! The GroupInfo extension 0xF0A2: the channel head that the committer had processed (PROTOCOL 3).

use lianxin_tlog::Head;
use lianxin_types::{DecodeError, Digest, Reader, Sequence, Writer};
use openmls::messages::group_info::GroupInfo;
use openmls::prelude::{Extension, Extensions, UnknownExtension};

use crate::ProfileError;

/// Private-use code point of the extension (RFC 9420 section 17.3).
pub const HEAD_EXTENSION: u16 = 0xF0A2;

/// The extension for `head`: sequence u64 big-endian, chain hash 32 bytes.
pub fn head_extension(head: &Head) -> Extension {
    Extension::Unknown(HEAD_EXTENSION, UnknownExtension(encode(head)))
}

/// The head in a GroupInfo's extensions.
///
/// # Errors
/// [`ProfileError::InvalidGroupInfo`] if the extension is missing or not 40 bytes.
pub fn read_head(extensions: &Extensions<GroupInfo>) -> Result<Head, ProfileError> {
    let found =
        extensions.unknown(HEAD_EXTENSION).ok_or(ProfileError::InvalidGroupInfo { fault: "head is missing" })?;
    decode(&found.0).map_err(|_| ProfileError::InvalidGroupInfo { fault: "head is malformed" })
}

fn encode(head: &Head) -> Vec<u8> {
    Writer::new().u64(head.sequence.0).raw(&head.chain_hash.0).finish()
}

fn decode(bytes: &[u8]) -> Result<Head, DecodeError> {
    let mut reader = Reader::new(bytes);
    let sequence = Sequence(reader.u64("sequence")?);
    let chain_hash = Digest(reader.array("chain hash")?);
    reader.finish()?;
    Ok(Head { sequence, chain_hash })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_and_back() {
        let head = Head { sequence: Sequence(258), chain_hash: Digest([0xCC; 32]) };
        let bytes = encode(&head);
        assert_eq!(hex::encode(&bytes), format!("0000000000000102{}", "cc".repeat(32)));
        assert_eq!(decode(&bytes), Ok(head));
        assert!(decode(&bytes[..39]).is_err());
        assert!(decode(&[&bytes[..], &[0]].concat()).is_err());
        let Extension::Unknown(code_point, content) = head_extension(&head) else { panic!("an unknown extension") };
        assert_eq!((code_point, content.0), (0xF0A2, bytes));
    }

    #[test]
    fn a_group_info_without_it_is_refused() {
        let found = read_head(&Extensions::empty());
        assert_eq!(found, Err(ProfileError::InvalidGroupInfo { fault: "head is missing" }));
    }
}
