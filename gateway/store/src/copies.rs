//! The segments of a zone: which buckets have been copied, and reading what they hold.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};

use crate::engine::{Bucket, Engine, Segment};
use crate::segment::{self, File, Header};
use crate::zone_store::StoreError;

/// All complete copies, by the first leaf of their bucket.
#[derive(Debug, Default)]
pub(crate) struct Copies(RwLock<BTreeMap<u64, Arc<Copy>>>);

/// The segments of one bucket.
#[derive(Debug)]
struct Copy {
    end_leaf: u64,
    files: Vec<File>,
}

/// A closed bucket and the leaves in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) bucket: Bucket,
    pub(crate) first_leaf: u64,
    pub(crate) end_leaf: u64,
}

impl Copies {
    /// Finds what can be read. A bucket whose segments are not all there is passed over: it is copied again if it is there,
    /// and its records are missed if it is not.
    ///
    /// # Errors
    /// [`StoreError`] if the engine failed.
    pub(crate) fn open<E: Engine>(engine: &E) -> Result<Self, StoreError> {
        let mut buckets: BTreeMap<u64, Vec<File>> = BTreeMap::new();
        for (segment, bytes) in engine.segments()? {
            match File::open(engine, segment, bytes) {
                Ok(file) => buckets.entry(segment.bucket).or_default().push(file),
                Err(StoreError::Damaged { what }) => tracing::warn!(?segment, what, "passing over a segment"),
                Err(error) => return Err(error),
            }
        }
        let copies = Self::default();
        for (number, files) in buckets {
            if is_complete(&files) {
                copies.add(files);
            } else {
                tracing::warn!(bucket = number, "segments of a bucket are missing");
            }
        }
        Ok(copies)
    }

    fn add(&self, files: Vec<File>) {
        let Some(Header { first_leaf, end_leaf, .. }) = files.first().map(|file| file.header.clone()) else { return };
        let copy = Arc::new(Copy { end_leaf, files });
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(first_leaf, copy);
    }

    /// A record of the journal that has been copied; `None` if its bucket has not.
    ///
    /// # Errors
    /// [`StoreError`] if the engine failed or the segment is damaged.
    pub(crate) fn record<E: Engine>(&self, engine: &E, family: u8, leaf: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let copy = {
            let copies = self.0.read().unwrap_or_else(PoisonError::into_inner);
            copies.range(..=leaf).next_back().map(|(_, copy)| Arc::clone(copy))
        };
        let Some(copy) = copy.filter(|copy| leaf < copy.end_leaf) else { return Ok(None) };
        for file in &copy.files {
            if let Some(record) = file.record(engine, family, leaf)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Whether a closed bucket has all its segments, as their headers and trailers say.
    pub(crate) fn has(&self, closed: &Closed) -> bool {
        self.copy_of(closed).is_some()
    }

    fn copy_of(&self, closed: &Closed) -> Option<Arc<Copy>> {
        let copies = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let copy = copies.get(&closed.first_leaf).filter(|copy| copy.end_leaf == closed.end_leaf)?;
        copy.files.iter().all(|file| file.header.bucket == closed.bucket).then(|| Arc::clone(copy))
    }

    /// Copies a closed bucket, unless its segments are there and are what was written. When it returns they are complete,
    /// synced and read back.
    ///
    /// # Errors
    /// [`StoreError`] if the engine failed or the bucket is damaged, [`StoreError::Unavailable`] once `is_closing`.
    pub(crate) fn complete<E: Engine>(
        &self,
        engine: &E,
        closed: Closed,
        is_closing: &AtomicBool,
    ) -> Result<(), StoreError> {
        let Closed { bucket, first_leaf, end_leaf } = closed;
        if let Some(copy) = self.copy_of(&closed) {
            match copy.files.iter().try_for_each(|file| file.verify(engine, is_closing)) {
                Err(StoreError::Damaged { what }) => {
                    tracing::warn!(bucket = bucket.number, what, "copying a bucket again");
                }
                other => return other,
            }
        }
        let classes = segment::classes(engine, bucket)?;
        let mut files = Vec::with_capacity(classes.len());
        for class in &classes {
            let segment = Segment { bucket: bucket.number, class: class.0 };
            let header = Header { bucket, first_leaf, end_leaf, class: *class, classes: classes.clone() };
            engine.write_segment(segment, &mut |out| segment::write(engine, &header, is_closing, out))?;
            let bytes = engine.segments()?.into_iter().find(|(found, _)| *found == segment).map(|(_, bytes)| bytes);
            let file = File::open(engine, segment, bytes.unwrap_or(0))?;
            file.verify(engine, is_closing)?;
            files.push(file);
        }
        let copied: u64 = files.iter().map(|file| file.records).sum();
        if copied != end_leaf - first_leaf || !is_complete(&files) {
            return Err(StoreError::Damaged { what: "bucket (leaves without an audit record that outlives it)" });
        }
        self.add(files);
        Ok(())
    }
}

/// Whether these are all segments of their bucket.
fn is_complete(files: &[File]) -> bool {
    let Some(first) = files.first() else { return false };
    let same = |file: &&File| {
        let Header { bucket, first_leaf, end_leaf, classes, .. } = &file.header;
        let expect = &first.header;
        (bucket, first_leaf, end_leaf, classes)
            == (&expect.bucket, &expect.first_leaf, &expect.end_leaf, &expect.classes)
    };
    let mut found: Vec<_> = files.iter().filter(same).map(|file| file.header.class).collect();
    found.sort_by_key(|class| class.0);
    found == first.header.classes
}
