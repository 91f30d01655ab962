//! Work of one kind that may not all be done at the same time: copies of one call, of which one is judged and the others wait for
//! what becomes of it; and validations of one department, so that another's find a free processor.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who works at this moment, each kind with its own turns.
#[derive(Debug)]
pub(crate) struct Turns<K> {
    at_once: usize,
    turns: Mutex<HashMap<K, Arc<Semaphore>>>,
}

impl<K: Eq + Hash + Clone> Turns<K> {
    /// At most `at_once` of a kind work at a time; at least one does.
    pub(crate) fn new(at_once: usize) -> Self {
        Self { at_once: at_once.max(1), turns: Mutex::default() }
    }

    /// Waits for a turn of this kind, in the order of asking. Hold it until the work is done. `None` never comes: nobody closes
    /// the semaphore.
    pub(crate) async fn take(&self, kind: &K) -> Option<OwnedSemaphorePermit> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(kind.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.at_once))))
        };
        turn.acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use lianxin_types::DepartmentId;

    use super::*;

    #[test]
    fn who_comes_second_waits_for_the_first_and_another_kind_does_not() {
        let (turns, mut context) = (Turns::new(1), Context::from_waker(Waker::noop()));
        let Poll::Ready(held) = pin!(turns.take(&"one")).poll(&mut context) else { panic!("nobody is before it") };
        let mut copy = pin!(turns.take(&"one"));
        assert!(copy.as_mut().poll(&mut context).is_pending());
        assert!(pin!(turns.take(&"other")).poll(&mut context).is_ready());
        assert!(copy.as_mut().poll(&mut context).is_pending(), "the first is not done");
        drop(held);
        let Poll::Ready(held) = copy.poll(&mut context) else { panic!("the first is done") };
        drop(held);
        assert!(pin!(turns.take(&"other")).poll(&mut context).is_ready());
        assert_eq!(turns.turns.lock().expect("nobody panics with it").len(), 1, "what is done is forgotten");
    }

    #[test]
    fn a_department_with_a_thousand_validations_leaves_the_others_their_turns() {
        let (turns, mut context) = (Turns::<DepartmentId>::new(2), Context::from_waker(Waker::noop()));
        let [busy, other] = ["jiwei", "shenji"].map(|name| name.parse::<DepartmentId>().expect("well formed"));
        let mut asked: Vec<_> = (0..1_000).map(|_| Box::pin(turns.take(&busy))).collect();
        let ready =
            asked.iter_mut().map(|one| one.as_mut().poll(&mut context)).filter(Poll::is_ready).collect::<Vec<_>>();
        assert_eq!(ready.len(), 2, "and they still hold their turns");
        assert!(pin!(turns.take(&other)).poll(&mut context).is_ready());
    }
}
