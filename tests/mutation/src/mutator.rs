//! From a message to a mutant of it.

use crate::{Content, Frame, Lie, Piece, Seeded};

/// How deep and how often a piece is repeated at most: enough for a recursion or a quadratic loop to show.
const REPEATS_MAX: usize = 400;
/// A mutant is never longer: parsers refuse by size before this, so more would only show the size check again.
const MUTANT_BYTES_MAX: usize = 256 * 1024;

/// Changed bytes, and what was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutant {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What was done, and to which piece, for a report.
    pub how: Vec<(&'static str, &'static str)>,
}

/// Makes mutants from a seed.
#[derive(Debug, Clone)]
pub struct Mutator {
    random: Seeded,
}

type TreeChange = fn(&mut Mutator, &mut Piece, &Piece) -> Option<&'static str>;
type ByteChange = fn(&mut Mutator, &mut Vec<u8>);

const TREE_CHANGES: &[(&str, TreeChange)] = &[
    ("flip a bit", |mutator, tree, _| mutator.change_bytes(tree, |mutator, bytes| mutator.flip(bytes))),
    ("all zero", |mutator, tree, _| mutator.change_bytes(tree, |_, bytes| bytes.fill(0))),
    ("all ones", |mutator, tree, _| mutator.change_bytes(tree, |_, bytes| bytes.fill(0xFF))),
    ("cut", |mutator, tree, _| mutator.change_bytes(tree, Mutator::cut)),
    ("lengthen", |mutator, tree, _| mutator.change_bytes(tree, Mutator::lengthen)),
    ("next number", |mutator, tree, _| mutator.change_bytes(tree, |mutator, bytes| mutator.step(bytes))),
    ("drop", |mutator, tree, _| mutator.change_list(tree, |_, pieces, at| drop(pieces.remove(at)))),
    ("duplicate", |mutator, tree, _| mutator.change_list(tree, |_, pieces, at| pieces.insert(at, pieces[at].clone()))),
    ("swap", |mutator, tree, _| {
        mutator.change_list(tree, |mutator, pieces, at| {
            let other = mutator.random.below(pieces.len());
            pieces.swap(at, other);
        })
    }),
    ("repeat", |mutator, tree, _| mutator.change_list(tree, Mutator::repeat)),
    ("empty", |mutator, tree, _| mutator.change_any(tree, |_, piece| piece.content = Content::Bytes(Vec::new()))),
    ("nest", |mutator, tree, _| mutator.change_any(tree, Mutator::nest)),
    ("lie about the length", |mutator, tree, _| mutator.lie(tree)),
    ("exchange", Mutator::exchange),
];

const BYTE_CHANGES: &[(&str, ByteChange)] = &[
    ("flip a bit", |mutator, bytes| mutator.flip(bytes)),
    ("cut", Mutator::cut),
    ("lengthen", Mutator::lengthen),
    ("set a number", |mutator, bytes| mutator.set_number(bytes)),
    ("remove a run", |mutator, bytes| {
        let (start, end) = mutator.run(bytes.len());
        bytes.drain(start..end);
    }),
    ("repeat a run", |mutator, bytes| {
        let (start, end) = mutator.run(bytes.len());
        let run = bytes[start..end].to_vec();
        bytes.splice(end..end, run);
    }),
    ("insert", |mutator, bytes| {
        let at = mutator.random.below(bytes.len() + 1);
        let count = 1 + mutator.random.below(8);
        let inserted = mutator.random.bytes(count);
        bytes.splice(at..at, inserted);
    }),
];

