//! A segment file: what outlives a bucket, by retention class, in journal order, immutable and checked (PROTOCOL 10).
//!
//! All integers big-endian.
//!
//! - Header: `lxseg` and version u8 (1); bucket number, bucket week, first leaf, end leaf (exclusive) u64; class u16; count u16 and
//!   all classes of the bucket u16 each, ascending; check 4.
//! - Records, ascending by leaf: body length u32, check 4, leaf u64, family u8, body (a record of the journal, untouched).
//! - Index: for each leaf of the bucket the offset of its record u64, 0 if it has none here.
//! - Trailer: offset of the index u64, number of records u64, SHA-256 over everything before it.
//!
//! A check is the first four bytes of the SHA-256 over what follows it in its record, or stands before it in the header.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use lianxin_tlog::RetentionClass;
use lianxin_types::{DecodeError, Digest, Reader, Writer};
use sha2::{Digest as _, Sha256};

use crate::engine::{Bucket, Engine, Segment, Space};
use crate::key;
use crate::parts;
use crate::record::{OWN_LIFE, damaged, retention_class};
use crate::zone_store::StoreError;

const MAGIC: &[u8; 5] = b"lxseg";
const VERSION: u8 = 1;
const CHECK_BYTES: usize = 4;
const FIXED_HEADER_BYTES: usize = 5 + 1 + 4 * 8 + 2 + 2;
const RECORD_HEADER_BYTES: usize = 4 + CHECK_BYTES + 8 + 1;
const INDEX_ENTRY_BYTES: u64 = 8;
const TRAILER_BYTES: u64 = 8 + 8 + 32;
/// Bytes read at once when a whole file is looked through.
const CHUNK_BYTES: usize = 128 * 1024;
/// Classes in one bucket at most; a schedule has a handful.
const CLASSES_MAX: u16 = 1_024;

/// What a segment says of itself and of its bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) bucket: Bucket,
    pub(crate) first_leaf: u64,
    /// The leaf behind the bucket's last one.
    pub(crate) end_leaf: u64,
    pub(crate) class: RetentionClass,
    /// All classes that have a segment of this bucket, ascending.
    pub(crate) classes: Vec<RetentionClass>,
}

impl Header {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(MAGIC).u8(VERSION).u64(self.bucket.number).u64(self.bucket.week);
        writer.u64(self.first_leaf).u64(self.end_leaf).u16(self.class.0);
        writer.u16(u16::try_from(self.classes.len()).expect("a bucket has at most CLASSES_MAX classes"));
        for class in &self.classes {
            writer.u16(class.0);
        }
        let mut bytes = writer.finish();
        let check = check_of(&[&bytes]);
        bytes.extend_from_slice(&check);
        bytes
    }

    /// Reads what [`Header::encode`] wrote, with whatever follows it.
    ///
    /// # Errors
    /// [`DecodeError`] if it did not write this.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.raw("magic", MAGIC.len())? != MAGIC {
            return Err(DecodeError::OutOfRange { field: "magic" });
        }
        let version = reader.u8("segment version")?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion { version });
        }
        let bucket = Bucket { number: reader.u64("bucket")?, week: reader.u64("week")? };
        let (first_leaf, end_leaf) = (reader.u64("first leaf")?, reader.u64("end leaf")?);
        let class = RetentionClass(reader.u16("class")?);
        let count = reader.u16("classes")?;
        if count > CLASSES_MAX || end_leaf < first_leaf {
            return Err(DecodeError::OutOfRange { field: "segment header" });
        }
        let mut classes = Vec::new();
        for _ in 0..count {
            classes.push(RetentionClass(reader.u16("class")?));
        }
        let length = FIXED_HEADER_BYTES + 2 * classes.len();
        if reader.raw("check", CHECK_BYTES)? != check_of(&[&bytes[..length]]) {
            return Err(DecodeError::OutOfRange { field: "segment header" });
        }
        Ok(Self { bucket, first_leaf, end_leaf, class, classes })
    }

    fn leaves(&self) -> u64 {
        self.end_leaf - self.first_leaf
    }
}

