//! Waiting for what another thread does, so that a simulation can have it done in no time.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use crate::Clock;

/// Waits for `work`, which other threads do and which needs nothing of the calling task's runtime.
///
/// By a simulated clock such work takes no time and nothing else happens meanwhile: the calling thread blocks until it is done.
/// Otherwise simulated time would overtake the threads, and which of two came first would not follow the seed.
pub async fn elsewhere<F: Future>(clock: &dyn Clock, work: F) -> F::Output {
    if clock.is_simulated() { blocked(work) } else { work.await }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn blocked<F: Future>(work: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    // A task that has used up its turn would be told to come again, which it cannot before this is over.
    let mut work = pin!(tokio::task::unconstrained(work));
    loop {
        match work.as_mut().poll(&mut context) {
            Poll::Ready(done) => return done,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::{Monotonic, SystemClock, Timestamp};

    struct Standing;

    impl Clock for Standing {
        fn now(&self) -> Timestamp {
            Timestamp(0)
        }

        fn monotonic(&self) -> Monotonic {
            Monotonic(0)
        }

        fn sleep_until(&self, _: Monotonic) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(std::future::pending())
        }

        fn is_simulated(&self) -> bool {
            true
        }
    }

    /// How many turns another task of the same thread had while this one waited for the blocking pool, again and again.
    async fn turns_meanwhile(clock: &dyn Clock) -> usize {
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&turns);
        let other = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        for number in 0..500 {
            let work = tokio::task::spawn_blocking(move || number);
            assert_eq!(elsewhere(clock, work).await.expect("it runs"), number);
        }
        other.abort();
        turns.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn only_by_a_simulated_clock_does_nothing_else_happen_meanwhile() {
        assert_eq!(turns_meanwhile(&Standing).await, 0);
        assert!(turns_meanwhile(&SystemClock).await > 0);
    }
}
