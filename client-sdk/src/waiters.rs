//! Callers that wait for something that the session will learn: an outcome, or news of a channel. Nothing durable: whoever
//! stops waiting changes nothing.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use lianxin_connection::{Problem, Receipt};
use lianxin_mls::MlsError;
use lianxin_types::IdempotencyId;
use thiserror::Error;
use tokio::sync::{oneshot, watch};

/// Why nobody need wait for something stored any more.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Failure {
    #[error("the gateway refused")]
    Refused(#[source] Problem),
    /// Another member's commit came first.
    #[error("another commit came first")]
    Superseded,
    /// The channel's group, or the profile, does not allow it.
    #[error("it cannot be made")]
    NotPossible(#[source] Said),
    #[error("not a member any more")]
    NotMember,
    /// The group that it was for has given way to another before the log was read to its end: it may have been accepted there.
    #[error("given up before its outcome was known")]
    GivenUp,
    /// It stays stored, but the gateway does not serve the channel to this device: nobody knows when or whether it will go.
    #[error("the gateway does not serve the channel")]
    NotServed,
}

/// What the engine said, so that it can be passed on.
#[derive(Debug, Clone)]
pub(crate) struct Said(Arc<MlsError>);

impl Said {
    pub(crate) fn new(error: MlsError) -> Self {
        Self(Arc::new(error))
    }

    /// The error itself, for the one who holds it last.
    pub(crate) fn into_inner(self) -> Option<MlsError> {
        Arc::into_inner(self.0)
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Said {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl PartialEq for Said {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for Said {}

pub(crate) type Outcome = Result<Receipt, Failure>;

/// Who waits for which id.
#[derive(Default)]
pub(crate) struct Waiters(Mutex<Book<IdempotencyId, oneshot::Sender<Outcome>>>);

struct Book<K, V> {
    entries: HashMap<K, V>,
    /// Nothing more will come: who comes now is told at once.
    closed: bool,
}

impl<K, V> Default for Book<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), closed: false }
    }
}

impl<K, V> Book<K, V> {
    fn close(&mut self) {
        self.entries.clear();
        self.closed = true;
    }
}

impl Waiters {
    pub(crate) fn register(&self, id: IdempotencyId) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if book.closed {
            return receiver;
        }
        let all = &mut book.entries;
        // Those who gave up leave their half behind; this is where it goes.
        if all.len() >= all.capacity() {
            all.retain(|_, waiting| !waiting.is_closed());
        }
        all.insert(id, sender);
        receiver
    }

    pub(crate) fn settle(&self, id: IdempotencyId, outcome: Outcome) {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner).entries.remove(&id);
        if let Some(waiting) = waiting {
            // Who gave up does not mind.
            let _gave_up = waiting.send(outcome);
        }
    }

    /// Everybody still waiting learns that nothing will come.
    pub(crate) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).close();
    }
}

/// Rings for those who wait for news under a key.
pub(crate) struct Bells<K>(Mutex<Book<K, watch::Sender<u64>>>);

impl<K> Default for Bells<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Bells<K> {
    /// Hears every ring from now on.
    pub(crate) fn listen(&self, key: K) -> watch::Receiver<u64> {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if book.closed {
            return watch::Sender::new(0).subscribe();
        }
        book.entries.entry(key).or_default().subscribe()
    }

    pub(crate) fn ring(&self, key: &K) {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bell) = book.entries.get(key) {
            bell.send_modify(|rings| *rings = rings.wrapping_add(1));
        }
    }

    /// Ends all listening.
    pub(crate) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_outcome_reaches_the_one_who_waits_for_it() {
        let waiters = Waiters::default();
        let (first, second) = (IdempotencyId([1; 16]), IdempotencyId([2; 16]));
        let (one, two) = (waiters.register(first), waiters.register(second));
        waiters.settle(second, Err(Failure::Superseded));
        assert_eq!(two.await.expect("settled"), Err(Failure::Superseded));
        waiters.close();
        assert!(one.await.is_err());
        assert!(waiters.register(first).await.is_err(), "who comes after the end does not wait for ever");
    }

    #[tokio::test]
    async fn who_gave_up_is_forgotten() {
        let waiters = Waiters::default();
        for number in 0..1000_u16 {
            let mut id = [0; 16];
            id[..2].copy_from_slice(&number.to_be_bytes());
            drop(waiters.register(IdempotencyId(id)));
        }
        assert!(waiters.0.lock().expect("not poisoned").entries.len() < 10);
    }

    #[tokio::test]
    async fn a_ring_between_two_looks_is_not_missed() {
        let bells = Bells::default();
        let mut heard = bells.listen("a");
        bells.ring(&"a");
        bells.ring(&"b");
        assert!(heard.changed().await.is_ok());
        bells.close();
        assert!(heard.changed().await.is_err());
        assert!(bells.listen("a").changed().await.is_err());
    }
}
