//! What the committer does between batches: state snapshots, and rewriting the state when most of its bytes are dead.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crate::engine::{Engine, Progress, Row};
use crate::ledger::Ledger;
use crate::snapshot::{Snapshot, Writing};
use crate::zone_store::StoreError;

/// The state is rewritten when it takes this many times the bytes that live (PROTOCOL 10).
const BYTES_PER_LIVING_BYTE: u64 = 4;

/// What is being written.
pub(crate) struct Writer {
    state_bytes_min: u64,
    is_wanted: bool,
    snapshot: Option<Writing>,
    is_rewriting: bool,
}

impl Writer {
    pub(crate) fn new(state_bytes_min: u64) -> Self {
        Self { state_bytes_min, is_wanted: false, snapshot: None, is_rewriting: false }
    }

    /// A snapshot is wanted; one that is being written will do.
    pub(crate) fn want_snapshot(&mut self) {
        self.is_wanted = true;
    }

    /// Whether a snapshot is wanted or being written.
    pub(crate) fn is_writing_snapshot(&self) -> bool {
        self.is_wanted || self.snapshot.is_some()
    }

    pub(crate) fn has_work(&self) -> bool {
        self.is_writing_snapshot() || self.is_rewriting
    }

    /// Wants a snapshot once a bucket has closed since the last one, and more records have come since than that one has
    /// rows: so snapshots never take more than the records do, and a rebuild reads about as much of both.
    pub(crate) fn look<E: Engine>(&mut self, ledger: &Ledger<E>) {
        if self.is_writing_snapshot() {
            return;
        }
        let Some(newest) = ledger.journal.last().filter(|newest| newest.bucket.number > 1) else { return };
        let is_due = ledger.snapshot().is_none_or(|last| {
            newest.bucket.number > last.bucket.number && ledger.leaf_count().saturating_sub(last.as_of) > last.rows
        });
        if is_due {
            self.want_snapshot();
        }
    }

    /// Keeps what `rows` are about to change, for the snapshot that is being written.
    ///
    /// # Errors
    /// [`StoreError`] if the engine failed.
    pub(crate) fn keep_before<E: Engine>(&mut self, engine: &E, rows: &[Row]) -> Result<(), StoreError> {
        match &mut self.snapshot {
            Some(snapshot) => snapshot.keep_before(engine, rows),
            None => Ok(()),
        }
    }

    /// One slice.
    ///
    /// # Errors
    /// [`StoreError`] if the engine failed, or does not give back what was written.
    pub(crate) fn work<E: Engine>(&mut self, ledger: &Ledger<E>) -> Result<(), StoreError> {
        if let Some(snapshot) = &mut self.snapshot {
            let complete = snapshot.go_on(ledger)?;
            let written = if complete.is_some() { 0 } else { snapshot.written() };
            ledger.upkeep.snapshot_rows.store(written, Ordering::Relaxed);
            if let Some(complete) = complete {
                self.snapshot = None;
                self.finished(ledger, complete)?;
            }
        } else if std::mem::take(&mut self.is_wanted) {
            self.snapshot = Writing::begin(ledger)?;
        } else if self.is_rewriting && ledger.engine.rewrite_state()? == Progress::Done {
            self.is_rewriting = false;
            tracing::info!(zone = %ledger.zone, "the state has been rewritten");
        }
        Ok(())
    }

    fn finished<E: Engine>(&mut self, ledger: &Ledger<E>, complete: Snapshot) -> Result<(), StoreError> {
        let Snapshot { as_of, rows, bytes, .. } = complete;
        tracing::info!(zone = %ledger.zone, as_of, rows, bytes, "the state has been written into the journal");
        *ledger.upkeep.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Some(complete);
        // A snapshot has exactly the rows that live, so this is the moment at which their bytes are known.
        let limit = bytes.saturating_mul(BYTES_PER_LIVING_BYTE).max(self.state_bytes_min);
        if ledger.engine.state_bytes()?.is_some_and(|taken| taken > limit) {
            self.is_rewriting = true;
        }
        Ok(())
    }
}
