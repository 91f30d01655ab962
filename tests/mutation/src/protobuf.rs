//! Protobuf along its wire format: no description of the messages is needed, and none could be wrong.

use crate::{Frame, Piece};

/// How deep a field is taken for a message of its own.
const DEPTH_MAX: usize = 4;

/// The fields of an encoded message. A field whose bytes read as a message is taken apart too. Bytes that are not protobuf
/// become one piece.
pub fn protobuf(bytes: &[u8]) -> Piece {
    let fields = fields(bytes, DEPTH_MAX).unwrap_or_else(|| vec![Piece::bytes("bytes", bytes)]);
    Piece::list("message", Frame::Bare, fields)
}

fn fields(mut bytes: &[u8], depth: usize) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let (key, rest) = varint(bytes)?;
        let number = u32::try_from(key >> 3).ok().filter(|number| (1..=1 << 12).contains(number))?;
        let (piece, rest) = match key & 7 {
            0 => {
                let (value, rest) = varint(rest)?;
                (Piece::leaf(name(number), Frame::Number(number), &value.to_be_bytes()), rest)
            }
            2 => {
                let (length, rest) = varint(rest)?;
                let (content, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                (length_delimited(number, content, depth), rest)
            }
            _ => return None,
        };
        pieces.push(piece);
        bytes = rest;
    }
    Some(pieces)
}

fn length_delimited(number: u32, content: &[u8], depth: usize) -> Piece {
    let inner = fields(content, depth.saturating_sub(1)).filter(|inner| depth > 0 && !inner.is_empty());
    // Not every run of bytes that happens to read as fields is one, but those that encode back to themselves may be.
    match inner.map(|inner| Piece::list(name(number), Frame::Field(number), inner)) {
        Some(list) if list.encode() == Piece::leaf(name(number), Frame::Field(number), content).encode() => list,
        _ => Piece::leaf(name(number), Frame::Field(number), content),
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7F).checked_shl(7 * at as u32)?;
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

const fn name(number: u32) -> &'static str {
    const NAMES: [&str; 13] = [
        "field ?", "field 1", "field 2", "field 3", "field 4", "field 5", "field 6", "field 7", "field 8", "field 9",
        "field 10", "field 11", "field 12",
    ];
    if (number as usize) < NAMES.len() { NAMES[number as usize] } else { NAMES[0] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_apart_and_together() {
        // id "ab", nested { 1: "cd", 2: 300 }, text that is no message.
        let bytes = b"\x0A\x02ab\x12\x07\x0A\x02cd\x10\xAC\x02\x1A\x02\xFF\xFF";
        let piece = protobuf(bytes);
        assert_eq!(piece.encode(), bytes);
        let names: Vec<_> = piece.inner().iter().map(|field| (field.name, field.inner().len())).collect();
        assert_eq!(names, [("field 1", 0), ("field 2", 2), ("field 3", 0)]);
    }

    #[test]
    fn what_is_not_protobuf_stays_whole() {
        let piece = protobuf(b"\x07junk");
        assert_eq!((piece.encode(), piece.count()), (b"\x07junk".to_vec(), 2));
    }
}
