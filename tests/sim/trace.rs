//! What happened in a simulation and when, to be printed if it fails.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::timeline::Timeline;

/// Cheap to clone; all clones are the same.
#[derive(Clone)]
pub(crate) struct Trace {
    timeline: Arc<Timeline>,
    lines: Arc<Mutex<Vec<String>>>,
    faults: Arc<AtomicUsize>,
}

impl Trace {
    pub(crate) fn new(timeline: &Arc<Timeline>) -> Self {
        Self { timeline: Arc::clone(timeline), lines: Arc::default(), faults: Arc::default() }
    }

    pub(crate) fn note(&self, what: fmt::Arguments<'_>) {
        let line = format!("{:>12.6} {what}", self.timeline.now() as f64 / 1e6);
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// Something was done to the simulated that must not do harm.
    pub(crate) fn fault(&self, what: fmt::Arguments<'_>) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        self.note(what);
    }

    pub(crate) fn faults(&self) -> usize {
        self.faults.load(Ordering::Relaxed)
    }

    pub(crate) fn text(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}
