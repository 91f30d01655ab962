//! One open connection as those see it who may end it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lianxin_trust::Federation;
use lianxin_types::{Clock, DeviceUri, Digest, Monotonic, Rate, Throttle, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::admission::Bounds;
use crate::refusal::RefusalReason;

/// One open connection. Cheap to clone; it keeps nothing open.
#[derive(Clone)]
pub struct Line(Arc<Inner>);

struct Inner {
    closing: CancellationToken,
    /// Set before `closing` where the reason is to be reported.
    cause: OnceLock<RefusalReason>,
    clock: Arc<dyn Clock>,
    /// Calls that have not ended, streams among them.
    open: AtomicUsize,
    /// Calls that wait for the beginning of their answer.
    unanswered: AtomicUsize,
    /// When the last call ended, or the connection came.
    quiet_since: AtomicU64,
    resets: Throttle,
    ages_at: Monotonic,
}

/// Calls that a client may give up before their answer begins, in one go and every second after. Beyond it, it does nothing
/// but make us work (CVE-2023-44487).
const RESETS: Rate = Rate { burst: 64, per_second: 1 };

impl Line {
    /// `device` decides the share of `connection_duration_max` by which the end is moved, so that connections that came
    /// together do not go together.
    pub(crate) fn new(device: &DeviceUri, bounds: &Bounds, clock: Arc<dyn Clock>) -> Self {
        let now = clock.monotonic();
        let Digest(hash) = Digest::sha256(device.as_str().as_bytes());
        let tenth = bounds.connection_duration_max / 10;
        let age = bounds.connection_duration_max - tenth * u32::from(hash[0]) / u32::from(u8::MAX);
        Self(Arc::new(Inner {
            closing: CancellationToken::new(),
            cause: OnceLock::new(),
            clock,
            open: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
            quiet_since: AtomicU64::new(now.0),
            resets: Throttle::new(RESETS),
            ages_at: now.plus(age),
        }))
    }

    /// Ends the connection when cancelled: nothing more is read or written. Cancelled when the connection has ended.
    pub fn closing(&self) -> &CancellationToken {
        &self.0.closing
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.closing.is_cancelled()
    }

    /// What it was closed for, where somebody is to be told.
    pub(crate) fn cause(&self) -> Option<&RefusalReason> {
        self.0.cause.get()
    }

    pub(crate) fn call_begins(&self) -> OpenCall {
        self.0.open.fetch_add(1, Ordering::AcqRel);
        self.0.unanswered.fetch_add(1, Ordering::AcqRel);
        OpenCall { line: self.clone(), is_answered: false }
    }

    /// What the connection is to be ended for at this moment, if anything.
    pub(crate) fn due(&self, bounds: &Bounds) -> Option<RefusalReason> {
        let now = self.0.clock.monotonic();
        if self.0.open.load(Ordering::Acquire) == 0 {
            let quiet = now.since(Monotonic(self.0.quiet_since.load(Ordering::Acquire)));
            if quiet >= bounds.idle_duration_max {
                return Some(RefusalReason::Idle);
            }
        }
        let is_old = now >= self.0.ages_at;
        let may_go = self.0.unanswered.load(Ordering::Acquire) == 0 || now >= self.0.ages_at.plus(AGE_GRACE);
        (is_old && may_go).then_some(RefusalReason::Old)
    }
}

/// An old connection waits so long for a moment in which no call waits for its answer.
const AGE_GRACE: Duration = Duration::from_secs(60);

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("open", &self.0.open).field("is_closed", &self.is_closed()).finish_non_exhaustive()
    }
}

/// One call of a connection, until it is dropped.
pub(crate) struct OpenCall {
    line: Line,
    is_answered: bool,
}

impl OpenCall {
    /// Its answer begins; a stream stays open behind it.
    pub(crate) fn answered(&mut self) {
        if !std::mem::replace(&mut self.is_answered, true) {
            self.line.0.unanswered.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let inner = &self.line.0;
        let now = inner.clock.monotonic();
        if !self.is_answered {
            inner.unanswered.fetch_sub(1, Ordering::AcqRel);
            if !inner.resets.take(now) {
                // The first one counts.
                let _already_set = inner.cause.set(RefusalReason::ResetFlood);
                inner.closing.cancel();
            }
        }
        inner.quiet_since.store(now.0, Ordering::Release);
        inner.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A line with what it takes to judge it again.
pub(crate) struct Watched {
    pub(crate) line: Line,
    pub(crate) chain: Arc<Vec<Vec<u8>>>,
    pub(crate) source: std::net::IpAddr,
    pub(crate) ends: Timestamp,
    /// Why it must go, and when.
    pub(crate) doom: Option<(RefusalReason, Monotonic)>,
}

impl Watched {
    /// Judges the certificate again, by time and, if it `is_replaced`, by the federation.
    pub(crate) fn judge(&mut self, federation: &Federation, is_replaced: bool, clock: &dyn Clock) {
        if self.doom.is_some() || !(is_replaced || clock.now() > self.ends) {
            return;
        }
        let chain: Vec<&[u8]> = self.chain.iter().map(Vec::as_slice).collect();
        if let Err(error) = federation.identify(&chain, lianxin_trust::Usage::TlsClient, clock.now()) {
            // Its streams judge themselves, and must have the time to say so.
            self.doom = Some((RefusalReason::Certificate(error), clock.monotonic().plus(LAST_WORDS)));
        }
    }
}

/// How long the streams of a connection have to tell their client why it is ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use lianxin_types::SystemClock;

    use super::*;

    fn line() -> Line {
        let device = "lianxin://jiwei/app/a/1".parse().expect("well formed");
        Line::new(&device, &Bounds::default(), Arc::new(SystemClock))
    }

    #[test]
    fn a_client_that_gives_up_calls_one_after_another_loses_its_connection() {
        let patient = line();
        for _ in 0..1_000 {
            let mut call = patient.call_begins();
            call.answered();
        }
        assert!(!patient.is_closed(), "a call that has its answer is not given up");
        let flooding = line();
        let given_up = (0..1_000).take_while(|_| !flooding.is_closed()).map(|_| drop(flooding.call_begins())).count();
        assert!((65..=100).contains(&given_up), "{given_up}");
        assert_eq!(flooding.cause(), Some(&RefusalReason::ResetFlood));
    }

    #[test]
    fn a_connection_is_idle_while_no_call_is_open_and_old_while_none_waits() {
        let bounds = |idle, age| Bounds {
            idle_duration_max: Duration::from_secs(idle),
            connection_duration_max: Duration::from_secs(age),
            ..Bounds::default()
        };
        let device = "lianxin://jiwei/app/a/1".parse().expect("well formed");
        let line = |bounds: &Bounds| Line::new(&device, bounds, Arc::new(SystemClock));
        let idle = bounds(0, 3_600);
        let quiet = line(&idle);
        assert_eq!(quiet.due(&idle), Some(RefusalReason::Idle));
        let mut stream = quiet.call_begins();
        stream.answered();
        assert_eq!(quiet.due(&idle), None, "a stream is open");
        drop(stream);
        assert_eq!(quiet.due(&idle), Some(RefusalReason::Idle));

        let old = bounds(3_600, 0);
        let aged = line(&old);
        let mut call = aged.call_begins();
        assert_eq!(aged.due(&old), None, "a call waits for its answer");
        call.answered();
        assert_eq!(aged.due(&old), Some(RefusalReason::Old));
        assert_eq!(line(&bounds(3_600, 3_600)).due(&bounds(3_600, 3_600)), None);
    }
}
