//! Looks for texts in every byte of a folder, as somebody with the stolen disk would.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Texts to look for, in UTF-8 and in UTF-16 of both byte orders.
#[derive(Debug)]
pub struct DiskSearch {
    needles: Vec<Needle>,
}

#[derive(Debug)]
struct Needle {
    text: String,
    encoding: &'static str,
    bytes: Vec<u8>,
}

/// What a search has seen.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Files read.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Each text that was found: file, encoding, text.
    pub hits: Vec<(PathBuf, &'static str, String)>,
}

impl DiskSearch {
    /// A search for `texts`. Empty ones are everywhere and are left out.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let needles = texts.into_iter().filter(|text| !text.is_empty()).flat_map(|text| {
            let wide = |order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect();
            [
                ("UTF-8", text.as_bytes().to_vec()),
                ("UTF-16LE", wide(u16::to_le_bytes)),
                ("UTF-16BE", wide(u16::to_be_bytes)),
            ]
            .map(|(encoding, bytes)| Needle { text: text.to_owned(), encoding, bytes })
        });
        Self { needles: needles.collect() }
    }

    /// Searches a file, or a folder with everything below it.
    ///
    /// # Errors
    /// If something cannot be read.
    pub fn search(&self, path: &Path) -> anyhow::Result<Found> {
        let mut found = Found::default();
        self.search_into(path, &mut found)?;
        Ok(found)
    }

    /// Writes one file per text and encoding into `folder`, each between random-looking bytes: a search that does not find
    /// all of them finds nothing.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_controls(&self, folder: &Path) -> anyhow::Result<usize> {
        fs::create_dir_all(folder)?;
        for (index, needle) in self.needles.iter().enumerate() {
            // Never zero: a zero behind a text in one byte order would complete it in the other.
            let noise = |length: usize| (0..length).map(|at| (at.wrapping_mul(167) >> 3) as u8 | 1);
            let bytes: Vec<u8> = noise(4093).chain(needle.bytes.iter().copied()).chain(noise(511)).collect();
            fs::write(folder.join(format!("{index}-{}", needle.encoding)), bytes)?;
        }
        Ok(self.needles.len())
    }

    fn search_into(&self, path: &Path, found: &mut Found) -> anyhow::Result<()> {
        let context = || format!("search {}", path.display());
        if path.is_dir() {
            for entry in fs::read_dir(path).with_context(context)? {
                self.search_into(&entry.with_context(context)?.path(), found)?;
            }
            return Ok(());
        }
        let bytes = fs::read(path).with_context(context)?;
        found.files += 1;
        found.bytes += bytes.len() as u64;
        let hits = self.needles_in(&bytes).into_iter();
        found.hits.extend(hits.map(|needle| (path.to_owned(), needle.encoding, needle.text.clone())));
        Ok(())
    }

    /// The needles that occur, in one pass: only those that begin with the byte at hand are compared.
    fn needles_in(&self, bytes: &[u8]) -> Vec<&Needle> {
        let mut by_first: [Vec<&Needle>; 256] = std::array::from_fn(|_| Vec::new());
        for needle in &self.needles {
            by_first[usize::from(needle.bytes[0])].push(needle);
        }
        let mut hits = Vec::new();
        for (at, byte) in bytes.iter().enumerate() {
            let candidates = &mut by_first[usize::from(*byte)];
            if !candidates.is_empty() {
                hits.extend(candidates.extract_if(.., |needle| bytes[at..].starts_with(&needle.bytes)));
            }
        }
        hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_control_is_found_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let search = DiskSearch::new(["材料已收到", "ascii", ""]);
        let controls = search.write_controls(&folder.path().join("deep/down")).expect("written");
        fs::write(folder.path().join("innocent"), "材料已收").expect("written");
        let found = search.search(folder.path()).expect("read");
        assert_eq!((controls, found.hits.len(), found.files), (6, 6, 7));
        assert!(found.hits.iter().all(|(path, _, _)| path.starts_with(folder.path().join("deep"))));
    }

    #[test]
    fn a_false_start_does_not_hide_a_hit() {
        let hits = |bytes: &[u8]| DiskSearch::new(["aab"]).needles_in(bytes).len();
        assert_eq!(hits(b"aaab"), 1);
        assert_eq!(hits(b"aaa"), 0);
        assert_eq!(hits(b"aabaab"), 1, "each needle is a hit once");
    }
}
