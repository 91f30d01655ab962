//! The seam through which every sync goes, so that a test can keep what was synced and drop the rest.

use std::fs::File;
use std::io;
use std::path::Path;

/// Makes what was written survive a power cut.
pub trait Disk: Send + Sync + 'static {
    /// `fdatasync` on an open file; `path` names it.
    ///
    /// # Errors
    /// What the system says; nothing is known about the data then.
    fn sync_data(&self, file: &File, path: &Path) -> io::Result<()>;

    /// `fsync` on the file or the folder at `path`; for a folder it is the names in it that survive.
    ///
    /// # Errors
    /// What the system says; nothing is known about the data then.
    fn sync_all(&self, path: &Path) -> io::Result<()>;
}

/// The system's disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn sync_data(&self, file: &File, _path: &Path) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}
