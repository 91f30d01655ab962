//! Records of the store, which it reads back from a disk that may have changed them.

use lianxin_store::conformance::{GOLDEN_RECORDS, RECORDS, RecordKind};

use super::{Parser, Shape, Source};
use crate::Depth;

pub(super) fn parsers() -> impl Iterator<Item = Parser> {
    RECORDS.iter().map(|kind| Parser { name: name(kind), shape: Shape::Record, source: Source::Stored(kind) })
}

pub(super) fn read(kind: &RecordKind, bytes: &[u8]) -> Depth {
    Depth::of_reading(kind.read(bytes))
}

pub(super) fn specimens(kind: &RecordKind) -> Vec<Vec<u8>> {
    let lines = GOLDEN_RECORDS.lines().filter_map(|line| line.split_once(' '));
    let of_kind = lines.filter(|(name, _)| name.starts_with(kind.name));
    of_kind.map(|(_, digits)| hex::decode(digits).expect("the golden file is hexadecimal")).collect()
}

/// The store's names are short; beside other parsers they need a word more.
fn name(kind: &RecordKind) -> &'static str {
    match kind.name {
        "unit" => "stored_unit",
        "audit" => "stored_audit",
        "changes" => "stored_changes",
        other => other,
    }
}
