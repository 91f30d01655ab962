//! Refusals before a caller is known, and refusals by rate, counted per source or device, reason and minute (PROTOCOL 8): an
//! attacker who knocks a million times gets a handful of records, and none of them is missing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use lianxin_audit::AuditEvent;
use lianxin_types::{DeviceUri, Digest, Random, Timestamp, labelled_sha256};
use tokio::sync::Notify;

/// Counters. A source is stored as a salted hash, the salt is drawn at start.
pub(crate) struct RefusalCounts {
    salt: [u8; 16],
    counts: Mutex<Counts>,
    wake: Notify,
}

#[derive(Default)]
struct Counts {
    minutes: BTreeMap<Key, u64>,
    /// The first of its kind in its minute, to be recorded at once. No longer than `minutes`.
    firsts: Vec<Counted>,
}

/// Who is refused.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Who<'a> {
    /// A network address or a certificate.
    Source(&'a [u8]),
    /// A device whose certificate holds.
    Caller(&'a DeviceUri),
}

/// A count to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counted {
    counter: Counter,
    reason: &'static str,
    minute: u64,
    count: u64,
}

impl Counted {
    /// What is recorded of it.
    pub(crate) const fn event(&self) -> AuditEvent {
        let Self { reason, minute, count, .. } = *self;
        match &self.counter {
            Counter::Source(source) => AuditEvent::RefusedBeforeCaller { source: *source, reason, minute, count },
            Counter::Device(_) => AuditEvent::CallsCounted { reason, minute, count },
        }
    }

    /// Whose record it is.
    pub(crate) fn caller(&self) -> Option<&DeviceUri> {
        match &self.counter {
            Counter::Device(device) => device.as_ref(),
            Counter::Source(_) => None,
        }
    }
}

/// How much of the refusal counts to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    /// Minutes that are over.
    FinishedMinutes,
    /// All that is counted.
    Everything,
}

type Key = (u64, Counter, &'static str);

/// Whom a count is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Counter {
    Source(Digest),
    /// `None` counts devices together.
    Device(Option<DeviceUri>),
}

impl Counter {
    /// Together with all others of its sort.
    fn together(&self) -> Self {
        match self {
            Self::Source(_) => Self::Source(Digest::ZERO),
            Self::Device(_) => Self::Device(None),
        }
    }
}

/// Different (minute, source or device, reason) that are told apart; beyond it they are counted together.
const KEYS_MAX: usize = 4_096;

impl RefusalCounts {
    pub(crate) fn new(random: &dyn Random) -> Self {
        Self { salt: random.array(), counts: Mutex::default(), wake: Notify::new() }
    }

    /// Counts one refusal. Never waits.
    pub(crate) fn count(&self, who: Who<'_>, reason: &'static str, now: Timestamp) {
        let minute = now.seconds() / 60;
        let counter = match who {
            Who::Source(source) => Counter::Source(labelled_sha256("lianxin/source/v1", &[&self.salt, source])),
            Who::Caller(device) => Counter::Device(Some(device.clone())),
        };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (minute, counter, reason);
        if counts.minutes.len() >= KEYS_MAX && !counts.minutes.contains_key(&key) {
            key.1 = key.1.together();
        }
        let first = Counted { counter: key.1.clone(), reason, minute, count: 1 };
        let count = counts.minutes.entry(key).or_insert(0);
        *count += 1;
        if *count == 1 {
            counts.firsts.push(first);
            self.wake.notify_one();
        }
    }

    /// Ready when something is to be recorded at once.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Takes out what is to be recorded: firsts, and a count for every minute that is over and had more than its first.
    pub(crate) fn take(&self, now: Timestamp, flush: Flush) -> Vec<Counted> {
        let minute_now = now.seconds() / 60;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: Vec<Key> = counts
            .minutes
            .keys()
            .filter(|(minute, ..)| flush == Flush::Everything || *minute < minute_now)
            .cloned()
            .collect();
        let mut events = std::mem::take(&mut counts.firsts);
        for key in taken {
            if let Some(count) = counts.minutes.remove(&key).filter(|count| *count > 1) {
                let (minute, counter, reason) = key;
                events.push(Counted { counter, reason, minute, count });
            }
        }
        events
    }

