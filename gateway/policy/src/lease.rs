//! A stream's standing answer (PROTOCOL 6): evaluated once, then each message costs one comparison of generations.

use lianxin_types::{ChannelId, DeviceUri, Timestamp};

use crate::permit::{Permit, SendMessage};

/// Rises whenever a rule, the bundle, a revocation list or a channel's membership changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Generation(pub u64);

/// The lease does not hold any more: evaluate the policy again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale;

/// The engine's yes to a caller's messages in one channel, for as long as nothing changes.
#[derive(Debug)]
pub struct Lease {
    caller: DeviceUri,
    channel: ChannelId,
    generation: Generation,
    ends: Option<Timestamp>,
    policy_version: u64,
}

impl Lease {
    pub(crate) fn new(
        caller: DeviceUri,
        channel: ChannelId,
        generation: Generation,
        ends: Option<Timestamp>,
        policy_version: u64,
    ) -> Self {
        Self { caller, channel, generation, ends, policy_version }
    }

    /// A permit for one message.
    ///
    /// # Errors
    /// [`Stale`] if the generation has moved or the lease's time has ended.
    pub fn draw(&self, current: Generation, now: Timestamp) -> Result<Permit<SendMessage>, Stale> {
        if self.generation != current || self.ends.is_some_and(|end| now >= end) {
            return Err(Stale);
        }
        Ok(Permit::new(self.caller.clone(), Some(self.channel), self.policy_version))
    }
}
