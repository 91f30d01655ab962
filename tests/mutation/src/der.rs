//! DER: certificates and revocation lists.

use crate::{Frame, Piece};

const DEPTH_MAX: usize = 16;
const CONSTRUCTED: u8 = 0x20;

/// The elements of DER bytes; bytes that are not DER become one piece.
pub fn der(bytes: &[u8]) -> Piece {
    let elements = elements(bytes, DEPTH_MAX).unwrap_or_else(|| vec![Piece::bytes("bytes", bytes)]);
    Piece::list("der", Frame::Bare, elements)
}

fn elements(mut bytes: &[u8], depth: usize) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    while let Some((tag, rest)) = bytes.split_first() {
        let (length, rest) = length(rest)?;
        let (content, rest) = rest.split_at_checked(length)?;
        let inner = (tag & CONSTRUCTED != 0 && depth > 0).then(|| elements(content, depth - 1)).flatten();
        pieces.push(match inner {
            Some(inner) => Piece::list("element", Frame::Der(*tag), inner),
            None => Piece::leaf("value", Frame::Der(*tag), content),
        });
        bytes = rest;
    }
    Some(pieces)
}

fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    if *first < 0x80 {
        return Some((usize::from(*first), rest));
    }
    let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
    let value = (digits.len() <= 4).then(|| digits.iter().fold(0, |value, digit| value << 8 | usize::from(*digit)));
    Some((value?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_apart_and_together() {
        let bytes = b"\x30\x08\x02\x01\x05\x30\x03\x04\x01x";
        let piece = der(bytes);
        assert_eq!(piece.encode(), bytes);
        assert_eq!(piece.count(), 5);
        assert_eq!(der(b"\x30\x09\x02").count(), 2, "not DER");
    }
}
