//! What has been copied out of buckets, and the state snapshots in those that are left.

use std::sync::atomic::AtomicBool;

use super::log::Log;
use super::{Fault, Inspection, unreadable};
use crate::copies::Copies;
use crate::engine::{Bucket, Engine, Space};
use crate::record::decode_audit;
use crate::segment::File;
use crate::snapshot::{self, Snapshot};
use crate::{key, parts};
use std::ops::ControlFlow;

/// Leaves between two words to who watches.
const WATCH_EVERY: u64 = 1_000;

/// Reads every segment, and the audit records below `end_leaf`: their buckets have been dropped, so the segments are all
/// that there is of them.
pub(super) fn segments<E: Engine>(
    engine: &E,
    end_leaf: u64,
    log: &mut Log,
    inspection: &mut Inspection,
    watch: &mut dyn FnMut(&Inspection),
) {
    let listed = match engine.segments() {
        Ok(listed) => listed,
        Err(error) => return inspection.find(None, "list of segments", unreadable(&error)),
    };
    for (segment, bytes) in listed {
        let read = File::open(engine, segment, bytes).and_then(|file| file.verify(engine, &AtomicBool::new(false)));
        if let Err(error) = read {
            let name = format!("segment of bucket {} and class {}", segment.bucket, segment.class);
            inspection.find(None, name, unreadable(&error));
        }
    }
    let copies = match Copies::open(engine) {
        Ok(copies) => copies,
        Err(error) => return inspection.find(None, "segments", unreadable(&error)),
    };
    for leaf in 0..end_leaf {
        let name = || format!("copy of the audit record of leaf {leaf}");
        match copies.record(engine, key::AUDIT, leaf) {
            Ok(Some(record)) => match decode_audit(leaf, &record) {
                Ok(audit) => log.record(&audit, None, &mut |fault| inspection.find(None, name(), fault)),
                Err(cause) => inspection.find(None, name(), Fault::Unreadable { cause: cause.to_string() }),
            },
            Ok(None) => {
                inspection.find(None, name(), Fault::Missing);
                log.lose_departments();
            }
            Err(error) => {
                inspection.find(None, name(), unreadable(&error));
                log.lose_departments();
            }
        }
        inspection.leaves += 1;
        if leaf % WATCH_EVERY == 0 {
            watch(inspection);
        }
    }
    log.leaf_count(end_leaf);
    // Where the channels were at the end of the dropped buckets stands in no record that is left.
    log.lose_channels();
}

/// Compares each complete snapshot of a bucket with its digest. One without an end was cut short and is no damage.
pub(super) fn snapshots<E: Engine>(engine: &E, bucket: Bucket, inspection: &mut Inspection) {
    let mut ends = Vec::new();
    let scanned = parts::scan(engine, Space::Bucket(bucket), &[key::STATE_END], &[], &mut |row_key, record| {
        ends.push((key::snapshot_number(row_key).unwrap_or(0), record));
        Ok(ControlFlow::Continue(()))
    });
    if let Err(error) = scanned {
        inspection.find(Some(bucket), "ends of state snapshots", unreadable(&error));
    }
    for (number, record) in ends {
        let name = format!("state snapshot {number}");
        match Snapshot::decode(bucket, number, &record).map(|found| snapshot::is_good(engine, &found)) {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => inspection.find(Some(bucket), name, Fault::Altered),
            Ok(Err(error)) => inspection.find(Some(bucket), name, unreadable(&error)),
            Err(cause) => inspection.find(Some(bucket), name, Fault::Unreadable { cause: cause.to_string() }),
        }
    }
}

#[cfg(test)]
mod tests;
