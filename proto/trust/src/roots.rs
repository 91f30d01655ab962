//! The root keys that an installation pins: whose signatures make a trust bundle.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::note;

/// Number in `format`; a file with another number is refused untouched.
const FORMAT: u64 = 1;
/// Root keys that one installation can pin.
const KEYS_MAX: usize = 16;

/// The pinned root keys and how many of them must have signed a bundle (PROTOCOL 9).
///
/// The file is JSON: `{"format":1,"keys":[{"key":"<64 hex digits>","name":"root-1"}],"threshold":2}`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RootKeys {
    /// Different keys that must have signed: 1 to the number of keys.
    pub threshold: usize,
    /// The keys, 1 to 16, no name and no key twice.
    pub keys: Vec<RootKey>,
}

/// One root key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RootKey {
    /// Its name in signature lines: not empty, no spaces, no plus sign (C2SP signed-note).
    pub name: String,
    /// The Ed25519 public key.
    pub key: [u8; 32],
}

/// Why a set of root keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RootKeysError {
    /// Not JSON of the form that [`RootKeys`] shows.
    #[error("root keys are not the expected json: {reason}")]
    Json {
        /// What the parser met.
        reason: String,
    },
    /// Written by a newer version.
    #[error("unknown format {format} of root keys")]
    Format {
        /// The number found.
        format: u64,
    },
    /// A threshold of zero or above the number of keys.
    #[error("a threshold of {threshold} does not fit {keys} root keys")]
    Threshold {
        /// The threshold found.
        threshold: usize,
        /// The number of keys.
        keys: usize,
    },
    /// More keys than an installation can pin.
    #[error("{found} root keys, at most {max}")]
    TooMany {
        /// The number found.
        found: usize,
        /// The bound.
        max: usize,
    },
    /// A name that cannot stand in a signature line.
    #[error("the name of a root key is empty or holds a space or a plus sign")]
    Name,
    /// Two entries share a name or a key; one key under two names would count twice.
    #[error("root key {name} is there twice")]
    Twice {
        /// The second entry's name.
        name: String,
    },
    /// Not a point of the curve, or one of small order.
    #[error("root key {name} is not an ed25519 public key")]
    Key {
        /// The entry's name.
        name: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u64,
    keys: Vec<FileKey>,
    threshold: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKey {
    key: String,
    name: String,
}

impl RootKeys {
    /// Reads the file that an installation pins.
    ///
    /// # Errors
    /// [`RootKeysError::Json`] and [`RootKeysError::Format`] for other texts; otherwise as [`RootKeys::check`].
    pub fn from_json(text: &str) -> Result<Self, RootKeysError> {
        let file: File =
            serde_json::from_str(text).map_err(|error| RootKeysError::Json { reason: error.to_string() })?;
        if file.format != FORMAT {
            return Err(RootKeysError::Format { format: file.format });
        }
        let mut keys = Vec::with_capacity(file.keys.len().min(KEYS_MAX));
        for FileKey { key, name } in file.keys {
            let mut bytes = [0; 32];
            hex::decode_to_slice(&key, &mut bytes).map_err(|_| RootKeysError::Key { name: name.clone() })?;
            keys.push(RootKey { name, key: bytes });
        }
        let roots = Self { threshold: file.threshold, keys };
        roots.check()?;
        Ok(roots)
    }

    /// The file as text, for [`RootKeys::from_json`].
    pub fn to_json(&self) -> String {
        let keys =
            self.keys.iter().map(|root| FileKey { key: hex::encode(root.key), name: root.name.clone() }).collect();
        let file = File { format: FORMAT, keys, threshold: self.threshold };
        let mut text = serde_json::to_string_pretty(&file).expect("strings and integers always serialise");
        text.push('\n');
        text
    }

    /// Whether these keys can decide about a bundle.
    ///
    /// # Errors
    /// [`RootKeysError::Threshold`], [`RootKeysError::TooMany`], [`RootKeysError::Name`], [`RootKeysError::Twice`],
    /// [`RootKeysError::Key`].
    pub fn check(&self) -> Result<(), RootKeysError> {
        if self.keys.len() > KEYS_MAX {
            return Err(RootKeysError::TooMany { found: self.keys.len(), max: KEYS_MAX });
        }
        if self.threshold == 0 || self.threshold > self.keys.len() {
            return Err(RootKeysError::Threshold { threshold: self.threshold, keys: self.keys.len() });
        }
        for (index, root) in self.keys.iter().enumerate() {
            if !note::is_key_name(&root.name) {
                return Err(RootKeysError::Name);
            }
            if self.keys[..index].iter().any(|before| before.name == root.name || before.key == root.key) {
                return Err(RootKeysError::Twice { name: root.name.clone() });
            }
            if ed25519_dalek::VerifyingKey::from_bytes(&root.key).map_or(true, |key| key.is_weak()) {
                return Err(RootKeysError::Key { name: root.name.clone() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> [u8; 32] {
        ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes()
    }

    fn two_of_three() -> RootKeys {
        let keys = (1..=3).map(|n| RootKey { name: format!("root-{n}"), key: key(n) }).collect();
        RootKeys { threshold: 2, keys }
    }

    #[test]
    fn sets_that_would_weaken_the_threshold_are_refused() {
        let with = |change: fn(&mut RootKeys)| {
            let mut roots = two_of_three();
            change(&mut roots);
            (roots.check(), RootKeys::from_json(&roots.to_json()).map(|_| ()))
        };
        let both = |error: RootKeysError| (Err(error.clone()), Err(error));
        assert_eq!(with(|r| r.threshold = 0), both(RootKeysError::Threshold { threshold: 0, keys: 3 }));
        assert_eq!(with(|r| r.threshold = 4), both(RootKeysError::Threshold { threshold: 4, keys: 3 }));
        assert_eq!(with(|r| r.keys[2].key = r.keys[0].key), both(RootKeysError::Twice { name: "root-3".into() }));
        assert_eq!(with(|r| r.keys[2].name = "root-1".into()), both(RootKeysError::Twice { name: "root-1".into() }));
        assert_eq!(with(|r| r.keys[1].name = "root 2".into()), both(RootKeysError::Name));
        assert_eq!(with(|r| r.keys[1].key = [0; 32]), both(RootKeysError::Key { name: "root-2".into() }));
    }

    #[test]
    fn other_files_are_refused() {
        assert!(matches!(RootKeys::from_json("{}"), Err(RootKeysError::Json { .. })));
        let newer = two_of_three().to_json().replace("\"format\": 1", "\"format\": 2");
        assert_eq!(RootKeys::from_json(&newer), Err(RootKeysError::Format { format: 2 }));
        let short = two_of_three().to_json().replacen(&hex::encode(key(1)), "00", 1);
        assert_eq!(RootKeys::from_json(&short), Err(RootKeysError::Key { name: "root-1".into() }));
    }

    #[test]
    fn the_file_comes_back_as_it_was() {
        assert_eq!(RootKeys::from_json(&two_of_three().to_json()), Ok(two_of_three()));
    }
}
