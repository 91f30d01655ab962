//! What ends a stream from the gateway's side while nobody says anything: its caller is none any more, or what the client
//! learned at its opening is not so any more (PROTOCOL 9).

use std::sync::Arc;
use std::time::Duration;

use lianxin_identity::{Caller, Vigil};
use lianxin_types::{DeviceUri, Digest, Monotonic};

use crate::guard::Guard;
use crate::refusal::Refusal;

/// What the client learns when the stream opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// The trust bundle in use: when that is replaced the stream ends.
    StatesTrust,
    /// Nothing that can become untrue.
    StatesNothing,
}

/// Watches over one stream.
pub(crate) struct Watch {
    guard: Arc<Guard>,
    vigil: Vigil,
    action: &'static str,
    opening: Opening,
    /// When the stream ends because the federation was replaced.
    ends: Option<Monotonic>,
}

/// Devices are sent to fetch a new bundle over so long, each at its own moment, so that they do not come all at once.
const TRUST_CHANGE_SPREAD: Duration = Duration::from_secs(5);

impl Watch {
    /// Refusals are recorded as refusals of `action`.
    pub(crate) fn new(guard: Arc<Guard>, caller: &Caller, action: &'static str, opening: Opening) -> Self {
        let vigil = guard.callers.watch_over(caller);
        Self { guard, vigil, action, opening, ends: None }
    }

    /// Whether the caller's certificate holds at this moment. Cheap, and recorded by whoever answers the message.
    pub(crate) fn check(&mut self) -> Result<(), Refusal> {
        Ok(self.vigil.check()?)
    }

    /// Waits for the end of the stream and gives its reason, recorded if it is a fault of the caller. Cancel-safe up to the
    /// moment of the reason.
    pub(crate) async fn ended(&mut self) -> Refusal {
        loop {
            let end = async {
                match self.ends {
                    Some(moment) => self.guard.clock.sleep_until(moment).await,
                    None => std::future::pending().await,
                }
            };
            let judged = tokio::select! {
                biased;
                judged = self.vigil.judged() => judged,
                () = end => return Refusal::TrustChanged,
            };
            match judged {
                Ok(_) if self.opening == Opening::StatesTrust && self.ends.is_none() => {
                    let delay = delay(&self.vigil.caller().uri);
                    self.ends = Some(self.guard.clock.monotonic().plus(delay));
                }
                Ok(_) => {}
                Err(error) => {
                    let refusal = Refusal::from(error);
                    return self.guard.refuse(&self.vigil.caller().uri, self.action, None, refusal).await;
                }
            }
        }
    }
}

/// The same for a device every time, and spread evenly over devices.
fn delay(device: &DeviceUri) -> Duration {
    let Digest(hash) = Digest::sha256(device.as_str().as_bytes());
    let share = u32::from(u16::from_be_bytes([hash[0], hash[1]]));
    TRUST_CHANGE_SPREAD * share / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_do_not_come_all_at_once_and_each_keeps_its_moment() {
        let device =
            |number: u32| format!("lianxin://jiwei/app/a{number}/1").parse::<DeviceUri>().expect("well formed");
        let mut delays: Vec<_> = (0..1_000).map(|number| delay(&device(number))).collect();
        assert_eq!(delay(&device(7)), delays[7]);
        delays.sort();
        assert!(delays[999] <= TRUST_CHANGE_SPREAD);
        for tenth in 0..10 {
            let (from, to) = (TRUST_CHANGE_SPREAD * tenth / 10, TRUST_CHANGE_SPREAD * (tenth + 1) / 10);
            let count = delays.iter().filter(|delay| (from..to).contains(*delay)).count();
            assert!((50..200).contains(&count), "{count} of 1,000 devices come in one tenth of the time");
        }
    }
}
