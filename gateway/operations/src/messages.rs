//! Messages: the Send stream's rules, and pages of history.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use lianxin_audit::AuditEvent;
use lianxin_delivery::{NewMessage, prepare_message};
use lianxin_identity::Caller;
use lianxin_policy::{Generation, Lease, Permit, SendMessage};
use lianxin_store::{Accepted, ChannelHead, Idempotency, Refused, StoredEvent, Unit};
use lianxin_types::{ChannelId, Digest, Epoch, IdempotencyId, LIMITS, Sequence, Timestamp};

use crate::channels::Facts;
use crate::gate::{Operations, Receipt};
use crate::guard::unit;
use crate::pressure::Level;
use crate::refusal::Refusal;
use crate::run::{Judged, Run};
use crate::statistics::OpenStream;
use crate::streams::{Direction, StreamPlace};
use crate::watch::{Opening, Watch};

/// A message as it came in.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The sender's name for it.
    pub id: IdempotencyId,
    /// The channel.
    pub channel: ChannelId,
    /// MLSMessage(PrivateMessage).
    pub mls: Bytes,
}

/// What became of one message.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The sender's name for it.
    pub id: IdempotencyId,
    /// Receipt or refusal.
    pub outcome: Result<Receipt, Refusal>,
}

/// A page of a channel's log.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// Ascending and dense.
    pub events: Vec<Arc<StoredEvent>>,
    /// The channel's head when it was read.
    pub head: Sequence,
    /// The oldest sequence still there and open to the caller.
    pub first_retained: Sequence,
}

/// One Send stream: its leases, and where it must go on after a refusal.
///
/// That place is the stream's and not the device's. A stream's order is what the device says on it, and between two streams it
/// says none. It may well have two: its old connection died without a word, the gateway still works on what came there, and the
/// device has started over on the next with its oldest message that has no receipt (PROTOCOL 6). Then the log keeps its order,
/// since on either stream nothing is accepted whose forerunners were not, by this stream or, as a repeat of the same id, by the
/// other. To refuse the second stream would shut the device out until the gateway notices the death of the first, and a place that
/// outlives its stream would hold a channel back for ever when a device gives the refused message up.
pub struct Sender {
    operations: Operations,
    caller: Caller,
    leases: HashMap<ChannelId, Standing>,
    refused: HashMap<ChannelId, IdempotencyId>,
    watch: Watch,
    _open: (OpenStream, StreamPlace),
}

struct Standing {
    lease: Lease,
    expiry: Option<Timestamp>,
}

/// A message on its way through one batch.
enum Step {
    Ready { unit: Box<Unit>, policy_version: u64, epoch: Epoch },
    Done(Result<Receipt, Refusal>),
}

impl Step {
    const fn judged(&self) -> Judged {
        match self {
            Self::Ready { epoch, .. } => Judged::Ready(*epoch),
            Self::Done(Err(refusal)) if refusal.holds_back() => Judged::HeldBack,
            Self::Done(_) => Judged::Answered,
        }
    }
}

const ACTION: &str = "send";

impl Operations {
    /// A Send stream of the caller's.
    ///
    /// # Errors
    /// [`Refusal::ResourceExhausted`] if the device has as many as it may.
    pub async fn sender(&self, caller: &Caller) -> Result<Sender, Refusal> {
        let Some(place) = self.guard.streams.open(&caller.uri, Direction::Send) else {
            return Err(self.guard.refuse(&caller.uri, ACTION, None, Refusal::ResourceExhausted).await);
        };
        Ok(Sender {
            operations: self.clone(),
            caller: caller.clone(),
            leases: HashMap::new(),
            refused: HashMap::new(),
            watch: Watch::new(Arc::clone(&self.guard), caller, ACTION, Opening::StatesNothing),
            _open: (self.guard.statistics.open_send(), place),
        })
    }

    /// A page of a channel's log behind `after`, from the caller's own seat on; at most `events_max` events.
    ///
    /// # Errors
    /// [`Refusal`] as listed at `Messages.History` in the contract.
    pub async fn history(
        &self,
        caller: &Caller,
        channel: ChannelId,
        after: Sequence,
        events_max: usize,
    ) -> Result<HistoryPage, Refusal> {
        const ACTION: &str = "history";
        // Only what happens now has the strength.
        if self.guard.pressure.level() >= Level::Strained {
            return Err(self.guard.refuse(&caller.uri, ACTION, None, Refusal::ResourceExhausted).await);
        }
        let facts = self.audited_facts(caller, ACTION, channel).await?;
        let permit = self.guard.engine.read_history(&self.request(caller, facts.as_ref()));
        let permit = self.permitted(caller, ACTION, facts.as_ref(), permit).await?;
        let event = AuditEvent::HistoryRead { after: after.0 };
        self.guard.record_read(event, &caller.uri, Some(channel), permit.policy_version()).await?;
        let (store, device) = (Arc::clone(&self.guard.store), caller.uri.clone());
        let page = self.guard.blocking(move || {
            let head = store.head(&channel)?.ok_or(Refusal::ChannelNotAvailable)?;
            let joined = head.in_channel_since(&device).ok_or(Refusal::NotMember)?;
            let from = after.max(Sequence(joined.0.saturating_sub(1)));
            let events_max = events_max.min(LIMITS.history_events_max);
            let page = store.read(&channel, from, events_max, LIMITS.frame_bytes_max)?;
            let first_retained = page.first_retained.max(joined);
            Ok::<_, Refusal>(HistoryPage { events: page.events, head: page.head, first_retained })
        });
        match page.await? {
            Ok(page) => Ok(page),
            Err(refusal) => Err(self.guard.refuse(&caller.uri, ACTION, Some(channel), refusal).await),
        }
    }
}

