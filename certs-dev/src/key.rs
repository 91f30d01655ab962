//! Keys as PEM files.

use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::SigningKey;
use lianxin_types::{Random, SystemRandom};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;

use crate::folder::write_secret;

/// What stands before the 32 bytes of an Ed25519 key in PKCS#8 version 1 (RFC 8410 section 7).
const PKCS8_ED25519: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Reads an Ed25519 key that this crate has written: a root key, a key of the gateway, an MLS or an officer's key.
///
/// # Errors
/// If the file cannot be read or is not a PKCS#8 PEM of 48 bytes.
pub fn read_signing_key(path: &Path) -> anyhow::Result<SigningKey> {
    let key = PrivatePkcs8KeyDer::from_pem_file(path).with_context(|| format!("cannot read {}", path.display()))?;
    let seed = key.secret_pkcs8_der().strip_prefix(&PKCS8_ED25519).and_then(|seed| <[u8; 32]>::try_from(seed).ok());
    let seed = seed.with_context(|| format!("{} is not an Ed25519 key in PKCS#8", path.display()))?;
    Ok(SigningKey::from_bytes(&seed))
}

/// A new Ed25519 key, written to `path`.
pub(crate) fn new_signing_key(path: &Path) -> anyhow::Result<SigningKey> {
    let key = SigningKey::from_bytes(&random());
    let pem = BASE64.encode(pkcs8(&key));
    write_secret(path, format!("-----BEGIN PRIVATE KEY-----\n{pem}\n-----END PRIVATE KEY-----\n").as_bytes())?;
    Ok(key)
}

/// A new Ed25519 key for a certificate, written to `path`.
pub(crate) fn new_ed25519_pair(path: &Path) -> anyhow::Result<KeyPair> {
    ed25519_pair(&new_signing_key(path)?)
}

/// An Ed25519 key for a certificate.
pub(crate) fn ed25519_pair(key: &SigningKey) -> anyhow::Result<KeyPair> {
    let key = pkcs8(key);
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(&key[..]), &PKCS_ED25519);
    pair.context("cannot use an Ed25519 key")
}

/// A new P-256 key for a certificate, written to `path`.
pub(crate) fn new_p256_pair(path: &Path) -> anyhow::Result<KeyPair> {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot make a P-256 key")?;
    write_secret(path, pair.serialize_pem().as_bytes())?;
    Ok(pair)
}

/// `N` bytes of the operating system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let random: &dyn Random = &SystemRandom;
    random.array()
}

fn pkcs8(key: &SigningKey) -> Vec<u8> {
    [&PKCS8_ED25519[..], key.as_bytes()].concat()
}
