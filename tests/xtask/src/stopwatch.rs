//! How long something took, on the project's one clock.

use std::time::Duration;

use lianxin_types::{Clock as _, Monotonic, SystemClock};

/// Runs from the moment it is made.
pub(crate) struct Stopwatch(Monotonic);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(SystemClock.monotonic())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        SystemClock.monotonic().since(self.0)
    }
}

/// `3m 07s`.
pub(crate) fn minutes(duration: Duration) -> String {
    format!("{}m {:02}s", duration.as_secs() / 60, duration.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_reads_as_minutes_and_seconds() {
        assert_eq!(minutes(Duration::from_secs(187)), "3m 07s");
    }
}
