//! What openmls works with: its own cryptography, and the keystore's transaction as its storage.

use lianxin_keystore::{MlsStorage, Shelf, Transaction};
use openmls_rust_crypto::RustCrypto;
use openmls_traits::OpenMlsProvider;

/// One transaction's provider.
pub(crate) struct Provider<'a> {
    crypto: &'a RustCrypto,
    storage: MlsStorage<'a>,
}

impl<'a> Provider<'a> {
    /// For key packages, and for groups that a start or a Welcome makes.
    pub(crate) fn new(crypto: &'a RustCrypto, tx: &'a Transaction<'_>) -> Self {
        Self::on(crypto, tx, Shelf::First)
    }

    /// For a group that lies on `shelf`.
    pub(crate) fn on(crypto: &'a RustCrypto, tx: &'a Transaction<'_>, shelf: Shelf) -> Self {
        Self { crypto, storage: tx.mls_on(shelf) }
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
