//! Cuts records into numbered parts that an engine may hold, and puts them together again (PROTOCOL 10).
//!
//! Part key: the record's key, then the part's number as 16 bits. Part 0 starts with the record's length as 32 bits.

use std::ops::ControlFlow;

use crate::engine::{Engine, Row, Space, VALUE_BYTES_MAX};
use crate::zone_store::StoreError;

const LENGTH_BYTES: usize = 4;
const FIRST_PART_BYTES: usize = VALUE_BYTES_MAX - LENGTH_BYTES;

fn part_key(key: &[u8], part: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key.len() + 2);
    bytes.extend_from_slice(key);
    let part = u16::try_from(part).expect("records stay below 2^16 parts of 4 KiB: the bundle limit is 1 MiB");
    bytes.extend_from_slice(&part.to_be_bytes());
    bytes
}

/// Rows of a record of this length.
pub(crate) fn part_count(record_bytes: usize) -> usize {
    1 + record_bytes.saturating_sub(FIRST_PART_BYTES).div_ceil(VALUE_BYTES_MAX)
}

/// Appends the rows that write `record` under `key`.
pub(crate) fn put(rows: &mut Vec<Row>, key: &[u8], record: &[u8]) {
    let length = u32::try_from(record.len()).expect("records stay below 4 GiB: the bundle limit is 1 MiB");
    let (head, rest) = record.split_at(record.len().min(FIRST_PART_BYTES));
    let mut first = Vec::with_capacity(LENGTH_BYTES + head.len());
    first.extend_from_slice(&length.to_be_bytes());
    first.extend_from_slice(head);
    rows.push(Row { key: part_key(key, 0), value: Some(first) });
    for (index, chunk) in rest.chunks(VALUE_BYTES_MAX).enumerate() {
        rows.push(Row { key: part_key(key, index + 1), value: Some(chunk.to_vec()) });
    }
}

/// Appends the rows that delete parts `from..` of a record that is `record_bytes` long.
pub(crate) fn delete(rows: &mut Vec<Row>, key: &[u8], from: usize, record_bytes: usize) {
    for part in from..part_count(record_bytes) {
        rows.push(Row { key: part_key(key, part), value: None });
    }
}

/// Appends the rows that replace whatever is stored under `key`; `None` deletes it.
///
/// # Errors
/// [`StoreError`] if the engine cannot say how many parts there are now.
pub(crate) fn replace<E: Engine>(
    engine: &E,
    rows: &mut Vec<Row>,
    key: &[u8],
    record: Option<&[u8]>,
    is_large: bool,
) -> Result<(), StoreError> {
    let old = if is_large {
        engine.get(Space::State, &part_key(key, 0))?.map(|part| length(&part)).transpose()?
    } else {
        Some(0)
    };
    if let Some(record) = record {
        put(rows, key, record);
    }
    let kept = record.map_or(0, |record| part_count(record.len()));
    if let Some(old) = old {
        delete(rows, key, kept, old);
    }
    Ok(())
}

fn length(part: &[u8]) -> Result<usize, StoreError> {
    let bytes = part.get(..LENGTH_BYTES).and_then(|bytes| bytes.try_into().ok()).ok_or(DAMAGED)?;
    Ok(u32::from_be_bytes(bytes) as usize)
}

/// What part 0 has of its record.
///
/// # Errors
/// [`StoreError::Damaged`] if it is no part 0.
pub(crate) fn first_bytes(part: &[u8]) -> Result<&[u8], StoreError> {
    part.get(LENGTH_BYTES..).ok_or(DAMAGED)
}

const DAMAGED: StoreError = StoreError::Damaged { what: "record parts" };

/// A record that is being put together.
struct Assembly {
    key: Vec<u8>,
    record: Vec<u8>,
    length: usize,
    next_part: usize,
}

impl Assembly {
    fn start(key: &[u8], part: &[u8]) -> Result<Self, StoreError> {
        let length = length(part)?;
        Ok(Self { key: key.to_vec(), record: part[LENGTH_BYTES..].to_vec(), length, next_part: 1 })
    }

    fn add(&mut self, number: usize, part: &[u8]) -> Result<(), StoreError> {
        if number != self.next_part {
            return Err(DAMAGED);
        }
        self.record.extend_from_slice(part);
        self.next_part += 1;
        Ok(())
    }

    fn finish(self) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        if self.record.len() != self.length {
            return Err(DAMAGED);
        }
        Ok((self.key, self.record))
    }
}

