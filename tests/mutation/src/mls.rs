//! MLS messages along the structures of RFC 9420, with the names that it gives them. Written from the RFC, not from a library.

mod leaf;
mod message;
mod proposal;
mod reading;

use crate::{Frame, Piece};
use reading::Reading;

/// What the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MlsKind {
    /// An MLSMessage of any wire format (section 6).
    Message,
    /// `optional<Node> ratchet_tree<V>` (section 12.4.3.3).
    Tree,
}

/// The structures of an MLS message. Bytes that are not one become one piece.
pub fn mls(kind: MlsKind, bytes: &[u8]) -> Piece {
    let mut reading = Reading::new(bytes);
    let pieces = match kind {
        MlsKind::Message => message::message(&mut reading),
        MlsKind::Tree => reading.vector("ratchet_tree", leaf::node).map(|tree| vec![tree]),
    };
    let whole = pieces.filter(|_| reading.is_empty());
    Piece::list("mls", Frame::Bare, whole.unwrap_or_else(|| vec![Piece::bytes("bytes", bytes)]))
}
