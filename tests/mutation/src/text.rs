//! Text: notes and JSON, parted into words and marks.

use crate::{Frame, Piece};

/// The text, parted at every mark of JSON, newline and space.
pub fn text(bytes: &[u8]) -> Piece {
    let mut pieces = Vec::new();
    let mut start = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if b"{}[]:,\"\n ".contains(byte) {
            push(&mut pieces, &bytes[start..at]);
            pieces.push(Piece::bytes("mark", &bytes[at..=at]));
            start = at + 1;
        }
    }
    push(&mut pieces, &bytes[start..]);
    Piece::list("text", Frame::Bare, pieces)
}

fn push(pieces: &mut Vec<Piece>, word: &[u8]) {
    if !word.is_empty() {
        pieces.push(Piece::bytes("word", word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_apart_and_together() {
        let piece = text(br#"{"a":[1,"b"]}"#);
        assert_eq!(piece.encode(), br#"{"a":[1,"b"]}"#);
        let words = piece.inner().iter().filter(|one| one.name == "word").count();
        assert_eq!(words, 3);
    }
}
