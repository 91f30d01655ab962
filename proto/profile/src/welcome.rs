//! The Welcome that comes with a commit: there for exactly those who are added (PROTOCOL 5).

use std::collections::BTreeSet;

use lianxin_types::Digest;

use crate::{Added, CIPHERSUITE, ProfileError, parse_welcome};

/// Checks the Welcome of a commit that adds `added`: empty bytes if nobody is added; else one MLSMessage with a Welcome
/// of our suite that holds secrets for each key package added and for no other.
///
/// What is encrypted in it cannot be checked by anyone but the joiner.
///
/// # Errors
/// [`ProfileError::InvalidWelcome`], [`ProfileError::InvalidMls`].
pub fn check_welcome(bytes: &[u8], added: &[Added]) -> Result<(), ProfileError> {
    match (bytes.is_empty(), added.is_empty()) {
        (true, true) => return Ok(()),
        (true, false) => return Err(fault("there is none for those who are added")),
        (false, true) => return Err(fault("nobody is added")),
        (false, false) => {}
    }
    let welcome = parse_welcome(bytes)?;
    if welcome.ciphersuite() != CIPHERSUITE {
        return Err(fault("another suite"));
    }
    let mut found = BTreeSet::new();
    for secrets in welcome.secrets() {
        let reference =
            Digest::try_from(secrets.new_member().as_slice()).map_err(|_| fault("it names no key package"))?;
        if !found.insert(reference) {
            return Err(fault("it names a key package twice"));
        }
    }
    let expected: BTreeSet<Digest> = added.iter().map(|one| one.reference).collect();
    if found == expected { Ok(()) } else { Err(fault("it is for others than are added")) }
}

const fn fault(fault: &'static str) -> ProfileError {
    ProfileError::InvalidWelcome { fault }
}