fn check_of(parts: &[&[u8]]) -> [u8; CHECK_BYTES] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let digest: [u8; 32] = hash.finalize().into();
    [digest[0], digest[1], digest[2], digest[3]]
}

/// The classes of a closed bucket that outlive it, ascending: all but the bucket's own.
///
/// # Errors
/// [`StoreError`] if the engine failed or the bucket is damaged.
pub(crate) fn classes<E: Engine>(engine: &E, bucket: Bucket) -> Result<Vec<RetentionClass>, StoreError> {
    let mut found = std::collections::BTreeSet::new();
    let mut failed = None;
    engine.scan(Space::Bucket(bucket), &[key::AUDIT], &[], &mut |row_key, value| {
        if row_key.ends_with(&[0, 0]) {
            match parts::first_bytes(value).and_then(|record| retention_class(record).map_err(damaged("audit record")))
            {
                Ok(class) => found.insert(class.0),
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            };
        }
        ControlFlow::Continue(())
    })?;
    match failed {
        Some(error) => Err(error),
        None => Ok(found.into_iter().map(RetentionClass).filter(|class| *class != OWN_LIFE).collect()),
    }
}

/// Writes a whole segment: the records of its class in its bucket, as the engine gives them out.
///
/// # Errors
/// [`StoreError`] if the engine failed or the bucket is damaged, [`StoreError::Unavailable`] once `is_closing`.
pub(crate) fn write<E: Engine>(
    engine: &E,
    header: &Header,
    is_closing: &AtomicBool,
    out: &mut dyn Write,
) -> Result<(), StoreError> {
    let mut out = Hashing { out, hash: Sha256::new(), written: 0 };
    out.put(&header.encode())?;
    let leaves = usize::try_from(header.leaves()).map_err(|_| StoreError::Damaged { what: "segment (its leaves)" })?;
    let mut index = vec![0_u64; leaves];
    let mut records = 0_u64;
    parts::scan(engine, Space::Bucket(header.bucket), &[key::AUDIT], &[], &mut |row_key, record| {
        if is_closing.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable { reason: "the zone is closing".to_owned() });
        }
        if retention_class(&record).map_err(damaged("audit record"))? != header.class {
            return Ok(ControlFlow::Continue(()));
        }
        let leaf = key::leaf_index(row_key).ok_or(StoreError::Damaged { what: "audit record (its key)" })?;
        let place = leaf.checked_sub(header.first_leaf).and_then(|place| usize::try_from(place).ok());
        let place = place.and_then(|place| index.get_mut(place));
        *place.ok_or(StoreError::Damaged { what: "audit record (of another bucket)" })? = out.written;
        out.put(&encode_record(leaf, key::AUDIT, &record))?;
        records += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    let index_offset = out.written;
    for offset in index {
        out.put(&offset.to_be_bytes())?;
    }
    out.put(&index_offset.to_be_bytes())?;
    out.put(&records.to_be_bytes())?;
    let digest: [u8; 32] = out.hash.clone().finalize().into();
    out.put(&digest)
}

pub(crate) fn encode_record(leaf: u64, family: u8, body: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    let check = check_of(&[&leaf.to_be_bytes(), &[family], body]);
    writer.u32(u32::try_from(body.len()).expect("records stay below 4 GiB: the bundle limit is 1 MiB"));
    writer.raw(&check).u64(leaf).u8(family).raw(body).finish()
}

struct Hashing<'a> {
    out: &'a mut dyn Write,
    hash: Sha256,
    written: u64,
}

impl Hashing<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        self.out.write_all(bytes).map_err(io_error)
    }
}

fn io_error(source: io::Error) -> StoreError {
    StoreError::Io { operation: "write segment", path: String::new(), source }
}

/// A segment that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) segment: Segment,
    pub(crate) header: Header,
    index_offset: u64,
    pub(crate) records: u64,
    bytes: u64,
}

const CUT: StoreError = StoreError::Damaged { what: "segment (it is cut)" };

