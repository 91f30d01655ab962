//! Copies of one call that are here at the same time: one is judged, the others wait for what becomes of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use lianxin_store::Idempotency;
use tokio::sync::OwnedMutexGuard;

/// The calls that are being judged, each with its turn. Holds no more than what is being asked at this moment.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<Idempotency, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits until no copy of this call is being judged. Hold the turn until the call has its answer: whoever comes next
    /// finds that answer by looking for a repeat (PROTOCOL 7).
    pub(crate) async fn take(&self, call: &Idempotency) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(call.clone()).or_default())
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use lianxin_types::{Digest, IdempotencyId};

    use super::*;

    fn call(id: u8) -> Idempotency {
        Idempotency {
            device: "lianxin://jiwei/app/a/1".parse().expect("well formed"),
            channel: None,
            call: "claim-key-packages",
            id: IdempotencyId([id; 16]),
            bytes_hash: Digest::sha256(b"owners"),
        }
    }

    #[test]
    fn a_copy_waits_for_the_first_and_another_call_does_not() {
        let (turns, mut context) = (Turns::default(), Context::from_waker(Waker::noop()));
        let (first, other) = (call(1), call(2));
        let Poll::Ready(held) = pin!(turns.take(&first)).poll(&mut context) else { panic!("nobody is before it") };
        let mut copy = pin!(turns.take(&first));
        assert!(copy.as_mut().poll(&mut context).is_pending());
        assert!(pin!(turns.take(&other)).poll(&mut context).is_ready());
        assert!(copy.as_mut().poll(&mut context).is_pending(), "the first has no answer yet");
        drop(held);
        let Poll::Ready(held) = copy.poll(&mut context) else { panic!("the first has its answer") };
        drop(held);
        assert!(pin!(turns.take(&other)).poll(&mut context).is_ready());
        assert_eq!(turns.0.lock().expect("nobody panics with it").len(), 1, "what has its answer is forgotten");
    }
}
