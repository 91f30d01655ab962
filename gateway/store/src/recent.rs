//! Calls of the last hour in memory, so that a client that asks again after a lost answer does not cost a read of the disk
//! (PROTOCOL 7). What is not here is looked up in the state, which has them all.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lianxin_types::{Digest, Timestamp};

use crate::state::RememberedRow;

/// Calls are kept in memory for this long.
const KEPT: Duration = Duration::from_secs(3600);
/// Calls in memory at most, about 30 MB; under more than 18 a second for an hour it is less than an hour.
const CALLS_MAX: usize = 65_536;

/// What recent calls got, by the hash of their scope and id.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Calls>);

#[derive(Debug, Default)]
struct Calls {
    rows: HashMap<Digest, RememberedRow>,
    order: VecDeque<(Timestamp, Digest)>,
}

impl Recent {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a call got, if it was lately.
    pub(crate) fn find(&self, scope: &Digest) -> Option<RememberedRow> {
        self.calls().rows.get(scope).cloned()
    }

    /// Takes in what has become durable at `now`, and lets go of what is an hour old.
    pub(crate) fn add(&self, now: Timestamp, rows: Vec<(Digest, RememberedRow)>) {
        let mut calls = self.calls();
        for (scope, row) in rows {
            calls.rows.insert(scope, row);
            calls.order.push_back((now, scope));
        }
        let kept = u64::try_from(KEPT.as_micros()).expect("an hour is few microseconds");
        while let Some((time, scope)) = calls.order.front().copied() {
            // A clock that went back makes older ones look young: the count bounds them.
            if calls.order.len() <= CALLS_MAX && time.0.saturating_add(kept) >= now.0 {
                break;
            }
            calls.order.pop_front();
            calls.rows.remove(&scope);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::Accepted;
    use lianxin_types::Sequence;

    fn row(leaf_index: u64) -> RememberedRow {
        let accepted = Accepted {
            sequence: Sequence(0),
            chain_hash: Digest::ZERO,
            gateway_time: Timestamp(0),
            expiry: None,
            leaf_index,
            leaf_hash: Digest::ZERO,
            key_packages: Vec::new(),
            is_repeat: false,
        };
        RememberedRow { bytes_hash: Digest::ZERO, accepted, packages: 0 }
    }

    fn scope(number: u64) -> Digest {
        Digest::sha256(&number.to_be_bytes())
    }

    #[test]
    fn calls_are_kept_for_an_hour_and_never_too_many() {
        let recent = Recent::default();
        let hour = 3_600_000_000;
        recent.add(Timestamp(0), vec![(scope(1), row(1))]);
        recent.add(Timestamp(hour), vec![(scope(2), row(2))]);
        assert_eq!((recent.find(&scope(1)), recent.find(&scope(2))), (Some(row(1)), Some(row(2))));
        recent.add(Timestamp(hour + 1), Vec::new());
        assert_eq!((recent.find(&scope(1)), recent.find(&scope(2))), (None, Some(row(2))));
        // The clock goes back, and all come at once.
        let many = CALLS_MAX as u64 + 5;
        recent.add(Timestamp(0), (10..10 + many).map(|number| (scope(number), row(number))).collect());
        assert_eq!(recent.calls().rows.len(), CALLS_MAX);
        assert_eq!(recent.find(&scope(2)), None);
        assert_eq!(recent.find(&scope(9 + many)), Some(row(9 + many)));
    }
}