impl Sender {
    /// Waits until the stream must end although nobody says anything, and gives the reason. Cancel-safe up to that moment.
    pub async fn ended(&mut self) -> Refusal {
        self.watch.ended().await
    }

    /// Waits for the device's turns to have so many messages looked at. The stream waits with it; whatever ends the stream should
    /// end the wait.
    pub fn turn_to_send(&self, count: usize) -> impl Future<Output = ()> + Send + 'static {
        let (guard, device) = (Arc::clone(&self.operations.guard), self.caller.uri.clone());
        async move { guard.pace_messages(&device, count).await }
    }

    /// Sends what is ready, in order, with one durability point (one more where a channel's epoch moves meanwhile). Each
    /// message is answered, in the order given.
    ///
    /// After a refusal that may be tried again, later messages of that channel are answered
    /// [`Refusal::BehindRefused`] until the refused one comes again under its id.
    pub async fn send(&mut self, batch: Vec<Outgoing>) -> Vec<Sent> {
        let mut sent = Vec::with_capacity(batch.len());
        let mut run = Run::default();
        for message in batch {
            let mut step = self.prepare(&message).await;
            if !run.takes(&message.channel, step.judged()) {
                sent.extend(self.finish(std::mem::take(&mut run)).await);
                // What is behind a refusal looks otherwise now.
                step = self.prepare(&message).await;
            }
            if let Step::Done(Err(refusal)) = &step {
                self.hold_back(message.channel, message.id, refusal);
            }
            run.push(message.id, message.channel, step.judged(), step);
        }
        sent.extend(self.finish(run).await);
        sent
    }

    async fn finish(&mut self, run: Run<Step>) -> Vec<Sent> {
        let outcomes = self.commit(run.steps).await;
        let mut sent = Vec::with_capacity(outcomes.len());
        for ((id, channel), outcome) in run.messages.into_iter().zip(outcomes) {
            let outcome = self.settle(id, channel, outcome).await;
            sent.push(Sent { id, outcome });
        }
        sent
    }

    /// Lease, frame and head of one message. A refusal is final only after the repeat has been looked up.
    async fn prepare(&mut self, message: &Outgoing) -> Step {
        let mls_hash = Digest::sha256(&message.mls);
        let scope = Idempotency {
            device: self.caller.uri.clone(),
            channel: Some(message.channel),
            call: ACTION,
            id: message.id,
            bytes_hash: mls_hash,
        };
        match self.try_prepare(message, mls_hash, scope.clone()).await {
            Ok((unit, policy_version, epoch)) => Step::Ready { unit: Box::new(unit), policy_version, epoch },
            Err(refusal) => match self.operations.guard.repeat(&scope) {
                Ok(Some(accepted)) => Step::Done(Ok(Receipt::of(&accepted, 0))),
                Ok(None) => Step::Done(Err(refusal)),
                Err(other) => Step::Done(Err(other)),
            },
        }
    }

    async fn try_prepare(
        &mut self,
        message: &Outgoing,
        mls_hash: Digest,
        scope: Idempotency,
    ) -> Result<(Unit, u64, Epoch), Refusal> {
        if self.refused.get(&message.channel).is_some_and(|refused| *refused != message.id) {
            return Err(Refusal::BehindRefused);
        }
        let (permit, expiry) = self.draw(message.channel).await?;
        let guard = &self.operations.guard;
        let head: Arc<ChannelHead> = guard.store.head(&message.channel)?.ok_or(Refusal::ChannelNotAvailable)?;
        let new = NewMessage { mls: message.mls.clone(), mls_hash };
        let write = prepare_message(&*guard.store, &permit, &head, new, expiry)?;
        let event = AuditEvent::MessageAccepted { epoch: head.epoch, bytes: message.mls.len() };
        let version = permit.policy_version();
        let audit = guard.record(&event, Some(permit.caller()), Some(message.channel), None, version)?;
        Ok((unit(Some(write), Some(scope), Vec::new(), audit), version, head.epoch))
    }

    /// A permit from the channel's lease; a new lease if what it stands on has moved (PROTOCOL 6).
    async fn draw(&mut self, channel: ChannelId) -> Result<(Permit<SendMessage>, Option<Timestamp>), Refusal> {
        let now = self.operations.guard.now();
        self.watch.check()?;
        let generation = self.generation(channel)?;
        if let Some(standing) = self.leases.get(&channel)
            && let Ok(permit) = standing.lease.draw(generation, now)
        {
            return Ok((permit, standing.expiry));
        }
        self.leases.remove(&channel);
        let facts = self.operations.facts(&self.caller, channel).await?;
        let request = self.operations.request(&self.caller, facts.as_ref());
        let lease = self.operations.guard.engine.send_lease(&request, generation)?;
        let permit = lease.draw(generation, now).map_err(|_| Refusal::ChannelExpired)?;
        let expiry = facts.as_ref().and_then(|facts: &Facts| facts.expires);
        if self.leases.len() >= LIMITS.device_channels_max {
            self.leases.clear();
        }
        self.leases.insert(channel, Standing { lease, expiry });
        Ok((permit, expiry))
    }

    fn generation(&self, channel: ChannelId) -> Result<Generation, Refusal> {
        let guard = &self.operations.guard;
        let head = guard.store.head(&channel)?;
        let (epoch, proposal) =
            head.map_or_else(Default::default, |head| (head.epoch_sequence, head.proposal_sequence));
        Ok(generation_at(guard.callers.generation(), epoch, proposal))
    }

    async fn commit(&self, steps: Vec<Step>) -> Vec<Result<Receipt, Refusal>> {
        let mut units = Vec::with_capacity(steps.len());
        let mut pending = Vec::with_capacity(steps.len());
        for step in steps {
            match step {
                Step::Ready { unit, policy_version, .. } => {
                    units.push(*unit);
                    pending.push(Err(policy_version));
                }
                Step::Done(outcome) => pending.push(Ok(outcome)),
            }
        }
        let mut outcomes = if units.is_empty() {
            Vec::new().into_iter()
        } else {
            self.operations.guard.commit_many(&self.caller.uri, units).await.into_iter()
        };
        let mut results = Vec::with_capacity(pending.len());
        for one in pending {
            results.push(match one {
                Ok(outcome) => outcome,
                Err(policy_version) => {
                    let outcome = outcomes.next().unwrap_or(Err(Refused::Unavailable));
                    outcome.map(|accepted| self.accept(&accepted, policy_version)).map_err(Refusal::from)
                }
            });
        }
        results
    }

    fn accept(&self, accepted: &Accepted, policy_version: u64) -> Receipt {
        if !accepted.is_repeat {
            self.operations.guard.statistics.message();
        }
        Receipt::of(accepted, policy_version)
    }

    async fn settle(
        &mut self,
        id: IdempotencyId,
        channel: ChannelId,
        outcome: Result<Receipt, Refusal>,
    ) -> Result<Receipt, Refusal> {
        match outcome {
            Ok(receipt) => {
                if self.refused.get(&channel) == Some(&id) {
                    self.refused.remove(&channel);
                }
                Ok(receipt)
            }
            Err(refusal) => {
                self.hold_back(channel, id, &refusal);
                let named = (refusal != Refusal::ChannelNotAvailable).then_some(channel);
                Err(self.operations.guard.refuse(&self.caller.uri, ACTION, named, refusal).await)
            }
        }
    }

    /// Remembers the first refused message of a channel that may be tried again; forgets it when its refusal is final.
    fn hold_back(&mut self, channel: ChannelId, id: IdempotencyId, refusal: &Refusal) {
        if !refusal.holds_back() {
            if self.refused.get(&channel) == Some(&id) {
                self.refused.remove(&channel);
            }
            return;
        }
        if *refusal != Refusal::BehindRefused && self.refused.len() < LIMITS.device_channels_max {
            self.refused.entry(channel).or_insert(id);
        }
    }
}

/// Rises with the federation, and with the channel's epoch and waiting proposals, that is with its membership: by the places
/// in the log where the epoch began and where the last proposal lies.
fn generation_at(federation: u64, epoch: Sequence, proposal: Sequence) -> Generation {
    Generation(federation.wrapping_shl(40).wrapping_add(epoch.max(proposal).0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_judged_again_after_every_change_that_it_stands_on() {
        let none = Sequence(0);
        let history = [
            ("before the channel is there", generation_at(1, none, none)),
            ("it starts", generation_at(1, Sequence(1), none)),
            ("somebody wants to leave", generation_at(1, Sequence(1), Sequence(7))),
            ("somebody else, too", generation_at(1, Sequence(1), Sequence(9))),
            ("a commit takes them out", generation_at(1, Sequence(10), none)),
            ("the federation is replaced", generation_at(2, Sequence(10), none)),
            ("the next commit", generation_at(2, Sequence(11), none)),
        ];
        for pair in history.windows(2) {
            assert!(pair[0].1 < pair[1].1, "{} and then {}", pair[0].0, pair[1].0);
        }
    }
}
