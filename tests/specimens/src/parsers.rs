//! The list of parsers. A new one gets its line here, and `tests/parsers.rs` demands its target in `tests/fuzz`.

mod mls;
mod records;
mod trust;
mod wire;

use lianxin_mutation::{MlsKind, Piece};
use lianxin_store::conformance::RecordKind;

use crate::Depth;

/// One parser, with the rules that stand right behind it.
#[derive(Debug, Clone, Copy)]
pub struct Parser {
    /// Its name, and that of its target in `tests/fuzz`. A message of the contract is called `<subject>_<message>`.
    pub name: &'static str,
    /// How its bytes are built.
    pub shape: Shape,
    source: Source,
}

/// Where a parser is and what it takes.
#[derive(Debug, Clone, Copy)]
enum Source {
    Given { parse: fn(&[u8]) -> Depth, specimens: fn() -> Vec<Vec<u8>> },
    Stored(&'static RecordKind),
}

/// How bytes are built, so that a mutant can keep to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A message of the contract.
    Protobuf,
    /// An MLSMessage.
    Mls,
    /// A ratchet tree.
    Tree,
    /// A certificate or a revocation list.
    Der,
    /// One of our own binary formats.
    Record,
    /// A note or JSON.
    Text,
}

impl Shape {
    /// The bytes, taken apart.
    pub fn pieces(self, bytes: &[u8]) -> Piece {
        match self {
            Self::Protobuf => lianxin_mutation::protobuf(bytes),
            Self::Mls => lianxin_mutation::mls(MlsKind::Message, bytes),
            Self::Tree => lianxin_mutation::mls(MlsKind::Tree, bytes),
            Self::Der => lianxin_mutation::der(bytes),
            Self::Record => lianxin_mutation::lengths(bytes),
            Self::Text => lianxin_mutation::text(bytes),
        }
    }
}

impl Parser {
    const fn new(name: &'static str, shape: Shape, parse: fn(&[u8]) -> Depth, specimens: fn() -> Vec<Vec<u8>>) -> Self {
        Self { name, shape, source: Source::Given { parse, specimens } }
    }

    /// Gives it any bytes.
    pub fn parse(&self, bytes: &[u8]) -> Depth {
        match self.source {
            Source::Given { parse, .. } => parse(bytes),
            Source::Stored(kind) => records::read(kind, bytes),
        }
    }

    /// Bytes that it accepts; at least one.
    pub fn specimens(&self) -> Vec<Vec<u8>> {
        match self.source {
            Source::Given { specimens, .. } => specimens(),
            Source::Stored(kind) => records::specimens(kind),
        }
    }
}

/// Every parser, by name.
pub fn all() -> Vec<Parser> {
    let mut all = [wire::PARSERS, mls::PARSERS, trust::PARSERS].concat();
    all.extend(records::parsers());
    all.sort_by_key(|parser| parser.name);
    all
}

/// Gives the parser called `name` any bytes: what a fuzz target does.
///
/// # Panics
/// If there is no such parser.
pub fn parse(name: &str, bytes: &[u8]) -> Depth {
    let parser = all().into_iter().find(|parser| parser.name == name);
    parser.expect("tests/parsers.rs holds the targets of tests/fuzz against the list").parse(bytes)
}
