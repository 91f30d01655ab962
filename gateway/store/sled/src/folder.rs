//! A zone's folder: who holds it, what format it has, and the names in it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lianxin_store::{Bucket, StoreError};
use lianxin_types::ZoneId;

use crate::disk::Disk;
use crate::migration::migrate;
use crate::shelf::bucket_name;
use crate::space::{SpaceBounds, SpaceWatch};

/// The newest format of a zone's folder that this build knows.
pub const FORMAT: u32 = 2;

/// Ends the name of a bucket that was dropped and is being removed.
pub(crate) const DEAD: &str = "dead";

/// A locked folder of a known format.
pub(crate) struct Folder {
    path: PathBuf,
    /// Held as long as the folder is; the system lets go of it with the process.
    lock: File,
    pub(crate) fencing_number: u64,
}

pub(crate) fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.display().to_string();
    move |source| StoreError::Io { operation, path, source }
}

impl Folder {
    /// Takes the folder, makes it if there is none, and raises its fencing number.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::NewerFormat`], [`StoreError::OtherZone`], [`StoreError::Quarantined`] (nothing is touched then), [`StoreError::Damaged`] for a folder
    /// with buckets and without a format, [`StoreError::Io`].
    pub(crate) fn open(
        path: &Path,
        zone: &ZoneId,
        disk: &Arc<dyn Disk>,
        bounds: SpaceBounds,
    ) -> Result<(Self, SpaceWatch), StoreError> {
        // Before anything is touched: a lock file in a newer folder would be a touch.
        known_format(path)?;
        not_quarantined(path)?;
        of_zone(path, zone)?;
        let buckets = path.join("buckets");
        fs::create_dir_all(&buckets).map_err(io_error("create", &buckets))?;
        let lock = lock(&path.join("lock"))?;
        let space = SpaceWatch::open(path, bounds, Arc::clone(disk))?;
        let disk = &**disk;
        if let Some(found) = known_format(path)? {
            if found < FORMAT {
                migrate(path, found, zone, bounds.free_bytes_min, disk)?;
            }
        } else {
            let mut entries = fs::read_dir(&buckets).map_err(io_error("read", &buckets))?;
            if entries.next().is_some() {
                return Err(StoreError::Damaged { what: "zone folder (it has buckets and no format)" });
            }
            write_zone(path, zone, disk)?;
            write_number(path, "format", u64::from(FORMAT), disk)?;
        }
        if of_zone(path, zone)? == Named::No {
            return Err(StoreError::Damaged { what: "zone folder (it does not say whose it is)" });
        }
        // At each open, since the one that made the folder may have been cut short of this.
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            disk.sync_all(parent).map_err(io_error("sync", parent))?;
        }
        let fencing_number = read_number(&path.join("fencing"))?.unwrap_or(0) + 1;
        write_number(path, "fencing", fencing_number, disk)?;
        disk.sync_all(&buckets).map_err(io_error("sync", &buckets))?;
        Ok((Self { path: path.to_owned(), lock, fencing_number }, space))
    }

    /// Whether the folder that everybody finds under its path is still the one that is locked here. It is not when somebody
    /// removed the lock file or put another folder in its place: what is written then may be seen by nobody.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it is another one; the zone must not acknowledge anything more.
    pub(crate) fn still_held(&self) -> Result<(), StoreError> {
        let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let path = self.path.join("lock");
        let held = self.lock.metadata().map(place).map_err(io_error("read", &path))?;
        match fs::metadata(&path).map(place) {
            Ok(found) if found == held => Ok(()),
            _ => Err(StoreError::Unavailable {
                reason: "the zone's folder was taken over: its lock is another".to_owned(),
            }),
        }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// Where the state is rewritten to.
    pub(crate) fn new_state(&self) -> PathBuf {
        self.path.join("state.new")
    }

    /// Where the state goes when it has been rewritten.
    pub(crate) fn old_state(&self) -> PathBuf {
        self.path.join("state.old")
    }

    /// The zone's folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn segments(&self) -> PathBuf {
        self.path.join("segments")
    }

    /// Finishes what a dropped bucket or a rewritten state left when it was cut short.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn tidy(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        let buckets = self.buckets();
        for path in entries(&buckets).map_err(io_error("read", &buckets))? {
            if path.extension().is_some_and(|extension| extension == DEAD) {
                fs::remove_dir_all(&path).map_err(io_error("remove", &path))?;
            }
        }
        let (state, old, new) = (self.state(), self.old_state(), self.new_state());
        if old.exists() && !state.exists() {
            fs::rename(&old, &state).map_err(io_error("rename", &old))?;
            disk.sync_all(&self.path).map_err(io_error("sync", &self.path))?;
        }
        for path in [old, new] {
            if path.exists() {
                fs::remove_dir_all(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(())
    }

    pub(crate) fn buckets(&self) -> PathBuf {
        self.path.join("buckets")
    }

    pub(crate) fn bucket(&self, bucket: Bucket) -> PathBuf {
        self.buckets().join(bucket_name(bucket))
    }

    /// Buckets that may hold something, ascending. One that was being made when the power went is removed: nothing in it
    /// was ever acknowledged.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if a bucket that is not the newest was never finished, [`StoreError::Io`].
    pub(crate) fn list(&self) -> Result<Vec<Bucket>, StoreError> {
        let folder = self.buckets();
        let mut buckets = finished(&folder)?;
        if let Some((newest, Finished::No)) = buckets.last() {
            let path = self.bucket(*newest);
            fs::remove_dir_all(&path).map_err(io_error("remove", &path))?;
            buckets.pop();
        }
        if buckets.iter().any(|(_, finished)| *finished == Finished::No) {
            return Err(StoreError::Damaged { what: "zone folder (an older bucket was never finished)" });
        }
        Ok(buckets.into_iter().map(|(bucket, _)| bucket).collect())
    }
}

/// Whether a bucket's making came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finished {
    Yes,
    No,
}

