//! The buckets of a zone: the newest always open, the older ones opened when they are read and closed when others were read
//! since, because each open database has a thread and a cache of its own.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use lianxin_store::{Bucket, StoreError};

use crate::database::Database;

/// Older buckets that are kept open at once.
const OLD_OPEN_MAX: usize = 16;

/// How often it is asked whether a bucket is still being read.
const READERS_EVERY: Duration = Duration::from_millis(1);
/// Files that a zone has open at most: its lock, and for each open database sled's own handle, ours, and a snapshot that is
/// being read or written. Open are the state, the newest bucket and the one after it that is being made, and old ones.
pub const FILES_MAX: u64 = 1 + 3 * (3 + OLD_OPEN_MAX as u64 + READERS_MAX);

/// Old buckets that are being read when their turn to be closed comes: more readers than this wait for the shelf anyway.
const READERS_MAX: u64 = 64;

/// The buckets, open or not.
pub(crate) struct Shelf {
    folder: PathBuf,
    known: RwLock<BTreeSet<Bucket>>,
    /// Apart from the others, so that opening an old bucket never makes the committer wait.
    newest: RwLock<Option<(Bucket, Arc<Database>)>>,
    /// Least recently read first.
    old: Mutex<Vec<(Bucket, Arc<Database>)>>,
}

/// Name of a bucket's folder.
pub(crate) fn bucket_name(bucket: Bucket) -> String {
    format!("{:08}-{:05}", bucket.number, bucket.week)
}

impl Shelf {
    /// Opens the newest of `buckets`, which lie in `folder`.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be opened.
    pub(crate) fn open(folder: PathBuf, buckets: Vec<Bucket>) -> Result<Self, StoreError> {
        let newest = match buckets.last() {
            Some(bucket) => Some((*bucket, Arc::new(Database::open(folder.join(bucket_name(*bucket)))?))),
            None => None,
        };
        let known = RwLock::new(buckets.into_iter().collect());
        Ok(Self { folder, known, newest: RwLock::new(newest), old: Mutex::new(Vec::new()) })
    }

    /// All buckets, ascending.
    pub(crate) fn list(&self) -> Vec<Bucket> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Puts a new bucket behind all others.
    pub(crate) fn push(&self, bucket: Bucket, database: Database) {
        let mut newest = self.newest.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = newest.replace((bucket, Arc::new(database))) {
            let mut old = self.old();
            old.push(before);
            close_some(&mut old);
        }
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(bucket);
    }

    /// An open bucket.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if there is no such bucket, and whatever opening it says.
    pub(crate) fn take(&self, bucket: Bucket) -> Result<Arc<Database>, StoreError> {
        if let Some((newest, database)) = &*self.newest.read().unwrap_or_else(PoisonError::into_inner)
            && *newest == bucket
        {
            return Ok(Arc::clone(database));
        }
        let mut old = self.old();
        // With the shelf held, so that a bucket that is being removed is not opened again.
        if !self.known.read().unwrap_or_else(PoisonError::into_inner).contains(&bucket) {
            return Err(StoreError::Damaged { what: "zone folder (a bucket is missing)" });
        }
        let (bucket, database) = match old.iter().position(|(open, _)| *open == bucket) {
            Some(index) => old.remove(index),
            None => (bucket, Arc::new(Database::open(self.folder.join(bucket_name(bucket)))?)),
        };
        old.push((bucket, Arc::clone(&database)));
        close_some(&mut old);
        Ok(database)
    }

    /// Closes a bucket that nobody shall read any more, once nobody reads it. The newest stays.
    ///
    /// # Errors
    /// As [`Database::close`].
    pub(crate) fn remove(&self, bucket: Bucket) -> Result<(), StoreError> {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(&bucket);
        let mut old = self.old();
        let Some(index) = old.iter().position(|(open, _)| *open == bucket) else { return Ok(()) };
        let (_, mut database) = old.remove(index);
        drop(old);
        // Whoever has it reads one record or page and gives it back; nobody gets it any more.
        loop {
            match Arc::try_unwrap(database) {
                Ok(alone) => return alone.close(),
                Err(shared) => database = shared,
            }
            std::thread::park_timeout(READERS_EVERY);
        }
    }

    fn old(&self) -> MutexGuard<'_, Vec<(Bucket, Arc<Database>)>> {
        self.old.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many databases are open.
    #[cfg(test)]
    fn open_count(&self) -> usize {
        self.old().len() + usize::from(self.newest.read().unwrap_or_else(PoisonError::into_inner).is_some())
    }
}

/// Closes what was read longest ago and nobody reads now. The shelf is held meanwhile, so that nobody opens a database that
/// is still being closed.
fn close_some(old: &mut Vec<(Bucket, Arc<Database>)>) {
    while old.len() > OLD_OPEN_MAX {
        let Some(index) = old.iter().position(|(_, database)| Arc::strong_count(database) == 1) else { break };
        drop(old.remove(index));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;
    use lianxin_store::Row;

    #[test]
    fn many_buckets_are_read_with_few_open() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let shelf = Shelf::open(root.path().to_owned(), Vec::new()).expect("nothing to open");
        let bucket = |number| Bucket { number, week: number };
        let count = OLD_OPEN_MAX as u64 + 8;
        for number in 1..=count {
            let database = Database::open(root.path().join(bucket_name(bucket(number)))).expect("a temporary folder");
            let row = Row { key: b"k".to_vec(), value: Some(vec![number as u8]) };
            database.apply(vec![row]).and_then(|()| database.sync(&RealDisk)).expect("a temporary folder");
            shelf.push(bucket(number), database);
        }
        for number in (1..=count).chain((1..=count).rev()).chain([1, 1, count, 2]) {
            let database = shelf.take(bucket(number)).expect("readable");
            assert_eq!(database.get(b"k").expect("readable"), Some(vec![number as u8]));
            assert!(shelf.open_count() <= OLD_OPEN_MAX + 2);
        }
        assert!(matches!(shelf.take(bucket(count + 1)), Err(StoreError::Damaged { .. })));
        assert_eq!(shelf.list().len() as u64, count);
    }
}
