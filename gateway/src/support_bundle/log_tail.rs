//! The end of a log, without reading the rest.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// Most lines that may be asked for.
pub(super) const LINES_MAX: usize = 100_000;
/// Most bytes that are read from the log's end.
const BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The last lines of the log in `path`, at most so many, or why there are none.
pub(super) fn shown(path: &Path, lines_max: usize) -> String {
    match tail(path) {
        Ok((text, is_cut)) => last_lines(&text, lines_max, is_cut),
        Err(error) => format!("the log cannot be read: {}\n", error.kind()),
    }
}

/// The end of the file, and whether it begins in the middle.
fn tail(path: &Path) -> std::io::Result<(String, bool)> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let skipped = length.saturating_sub(BYTES_MAX);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok((String::from_utf8_lossy(&bytes).into_owned(), skipped > 0))
}

fn last_lines(text: &str, lines_max: usize, is_cut: bool) -> String {
    // What is left of a line whose beginning is not there might not look like what it is.
    let whole = if is_cut { text.split_once('\n').map_or("", |(_, rest)| rest) } else { text };
    let lines: Vec<&str> = whole.lines().collect();
    lines[lines.len().saturating_sub(lines_max)..].iter().flat_map(|line| [*line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_and_no_half_one() {
        assert_eq!(last_lines("a\nb\nc\n", 2, false), "b\nc\n");
        assert_eq!(last_lines("lf a line\nb\n", 5, true), "b\n");
        assert_eq!(last_lines("no end", 5, true), "");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        std::fs::write(&path, format!("{}end\n", "0123456\n".repeat(2 * 1024 * 1024))).expect("written");
        let text = shown(&path, 3);
        assert_eq!(text, "0123456\n0123456\nend\n");
        assert_eq!(shown(&folder.path().join("none"), 3), "the log cannot be read: entity not found\n");
    }
}
