//! Room on the disk, watched before anything is written: sled must never meet a full one (PROTOCOL 10).
//!
//! Below a threshold of free space only audit records are written, and a file that was allocated beforehand is given up for
//! them; when that is used up nothing is written. When there is space again the file is made anew and all goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lianxin_store::{Room, StoreError};

use crate::disk::Disk;
use crate::folder::io_error;

/// Bounds of the disk that a zone's folder lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceBounds {
    /// Below this many free bytes only audit records are written. Far above what one batch of units can take.
    pub free_bytes_min: u64,
    /// Bytes kept allocated for audit records; 0 for no bounds at all.
    pub reserve_bytes: u64,
}

impl SpaceBounds {
    /// The disk is written until it is full: for tools and tests.
    pub const NONE: Self = Self { free_bytes_min: 0, reserve_bytes: 0 };

    /// Below this nothing is written: what is left is for sled's own upkeep.
    const fn floor(&self) -> u64 {
        self.reserve_bytes / 4
    }

    /// From here on the reserve can be made again and a good deal is left.
    const fn enough(&self) -> u64 {
        self.free_bytes_min + self.free_bytes_min / 8 + self.reserve_bytes
    }
}

/// What was found last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reserve {
    Held,
    Released,
}

/// Watches one folder.
pub(crate) struct SpaceWatch {
    folder: PathBuf,
    bounds: SpaceBounds,
    disk: Arc<dyn Disk>,
    last: Mutex<(Reserve, Room)>,
}

impl SpaceWatch {
    /// Looks at the folder before anything else is written to it: on a full disk the reserve makes room for the opening.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a reserve of another size cannot be removed.
    pub(crate) fn open(folder: &Path, bounds: SpaceBounds, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        let path = folder.join(NAME);
        let held = match fs::metadata(&path) {
            Ok(metadata) if metadata.len() == bounds.reserve_bytes => Reserve::Held,
            Ok(_) => {
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
                Reserve::Released
            }
            Err(_) => Reserve::Released,
        };
        let watch = Self { folder: folder.to_owned(), bounds, disk, last: Mutex::new((held, Room::Everything)) };
        watch.room();
        Ok(watch)
    }

    /// What may be written now; gives the reserve up and makes it again as needed.
    pub(crate) fn room(&self) -> Room {
        if self.bounds == SpaceBounds::NONE {
            return Room::Everything;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (held, before) = *last;
        let (held, room) = self.look(held);
        *last = (held, room);
        if room != before {
            self.tell(room);
        }
        room
    }

    fn look(&self, held: Reserve) -> (Reserve, Room) {
        // What cannot be measured is not written to.
        let free = || self.disk.free_bytes(&self.folder).unwrap_or(0);
        let path = self.folder.join(NAME);
        if held == Reserve::Held {
            if free() >= self.bounds.free_bytes_min {
                return (Reserve::Held, Room::Everything);
            }
            if let Err(error) = fs::remove_file(&path) {
                tracing::error!(path = %path.display(), %error, "reserve cannot be given up");
            }
        }
        let free = free();
        if free >= self.bounds.enough() {
            match self.disk.allocate(&path, self.bounds.reserve_bytes) {
                Ok(()) => return (Reserve::Held, Room::Everything),
                Err(error) => {
                    tracing::debug!(path = %path.display(), %error, "reserve cannot be made");
                    // Half a reserve is none; there may be nothing to remove.
                    drop(fs::remove_file(&path));
                }
            }
        }
        let room = if free >= self.bounds.floor() { Room::AuditOnly } else { Room::Nothing };
        (Reserve::Released, room)
    }

    fn tell(&self, room: Room) {
        let folder = self.folder.display();
        let wanted = self.bounds.enough();
        match room {
            Room::Everything => tracing::info!(%folder, "there is space again: everything is written"),
            Room::AuditOnly => tracing::error!(
                %folder, wanted, "disk is nearly full: only audit records are written until so many bytes are free"
            ),
            Room::Nothing => tracing::error!(
                %folder, wanted, "disk is full: nothing is written until so many bytes are free"
            ),
        }
    }
}

/// The file's name in the zone's folder.
const NAME: &str = "reserve";

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;
    use crate::disk::RealDisk;

