//! What openmls works with: its own cryptography, and the keystore's transaction as its storage.

use lianxin_keystore::{MlsStorage, Transaction};
use openmls_rust_crypto::RustCrypto;
use openmls_traits::OpenMlsProvider;

/// One transaction's provider.
pub(crate) struct Provider<'a> {
    crypto: &'a RustCrypto,
    storage: MlsStorage<'a>,
}

impl<'a> Provider<'a> {
    pub(crate) fn new(crypto: &'a RustCrypto, tx: &'a Transaction<'_>) -> Self {
        Self { crypto, storage: tx.mls() }
    }
}

impl<'a> OpenMlsProvider for Provider<'a> {
    type CryptoProvider = RustCrypto;
    type RandProvider = RustCrypto;
    type StorageProvider = MlsStorage<'a>;

    fn storage(&self) -> &Self::StorageProvider {
        &self.storage
    }

    fn crypto(&self) -> &Self::CryptoProvider {
        self.crypto
    }

    fn rand(&self) -> &Self::RandProvider {
        self.crypto
    }
}
