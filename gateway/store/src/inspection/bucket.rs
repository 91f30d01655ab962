//! One bucket: which records it has, whether they read, and whether every row belongs to one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use lianxin_types::{ChannelId, DecodeError, Digest, Sequence};

use super::log::Log;
use super::{Fault, Inspection, unreadable};
use crate::change;
use crate::engine::{Bucket, Engine, Space};
use crate::record::{UnitRecord, decode_audit};
use crate::state::decode_number;
use crate::zone_store::AuditRecord;
use crate::{key, parts};

/// Leaves between two words to who watches.
const WATCH_EVERY: u64 = 1_000;

/// The examination of one bucket.
pub(super) struct Walk<'a, E> {
    engine: &'a E,
    bucket: Bucket,
    before: Option<Bucket>,
    log: &'a mut Log,
    inspection: &'a mut Inspection,
    /// Leaves whose units do not read.
    unread: BTreeSet<u64>,
}

/// Rows per record key, for all records of the bucket.
type Records = BTreeMap<Vec<u8>, usize>;

impl<'a, E: Engine> Walk<'a, E> {
    /// `bucket`, behind `before`.
    pub(super) fn new(
        engine: &'a E,
        (before, bucket): (Option<Bucket>, Bucket),
        log: &'a mut Log,
        inspection: &'a mut Inspection,
    ) -> Self {
        Self { engine, bucket, before, log, inspection, unread: BTreeSet::new() }
    }

    pub(super) fn run(mut self, watch: &mut dyn FnMut(&Inspection)) {
        let mut records = match self.records() {
            Ok(records) => records,
            Err(fault) => {
                self.find("the bucket", fault);
                self.log.lose_thread();
                return;
            }
        };
        let leaves = |records: &Records| {
            let families = [key::UNIT, key::AUDIT, key::CHANGES];
            let of = |record: &Vec<u8>| families.contains(&record[0]).then(|| key::leaf_index(record)).flatten();
            let first = records.keys().filter_map(of).min()?;
            Some((first, records.keys().filter_map(of).max()?))
        };
        if let Some((first, last)) = leaves(&records) {
            if let Some(wanted) = self.log.next_leaf(first) {
                self.gap(first, wanted);
            }
            for leaf in first..=last {
                self.leaf(leaf, &mut records);
                self.inspection.leaves += 1;
                if leaf % WATCH_EVERY == 0 {
                    watch(self.inspection);
                }
            }
            self.log.leaf_count(last + 1);
        }
        let unread = std::mem::take(&mut self.unread);
        for record in records.into_keys() {
            // The index of an event whose unit does not read: one fault is found once.
            let of_unread = || self.indexed(&record).is_some_and(|leaf| unread.contains(&leaf));
            if record[0] != key::EVENT || !of_unread() {
                self.find(name(&record), Fault::Stray);
            }
        }
    }

    /// The leaf that an index names.
    fn indexed(&self, record: &[u8]) -> Option<u64> {
        let record = parts::get(self.engine, Space::Bucket(self.bucket), record).ok()??;
        decode_number(&record).ok()
    }

    /// Which of two buckets lost what lay between them cannot be seen; a damaged database ends early, so the one before.
    fn gap(&mut self, found: u64, wanted: u64) {
        match self.before {
            Some(before) if found > wanted => {
                let record = format!("leaves {wanted} to {} at its end", found - 1);
                self.inspection.find(Some(before), record, Fault::Missing);
            }
            _ => self.find("the bucket", Fault::LeafOrder { found, wanted }),
        }
    }

    fn find(&mut self, record: impl Into<String>, fault: Fault) {
        self.inspection.find(Some(self.bucket), record, fault);
    }

    fn records(&self) -> Result<Records, Fault> {
        let mut records = Records::new();
        let mut broken = None;
        let scanned = self.engine.scan(Space::Bucket(self.bucket), &[], &[], &mut |row_key, _| {
            if row_key.first().is_some_and(|family| key::is_of_snapshot(*family)) {
                return ControlFlow::Continue(());
            }
            match row_key.split_last_chunk::<2>() {
                Some((record, _)) if !record.is_empty() => *records.entry(record.to_vec()).or_default() += 1,
                _ => broken = Some(Fault::Unreadable { cause: "a key is too short".to_owned() }),
            }
            ControlFlow::Continue(())
        });
        match (scanned, broken) {
            (Err(error), _) => Err(unreadable(&error)),
            (Ok(()), Some(fault)) => Err(fault),
            (Ok(()), None) => Ok(records),
        }
    }

