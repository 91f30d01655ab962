//! A message taken apart: a tree that encodes to the same bytes until somebody changes it.

/// One field, vector or run of bytes, and what is inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// What it is, for reports and for exchanging like with like. Protobuf fields are called by their number.
    pub name: &'static str,
    /// What stands in front of it.
    pub frame: Frame,
    /// What is inside.
    pub content: Content,
    /// A length in front that is not the true one.
    pub lie: Option<Lie>,
}

/// What stands in front of a piece's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// Nothing.
    Bare,
    /// A variable-size length (RFC 9420 section 2.1.2).
    Vector,
    /// A 32-bit length, big-endian.
    Length32,
    /// Key and length of a protobuf field with this number.
    Field(u32),
    /// A protobuf field with this number and a variable-size integer: the content, eight bytes big-endian, is encoded so.
    Number(u32),
    /// A DER tag and length.
    Der(u8),
}

/// What is inside a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Bytes without a structure of their own.
    Bytes(Vec<u8>),
    /// Pieces, one after the other.
    Pieces(Vec<Piece>),
}

/// How a length in front of a piece differs from the true one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// It says nothing follows.
    Zero,
    /// One byte less.
    Shorter,
    /// One byte more.
    Longer,
    /// As much as the form of the length can say.
    Huge,
    /// The true length in a longer form than it needs.
    Padded,
}

impl Piece {
    /// Bytes with nothing in front.
    pub fn bytes(name: &'static str, bytes: &[u8]) -> Self {
        Self::leaf(name, Frame::Bare, bytes)
    }

    /// Bytes behind `frame`.
    pub fn leaf(name: &'static str, frame: Frame, bytes: &[u8]) -> Self {
        Self { name, frame, content: Content::Bytes(bytes.to_vec()), lie: None }
    }

    /// Pieces behind `frame`.
    pub fn list(name: &'static str, frame: Frame, pieces: Vec<Self>) -> Self {
        Self { name, frame, content: Content::Pieces(pieces), lie: None }
    }

    /// The encoded bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// How many pieces the tree has, this one included.
    pub fn count(&self) -> usize {
        1 + self.inner().iter().map(Self::count).sum::<usize>()
    }

    /// The pieces directly inside.
    pub fn inner(&self) -> &[Self] {
        match &self.content {
            Content::Bytes(_) => &[],
            Content::Pieces(pieces) => pieces,
        }
    }

    /// The piece at `place`, counted from this one as 0, outer before inner and in order.
    pub fn at_mut(&mut self, place: usize) -> Option<&mut Self> {
        if place == 0 {
            return Some(self);
        }
        let Content::Pieces(pieces) = &mut self.content else { return None };
        let mut left = place - 1;
        for piece in pieces {
            let count = piece.count();
            if left < count {
                return piece.at_mut(left);
            }
            left -= count;
        }
        None
    }

    /// Places of the pieces that `wanted` accepts.
    pub fn places(&self, wanted: impl Fn(&Self) -> bool) -> Vec<usize> {
        let mut found = Vec::new();
        self.visit(&mut 0, &mut |place, piece| {
            if wanted(piece) {
                found.push(place);
            }
        });
        found
    }

