//! The state folder: a lock against a second process, a format number, the database file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::KeystoreError;

/// The format that this version writes, and the highest that it reads.
const FORMAT: u32 = 1;
const FORMAT_PREFIX: &str = "lianxin-state ";

/// A locked state folder. The lock is the operating system's: it ends with the process, however that ends.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Locks the folder and checks its format before anything in it is touched; makes both if they are not there.
    pub(crate) fn open(path: &Path) -> Result<Self, KeystoreError> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(path).map_err(KeystoreError::io("create folder", path))?;
        let lock = lock(&path.join("lock"))?;
        check_format(&path.join("format"))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The database file.
    pub(crate) fn database(&self) -> PathBuf {
        self.path.join("state.db")
    }

    /// Makes the names in the folder durable.
    pub(crate) fn sync(&self) -> Result<(), KeystoreError> {
        let synced = File::open(&self.path).and_then(|folder| folder.sync_all());
        synced.map_err(KeystoreError::io("sync folder", &self.path))
    }
}

fn lock(path: &Path) -> Result<File, KeystoreError> {
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let mut file = opened.map_err(KeystoreError::io("open lock file", path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let pid = (&mut file).take(32).read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(KeystoreError::Locked { pid });
        }
        Err(TryLockError::Error(source)) => return Err(KeystoreError::io("lock", path)(source)),
    }
    let named = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    named.map_err(KeystoreError::io("write lock file", path))?;
    Ok(file)
}

fn check_format(path: &Path) -> Result<(), KeystoreError> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let number = text.strip_prefix(FORMAT_PREFIX).and_then(|rest| rest.trim_end().parse::<u32>().ok());
            match number.ok_or(KeystoreError::UnknownFormat)? {
                0 => Err(KeystoreError::UnknownFormat),
                found if found > FORMAT => Err(KeystoreError::NewerFormat { found, known: FORMAT }),
                _ => Ok(()),
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let fresh = path.with_extension("new");
            let written = File::create(&fresh).and_then(|mut file| {
                writeln!(file, "{FORMAT_PREFIX}{FORMAT}")?;
                file.sync_all()
            });
            written.and_then(|()| std::fs::rename(&fresh, path)).map_err(KeystoreError::io("write format file", path))
        }
        Err(error) => Err(KeystoreError::io("read format file", path)(error)),
    }
}
