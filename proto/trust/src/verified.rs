//! A trust bundle that enough root keys have signed, and the order of bundles.

use std::time::Duration;

use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use lianxin_types::{Digest, LIMITS, Timestamp, labelled_sha256};
use thiserror::Error;

use crate::bundle::TrustBundle;
use crate::note::{self, Note, NoteSignature};
use crate::roots::{RootKey, RootKeys, RootKeysError};

/// Label of a bundle's signatures, key hashes and digest (PROTOCOL 9).
pub const BUNDLE_LABEL: &str = "lianxin/trust-bundle/v1";
/// How long a bundle is meant to live (PROTOCOL 9). The signers choose; readers take what they signed.
pub const BUNDLE_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why bytes are not the bundle to go by.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BundleError {
    /// The pinned keys cannot decide about anything.
    #[error("the pinned root keys cannot be used")]
    Roots(#[from] RootKeysError),
    /// Not a signed note within the bounds.
    #[error("not a signed note")]
    NotANote,
    /// A line names a root key, and its signature is not that key's.
    #[error("the signature of root key {name} is wrong")]
    BadSignature {
        /// The key's name.
        name: String,
    },
    /// Too few root keys have signed.
    #[error("{found} root keys have signed, {threshold} are needed")]
    UnderThreshold {
        /// Different root keys with a good signature.
        found: usize,
        /// The number needed.
        threshold: usize,
    },
    /// The signed text is not JSON of the expected form.
    #[error("the trust bundle is not the expected json: {reason}")]
    Json {
        /// What the parser met.
        reason: String,
    },
    /// Written by a newer version.
    #[error("unknown format {format} of the trust bundle")]
    Format {
        /// The number found.
        format: u64,
    },
    /// A value is outside its range, or a list is not sorted and free of repeats.
    #[error("{field} of the trust bundle is out of range")]
    Field {
        /// Which.
        field: &'static str,
    },
    /// The text says the right things in another form than RFC 8785.
    #[error("the trust bundle is not in canonical form")]
    NotCanonical,
    /// A bundle older than the one in use.
    #[error("trust bundle {found} is older than {have}, which is in use")]
    Older {
        /// Version in use.
        have: u64,
        /// Version offered.
        found: u64,
    },
    /// Two bundles under one version.
    #[error("there are two different trust bundles of version {version}")]
    Fork {
        /// The version.
        version: u64,
    },
    /// The newer bundle does not follow the one in use; a bundle between the two may be missing.
    #[error("trust bundle {found} does not follow {have}, which is in use")]
    BrokenChain {
        /// Version in use.
        have: u64,
        /// Version offered.
        found: u64,
    },
}

/// A bundle that the root keys have signed. Only [`verify_bundle`] makes one.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct VerifiedBundle {
    /// What it says.
    pub bundle: TrustBundle,
    /// SHA-256 of what was signed: label, zero byte, text. Signature lines do not count, so adding one changes nothing.
    pub digest: Digest,
    /// The note as received, to store and to hand on.
    pub note: Vec<u8>,
}

/// Checks a note against the pinned root keys and reads the bundle out of it. Lines by unknown keys are ignored; a key
/// counts once however many lines it has.
///
/// # Errors
/// [`BundleError::Roots`] if the keys cannot decide; [`BundleError::NotANote`]; [`BundleError::BadSignature`] as soon as one
/// line by a root key is wrong; [`BundleError::UnderThreshold`]; then as [`TrustBundle::parse`].
pub fn verify_bundle(roots: &RootKeys, note: &[u8]) -> Result<VerifiedBundle, BundleError> {
    roots.check()?;
    let parsed = Note::parse(note).ok_or(BundleError::NotANote)?;
    let message = note::signed_bytes(BUNDLE_LABEL, parsed.text);
    let mut found = 0;
    for root in &roots.keys {
        if has_signed(root, &parsed.signatures, &message)? {
            found += 1;
        }
    }
    if found < roots.threshold {
        return Err(BundleError::UnderThreshold { found, threshold: roots.threshold });
    }
    let json = parsed.text.strip_suffix('\n').ok_or(BundleError::NotANote)?;
    let bundle = TrustBundle::parse(json.as_bytes())?;
    let digest = labelled_sha256(BUNDLE_LABEL, &[parsed.text.as_bytes()]);
    Ok(VerifiedBundle { bundle, digest, note: note.to_vec() })
}

fn has_signed(root: &RootKey, lines: &[NoteSignature<'_>], message: &[u8]) -> Result<bool, BundleError> {
    let key_hash = note::key_hash(BUNDLE_LABEL, &root.name, &root.key);
    let mut signed = false;
    for line in lines.iter().filter(|line| line.name == root.name && line.key_hash == key_hash) {
        let good = VerifyingKey::from_bytes(&root.key)
            .and_then(|key| key.verify_strict(message, &Signature::from_slice(&line.signature)?));
        good.map_err(|_| BundleError::BadSignature { name: root.name.clone() })?;
        signed = true;
    }
    Ok(signed)
}

/// The signed note of a bundle: its JCS bytes, a newline, and a line per signer (name, key) in the order given.
pub fn sign_bundle(bundle: &TrustBundle, signers: &[(&str, &SigningKey)]) -> Vec<u8> {
    let json = bundle.to_json_bytes();
    let text = format!("{}\n", String::from_utf8_lossy(&json));
    note::sign(BUNDLE_LABEL, &text, signers)
}

impl VerifiedBundle {
    /// Whether `newer` may take this bundle's place: the same bundle, or a higher version that names this one as its
    /// predecessor. Who has missed bundles goes through them one by one.
    ///
    /// # Errors
    /// [`BundleError::Older`], [`BundleError::Fork`], [`BundleError::BrokenChain`].
    pub fn check_successor(&self, newer: &Self) -> Result<(), BundleError> {
        let (have, found) = (self.bundle.version, newer.bundle.version);
        if found < have {
            return Err(BundleError::Older { have, found });
        }
        if found == have {
            return if newer.digest == self.digest { Ok(()) } else { Err(BundleError::Fork { version: have }) };
        }
        if newer.bundle.predecessor != Some(self.digest) {
            return Err(BundleError::BrokenChain { have, found });
        }
        Ok(())
    }

    /// Whether its time is over, with the tolerated clock skew on top (PROTOCOL 12). Past it one goes on reading but
    /// neither adds, joins, rejoins nor accepts newcomers (PROTOCOL 9).
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now > self.bundle.expires.plus(LIMITS.clock_skew_max)
    }
}
