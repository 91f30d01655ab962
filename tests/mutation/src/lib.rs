//! Bytes that nobody meant: valid messages taken apart along their own structure, changed and put together again, from a
//! seed.
//!
//! For: whoever shows that a parser, a validator or the gateway withstands them: `tests/specimens`, `tests/e2e`, and the
//! SDK's tests of its own records. Must never know: what the bytes mean to us; no crate of ours and no library is below.
//!
//! A message becomes a tree of [`Piece`]s: protobuf fields, the vectors of RFC 9420, DER, fields with a 32-bit length, or
//! words of a text. A change of the tree is encoded with lengths that fit, so that it gets behind a parser's first check; a
//! lie about one length, a cut or a flipped bit in the encoded bytes does not. The same seed gives the same mutants.
//!
//! ```
//! use lianxin_mutation::{Mutator, lengths};
//!
//! let message = lengths(b"\0\0\0\x02hi");
//! let mutant = Mutator::new(7).mutate(&message, &message);
//! assert_eq!(mutant, Mutator::new(7).mutate(&message, &message));
//! ```

mod der;
mod effort;
mod lengths;
mod mls;
mod mutator;
mod piece;
mod protobuf;
mod seeded;
mod text;

pub use der::der;
pub use effort::{seed, share};
pub use lengths::lengths;
pub use mls::{MlsKind, mls};
pub use mutator::{Mutant, Mutator};
pub use piece::{Content, Frame, Lie, Piece};
pub use protobuf::protobuf;
pub use seeded::Seeded;
pub use text::text;
