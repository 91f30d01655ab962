//! The archive: texts in a tar file, each through the redaction.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use lianxin_types::Timestamp;

use super::SupportEntry;
use super::redaction::{Origin, redacted};

/// An archive that is being written.
pub(super) struct Archive {
    tar: tar::Builder<File>,
    made: Timestamp,
    entries: Vec<SupportEntry>,
}

/// The folder that everything lies in.
const FOLDER: &str = "lianxin-support";

impl Archive {
    /// # Errors
    /// The system's error, also if there is such a file.
    pub(super) fn create(path: &Path, made: Timestamp) -> std::io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { tar: tar::Builder::new(file), made, entries: Vec::new() })
    }

    /// Adds a text as it may be shown.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn add(&mut self, name: &str, text: &str, origin: Origin) -> std::io::Result<()> {
        let text = redacted(text, origin);
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.made.seconds());
        let name = format!("{FOLDER}/{name}");
        self.tar.append_data(&mut header, &name, text.as_bytes())?;
        self.entries.push(SupportEntry { name, bytes: text.len() as u64 });
        Ok(())
    }

    /// Ends the archive; its entries in their order.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn finish(self) -> std::io::Result<Vec<SupportEntry>> {
        let mut file = self.tar.into_inner()?;
        file.flush()?;
        file.sync_all()?;
        Ok(self.entries)
    }
}
