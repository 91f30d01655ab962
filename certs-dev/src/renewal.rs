//! What a device sends that asks for its next certificates: for tests and tools that have no SDK.

use anyhow::Context as _;
use ed25519_dalek::Signer as _;
use lianxin_trust::RenewalRequest;
use lianxin_types::IdempotencyId;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::key::{random, read_signing_key};
use crate::paths::AppPaths;

/// A sound request of an application for its next certificates under a new TLS key, and that key (PKCS#8 PEM).
///
/// # Errors
/// If a file of the application cannot be read.
pub fn renewal_request(app: &AppPaths) -> anyhow::Result<(RenewalRequest, String)> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot make a P-256 key")?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).context("cannot sign a certification request")?;
    Ok((sign_renewal(app, IdempotencyId(random()), request.der().to_vec())?, key.serialize_pem()))
}

/// A request with any certification request, signed with the application's MLS key.
///
/// # Errors
/// As [`renewal_request`].
pub fn sign_renewal(app: &AppPaths, id: IdempotencyId, tls_request: Vec<u8>) -> anyhow::Result<RenewalRequest> {
    let certificate = CertificateDer::from_pem_file(&app.mls_certificate)
        .with_context(|| format!("cannot read {}", app.mls_certificate.display()))?;
    let key = read_signing_key(&app.mls_key)?;
    let sign = |bytes: &[u8]| key.sign(bytes).to_bytes();
    Ok(RenewalRequest::signed(id, tls_request, certificate.to_vec(), sign))
}
