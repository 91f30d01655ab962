//! What the gateway can take: bounds that an operator fits to the machine. The contract's own limits are not among them.

use std::ops::RangeInclusive;
use std::time::Duration;

use lianxin_store::ZoneOptions;
use lianxin_transport::Bounds;
use lianxin_types::Rate;
use serde::Deserialize;

use crate::descriptors::Descriptors;

/// The section `[strength]`; every key has a default, see `config.sample.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strength {
    /// Connections at the same time; `None` for as many as the system's limit of open files allows, at most 20,000.
    pub connections_max: Option<usize>,
    /// Connections of all devices of one department at the same time.
    pub department_connections_max: usize,
    /// New connections from one network address in one go.
    pub source_connections_burst: u32,
    /// New connections from one network address per second, after the burst.
    pub source_connections_per_second: u32,
    /// A connection without an open call is ended after so long.
    pub idle_duration_max: Duration,
    /// A connection is ended after so long at the latest.
    pub connection_duration_max: Duration,
    /// A call with one answer, its request's way included, is given up after so long.
    pub call_duration_max: Duration,
    /// A message that a client has begun to send must be there after so long.
    pub message_duration_max: Duration,
    /// A stream is ended when its client has taken nothing for so long.
    pub stall_duration_max: Duration,
    /// Units that may wait for the committer; one department has a quarter at most.
    pub queue_units_max: usize,
    /// Bytes of units that may wait for the committer; one department has a quarter at most.
    pub queue_bytes_max: usize,
}

/// As it stands in the file.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Section {
    connections_max: Option<usize>,
    department_connections_max: usize,
    source_connections_burst: u32,
    source_connections_per_second: u32,
    idle_seconds_max: u64,
    connection_seconds_max: u64,
    call_seconds_max: u64,
    message_seconds_max: u64,
    stall_seconds_max: u64,
    queue_units_max: usize,
    queue_mebibytes_max: usize,
}

impl Default for Section {
    fn default() -> Self {
        let (bounds, zone) = (Bounds::default(), ZoneOptions::default());
        Self {
            connections_max: None,
            department_connections_max: bounds.department_connections_max,
            source_connections_burst: bounds.source_connections.burst,
            source_connections_per_second: bounds.source_connections.per_second,
            idle_seconds_max: bounds.idle_duration_max.as_secs(),
            connection_seconds_max: bounds.connection_duration_max.as_secs(),
            call_seconds_max: 30,
            message_seconds_max: 20,
            stall_seconds_max: 120,
            queue_units_max: zone.queue_units_max,
            queue_mebibytes_max: zone.queue_bytes_max / MEBIBYTE,
        }
    }
}

const MEBIBYTE: usize = 1024 * 1024;
/// The least that leaves every department a unit of its own, and the most that a mistake in the unit does not exceed.
const QUEUE_UNITS: RangeInclusive<usize> = 8..=1_000_000;
/// The least that takes a full commit bundle beside others, and the most that a machine should hold in memory.
const QUEUE_MEBIBYTES: RangeInclusive<usize> = 8..=16 * 1024;
/// A longer time is a mistake in the unit.
const SECONDS_BOUND: u64 = 30 * 24 * 3600;

impl Section {
    /// The section's values.
    ///
    /// # Errors
    /// The key, and what is wrong with its value.
    pub(crate) fn check(self) -> Result<Strength, (&'static str, String)> {
        let counts = [
            ("strength.connections_max", self.connections_max.unwrap_or(usize::MAX)),
            ("strength.department_connections_max", self.department_connections_max),
            ("strength.source_connections_burst", self.source_connections_burst as usize),
            ("strength.source_connections_per_second", self.source_connections_per_second as usize),
        ];
        if let Some((key, _)) = counts.into_iter().find(|(_, value)| *value == 0) {
            return Err((key, "at least 1".into()));
        }
        let ranges = [
            ("strength.queue_units_max", self.queue_units_max, QUEUE_UNITS),
            ("strength.queue_mebibytes_max", self.queue_mebibytes_max, QUEUE_MEBIBYTES),
        ];
        if let Some((key, _, range)) = ranges.into_iter().find(|(_, value, range)| !range.contains(value)) {
            return Err((key, format!("{} to {}", range.start(), range.end())));
        }
        let seconds = |key, value: u64| {
            if (1..=SECONDS_BOUND).contains(&value) {
                Ok(Duration::from_secs(value))
            } else {
                Err((key, format!("1 to {SECONDS_BOUND}")))
            }
        };
        Ok(Strength {
            connections_max: self.connections_max,
            department_connections_max: self.department_connections_max,
            source_connections_burst: self.source_connections_burst,
            source_connections_per_second: self.source_connections_per_second,
            idle_duration_max: seconds("strength.idle_seconds_max", self.idle_seconds_max)?,
            connection_duration_max: seconds("strength.connection_seconds_max", self.connection_seconds_max)?,
            call_duration_max: seconds("strength.call_seconds_max", self.call_seconds_max)?,
            message_duration_max: seconds("strength.message_seconds_max", self.message_seconds_max)?,
            stall_duration_max: seconds("strength.stall_seconds_max", self.stall_seconds_max)?,
            queue_units_max: self.queue_units_max,
            queue_bytes_max: self.queue_mebibytes_max * MEBIBYTE,
        })
    }
}

impl Strength {
    /// The store's bounds.
    pub(crate) fn zone_options(&self) -> ZoneOptions {
        let Self { queue_units_max, queue_bytes_max, .. } = *self;
        ZoneOptions { queue_units_max, queue_bytes_max, ..ZoneOptions::default() }
    }

    /// The listener's bounds, with as many connections as there are descriptors for.
    pub(crate) fn bounds(&self, descriptors: &Descriptors) -> Bounds {
        Bounds {
            connections_max: usize::try_from(descriptors.connections_max).unwrap_or(usize::MAX),
            department_connections_max: self.department_connections_max,
            source_connections: Rate {
                burst: self.source_connections_burst,
                per_second: self.source_connections_per_second,
            },
            idle_duration_max: self.idle_duration_max,
            connection_duration_max: self.connection_duration_max,
            ..Bounds::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_let_nobody_in_or_never_end_is_refused() {
        let key = |section: Section| section.check().expect_err("refused").0;
        let good = Section::default();
        assert_eq!(key(Section { connections_max: Some(0), ..good }), "strength.connections_max");
        assert_eq!(key(Section { source_connections_per_second: 0, ..good }), "strength.source_connections_per_second");
        assert_eq!(key(Section { queue_units_max: 7, ..good }), "strength.queue_units_max");
        assert_eq!(key(Section { queue_mebibytes_max: 7, ..good }), "strength.queue_mebibytes_max");
        assert_eq!(key(Section { idle_seconds_max: 0, ..good }), "strength.idle_seconds_max");
        assert_eq!(key(Section { call_seconds_max: SECONDS_BOUND + 1, ..good }), "strength.call_seconds_max");
        assert_eq!(key(Section { message_seconds_max: 0, ..good }), "strength.message_seconds_max");
        let strength = good.check().expect("the defaults are good");
        let connections_max = Bounds::default().connections_max as u64;
        let descriptors = Descriptors { connections_max, store: 0, others: 0, allowed: connections_max };
        assert_eq!(strength.bounds(&descriptors), Bounds::default(), "the listener's own defaults");
        assert_eq!(strength.zone_options(), ZoneOptions::default(), "the store's own defaults");
    }
}
