//! A clock whose sleeps end when the test says so.

use std::future::Future;
use std::pin::Pin;

use lianxin_types::{Clock, Monotonic, SystemClock, Timestamp};
use tokio::sync::watch;

/// Real wall time; monotonic time that only [`HandClock::advance_to`] moves.
pub(crate) struct HandClock(watch::Sender<Monotonic>);

impl HandClock {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Monotonic(0)))
    }

    pub(crate) fn advance_to(&self, time: Monotonic) {
        self.0.send_replace(time);
    }

    /// Ready once `count` sleeps are being waited for.
    pub(crate) async fn sleepers(&self, count: usize) {
        while self.0.receiver_count() < count {
            tokio::task::yield_now().await;
        }
    }

    /// The most sleeps that were waited for at once while everybody had many turns to act.
    pub(crate) async fn sleepers_max(&self) -> usize {
        let mut most = 0;
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
            most = most.max(self.0.receiver_count());
        }
        most
    }
}

/// Enough for some hundred looks at the sockets.
const TURNS: usize = 20_000;

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn monotonic(&self) -> Monotonic {
        *self.0.borrow()
    }

    fn sleep_until(&self, deadline: Monotonic) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut time = self.0.subscribe();
        Box::pin(async move {
            if time.wait_for(|now| *now >= deadline).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}
