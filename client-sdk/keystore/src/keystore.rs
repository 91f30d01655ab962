//! The door to the state: one thread owns the database, callers send it closures.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use lianxin_types::Random;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::folder::Folder;
use crate::kept::Kept;
use crate::seal::{Place, Sealer};
use crate::{KeystoreError, StateKey, Transaction};

/// Transactions that may wait for the thread; more callers wait for room.
const QUEUE_MAX: usize = 64;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS mls (kind TEXT, key BLOB, value BLOB NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS rows (kind TEXT, key BLOB, value BLOB NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS log
        (kind TEXT, owner BLOB, position INTEGER, value BLOB NOT NULL, PRIMARY KEY (kind, owner, position)) WITHOUT ROWID;
";

type Job = Box<dyn FnOnce(&mut Database) + Send>;

enum Order {
    Run(Job),
    Close,
}

/// What the thread owns. Fields drop in this order: the lock goes last.
struct Database {
    connection: Connection,
    sealer: Sealer,
    kept: Kept,
    _folder: Folder,
}

/// Sealed state of one device. Cheap to clone; all clones use the same thread. Dropping the last clone, or
/// [`Keystore::close`], waits for the running transaction and releases the folder.
#[derive(Clone)]
pub struct Keystore {
    inner: Arc<Inner>,
}

struct Inner {
    orders: Mutex<Option<mpsc::Sender<Order>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Keystore {
    /// Opens the state in `dir`, or makes it. Blocks for some milliseconds of disk work.
    ///
    /// # Errors
    /// [`KeystoreError::Locked`] if it is open elsewhere; [`KeystoreError::NewerFormat`] and
    /// [`KeystoreError::UnknownFormat`] before anything is touched; [`KeystoreError::WrongKey`];
    /// [`KeystoreError::Io`], [`KeystoreError::Database`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::sync::Arc;
    /// use lianxin_keystore::{Keystore, KeystoreError, StateKey};
    /// use lianxin_types::SystemRandom;
    /// # let folder = tempfile::tempdir()?;
    /// let key = StateKey::load_or_create(&folder.path().join("state.key"), &SystemRandom)?;
    /// let keystore = Keystore::open(&folder.path().join("state"), &key, Arc::new(SystemRandom))?;
    /// keystore.transaction_blocking(|tx| tx.put("cursor", b"channel", b"7"))?;
    /// let cursor = keystore.transaction_blocking::<_, KeystoreError>(|tx| tx.get("cursor", b"channel"))?;
    /// assert_eq!(cursor.as_deref(), Some(&b"7"[..]));
    /// # Ok(()) }
    /// ```
    pub fn open(dir: &Path, key: &StateKey, random: Arc<dyn Random>) -> Result<Self, KeystoreError> {
        let folder = Folder::open(dir)?;
        let sealer = Sealer::new(key, random);
        let connection = connect(&folder.database())?;
        check_key(&connection, &sealer)?;
        folder.sync()?;
        let database = Database { connection, sealer, kept: Kept::default(), _folder: folder };
        let (orders, queue) = mpsc::channel(QUEUE_MAX);
        let spawned = std::thread::Builder::new().name("lianxin-keystore".into()).spawn(|| serve(database, queue));
        let thread = spawned.map_err(KeystoreError::io("start the thread for", dir))?;
        Ok(Self { inner: Arc::new(Inner { orders: Mutex::new(Some(orders)), thread: Mutex::new(Some(thread)) }) })
    }

    /// Runs `f` in one transaction: committed and durable when it returns `Ok`, rolled back when it returns `Err` or
    /// panics. `f` must not wait for anything, least of all for the network. If the returned future is dropped, the
    /// transaction still runs whole or not at all.
    ///
    /// # Errors
    /// What `f` returns; [`KeystoreError::Closed`], [`KeystoreError::Panicked`], [`KeystoreError::Database`].
    pub async fn transaction<T, E>(
        &self,
        f: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<KeystoreError> + Send + 'static,
    {
        self.enqueue(f).await?.end().await
    }

    /// As [`Keystore::transaction`]; `then` sees what `f` has returned, once that is durable, also if nobody waits for it any more.
    /// It runs on the state's own thread, where it must not wait for anything either.
    ///
    /// # Errors
    /// As [`Keystore::transaction`].
    pub async fn transaction_then<T, E>(
        &self,
        f: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
        then: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<KeystoreError> + Send + 'static,
    {
        self.enqueue_then(f, then).await?.end().await
    }

    /// Puts `f` behind the transactions that wait. Who needs an order between calls waits for this one before it makes the
    /// next; the ends may be waited for together.
    ///
    /// # Errors
    /// [`KeystoreError::Closed`].
    pub async fn enqueue<T, E>(
        &self,
        f: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<Enqueued<T, E>, KeystoreError>
    where
        T: Send + 'static,
        E: From<KeystoreError> + Send + 'static,
    {
        self.enqueue_then(f, |_| ()).await
    }

    async fn enqueue_then<T, E>(
        &self,
        f: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
        then: impl FnOnce(&T) + Send + 'static,
    ) -> Result<Enqueued<T, E>, KeystoreError>
    where
        T: Send + 'static,
        E: From<KeystoreError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let orders = self.inner.orders()?;
        orders.send(Order::Run(job(f, then, answer))).await.map_err(|_| KeystoreError::Closed)?;
        Ok(Enqueued(answered))
    }

    /// As [`Keystore::transaction`], for threads outside an async runtime.
    ///
    /// # Errors
    /// As [`Keystore::transaction`].
    ///
    /// # Panics
    /// If called on a thread that drives an async runtime.
    pub fn transaction_blocking<T, E>(
        &self,
        f: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<KeystoreError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let orders = self.inner.orders()?;
        orders.blocking_send(Order::Run(job(f, |_| (), answer))).map_err(|_| KeystoreError::Closed)?;
        answered.blocking_recv().map_err(|_| KeystoreError::Closed)?
    }

    /// Runs what is queued, closes the database and releases the folder. Other clones answer [`KeystoreError::Closed`]
    /// from now on.
    pub async fn close(self) {
        let orders = self.inner.orders.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(orders) = orders {
            // An error means that the thread has gone already.
            let _gone = orders.send(Order::Close).await;
            orders.closed().await;
        }
        self.inner.join();
    }
}

impl std::fmt::Debug for Keystore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keystore(..)")
    }
}

impl Inner {
    fn orders(&self) -> Result<mpsc::Sender<Order>, KeystoreError> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(KeystoreError::Closed)
    }

    fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The last clone may die inside a closure on the thread itself, which cannot wait for itself.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            // A panic of the thread was ours and has been printed; there is nothing left to release.
            let _panicked = thread.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.orders.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        self.join();
    }
}

fn serve(mut database: Database, mut queue: mpsc::Receiver<Order>) {
    while let Some(order) = queue.blocking_recv() {
        match order {
            Order::Run(job) => job(&mut database),
            Order::Close => break,
        }
    }
    // Without it the write-ahead log keeps old pages, and with them keys that MLS has deleted.
    let _best_effort = database.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    // The database closes before `queue`, which `close` waits for.
    drop(database);
}

/// A transaction that has its place in the queue.
#[derive(Debug)]
pub struct Enqueued<T, E>(oneshot::Receiver<Result<T, E>>);

impl<T, E: From<KeystoreError>> Enqueued<T, E> {
    /// Waits for its end.
    ///
    /// # Errors
    /// As [`Keystore::transaction`].
    pub async fn end(self) -> Result<T, E> {
        self.0.await.map_err(|_| KeystoreError::Closed)?
    }
}

fn job<T, E>(
    f: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    then: impl FnOnce(&T) + Send + 'static,
    answer: oneshot::Sender<Result<T, E>>,
) -> Job
where
    T: Send + 'static,
    E: From<KeystoreError> + Send + 'static,
{
    Box::new(move |database| {
        let done = run(database, f).and_then(|value| {
            catch_unwind(AssertUnwindSafe(|| then(&value))).map_err(|_| KeystoreError::Panicked)?;
            Ok(value)
        });
        // Nobody listens if the caller has gone; the transaction is whole all the same.
        let _gone = answer.send(done);
    })
}

fn run<T, E: From<KeystoreError>>(
    database: &mut Database,
    f: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let done = attempt(database, f);
    if done.is_err() {
        database.kept.clear();
    }
    done
}

fn attempt<T, E: From<KeystoreError>>(
    database: &mut Database,
    f: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let Database { connection, sealer, kept, .. } = database;
    let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
    let inside = begun.map_err(KeystoreError::from)?;
    let transaction = Transaction::new(&inside, sealer, kept);
    let done = catch_unwind(AssertUnwindSafe(|| f(&transaction))).map_err(|_| KeystoreError::Panicked)?;
    match done {
        Ok(value) => {
            inside.commit().map_err(KeystoreError::from)?;
            Ok(value)
        }
        Err(error) => {
            inside.rollback().map_err(KeystoreError::from)?;
            Err(error)
        }
    }
}

fn connect(path: &Path) -> Result<Connection, KeystoreError> {
    let connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY;
         PRAGMA trusted_schema = OFF; PRAGMA wal_autocheckpoint = 200;",
    )?;
    connection.set_prepared_statement_cache_capacity(64);
    // Else SQLite plans a statement anew whenever a position is bound to it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

/// A known value, sealed at the first opening, tells a wrong key from a damaged folder.
fn check_key(connection: &Connection, sealer: &Sealer) -> Result<(), KeystoreError> {
    let place = Place { table: "meta", kind: "check", key: &[0; 32], position: 0 };
    let found = connection.query_row("SELECT value FROM meta WHERE name = 'check'", [], |row| row.get::<_, Vec<u8>>(0));
    match found {
        Ok(stored) => sealer.open(place, &stored).map(|_| ()).map_err(|_| KeystoreError::WrongKey),
        Err(rusqlite::Error::QueryReturnedNoRows) => {
            let sealed = sealer.seal(place, b"lianxin")?;
            connection.execute("INSERT INTO meta (name, value) VALUES ('check', ?1)", [sealed])?;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
