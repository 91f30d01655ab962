//! Refusals before a caller is known, counted per source, reason and minute (PROTOCOL 8): an attacker who knocks a million
//! times gets a handful of records, and none of them is missing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use lianxin_audit::AuditEvent;
use lianxin_types::{Digest, Random, Timestamp, labelled_sha256};
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
    firsts: Vec<AuditEvent>,
}

/// How much of the refusal counts to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    /// Minutes that are over.
    FinishedMinutes,
    /// All that is counted.
    Everything,
}

type Key = (u64, Digest, &'static str);

/// Different (minute, source, reason) that are told apart; beyond it sources are counted together.
const KEYS_MAX: usize = 4_096;

impl RefusalCounts {
    pub(crate) fn new(random: &dyn Random) -> Self {
        Self { salt: random.array(), counts: Mutex::default(), wake: Notify::new() }
    }

    /// Counts one refusal of whoever `source` names: a network address, a certificate, an identity. Never waits.
    pub(crate) fn count(&self, source: &[u8], reason: &'static str, now: Timestamp) {
        let minute = now.seconds() / 60;
        let mut source = labelled_sha256("lianxin/source/v1", &[&self.salt, source]);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.minutes.len() >= KEYS_MAX && !counts.minutes.contains_key(&(minute, source, reason)) {
            source = Digest::ZERO;
        }
        let count = counts.minutes.entry((minute, source, reason)).or_insert(0);
        *count += 1;
        if *count == 1 {
            counts.firsts.push(AuditEvent::RefusedBeforeCaller { source, reason, minute, count: 1 });
            self.wake.notify_one();
        }
    }

    /// Ready when something is to be recorded at once.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Takes out what is to be recorded: firsts, and a count for every minute that is over and had more than its first.
    pub(crate) fn take(&self, now: Timestamp, flush: Flush) -> Vec<AuditEvent> {
        let minute_now = now.seconds() / 60;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: Vec<Key> = counts
            .minutes
            .keys()
            .filter(|(minute, ..)| flush == Flush::Everything || *minute < minute_now)
            .copied()
            .collect();
        let mut events = std::mem::take(&mut counts.firsts);
        for key in taken {
            let (minute, source, reason) = key;
            if let Some(count) = counts.minutes.remove(&key).filter(|count| *count > 1) {
                events.push(AuditEvent::RefusedBeforeCaller { source, reason, minute, count });
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lianxin_types::SystemRandom;

    fn counted(events: Vec<AuditEvent>) -> Vec<(&'static str, u64, u64)> {
        let figures = |event| match event {
            AuditEvent::RefusedBeforeCaller { reason, minute, count, .. } => (reason, minute, count),
            other => panic!("{other:?}"),
        };
        events.into_iter().map(figures).collect()
    }

    #[test]
    fn the_first_is_recorded_at_once_and_the_rest_as_a_count() {
        let counts = RefusalCounts::new(&SystemRandom);
        let now = Timestamp::from_seconds(600);
        counts.count(b"here", "expired", now);
        counts.count(b"here", "expired", now);
        counts.count(b"here", "revoked", now);
        assert_eq!(counted(counts.take(now, Flush::FinishedMinutes)), [("expired", 10, 1), ("revoked", 10, 1)]);
        counts.count(b"here", "expired", now);
        assert_eq!(counted(counts.take(now, Flush::FinishedMinutes)), []);
        let later = Timestamp::from_seconds(660);
        assert_eq!(counted(counts.take(later, Flush::FinishedMinutes)), [("expired", 10, 3)]);
        assert_eq!(counted(counts.take(later, Flush::Everything)), []);
    }

    #[test]
    fn a_flood_of_sources_has_a_bound_and_loses_no_count() {
        let counts = RefusalCounts::new(&SystemRandom);
        for number in 0..10_000u32 {
            counts.count(&number.to_be_bytes(), "unknown", Timestamp(0));
        }
        let events = counted(counts.take(Timestamp(0), Flush::Everything));
        assert!(events.len() <= KEYS_MAX + 2, "{}", events.len());
        let merged = events.iter().map(|(_, _, count)| *count).max();
        assert_eq!(merged, Some(10_000 - KEYS_MAX as u64));
    }
}
