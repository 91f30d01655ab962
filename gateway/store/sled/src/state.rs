//! The database of the state, and moving it to a new one: sled never gives back what was deleted, so the living rows are
//! copied into a database beside it and the two are exchanged.
//!
//! The rows come from the state itself and not from its snapshot in the journal: that is the same rows, and the lazy ones too,
//! which a snapshot may be behind with. A snapshot is what is left if both databases are lost.

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use lianxin_store::{Progress, Row, StoreError};

use crate::database::Database;
use crate::disk::Disk;
use crate::folder::{Folder, io_error};

/// Rows moved in one step, so that writers wait for some milliseconds.
const STEP_ROWS: usize = 2_000;

/// The state, and its next home while it is being moved.
pub(crate) struct StateFolder {
    /// Held by whoever changes rows, so that a row is changed in both homes or in none that it has reached.
    moving: Mutex<Option<Moving>>,
    /// Taken for writing only to exchange the two.
    database: RwLock<Place>,
}

enum Place {
    Open(Database),
    /// Only while the two are exchanged, or if that failed: then the zone is fenced and opens itself again.
    Between,
}

struct Moving {
    target: Database,
    /// The last key that has been moved.
    reached: Vec<u8>,
}

const BETWEEN: StoreError = StoreError::Damaged { what: "state (it was not exchanged)" };

impl StateFolder {
    /// Opens the state. It can be computed again, so a damaged one is thrown away.
    ///
    /// # Errors
    /// [`StoreError`] if there is none to be had.
    pub(crate) fn open(folder: &Folder) -> Result<Self, StoreError> {
        let path = folder.state();
        let database = match Database::open(path.clone()) {
            Err(StoreError::Damaged { what }) => {
                tracing::warn!(path = %path.display(), what, "throwing a damaged state away");
                fs::remove_dir_all(&path).map_err(io_error("remove", &path))?;
                Database::open(path)?
            }
            other => other?,
        };
        Ok(Self { moving: Mutex::new(None), database: RwLock::new(Place::Open(database)) })
    }

    fn moving(&self) -> MutexGuard<'_, Option<Moving>> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self) -> RwLockReadGuard<'_, Place> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads or clears the state where it is now.
    ///
    /// # Errors
    /// What `call` says.
    pub(crate) fn with<T>(&self, call: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match &*self.place() {
            Place::Open(database) => call(database),
            Place::Between => Err(BETWEEN),
        }
    }

    /// Changes all rows or none.
    ///
    /// # Errors
    /// As [`Database::apply`].
    pub(crate) fn apply(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        let moving = self.moving();
        if let Some(moving) = &*moving {
            let moved: Vec<Row> = rows.iter().filter(|row| row.key <= moving.reached).cloned().collect();
            if !moved.is_empty() {
                moving.target.apply(moved)?;
            }
        }
        self.with(|database| database.apply(rows))
    }

    /// Moves some rows; when all have been moved, exchanges the databases.
    ///
    /// # Errors
    /// [`StoreError`] if sled or the disk fails. The next open finds the state where it was, or where it was going.
    pub(crate) fn rewrite(&self, folder: &Folder, disk: &dyn Disk) -> Result<Progress, StoreError> {
        let mut moving = self.moving();
        let mut next = match moving.take() {
            Some(next) => next,
            None => begin(folder.new_state())?,
        };
        let from = [&next.reached[..], &[0]].concat();
        let mut rows = Vec::new();
        self.with(|database| {
            database.scan(&[], &from, &mut |row_key, value| {
                rows.push(Row { key: row_key.to_vec(), value: Some(value.to_vec()) });
                if rows.len() < STEP_ROWS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
        })?;
        if let Some(last) = rows.last() {
            next.reached = last.key.clone();
            next.target.apply(rows)?;
            *moving = Some(next);
            return Ok(Progress::More);
        }
        self.exchange(next.target, folder, disk)?;
        Ok(Progress::Done)
    }

    /// Old home out, new home in. Each database is closed before its folder gets another name.
    fn exchange(&self, target: Database, folder: &Folder, disk: &dyn Disk) -> Result<(), StoreError> {
        target.settle(disk)?;
        target.close()?;
        let mut place = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if let Place::Open(old) = std::mem::replace(&mut *place, Place::Between) {
            old.close()?;
        }
        let (state, old, new) = (folder.state(), folder.old_state(), folder.new_state());
        fs::rename(&state, &old).map_err(io_error("rename", &state))?;
        fs::rename(&new, &state).map_err(io_error("rename", &new))?;
        disk.sync_all(folder.path()).map_err(io_error("sync", folder.path()))?;
        *place = Place::Open(Database::open(state)?);
        drop(place);
        fs::remove_dir_all(&old).map_err(io_error("remove", &old))
    }
}

fn begin(path: PathBuf) -> Result<Moving, StoreError> {
    if path.exists() {
        fs::remove_dir_all(&path).map_err(io_error("remove", &path))?;
    }
    Ok(Moving { target: Database::open(path)?, reached: Vec::new() })
}
