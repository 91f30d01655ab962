//! Reading of RFC 9420's presentation language into pieces.

use crate::{Frame, Piece};

/// Bytes that are still to be read.
pub(super) struct Reading<'a>(&'a [u8]);

impl<'a> Reading<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A field of fixed size.
    pub(super) fn fixed(&mut self, name: &'static str, bytes: usize) -> Option<Piece> {
        Some(Piece::bytes(name, self.take(bytes)?))
    }

    /// An integer of `bytes` bytes, and its value.
    pub(super) fn number(&mut self, name: &'static str, bytes: usize) -> Option<(Piece, u64)> {
        let taken = self.take(bytes)?;
        let value = taken.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        Some((Piece::bytes(name, taken), value))
    }

    /// The content of a vector.
    fn content(&mut self) -> Option<&'a [u8]> {
        let first = usize::from(*self.0.first()?);
        let form = match first >> 6 {
            0 => 1,
            1 => 2,
            2 => 4,
            _ => return None,
        };
        let length = self.take(form)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        self.take(length & ((1 << (8 * form - 2)) - 1))
    }

    /// `opaque name<V>`.
    pub(super) fn opaque(&mut self, name: &'static str) -> Option<Piece> {
        Some(Piece::leaf(name, Frame::Vector, self.content()?))
    }

    /// A vector of what `item` reads.
    pub(super) fn vector(
        &mut self,
        name: &'static str,
        item: impl Fn(&mut Reading<'_>) -> Option<Piece>,
    ) -> Option<Piece> {
        let mut inside = Reading(self.content()?);
        let mut pieces = Vec::new();
        while !inside.is_empty() {
            pieces.push(item(&mut inside)?);
        }
        Some(Piece::list(name, Frame::Vector, pieces))
    }

    /// `optional<T>`.
    pub(super) fn optional(&mut self, name: &'static str, item: impl Fn(&mut Self) -> Option<Piece>) -> Option<Piece> {
        let (present, value) = self.number("present", 1)?;
        let mut pieces = vec![present];
        if value == 1 {
            pieces.push(item(self)?);
        }
        Some(Piece::list(name, Frame::Bare, pieces))
    }
}
