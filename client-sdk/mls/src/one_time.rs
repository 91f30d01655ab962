//! The one-time key packages of this device whose private keys are here. openmls deletes the keys of one that has brought the device
//! into a group; those that nobody uses go here.

use std::collections::BTreeSet;
use std::time::Duration;

use lianxin_keystore::Transaction;
use lianxin_profile::parse_welcome;
use lianxin_types::{DecodeError, Reader, Timestamp, Writer};
use openmls::prelude::tls_codec::{Deserialize as _, Serialize as _};
use openmls::prelude::{KeyPackageRef, Welcome};
use openmls_traits::OpenMlsProvider as _;
use openmls_traits::storage::StorageProvider as _;

use crate::engine::library;
use crate::provider::Provider;
use crate::{Mls, MlsError, last_resort};

/// Rows by KeyPackageRef, in its TLS encoding.
const ROWS: &str = "mls-one-time";
const VERSION: u8 = 1;
/// How long behind its end the keys of a key package are kept. Nobody is added by it then, wherever clocks stand within what is
/// tolerated; but an invitation that was made in time may wait at the gateway.
pub const KEY_PACKAGE_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

impl Mls {
    /// Deletes the keys of one-time key packages that ended [`KEY_PACKAGE_KEPT`] ago, but for those by which one of `waiting`
    /// (Welcomes) lets this device in. Gives how many. To be called when the gateway has said which invitations wait.
    ///
    /// # Errors
    /// [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn forget_key_packages<'a>(
        &self,
        tx: &Transaction<'_>,
        waiting: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<usize, MlsError> {
        let now = self.clock.now();
        let mut ended = BTreeSet::new();
        for (key, row) in tx.list(ROWS)? {
            if now > end_of(&row)?.plus(KEY_PACKAGE_KEPT) {
                ended.insert(key);
            }
        }
        if ended.is_empty() {
            return Ok(0);
        }
        // One that is no Welcome lets nobody in.
        for welcome in waiting.into_iter().filter_map(|bytes| parse_welcome(bytes).ok()) {
            for key in references(&welcome)? {
                ended.remove(&key);
            }
        }
        self.drop_key_packages(tx, &ended)?;
        Ok(ended.len())
    }

    /// Deletes the private keys of key packages that nobody was ever given, by their references; of last resorts as well.
    ///
    /// # Errors
    /// [`MlsError::Keystore`], [`MlsError::Library`].
    pub fn drop_key_packages<'a>(
        &self,
        tx: &Transaction<'_>,
        references: impl IntoIterator<Item = &'a Vec<u8>>,
    ) -> Result<(), MlsError> {
        let provider = Provider::new(&self.crypto, tx);
        for key in references {
            let reference = KeyPackageRef::tls_deserialize_exact(&key[..]).map_err(library("read a reference"))?;
            provider.storage().delete_key_package(&reference)?;
            tx.delete(ROWS, key)?;
            tx.delete(last_resort::ROWS, key)?;
        }
        Ok(())
    }

    /// Remembers a key package that was just made, and gives its reference.
    pub(crate) fn note_one_time(
        &self,
        tx: &Transaction<'_>,
        reference: &KeyPackageRef,
        end: Timestamp,
    ) -> Result<Vec<u8>, MlsError> {
        let key = reference.tls_serialize_detached().map_err(library("encode a reference"))?;
        tx.put(ROWS, &key, &Writer::new().u8(VERSION).u64(end.0).finish())?;
        Ok(key)
    }

    /// A group was joined by this Welcome: the keys that opened it are gone.
    pub(crate) fn note_used(&self, tx: &Transaction<'_>, welcome: &Welcome) -> Result<(), MlsError> {
        references(welcome)?.iter().try_for_each(|key| Ok(tx.delete(ROWS, key)?))
    }
}

fn end_of(row: &[u8]) -> Result<Timestamp, DecodeError> {
    let mut reader = Reader::new(row);
    let version = reader.u8("one-time version")?;
    if version != VERSION {
        return Err(DecodeError::UnknownVersion { version });
    }
    let end = Timestamp(reader.u64("end")?);
    reader.finish()?;
    Ok(end)
}

/// Whom a Welcome lets in.
fn references(welcome: &Welcome) -> Result<Vec<Vec<u8>>, MlsError> {
    let names = welcome.secrets().iter().map(|secrets| secrets.new_member().tls_serialize_detached());
    names.map(|name| name.map_err(library("encode a reference"))).collect()
}
