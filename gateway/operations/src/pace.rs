//! How often one device and one department may call. Who calls too often waits for its turn, with its stream's place held
//! against it; only who would wait too long is refused.

use std::time::Duration;

use lianxin_identity::Caller;
use lianxin_types::{Clock, DepartmentId, DeviceUri, Rate, Throttles};

use crate::gate::Operations;
use crate::guard::Guard;
use crate::refusal::Refusal;

/// Turns of everybody.
pub(crate) struct Pace {
    device_calls: Throttles<DeviceUri>,
    department_calls: Throttles<DepartmentId>,
    device_follows: Throttles<DeviceUri>,
    device_messages: Throttles<DeviceUri>,
}

/// Calls of one device, streams that it opens among them: each costs an audit record. An SDK makes some dozen when it
/// connects and few afterwards; messages go over streams and are not calls.
const DEVICE_CALLS: Rate = Rate { burst: 512, per_second: 256 };
/// Calls of all devices of one department.
const DEPARTMENT_CALLS: Rate = Rate { burst: 8_192, per_second: 1_024 };
/// Channels that one device begins to follow: as many as it may have at once when it comes back, twice.
const DEVICE_FOLLOWS: Rate = Rate { burst: 2_000, per_second: 64 };
/// Messages of one device over all its Send streams (PROTOCOL 6). Far more than an application has to say, and a part only of
/// what a zone takes in: who repeats without end, or is refused without end, leaves the rest to others.
const DEVICE_MESSAGES: Rate = Rate { burst: 16_384, per_second: 8_192 };
/// Longest wait for a turn.
const WAIT_MAX: Duration = Duration::from_secs(2);

impl Default for Pace {
    fn default() -> Self {
        Self {
            device_calls: Throttles::new(DEVICE_CALLS),
            department_calls: Throttles::new(DEPARTMENT_CALLS),
            device_follows: Throttles::new(DEVICE_FOLLOWS),
            device_messages: Throttles::new(DEVICE_MESSAGES),
        }
    }
}

impl Operations {
    /// Waits for the caller's turn to make one call.
    ///
    /// # Errors
    /// [`Refusal::ResourceExhausted`] if it would wait too long; counted, not recorded.
    pub async fn paced(&self, caller: &Caller) -> Result<(), Refusal> {
        let (pace, now) = (&self.guard.pace, self.guard.clock.monotonic());
        let device = pace.device_calls.reserve(caller.uri.clone(), now, WAIT_MAX);
        let turn = match device {
            Some(wait) => {
                let department = caller.uri.department().clone();
                pace.department_calls.reserve(department, now, WAIT_MAX).map(|department| wait.max(department))
            }
            None => None,
        };
        match turn {
            None => Err(self.guard.refuse(&caller.uri, "call", None, Refusal::ResourceExhausted).await),
            Some(Duration::ZERO) => Ok(()),
            Some(wait) => {
                self.guard.clock.sleep(wait).await;
                Ok(())
            }
        }
    }
}

impl Guard {
    /// Waits for the device's turn to follow one more channel. The asking stream waits with it, so there is never more than
    /// one wait of a stream, and nobody is refused.
    pub(crate) async fn pace_follow(&self, device: &DeviceUri) {
        turns(&self.pace.device_follows, &*self.clock, device, 1).await;
    }

    /// Waits for the device's turns to have so many messages looked at; as for a follow, nobody is refused. A stream asks for what
    /// may be without an answer, so all streams of a device wait half a second at most.
    pub(crate) async fn pace_messages(&self, device: &DeviceUri, count: usize) {
        turns(&self.pace.device_messages, &*self.clock, device, count).await;
    }
}

/// Takes so many turns and waits until the last has come.
async fn turns(throttles: &Throttles<DeviceUri>, clock: &dyn Clock, device: &DeviceUri, count: usize) {
    let mut wait = Duration::ZERO;
    for _ in 0..count {
        wait = loop {
            match throttles.reserve(device.clone(), clock.monotonic(), WAIT_MAX) {
                Some(wait) => break wait,
                None => clock.sleep(WAIT_MAX).await,
            }
        };
    }
    if wait > Duration::ZERO {
        clock.sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::task::{Context, Poll, Waker};

    use lianxin_types::{LIMITS, Monotonic, Timestamp};

    use super::*;

    /// Stands until it is moved; who sleeps is asked again by the test.
    #[derive(Debug, Default)]
    struct Stopped(AtomicU64);

    impl Clock for Stopped {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::Relaxed))
        }

        fn monotonic(&self) -> Monotonic {
            Monotonic(self.0.load(Ordering::Relaxed))
        }

        fn sleep_until(&self, deadline: Monotonic) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            let is_over = deadline <= self.monotonic();
            Box::pin(async move {
                if !is_over {
                    std::future::pending::<()>().await;
                }
            })
        }
    }

    #[test]
    fn a_device_that_says_more_than_its_share_waits_and_another_does_not() {
        let (pace, clock) = (Pace::default(), Stopped::default());
        let [loud, quiet] =
            ["a", "b"].map(|name| format!("lianxin://jiwei/app/{name}/1").parse::<DeviceUri>().expect("well formed"));
        let batch = LIMITS.stream_sends_in_flight_max;
        let goes_through = |device: &DeviceUri| {
            let turns = turns(&pace.device_messages, &clock, device, batch);
            matches!(pin!(turns).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()))
        };
        clock.0.store(1_000_000_000, Ordering::Relaxed);
        let burst = DEVICE_MESSAGES.burst as usize / batch;
        assert_eq!((0..2 * burst).filter(|_| goes_through(&loud)).count(), burst, "its burst and not one batch more");
        assert!(goes_through(&quiet));
        // What waited has taken its turns, two seconds of them at most.
        clock.0.fetch_add(WAIT_MAX.as_micros() as u64, Ordering::Relaxed);
        assert!(!goes_through(&loud), "those are the turns of who asked before");
        clock.0.fetch_add(1_000_000, Ordering::Relaxed);
        assert!(goes_through(&loud), "and then it goes on");
    }

    #[test]
    fn all_streams_of_a_device_together_do_not_wait_for_longer_than_it_says() {
        let asked = LIMITS.device_send_streams_max * LIMITS.stream_sends_in_flight_max;
        assert!(asked <= DEVICE_MESSAGES.per_second as usize / 2);
    }
}
