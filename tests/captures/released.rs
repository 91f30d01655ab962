//! The checked-in captures, and the list by which they stay as they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lianxin_types::Digest;

use crate::format::{Capture, FORMAT};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/captures")
}

const HEAD: &str = "# The released captures: SHA-256 and name. Lines are only ever added; see README.md.\n";

/// Names and texts of the checked-in captures, the oldest first.
fn files() -> BTreeMap<(usize, String), String> {
    let entries = std::fs::read_dir(folder()).expect("proto/captures").map(|entry| entry.expect("readable").path());
    let captures = entries.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let name = |path: &Path| path.file_stem().expect("a name").to_string_lossy().into_owned();
    captures
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("UTF-8");
            // session-2 comes before session-10.
            ((name(&path).len(), name(&path)), text)
        })
        .collect()
}

pub(crate) fn captures() -> Vec<(String, Capture)> {
    let read = |((_, name), text): ((usize, String), String)| {
        let capture: Capture = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((capture.format, &capture.name), (FORMAT, &name));
        assert!(capture.to_text() == text, "{name} is not as it would be written");
        (name, capture)
    };
    files().into_iter().map(read).collect()
}

/// Adds a capture; an old one is not written over.
pub(crate) fn write(capture: &Capture) {
    let path = folder().join(format!("{}.json", capture.name));
    assert!(!path.exists(), "{} is there already; a change of the wire gets another name", path.display());
    std::fs::write(path, capture.to_text()).expect("the repository can be written");
}

#[test]
fn released_captures_are_as_they_were_released() {
    let path = folder().join("released.txt");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let mut lines: Vec<String> = text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    let files = files();
    let line =
        |((_, name), text): (&(usize, String), &String)| format!("{} {name}", Digest::sha256(text.as_bytes()).to_hex());
    let present: Vec<String> = files.iter().map(line).collect();
    let gone: Vec<_> = lines.iter().filter(|line| !present.contains(line)).collect();
    assert!(gone.is_empty(), "gone or changed since the release: {gone:?}; record another capture instead");
    if std::env::var_os("LIANXIN_RELEASE").is_some() {
        lines.extend(present.iter().filter(|line| !lines.contains(line)).cloned().collect::<Vec<_>>());
        let lines: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&path, format!("{HEAD}{}", lines.concat())).expect("the repository can be written");
        return;
    }
    assert_eq!(lines, present, "a capture that is not released: LIANXIN_RELEASE=1 does it");
}
