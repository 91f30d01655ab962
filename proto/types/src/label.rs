//! The label of a channel: classification, purpose, legal basis, expiry. It sits in the MLS group context.

use thiserror::Error;

use crate::{DecodeError, Reader, Timestamp, Writer};

/// How sensitive a channel's content is, after GB/T 43697-2024: general data in four steps, then important data. Core
/// data, work secrets and state secrets have no level here on purpose: they are outside what Lianxin may carry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Classification {
    /// 一般数据 1 级.
    General1 = 1,
    /// 一般数据 2 级.
    General2 = 2,
    /// 一般数据 3 级.
    General3 = 3,
    /// 一般数据 4 级.
    General4 = 4,
    /// 重要数据.
    Important = 5,
}

impl TryFrom<u8> for Classification {
    type Error = DecodeError;

    fn try_from(value: u8) -> Result<Self, DecodeError> {
        [Self::General1, Self::General2, Self::General3, Self::General4, Self::Important]
            .into_iter()
            .find(|level| *level as u8 == value)
            .ok_or(DecodeError::OutOfRange { field: "classification" })
    }
}

/// Why a label is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LabelError {
    /// The purpose or the legal basis is empty or too long.
    #[error("{field} has {bytes} bytes, allowed are 1 to {bytes_max}")]
    Length {
        /// `purpose` or `legal basis`.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// The longest allowed.
        bytes_max: usize,
    },
    /// The text has control characters.
    #[error("{field} has control characters")]
    Control {
        /// `purpose` or `legal basis`.
        field: &'static str,
    },
}

/// What a channel is for. Every member agrees on it cryptographically; the gateway reads it too, so it names no person.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label {
    classification: Classification,
    purpose: String,
    legal_basis: String,
    expires: Option<Timestamp>,
}

impl Label {
    /// Longest purpose or legal basis, in bytes of UTF-8.
    pub const TEXT_BYTES_MAX: usize = 256;

    /// A label. `expires` is when the channel ends, `None` for no end.
    ///
    /// # Errors
    /// [`LabelError::Length`] if a text is empty or over [`Label::TEXT_BYTES_MAX`], [`LabelError::Control`] if it has
    /// control characters.
    pub fn new(
        classification: Classification,
        purpose: impl Into<String>,
        legal_basis: impl Into<String>,
        expires: Option<Timestamp>,
    ) -> Result<Self, LabelError> {
        let label = Self { classification, purpose: purpose.into(), legal_basis: legal_basis.into(), expires };
        for (field, text) in [("purpose", &label.purpose), ("legal basis", &label.legal_basis)] {
            if text.is_empty() || text.len() > Self::TEXT_BYTES_MAX {
                return Err(LabelError::Length { field, bytes: text.len(), bytes_max: Self::TEXT_BYTES_MAX });
            }
            if text.chars().any(char::is_control) {
                return Err(LabelError::Control { field });
            }
        }
        Ok(label)
    }

    /// How sensitive the content is.
    pub const fn classification(&self) -> Classification {
        self.classification
    }

    /// What the departments talk about, 1 to 256 bytes of UTF-8.
    pub fn purpose(&self) -> &str {
        &self.purpose
    }

    /// The rule that allows it, 1 to 256 bytes of UTF-8.
    pub fn legal_basis(&self) -> &str {
        &self.legal_basis
    }

    /// When the channel ends; `None` for no end.
    pub const fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    /// Whether the channel has ended at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|end| now >= end)
    }

    /// Appends: classification u8, expiry u64 in microseconds (0 for none), purpose and legal basis with their lengths.
    pub fn write(&self, to: &mut Writer) {
        to.u8(self.classification as u8).u64(self.expires.map_or(0, |end| end.0));
        to.bytes(self.purpose.as_bytes()).bytes(self.legal_basis.as_bytes());
    }

    /// Takes what [`Label::write`] appended.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that [`Label::write`] does not write.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let classification = Classification::try_from(from.u8("classification")?)?;
        let expires = from.u64("label expiry")?;
        let purpose = from.text("purpose", Self::TEXT_BYTES_MAX)?;
        let legal_basis = from.text("legal basis", Self::TEXT_BYTES_MAX)?;
        let expires = (expires != 0).then_some(Timestamp(expires));
        Self::new(classification, purpose, legal_basis, expires).map_err(|_| DecodeError::OutOfRange { field: "label" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_and_back() {
        let label = Label::new(Classification::General3, "联合核查", "审计法", Some(Timestamp(9))).expect("valid");
        let mut writer = Writer::new();
        label.write(&mut writer);
        let bytes = writer.finish();
        assert_eq!(
            hex::encode(&bytes),
            "030000000000000009\
             0000000ce88194e59088e6a0b8e69fa5\
             00000009e5aea1e8aea1e6b395"
        );
        let mut reader = Reader::new(&bytes);
        assert_eq!(Label::read(&mut reader), Ok(label));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn texts_have_bounds() {
        let new = |purpose: &str| Label::new(Classification::General1, purpose, "x", None).map(|_| ());
        assert_eq!(new(""), Err(LabelError::Length { field: "purpose", bytes: 0, bytes_max: 256 }));
        assert_eq!(new(&"x".repeat(256)), Ok(()));
        assert_eq!(new(&"x".repeat(257)), Err(LabelError::Length { field: "purpose", bytes: 257, bytes_max: 256 }));
        assert_eq!(new("a\u{7}"), Err(LabelError::Control { field: "purpose" }));
    }

    #[test]
    fn there_is_no_level_for_secrets() {
        assert!(Classification::try_from(0).is_err());
        assert!(Classification::try_from(6).is_err());
    }

    #[test]
    fn an_end_is_exclusive() {
        let label = Label::new(Classification::General1, "a", "b", Some(Timestamp(10))).expect("valid");
        assert!(!label.is_expired(Timestamp(9)));
        assert!(label.is_expired(Timestamp(10)));
    }
}
