//! A zone's folder as text: for each file its name and length, then every line of 32 bytes that is not all zero, behind its
//! offset. Small, since most of a database is zeros, and a change shows in a review.

use std::fs;
use std::path::Path;

/// Makes the folder that a text describes.
pub(crate) fn restore(text: &str, folder: &Path) {
    let mut files: Vec<(&str, Vec<u8>)> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(file) = line.strip_prefix("file ") {
            let (length, name) = file.split_once(' ').expect("a length and a name");
            files.push((name, vec![0; length.parse().expect("a length")]));
        } else {
            let (offset, digits) = line.split_once(' ').expect("an offset and its bytes");
            let offset: usize = offset.parse().expect("an offset");
            let bytes = hex::decode(digits).expect("hexadecimal");
            let (_, contents) = files.last_mut().expect("a file first");
            contents[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
    }
    for (name, contents) in files {
        let path = folder.join(name);
        let parent = path.parent().expect("in a folder");
        fs::create_dir_all(parent).expect("a temporary folder");
        // A database has this folder, too, and it is empty.
        if name.ends_with("/db") {
            fs::create_dir_all(parent.join("blobs")).expect("a temporary folder");
        }
        fs::write(path, contents).expect("a temporary folder");
    }
}