/// The buckets in a folder of them, ascending.
///
/// # Errors
/// [`StoreError::Io`].
pub(crate) fn finished(folder: &Path) -> Result<Vec<(Bucket, Finished)>, StoreError> {
    let mut buckets = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error("read", folder))? {
        let entry = entry.map_err(io_error("read", folder))?;
        let is_ready = if entry.path().join("ready").exists() { Finished::Yes } else { Finished::No };
        match parse(&entry.file_name().to_string_lossy()) {
            Some(bucket) => buckets.push((bucket, is_ready)),
            // Dropped, and removed by the next open.
            None if entry.path().extension().is_some_and(|extension| extension == DEAD) => {}
            None => tracing::warn!(path = %entry.path().display(), "not a bucket; left alone"),
        }
    }
    buckets.sort_by_key(|(bucket, _)| *bucket);
    Ok(buckets)
}

/// Takes the lock of a folder that is there, and nothing else of it.
///
/// # Errors
/// [`StoreError::Locked`], [`StoreError::NewerFormat`], [`StoreError::OtherZone`], [`StoreError::Io`].
pub(crate) fn hold(path: &Path, zone: &ZoneId) -> Result<File, StoreError> {
    known_format(path)?;
    of_zone(path, zone)?;
    lock(&path.join("lock"))
}

fn parse(name: &str) -> Option<Bucket> {
    let (number, week) = name.split_once('-')?;
    Some(Bucket { number: number.parse().ok()?, week: week.parse().ok()? })
}

fn known_format(path: &Path) -> Result<Option<u32>, StoreError> {
    let Some(found) = read_number(&path.join("format"))? else { return Ok(None) };
    let found = u32::try_from(found).unwrap_or(u32::MAX);
    if found > FORMAT { Err(StoreError::NewerFormat { found, known: FORMAT }) } else { Ok(Some(found)) }
}