    /// A disk whose free space is set by the test; what is allocated is taken from it.
    struct Small {
        free: AtomicU64,
        allocates: AtomicBool,
    }

    impl Disk for Small {
        fn sync_data(&self, file: &File, path: &Path) -> io::Result<()> {
            RealDisk.sync_data(file, path)
        }
        fn sync_all(&self, path: &Path) -> io::Result<()> {
            RealDisk.sync_all(path)
        }
        fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
            let reserve = fs::metadata(folder.join(NAME)).map_or(0, |metadata| metadata.len());
            Ok(self.free.load(Ordering::Relaxed).saturating_sub(reserve))
        }
        fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()> {
            if self.allocates.load(Ordering::Relaxed) {
                return RealDisk.allocate(path, bytes);
            }
            fs::write(path, b"half")?;
            Err(io::Error::other("not now"))
        }
    }

    const BOUNDS: SpaceBounds = SpaceBounds { free_bytes_min: 800_000, reserve_bytes: 400_000 };

    fn small(free: u64) -> Arc<Small> {
        Arc::new(Small { free: AtomicU64::new(free), allocates: AtomicBool::new(true) })
    }

    fn watch(folder: &Path, disk: &Arc<Small>) -> SpaceWatch {
        SpaceWatch::open(folder, BOUNDS, Arc::<Small>::clone(disk)).expect("a temporary folder")
    }

    #[test]
    fn the_reserve_is_given_up_for_audit_records_and_made_again() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let (disk, reserve) = (small(10_000_000), root.path().join(NAME));
        let watch = watch(root.path(), &disk);
        let held = || fs::metadata(&reserve).map_or(0, |metadata| metadata.len());
        let room = |free| {
            disk.free.store(free, Ordering::Relaxed);
            watch.room()
        };
        assert_eq!((watch.room(), held()), (Room::Everything, 400_000));
        assert_eq!((room(1_200_000), held()), (Room::Everything, 400_000), "exactly the threshold is left");
        assert_eq!((room(1_199_999), held()), (Room::AuditOnly, 0));
        assert_eq!((room(1_299_999), held()), (Room::AuditOnly, 0), "a little more is not enough to begin again");
        assert_eq!((room(100_000), held()), (Room::AuditOnly, 0));
        assert_eq!((room(99_999), held()), (Room::Nothing, 0));
        assert_eq!((room(100_000), held()), (Room::AuditOnly, 0));
        assert_eq!((room(1_300_000), held()), (Room::Everything, 400_000));
    }

    #[test]
    fn without_its_reserve_the_disk_counts_as_full() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let disk = small(10_000_000);
        disk.allocates.store(false, Ordering::Relaxed);
        let watch = watch(root.path(), &disk);
        assert_eq!(watch.room(), Room::AuditOnly);
        assert!(!root.path().join(NAME).exists(), "half a reserve is none");
        disk.allocates.store(true, Ordering::Relaxed);
        assert_eq!(watch.room(), Room::Everything);
    }

    #[test]
    fn an_opening_finds_the_reserve_of_the_one_before() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let (disk, reserve) = (small(10_000_000), root.path().join(NAME));
        drop(watch(root.path(), &disk));
        assert!(reserve.exists());
        disk.free.store(1_000_000, Ordering::Relaxed);
        let watch_again = watch(root.path(), &disk);
        assert!(!reserve.exists(), "given up before anything else is written");
        assert_eq!(watch_again.room(), Room::AuditOnly);
        disk.free.store(10_000_000, Ordering::Relaxed);
        fs::write(&reserve, b"of another size").expect("a temporary folder");
        assert_eq!(watch(root.path(), &disk).room(), Room::Everything);
        assert_eq!(fs::metadata(&reserve).expect("made again").len(), 400_000);
    }
}
