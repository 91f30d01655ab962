//! Values that were read from the MLS rows and are in memory still: reading a group anew for each event is a third of what
//! an event costs.

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;

use zeroize::Zeroizing;

/// Values kept at once; the one that nobody took for longest goes first.
const KEPT_MAX: usize = 16;

/// The key of the rows that a value mirrors: table, and the key as it is encoded.
type Key = (&'static str, Zeroizing<Vec<u8>>);

/// What memory has of the MLS rows. It never says anything else than the rows: a value goes when a row under its key is
/// written or deleted, and all go when a transaction is not committed.
#[derive(Default)]
pub(crate) struct Kept {
    values: RefCell<VecDeque<(Key, Box<dyn Any + Send>)>>,
}

impl Kept {
    /// Takes the value under the key out, if there is one of this type.
    pub(crate) fn take<V: Any>(&self, table: &'static str, key: &[u8]) -> Option<V> {
        self.remove(table, key)?.downcast().ok().map(|value| *value)
    }

    /// Keeps `value`, which says what the rows under the key say now.
    pub(crate) fn put<V: Any + Send>(&self, table: &'static str, key: Vec<u8>, value: V) {
        self.remove(table, &key);
        let mut values = self.values.borrow_mut();
        if values.len() == KEPT_MAX {
            values.pop_front();
        }
        values.push_back(((table, Zeroizing::new(key)), Box::new(value)));
    }

    /// A row under the key has changed.
    pub(crate) fn forget(&self, table: &'static str, key: &[u8]) {
        self.remove(table, key);
    }

    /// What a transaction changed is not on disk, and what it kept may mirror that.
    pub(crate) fn clear(&self) {
        self.values.borrow_mut().clear();
    }

    fn remove(&self, table: &'static str, key: &[u8]) -> Option<Box<dyn Any + Send>> {
        let mut values = self.values.borrow_mut();
        let found = values.iter().position(|((other, bytes), _)| *other == table && ***bytes == *key)?;
        values.remove(found).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_given_back_once_and_only_under_its_key_and_type() {
        let kept = Kept::default();
        kept.put("mls", vec![1], 7_u32);
        assert_eq!(kept.take::<u32>("mls-second", &[1]), None);
        assert_eq!(kept.take::<u32>("mls", &[2]), None);
        assert_eq!(kept.take::<u32>("mls", &[1]), Some(7));
        assert_eq!(kept.take::<u32>("mls", &[1]), None);
        kept.put("mls", vec![1], 8_u32);
        assert_eq!(kept.take::<u64>("mls", &[1]), None);
    }

    #[test]
    fn the_later_value_counts_and_the_oldest_goes() {
        let kept = Kept::default();
        for number in 0..KEPT_MAX {
            kept.put("mls", vec![0], number);
        }
        for key in 1..=KEPT_MAX {
            kept.put("mls", key.to_be_bytes().to_vec(), key);
        }
        assert_eq!(kept.take::<usize>("mls", &[0]), None);
        assert_eq!(kept.take::<usize>("mls", &1_usize.to_be_bytes()), Some(1));
    }
}
