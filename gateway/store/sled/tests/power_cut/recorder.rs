//! A disk that remembers exactly what would be left after the power is cut: bytes that a finished sync covered, under names
//! that a finished sync of their folder covered. Everything else is dropped.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use lianxin_store_sled::Disk;

/// A file or folder whatever its name. A number alone is not enough: that of a removed file is soon another's.
type Identity = (u64, Option<SystemTime>);

fn identity(metadata: &fs::Metadata) -> Identity {
    (metadata.ino(), metadata.created().ok())
}

/// Files and folders are kept by what they are, so that a rename is what it is: a change of the folder.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    files: HashMap<Identity, Arc<Vec<u8>>>,
    folders: HashMap<Identity, Vec<(OsString, Identity)>>,
}

/// Whether a sync does what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Honesty {
    Honest,
    /// `sync_data` returns without syncing: an engine on it acknowledges before the sync.
    Lying,
    /// Syncs of segments return without syncing: buckets go before their copies are durable.
    LyingOfSegments,
    /// `sync_data` does the work of the call before: everything becomes durable, one acknowledgement too late.
    Late,
}

pub(crate) struct Recorder {
    honesty: Honesty,
    kept: Mutex<Kept>,
    late: Mutex<Option<(Identity, Arc<Vec<u8>>)>>,
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
        let inode = identity(&file.metadata()?);
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
        let is_of_segments = path.components().any(|part| part.as_os_str() == "segments");
        if self.honesty == Honesty::LyingOfSegments && is_of_segments {
            return Ok(());
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            let names = fs::read_dir(path)?
                .map(|entry| entry.and_then(|entry| Ok((entry.file_name(), identity(&entry.metadata()?)))));
            let names = names.collect::<io::Result<_>>()?;
            file.sync_all()?;
            self.kept.lock().expect("no test thread panics with it").folders.insert(identity(&metadata), names);
        } else {
            let bytes = Arc::new(fs::read(path)?);
            file.sync_all()?;
            self.kept.lock().expect("no test thread panics with it").files.insert(identity(&metadata), bytes);
        }
        Ok(())
    }
}

impl Kept {
    /// Writes what is left of `original` to `target`. A file whose name survived and whose bytes did not is empty.
    pub(crate) fn restore(&self, original: &Path, target: &Path) -> io::Result<()> {
        self.restore_folder(identity(&fs::metadata(original)?), target)
    }

    fn restore_folder(&self, inode: Identity, target: &Path) -> io::Result<()> {
        fs::create_dir_all(target)?;
        for (name, inode) in self.folders.get(&inode).into_iter().flatten() {
            let path = target.join(name);
            if self.folders.contains_key(inode) {
                self.restore_folder(*inode, &path)?;
            } else if !name.to_string_lossy().starts_with("state") {
                // Of the state's folders, old or new, an unsynced one is as good as none: it can be computed again.
                let bytes = self.files.get(inode).map_or(&[][..], |bytes| bytes.as_slice());
                fs::write(&path, bytes)?;
            }
        }
        Ok(())
    }
}
