//! Everything that is left to chance follows the seed: each who draws has a stream of its own, so that one who draws more does not
//! change what the others get.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lianxin_types::{Digest, Random};
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};

/// A stream of draws.
pub(crate) struct Chance(Mutex<StdRng>);

impl Chance {
    /// The stream of `who` in the simulation of `seed`.
    pub(crate) fn new(seed: u64, who: &str) -> Self {
        let named = [&seed.to_be_bytes(), who.as_bytes()].concat();
        Self(Mutex::new(StdRng::from_seed(Digest::sha256(&named).0)))
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether it comes to pass, `per_mille` times in a thousand.
    pub(crate) fn happens(&self, per_mille: u32) -> bool {
        self.draw(|random| random.random_range(0..1000) < per_mille)
    }

    pub(crate) fn below(&self, end: usize) -> usize {
        self.draw(|random| random.random_range(0..end))
    }

    pub(crate) fn between(&self, range: Range<i64>) -> i64 {
        self.draw(|random| random.random_range(range))
    }

    pub(crate) fn millis(&self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.draw(|random| random.random_range(range)))
    }

    /// One of them.
    pub(crate) fn pick<'a, T>(&self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

impl Random for Chance {
    fn fill(&self, bytes: &mut [u8]) {
        self.draw(|random| random.fill_bytes(bytes));
    }
}
