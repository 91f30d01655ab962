//! One sled database in its directory: opening it whatever it is like, and never trusting it with a panic.

use std::fs::{self, File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lianxin_store::{Row, StoreError, VALUE_BYTES_MAX, Visitor};

use crate::disk::Disk;
use crate::folder::{entries, io_error};

/// Memory that sled may use for pages of one database, in bytes. It may take a multiple of it.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// How often sled's own thread flushes; its garbage collection runs there too.
const FLUSH_EVERY_MILLISECONDS: u64 = 500;

/// How often a database is tried that we have only just closed: a thread of sled's may hold its lock for a moment longer.
/// Nobody else can, since the zone's folder is ours.
const LOCK_ATTEMPTS: usize = 200;
/// Between two of these attempts.
const LOCK_EVERY: Duration = Duration::from_millis(10);

/// A database and our own handle on its file.
pub(crate) struct Database {
    path: PathBuf,
    db: sled::Db,
    file: File,
}

impl Database {
    /// Opens or makes the database in `path`.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if sled cannot read it even without its snapshots, or has put files beside it;
    /// [`StoreError::Io`].
    pub(crate) fn open(path: PathBuf) -> Result<Self, StoreError> {
        let blobs = path.join("blobs");
        if !entries(&blobs).map_err(io_error("read", &blobs))?.is_empty() {
            return Err(StoreError::Damaged { what: "database (there are files beside it)" });
        }
        let db = match start(&path) {
            Err(StoreError::Damaged { .. }) => {
                // A half-written snapshot is the usual cause; without one sled reads its whole log.
                remove_snapshots(&path)?;
                start(&path)?
            }
            other => other?,
        };
        let log = path.join("db");
        let file = File::open(&log).map_err(io_error("open", &log))?;
        Ok(Self { path, db, file })
    }

    /// Makes everything about a new database survive, names included.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn settle(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        self.guarded("flush", || self.db.flush())?;
        for path in [self.path.join("conf"), self.path.join("db"), self.path.join("blobs"), self.path.clone()] {
            disk.sync_all(&path).map_err(io_error("sync", &path))?;
        }
        Ok(())
    }

    /// Closes the database and waits until sled has let go of its file. Only then may its folder get another name or another
    /// database its name: sled's threads write files by name, and one may outlive the drop for a moment.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the file is still locked after two seconds.
    pub(crate) fn close(self) -> Result<(), StoreError> {
        let Self { path, db, file } = self;
        drop(db);
        for _ in 0..LOCK_ATTEMPTS {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => std::thread::park_timeout(LOCK_EVERY),
                Err(TryLockError::Error(source)) => return Err(io_error("lock", &path)(source)),
            }
        }
        Err(io_error("close", &path)(io::Error::from(io::ErrorKind::WouldBlock)))
    }

    /// Bytes that the database takes on the disk.
    ///
    /// # Errors
    /// [`StoreError`] if sled fails.
    pub(crate) fn bytes(&self) -> Result<u64, StoreError> {
        self.guarded("measure", || self.db.size_on_disk())
    }

    /// Changes all rows or none; in sled's memory when it returns.
    ///
    /// # Errors
    /// [`StoreError::Io`] for a value over 4 KiB (nothing is changed) or when sled fails.
    pub(crate) fn apply(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for Row { key, value } in rows {
            match value {
                Some(value) if value.len() > VALUE_BYTES_MAX => {
                    let source = io::Error::new(io::ErrorKind::InvalidInput, "a value is over 4 KiB");
                    return Err(io_error("store", &self.path)(source));
                }
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.guarded("write", || self.db.apply_batch(batch))
    }

    /// Makes everything applied so far survive a power cut. On Linux sled's flush writes the file and does not sync it; the
    /// sync is ours.
    ///
    /// # Errors
    /// [`StoreError`] if sled or the disk fails.
    pub(crate) fn sync(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        self.guarded("flush", || self.db.flush())?;
        let log = self.path.join("db");
        disk.sync_data(&self.file, &log).map_err(io_error("sync", &log))
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.guarded("read", || Ok(self.db.get(key)?.map(|value| value.to_vec())))
    }

    pub(crate) fn scan(&self, prefix: &[u8], from: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        let start = if from > prefix { from } else { prefix };
        self.guarded("read", || {
            for row in self.db.range(start..) {
                let (key, value) = row?;
                if !key.starts_with(prefix) || visit(&key, &value).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    pub(crate) fn last_key(&self, prefix: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.guarded("read", || Ok(self.db.scan_prefix(prefix).next_back().transpose()?.map(|(key, _)| key.to_vec())))
    }

    /// Removes every row; `first` before all others, so that a crash in between cannot leave it standing alone.
    ///
    /// # Errors
    /// [`StoreError`] if sled fails.
    pub(crate) fn clear(&self, first: &[u8]) -> Result<(), StoreError> {
        self.guarded("clear", || {
            for row in self.db.scan_prefix(first) {
                self.db.remove(row?.0)?;
            }
            self.db.clear()
        })
    }

    fn guarded<T>(&self, operation: &'static str, call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
        guarded(operation, &self.path, call)
    }
}

/// sled panics where others return errors ("cannot find pid"); that costs a zone, never the process.
fn guarded<T>(operation: &'static str, path: &Path, call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) => Err(io_error(operation, path)(error)),
        Ok(Err(error)) => {
            tracing::error!(path = %path.display(), operation, %error, "database is damaged");
            Err(StoreError::Damaged { what: "database" })
        }
        Err(_) => {
            tracing::error!(path = %path.display(), operation, "database panicked");
            Err(StoreError::Damaged { what: "database" })
        }
    }
}

fn start(path: &Path) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .use_compression(false)
        .flush_every_ms(Some(FLUSH_EVERY_MILLISECONDS));
    for _ in 0..LOCK_ATTEMPTS {
        match guarded("open", path, || config.open()) {
            Err(StoreError::Io { source, .. }) if source.to_string().contains("could not acquire lock") => {
                std::thread::park_timeout(LOCK_EVERY);
            }
            other => return other,
        }
    }
    guarded("open", path, || config.open())
}

fn remove_snapshots(path: &Path) -> Result<(), StoreError> {
    for file in entries(path).map_err(io_error("read", path))? {
        if file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snap.")) {
            tracing::warn!(path = %file.display(), "removing a snapshot of a damaged database");
            fs::remove_file(&file).map_err(io_error("remove", &file))?;
        }
    }
    Ok(())
}
