//! Key packages: what others need to invite this device.

use lianxin_keystore::Transaction;
use lianxin_profile::{CIPHERSUITE, capabilities, check_key_package};
use lianxin_trust::Federation;
use lianxin_types::{DeviceUri, LIMITS, Timestamp};
use openmls::prelude::{KeyPackage, Lifetime, MlsMessageOut};

use crate::engine::library;
use crate::provider::Provider;
use crate::{Mls, MlsError};

/// How far back a lifetime begins, for readers whose clock is behind.
const EARLIER_SECONDS: u64 = 3600;

/// Fresh key packages; their private keys are in the keystore. Each is one MLSMessage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewKeyPackages {
    /// To be used once each.
    pub one_time: Vec<Vec<u8>>,
    /// Their names for [`Mls::drop_key_packages`], in their order.
    pub one_time_references: Vec<Vec<u8>>,
    /// To be used when the others are gone, more than once.
    pub last_resort: Option<Vec<u8>>,
    /// Its name for [`Mls::last_resort_published`] and [`Mls::drop_key_packages`].
    pub last_resort_reference: Option<Vec<u8>>,
}

impl Mls {
    /// Makes key packages that live for 84 days at most and never longer than the certificate.
    ///
    /// # Errors
    /// [`MlsError::Profile`] if the certificate is not valid now; [`MlsError::Library`], [`MlsError::Keystore`].
    pub fn key_packages(
        &self,
        tx: &Transaction<'_>,
        federation: &Federation,
        one_time: usize,
        last_resort: bool,
    ) -> Result<NewKeyPackages, MlsError> {
        let lifetime = self.lifetime(self.own_identity(federation)?.not_after);
        let provider = Provider::new(&self.crypto, tx);
        let mut made = NewKeyPackages::default();
        for _ in 0..one_time {
            let built = self.build_key_package(&provider, lifetime, Use::Once)?;
            let reference = built.hash_ref(&self.crypto).map_err(library("name a key package"))?;
            let end = Timestamp::from_seconds(lifetime.not_after());
            made.one_time_references.push(self.note_one_time(tx, &reference, end)?);
            made.one_time.push(encode(built)?);
        }
        if last_resort {
            let built = self.build_key_package(&provider, lifetime, Use::LastResort)?;
            let reference = built.hash_ref(&self.crypto).map_err(library("name a key package"))?;
            made.last_resort_reference = Some(self.note_last_resort(tx, &reference)?);
            made.last_resort = Some(encode(built)?);
        }
        Ok(made)
    }

    /// Checks the gateway's answer to a claim before anybody is added by it: one key package (MLSMessage) for each of `devices`,
    /// in their order.
    ///
    /// # Errors
    /// [`MlsError::KeyPackageCount`]; [`MlsError::ForeignKeyPackage`] for the first that is another device's;
    /// [`MlsError::Profile`] for one that the profile refuses.
    pub fn check_claimed(
        &self,
        federation: &Federation,
        devices: &[DeviceUri],
        key_packages: &[Vec<u8>],
    ) -> Result<(), MlsError> {
        let (asked, found) = (devices.len(), key_packages.len());
        if asked != found {
            return Err(MlsError::KeyPackageCount { asked, found });
        }
        for (asked, bytes) in devices.iter().zip(key_packages) {
            let found = check_key_package(federation, &self.crypto, bytes, self.clock.now())?.identity.uri;
            if found != *asked {
                return Err(MlsError::ForeignKeyPackage { asked: asked.clone(), found });
            }
        }
        Ok(())
    }

    fn build_key_package(
        &self,
        provider: &Provider<'_>,
        lifetime: Lifetime,
        usage: Use,
    ) -> Result<KeyPackage, MlsError> {
        let builder = KeyPackage::builder().key_package_lifetime(lifetime).leaf_node_capabilities(capabilities());
        let builder = match usage {
            Use::Once => builder,
            Use::LastResort => builder.mark_as_last_resort(),
        };
        let built = builder.build(CIPHERSUITE, provider, &self.signer, self.credential());
        Ok(built.map_err(library("make a key package"))?.into_key_package())
    }

    /// From an hour ago until 84 days after that, or the end of the certificate.
    pub(crate) fn lifetime(&self, certificate_end: Timestamp) -> Lifetime {
        let start = self.clock.now().seconds().saturating_sub(EARLIER_SECONDS);
        let end = start.saturating_add(LIMITS.leaf_lifetime_max.as_secs());
        Lifetime::init(start, end.min(certificate_end.seconds()))
    }
}

fn encode(key_package: KeyPackage) -> Result<Vec<u8>, MlsError> {
    MlsMessageOut::from(key_package).to_bytes().map_err(library("encode a key package"))
}

enum Use {
    Once,
    LastResort,
}
