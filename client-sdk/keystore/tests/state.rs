//! The sealed state as its users see it: what is refused, what survives, what never reaches the disk.

use std::path::Path;
use std::sync::Arc;

use lianxin_keystore::{Keystore, KeystoreError, StateKey};
use lianxin_types::SystemRandom;

const SECRET: &[u8] = "机密正文 that must never be found on the disk".as_bytes();

fn open_with(dir: &Path, key: u8) -> Result<Keystore, KeystoreError> {
    Keystore::open(dir, &StateKey::from_bytes([key; 32]), Arc::new(SystemRandom))
}

fn open(dir: &Path) -> Keystore {
    open_with(dir, 1).expect("opens")
}

fn read(keystore: &Keystore, kind: &'static str, key: &'static [u8]) -> Option<Vec<u8>> {
    keystore.transaction_blocking::<_, KeystoreError>(move |tx| tx.get(kind, key)).expect("read")
}

fn put(keystore: &Keystore, kind: &'static str, key: &'static [u8], value: &'static [u8]) {
    keystore.transaction_blocking::<_, KeystoreError>(move |tx| tx.put(kind, key, value)).expect("written");
}

#[test]
fn a_wrong_key_is_refused_and_the_right_one_still_opens() {
    let folder = tempfile::tempdir().expect("folder");
    put(&open(folder.path()), "row", b"key", b"value");
    assert!(matches!(open_with(folder.path(), 2), Err(KeystoreError::WrongKey)));
    assert_eq!(read(&open(folder.path()), "row", b"key").as_deref(), Some(&b"value"[..]));
}

#[test]
fn a_second_holder_is_refused_with_the_pid_of_the_first() {
    let folder = tempfile::tempdir().expect("folder");
    let first = open(folder.path());
    let second = open_with(folder.path(), 1);
    assert!(matches!(second, Err(KeystoreError::Locked { pid: Some(pid) }) if pid == std::process::id()), "{second:?}");
    drop(first);
    open(folder.path());
}

#[test]
fn a_newer_format_is_refused_untouched() {
    let folder = tempfile::tempdir().expect("folder");
    drop(open(folder.path()));
    let database = folder.path().join("state.db");
    let before = std::fs::read(&database).expect("database");
    let format = folder.path().join("format");
    std::fs::write(&format, "lianxin-state 2\n").expect("written");
    assert!(matches!(open_with(folder.path(), 1), Err(KeystoreError::NewerFormat { found: 2, known: 1 })));
    assert_eq!(std::fs::read(&database).expect("database"), before);
    for other in ["", "lianxin-state 0", "lianxin-state x", "something"] {
        std::fs::write(&format, other).expect("written");
        assert!(matches!(open_with(folder.path(), 1), Err(KeystoreError::UnknownFormat)), "{other}");
    }
}

#[test]
fn what_is_stored_never_lies_readable_on_the_disk() {
    let folder = tempfile::tempdir().expect("folder");
    let keystore = open(folder.path());
    put(&keystore, "row", SECRET, SECRET);
    keystore.transaction_blocking::<_, KeystoreError>(|tx| tx.log_put("log", SECRET, 1, SECRET)).expect("written");
    let scan = || {
        let mut bytes = 0;
        for entry in std::fs::read_dir(folder.path()).expect("listed") {
            let path = entry.expect("entry").path();
            let content = std::fs::read(&path).expect("read");
            bytes += content.len();
            assert!(!content.windows(12).any(|window| window == &SECRET[..12]), "{}", path.display());
        }
        assert!(bytes > 10_000, "the scan must have seen the database");
    };
    scan();
    drop(keystore);
    scan();
}

#[test]
fn two_values_that_change_places_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let keystore = open(folder.path());
    put(&keystore, "row", b"a", b"value of a");
    put(&keystore, "row", b"b", b"value of b");
    let logged = keystore.transaction_blocking::<_, KeystoreError>(|tx| {
        tx.log_put("log", b"owner", 1, b"first")?;
        tx.log_put("log", b"owner", 2, b"second")
    });
    logged.expect("written");
    drop(keystore);
    let database = rusqlite::Connection::open(folder.path().join("state.db")).expect("database");
    let swapped = database.execute_batch(
        "CREATE TEMP TABLE before AS SELECT key, value FROM rows;
         UPDATE rows SET value = (SELECT value FROM before WHERE before.key <> rows.key);
         UPDATE log SET position = 3 - position + 10; UPDATE log SET position = position - 10;",
    );
    swapped.expect("swapped");
    drop(database);
    let keystore = open(folder.path());
    let row = keystore.transaction_blocking::<_, KeystoreError>(|tx| tx.get("row", b"a"));
    assert!(matches!(row, Err(KeystoreError::Tampered { kind: "row" })), "{row:?}");
    let all = keystore.transaction_blocking::<_, KeystoreError>(|tx| tx.list("row"));
    assert!(matches!(all, Err(KeystoreError::Tampered { kind: "row" })), "{all:?}");
    let log = keystore.transaction_blocking::<_, KeystoreError>(|tx| tx.log_read("log", b"owner", 0, 9));
    assert!(matches!(log, Err(KeystoreError::Tampered { kind: "log" })), "{log:?}");
}