/// Marks a zone whose journal is damaged; every other error passes through.
pub(crate) fn quarantine(folder: &Path, error: StoreError, disk: &dyn Disk) -> StoreError {
    let StoreError::Damaged { what } = error else { return error };
    if let Err(error) = write_text(folder, QUARANTINE, what, disk) {
        // The damage is found again at the next opening, or sled has cut it off: that is said as loudly as can be.
        tracing::error!(error = &error as &dyn std::error::Error, what, "quarantine cannot be marked");
    }
    StoreError::Quarantined { reason: what.to_owned(), file: folder.join(QUARANTINE).display().to_string() }
}

fn not_quarantined(folder: &Path) -> Result<(), StoreError> {
    let path = folder.join(QUARANTINE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let (reason, file) = (text.trim().to_owned(), path.display().to_string());
            Err(StoreError::Quarantined { reason, file })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("read", &path)(error)),
    }
}

const QUARANTINE: &str = "quarantine";

/// Whether a folder says whose it is: those of format 1, and new ones, do not.
#[derive(PartialEq, Eq)]
enum Named {
    Yes,
    No,
}

/// A folder that was mistaken must not be served as another zone's.
fn of_zone(folder: &Path, zone: &ZoneId) -> Result<Named, StoreError> {
    let path = folder.join(ZONE);
    match fs::read_to_string(&path) {
        Ok(text) if text.trim() == zone.as_str() => Ok(Named::Yes),
        Ok(text) => Err(StoreError::OtherZone { found: text.trim().to_owned(), wanted: zone.clone() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Named::No),
        Err(error) => Err(io_error("read", &path)(error)),
    }
}

pub(crate) fn write_zone(folder: &Path, zone: &ZoneId, disk: &dyn Disk) -> Result<(), StoreError> {
    write_text(folder, ZONE, zone.as_str(), disk)
}

const ZONE: &str = "zone";

fn lock(path: &Path) -> Result<File, StoreError> {
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let mut file = options.map_err(io_error("open", path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            file.read_to_string(&mut text).map_err(io_error("read", path))?;
            return Err(StoreError::Locked { process_id: text.trim().parse().unwrap_or(0) });
        }
        Err(TryLockError::Error(source)) => return Err(io_error("lock", path)(source)),
    }
    file.set_len(0).map_err(io_error("write", path))?;
    writeln!(file, "{}", std::process::id()).map_err(io_error("write", path))?;
    Ok(file)
}

pub(crate) fn read_number(path: &Path) -> Result<Option<u64>, StoreError> {
    match fs::read_to_string(path) {
        Ok(text) => {
            text.trim().parse().map(Some).map_err(|_| StoreError::Damaged { what: "number in the zone folder" })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

/// Old or new, never half: written beside, synced, renamed, and the name synced.
pub(crate) fn write_number(folder: &Path, name: &str, number: u64, disk: &dyn Disk) -> Result<(), StoreError> {
    write_text(folder, name, &number.to_string(), disk)
}

fn write_text(folder: &Path, name: &str, text: &str, disk: &dyn Disk) -> Result<(), StoreError> {
    let (new, path) = (folder.join(format!("{name}.new")), folder.join(name));
    fs::write(&new, format!("{text}\n")).map_err(io_error("write", &new))?;
    disk.sync_all(&new).map_err(io_error("sync", &new))?;
    fs::rename(&new, &path).map_err(io_error("rename", &path))?;
    disk.sync_all(folder).map_err(io_error("sync", folder))
}

/// Files that sled put beside a database of the zone in `folder`. sled never syncs them, so there must be none: no page may
/// grow so large, since no value over 4 KiB is stored (PROTOCOL 10).
///
/// # Errors
/// If a folder cannot be read.
pub fn blob_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut databases = vec![folder.join("state")];
    databases.extend(entries(&folder.join("buckets"))?);
    let mut files = Vec::new();
    for database in databases {
        files.extend(entries(&database.join("blobs"))?);
    }
    Ok(files)
}

/// Paths in a folder; none if there is no such folder.
pub(crate) fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
