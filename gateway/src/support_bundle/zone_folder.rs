//! The zone's folder from outside: names and sizes, three small numbers, and nothing of what is in the databases. No lock is
//! taken.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Most entries listed.
const ENTRIES_MAX: usize = 20_000;
/// Folders below the zone's that are looked into.
const DEPTH_MAX: usize = 4;

/// What the folder looks like.
pub(super) fn shown(folder: &Path) -> String {
    let number = |name: &str| match read_number(&folder.join(name)) {
        Ok(number) => number.to_string(),
        Err(error) => format!("unknown ({})", error.kind()),
    };
    let holder = match holder(folder) {
        Some(process) if Path::new(&format!("/proc/{process}")).exists() => format!("process {process}, which runs"),
        Some(process) => format!("process {process}, which does not run any more"),
        None => "nobody, or it does not say".to_owned(),
    };
    let mut listing = Listing::default();
    listing.add(folder, "", 0);
    let Listing { mut lines, files, bytes } = listing;
    lines.sort();
    if lines.len() == ENTRIES_MAX {
        lines.push(format!("… and more than {ENTRIES_MAX} entries"));
    }
    format!(
        "format {}\nfencing number {}\nheld by {holder}\n{files} files, {bytes} bytes\n\n{}\n",
        number("format"),
        number("fencing"),
        lines.join("\n"),
    )
}

/// The process that wrote itself into the lock file last; it may be gone.
pub(super) fn holder(folder: &Path) -> Option<u32> {
    read_number(&folder.join("lock")).ok()?.try_into().ok()
}

/// The decimal number that is all there is in a small file.
fn read_number(path: &Path) -> std::io::Result<u64> {
    let mut text = String::new();
    fs::File::open(path)?.take(32).read_to_string(&mut text)?;
    text.trim().parse().map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData))
}

#[derive(Default)]
struct Listing {
    lines: Vec<String>,
    files: u64,
    bytes: u64,
}

impl Listing {
    fn add(&mut self, folder: &Path, prefix: &str, depth: usize) {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return self.lines.push(format!("{prefix}: {}", error.kind())),
        };
        for entry in entries.flatten() {
            if self.lines.len() >= ENTRIES_MAX {
                return;
            }
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy().escape_debug());
            // Of the entry itself: what a link leads to is no part of the zone.
            let Ok(found) = entry.metadata() else { continue };
            let mode = found.permissions().mode() & 0o7777;
            if found.is_dir() {
                self.lines.push(format!("{name}/ mode {mode:o}"));
                if depth < DEPTH_MAX {
                    self.add(&entry.path(), &format!("{name}/"), depth + 1);
                }
            } else {
                let kind = if found.is_symlink() { "link" } else { "file" };
                self.files += 1;
                self.bytes += found.len();
                let (bytes, on_disk) = (found.len(), found.blocks() * 512);
                self.lines.push(format!("{name} {kind} {bytes} bytes, {on_disk} on disk, mode {mode:o}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_listed_and_links_are_not_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let zone = folder.path().join("zone");
        fs::create_dir_all(zone.join("buckets/1-2")).expect("made");
        fs::write(zone.join("buckets/1-2/db"), [0; 1000]).expect("written");
        fs::write(zone.join("format"), "3\n").expect("written");
        fs::write(zone.join("fencing"), "not a number").expect("written");
        fs::write(zone.join("lock"), format!("{}\n", std::process::id())).expect("written");
        std::os::unix::fs::symlink("/proc", zone.join("elsewhere")).expect("linked");
        let text = shown(&zone);
        for line in
            ["format 3\n", "fencing number unknown (invalid data)", "which runs", "buckets/1-2/db file 1000 bytes"]
        {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert!(text.contains("elsewhere link") && !text.contains("elsewhere/"), "{text}");
        assert!(shown(&folder.path().join("none")).contains("entity not found"));
    }
}
