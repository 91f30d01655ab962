//! The last resorts of this device: which one is published, whether it has been used, and when the key of an older one goes
//! (PROTOCOL 5).

use std::time::Duration;

use lianxin_keystore::Transaction;
use lianxin_types::{DecodeError, Reader, Timestamp, Writer};
use openmls::prelude::tls_codec::{Deserialize as _, Serialize as _};
use openmls::prelude::{KeyPackageBundle, KeyPackageRef, Welcome};
use openmls_traits::OpenMlsProvider as _;
use openmls_traits::storage::StorageProvider as _;

use crate::engine::library;
use crate::provider::Provider;
use crate::{Mls, MlsError};

/// Rows by KeyPackageRef, in its TLS encoding.
pub(crate) const ROWS: &str = "mls-last-resort";
const VERSION: u8 = 1;
/// How long the key of a last resort that was replaced is kept for invitations that were made by it.
pub const LAST_RESORT_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is known of one last resort.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Row {
    /// Somebody has invited this device by it.
    is_used: bool,
    /// When a newer one was published; zero while this one counts.
    replaced: Timestamp,
}

impl Row {
    /// version u8, used u8, replaced u64.
    fn to_bytes(self) -> Vec<u8> {
        Writer::new().u8(VERSION).u8(u8::from(self.is_used)).u64(self.replaced.0).finish()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("last resort version")?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion { version });
        }
        let is_used = reader.u8("used")? != 0;
        let replaced = Timestamp(reader.u64("replaced")?);
        reader.finish()?;
        Ok(Self { is_used, replaced })
    }
}

impl Mls {
    /// Whether somebody has used the last resort that counts: a new one is to be made and published.
    ///
    /// # Errors
    /// [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn is_last_resort_used(&self, tx: &Transaction<'_>) -> Result<bool, MlsError> {
        let rows = rows(tx)?;
        Ok(rows.iter().any(|(_, row)| row.is_used && row.replaced == Timestamp(0)))
    }

    /// The last resort that counts is to be replaced by another, as if it were used: it carries a certificate of before.
    ///
    /// # Errors
    /// [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn outdate_last_resort(&self, tx: &Transaction<'_>) -> Result<(), MlsError> {
        for (key, row) in rows(tx)?.into_iter().filter(|(_, row)| row.replaced == Timestamp(0)) {
            tx.put(ROWS, &key, &Row { is_used: true, ..row }.to_bytes())?;
        }
        Ok(())
    }

    /// `key_package` (MLSMessage), a last resort of this device, is published: those before it count no more.
    ///
    /// # Errors
    /// [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn last_resort_published(&self, tx: &Transaction<'_>, reference: &[u8]) -> Result<(), MlsError> {
        for (key, row) in rows(tx)? {
            if key != reference && row.replaced == Timestamp(0) {
                tx.put(ROWS, &key, &Row { replaced: self.clock.now(), ..row }.to_bytes())?;
            }
        }
        Ok(())
    }

    /// Deletes the keys of last resorts that were replaced [`LAST_RESORT_KEPT`] ago. Gives how many.
    ///
    /// # Errors
    /// [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn forget_last_resorts(&self, tx: &Transaction<'_>) -> Result<usize, MlsError> {
        let (provider, now) = (Provider::new(&self.crypto, tx), self.clock.now());
        let mut forgotten = 0;
        for (key, row) in rows(tx)? {
            if row.replaced == Timestamp(0) || now < row.replaced.plus(LAST_RESORT_KEPT) {
                continue;
            }
            let reference = KeyPackageRef::tls_deserialize_exact(&key[..]).map_err(library("read a reference"))?;
            provider.storage().delete_key_package(&reference)?;
            tx.delete(ROWS, &key)?;
            forgotten += 1;
        }
        Ok(forgotten)
    }

    /// Remembers a last resort that was just made, under its reference.
    pub(crate) fn note_last_resort(
        &self,
        tx: &Transaction<'_>,
        reference: &KeyPackageRef,
    ) -> Result<Vec<u8>, MlsError> {
        let key = reference.tls_serialize_detached().map_err(library("encode a reference"))?;
        tx.put(ROWS, &key, &Row::default().to_bytes())?;
        Ok(key)
    }

    /// Whether an invitation is by a last resort of this device, which counts as used from then on.
    pub(crate) fn is_by_last_resort(&self, tx: &Transaction<'_>, welcome: &Welcome) -> Result<bool, MlsError> {
        let provider = Provider::new(&self.crypto, tx);
        let mut found = false;
        for secrets in welcome.secrets() {
            let reference = secrets.new_member();
            let bundle: Option<KeyPackageBundle> = provider.storage().key_package(&reference)?;
            if bundle.is_some_and(|bundle| bundle.key_package().last_resort()) {
                let key = reference.tls_serialize_detached().map_err(library("encode a reference"))?;
                let row = tx.get(ROWS, &key)?.map(|bytes| Row::from_bytes(&bytes)).transpose()?.unwrap_or_default();
                tx.put(ROWS, &key, &Row { is_used: true, ..row }.to_bytes())?;
                found = true;
            }
        }
        Ok(found)
    }
}

fn rows(tx: &Transaction<'_>) -> Result<Vec<(Vec<u8>, Row)>, MlsError> {
    let parse = |(key, value): (Vec<u8>, Vec<u8>)| Ok((key, Row::from_bytes(&value)?));
    tx.list(ROWS)?.into_iter().map(parse).collect()
}
