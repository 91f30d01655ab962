//! What can be done inside one transaction: rows by key, logs by position, MLS state.

use lianxin_types::{Reader, Writer};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _};
use zeroize::Zeroizing;

use crate::kept::Kept;
use crate::seal::{Place, Sealer};
use crate::{KeystoreError, MlsStorage, Shelf};

const ROWS: &str = "rows";
const LOG: &str = "log";

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// One transaction on the state. Rows live under (kind, key), logs under (kind, owner, position); kinds are short names
/// that the caller chooses and that are visible on disk, keys and owners are not.
pub struct Transaction<'a> {
    connection: &'a Connection,
    sealer: &'a Sealer,
    kept: &'a Kept,
}

impl<'a> Transaction<'a> {
    pub(crate) const fn new(connection: &'a Connection, sealer: &'a Sealer, kept: &'a Kept) -> Self {
        Self { connection, sealer, kept }
    }

    /// The MLS state on the first shelf, for openmls. Its writes belong to this transaction.
    pub fn mls(&self) -> MlsStorage<'_> {
        self.mls_on(Shelf::First)
    }

    /// The MLS state on `shelf`; the two know nothing of each other.
    pub fn mls_on(&self, shelf: Shelf) -> MlsStorage<'_> {
        MlsStorage::new(self.connection, self.sealer, self.kept, shelf)
    }

    /// Stores `value` under (kind, key), over whatever was there.
    ///
    /// # Errors
    /// [`KeystoreError::Database`].
    pub fn put(&self, kind: &'static str, key: &[u8], value: &[u8]) -> Result<(), KeystoreError> {
        let lookup = self.sealer.lookup(ROWS, kind, key);
        let plain = Zeroizing::new(Writer::new().bytes(key).raw(value).finish());
        let sealed = self.sealer.seal(Place { table: ROWS, kind, key: &lookup, position: 0 }, &plain)?;
        let mut statement = self.prepare("INSERT OR REPLACE INTO rows (kind, key, value) VALUES (?1, ?2, ?3)")?;
        statement.execute((kind, lookup, sealed))?;
        Ok(())
    }

    /// The value under (kind, key).
    ///
    /// # Errors
    /// [`KeystoreError::Database`]; [`KeystoreError::Tampered`].
    pub fn get(&self, kind: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, KeystoreError> {
        let lookup = self.sealer.lookup(ROWS, kind, key);
        let mut statement = self.prepare("SELECT value FROM rows WHERE kind = ?1 AND key = ?2")?;
        let stored = statement.query_row((kind, lookup), |row| row.get::<_, Vec<u8>>(0)).optional()?;
        stored.map(|stored| self.open_row(kind, &lookup, &stored).map(|(_, value)| value)).transpose()
    }

    /// Deletes what is under (kind, key), if anything.
    ///
    /// # Errors
    /// [`KeystoreError::Database`].
    pub fn delete(&self, kind: &'static str, key: &[u8]) -> Result<(), KeystoreError> {
        let lookup = self.sealer.lookup(ROWS, kind, key);
        self.prepare("DELETE FROM rows WHERE kind = ?1 AND key = ?2")?.execute((kind, lookup))?;
        Ok(())
    }

    /// Every (key, value) of a kind, ascending by key. For kinds with few rows: all are held in memory.
    ///
    /// # Errors
    /// [`KeystoreError::Database`]; [`KeystoreError::Tampered`].
    pub fn list(&self, kind: &'static str) -> Result<Vec<Row>, KeystoreError> {
        let mut statement = self.prepare("SELECT key, value FROM rows WHERE kind = ?1")?;
        let mut found = statement.query([kind])?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            let lookup: [u8; 32] = row.get(0)?;
            rows.push(self.open_row(kind, &lookup, row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?);
        }
        rows.sort_unstable();
        Ok(rows)
    }

    /// Stores `value` at a position of an owner's log, over whatever was there.
    ///
    /// # Errors
    /// [`KeystoreError::Position`] above 2^63 - 1; [`KeystoreError::Database`].
    pub fn log_put(&self, kind: &'static str, owner: &[u8], position: u64, value: &[u8]) -> Result<(), KeystoreError> {
        let lookup = self.sealer.lookup(LOG, kind, owner);
        let sealed = self.sealer.seal(Place { table: LOG, kind, key: &lookup, position }, value)?;
        let mut statement =
            self.prepare("INSERT OR REPLACE INTO log (kind, owner, position, value) VALUES (?1, ?2, ?3, ?4)")?;
        statement.execute((kind, lookup, column(position)?, sealed))?;
        Ok(())
    }

    /// At most `limit` entries of an owner's log behind position `after`, ascending. An entry at position 0 is never
    /// behind anything, so logs begin at 1.
    ///
    /// # Errors
    /// [`KeystoreError::Database`]; [`KeystoreError::Tampered`].
    pub fn log_read(
        &self,
        kind: &'static str,
        owner: &[u8],
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, KeystoreError> {
        self.log_page(
            "SELECT position, value FROM log WHERE kind = ?1 AND owner = ?2 AND position > ?3 ORDER BY position LIMIT ?4",
            (kind, owner),
            after,
            limit,
        )
    }

    /// The last `limit` entries, at most, of an owner's log that lie before position `before`; ascending.
    ///
    /// # Errors
    /// [`KeystoreError::Database`]; [`KeystoreError::Tampered`].
    pub fn log_read_before(
        &self,
        kind: &'static str,
        owner: &[u8],
        before: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, KeystoreError> {
        let mut entries = self.log_page(
            "SELECT position, value FROM log WHERE kind = ?1 AND owner = ?2 AND position < ?3 ORDER BY position DESC LIMIT ?4",
            (kind, owner),
            before,
            limit,
        )?;
        entries.reverse();
        Ok(entries)
    }

    /// How many entries of an owner's log lie behind position `after`. Opens none of them.
    ///
    /// # Errors
    /// [`KeystoreError::Database`].
    pub fn log_count(&self, kind: &'static str, owner: &[u8], after: u64) -> Result<u64, KeystoreError> {
        let lookup = self.sealer.lookup(LOG, kind, owner);
        let mut statement =
            self.prepare("SELECT COUNT(*) FROM log WHERE kind = ?1 AND owner = ?2 AND position > ?3")?;
        let count = statement.query_row((kind, lookup, bound(after)), |row| row.get::<_, i64>(0))?;
        u64::try_from(count).map_err(|_| KeystoreError::Tampered { kind })
    }

    fn log_page(
        &self,
        sql: &str,
        (kind, owner): (&'static str, &[u8]),
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, KeystoreError> {
        let lookup = self.sealer.lookup(LOG, kind, owner);
        let mut statement = self.prepare(sql)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut found = statement.query((kind, lookup, bound(from), limit))?;
        let mut entries = Vec::new();
        while let Some(row) = found.next()? {
            let position = u64::try_from(row.get::<_, i64>(0)?).map_err(|_| KeystoreError::Tampered { kind })?;
            let place = Place { table: LOG, kind, key: &lookup, position };
            let stored = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            entries.push((position, self.sealer.open(place, stored)?));
        }
        Ok(entries)
    }

    /// The last position of an owner's log; `None` if it is empty.
    ///
    /// # Errors
    /// [`KeystoreError::Database`].
    pub fn log_last(&self, kind: &'static str, owner: &[u8]) -> Result<Option<u64>, KeystoreError> {
        let lookup = self.sealer.lookup(LOG, kind, owner);
        let mut statement = self.prepare("SELECT MAX(position) FROM log WHERE kind = ?1 AND owner = ?2")?;
        let last = statement.query_row((kind, lookup), |row| row.get::<_, Option<i64>>(0))?;
        last.map(|last| u64::try_from(last).map_err(|_| KeystoreError::Tampered { kind })).transpose()
    }

    /// Deletes one entry of an owner's log, if it is there.
    ///
    /// # Errors
    /// [`KeystoreError::Position`]; [`KeystoreError::Database`].
    pub fn log_delete(&self, kind: &'static str, owner: &[u8], position: u64) -> Result<(), KeystoreError> {
        let lookup = self.sealer.lookup(LOG, kind, owner);
        let mut statement = self.prepare("DELETE FROM log WHERE kind = ?1 AND owner = ?2 AND position = ?3")?;
        statement.execute((kind, lookup, column(position)?))?;
        Ok(())
    }

    fn open_row(
        &self,
        kind: &'static str,
        lookup: &[u8; 32],
        stored: &[u8],
    ) -> Result<(Vec<u8>, Vec<u8>), KeystoreError> {
        let plain = self.sealer.open(Place { table: ROWS, kind, key: lookup, position: 0 }, stored)?;
        let plain = Zeroizing::new(plain);
        let mut reader = Reader::new(&plain);
        let key = reader.bytes("key", plain.len()).map_err(|_| KeystoreError::Decode { kind })?.to_vec();
        let value = plain[4 + key.len()..].to_vec();
        Ok((key, value))
    }

    fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>, KeystoreError> {
        Ok(self.connection.prepare_cached(sql)?)
    }
}

/// For comparisons: no position lies above SQLite's largest integer.
fn bound(position: u64) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}

/// SQLite's integers have a sign.
fn column(position: u64) -> Result<i64, KeystoreError> {
    i64::try_from(position).map_err(|_| KeystoreError::Position { position })
}
