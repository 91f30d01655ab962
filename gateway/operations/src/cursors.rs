//! How far a device has confirmed to have read, until that is written: a hint that saves a second delivery, so it is written
//! lazily (PROTOCOL 6).

use std::collections::BTreeMap;
use std::time::Duration;

use lianxin_types::{ChannelId, Monotonic, Sequence};

/// Longest time that a cursor is not written.
const MERGE_EVERY: Duration = Duration::from_secs(5);

/// What one stream has confirmed and nobody has written.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    furthest: BTreeMap<ChannelId, Sequence>,
    due: Option<Monotonic>,
}

impl Cursors {
    /// Keeps the furthest place of each channel.
    pub(crate) fn note(&mut self, channel: ChannelId, sequence: Sequence, now: Monotonic) {
        let furthest = self.furthest.entry(channel).or_default();
        *furthest = sequence.max(*furthest);
        self.due.get_or_insert(now.plus(MERGE_EVERY));
    }

    /// When it is to be written; `None` if there is nothing.
    pub(crate) const fn due(&self) -> Option<Monotonic> {
        self.due
    }

    /// Takes out what is to be written.
    pub(crate) fn take(&mut self) -> BTreeMap<ChannelId, Sequence> {
        self.due = None;
        std::mem::take(&mut self.furthest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_confirmations_are_one_write_five_seconds_after_the_first() {
        let mut cursors = Cursors::default();
        let at = |milliseconds| Monotonic(0).plus(Duration::from_millis(milliseconds));
        assert_eq!(cursors.due(), None);
        let channels = [ChannelId([1; 16]), ChannelId([2; 16])];
        for number in 0..1_000 {
            cursors.note(channels[number % 2], Sequence(number as u64), at(number as u64));
        }
        cursors.note(channels[0], Sequence(3), at(1_000));
        assert_eq!(cursors.due(), Some(at(5_000)));
        let expect = [(channels[0], Sequence(998)), (channels[1], Sequence(999))];
        assert_eq!(cursors.take(), BTreeMap::from(expect));
        assert_eq!((cursors.due(), cursors.take()), (None, BTreeMap::new()));
        cursors.note(channels[0], Sequence(1), at(9_000));
        assert_eq!(cursors.due(), Some(at(14_000)));
    }
}
