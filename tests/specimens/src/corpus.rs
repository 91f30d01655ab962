//! The seeds of `tests/fuzz`: valid bytes of each parser as files.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::all;

/// Writes every specimen of every parser into `folder/<parser>/`, and gives how many files there are. What a fuzzer has
/// found there before is kept.
///
/// # Errors
/// If a file cannot be written.
pub fn write_corpus(folder: &Path) -> Result<usize> {
    let mut count = 0;
    for parser in all() {
        let place = folder.join(parser.name);
        std::fs::create_dir_all(&place).with_context(|| format!("make {}", place.display()))?;
        for (number, bytes) in parser.specimens().iter().enumerate() {
            let file = place.join(format!("specimen-{number}"));
            std::fs::write(&file, bytes).with_context(|| format!("write {}", file.display()))?;
            count += 1;
        }
    }
    Ok(count)
}