    /// Takes a record out of the list and reads it, with all its rows and no more.
    fn take(&mut self, record: &[u8], records: &mut Records) -> Option<Vec<u8>> {
        let rows = records.remove(record)?;
        match parts::get(self.engine, Space::Bucket(self.bucket), record) {
            Ok(Some(bytes)) => {
                if rows > parts::part_count(bytes.len()) {
                    self.find(name(record), Fault::Stray);
                }
                Some(bytes)
            }
            Ok(None) => {
                self.find(name(record), Fault::Missing);
                None
            }
            Err(error) => {
                self.find(name(record), unreadable(&error));
                None
            }
        }
    }

    /// A record that must be there, decoded.
    fn read<T>(
        &mut self,
        record: &[u8],
        records: &mut Records,
        decode: impl FnOnce(Vec<u8>) -> Result<T, DecodeError>,
    ) -> Option<T> {
        if !records.contains_key(record) {
            self.find(name(record), Fault::Missing);
            return None;
        }
        let bytes = self.take(record, records)?;
        match decode(bytes) {
            Ok(value) => Some(value),
            Err(cause) => {
                self.find(name(record), Fault::Unreadable { cause: cause.to_string() });
                None
            }
        }
    }

    fn leaf(&mut self, leaf: u64, records: &mut Records) {
        let unit = self.read(&key::leaf(key::UNIT, leaf), records, UnitRecord::decode);
        let audit = self.read(&key::leaf(key::AUDIT, leaf), records, |record| decode_audit(leaf, &record));
        let changes = key::leaf(key::CHANGES, leaf);
        if unit.as_ref().is_some_and(|unit| unit.has_changes) {
            self.read(&changes, records, change::decode);
        } else if unit.is_none() && records.contains_key(&changes) {
            // Whether it belongs there is not known; that it reads can still be seen.
            self.read(&changes, records, change::decode);
        }
        if let Some(event) = unit.as_ref().and_then(|unit| unit.event.as_ref()) {
            self.index(&key::event(&event.channel, event.head.sequence), leaf, records);
            self.inspection.events += 1;
        }
        self.chain(leaf, unit.as_ref(), audit.as_ref());
    }

    fn index(&mut self, record: &[u8], leaf: u64, records: &mut Records) {
        match self.read(record, records, |record| decode_number(&record)) {
            Some(found) if found != leaf => self.find(name(record), Fault::Index { found }),
            _ => {}
        }
    }

    fn chain(&mut self, leaf: u64, unit: Option<&UnitRecord>, audit: Option<&AuditRecord>) {
        let (bucket, inspection) = (self.bucket, &mut *self.inspection);
        let mut find = |record: &[u8], fault| inspection.find(Some(bucket), name(record), fault);
        if let Some(audit) = audit {
            self.log.record(audit, unit, &mut |fault| find(&key::leaf(key::AUDIT, leaf), fault));
        } else {
            self.log.lose_departments();
        }
        if let Some(unit) = unit {
            self.log.event(unit, &mut |fault| find(&key::leaf(key::UNIT, leaf), fault));
        } else {
            self.unread.insert(leaf);
            self.log.lose_channels();
        }
    }
}

/// A record of the journal as a finding names it.
pub(super) fn name(record: &[u8]) -> String {
    let leaf = key::leaf_index(record);
    match (record.first(), leaf) {
        (Some(&key::UNIT), Some(leaf)) => format!("unit of leaf {leaf}"),
        (Some(&key::AUDIT), Some(leaf)) => format!("audit record of leaf {leaf}"),
        (Some(&key::CHANGES), Some(leaf)) => format!("effects of leaf {leaf}"),
        (Some(&key::EVENT), _) if record.len() == 25 => {
            let channel = ChannelId(record[1..17].try_into().expect("sixteen bytes"));
            let sequence = Sequence(u64::from_be_bytes(record[17..].try_into().expect("eight bytes")));
            format!("index of event {} of {channel:?}", sequence.0)
        }
        _ => format!("row of unknown kind {:?}", Digest::sha256(record)),
    }
}
