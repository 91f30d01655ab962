//! The device's certificate and key.

use ed25519_dalek::{Signer as _, SigningKey};
use openmls_traits::signatures::{Signer, SignerError};
use openmls_traits::types::SignatureScheme;
use zeroize::Zeroizing;

/// Who this device is in MLS.
#[derive(Clone)]
pub struct MlsIdentity {
    /// Its certificate as DER, leaf first, without the CA that is in the trust bundle.
    pub chain: Vec<Vec<u8>>,
    /// The Ed25519 key of that certificate: the 32 secret bytes (RFC 8032).
    pub key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for MlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MlsIdentity").finish_non_exhaustive()
    }
}

/// Signs for openmls. Its key is wiped when it is dropped.
pub(crate) struct DeviceSigner(SigningKey);

impl DeviceSigner {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(key))
    }

    /// An Ed25519 signature over exactly these bytes.
    pub(crate) fn sign_raw(&self, bytes: &[u8]) -> [u8; 64] {
        self.0.sign(bytes).to_bytes()
    }

    pub(crate) fn public_key(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }
}

impl Signer for DeviceSigner {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        Ok(self.0.sign(payload).to_bytes().to_vec())
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}
