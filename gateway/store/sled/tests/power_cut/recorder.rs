//! A disk that remembers exactly what would be left after the power is cut: bytes that a finished sync covered, under names
//! that a finished sync of their folder covered. Everything else is dropped.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use lianxin_store_sled::Disk;

/// Files and folders are kept by inode, so that a rename is what it is: a change of the folder.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    files: HashMap<u64, Arc<Vec<u8>>>,
    folders: HashMap<u64, Vec<(OsString, u64)>>,
}

/// Whether a sync does what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Honesty {
    Honest,
    /// `sync_data` returns without syncing: an engine on it acknowledges before the sync.
    Lying,
    /// `sync_data` does the work of the call before: everything becomes durable, one acknowledgement too late.
    Late,
}

pub(crate) struct Recorder {
    honesty: Honesty,
    kept: Mutex<Kept>,
    late: Mutex<Option<(u64, Arc<Vec<u8>>)>>,
}

impl Recorder {
    pub(crate) fn new(honesty: Honesty) -> Self {
        Self { honesty, kept: Mutex::default(), late: Mutex::default() }
    }

    /// What the disk would hold if the power went now.
    pub(crate) fn cut(&self) -> Kept {
        self.kept.lock().expect("no test thread panics with it").clone()
    }
}

impl Disk for Recorder {
    fn sync_data(&self, file: &File, path: &Path) -> io::Result<()> {
        if self.honesty == Honesty::Lying {
            return Ok(());
        }
        // Before the sync: what is written while it runs may or may not be covered by it.
        let bytes = Arc::new(fs::read(path)?);
        let inode = file.metadata()?.ino();
        file.sync_data()?;
        let (inode, bytes) = if self.honesty == Honesty::Late {
            let before = self.late.lock().expect("no test thread panics with it").replace((inode, bytes));
            let Some(before) = before else { return Ok(()) };
            before
        } else {
            (inode, bytes)
        };
        self.kept.lock().expect("no test thread panics with it").files.insert(inode, bytes);
        Ok(())
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            let names = fs::read_dir(path)?
                .map(|entry| entry.and_then(|entry| Ok((entry.file_name(), entry.metadata()?.ino()))));
            let names = names.collect::<io::Result<_>>()?;
            file.sync_all()?;
            self.kept.lock().expect("no test thread panics with it").folders.insert(metadata.ino(), names);
        } else {
            let bytes = Arc::new(fs::read(path)?);
            file.sync_all()?;
            self.kept.lock().expect("no test thread panics with it").files.insert(metadata.ino(), bytes);
        }
        Ok(())
    }
}

impl Kept {
    /// Writes what is left of `original` to `target`. A file whose name survived and whose bytes did not is empty.
    pub(crate) fn restore(&self, original: &Path, target: &Path) -> io::Result<()> {
        self.restore_folder(fs::metadata(original)?.ino(), target)
    }

    fn restore_folder(&self, inode: u64, target: &Path) -> io::Result<()> {
        fs::create_dir_all(target)?;
        for (name, inode) in self.folders.get(&inode).into_iter().flatten() {
            let path = target.join(name);
            if self.folders.contains_key(inode) {
                self.restore_folder(*inode, &path)?;
            } else if name != "state" {
                let bytes = self.files.get(inode).map_or(&[][..], |bytes| bytes.as_slice());
                fs::write(&path, bytes)?;
            }
        }
        Ok(())
    }
}
