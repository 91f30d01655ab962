//! The `Engine` seam on a zone's folder: one database per bucket, one for the state.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use lianxin_store::{
    Bucket, Caps, Durability, Engine, Opener, Progress, Reopening, Room, Row, Segment, SegmentFill, Space, StoreError,
    Visitor, Zone, ZoneOptions, ZoneStore,
};
use lianxin_types::{Clock, LIMITS, Timestamp, ZoneId};

use crate::database::Database;
use crate::disk::Disk;
use crate::folder::{DEAD, Folder, io_error, quarantine};
use crate::segments::SegmentFolder;
use crate::shelf::Shelf;
use crate::space::{SpaceBounds, SpaceWatch};
use crate::state::StateFolder;

/// A zone's folder, opened.
pub struct SledEngine {
    // Databases before the folder: they are closed before its lock is given up.
    buckets: Shelf,
    state: StateFolder,
    segments: SegmentFolder,
    folder: Folder,
    space: SpaceWatch,
    disk: Arc<dyn Disk>,
}

/// Opens the zone in `folder`, or makes it. After a fault it opens itself again, with a new fencing number.
///
/// # Errors
/// [`StoreError::Locked`] if a process holds the folder, [`StoreError::NewerFormat`] if a newer version wrote it (it is left
/// untouched), [`StoreError::OtherZone`], [`StoreError::Damaged`] if the journal is not what was acknowledged, [`StoreError::Io`].
pub fn open(
    folder: &Path,
    zone: ZoneId,
    clock: Arc<dyn Clock>,
    disk: Arc<dyn Disk>,
) -> Result<Arc<dyn ZoneStore>, StoreError> {
    open_with(folder, zone, clock, disk, ZoneOptions::default())
}

/// As [`open`], with bounds of one's own.
///
/// # Errors
/// As [`open`].
pub fn open_with(
    folder: &Path,
    zone: ZoneId,
    clock: Arc<dyn Clock>,
    disk: Arc<dyn Disk>,
    options: ZoneOptions,
) -> Result<Arc<dyn ZoneStore>, StoreError> {
    open_bounded(folder, zone, clock, disk, options, SpaceBounds::NONE)
}

/// As [`open_with`], on a disk that must not become full.
///
/// # Errors
/// As [`open`].
pub fn open_bounded(
    folder: &Path,
    zone: ZoneId,
    clock: Arc<dyn Clock>,
    disk: Arc<dyn Disk>,
    options: ZoneOptions,
    space: SpaceBounds,
) -> Result<Arc<dyn ZoneStore>, StoreError> {
    Ok(Arc::new(Reopening::open(opener(folder, zone, clock, disk, options, space))?))
}

/// As [`open_bounded`], for a gateway: a zone whose journal is damaged is quarantined, which a file in its folder says from
/// then on, and this gives a closed zone that opens itself once the folder has been restored and that file removed. sled
/// repairs by cutting off what it cannot read, so without the mark the next opening could find a journal that looks sound.
///
/// # Errors
/// As [`open`], apart from [`StoreError::Damaged`], [`StoreError::Quarantined`] and a [`StoreError::Io`] for want of space; [`StoreError::ClockBehind`] by more than
/// the tolerated skew (PROTOCOL 12). Whenever it opens itself again it asks the same, and stays closed meanwhile.
pub fn keep_open(
    folder: &Path,
    zone: ZoneId,
    clock: Arc<dyn Clock>,
    disk: Arc<dyn Disk>,
    options: ZoneOptions,
    space: SpaceBounds,
) -> Result<Arc<dyn ZoneStore>, StoreError> {
    let open = opener(folder, zone.clone(), Arc::clone(&clock), Arc::clone(&disk), options, space);
    let folder = folder.to_owned();
    let guarded = move || {
        let store = open().map_err(|error| quarantine(&folder, error, &*disk))?;
        check_clock(clock.now(), store.health().last_time)?;
        Ok(store)
    };
    let caps = Caps { durability: Durability::LocalSync };
    Ok(Arc::new(Reopening::open_or_wait(zone, caps, Box::new(guarded))?))
}

/// A clock that went back would date records before those that they follow, let expired certificates in and keep what should
/// go. Asked at each open, since a zone that was closed for a while opens itself.
fn check_clock(now: Timestamp, last: Timestamp) -> Result<(), StoreError> {
    if now.plus(LIMITS.clock_skew_max) < last { Err(StoreError::ClockBehind { now, last }) } else { Ok(()) }
}