#[test]
fn an_error_and_a_panic_roll_back() {
    let folder = tempfile::tempdir().expect("folder");
    let keystore = open(folder.path());
    put(&keystore, "row", b"key", b"old");
    let refused = keystore.transaction_blocking::<(), KeystoreError>(|tx| {
        tx.put("row", b"key", b"new")?;
        Err(KeystoreError::Position { position: 7 })
    });
    assert!(matches!(refused, Err(KeystoreError::Position { position: 7 })));
    assert_eq!(read(&keystore, "row", b"key").as_deref(), Some(&b"old"[..]));
    let panicked = keystore.transaction_blocking::<(), KeystoreError>(|tx| {
        tx.put("row", b"key", b"new")?;
        panic!("a bug in the closure, on purpose")
    });
    assert!(matches!(panicked, Err(KeystoreError::Panicked)));
    assert_eq!(read(&keystore, "row", b"key").as_deref(), Some(&b"old"[..]));
}

#[test]
fn rows_and_logs_give_back_what_was_put() {
    let folder = tempfile::tempdir().expect("folder");
    let keystore = open(folder.path());
    let checked = keystore.transaction_blocking::<_, KeystoreError>(|tx| {
        tx.put("row", b"b", b"2")?;
        tx.put("row", b"a", b"")?;
        tx.put("row", b"b", b"3")?;
        tx.put("other", b"b", b"4")?;
        assert_eq!(tx.list("row")?, [(b"a".to_vec(), vec![]), (b"b".to_vec(), b"3".to_vec())]);
        tx.delete("row", b"a")?;
        assert_eq!(tx.get("row", b"a")?, None);
        for position in [300, 1, 2] {
            tx.log_put("log", b"x", position, &position.to_be_bytes())?;
        }
        tx.log_put("log", b"y", 9, b"")?;
        let positions = |after, limit| -> Result<Vec<u64>, KeystoreError> {
            Ok(tx.log_read("log", b"x", after, limit)?.into_iter().map(|(position, _)| position).collect())
        };
        assert_eq!(positions(0, 2)?, [1, 2]);
        assert_eq!(positions(2, 9)?, [300]);
        assert_eq!(positions(u64::MAX, 9)?, [0; 0]);
        let before = |before, limit| -> Result<Vec<u64>, KeystoreError> {
            Ok(tx.log_read_before("log", b"x", before, limit)?.into_iter().map(|(position, _)| position).collect())
        };
        assert_eq!(before(u64::MAX, 2)?, [2, 300], "the last two, ascending");
        assert_eq!(before(300, 9)?, [1, 2]);
        assert_eq!(before(1, 9)?, [0; 0]);
        let counts = [0, 1, 300, u64::MAX].map(|after| tx.log_count("log", b"x", after));
        assert_eq!(counts.into_iter().collect::<Result<Vec<_>, _>>()?, [3, 2, 0, 0]);
        assert_eq!(tx.log_count("log", b"z", 0)?, 0);
        assert_eq!((tx.log_last("log", b"x")?, tx.log_last("log", b"z")?), (Some(300), None));
        tx.log_delete("log", b"x", 300)?;
        assert_eq!(tx.log_last("log", b"x")?, Some(2));
        assert!(matches!(tx.log_put("log", b"x", 1 << 63, b""), Err(KeystoreError::Position { .. })));
        Ok(())
    });
    checked.expect("checked");
}

#[tokio::test]
async fn a_closed_keystore_answers_closed_and_frees_the_folder() {
    let folder = tempfile::tempdir().expect("folder");
    let keystore = open(folder.path());
    let clone = keystore.clone();
    keystore.transaction::<_, KeystoreError>(|tx| tx.put("row", b"key", b"value")).await.expect("written");
    keystore.close().await;
    let refused = clone.transaction::<_, KeystoreError>(|tx| tx.get("row", b"key")).await;
    assert!(matches!(refused, Err(KeystoreError::Closed)), "{refused:?}");
    let again = open(folder.path());
    let value = again.transaction::<_, KeystoreError>(|tx| tx.get("row", b"key")).await.expect("read");
    assert_eq!(value.as_deref(), Some(&b"value"[..]));
}
