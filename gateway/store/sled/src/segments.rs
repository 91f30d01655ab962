//! Segment files in a folder of the zone: written beside, synced, renamed, and the name synced, so that there is a whole one
//! under a segment's name or none.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lianxin_store::{Segment, SegmentFill, StoreError};

use crate::disk::Disk;
use crate::folder::{entries, io_error};

/// The folder of segments.
pub(crate) struct SegmentFolder(PathBuf);

impl SegmentFolder {
    /// Makes the folder if there is none, and removes what was cut short.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn open(path: PathBuf, zone: &Path, disk: &dyn Disk) -> Result<Self, StoreError> {
        if !path.exists() {
            fs::create_dir_all(&path).map_err(io_error("create", &path))?;
            disk.sync_all(zone).map_err(io_error("sync", zone))?;
        }
        for file in entries(&path).map_err(io_error("read", &path))? {
            if file.extension().is_some_and(|extension| extension == "new") {
                fs::remove_file(&file).map_err(io_error("remove", &file))?;
            }
        }
        Ok(Self(path))
    }

    /// The folder as it is, to be read.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    fn path(&self, segment: Segment) -> PathBuf {
        self.0.join(format!("{:08}-{:05}.seg", segment.bucket, segment.class))
    }

    /// All segments with their lengths, ascending.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) fn list(&self) -> Result<Vec<(Segment, u64)>, StoreError> {
        let mut segments = Vec::new();
        for file in entries(&self.0).map_err(io_error("read", &self.0))? {
            if file.extension().is_some_and(|extension| extension == "new") {
                continue;
            }
            match parse(&file) {
                Some(segment) => {
                    segments.push((segment, fs::metadata(&file).map_err(io_error("read", &file))?.len()));
                }
                None => tracing::warn!(path = %file.display(), "not a segment; left alone"),
            }
        }
        segments.sort_unstable();
        Ok(segments)
    }

    /// Writes a segment or replaces it.
    ///
    /// # Errors
    /// [`StoreError::Io`], and whatever `fill` says.
    pub(crate) fn write(
        &self,
        segment: Segment,
        disk: &dyn Disk,
        fill: &mut SegmentFill<'_>,
    ) -> Result<(), StoreError> {
        let path = self.path(segment);
        let new = path.with_extension("new");
        let file = File::create(&new).map_err(io_error("create", &new))?;
        let mut out = BufWriter::new(file);
        fill(&mut out)?;
        out.flush().map_err(io_error("write", &new))?;
        drop(out);
        disk.sync_all(&new).map_err(io_error("sync", &new))?;
        fs::rename(&new, &path).map_err(io_error("rename", &new))?;
        disk.sync_all(&self.0).map_err(io_error("sync", &self.0))
    }

    /// Bytes from `offset` on, at most `bytes`.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if there is no such segment, [`StoreError::Io`].
    pub(crate) fn read(&self, segment: Segment, offset: u64, bytes: usize) -> Result<Vec<u8>, StoreError> {
        let path = self.path(segment);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Damaged { what: "segment (it is missing)" });
            }
            other => other.map_err(io_error("open", &path))?,
        };
        let left = file.metadata().map_err(io_error("read", &path))?.len().saturating_sub(offset);
        // What a damaged length asks for is not more than what is there.
        let mut buffer = vec![0; bytes.min(usize::try_from(left).unwrap_or(usize::MAX))];
        file.read_exact_at(&mut buffer, offset).map_err(io_error("read", &path))?;
        Ok(buffer)
    }
}

fn parse(path: &Path) -> Option<Segment> {
    let name = path.file_name()?.to_str()?.strip_suffix(".seg")?;
    let (bucket, class) = name.split_once('-')?;
    Some(Segment { bucket: bucket.parse().ok()?, class: class.parse().ok()? })
}
