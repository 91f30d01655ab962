//! What can go wrong with the local state.

use std::path::PathBuf;

use thiserror::Error;

/// Why the local state could not be opened, read or written.
#[derive(Debug, Error)]
pub enum KeystoreError {
    /// The operating system refused a file operation.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// SQLite refused; a full disk ends here too. The transaction was rolled back.
    #[error("use the state database")]
    Database(#[from] rusqlite::Error),
    /// Another process, or another `Keystore` of this one, has the folder open.
    #[error("state folder is in use by process {}", pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string()))]
    Locked {
        /// The holder's process id, if it could be read.
        pid: Option<u32>,
    },
    /// The folder was written by a newer version; it was not touched.
    #[error("state has format {found}, this version knows up to {known}")]
    NewerFormat {
        /// The number found.
        found: u32,
        /// The highest number that this version reads.
        known: u32,
    },
    /// The folder's format file is not one of ours.
    #[error("read the format number of the state folder")]
    UnknownFormat,
    /// The folder was sealed with another key.
    #[error("the state key is not the one that sealed this folder")]
    WrongKey,
    /// The key file does not hold exactly 32 bytes.
    #[error("the key file has {bytes} bytes, expected 32")]
    KeyFileLength {
        /// Bytes found.
        bytes: usize,
    },
    /// The key file can be read by others than its owner.
    #[error("the key file has mode {mode:o}, expected no access for group and others")]
    KeyFileMode {
        /// The permission bits found.
        mode: u32,
    },
    /// A stored value was changed, or moved to another place.
    #[error("a stored {kind} does not open: the state was tampered with or is damaged")]
    Tampered {
        /// The kind of value.
        kind: &'static str,
    },
    /// A value could not be encoded.
    #[error("encode a {kind}")]
    Encode {
        /// The kind of value.
        kind: &'static str,
    },
    /// A stored value is not of the expected type.
    #[error("decode a stored {kind}")]
    Decode {
        /// The kind of value.
        kind: &'static str,
    },
    /// A log position above 2^63 - 1.
    #[error("log position {position} is too large")]
    Position {
        /// The position asked for.
        position: u64,
    },
    /// The keystore was closed before the transaction began; nothing was changed.
    #[error("the keystore is closed")]
    Closed,
    /// The closure panicked; the transaction was rolled back.
    #[error("a transaction panicked")]
    Panicked,
}

impl KeystoreError {
    /// Names the file operation that failed.
    pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
