//! How often something may happen: a burst, then so many per second.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Monotonic;

/// A burst, and how fast it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// So many in one go.
    pub burst: u32,
    /// So many more each second; at least 1.
    pub per_second: u32,
}

impl Rate {
    /// Microseconds that one takes to come back.
    fn interval(self) -> u64 {
        1_000_000 / u64::from(self.per_second.max(1))
    }

    fn tolerance(self) -> u64 {
        self.interval() * u64::from(self.burst.max(1))
    }
}

/// One thing's count. Holds a single moment: the one at which everything taken will have come back.
#[derive(Debug)]
pub struct Throttle {
    rate: Rate,
    whole_again: AtomicU64,
}

impl Throttle {
    /// A whole burst.
    pub fn new(rate: Rate) -> Self {
        Self { rate, whole_again: AtomicU64::new(0) }
    }

    /// Takes one; false if there is none.
    pub fn take(&self, now: Monotonic) -> bool {
        self.reserve(now, Duration::ZERO).is_some()
    }

    /// Takes one that comes within `wait_max`, and says how long to wait for it; `None`, and nothing taken, if that is too
    /// long.
    pub fn reserve(&self, now: Monotonic, wait_max: Duration) -> Option<Duration> {
        let wait = |next: u64| Monotonic(next).since(Monotonic(now.0 + self.rate.tolerance()));
        let step = |whole_again: u64| {
            let next = whole_again.max(now.0) + self.rate.interval();
            (wait(next) <= wait_max).then_some(next)
        };
        let before = self.whole_again.fetch_update(Ordering::AcqRel, Ordering::Acquire, step).ok()?;
        Some(wait(before.max(now.0) + self.rate.interval()))
    }

    fn is_whole(&self, now: Monotonic) -> bool {
        self.whole_again.load(Ordering::Acquire) <= now.0
    }
}

/// A count for each key. Keys whose count is whole are forgotten; at most 4,096 are told apart, and beyond it new ones
/// share one count.
#[derive(Debug)]
pub struct Throttles<K> {
    rate: Rate,
    keys: Mutex<Keys<K>>,
    others: Throttle,
}

#[derive(Debug)]
struct Keys<K> {
    throttles: HashMap<K, Throttle>,
    /// When whole counts may be looked for again: to look for them at each new key would make a flood dear for us.
    look_at: Monotonic,
}

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Keys that are told apart at one moment.
const KEYS_MAX: usize = 4_096;

impl<K: Hash + Eq> Throttles<K> {
    /// A whole burst for every key.
    pub fn new(rate: Rate) -> Self {
        let keys = Keys { throttles: HashMap::new(), look_at: Monotonic(0) };
        Self { rate, keys: Mutex::new(keys), others: Throttle::new(rate) }
    }

    /// Takes one of `key`'s; false if there is none.
    pub fn take(&self, key: K, now: Monotonic) -> bool {
        self.reserve(key, now, Duration::ZERO).is_some()
    }

    /// As [`Throttle::reserve`].
    pub fn reserve(&self, key: K, now: Monotonic, wait_max: Duration) -> Option<Duration> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(throttle) = keys.throttles.get(&key) {
            return throttle.reserve(now, wait_max);
        }
        if keys.throttles.len() >= KEYS_MAX && now >= keys.look_at {
            keys.throttles.retain(|_, throttle| !throttle.is_whole(now));
            keys.look_at = now.plus(LOOK_EVERY);
        }
        if keys.throttles.len() >= KEYS_MAX {
            return self.others.reserve(now, wait_max);
        }
        keys.throttles.entry(key).or_insert_with(|| Throttle::new(self.rate)).reserve(now, wait_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 3, per_second: 10 };

    fn taken(throttles: &Throttles<u32>, key: u32, now: u64) -> usize {
        (0..100).take_while(|_| throttles.take(key, Monotonic(now))).count()
    }

    #[test]
    fn a_burst_then_so_many_per_second_for_each() {
        let throttles = Throttles::new(RATE);
        assert_eq!(taken(&throttles, 1, 5_000_000), 3);
        assert_eq!(taken(&throttles, 2, 5_000_000), 3, "another key has its own");
        assert_eq!(taken(&throttles, 1, 5_099_999), 0);
        assert_eq!(taken(&throttles, 1, 5_100_000), 1);
        assert_eq!(taken(&throttles, 1, 9_000_000), 3, "no more than a burst comes back");
    }

    #[test]
    fn who_waits_gets_its_turn_and_nobody_waits_longer_than_it_would() {
        let throttle = Throttle::new(Rate { burst: 1, per_second: 10 });
        let reserve =
            |now, wait| throttle.reserve(Monotonic(now), Duration::from_millis(wait)).map(|wait| wait.as_millis());
        assert_eq!(reserve(0, 250), Some(0));
        assert_eq!(reserve(0, 250), Some(100));
        assert_eq!(reserve(0, 250), Some(200));
        assert_eq!(reserve(0, 250), None, "300 ms are too long, and nothing is taken for it");
        assert_eq!(reserve(100_000, 250), Some(200));
    }

    #[test]
    fn a_flood_of_keys_has_a_bound_and_its_keys_are_forgotten() {
        let throttles = Throttles::new(RATE);
        let through = (0..100_000).filter(|key| throttles.take(*key, Monotonic(0))).count();
        assert_eq!(through, KEYS_MAX + 3, "one for each that is told apart, and a burst for the rest");
        assert!(throttles.take(200_000, Monotonic(10_000_000)));
        assert_eq!(throttles.keys.lock().expect("not poisoned").throttles.len(), 1);
    }
}
