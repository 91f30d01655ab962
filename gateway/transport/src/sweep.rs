//! The rounds: once a second every open connection is looked at, and whoever must go is ended.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lianxin_types::Clock;

use crate::admission::Bounds;
use crate::line::Watched;
use crate::refusal::{HandshakeRefusal, RefusalObserver, RefusalReason};
use crate::server_tls::FederationSource;

/// Every connection that is open.
#[derive(Default)]
pub(crate) struct Lines(Mutex<Vec<Watched>>);

impl Lines {
    pub(crate) fn add(&self, watched: Watched) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(watched);
    }

    fn take(&self) -> Vec<Watched> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put_back(&self, mut kept: Vec<Watched>) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that came meanwhile go behind.
        kept.append(&mut lines);
        *lines = kept;
    }
}

/// Who makes the rounds, and by what.
pub(crate) struct Sweep {
    pub(crate) lines: Arc<Lines>,
    pub(crate) bounds: Bounds,
    pub(crate) federation: FederationSource,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) on_refusal: RefusalObserver,
}

const EVERY: Duration = Duration::from_secs(1);
/// A signature takes a tenth of a millisecond to verify: after so many, others have their turn.
const JUDGED_IN_ONE_GO: usize = 32;

impl Sweep {
    /// Makes rounds until it is dropped.
    pub(crate) async fn run(self) {
        let mut known = (self.federation)();
        loop {
            self.clock.sleep(EVERY).await;
            let federation = (self.federation)();
            let is_replaced = !Arc::ptr_eq(&known, &federation);
            known = federation;
            let mut kept = Vec::new();
            for (number, mut watched) in self.lines.take().into_iter().enumerate() {
                if is_replaced && number % JUDGED_IN_ONE_GO == JUDGED_IN_ONE_GO - 1 {
                    tokio::task::yield_now().await;
                }
                watched.judge(&known, is_replaced, &*self.clock);
                if !self.ends(&watched) {
                    kept.push(watched);
                }
            }
            self.lines.put_back(kept);
        }
    }

    /// Ends the connection if it is time; true if it is gone.
    fn ends(&self, watched: &Watched) -> bool {
        if watched.line.is_closed() {
            if let Some(reason) = watched.line.cause() {
                (self.on_refusal)(HandshakeRefusal { source: watched.source, reason: reason.clone() });
            }
            return true;
        }
        let doomed = watched.doom.as_ref().filter(|(_, moment)| self.clock.monotonic() >= *moment);
        let Some(reason) = doomed.map(|(reason, _)| reason.clone()).or_else(|| watched.line.due(&self.bounds)) else {
            return false;
        };
        tracing::debug!(%reason, "connection ended");
        watched.line.closing().cancel();
        if !matches!(reason, RefusalReason::Idle | RefusalReason::Old) {
            (self.on_refusal)(HandshakeRefusal { source: watched.source, reason });
        }
        true
    }
}
