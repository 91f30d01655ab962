//! How a value lies on the disk: version 1, 24 random bytes of nonce, XChaCha20-Poly1305 ciphertext and tag. The place of
//! the value is its associated data, so a value that is moved does not open.

use std::sync::Arc;

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use lianxin_types::{Random, Writer};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{KeystoreError, StateKey};

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;

/// Where a value lies: table, kind, hashed key (or hashed owner), position.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) table: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) key: &'a [u8; 32],
    pub(crate) position: u64,
}

impl Place<'_> {
    fn to_bytes(self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(b"lianxin/keystore/place/v1\0").bytes(self.table.as_bytes()).bytes(self.kind.as_bytes());
        writer.raw(self.key).u64(self.position).finish()
    }
}

/// Seals values and hashes lookup keys, with two keys derived from the state key.
pub(crate) struct Sealer {
    cipher: XChaCha20Poly1305,
    lookup: Zeroizing<[u8; 32]>,
    random: Arc<dyn Random>,
}

impl Sealer {
    pub(crate) fn new(key: &StateKey, random: Arc<dyn Random>) -> Self {
        let derived = Hkdf::<Sha256>::new(None, key.as_bytes());
        let expand = |label: &[u8]| {
            let mut bytes = Zeroizing::new([0; 32]);
            derived.expand(label, bytes.as_mut()).expect("32 bytes are within HKDF's bound of 255 hashes");
            bytes
        };
        let seal = expand(b"lianxin/keystore/seal/v1");
        let cipher = XChaCha20Poly1305::new(seal.as_ref().into());
        Self { cipher, lookup: expand(b"lianxin/keystore/lookup/v1"), random }
    }

    /// What stands in a key column: HMAC-SHA-256 over table, kind and key, each with its length.
    pub(crate) fn lookup(&self, table: &'static str, kind: &'static str, key: &[u8]) -> [u8; 32] {
        let mut mac =
            <Hmac<Sha256> as Mac>::new_from_slice(self.lookup.as_ref()).expect("HMAC takes a key of any length");
        let framed = Writer::new().bytes(table.as_bytes()).bytes(kind.as_bytes()).bytes(key).finish();
        mac.update(&framed);
        mac.finalize().into_bytes().into()
    }

    pub(crate) fn seal(&self, place: Place<'_>, plain: &[u8]) -> Result<Vec<u8>, KeystoreError> {
        let mut nonce = [0; NONCE_BYTES];
        self.random.fill(&mut nonce);
        let payload = Payload { msg: plain, aad: &place.to_bytes() };
        let sealed = self.cipher.encrypt(XNonce::from_slice(&nonce), payload);
        let sealed = sealed.map_err(|_| KeystoreError::Encode { kind: place.kind })?;
        Ok([&[VERSION], &nonce[..], &sealed].concat())
    }

    pub(crate) fn open(&self, place: Place<'_>, stored: &[u8]) -> Result<Vec<u8>, KeystoreError> {
        let tampered = || KeystoreError::Tampered { kind: place.kind };
        let (head, sealed) = stored.split_at_checked(1 + NONCE_BYTES).ok_or_else(tampered)?;
        if head[0] != VERSION {
            return Err(tampered());
        }
        let payload = Payload { msg: sealed, aad: &place.to_bytes() };
        self.cipher.decrypt(XNonce::from_slice(&head[1..]), payload).map_err(|_| tampered())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Random for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0x2a);
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn sealer() -> Sealer {
        let mut key = [0; 32];
        key.iter_mut().zip(0..).for_each(|(byte, index)| *byte = index);
        Sealer::new(&StateKey::from_bytes(key), Arc::new(Fixed))
    }

    #[test]
    fn golden() {
        // Computed with Python's hashlib and a ChaCha20 written out by RFC 8439 and draft-irtf-cfrg-xchacha.
        let sealer = sealer();
        let key = sealer.lookup("rows", "cursor", b"channel");
        assert_eq!(hex(&key), "796b76c843d73d62e7c717dfaf8f037b6839e645b2a5118132616e428fef849c");
        let place = Place { table: "rows", kind: "cursor", key: &key, position: 7 };
        let sealed = sealer.seal(place, "廉信".as_bytes()).expect("sealed");
        assert_eq!(
            hex(&sealed),
            "012a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2aa37bd8ad2d11001ecca66040bdca6a43656b92f43a43"
        );
        assert_eq!(sealer.open(place, &sealed).expect("opens"), "廉信".as_bytes());
    }

    #[test]
    fn a_value_opens_only_whole_and_only_in_its_place() {
        let sealer = sealer();
        let place = Place { table: "rows", kind: "cursor", key: &[1; 32], position: 7 };
        let sealed = sealer.seal(place, b"value").expect("sealed");
        for cut in 0..sealed.len() {
            assert!(matches!(sealer.open(place, &sealed[..cut]), Err(KeystoreError::Tampered { kind: "cursor" })));
        }
        for byte in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[byte] ^= 1;
            assert!(sealer.open(place, &flipped).is_err(), "byte {byte}");
        }
        let elsewhere = [
            Place { table: "log", ..place },
            Place { kind: "other", ..place },
            Place { key: &[2; 32], ..place },
            Place { position: 8, ..place },
        ];
        for place in elsewhere {
            assert!(sealer.open(place, &sealed).is_err());
        }
    }
}
