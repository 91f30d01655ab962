//! The key that seals a state folder.

use std::fmt;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use lianxin_types::Random;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::KeystoreError;

/// 32 bytes that seal one state folder. Whoever has them and the folder reads everything; keep them apart where the
/// platform allows it. Zeroed on drop, never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct StateKey([u8; 32]);

impl StateKey {
    /// The key with exactly these bytes, for example from a platform's key service.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A fresh key.
    pub fn generate(random: &dyn Random) -> Self {
        Self(random.array())
    }

    /// The key in the file at `path`; if there is none, a fresh key is written there with mode 0600, synced, and never
    /// over an existing file.
    ///
    /// # Errors
    /// [`KeystoreError::Io`]; [`KeystoreError::KeyFileLength`] if it has not 32 bytes; [`KeystoreError::KeyFileMode`] if
    /// group or others may access it.
    pub fn load_or_create(path: &Path, random: &dyn Random) -> Result<Self, KeystoreError> {
        match Self::load(path) {
            Err(KeystoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                Self::create(path, random)?;
                Self::load(path)
            }
            loaded => loaded,
        }
    }

    fn load(path: &Path) -> Result<Self, KeystoreError> {
        let mut file = File::open(path).map_err(KeystoreError::io("open key file", path))?;
        let metadata = file.metadata().map_err(KeystoreError::io("inspect key file", path))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeystoreError::KeyFileMode { mode });
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(33));
        let mut limited = (&mut file).take(33);
        limited.read_to_end(&mut bytes).map_err(KeystoreError::io("read key file", path))?;
        let key = <[u8; 32]>::try_from(bytes.as_slice());
        key.map(Self).map_err(|_| KeystoreError::KeyFileLength { bytes: metadata.len() as usize })
    }

    /// Writes beside the target and links it into place: two processes that start at once agree on one key, and a crash
    /// leaves no half of one.
    fn create(path: &Path, random: &dyn Random) -> Result<(), KeystoreError> {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(KeystoreError::io("create folder", folder))?;
        let fresh = folder.join(format!(".new-key-{}", u64::from_be_bytes(random.array())));
        let key = Self::generate(random);
        let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).and_then(|mut file| {
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.write_all(&key.0)?;
            file.sync_all()
        });
        let linked = written.and_then(|()| std::fs::hard_link(&fresh, path));
        let removed = std::fs::remove_file(&fresh);
        match linked {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            other => other.and(removed).and_then(|()| File::open(folder)?.sync_all()),
        }
        .map_err(KeystoreError::io("write key file", path))
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use lianxin_types::SystemRandom;

    use super::*;

    #[test]
    fn a_key_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("state.key");
        StateKey::load_or_create(&path, &SystemRandom).expect("created");
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("mode");
        let refused = StateKey::load_or_create(&path, &SystemRandom);
        assert!(matches!(refused, Err(KeystoreError::KeyFileMode { mode: 0o640 })), "{refused:?}");
    }

    #[test]
    fn a_short_or_long_key_file_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("state.key");
        for length in [0, 31, 33] {
            std::fs::write(&path, vec![1; length]).expect("written");
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("mode");
            let refused = StateKey::load_or_create(&path, &SystemRandom);
            assert!(matches!(refused, Err(KeystoreError::KeyFileLength { bytes }) if bytes == length), "{refused:?}");
        }
    }

    #[test]
    fn the_second_start_finds_the_key_of_the_first() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("deep/state.key");
        let first = StateKey::load_or_create(&path, &SystemRandom).expect("created");
        let second = StateKey::load_or_create(&path, &SystemRandom).expect("loaded");
        assert_eq!(first.as_bytes(), second.as_bytes());
        assert_eq!(std::fs::read_dir(path.parent().expect("parent")).expect("listed").count(), 1);
        assert_eq!(format!("{first:?}"), "StateKey(..)");
    }
}
