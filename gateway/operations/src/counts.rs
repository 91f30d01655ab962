//! Refusals before a caller is known, counted per source, reason and minute (PROTOCOL 8): an attacker who knocks a million
//! times gets a handful of records, and none of them is missing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use lianxin_audit::AuditEvent;
use lianxin_types::{Digest, Random, Timestamp, labelled_sha256};

/// Counters. A source is stored as a salted hash, the salt is drawn at start.
pub(crate) struct RefusalCounts {
    salt: [u8; 16],
    counts: Mutex<BTreeMap<Key, u64>>,
}

/// How much of the refusal counts to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
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
        Self { salt: random.array(), counts: Mutex::new(BTreeMap::new()) }
    }

    /// Counts one refusal; gives the record of it if it is the first of its kind in this minute.
    pub(crate) fn count(&self, source: IpAddr, reason: &'static str, now: Timestamp) -> Option<AuditEvent> {
        let minute = now.seconds() / 60;
        let mut source = labelled_sha256("lianxin/source/v1", &[&self.salt, source.to_string().as_bytes()]);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= KEYS_MAX && !counts.contains_key(&(minute, source, reason)) {
            source = Digest::ZERO;
        }
        let count = counts.entry((minute, source, reason)).or_insert(0);
        *count += 1;
        (*count == 1).then_some(AuditEvent::RefusedBeforeCaller { source, reason, minute, count: 1 })
    }

    /// Takes out what is over; gives a record for every count above the one that was recorded at once.
    pub(crate) fn take(&self, now: Timestamp, flush: Flush) -> Vec<AuditEvent> {
        let minute_now = now.seconds() / 60;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: Vec<Key> =
            counts.keys().filter(|(minute, ..)| flush == Flush::Everything || *minute < minute_now).copied().collect();
        let mut events = Vec::new();
        for key in taken {
            let (minute, source, reason) = key;
            if let Some(count) = counts.remove(&key).filter(|count| *count > 1) {
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

    #[test]
    fn the_first_is_recorded_at_once_and_the_rest_as_a_count() {
        let counts = RefusalCounts::new(&SystemRandom);
        let source = IpAddr::from([127, 0, 0, 1]);
        let now = Timestamp::from_seconds(600);
        let count_of = |event: AuditEvent| match event {
            AuditEvent::RefusedBeforeCaller { count, minute, .. } => (minute, count),
            other => panic!("{other:?}"),
        };
        assert_eq!(counts.count(source, "expired", now).map(count_of), Some((10, 1)));
        assert_eq!(counts.count(source, "expired", now), None);
        assert_eq!(counts.count(source, "revoked", now).map(count_of), Some((10, 1)));
        assert_eq!(counts.take(now, Flush::FinishedMinutes), vec![]);
        let later = Timestamp::from_seconds(660);
        let taken: Vec<_> = counts.take(later, Flush::FinishedMinutes).into_iter().map(count_of).collect();
        assert_eq!(taken, vec![(10, 2)]);
        assert_eq!(counts.take(later, Flush::Everything), vec![]);
    }

    #[test]
    fn a_flood_of_sources_has_a_bound() {
        let counts = RefusalCounts::new(&SystemRandom);
        for number in 0..10_000u32 {
            counts.count(IpAddr::from(number.to_be_bytes()), "unknown", Timestamp(0));
        }
        assert!(counts.counts.lock().expect("not poisoned").len() <= KEYS_MAX + 1);
    }
}
