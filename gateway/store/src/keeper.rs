//! What is done with closed buckets beside the committer, by a thread of its own: what outlives them is copied into segments,
//! and the dropped ones are removed. Everything here can be cut short at any moment and is done again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::engine::{Engine, Room};
use crate::ledger::Ledger;
use crate::zone_store::StoreError;

/// How long after a failure the work is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// What the committer tells the keeper.
pub(crate) enum Task {
    /// A bucket has closed or was dropped.
    Look,
    /// The same, and somebody waits to hear up to which bucket may be dropped.
    Report(oneshot::Sender<u64>),
}

/// The thread's work.
pub(crate) struct Keeper<E: Engine> {
    pub(crate) ledger: Arc<Ledger<E>>,
    pub(crate) tasks: Receiver<Task>,
}

impl<E: Engine> Keeper<E> {
    /// Works until nobody can tell it anything any more.
    pub(crate) fn run(self) {
        let mut has_failed = !self.attempt(Look::Short);
        loop {
            let task = if has_failed {
                self.tasks.recv_timeout(RETRY_AFTER)
            } else {
                self.tasks.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            let report = match task {
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) | Ok(Task::Look) => None,
                Ok(Task::Report(report)) => Some(report),
            };
            has_failed = !self.attempt(if report.is_some() { Look::Whole } else { Look::Short });
            if let Some(report) = report {
                // Who dropped the future does not want to know.
                let _ = report.send(self.ledger.droppable());
            }
        }
    }

    /// Whether all work is done.
    fn attempt(&self, look: Look) -> bool {
        let fault = match catch_unwind(AssertUnwindSafe(|| work(&self.ledger, look))) {
            Ok(Ok(())) => None,
            Ok(Err(_)) if self.ledger.is_closing.load(Ordering::Relaxed) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the keeper of closed buckets panicked".to_owned()),
        };
        if let Some(fault) = &fault {
            tracing::error!(zone = %self.ledger.zone, fault, "closed buckets are not kept");
        }
        let is_done = fault.is_none();
        self.ledger.set_keeping_fault(fault);
        is_done
    }
}

/// How closely copies that were there already are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Headers and trailers: enough to know that there is nothing to copy.
    Short,
    /// Every byte, once in an opening: before a bucket may be dropped.
    Whole,
}

/// Removes dropped buckets and copies closed ones, oldest first.
///
/// # Errors
/// [`StoreError`] if the engine failed or a bucket is damaged; what was done stays done.
pub(crate) fn work<E: Engine>(ledger: &Ledger<E>, look: Look) -> Result<(), StoreError> {
    let first = ledger.journal.first_number();
    for bucket in ledger.engine.buckets()? {
        if bucket.number < first {
            ledger.engine.drop_bucket(bucket)?;
        }
    }
    if ledger.engine.room() != Room::Everything {
        return Err(StoreError::Unavailable { reason: "there is no room on the disk for copies".to_owned() });
    }
    let mut all_verified = true;
    for closed in ledger.journal.closed() {
        let number = closed.bucket.number;
        if number < ledger.verified_before() {
            continue;
        }
        let is_empty = closed.first_leaf == closed.end_leaf;
        if look == Look::Short && ledger.copies.has(&closed) {
            all_verified = false;
        } else if !is_empty {
            ledger.copies.complete(&ledger.engine, closed, &ledger.is_closing)?;
        }
        ledger.copied(number + 1);
        if all_verified {
            ledger.verified(number + 1);
        }
    }
    Ok(())
}