fn opener(
    folder: &Path,
    zone: ZoneId,
    clock: Arc<dyn Clock>,
    disk: Arc<dyn Disk>,
    options: ZoneOptions,
    space: SpaceBounds,
) -> Opener {
    let folder = folder.to_owned();
    Box::new(move || {
        let engine = SledEngine::open_bounded(&folder, &zone, Arc::clone(&disk), space)?;
        Ok(Arc::new(Zone::open(zone.clone(), engine, Arc::clone(&clock), options)?))
    })
}

impl SledEngine {
    /// Takes the folder and opens its state and newest bucket.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(folder: &Path, zone: &ZoneId, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        Self::open_bounded(folder, zone, disk, SpaceBounds::NONE)
    }

    fn open_bounded(folder: &Path, zone: &ZoneId, disk: Arc<dyn Disk>, space: SpaceBounds) -> Result<Self, StoreError> {
        let (folder, space) = Folder::open(folder, zone, &disk, space)?;
        folder.tidy(&*disk)?;
        let segments = SegmentFolder::open(folder.segments(), folder.path(), &*disk)?;
        let buckets = Shelf::open(folder.buckets(), folder.list()?)?;
        if let Some(newest) = buckets.list().last() {
            // What was written last may never have been synced, and from now on repeats of it are acknowledged.
            buckets.take(*newest)?.sync(&*disk)?;
        }
        let state = StateFolder::open(&folder)?;
        Ok(Self { buckets, state, segments, folder, space, disk })
    }

    fn with<T>(&self, space: Space, read: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match space {
            Space::Bucket(bucket) => read(&*self.buckets.take(bucket)?),
            Space::State => self.state.with(read),
        }
    }
}

impl Engine for SledEngine {
    fn caps(&self) -> Caps {
        Caps { durability: Durability::LocalSync }
    }

    fn fencing_number(&self) -> u64 {
        self.folder.fencing_number
    }

    fn room(&self) -> Room {
        self.space.room()
    }

    fn buckets(&self) -> Result<Vec<Bucket>, StoreError> {
        Ok(self.buckets.list())
    }

    fn create_bucket(&self, bucket: Bucket) -> Result<(), StoreError> {
        if self.buckets.list().contains(&bucket) {
            return Ok(());
        }
        let path = self.folder.bucket(bucket);
        let database = Database::open(path.clone())?;
        database.settle(&*self.disk)?;
        // Last of all what says that the rest is there.
        let ready = path.join("ready");
        fs::write(&ready, b"").map_err(io_error("write", &ready))?;
        for path in [ready, path, self.folder.buckets()] {
            self.disk.sync_all(&path).map_err(io_error("sync", &path))?;
        }
        self.buckets.push(bucket, database);
        Ok(())
    }

    fn append(&self, bucket: Bucket, rows: Vec<Row>) -> Result<(), StoreError> {
        let database = self.buckets.take(bucket)?;
        self.folder.still_held()?;
        database.apply(rows)?;
        database.sync(&*self.disk)
    }

    fn apply(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        self.state.apply(rows)
    }

    fn clear_state(&self) -> Result<(), StoreError> {
        self.state.with(|state| state.clear(b"!"))
    }

    fn drop_bucket(&self, bucket: Bucket) -> Result<(), StoreError> {
        self.buckets.remove(bucket)?;
        let (path, buckets) = (self.folder.bucket(bucket), self.folder.buckets());
        if !path.exists() {
            return Ok(());
        }
        // One step from being there to being gone, whatever becomes of the files.
        let dead = path.with_extension(DEAD);
        fs::rename(&path, &dead).map_err(io_error("rename", &path))?;
        self.disk.sync_all(&buckets).map_err(io_error("sync", &buckets))?;
        fs::remove_dir_all(&dead).map_err(io_error("remove", &dead))
    }

    fn segments(&self) -> Result<Vec<(Segment, u64)>, StoreError> {
        self.segments.list()
    }

    fn write_segment(&self, segment: Segment, fill: &mut SegmentFill<'_>) -> Result<(), StoreError> {
        self.segments.write(segment, &*self.disk, fill)
    }

    fn read_segment(&self, segment: Segment, offset: u64, bytes: usize) -> Result<Vec<u8>, StoreError> {
        self.segments.read(segment, offset, bytes)
    }

    fn state_bytes(&self) -> Result<Option<u64>, StoreError> {
        self.state.with(Database::bytes).map(Some)
    }

    fn rewrite_state(&self) -> Result<Progress, StoreError> {
        self.state.rewrite(&self.folder, &*self.disk)
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(space, |database| database.get(key))
    }

    fn scan(&self, space: Space, prefix: &[u8], from: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        self.with(space, |database| database.scan(prefix, from, visit))
    }

    fn last_key(&self, space: Space, prefix: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(space, |database| database.last_key(prefix))
    }
}
