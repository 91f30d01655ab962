//! What is encrypted: the intent id, the body, and padding to a size step, so that the ciphertext's length tells little.

use lianxin_types::{DecodeError, IdempotencyId, LIMITS, Reader, Writer};
use thiserror::Error;

/// Why a payload is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// The bytes are not the format.
    #[error("not a message payload")]
    Decode(#[from] DecodeError),
    /// The body is longer than `LIMITS.message_body_bytes_max`.
    #[error("body has {bytes} bytes, allowed are {bytes_max}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The longest allowed.
        bytes_max: usize,
    },
    /// The padding is not zero, or the whole is not of the size step that belongs to the body.
    #[error("padding is not as the profile demands")]
    Padding,
}

/// Plaintext of one application message.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    /// The sender's intent; recipients drop a repeat of it (PROTOCOL 7).
    pub intent: IdempotencyId,
    /// What the application sent, 0 to 64 KiB.
    pub body: Vec<u8>,
}

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 1 + IdempotencyId::LENGTH + 4;
const STEP_SMALLEST: usize = 256;
const STEP_LARGE: usize = 4096;

impl Payload {
    /// version u8, intent 16 bytes, body length u32 and body, then zero bytes up to the size step: 256, 512, 1024, 2048,
    /// 4096, above that multiples of 4096.
    ///
    /// # Errors
    /// [`PayloadError::TooLarge`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, PayloadError> {
        let (bytes, bytes_max) = (self.body.len(), LIMITS.message_body_bytes_max);
        if bytes > bytes_max {
            return Err(PayloadError::TooLarge { bytes, bytes_max });
        }
        let mut written = Writer::new().u8(VERSION).raw(&self.intent.0).bytes(&self.body).finish();
        written.resize(step(written.len()), 0);
        Ok(written)
    }

    /// Reads what [`Payload::to_bytes`] wrote, and nothing else.
    ///
    /// # Errors
    /// [`PayloadError::Decode`] for other bytes, [`PayloadError::Padding`] for padding of another value or length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PayloadError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("payload version")?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion { version }.into());
        }
        let intent = IdempotencyId(reader.array("intent id")?);
        let body = reader.bytes("body", LIMITS.message_body_bytes_max)?;
        let used = HEADER_BYTES + body.len();
        if bytes.len() != step(used) || bytes[used..].iter().any(|byte| *byte != 0) {
            return Err(PayloadError::Padding);
        }
        Ok(Self { intent, body: body.to_vec() })
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Payload").field("intent", &self.intent).field("body_bytes", &self.body.len()).finish()
    }
}

/// The smallest step that holds `bytes`.
fn step(bytes: usize) -> usize {
    if bytes <= STEP_LARGE { bytes.next_power_of_two().max(STEP_SMALLEST) } else { bytes.next_multiple_of(STEP_LARGE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(body: Vec<u8>) -> Payload {
        Payload { intent: IdempotencyId([7; 16]), body }
    }

    #[test]
    fn golden_and_back() {
        let bytes = payload("你好".into()).to_bytes().expect("short");
        assert_eq!(bytes.len(), 256);
        assert_eq!(hex::encode(&bytes[..27]), format!("01{}00000006e4bda0e5a5bd", "07".repeat(16)));
        assert!(bytes[27..].iter().all(|byte| *byte == 0));
        assert_eq!(Payload::from_bytes(&bytes), Ok(payload("你好".into())));
    }

    #[test]
    fn sizes_follow_the_steps() {
        let padded = |body: usize| payload(vec![1; body]).to_bytes().expect("within the limit").len();
        assert_eq!([padded(0), padded(235), padded(236)], [256, 256, 512]);
        assert_eq!([padded(4075), padded(4076), padded(8171), padded(8172)], [4096, 8192, 8192, 12288]);
        assert_eq!(padded(65_536), 69_632);
        let refused = payload(vec![1; 65_537]).to_bytes();
        assert_eq!(refused, Err(PayloadError::TooLarge { bytes: 65_537, bytes_max: 65_536 }));
        assert!(padded(65_536) < LIMITS.message_mls_bytes_max);
    }

    #[test]
    fn other_bytes_are_refused() {
        let bytes = payload(vec![1; 10]).to_bytes().expect("short");
        let mut noisy = bytes.clone();
        noisy[255] = 1;
        assert_eq!(Payload::from_bytes(&noisy), Err(PayloadError::Padding));
        let longer = [&bytes[..], &[0; 256]].concat();
        assert_eq!(Payload::from_bytes(&longer), Err(PayloadError::Padding));
        assert_eq!(Payload::from_bytes(&bytes[..255]), Err(PayloadError::Padding));
        let mut newer = bytes.clone();
        newer[0] = 2;
        assert_eq!(Payload::from_bytes(&newer), Err(DecodeError::UnknownVersion { version: 2 }.into()));
        let mut huge = bytes;
        huge[17..21].copy_from_slice(&65_537u32.to_be_bytes());
        assert_eq!(Payload::from_bytes(&huge), Err(DecodeError::OutOfRange { field: "body" }.into()));
        assert!(Payload::from_bytes(&[]).is_err());
    }
}
