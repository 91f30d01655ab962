//! Secret files: made once, readable by their owner alone.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use lianxin_types::Random;

/// The 32 bytes in `path`; if there is no such file it is made of random bytes, together with its folder.
///
/// # Errors
/// The system's error, or one that says that others may read the file or that it is not 32 bytes.
pub(crate) fn load_or_create(path: &Path, random: &dyn Random) -> std::io::Result<[u8; 32]> {
    match std::fs::File::open(path) {
        Ok(file) => read(file),
        Err(error) if error.kind() == ErrorKind::NotFound => create(path, random),
        Err(error) => Err(error),
    }
}

/// The 32 bytes in `path`, which must be there.
///
/// # Errors
/// As [`load_or_create`].
pub(crate) fn load(path: &Path) -> std::io::Result<[u8; 32]> {
    read(std::fs::File::open(path)?)
}

fn read(file: std::fs::File) -> std::io::Result<[u8; 32]> {
    read_private(file, 33)?.try_into().map_err(|_| std::io::Error::other("the secret is not 32 bytes"))
}

/// The first `bytes_max` bytes of a file that nobody but its owner may read.
///
/// # Errors
/// The system's error, or one that says that others may read the file.
pub(crate) fn read_private(file: std::fs::File, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        return Err(std::io::Error::other("others may read the secret: set its mode to 0600"));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn create(path: &Path, random: &dyn Random) -> std::io::Result<[u8; 32]> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let secret: [u8; 32] = random.array();
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&secret)?;
    file.sync_all()?;
    std::fs::File::open(folder)?.sync_all()?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lianxin_types::SystemRandom;

    #[test]
    fn a_secret_is_made_once_and_kept_from_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys/secret.key");
        let made = load_or_create(&path, &SystemRandom).expect("made");
        assert_eq!(load_or_create(&path, &SystemRandom).expect("loaded"), made);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(load_or_create(&path, &SystemRandom).is_err());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        std::fs::write(&path, [1; 31]).expect("written");
        assert!(load_or_create(&path, &SystemRandom).is_err());
    }
}