impl File {
    /// Reads header and trailer; the rest is checked record by record, or by [`File::verify`].
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if they are not those of a whole segment, or what the engine says.
    pub(crate) fn open<E: Engine>(engine: &E, segment: Segment, bytes: u64) -> Result<Self, StoreError> {
        let header_bytes = FIXED_HEADER_BYTES + 2 * usize::from(CLASSES_MAX) + CHECK_BYTES;
        let header = engine.read_segment(segment, 0, header_bytes)?;
        let header = Header::decode(&header).map_err(damaged("segment header"))?;
        let start = bytes.checked_sub(TRAILER_BYTES).ok_or(CUT)?;
        let trailer = engine.read_segment(segment, start, TRAILER_BYTES as usize)?;
        let mut reader = Reader::new(&trailer);
        let index_offset = reader.u64("index offset").map_err(damaged("segment trailer"))?;
        let records = reader.u64("records").map_err(damaged("segment trailer"))?;
        let index_bytes = header.leaves().checked_mul(INDEX_ENTRY_BYTES).ok_or(CUT)?;
        let is_whole = index_offset.checked_add(index_bytes) == Some(start) && records <= header.leaves();
        let is_named = (segment.bucket, segment.class) == (header.bucket.number, header.class.0);
        if is_whole && is_named { Ok(Self { segment, header, index_offset, records, bytes }) } else { Err(CUT) }
    }

    /// Reads every byte and compares the digest.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is not what was written, [`StoreError::Unavailable`] once `is_closing`.
    pub(crate) fn verify<E: Engine>(&self, engine: &E, is_closing: &AtomicBool) -> Result<(), StoreError> {
        let end = self.bytes - 32;
        let mut hash = Sha256::new();
        let mut offset = 0;
        while offset < end {
            if is_closing.load(Ordering::Relaxed) {
                return Err(StoreError::Unavailable { reason: "the zone is closing".to_owned() });
            }
            let wanted = usize::try_from(end - offset).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            let chunk = engine.read_segment(self.segment, offset, wanted)?;
            if chunk.len() != wanted {
                return Err(CUT);
            }
            hash.update(&chunk);
            offset += chunk.len() as u64;
        }
        let digest: [u8; 32] = hash.finalize().into();
        let written = engine.read_segment(self.segment, end, 32)?;
        if Digest(digest).0[..] == written[..] {
            Ok(())
        } else {
            Err(StoreError::Damaged { what: "segment (it is not what was written)" })
        }
    }

    /// The record of a leaf, if it is of this segment's class.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is not what was written, or what the engine says.
    pub(crate) fn record<E: Engine>(&self, engine: &E, family: u8, leaf: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(place) = leaf.checked_sub(self.header.first_leaf).filter(|place| *place < self.header.leaves()) else {
            return Ok(None);
        };
        let entry = self.index_offset + place * INDEX_ENTRY_BYTES;
        let entry = engine.read_segment(self.segment, entry, INDEX_ENTRY_BYTES as usize)?;
        let offset = u64::from_be_bytes(entry.try_into().map_err(|_| CUT)?);
        if offset == 0 {
            return Ok(None);
        }
        let head = engine.read_segment(self.segment, offset, RECORD_HEADER_BYTES)?;
        let mut reader = Reader::new(&head);
        let mut fields = || -> Result<_, DecodeError> {
            let length = reader.u32("record length")?;
            let check: [u8; CHECK_BYTES] = reader.array("check")?;
            Ok((length, check, reader.u64("leaf")?, reader.u8("family")?))
        };
        let (length, check, found_leaf, found_family) = fields().map_err(damaged("segment record"))?;
        if offset + u64::from(length) > self.index_offset {
            return Err(CUT);
        }
        let body = engine.read_segment(self.segment, offset + RECORD_HEADER_BYTES as u64, length as usize)?;
        let is_it = (found_leaf, found_family) == (leaf, family) && body.len() == length as usize;
        if is_it && check == check_of(&[&leaf.to_be_bytes(), &[family], &body]) {
            Ok(Some(body))
        } else {
            Err(StoreError::Damaged { what: "segment record" })
        }
    }
}

#[cfg(test)]
mod tests;
