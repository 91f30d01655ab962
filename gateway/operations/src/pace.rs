//! How often one device and one department may call. Who calls too often waits for its turn, with its stream's place held
//! against it; only who would wait too long is refused.

use std::time::Duration;

use lianxin_identity::Caller;
use lianxin_types::{DepartmentId, DeviceUri, Rate, Throttles};

use crate::gate::Operations;
use crate::guard::Guard;
use crate::refusal::Refusal;

/// Turns of everybody.
pub(crate) struct Pace {
    device_calls: Throttles<DeviceUri>,
    department_calls: Throttles<DepartmentId>,
    device_follows: Throttles<DeviceUri>,
}

/// Calls of one device, streams that it opens among them: each costs an audit record. An SDK makes some dozen when it
/// connects and few afterwards; messages go over streams and are not calls.
const DEVICE_CALLS: Rate = Rate { burst: 512, per_second: 256 };
/// Calls of all devices of one department.
const DEPARTMENT_CALLS: Rate = Rate { burst: 8_192, per_second: 1_024 };
/// Channels that one device begins to follow: as many as it may have at once when it comes back, twice.
const DEVICE_FOLLOWS: Rate = Rate { burst: 2_000, per_second: 64 };
/// Longest wait for a turn.
const WAIT_MAX: Duration = Duration::from_secs(2);

impl Default for Pace {
    fn default() -> Self {
        Self {
            device_calls: Throttles::new(DEVICE_CALLS),
            department_calls: Throttles::new(DEPARTMENT_CALLS),
            device_follows: Throttles::new(DEVICE_FOLLOWS),
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
        loop {
            match self.pace.device_follows.reserve(device.clone(), self.clock.monotonic(), WAIT_MAX) {
                Some(Duration::ZERO) => return,
                Some(wait) => return self.clock.sleep(wait).await,
                None => self.clock.sleep(WAIT_MAX).await,
            }
        }
    }
}
