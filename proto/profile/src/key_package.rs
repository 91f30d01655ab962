//! Key packages: checked when they are published, when they are claimed, and when they are added (PROTOCOL 3, 5).

use lianxin_trust::{Federation, Identity};
use lianxin_types::{Digest, LIMITS, Timestamp};
use openmls::prelude::tls_codec::Size as _;
use openmls::prelude::{ExtensionType, KeyPackage, LeafNode, MlsMessageBodyIn, OpenMlsCrypto, ProtocolVersion};

use crate::{AsOf, CIPHERSUITE, ProfileError, check_capabilities, check_leaf, message::parse};

/// A key of suite 0x0001 with its length in front.
const ENCODED_X25519_KEY_BYTES: usize = 1 + 32;
/// Longest key package in bytes; ours have about 1 KiB.
const KEY_PACKAGE_BYTES_MAX: usize = 32 * 1024;

/// A key package that keeps the profile at the time asked for.
#[derive(Debug, Clone)]
pub struct CheckedKeyPackage {
    /// The key package.
    pub key_package: KeyPackage,
    /// Whose it is.
    pub identity: Identity,
    /// Its KeyPackageRef (RFC 9420 section 5.2).
    pub reference: Digest,
    /// When it stops being usable: the end of its lifetime or of its certificate, whichever comes first.
    pub not_after: Timestamp,
    /// Whether it may be used more than once.
    pub is_last_resort: bool,
}

/// Checks an MLSMessage with a KeyPackage: the whole of the bytes, suite, signatures, capabilities, extensions, lifetime
/// of at most 84 days that holds `now`, and the credential.
///
/// openmls compares the lifetime with the system's clock besides.
///
/// # Errors
/// [`ProfileError::InvalidMls`], [`ProfileError::InvalidKeyPackage`], and those of [`check_leaf`].
pub fn check_key_package(
    federation: &Federation,
    crypto: &impl OpenMlsCrypto,
    bytes: &[u8],
    now: Timestamp,
) -> Result<CheckedKeyPackage, ProfileError> {
    let MlsMessageBodyIn::KeyPackage(received) = parse(bytes, KEY_PACKAGE_BYTES_MAX, "key package")? else {
        return Err(ProfileError::InvalidMls { what: "key package" });
    };
    let key_package = received.validate(crypto, ProtocolVersion::Mls10).map_err(|_| fault("it does not verify"))?;
    check_added(federation, crypto, &key_package, AsOf::arriving(now))
}

/// The same for a key package that openmls has verified already, as in a staged commit.
pub(crate) fn check_added(
    federation: &Federation,
    crypto: &impl OpenMlsCrypto,
    key_package: &KeyPackage,
    as_of: AsOf,
) -> Result<CheckedKeyPackage, ProfileError> {
    if key_package.ciphersuite() != CIPHERSUITE {
        return Err(fault("another suite"));
    }
    let leaf = key_package.leaf_node();
    check_leaf_form(leaf)?;
    if key_package.extensions().iter().any(|one| one.extension_type() != ExtensionType::LastResort) {
        return Err(fault("it has an extension other than last resort"));
    }
    let end = check_lifetime(key_package, as_of.time)?;
    let key = leaf.signature_key().as_slice();
    let identity = check_leaf(federation, leaf.credential(), key, as_of.time, as_of.validity)?;
    let reference = key_package.hash_ref(crypto).map_err(|_| fault("it has no reference"))?;
    let reference = Digest::try_from(reference.as_slice()).map_err(|_| fault("its reference is no SHA-256"))?;
    Ok(CheckedKeyPackage {
        not_after: end.min(identity.not_after),
        is_last_resort: key_package.last_resort(),
        key_package: key_package.clone(),
        identity,
        reference,
    })
}

/// Rules for every leaf that enters or changes, beside its credential: what it can do, a key that others can encrypt to
/// (openmls finds out when somebody tries), and no extensions of its own, as these would be seen by every member and department.
pub(crate) fn check_leaf_form(leaf: &LeafNode) -> Result<(), ProfileError> {
    check_capabilities(leaf.capabilities())?;
    if leaf.encryption_key().tls_serialized_len() != ENCODED_X25519_KEY_BYTES {
        return Err(fault("its encryption key is no X25519 key"));
    }
    match leaf.extensions().iter().next() {
        Some(_) => Err(fault("its leaf has an extension")),
        None => Ok(()),
    }
}

fn check_lifetime(key_package: &KeyPackage, now: Timestamp) -> Result<Timestamp, ProfileError> {
    let lifetime = key_package.life_time();
    let seconds = lifetime.not_after().saturating_sub(lifetime.not_before());
    if seconds == 0 || seconds > LIMITS.leaf_lifetime_max.as_secs() {
        return Err(fault("its lifetime is not within 84 days"));
    }
    let (start, end) = (Timestamp::from_seconds(lifetime.not_before()), Timestamp::from_seconds(lifetime.not_after()));
    if start.minus(LIMITS.clock_skew_max) > now || now >= end {
        return Err(fault("its lifetime does not hold this time"));
    }
    Ok(end)
}

const fn fault(fault: &'static str) -> ProfileError {
    ProfileError::InvalidKeyPackage { fault }
}
