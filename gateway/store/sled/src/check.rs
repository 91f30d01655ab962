//! Examining a zone's folder without changing it. sled has no way to open a database for reading only: it repairs, truncates
//! and writes as it opens. So copies are opened, one database at a time, and the folder keeps every byte.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lianxin_store::{
    Bucket, Caps, Durability, Engine, Fault, Finding, Inspection, InspectionProgress, Progress, Row, Segment,
    SegmentFill, Space, StoreError, Visitor, inspect,
};
use lianxin_types::ZoneId;

use crate::database::Database;
use crate::folder::{Finished, entries, finished, hold, io_error, read_number};
use crate::segments::SegmentFolder;
use crate::shelf::bucket_name;

/// Reads every record of the zone in `folder`, as [`inspect`] does, and looks for files that must not be there. The folder is
/// locked meanwhile and not changed, apart from the process id in `lock`; copies of its databases, at most two at a time, are
/// made in `scratch` and removed again.
///
/// # Errors
/// [`StoreError::Locked`] if a process holds the folder, [`StoreError::NewerFormat`], [`StoreError::OtherZone`], [`StoreError::Io`] if the folder or the
/// scratch folder cannot be used. What is wrong with the zone itself is a finding.
pub fn check(
    folder: &Path,
    zone: &ZoneId,
    scratch: &Path,
    watch: &mut dyn FnMut(InspectionProgress),
) -> Result<Inspection, StoreError> {
    let lock = hold(folder, zone)?;
    let scratch = Scratch::new(scratch)?;
    let mut findings = Vec::new();
    let mut buckets = finished(&folder.join("buckets"))?;
    // Being made when the power went: nothing in it was ever acknowledged, and the next open removes it.
    buckets.pop_if(|(_, finished)| *finished == Finished::No);
    for (bucket, finished) in &buckets {
        if *finished == Finished::No {
            findings.push((Some(*bucket), "the bucket's mark `ready`".to_owned(), Fault::Missing));
        }
    }
    let databases = buckets.iter().map(|(bucket, _)| (Some(*bucket), Copies::bucket(folder, *bucket)));
    for (bucket, database) in databases.chain([(None, folder.join("state"))]) {
        let blobs = database.join("blobs");
        for file in entries(&blobs).map_err(io_error("read", &blobs))? {
            findings.push((bucket, format!("file {}", file.display()), Fault::ForeignFile));
        }
    }
    let fencing_number = match read_number(&folder.join("fencing")) {
        Ok(Some(number)) => number,
        // The next open would begin again at 1, and what is fenced by an earlier number would not be fenced any more.
        Ok(None) => {
            if !buckets.is_empty() {
                findings.push((None, "the zone's fencing number".to_owned(), Fault::Missing));
            }
            0
        }
        Err(StoreError::Damaged { .. }) => {
            findings.push((
                None,
                "the zone's fencing number".to_owned(),
                Fault::Unreadable { cause: "not a number".to_owned() },
            ));
            0
        }
        Err(error) => return Err(error),
    };
    let copies = Copies {
        fencing_number,
        folder: folder.to_owned(),
        buckets: buckets.into_iter().map(|(bucket, _)| bucket).collect(),
        segments: SegmentFolder::at(folder.join("segments")),
        open: Mutex::default(),
        scratch,
        _lock: lock,
    };
    let mut inspection = inspect(zone, copies, watch);
    for (bucket, record, fault) in findings {
        inspection.add(Finding { bucket: bucket.map(|bucket| bucket.number), record, fault });
    }
    Ok(inspection)
}

/// A folder of our own that goes away with us.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> Result<Self, StoreError> {
        let path = parent.join(format!("lianxin-check-{}", std::process::id()));
        fs::create_dir(&path).map_err(io_error("create", &path))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "copies could not be removed");
        }
    }
}

/// Databases that are open as copies.
#[derive(Default)]
struct Open {
    bucket: Option<(Bucket, Arc<Database>)>,
    state: Option<Arc<Database>>,
}