impl Mutator {
    /// A mutator whose mutants follow from `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { random: Seeded::new(seed) }
    }

    /// A mutator for one case among many.
    pub fn of_case(seed: u64, subject: &str, number: u64) -> Self {
        Self { random: Seeded::of_case(seed, subject, number) }
    }

    /// A mutant of `message`; pieces of `donor` may take the place of its own. One in sixteen is noise of no message at
    /// all; most of the others keep their lengths true.
    pub fn mutate(&mut self, message: &Piece, donor: &Piece) -> Mutant {
        match self.random.below(16) {
            0 => Mutant { bytes: self.noise(), how: vec![("noise", "everything")] },
            1..4 => self.mutate_bytes(message.encode()),
            4 => {
                let mutant = self.mutate_tree(message, donor);
                let again = self.mutate_bytes(mutant.bytes);
                Mutant { how: [mutant.how, again.how].concat(), ..again }
            }
            _ => self.mutate_tree(message, donor),
        }
    }

    /// A mutant whose lengths are true unless the change is a lie about one.
    pub fn mutate_tree(&mut self, message: &Piece, donor: &Piece) -> Mutant {
        let mut tree = message.clone();
        let mut how = Vec::new();
        for _ in 0..=self.random.below(3) / 2 {
            let (name, change) = TREE_CHANGES[self.random.below(TREE_CHANGES.len())];
            how.extend(change(self, &mut tree, donor).map(|piece| (name, piece)));
        }
        Mutant { bytes: bounded(tree.encode()), how }
    }

    /// A mutant that does not know where anything begins.
    pub fn mutate_bytes(&mut self, mut bytes: Vec<u8>) -> Mutant {
        let mut how = Vec::new();
        for _ in 0..=self.random.below(3) {
            let (name, change) = BYTE_CHANGES[self.random.below(BYTE_CHANGES.len())];
            change(self, &mut bytes);
            how.push((name, "bytes"));
        }
        Mutant { bytes: bounded(bytes), how }
    }

    /// Random bytes, mostly few.
    pub fn noise(&mut self) -> Vec<u8> {
        let count = [8, 64, 512, 8192][self.random.below(4)];
        let count = self.random.below(count);
        self.random.bytes(count)
    }

    fn change_bytes(&mut self, tree: &mut Piece, change: impl Fn(&mut Self, &mut Vec<u8>)) -> Option<&'static str> {
        let places = tree.places(|piece| matches!(&piece.content, Content::Bytes(bytes) if !bytes.is_empty()));
        let piece = self.pick(tree, &places)?;
        if let Content::Bytes(bytes) = &mut piece.content {
            change(self, bytes);
        }
        Some(piece.name)
    }

    fn change_list(
        &mut self,
        tree: &mut Piece,
        change: impl Fn(&mut Self, &mut Vec<Piece>, usize),
    ) -> Option<&'static str> {
        let places = tree.places(|piece| !piece.inner().is_empty());
        let piece = self.pick(tree, &places)?;
        let Content::Pieces(pieces) = &mut piece.content else { return None };
        let at = self.random.below(pieces.len());
        let name = pieces[at].name;
        change(self, pieces, at);
        Some(name)
    }

    fn change_any(&mut self, tree: &mut Piece, change: impl Fn(&mut Self, &mut Piece)) -> Option<&'static str> {
        let places = tree.places(|_| true);
        let piece = self.pick(tree, &places)?;
        change(self, piece);
        Some(piece.name)
    }

    fn pick<'tree>(&mut self, tree: &'tree mut Piece, places: &[usize]) -> Option<&'tree mut Piece> {
        tree.at_mut(*places.get(self.random.below(places.len()))?)
    }

    fn lie(&mut self, tree: &mut Piece) -> Option<&'static str> {
        let places = tree.places(|piece| piece.frame != Frame::Bare);
        let lies = [Lie::Zero, Lie::Shorter, Lie::Longer, Lie::Huge, Lie::Padded];
        let lie = lies[self.random.below(lies.len())];
        let piece = self.pick(tree, &places)?;
        piece.lie = Some(lie);
        Some(piece.name)
    }

    /// A piece of the donor in the place of one that bears the same name.
    fn exchange(&mut self, tree: &mut Piece, donor: &Piece) -> Option<&'static str> {
        let mut donor = donor.clone();
        let places = donor.places(|_| true);
        let given = self.pick(&mut donor, &places)?.clone();
        let places = tree.places(|piece| piece.name == given.name);
        let taken = self.pick(tree, &places)?;
        *taken = given;
        Some(taken.name)
    }

    /// A piece inside itself, inside itself, and so on.
    fn nest(&mut self, piece: &mut Piece) {
        let inner = piece.clone();
        let size = inner.encode().len().max(1);
        let depth = 1 + self.random.below((MUTANT_BYTES_MAX / size).min(REPEATS_MAX));
        // Around the content only, so that each level costs its frame and not the content again.
        for _ in 0..depth {
            let content = std::mem::replace(&mut piece.content, Content::Bytes(Vec::new()));
            piece.content = Content::Pieces(vec![Piece { content, lie: None, ..inner.clone() }]);
            if piece.frame == Frame::Bare {
                // Without a frame a level would not be seen in the bytes.
                piece.content = Content::Pieces(vec![inner.clone(), inner]);
                return;
            }
        }
    }

    fn repeat(&mut self, pieces: &mut Vec<Piece>, at: usize) {
        let size = pieces[at].encode().len().max(1);
        let times = 1 + self.random.below((MUTANT_BYTES_MAX / size).min(REPEATS_MAX));
        let repeated = vec![pieces[at].clone(); times];
        pieces.splice(at..at, repeated);
    }

    fn flip(&mut self, bytes: &mut [u8]) {
        if !bytes.is_empty() {
            let at = self.random.below(bytes.len());
            bytes[at] ^= 1 << self.random.below(8);
        }
    }

    fn cut(&mut self, bytes: &mut Vec<u8>) {
        bytes.truncate(self.random.below(bytes.len()));
    }

    fn lengthen(&mut self, bytes: &mut Vec<u8>) {
        let count = [1, 1, 16, 1024][self.random.below(4)];
        bytes.extend(self.random.bytes(count));
    }

    /// The neighbour of a number: one more or one less in the last byte.
    fn step(&mut self, bytes: &mut [u8]) {
        if let Some(last) = bytes.last_mut() {
            *last = if self.random.below(2) == 0 { last.wrapping_add(1) } else { last.wrapping_sub(1) };
        }
    }

    /// A number that parsers are known to stumble over, anywhere.
    fn set_number(&mut self, bytes: &mut [u8]) {
        let width = 1 << self.random.below(4);
        if bytes.len() < width {
            return;
        }
        let at = self.random.below(bytes.len() - width + 1);
        let length = bytes.len() as u64;
        let numbers = [0, 1, 0x7F, 0x80, 0x3FFF, 0xFFFF, u64::from(u32::MAX), u64::MAX, length, length - at as u64];
        let number = numbers[self.random.below(numbers.len())].to_be_bytes();
        bytes[at..at + width].copy_from_slice(&number[8 - width..]);
    }

    /// Borders of a run of at least one byte, if there is any.
    fn run(&mut self, length: usize) -> (usize, usize) {
        let start = self.random.below(length);
        let end = start + 1 + self.random.below(length.saturating_sub(start).min(64));
        (start, end.min(length))
    }
}

