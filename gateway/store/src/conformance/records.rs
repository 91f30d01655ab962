//! Every kind of stored record with its reader and the bytes of its golden file, for whoever shows that a reader withstands
//! a disk that changed them.

use lianxin_types::DecodeError;

use crate::change;
use crate::claim::ClaimRow;
use crate::engine::Bucket;
use crate::record::{UnitRecord, decode_audit};
use crate::segment::Header;
use crate::snapshot::Snapshot;
use crate::state::{
    HeadRow, InboxRow, RememberedRow, RosterRow, decode_bytes, decode_department, decode_item, decode_number,
    decode_packages, decode_snapshot,
};

/// Lines of name and hexadecimal digits; a record's golden lines are those that begin with its name in [`RECORDS`].
pub const GOLDEN_RECORDS: &str = include_str!("../golden/records.txt");

/// One kind of stored record.
#[derive(Debug, Clone, Copy)]
pub struct RecordKind {
    /// Its name in the golden file.
    pub name: &'static str,
    read: fn(&[u8]) -> Result<(), DecodeError>,
}

impl RecordKind {
    /// Reads a record as the store does.
    ///
    /// # Errors
    /// [`DecodeError`] for bytes that the store did not write.
    pub fn read(&self, bytes: &[u8]) -> Result<(), DecodeError> {
        (self.read)(bytes)
    }
}

/// A snapshot takes over from its place which bucket it lies in.
const SOME_BUCKET: Bucket = Bucket { number: 1, week: 1 };

/// Every kind. Of a segment it is the header; all else in it is compared with a digest before it is read.
pub const RECORDS: &[RecordKind] = &[
    RecordKind { name: "unit", read: |bytes| UnitRecord::decode(bytes.to_vec()).map(drop) },
    RecordKind { name: "audit", read: |bytes| decode_audit(3, bytes).map(drop) },
    RecordKind { name: "changes", read: |bytes| change::decode(bytes.to_vec()).map(drop) },
    RecordKind { name: "head_row", read: |bytes| HeadRow::decode(bytes.to_vec()).map(drop) },
    RecordKind { name: "roster_row", read: |bytes| RosterRow::decode(bytes.to_vec()).map(drop) },
    RecordKind { name: "remembered_row", read: |bytes| RememberedRow::decode(bytes.to_vec()).map(drop) },
    RecordKind { name: "claim_row", read: |bytes| ClaimRow::decode(bytes.to_vec()).map(drop) },
    RecordKind { name: "inbox_row", read: |bytes| InboxRow::decode(bytes.to_vec()).map(drop) },
    RecordKind { name: "snapshot_row", read: |bytes| decode_snapshot(bytes.to_vec()).map(drop) },
    RecordKind { name: "item_row", read: |bytes| decode_item(bytes.to_vec()).map(drop) },
    RecordKind { name: "number_row", read: |bytes| decode_number(bytes).map(drop) },
    RecordKind { name: "packages_row", read: |bytes| decode_packages(bytes.to_vec()).map(drop) },
    RecordKind { name: "department_row", read: |bytes| decode_department(bytes).map(drop) },
    RecordKind { name: "snapshot_end", read: |bytes| Snapshot::decode(SOME_BUCKET, 1, bytes).map(drop) },
    RecordKind { name: "segment", read: |bytes| Header::decode(bytes).map(drop) },
    RecordKind { name: "bytes_row", read: |bytes| decode_bytes(bytes.to_vec()).map(drop) },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of the golden file that no kind above reads would go untested; keys and scopes are made, never read back.
    #[test]
    fn every_golden_record_has_its_reader() {
        for line in GOLDEN_RECORDS.lines() {
            let (name, digits) = line.split_once(' ').expect("name and digits");
            let bytes = hex::decode(digits).expect("hexadecimal");
            let mut readers = RECORDS.iter().filter(|kind| name.starts_with(kind.name));
            match readers.next() {
                Some(kind) => assert_eq!(kind.read(&bytes), Ok(()), "{name}"),
                None => assert!(
                    name.starts_with("key_") || name.starts_with("scope") || name == "event_index",
                    "{name} has no reader in RECORDS"
                ),
            }
        }
    }
}