/// The zone, read through copies of its databases: the state, and the bucket that was asked for last.
struct Copies {
    folder: PathBuf,
    fencing_number: u64,
    buckets: Vec<Bucket>,
    /// Files that are read where they are.
    segments: SegmentFolder,
    // Before the scratch folder: they are closed before their files go.
    open: Mutex<Open>,
    scratch: Scratch,
    _lock: File,
}

const READ_ONLY: &str = "a check writes nothing";

impl Copies {
    fn bucket(folder: &Path, bucket: Bucket) -> PathBuf {
        folder.join("buckets").join(bucket_name(bucket))
    }

    /// `None` for a state that is not there.
    fn database(&self, space: Space) -> Result<Option<Arc<Database>>, StoreError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match space {
            Space::State => {
                let original = self.folder.join("state");
                if open.state.is_none() && original.exists() {
                    open.state = Some(Arc::new(self.copy(&original, "state")?));
                }
                Ok(open.state.clone())
            }
            Space::Bucket(bucket) => {
                if let Some((last, database)) = &open.bucket
                    && *last == bucket
                {
                    return Ok(Some(Arc::clone(database)));
                }
                open.bucket = None;
                let database = Arc::new(self.copy(&Self::bucket(&self.folder, bucket), "bucket")?);
                open.bucket = Some((bucket, Arc::clone(&database)));
                Ok(Some(database))
            }
        }
    }

    /// The copy of a database, in the place of the one that had this name before.
    fn copy(&self, original: &Path, name: &str) -> Result<Database, StoreError> {
        let target = self.scratch.0.join(name);
        if target.exists() {
            fs::remove_dir_all(&target).map_err(io_error("remove", &target))?;
        }
        fs::create_dir(&target).map_err(io_error("create", &target))?;
        for file in entries(original).map_err(io_error("read", original))? {
            if let (true, Some(name)) = (file.is_file(), file.file_name()) {
                fs::copy(&file, target.join(name)).map_err(io_error("copy", &file))?;
            }
        }
        Database::open(target)
    }

    fn with<T: Default>(
        &self,
        space: Space,
        read: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.database(space)?.map_or_else(|| Ok(T::default()), |database| read(&database))
    }

    fn refuse<T>() -> Result<T, StoreError> {
        Err(StoreError::Unavailable { reason: READ_ONLY.to_owned() })
    }
}

impl Engine for Copies {
    fn caps(&self) -> Caps {
        Caps { durability: Durability::Process }
    }

    fn fencing_number(&self) -> u64 {
        self.fencing_number
    }

    fn buckets(&self) -> Result<Vec<Bucket>, StoreError> {
        Ok(self.buckets.clone())
    }

    fn create_bucket(&self, _bucket: Bucket) -> Result<(), StoreError> {
        Self::refuse()
    }

    fn append(&self, _bucket: Bucket, _rows: Vec<Row>) -> Result<(), StoreError> {
        Self::refuse()
    }

    fn drop_bucket(&self, _bucket: Bucket) -> Result<(), StoreError> {
        Self::refuse()
    }

    fn segments(&self) -> Result<Vec<(Segment, u64)>, StoreError> {
        self.segments.list()
    }

    fn write_segment(&self, _segment: Segment, _fill: &mut SegmentFill<'_>) -> Result<(), StoreError> {
        Self::refuse()
    }

    fn read_segment(&self, segment: Segment, offset: u64, bytes: usize) -> Result<Vec<u8>, StoreError> {
        self.segments.read(segment, offset, bytes)
    }

    fn state_bytes(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    fn rewrite_state(&self) -> Result<Progress, StoreError> {
        Self::refuse()
    }

    fn apply(&self, _rows: Vec<Row>) -> Result<(), StoreError> {
        Self::refuse()
    }

    fn clear_state(&self) -> Result<(), StoreError> {
        Self::refuse()
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
