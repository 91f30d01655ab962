//! What is measured, and the disk's own rate beside it.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use lianxin_types::{Clock as _, SystemClock};

/// What happened in one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    /// Sends acknowledged.
    pub(crate) acknowledged: u64,
    /// Messages read at all receivers together.
    pub(crate) delivered: u64,
    /// From the first send to the last delivery.
    pub(crate) duration: Duration,
}

/// One step and the disk's rate before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) in_flight: usize,
    pub(crate) syncs_per_second: f64,
    pub(crate) counted: Counted,
}

impl Step {
    fn rates(&self) -> (f64, f64) {
        let seconds = self.counted.duration.as_secs_f64();
        (self.counted.acknowledged as f64 / seconds, self.counted.delivered as f64 / seconds)
    }

    pub(crate) fn to_row(self) -> String {
        let (acknowledged, delivered) = self.rates();
        let ratio = acknowledged / self.syncs_per_second;
        let (flight, syncs) = (self.in_flight, self.syncs_per_second);
        format!("{flight:>9} {acknowledged:>12.0} {delivered:>14.0} {syncs:>14.0} {ratio:>22.2}")
    }

    pub(crate) fn to_json(self) -> String {
        let (acknowledged, delivered) = self.rates();
        serde_json::json!({
            "in_flight": self.in_flight,
            "acknowledged_per_second": acknowledged,
            "delivered_per_second": delivered,
            "fdatasync_per_second": self.syncs_per_second,
            "acknowledged_per_fdatasync": acknowledged / self.syncs_per_second,
        })
        .to_string()
    }
}

/// A file beside the zone's folder that is appended to and synced, 1 KiB at a time.
pub(crate) struct SyncProbe {
    file: File,
}

impl SyncProbe {
    pub(crate) fn new(folder: &Path) -> std::io::Result<Self> {
        Ok(Self { file: File::create(folder.join("sync-probe"))? })
    }

    /// Appends with `fdatasync` per second, one at a time, for about `duration`.
    pub(crate) fn rate(&self, duration: Duration) -> std::io::Result<f64> {
        let start = SystemClock.monotonic();
        let mut count = 0_u32;
        loop {
            (&self.file).write_all(&[0xA5; 1024])?;
            self.file.sync_data()?;
            count += 1;
            let passed = SystemClock.monotonic().since(start);
            if passed >= duration {
                return Ok(f64::from(count) / passed.as_secs_f64());
            }
        }
    }
}