    /// Takes back what could not be recorded; [`RefusalCounts::take`] gives it out again. Beyond so many, sources and devices are
    /// not told apart any more, so none is lost.
    pub(crate) fn put_back(&self, mut counted: Counted) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.firsts.len() >= KEYS_MAX {
            counted.counter = counted.counter.together();
            let key = |one: &Counted| (one.minute, one.counter.clone(), one.reason);
            if let Some(kept) = counts.firsts.iter_mut().find(|kept| key(kept) == key(&counted)) {
                kept.count += counted.count;
                return;
            }
        }
        counts.firsts.push(counted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lianxin_types::SystemRandom;

    fn counted(events: Vec<Counted>) -> Vec<(&'static str, u64, u64)> {
        let figures = |counted: Counted| match counted.event() {
            AuditEvent::RefusedBeforeCaller { reason, minute, count, .. } => (reason, minute, count),
            other => panic!("{other:?}"),
        };
        events.into_iter().map(figures).collect()
    }

    #[test]
    fn the_first_is_recorded_at_once_and_the_rest_as_a_count() {
        let counts = RefusalCounts::new(&SystemRandom);
        let now = Timestamp::from_seconds(600);
        counts.count(Who::Source(b"here"), "expired", now);
        counts.count(Who::Source(b"here"), "expired", now);
        counts.count(Who::Source(b"here"), "revoked", now);
        assert_eq!(counted(counts.take(now, Flush::FinishedMinutes)), [("expired", 10, 1), ("revoked", 10, 1)]);
        counts.count(Who::Source(b"here"), "expired", now);
        assert_eq!(counted(counts.take(now, Flush::FinishedMinutes)), []);
        let later = Timestamp::from_seconds(660);
        assert_eq!(counted(counts.take(later, Flush::FinishedMinutes)), [("expired", 10, 3)]);
        assert_eq!(counted(counts.take(later, Flush::Everything)), []);
    }

    #[test]
    fn a_flood_of_sources_has_a_bound_and_loses_no_count() {
        let counts = RefusalCounts::new(&SystemRandom);
        for number in 0..10_000u32 {
            counts.count(Who::Source(&number.to_be_bytes()), "unknown", Timestamp(0));
        }
        let events = counted(counts.take(Timestamp(0), Flush::Everything));
        assert!(events.len() <= KEYS_MAX + 2, "{}", events.len());
        let merged = events.iter().map(|(_, _, count)| *count).max();
        assert_eq!(merged, Some(10_000 - KEYS_MAX as u64));
    }

    #[test]
    fn a_devices_count_is_a_record_of_that_device() {
        let counts = RefusalCounts::new(&SystemRandom);
        let device: DeviceUri = "lianxin://jiwei/app/a/1".parse().expect("well formed");
        counts.count(Who::Caller(&device), "often", Timestamp(0));
        counts.count(Who::Caller(&device), "often", Timestamp(0));
        let of = |count| AuditEvent::CallsCounted { reason: "often", minute: 0, count };
        let all = counts.take(Timestamp(0), Flush::Everything);
        assert_eq!(all.iter().map(Counted::event).collect::<Vec<_>>(), [of(1), of(2)]);
        assert!(all.iter().all(|counted| counted.caller() == Some(&device)));
    }

    #[test]
    fn more_devices_than_are_told_apart_are_counted_together() {
        let counts = RefusalCounts::new(&SystemRandom);
        for number in 0..KEYS_MAX + 10 {
            let device: DeviceUri = format!("lianxin://jiwei/app/a/{number}").parse().expect("well formed");
            counts.count(Who::Caller(&device), "often", Timestamp(0));
        }
        let all = counts.take(Timestamp(0), Flush::Everything);
        let together = all.iter().filter(|counted| counted.caller().is_none());
        let of = |count| AuditEvent::CallsCounted { reason: "often", minute: 0, count };
        assert_eq!(together.map(Counted::event).collect::<Vec<_>>(), [of(1), of(10)]);
    }

    #[test]
    fn what_could_not_be_recorded_is_given_out_again_and_none_is_lost() {
        let counts = RefusalCounts::new(&SystemRandom);
        let sources = KEYS_MAX as u64 + 100;
        let total = |events: &[(&'static str, u64, u64)]| events.iter().map(|(_, _, count)| *count).sum::<u64>();
        for minute in 0..2 {
            for number in 0..sources {
                counts.count(Who::Source(&number.to_be_bytes()), "unknown", Timestamp::from_seconds(60 * minute));
            }
            // The zone does not write: everything comes back, time and again.
            for _ in 0..3 {
                let taken = counts.take(Timestamp::from_seconds(60 * minute), Flush::FinishedMinutes);
                taken.into_iter().for_each(|counted| counts.put_back(counted));
            }
        }
        let all = counted(counts.take(Timestamp(0), Flush::Everything));
        // Everybody once, and in each minute the first of those who are counted together once more.
        assert_eq!(total(&all), 2 * (sources + 1));
        assert!(all.len() <= KEYS_MAX + 4, "{}", all.len());
    }
}
