//! Simulated time: it goes on to the next moment that somebody waits for, whenever nobody has anything left to do.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use lianxin_types::{Clock, Monotonic, Timestamp};

/// Where every simulation begins: 2026-11-27T00:00:00Z.
pub(crate) const BEGINNING: Timestamp = Timestamp::from_seconds(1_795_737_600);

/// The one line of time of a simulation.
#[derive(Default)]
pub(crate) struct Timeline(Mutex<State>);

#[derive(Default)]
struct State {
    now: u64,
    /// Of the next timer: those of one moment end in the order in which they began.
    number: u64,
    timers: BTreeMap<(u64, u64), Waker>,
}

impl Timeline {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Microseconds since the beginning.
    pub(crate) fn now(&self) -> u64 {
        self.state().now
    }

    /// Goes on to the next timer and wakes who set it. To be called when nobody has anything left to do.
    ///
    /// # Panics
    /// If nobody waits for anything: then nothing would ever happen again.
    pub(crate) fn go_on(&self) {
        let waker = {
            let mut state = self.state();
            let ((moment, _), waker) = state.timers.pop_first().expect("the simulation hangs: nobody waits for time");
            state.now = state.now.max(moment);
            waker
        };
        waker.wake();
    }
}

/// A machine's clock: all machines share the line of time, and each may be wrong about the hour.
#[derive(Clone)]
pub(crate) struct SimClock {
    timeline: Arc<Timeline>,
    /// Microseconds that this machine is ahead.
    ahead: Arc<AtomicI64>,
}

impl SimClock {
    pub(crate) fn new(timeline: &Arc<Timeline>) -> Self {
        Self { timeline: Arc::clone(timeline), ahead: Arc::default() }
    }

    /// Sets it so many seconds ahead of the truth, or behind it.
    pub(crate) fn set_ahead(&self, seconds: i64) {
        self.ahead.store(seconds * 1_000_000, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp((BEGINNING.0 + self.timeline.now()).saturating_add_signed(self.ahead.load(Ordering::Relaxed)))
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(self.timeline.now())
    }

    fn sleep_until(&self, deadline: Monotonic) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(Sleep { timeline: Arc::clone(&self.timeline), moment: deadline.0, number: None })
    }

    fn is_simulated(&self) -> bool {
        true
    }
}

struct Sleep {
    timeline: Arc<Timeline>,
    moment: u64,
    number: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let timeline = Arc::clone(&self.timeline);
        let mut state = timeline.state();
        if state.now >= self.moment {
            return Poll::Ready(());
        }
        let number = *self.number.get_or_insert_with(|| {
            state.number += 1;
            state.number
        });
        state.timers.insert((self.moment, number), cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.timeline.state().timers.remove(&(self.moment, number));
        }
    }
}

/// A clock that stands.
pub(crate) struct Fixed(pub(crate) Timestamp);

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(0)
    }

    fn sleep_until(&self, _: Monotonic) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::pending())
    }
}
