//! The one file that may ask the system what time it is (clippy refuses it everywhere else).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// Wall time in microseconds since 1970-01-01T00:00:00Z; fits JSON's 2^53 until the year 2255.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// `seconds` since the epoch.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn seconds(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Whole hours since the epoch, rounded down: the coarse time of an audit leaf.
    pub const fn hour(self) -> u64 {
        self.seconds() / 3600
    }

    /// This moment `later`, saturating.
    pub const fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later.as_micros() as u64))
    }

    /// This moment `earlier`, saturating at the epoch.
    pub const fn minus(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(earlier.as_micros() as u64))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}us", self.0)
    }
}

/// A point on a clock that never goes back, in microseconds since an arbitrary start of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Monotonic(pub u64);

impl Monotonic {
    /// This point `later`, saturating.
    pub const fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later.as_micros() as u64))
    }

    /// Time since `earlier`; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Time as everything above the ground floor sees it. A simulation brings its own.
pub trait Clock: Send + Sync + 'static {
    /// Wall time. May jump either way.
    fn now(&self) -> Timestamp;
    /// Time that never goes back.
    fn monotonic(&self) -> Monotonic;
    /// Ready once `monotonic()` has reached `deadline`.
    fn sleep_until(&self, deadline: Monotonic) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Whether time goes on only when everything waits for it, as in a simulation. See [`crate::elsewhere`].
    fn is_simulated(&self) -> bool {
        false
    }

    /// Ready after `duration`.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.sleep_until(self.monotonic().plus(duration))
    }
}

/// The system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[expect(clippy::disallowed_methods, reason = "this is the file that the ban points to")]
fn process_start() -> std::time::Instant {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    *START.get_or_init(std::time::Instant::now)
}

#[expect(clippy::disallowed_methods, reason = "this is the file that the ban points to")]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(since_epoch.as_micros() as u64)
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(process_start().elapsed().as_micros() as u64)
    }

    fn sleep_until(&self, deadline: Monotonic) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let until = process_start() + Duration::from_micros(deadline.0);
        Box::pin(tokio::time::sleep_until(until.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp(5).minus(Duration::from_secs(1)), Timestamp(0));
        assert_eq!(Timestamp(u64::MAX).plus(Duration::from_secs(1)), Timestamp(u64::MAX));
        assert_eq!(Timestamp::from_seconds(7_201).hour(), 2);
        assert_eq!(Monotonic(1).since(Monotonic(5)), Duration::ZERO);
    }

    #[tokio::test]
    async fn the_system_clock_sleeps_until_its_own_monotonic_time() {
        let clock = SystemClock;
        let deadline = clock.monotonic().plus(Duration::from_millis(5));
        clock.sleep_until(deadline).await;
        assert!(clock.monotonic() >= deadline);
    }
}
