//! Fixed binary formats: big-endian integers, byte strings with a 32-bit length in front. Every stored or signed
//! binary format of Lianxin that is not MLS or protobuf is written with these two.

use thiserror::Error;

/// Why stored or received bytes are not the format that they should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes end before the field does.
    #[error("bytes end inside {field}")]
    Truncated {
        /// The field that is cut.
        field: &'static str,
    },
    /// Bytes are left over behind the last field.
    #[error("{count} bytes follow the last field")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// A version that this build does not know.
    #[error("unknown format version {version}")]
    UnknownVersion {
        /// The version found.
        version: u8,
    },
    /// A field holds a value outside its range.
    #[error("{field} is out of range")]
    OutOfRange {
        /// The field.
        field: &'static str,
    },
}

/// Appends fields to a byte vector.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// The bytes as they are; the reader must know their number.
    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(value);
        self
    }

    /// A 32-bit length, then the bytes.
    ///
    /// # Panics
    /// If `value` is 4 GiB or longer; every length is bounded far below that before it gets here.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        let length = u32::try_from(value.len()).expect("limits keep every field below 4 GiB");
        self.u32(length).raw(value)
    }

    /// What has been written.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

/// Takes fields from the front of a byte slice.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the first byte of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if fewer are left.
    pub fn raw(&mut self, field: &'static str, count: usize) -> Result<&'a [u8], DecodeError> {
        let (value, rest) = self.rest.split_at_checked(count).ok_or(DecodeError::Truncated { field })?;
        self.rest = rest;
        Ok(value)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if fewer are left.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.raw(field, N)?);
        Ok(array)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] at the end.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(field)?[0])
    }

    /// Two bytes, big-endian.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if fewer are left.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    /// Four bytes, big-endian.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if fewer are left.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    /// Eight bytes, big-endian.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if fewer are left.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// A 32-bit length of at most `bytes_max`, then that many bytes.
    ///
    /// # Errors
    /// [`DecodeError::OutOfRange`] if the length exceeds `bytes_max`, [`DecodeError::Truncated`] if fewer are left.
    pub fn bytes(&mut self, field: &'static str, bytes_max: usize) -> Result<&'a [u8], DecodeError> {
        let length = self.u32(field)? as usize;
        if length > bytes_max {
            return Err(DecodeError::OutOfRange { field });
        }
        self.raw(field, length)
    }

    /// As [`Reader::bytes`], and valid UTF-8.
    ///
    /// # Errors
    /// As [`Reader::bytes`]; [`DecodeError::OutOfRange`] if it is not UTF-8.
    pub fn text(&mut self, field: &'static str, bytes_max: usize) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(field, bytes_max)?).map_err(|_| DecodeError::OutOfRange { field })
    }

    /// Whether every byte has been taken.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Nothing may follow the last field.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] if something does.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing { count: self.rest.len() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let bytes = Writer::new().u8(1).u16(2).u32(3).u64(4).bytes(b"abc").raw(&[9; 4]).finish();
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.u8("a"), reader.u16("b"), reader.u32("c"), reader.u64("d")), (Ok(1), Ok(2), Ok(3), Ok(4)));
        assert_eq!(reader.bytes("e", 3), Ok(&b"abc"[..]));
        assert_eq!(reader.array::<4>("f"), Ok([9; 4]));
        assert_eq!(reader.finish(), Ok(()));
        for cut in 0..bytes.len() {
            let mut reader = Reader::new(&bytes[..cut]);
            let all = reader.raw("head", 15).and_then(|_| reader.bytes("e", 3)).and_then(|_| reader.raw("f", 4));
            assert!(matches!(all, Err(DecodeError::Truncated { .. })), "cut at {cut}");
        }
        assert_eq!(Reader::new(&[0, 0, 0, 4, 1, 2, 3, 4]).bytes("e", 3), Err(DecodeError::OutOfRange { field: "e" }));
        assert_eq!(Reader::new(&[1]).finish(), Err(DecodeError::Trailing { count: 1 }));
    }
}
