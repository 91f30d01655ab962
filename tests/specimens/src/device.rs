//! A device: its keystore on disk and its engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lianxin_certs_dev::{AppPaths, read_signing_key};
use lianxin_keystore::{Keystore, StateKey, Transaction};
use lianxin_mls::{ChannelView, LeafCare, LogEvent, Mls, MlsError, MlsIdentity, Processed};
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, DeviceUri, IdempotencyId, Random, SystemClock, SystemRandom};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::office;

/// One application of a department.
pub struct Device {
    /// Who it is.
    pub uri: DeviceUri,
    name: String,
    identity: MlsIdentity,
    keystore: Keystore,
    engine: Arc<Mls>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("uri", &self.uri).finish_non_exhaustive()
    }
}

impl Device {
    /// A new application of `department`, with certificates of its own and nothing in its state.
    ///
    /// # Panics
    /// If the federation has no such department, or the temporary folder cannot be written.
    pub fn of(department: &str) -> Self {
        Self::caring(department, LeafCare::default())
    }

    /// The same with another schedule for the keys of its leaves.
    ///
    /// # Panics
    /// As [`Device::of`].
    pub fn caring(department: &str, care: LeafCare) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("device-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let app = office().minted().mint_app(department, &name).expect("the department was minted");
        let certificate = CertificateDer::from_pem_file(&app.mls_certificate).expect("just minted");
        let key = read_signing_key(&app.mls_key).expect("just minted");
        let identity = MlsIdentity { chain: vec![certificate.to_vec()], key: key.to_bytes().into() };
        let folder = office().folder().join("states").join(&name);
        let keystore = Keystore::open(&folder, &StateKey::generate(&SystemRandom), Arc::new(SystemRandom));
        let engine = Mls::new(identity.clone(), app.uri.clone(), Arc::new(SystemClock), Arc::new(SystemRandom));
        Self {
            uri: app.uri,
            name,
            identity,
            keystore: keystore.expect("a new folder"),
            engine: Arc::new(engine.expect("its certificate and key fit together").with_leaf_care(care)),
        }
    }

    /// Certificate chain and key.
    pub fn identity(&self) -> &MlsIdentity {
        &self.identity
    }

    /// Where its certificates and keys lie.
    ///
    /// # Panics
    /// If somebody has deleted them.
    pub fn paths(&self) -> AppPaths {
        office().minted().app(self.uri.department().as_str(), &self.name).expect("it was minted")
    }

    /// Runs `work` in one transaction of the device's state.
    ///
    /// # Errors
    /// What `work` returns.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Mls, &Transaction<'_>, &Federation) -> Result<T, MlsError> + Send + 'static,
    ) -> Result<T, MlsError> {
        let (engine, federation) = (Arc::clone(&self.engine), office().federation());
        self.keystore.transaction_blocking(move |tx| work(&engine, tx, &federation))
    }

    /// Its department revokes its certificates; both ends know at once.
    ///
    /// # Panics
    /// If the department's list cannot be written.
    pub fn revoke(&self) {
        let revoked = office().minted().revoke_app(self.uri.department().as_str(), &self.name);
        revoked.expect("a writable temporary folder");
        office().reload();
    }

    /// One key package for one use.
    ///
    /// # Panics
    /// If the engine refuses.
    pub fn key_package(&self) -> Vec<u8> {
        let made = self.run(|mls, tx, federation| mls.key_packages(tx, federation, 1, false));
        made.expect("its certificate is valid").one_time.remove(0)
    }

    /// Takes one event of the log in.
    ///
    /// # Errors
    /// What the engine says.
    pub fn process(&self, event: &LogEvent) -> Result<Processed, MlsError> {
        let event = event.clone();
        self.run(move |mls, tx, federation| mls.process(tx, federation, &event))
    }

    /// The channel as this device sees it, while it is a member.
    ///
    /// # Errors
    /// What the engine says.
    pub fn view(&self, channel: ChannelId) -> Result<Option<ChannelView>, MlsError> {
        self.run(move |mls, tx, _| mls.channel(tx, channel))
    }
}

/// A new id.
pub fn fresh_id() -> IdempotencyId {
    IdempotencyId((&SystemRandom as &dyn Random).array())
}