    fn visit(&self, place: &mut usize, see: &mut impl FnMut(usize, &Self)) {
        see(*place, self);
        *place += 1;
        for piece in self.inner() {
            piece.visit(place, see);
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut content = Vec::new();
        match &self.content {
            Content::Bytes(bytes) => content.extend_from_slice(bytes),
            Content::Pieces(pieces) => pieces.iter().for_each(|piece| piece.write(&mut content)),
        }
        match self.frame {
            Frame::Bare => {}
            Frame::Vector => write_vector_length(out, content.len(), self.lie),
            Frame::Length32 => {
                let length = told(content.len(), self.lie, u64::from(u32::MAX));
                out.extend_from_slice(&(length as u32).to_be_bytes());
            }
            Frame::Field(number) => {
                write_varint(out, u64::from(number) << 3 | 2, None);
                write_varint(out, told(content.len(), self.lie, u64::MAX), self.lie);
            }
            Frame::Number(number) => {
                write_varint(out, u64::from(number) << 3, None);
                let tail = &content[content.len().saturating_sub(8)..];
                let value = tail.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
                write_varint(out, value, self.lie);
                return;
            }
            Frame::Der(tag) => {
                out.push(tag);
                write_der_length(out, content.len(), self.lie);
            }
        }
        out.extend_from_slice(&content);
    }
}

fn told(length: usize, lie: Option<Lie>, huge: u64) -> u64 {
    let length = length as u64;
    match lie {
        None | Some(Lie::Padded) => length,
        Some(Lie::Zero) => 0,
        Some(Lie::Shorter) => length.saturating_sub(1),
        Some(Lie::Longer) => length + 1,
        Some(Lie::Huge) => huge,
    }
}

fn write_vector_length(out: &mut Vec<u8>, length: usize, lie: Option<Lie>) {
    let told = told(length, lie, (1 << 30) - 1);
    let padded = usize::from(lie == Some(Lie::Padded));
    let form = usize::from(told >= 1 << 6) + usize::from(told >= 1 << 14);
    match (form + padded).min(2) {
        0 => out.push(told as u8),
        1 => out.extend_from_slice(&(0x4000 | told as u16).to_be_bytes()),
        _ => out.extend_from_slice(&(0x8000_0000 | told as u32).to_be_bytes()),
    }
}

fn write_varint(out: &mut Vec<u8>, mut value: u64, lie: Option<Lie>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    if lie == Some(Lie::Padded) {
        out.extend_from_slice(&[value as u8 | 0x80, 0]);
    } else {
        out.push(value as u8);
    }
}

fn write_der_length(out: &mut Vec<u8>, length: usize, lie: Option<Lie>) {
    let told = told(length, lie, u64::from(u32::MAX));
    let bytes = told.to_be_bytes();
    let significant = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(7)..];
    if lie == Some(Lie::Padded) {
        out.push(0x81 + significant.len() as u8);
        out.push(0);
        out.extend_from_slice(significant);
    } else if told < 0x80 {
        out.push(told as u8);
    } else {
        out.push(0x80 | significant.len() as u8);
        out.extend_from_slice(significant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(frame: Frame, lie: Option<Lie>, length: usize) -> Vec<u8> {
        let piece = Piece { lie, ..Piece::leaf("x", frame, &vec![7; length]) };
        let bytes = piece.encode();
        bytes[..bytes.len() - length].to_vec()
    }

    #[test]
    fn lengths_are_written_as_their_formats_say() {
        assert_eq!(encoded(Frame::Vector, None, 63), [0x3F]);
        assert_eq!(encoded(Frame::Vector, None, 64), [0x40, 0x40]);
        assert_eq!(encoded(Frame::Vector, None, 16_384), [0x80, 0, 0x40, 0]);
        assert_eq!(encoded(Frame::Length32, None, 258), [0, 0, 1, 2]);
        assert_eq!(encoded(Frame::Field(1), None, 3), [0x0A, 3]);
        assert_eq!(encoded(Frame::Der(0x30), None, 127), [0x30, 0x7F]);
        assert_eq!(encoded(Frame::Der(0x30), None, 300), [0x30, 0x82, 1, 0x2C]);
    }

    #[test]
    fn a_lie_changes_the_length_and_not_the_content() {
        assert_eq!(encoded(Frame::Vector, Some(Lie::Longer), 3), [4]);
        assert_eq!(encoded(Frame::Vector, Some(Lie::Shorter), 3), [2]);
        assert_eq!(encoded(Frame::Vector, Some(Lie::Padded), 3), [0x40, 3]);
        assert_eq!(encoded(Frame::Vector, Some(Lie::Huge), 3), [0xBF, 0xFF, 0xFF, 0xFF]);
        assert_eq!(encoded(Frame::Length32, Some(Lie::Zero), 3), [0; 4]);
        assert_eq!(encoded(Frame::Der(4), Some(Lie::Padded), 3), [4, 0x82, 0, 3]);
        assert_eq!(encoded(Frame::Field(1), Some(Lie::Padded), 3), [0x0A, 0x83, 0]);
    }

    #[test]
    fn every_place_is_found() {
        let inner = Piece::list("inner", Frame::Vector, vec![Piece::bytes("b", b"b"), Piece::bytes("c", b"c")]);
        let mut tree = Piece::list("outer", Frame::Bare, vec![Piece::bytes("a", b"a"), inner, Piece::bytes("d", b"d")]);
        let names: Vec<_> = (0..tree.count()).map(|place| tree.at_mut(place).expect("inside").name).collect();
        assert_eq!(names, ["outer", "a", "inner", "b", "c", "d"]);
        assert!(tree.at_mut(6).is_none());
        assert_eq!(tree.places(|piece| piece.name == "d"), [5]);
    }
}
