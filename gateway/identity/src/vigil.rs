//! A caller with a stream open is judged again when time or the federation moves, not only when it says something.

use std::sync::Arc;
use std::time::Duration;

use lianxin_trust::CertificateError;
use tokio::sync::watch;

use crate::callers::{Caller, Callers};

/// Watches over the caller of one stream.
pub struct Vigil {
    callers: Arc<Callers>,
    caller: Caller,
    replaced: watch::Receiver<()>,
    /// Generation of the federation by which the caller was last identified.
    seen: u64,
}

/// The federation was replaced, and the caller still is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmed;

/// Longest sleep towards the end of a certificate: wall time may jump, and the sleep goes by another clock.
const LOOK_EVERY: Duration = Duration::from_secs(60);

impl Vigil {
    pub(crate) fn new(callers: Arc<Callers>, caller: Caller, replaced: watch::Receiver<()>) -> Self {
        let seen = caller.generation;
        Self { callers, caller, replaced, seen }
    }

    /// The caller.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether the caller still is one, at this moment. Costs two comparisons unless the federation was replaced.
    ///
    /// # Errors
    /// [`CertificateError`] if the chain does not verify any more.
    pub fn check(&mut self) -> Result<(), CertificateError> {
        self.callers.check(&self.caller, &mut self.seen)
    }

    /// Waits until the federation has been replaced since the caller was last identified by [`Vigil::judged`], or its
    /// certificate ends. Cancel-safe.
    ///
    /// # Errors
    /// [`CertificateError`] if the chain does not verify any more.
    pub async fn judged(&mut self) -> Result<Confirmed, CertificateError> {
        loop {
            // Marked before it is judged: a federation that comes meanwhile wakes once more.
            let is_replaced = self.replaced.has_changed().unwrap_or(false) || self.seen != self.callers.generation();
            self.replaced.mark_unchanged();
            self.check()?;
            if is_replaced {
                return Ok(Confirmed);
            }
            let left = self.caller.ends.0.saturating_sub(self.callers.clock.now().0);
            let nap = self.callers.clock.sleep(Duration::from_micros(left).min(LOOK_EVERY));
            tokio::select! {
                biased;
                // The sender lives as long as the callers do.
                _changed = self.replaced.changed() => self.replaced.mark_changed(),
                () = nap => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
