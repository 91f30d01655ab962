//! How much of one thing a device may ask for in a minute: key packages (PROTOCOL 5: limits per caller), renewals of its
//! certificates. Asking counts, whatever comes of it: a search for packages that are not there costs the gateway as much.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lianxin_types::{DeviceUri, Monotonic};

use crate::refusal::Refusal;

const MINUTE: Duration = Duration::from_secs(60);

/// The running minute of each device that asked in the last one.
#[derive(Debug)]
pub(crate) struct DeviceRates {
    per_minute_max: usize,
    minutes: Mutex<HashMap<DeviceUri, Minute>>,
}

#[derive(Debug)]
struct Minute {
    ends: Monotonic,
    asked: usize,
}

impl DeviceRates {
    /// Each device may ask for this much in a minute.
    pub(crate) fn new(per_minute_max: usize) -> Self {
        Self { per_minute_max, minutes: Mutex::default() }
    }

    /// Counts `count` more of `device`'s.
    ///
    /// # Errors
    /// [`Refusal::ResourceExhausted`] if its minute would hold more than the limit; nothing is counted then.
    pub(crate) fn take(&self, device: &DeviceUri, count: usize, now: Monotonic) -> Result<(), Refusal> {
        let mut minutes = self.minutes.lock().unwrap_or_else(PoisonError::into_inner);
        if !minutes.contains_key(device) {
            minutes.retain(|_, minute| minute.ends > now);
        }
        let minute = minutes.entry(device.clone()).or_insert_with(|| Minute { ends: now.plus(MINUTE), asked: 0 });
        if minute.ends <= now {
            *minute = Minute { ends: now.plus(MINUTE), asked: 0 };
        }
        if minute.asked + count > self.per_minute_max {
            return Err(Refusal::ResourceExhausted);
        }
        minute.asked += count;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_holds_the_limit_and_no_more_for_each_device() {
        let device =
            |name: &str| -> DeviceUri { format!("lianxin://jiwei/app/{name}/1").parse().expect("well formed") };
        let limit = 600;
        let (rates, start) = (DeviceRates::new(limit), Monotonic::default());
        assert_eq!(rates.take(&device("a"), limit, start), Ok(()));
        assert_eq!(rates.take(&device("a"), 1, start), Err(Refusal::ResourceExhausted));
        assert_eq!(rates.take(&device("b"), 1, start), Ok(()));
        let almost = start.plus(MINUTE - Duration::from_nanos(1_000));
        assert_eq!(rates.take(&device("a"), 1, almost), Err(Refusal::ResourceExhausted));
        assert_eq!(rates.take(&device("a"), limit, start.plus(MINUTE)), Ok(()));
        assert_eq!(rates.take(&device("c"), limit + 1, start), Err(Refusal::ResourceExhausted));
    }
}