fn bounded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(MUTANT_BYTES_MAX);
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::protobuf;

    fn message() -> Piece {
        protobuf(b"\x0A\x04abcd\x12\x08\x0A\x03efg\x10\xAC\x02\x1A\x02\xFF\xFF")
    }

    #[test]
    fn the_same_seed_gives_the_same_mutants_and_another_one_others() {
        let mutants = |seed| {
            let mut mutator = Mutator::new(seed);
            (0..50).map(|_| mutator.mutate(&message(), &message())).collect::<Vec<_>>()
        };
        assert_eq!(mutants(1), mutants(1));
        assert_ne!(mutants(1), mutants(2));
    }

    #[test]
    fn every_change_is_made_and_mutants_stay_within_their_bound() {
        let mut mutator = Mutator::new(3);
        let mut seen = BTreeSet::new();
        for _ in 0..2000 {
            let mutant = mutator.mutate(&message(), &message());
            assert!(mutant.bytes.len() <= MUTANT_BYTES_MAX);
            seen.extend(mutant.how.iter().map(|(change, _)| *change));
        }
        let all = TREE_CHANGES.iter().map(|(name, _)| *name).chain(BYTE_CHANGES.iter().map(|(name, _)| *name));
        let all: BTreeSet<_> = all.collect();
        let missing: Vec<_> = all.difference(&seen).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    /// The point of knowing the structure: what a change of the tree gives is mostly still a message.
    #[test]
    fn a_change_of_the_tree_gets_behind_the_first_check_and_a_change_of_bytes_seldom_does() {
        let mut mutator = Mutator::new(5);
        let reads = |bytes: &[u8]| protobuf(bytes).inner().iter().all(|field| field.name.starts_with("field"));
        let whole = |mutants: Vec<Mutant>| mutants.iter().filter(|mutant| reads(&mutant.bytes)).count();
        let of_tree = whole((0..500).map(|_| mutator.mutate_tree(&message(), &message())).collect());
        let of_bytes = whole((0..500).map(|_| mutator.mutate_bytes(message().encode())).collect());
        assert!(of_tree > 400 && of_tree > of_bytes, "{of_tree} of the tree, {of_bytes} of the bytes");
    }

    #[test]
    fn nesting_and_repeating_reach_far() {
        let mut mutator = Mutator::new(9);
        let longest = (0..2000).map(|_| mutator.mutate_tree(&message(), &message()).bytes.len()).max();
        assert!(longest > Some(1000), "{longest:?}");
    }
}