/// The record under `key`.
///
/// # Errors
/// [`StoreError`] if the engine failed or a part is missing.
pub(crate) fn get<E: Engine>(engine: &E, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(first) = engine.get(space, &part_key(key, 0))? else { return Ok(None) };
    let mut assembly = Assembly::start(key, &first)?;
    for number in 1..part_count(assembly.length) {
        let part = engine.get(space, &part_key(key, number))?.ok_or(DAMAGED)?;
        assembly.add(number, &part)?;
    }
    assembly.finish().map(|(_, record)| Some(record))
}

/// Sees keys and whole records in order until it breaks or fails.
pub(crate) type RecordVisitor<'a> = dyn FnMut(&[u8], Vec<u8>) -> Result<ControlFlow<()>, StoreError> + 'a;

/// Shows whole records whose keys start with `prefix` and are not below `from`, ascending, until `visit` breaks.
///
/// # Errors
/// [`StoreError`] if the engine failed, a part is missing, or `visit` returned an error.
pub(crate) fn scan<E: Engine>(
    engine: &E,
    space: Space,
    prefix: &[u8],
    from: &[u8],
    visit: &mut RecordVisitor<'_>,
) -> Result<(), StoreError> {
    let mut open: Option<Assembly> = None;
    let mut failed: Option<StoreError> = None;
    let mut is_done = false;
    engine.scan(space, prefix, from, &mut |row_key, part| {
        let mut take = || -> Result<ControlFlow<()>, StoreError> {
            let (key, number) = row_key.split_last_chunk::<2>().ok_or(DAMAGED)?;
            let number = usize::from(u16::from_be_bytes(*number));
            if number > 0 {
                open.as_mut().filter(|open| open.key == key).ok_or(DAMAGED)?.add(number, part)?;
                return Ok(ControlFlow::Continue(()));
            }
            if let Some(complete) = open.take() {
                let (complete_key, record) = complete.finish()?;
                if visit(&complete_key, record)?.is_break() {
                    is_done = true;
                    return Ok(ControlFlow::Break(()));
                }
            }
            open = Some(Assembly::start(key, part)?);
            Ok(ControlFlow::Continue(()))
        };
        take().unwrap_or_else(|error| {
            failed = Some(error);
            ControlFlow::Break(())
        })
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    if let (false, Some(last)) = (is_done, open) {
        let (key, record) = last.finish()?;
        let _ = visit(&key, record)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryEngine;

    fn store(engine: &MemoryEngine, key: &[u8], record: Option<&[u8]>) {
        let mut rows = Vec::new();
        replace(engine, &mut rows, key, record, true).expect("memory");
        assert!(rows.iter().all(|row| row.value.as_ref().is_none_or(|value| value.len() <= VALUE_BYTES_MAX)));
        engine.apply(rows).expect("memory");
    }

    #[test]
    fn records_of_every_length_come_back_and_leave_nothing_behind() {
        let engine = MemoryEngine::new();
        let lengths = [0, 1, 4091, 4092, 4093, 8188, 8189, 100_000, 5, 9000, 0];
        for length in lengths {
            let record: Vec<u8> = (0..length).map(|index| index as u8).collect();
            store(&engine, b"ka", Some(&record));
            assert_eq!(get(&engine, Space::State, b"ka").expect("memory"), Some(record), "{length}");
        }
        store(&engine, b"ka", Some(&[7; 9000]));
        store(&engine, b"ka", None);
        assert_eq!(engine.last_key(Space::State, b"k").expect("memory"), None);
    }

    #[test]
    fn a_missing_part_is_damage() {
        let engine = MemoryEngine::new();
        store(&engine, b"ka", Some(&[7; 9000]));
        engine.apply(vec![Row { key: part_key(b"ka", 1), value: None }]).expect("memory");
        assert!(matches!(get(&engine, Space::State, b"ka"), Err(StoreError::Damaged { .. })));
        let scanned = scan(&engine, Space::State, b"k", b"k", &mut |_, _| Ok(ControlFlow::Continue(())));
        assert!(matches!(scanned, Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn a_scan_shows_whole_records_in_order_and_stops_when_told() {
        let engine = MemoryEngine::new();
        for (key, length) in [(b"ka", 9000), (b"kb", 10), (b"kc", 5000)] {
            store(&engine, key, Some(&vec![key[1]; length]));
        }
        let seen = |from: &[u8], limit: usize| {
            let mut seen = Vec::new();
            scan(&engine, Space::State, b"k", from, &mut |key, record| {
                seen.push((key[1], record.len()));
                Ok(if seen.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })
            .expect("memory");
            seen
        };
        assert_eq!(seen(b"k", 9), [(b'a', 9000), (b'b', 10), (b'c', 5000)]);
        assert_eq!(seen(b"kb", 9), [(b'b', 10), (b'c', 5000)]);
        assert_eq!(seen(b"k", 2), [(b'a', 9000), (b'b', 10)]);
    }
}
