//! The seam through which every sync goes and every look at what is free, so that a test can keep what was synced and drop the
//! rest, or fill the disk.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Makes what was written survive a power cut, and says what can still be written.
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

    /// Bytes that may still be written where `folder` lies.
    ///
    /// # Errors
    /// What the system says.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let system = rustix::fs::statvfs(folder)?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    /// Makes a file of `bytes` zero bytes whose space is taken from the disk at once.
    ///
    /// # Errors
    /// What the system says; the file may be there in part.
    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let mut file = File::create(path)?;
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            Ok(()) => {}
            // A file system without it is written to.
            Err(rustix::io::Errno::OPNOTSUPP) => {
                io::copy(&mut io::repeat(0).take(bytes), &mut file)?;
            }
            Err(error) => return Err(error.into()),
        }
        file.sync_all()
    }
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
