//! What an honest engine never makes.

use ed25519_dalek::{Signer as _, SigningKey};

/// Signature of 64 bytes with its length.
const SIGNATURE_BYTES: usize = 66;
/// Version and wire format of an MLSMessage (RFC 9420 section 6).
const HEADER_BYTES: usize = 4;
/// Extension `external_pub`: type 4, 33 bytes, a key of 32 with its length.
const EXTERNAL_PUB: [u8; 4] = [0, 4, 33, 32];

/// A commit whose confirmation tag is wrong, which is its last field: only members can see it (RFC 9420 section 6.1).
pub(crate) fn unconfirmed(commit: &mut [u8]) {
    if let Some(last) = commit.last_mut() {
        *last ^= 1;
    }
}

/// A GroupInfo whose `external_pub` is a point of small order: nothing can be encrypted to it (RFC 7748 section 6.1), so nobody comes
/// in from outside. Signed again, so that it verifies. `None` if it has no `external_pub`.
pub(crate) fn without_way_back(group_info: &[u8], key: &SigningKey) -> Option<Vec<u8>> {
    let mut content = group_info.get(..group_info.len().checked_sub(SIGNATURE_BYTES)?)?.to_vec();
    let at = content.windows(EXTERNAL_PUB.len()).rposition(|four| four == EXTERNAL_PUB)? + EXTERNAL_PUB.len();
    content.get_mut(at..at + 32)?.fill(0);
    // SignWithLabel, RFC 9420 section 5.1.2.
    let to_sign = [vector(b"MLS 1.0 GroupInfoTBS"), vector(content.get(HEADER_BYTES..)?)].concat();
    content.extend(vector(&key.sign(&to_sign).to_bytes()));
    Some(content)
}

/// Bytes with their length in front (RFC 9420 section 2.1.2); below 16 KiB.
fn vector(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len() as u16;
    let prefix = if length < 64 { vec![length as u8] } else { (length | 0x4000).to_be_bytes().to_vec() };
    [&prefix[..], bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_as_rfc_9420_writes_them() {
        assert_eq!(vector(&[7; 37])[..2], [37, 7]);
        assert_eq!(vector(&[7; 64])[..3], [0x40, 64, 7]);
        assert_eq!(vector(&[7; 15_293])[..3], [0x7b, 0xbd, 7]);
    }

    #[test]
    fn what_has_no_external_pub_is_nothing() {
        let key = SigningKey::from_bytes(&[7; 32]);
        assert_eq!(without_way_back(&[0; 200], &key), None);
        assert_eq!(without_way_back(&[0; 10], &key), None);
    }
}
