//! Keeps a record of several parts whole for its readers: who writes such records of a channel or a device waits for those
//! who are reading them, and the other way round. Everybody else goes on.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::engine::Row;
use crate::key;

/// Two channels or devices rarely share a lock, and sharing one only makes them wait.
const LOCKS: usize = 256;

/// Locks for the records that may have more than one part, by channel or device. Records of one part need none: an engine
/// shows a row old or new.
pub(crate) struct Guards(Vec<RwLock<()>>);

impl Guards {
    pub(crate) fn new() -> Self {
        Self((0..LOCKS).map(|_| RwLock::new(())).collect())
    }

    /// For who reads the record under `key`, or scans records whose keys start with it; hold it until the last part is read.
    /// Take no second one meanwhile.
    pub(crate) fn read(&self, key: &[u8]) -> Option<RwLockReadGuard<'_, ()>> {
        key::is_large(key).then(|| self.0[place(key)].read().unwrap_or_else(PoisonError::into_inner))
    }

    /// For who changes all of `rows` at once. Taken in ascending order, so that two writers cannot wait for each other.
    pub(crate) fn write(&self, rows: &[Row]) -> Vec<RwLockWriteGuard<'_, ()>> {
        let places: BTreeSet<usize> =
            rows.iter().filter(|row| key::is_large(&row.key)).map(|row| place(&row.key)).collect();
        places.into_iter().map(|place| self.0[place].write().unwrap_or_else(PoisonError::into_inner)).collect()
    }
}

fn place(key: &[u8]) -> usize {
    let mut hasher = DefaultHasher::new();
    key::subject(key).hash(&mut hasher);
    (hasher.finish() % LOCKS as u64) as usize
}

#[cfg(test)]
mod tests {
    use lianxin_types::{ChannelId, Sequence};

    use super::*;
    use crate::conformance::device;

    #[test]
    fn a_scan_is_guarded_by_the_lock_of_each_record_that_it_meets() {
        let (one, alice) = (ChannelId([1; 16]), device(1));
        let trees = key::welcome_trees(&one, Sequence(7));
        assert_eq!(key::subject(&trees), one.as_bytes());
        assert_eq!(key::subject(&key::welcome_tree(&one, Sequence(7), 3)), one.as_bytes());
        assert_eq!(key::subject(&key::snapshot(&one)), one.as_bytes());
        let packages = key::one_times(&alice);
        assert_eq!(key::subject(&key::one_time(&alice, 9)), &packages[1..]);
        assert_eq!(key::subject(&packages), &packages[1..]);
        assert_eq!(key::subject(&key::last_resort(&alice)), &packages[1..]);
    }

    #[test]
    fn only_large_records_are_guarded() {
        let guards = Guards::new();
        let one = ChannelId([1; 16]);
        assert!(guards.read(&key::head(&one)).is_none());
        let row = |key| Row { key, value: None };
        let held = guards.write(&[row(key::head(&one)), row(key::snapshot(&one)), row(key::group_info(&one))]);
        assert_eq!(held.len(), 1, "one lock for one channel");
        assert!(guards.0[place(&key::snapshot(&one))].try_read().is_err());
        drop(held);
        let reading = guards.read(&key::snapshot(&one));
        assert!(reading.is_some() && guards.0[place(&key::group_info(&one))].try_write().is_err());
    }
}
