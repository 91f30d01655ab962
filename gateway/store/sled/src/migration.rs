//! From older formats of a zone's folder to this build's: a whole copy first, then one step after the other. A crash at any
//! moment leaves a folder of the old format, or one of the new format with the whole copy beside it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lianxin_store::StoreError;
use lianxin_types::ZoneId;

use crate::disk::Disk;
use crate::folder::{FORMAT, io_error, write_number, write_zone};

/// Brings the locked folder at `path` from format `found` to [`FORMAT`].
///
/// Format 1 did not say whose zone it is: whoever mistook a folder served one zone's channels as another's. Format 2 has the
/// name in it.
///
/// # Errors
/// [`StoreError::Io`], also if a copy would leave fewer than `free_bytes_min` bytes free; nothing is changed then.
pub(crate) fn migrate(
    path: &Path,
    found: u32,
    zone: &ZoneId,
    free_bytes_min: u64,
    disk: &dyn Disk,
) -> Result<(), StoreError> {
    let copy = copy_of(path, found);
    tracing::info!(folder = %path.display(), from = found, to = FORMAT, copy = %copy.display(), "migrating after a copy");
    keep_copy(path, &copy, free_bytes_min, disk)?;
    for format in found..FORMAT {
        match format {
            1 => write_zone(path, zone, disk)?,
            // `known_format` lets no other number through.
            _ => return Err(StoreError::Damaged { what: "number in the zone folder" }),
        }
        // Last: until then it is a folder of the old format, to which a name more does nothing.
        write_number(path, "format", u64::from(format + 1), disk)?;
    }
    Ok(())
}

/// Where the copy of a folder of an older format is kept: beside it.
fn copy_of(path: &Path, format: u32) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(format!(".format-{format}"));
    path.with_file_name(name)
}

fn keep_copy(path: &Path, copy: &Path, free_bytes_min: u64, disk: &dyn Disk) -> Result<(), StoreError> {
    let mut making = copy.as_os_str().to_owned();
    making.push(".new");
    let making = PathBuf::from(making);
    // What an earlier attempt left: half of one is of no use, and a whole one may be older than the folder.
    for old in [&making, &copy.to_owned()] {
        match fs::remove_dir_all(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("remove", old)(error)),
            _ => {}
        }
    }
    let needed = size(path).map_err(io_error("read", path))?.saturating_add(free_bytes_min);
    let free = disk.free_bytes(path).map_err(io_error("measure", path))?;
    if free < needed {
        let text = format!("{needed} bytes must be free for a copy, and {free} are");
        return Err(io_error("copy", path)(io::Error::new(io::ErrorKind::StorageFull, text)));
    }
    copy_tree(path, &making, disk)?;
    fs::rename(&making, copy).map_err(io_error("rename", &making))?;
    let parent = copy.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    disk.sync_all(parent).map_err(io_error("sync", parent))
}

/// Bytes of all files below a folder.
fn size(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() { size(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}

/// Copies everything but the lock and the reserve, and syncs what it made from the leaves up.
fn copy_tree(from: &Path, to: &Path, disk: &dyn Disk) -> Result<(), StoreError> {
    fs::create_dir(to).map_err(io_error("create", to))?;
    for entry in fs::read_dir(from).map_err(io_error("read", from))? {
        let entry = entry.map_err(io_error("read", from))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().map_err(io_error("read", &path))?.is_dir() {
            copy_tree(&path, &target, disk)?;
        } else if !["lock", "reserve"].iter().any(|name| entry.file_name() == *name) {
            fs::copy(&path, &target).map_err(io_error("copy", &path))?;
            disk.sync_all(&target).map_err(io_error("sync", &target))?;
        }
    }
    disk.sync_all(to).map_err(io_error("sync", to))
}
