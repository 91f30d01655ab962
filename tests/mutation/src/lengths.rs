//! Our own binary formats: runs of fixed fields, and fields with a 32-bit length in front. Where they are is guessed; a
//! wrong guess only makes another mutant.

use crate::{Frame, Piece};

const DEPTH_MAX: usize = 3;

/// The bytes, parted wherever 32 bits say how many bytes follow.
pub fn lengths(bytes: &[u8]) -> Piece {
    Piece::list("record", Frame::Bare, part(bytes, DEPTH_MAX))
}

fn part(bytes: &[u8], depth: usize) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at + 4 < bytes.len() {
        let length = bytes[at..].first_chunk::<4>().map(|four| u32::from_be_bytes(*four) as usize);
        match length.and_then(|length| bytes[at + 4..].get(..length)) {
            // One byte could be anything; from two on a length is worth a guess.
            Some(content) if content.len() > 1 => {
                push_fixed(&mut pieces, &bytes[start..at]);
                let inner = if depth > 0 { part(content, depth - 1) } else { Vec::new() };
                pieces.push(match inner.len() {
                    0 | 1 => Piece::leaf("field", Frame::Length32, content),
                    _ => Piece::list("field", Frame::Length32, inner),
                });
                at += 4 + content.len();
                start = at;
            }
            _ => at += 1,
        }
    }
    push_fixed(&mut pieces, &bytes[start..]);
    pieces
}

/// Fixed fields have no borders that could be seen: eight bytes are as good as any.
fn push_fixed(pieces: &mut Vec<Piece>, bytes: &[u8]) {
    pieces.extend(bytes.chunks(8).map(|chunk| Piece::bytes("fixed", chunk)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_apart_and_together() {
        let bytes = b"\x01\0\0\0\x05hello\xFF\xFF\0\0\0\x02ab";
        let piece = lengths(bytes);
        assert_eq!(piece.encode(), bytes);
        let frames: Vec<_> = piece.inner().iter().map(|one| one.frame).collect();
        assert_eq!(frames, [Frame::Bare, Frame::Length32, Frame::Bare, Frame::Length32]);
    }
}
