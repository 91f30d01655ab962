//! How long commits take and how many units share one: figures for the operator, without ids.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often a value fell into which range since the zone was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// The largest value that each range holds, ascending.
    pub bounds: &'static [u64],
    /// How many values fell into each range, one more than there are bounds: the last one is for what is larger than all.
    pub counts: Vec<u64>,
    /// All values together.
    pub sum: u64,
}

/// What the committer has measured since the zone was opened. Batches that wrote nothing are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitFigures {
    /// From taking a batch to its being durable and readable, in microseconds.
    pub duration_micros: Distribution,
    /// Units accepted with one durability point.
    pub batch_units: Distribution,
}

/// From a fast disk's sync to one that hangs.
const DURATION_MICROS: &[u64] = &[
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];
/// Up to the most that a batch holds by default.
const BATCH_UNITS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024];

/// Where the committer's thread writes and anybody reads.
#[derive(Debug)]
pub(crate) struct CommitMeter {
    duration_micros: Meter,
    batch_units: Meter,
}

#[derive(Debug)]
struct Meter {
    bounds: &'static [u64],
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl CommitMeter {
    pub(crate) fn new() -> Self {
        Self { duration_micros: Meter::new(DURATION_MICROS), batch_units: Meter::new(BATCH_UNITS) }
    }

    /// One batch became durable.
    pub(crate) fn commit(&self, units: usize, duration: Duration) {
        self.duration_micros.observe(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        self.batch_units.observe(units as u64);
    }

    pub(crate) fn view(&self) -> CommitFigures {
        CommitFigures { duration_micros: self.duration_micros.view(), batch_units: self.batch_units.view() }
    }
}

impl Meter {
    fn new(bounds: &'static [u64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0) }
    }

    fn observe(&self, value: u64) {
        let range = self.bounds.partition_point(|bound| *bound < value);
        self.counts[range].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    fn view(&self) -> Distribution {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        Distribution { bounds: self.bounds, counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_range_whose_bound_it_does_not_exceed() {
        let meter = CommitMeter::new();
        for (units, micros) in [(1, 500), (2, 501), (3, 1_000), (1_024, 10_000_000), (1_025, 10_000_001)] {
            meter.commit(units, Duration::from_micros(micros));
        }
        let CommitFigures { duration_micros, batch_units } = meter.view();
        let hit = |view: &Distribution| -> Vec<(usize, u64)> {
            view.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0).collect()
        };
        assert_eq!(hit(&duration_micros), [(0, 1), (1, 2), (13, 1), (14, 1)]);
        assert_eq!(hit(&batch_units), [(0, 1), (1, 1), (2, 1), (10, 1), (11, 1)]);
        assert_eq!((duration_micros.sum, batch_units.sum), (20_002_002, 2_055));
    }
}
