//! The Send stream: stored messages go out lane by lane, answers come back.

use std::collections::BTreeSet;
use std::ops::Bound;

use lianxin_connection::SendStream;
use lianxin_connection::{CallError, Send, SendOutcome};
use lianxin_types::{ChannelId, LIMITS};

use crate::drive::Drive;
use crate::lane::{Lane, Verdict};
use crate::shared::Shared;
use crate::waiters::Failure;
use crate::{ClientError, changes, outbox, sync, wishes};

/// A few fewer than the gateway allows without an answer.
const IN_FLIGHT_MAX: usize = LIMITS.stream_sends_in_flight_max - 6;

impl Drive {
    /// Hands over what may be handed over. Never waits for the gateway.
    pub(crate) async fn pump(&mut self, sends: &SendStream) -> Result<(), ClientError> {
        loop {
            let mut is_more = false;
            for channel in in_turn(&self.ready, self.served) {
                if self.in_flight.len() >= IN_FLIGHT_MAX {
                    return Ok(());
                }
                let before = self.in_flight.len();
                is_more |= self.hand_over(sends, channel).await?;
                if self.in_flight.len() > before {
                    self.served = Some(channel);
                }
            }
            if !is_more {
                return Ok(());
            }
        }
    }

    /// Hands over a page of one channel; says whether there may be more.
    async fn hand_over(&mut self, sends: &SendStream, channel: ChannelId) -> Result<bool, ClientError> {
        let now = self.shared.clock.monotonic();
        if self.gone.contains(&channel) {
            not_served(&self.shared, channel).await?;
        }
        let Some(lane) = self.lanes.get_mut(&channel) else {
            self.ready.remove(&channel);
            return Ok(false);
        };
        let Some(after) = lane.next(now) else {
            if lane.wakes().is_none() {
                self.ready.remove(&channel);
            }
            return Ok(false);
        };
        let page = self.shared.transaction(move |tx, _| outbox::page(tx, channel, after)).await?;
        if page.is_empty() {
            self.ready.remove(&channel);
            return Ok(false);
        }
        for (position, row) in page {
            if row.accepted {
                lane.passed(position);
                continue;
            }
            if row.mls.is_empty() {
                return self.encrypt_next(channel).await;
            }
            if self.in_flight.len() >= IN_FLIGHT_MAX {
                return Ok(false);
            }
            sends.send(Send { id: row.id, channel, mls: row.mls.into() }).await?;
            lane.handed(position, row.id);
            self.in_flight.insert(row.id, channel);
        }
        Ok(true)
    }

    /// The next message has no ciphertext. Says whether it is to be looked at again: what kept it from having one may have passed. If
    /// not, this device commits what must be committed before it.
    async fn encrypt_next(&mut self, channel: ChannelId) -> Result<bool, ClientError> {
        let (federation, device) = (self.shared.federation(), self.shared.device.clone());
        let encrypted = self.shared.transaction(move |tx, mls| {
            let encrypted = outbox::encrypt_waiting(tx, mls, &federation, channel)?;
            Ok((encrypted, sync::standing(tx, mls, &federation, &device, channel)?.turn))
        });
        let (encrypted, turn) = encrypted.await?;
        let is_new = encrypted.count > 0 || !encrypted.failures.is_empty();
        for (id, failure) in encrypted.failures {
            self.shared.waiters.settle(id, Err(failure));
        }
        if is_new {
            return Ok(true);
        }
        if let Some(lane) = self.lanes.get_mut(&channel) {
            lane.wait_to_encrypt();
        }
        self.commit_soon(channel);
        if !self.turns.contains_key(&channel) && !self.refusals.contains_key(&channel) {
            // What this session has sent may be the reason.
            self.note_turn(channel, turn);
        }
        Ok(false)
    }

    /// What kept messages of the channel from being encrypted may have passed.
    pub(crate) fn may_encrypt(&mut self, channel: ChannelId) {
        if let Some(lane) = self.lanes.get_mut(&channel) {
            lane.may_encrypt();
            self.ready.insert(channel);
        }
    }

    /// One answer of the gateway.
    pub(crate) async fn outcome(&mut self, outcome: SendOutcome) -> Result<(), ClientError> {
        let SendOutcome { id, result } = outcome;
        let Some(channel) = self.in_flight.remove(&id) else { return Ok(()) };
        let now = self.shared.clock.monotonic();
        match &result {
            Ok(receipt) => self.note_receipt(channel, id, *receipt),
            Err(problem) => self.note_refusal(channel, problem),
        }
        let Some(lane) = self.lanes.get_mut(&channel) else { return Ok(()) };
        match lane.answered(id, result, now) {
            // The row stays until the echo: sent again in between it would get the same receipt.
            Verdict::Accepted(receipt) => self.shared.waiters.settle(id, Ok(receipt)),
            Verdict::AcceptedBefore => {
                self.shared.transaction(move |tx, _| outbox::mark_accepted(tx, channel, id)).await?;
            }
            Verdict::CommitFirst => self.commit_soon(channel),
            Verdict::HeldBack => {
                let detail = "the stream holds the channel back for a message that was given up";
                return Err(CallError::Unknown { detail: detail.to_owned() }.into());
            }
            Verdict::Failed(problem) => {
                self.shared.transaction(move |tx, _| outbox::drop_row(tx, channel, id)).await?;
                self.shared.waiters.settle(id, Err(Failure::Refused(problem)));
            }
            Verdict::Again | Verdict::Unexpected => {}
        }
        if self.lanes.get(&channel).is_some_and(Lane::is_starting_over) {
            self.ready.insert(channel);
        }
        Ok(())
    }
}

/// The channels in the order in which they hand over a page each: from behind the one that did last, so that none that always has
/// more keeps the others waiting.
fn in_turn(ready: &BTreeSet<ChannelId>, served: Option<ChannelId>) -> Vec<ChannelId> {
    let Some(last) = served else { return ready.iter().copied().collect() };
    ready.range((Bound::Excluded(last), Bound::Unbounded)).chain(ready.range(..=last)).copied().collect()
}

/// Whoever waits for something of a channel that is not served waits no more. What is stored stays.
pub(crate) async fn not_served(shared: &Shared, channel: ChannelId) -> Result<(), ClientError> {
    let waiting = shared.transaction(move |tx, _| {
        let mut ids: Vec<_> = changes::waiting(tx, channel)?;
        ids.extend(wishes::unserved(tx, channel)?);
        let mut after = 0;
        loop {
            let page = outbox::page(tx, channel, after)?;
            let Some((last, _)) = page.last() else { return Ok(ids) };
            after = *last;
            ids.extend(page.into_iter().map(|(_, row)| row.id));
        }
    });
    for id in waiting.await? {
        shared.waiters.settle(id, Err(Failure::NotServed));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each always has more than the gateway takes: what comes of it goes round.
    #[test]
    fn channels_that_never_run_dry_take_turns() {
        let channels = [1, 2, 3].map(|number| ChannelId([number; 16]));
        let ready = BTreeSet::from(channels);
        let (mut served, mut order) = (None, Vec::new());
        for _ in 0..6 {
            // There is room for one page.
            let next = in_turn(&ready, served)[0];
            served = Some(next);
            order.push(next);
        }
        assert_eq!(order, [channels, channels].concat());
        let others = BTreeSet::from([channels[0], channels[2]]);
        assert_eq!(
            in_turn(&others, Some(channels[1])),
            [channels[2], channels[0]],
            "the one that was last may be gone"
        );
        assert_eq!(in_turn(&others, Some(channels[2])), [channels[0], channels[2]]);
    }
}
