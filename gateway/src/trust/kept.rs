//! The trust that is in force, kept beside the zone's folder: a restart takes no older bundle and no older revocation list
//! than the gateway had before (PROTOCOL 9).
//!
//! The file holds what is public and signed: the notes of the bundle and of its predecessors, and the revocation lists.
//! It is verified like any other when it is read. Version u8, count u32 and the notes in ascending version, count u32 and
//! the lists; each with its 32-bit length in front.

use std::io::{ErrorKind, Write as _};
use std::path::Path;

use lianxin_trust::{Federation, RootKeys, VerifiedBundle, verify_bundle};
use lianxin_types::{DecodeError, Reader, Writer};

use crate::error::ServeError;

const VERSION: u8 = 1;
/// Bundles kept beside the one in force: more than a year of weekly ones.
const PREDECESSORS_MAX: usize = 64;
/// Longest note and longest revocation list.
const ITEM_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What was in force.
pub(super) struct Kept {
    pub(super) federation: Federation,
    /// Earlier bundles, ascending.
    pub(super) predecessors: Vec<VerifiedBundle>,
}

/// What the file says; `None` if there is none, as before the first start.
///
/// # Errors
/// [`ServeError::File`]; [`ServeError::Trust`] if the file is damaged or does not verify under `roots`.
pub(super) fn read(path: &Path, roots: &RootKeys) -> Result<Option<Kept>, ServeError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ServeError::File { path: path.to_owned(), source }),
    };
    let wrong = |fault: String| {
        let advice = "it keeps the trust in force; remove it only if the root keys were replaced on purpose";
        ServeError::trust(path, format!("{fault} ({advice})"))
    };
    let (notes, lists) = decode(&bytes).map_err(|fault| wrong(fault.to_string()))?;
    let bundles = notes.iter().map(|note| verify_bundle(roots, note)).collect::<Result<Vec<_>, _>>();
    let mut predecessors = bundles.map_err(|fault| wrong(fault.to_string()))?;
    let bundle = predecessors.pop().ok_or_else(|| wrong("there is no bundle in it".into()))?;
    let federation = Federation::new(bundle, lists).map_err(|fault| wrong(fault.to_string()))?;
    Ok(Some(Kept { federation, predecessors }))
}

/// Keeps `federation` and the newest of its predecessors (ascending), durably: after a crash the file is the old or the new.
/// A file that says the same stays as it is, so that a start on a full disk needs no space for it.
///
/// # Errors
/// The system's.
pub(super) fn write(path: &Path, federation: &Federation, predecessors: &[VerifiedBundle]) -> std::io::Result<()> {
    let newest = &predecessors[predecessors.len().saturating_sub(PREDECESSORS_MAX)..];
    let notes: Vec<&[u8]> = newest.iter().chain([federation.bundle()]).map(|one| &one.note[..]).collect();
    let lists: Vec<&[u8]> = federation.revocation_lists().collect();
    let bytes = encode(&notes, &lists);
    if std::fs::read(path).is_ok_and(|kept| kept == bytes) {
        return Ok(());
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let mut file = std::fs::File::create(&name)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&name, path)?;
    match path.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Notes or lists, as bytes.
type Items = Vec<Vec<u8>>;

fn encode(notes: &[&[u8]], lists: &[&[u8]]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u8(VERSION);
    for items in [notes, lists] {
        writer.u32(u32::try_from(items.len()).expect("at most 65 notes, and a list for each authority"));
        for item in items {
            writer.bytes(item);
        }
    }
    writer.finish()
}

fn decode(bytes: &[u8]) -> Result<(Items, Items), DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = reader.u8("version")?;
    if version != VERSION {
        return Err(DecodeError::UnknownVersion { version });
    }
    let (notes, lists) = (items(&mut reader, "note")?, items(&mut reader, "revocation list")?);
    reader.finish()?;
    Ok((notes, lists))
}

fn items(reader: &mut Reader<'_>, field: &'static str) -> Result<Items, DecodeError> {
    let count = reader.u32(field)?;
    // The count is not believed: the bytes end before an invented one is reached.
    (0..count).map(|_| Ok(reader.bytes(field, ITEM_BYTES_MAX)?.to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let bytes = encode(&[b"note one", b"note two"], &[b"list"]);
        let golden = "010000000200000008\
                      6e6f7465206f6e65000000086e6f74652074776f00000001000000046c697374";
        let shown: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, golden);
        let text = |items: Items| items.concat();
        let (notes, lists) = decode(&bytes).expect("the format");
        assert_eq!((text(notes), text(lists)), (b"note onenote two".to_vec(), b"list".to_vec()));
    }

    #[test]
    fn other_bytes_are_refused() {
        let bytes = encode(&[b"note"], &[b"list"]);
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "cut at {length}");
        }
        assert_eq!(decode(&[&bytes[..], &[0]].concat()), Err(DecodeError::Trailing { count: 1 }));
        assert_eq!(decode(&[2]), Err(DecodeError::UnknownVersion { version: 2 }));
        assert!(decode(&[1, 255, 255, 255, 255]).is_err());
    }
}
