//! The engine's door.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use lianxin_profile::{ProfileError, Validity, check_leaf, x509_credential};
use lianxin_trust::{Federation, Identity, RenewalRequest};
use lianxin_types::{ChannelId, Clock, DeviceUri, Digest, Epoch, IdempotencyId, Incarnation, Random};
use openmls::prelude::{
    Credential, CredentialWithKey, MlsGroupJoinConfig, PURE_PLAINTEXT_WIRE_FORMAT_POLICY, SenderRatchetConfiguration,
};
use openmls_rust_crypto::RustCrypto;

use crate::identity::DeviceSigner;
use crate::leaf::LeafCare;
use crate::{MlsError, MlsIdentity};

/// The MLS engine of one device. Holds its identity, whose certificate may be renewed, and no group; every call takes the keystore's transaction.
pub struct Mls {
    pub(crate) crypto: RustCrypto,
    pub(crate) signer: DeviceSigner,
    pub(crate) certificate: RwLock<Certificate>,
    pub(crate) device: DeviceUri,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    /// In which group and epoch, and by which federation, no member of a channel was found revoked.
    pub(crate) unrevoked: Mutex<HashMap<ChannelId, (Incarnation, Epoch, Digest)>>,
    pub(crate) care: LeafCare,
}

/// The device's certificate of now, and the same as MLS carries it.
#[derive(Clone)]
pub(crate) struct Certificate {
    der: Vec<u8>,
    credential: Credential,
}

impl Certificate {
    fn of(chain: &[Vec<u8>]) -> Result<Self, MlsError> {
        let credential = x509_credential(chain)?;
        Ok(Self { der: chain.first().cloned().unwrap_or_default(), credential })
    }
}

impl Mls {
    /// An engine for `device`. That certificate, key and name belong together is checked by the first call that takes the
    /// federation.
    ///
    /// # Errors
    /// [`MlsError::Profile`] if the chain is not one certificate.
    pub fn new(
        identity: MlsIdentity,
        device: DeviceUri,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, MlsError> {
        let certificate = RwLock::new(Certificate::of(&identity.chain)?);
        let signer = DeviceSigner::new(&identity.key);
        let (unrevoked, care) = (Mutex::default(), LeafCare::default());
        Ok(Self { crypto: RustCrypto::default(), signer, certificate, device, clock, random, unrevoked, care })
    }

    /// The device's certificate of now, DER.
    pub fn certificate(&self) -> Vec<u8> {
        self.present().der
    }

    /// From here on the device shows `certificate` (DER), which is for the same key (PROTOCOL 1: a renewal keeps the MLS key).
    /// [`Mls::renewal`] then says of each channel that its leaf is to be renewed.
    ///
    /// # Errors
    /// [`MlsError::Profile`] if it is longer than a credential may be.
    pub fn renew_certificate(&self, certificate: &[u8]) -> Result<(), MlsError> {
        let renewed = Certificate::of(&[certificate.to_vec()])?;
        *self.certificate.write().unwrap_or_else(PoisonError::into_inner) = renewed;
        Ok(())
    }

    /// A request for the device's next certificates, for a TLS key's certification request (PKCS#10, DER), signed with the
    /// MLS key. The same arguments give the same request, byte for byte, as long as the certificate is the same.
    pub fn renewal_request(&self, id: IdempotencyId, tls_request: Vec<u8>) -> RenewalRequest {
        RenewalRequest::signed(id, tls_request, self.certificate(), |bytes| self.signer.sign_raw(bytes))
    }

    /// What a leaf of this device carries.
    pub(crate) fn credential(&self) -> CredentialWithKey {
        let signature_key = self.signer.public_key().to_vec().into();
        CredentialWithKey { credential: self.present().credential, signature_key }
    }

    fn present(&self) -> Certificate {
        self.certificate.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The device's own identity, valid now.
    pub(crate) fn own_identity(&self, federation: &Federation) -> Result<Identity, MlsError> {
        let key = self.signer.public_key();
        let now = self.clock.now();
        let identity = check_leaf(federation, &self.present().credential, &key, now, Validity::MustBeValid)?;
        if identity.uri != self.device {
            return Err(ProfileError::SenderMismatch.into());
        }
        Ok(identity)
    }
}

impl std::fmt::Debug for Mls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mls").field("device", &self.device).finish_non_exhaustive()
    }
}

/// Handshakes in the clear, so that the gateway can judge them; no tree in GroupInfos; no past epochs, because the log's
/// order is the order of epochs. Padding is ours (profile), not MLS'.
pub(crate) fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .use_ratchet_tree_extension(false)
        .max_past_epochs(0)
        .padding_size(0)
        .sender_ratchet_configuration(sender_ratchet())
        .build()
}

/// One device's messages come in the order of encryption, but some may never be accepted: at most 500 (PROTOCOL 6), so
/// 1,000 may be skipped; with those that were refused there are never more ([`MlsError::TooFarAhead`]). Five may come late, for a
/// retry that overtakes.
pub(crate) fn sender_ratchet() -> SenderRatchetConfiguration {
    SenderRatchetConfiguration::new(5, 1_000)
}

/// Wraps an error of openmls that says nothing a caller could act upon.
pub(crate) fn library<E: std::fmt::Display>(action: &'static str) -> impl FnOnce(E) -> MlsError {
    move |error| MlsError::Library { action, detail: error.to_string() }
}
