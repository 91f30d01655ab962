//! What this device does with [`crate::proofs`]: a connection on which the log is kept back is ended, and what is kept back on the next
//! one, too, is a violation that the application is told, with what proves it.

use std::sync::{MutexGuard, PoisonError};

use lianxin_connection::{CallError, LogEntry, Problem, Receipt};
use lianxin_keystore::Transaction;
use lianxin_tlog::{EventKind, Head};
use lianxin_types::{ChannelId, Digest, IdempotencyId, Sequence, Timestamp};

use crate::drive::Drive;
use crate::event::keep;
use crate::evidence::{self, ViolationKind};
use crate::proofs::{Proofs, Withheld};
use crate::rows::IntentKind;
use crate::shared::News;
use crate::{ClientError, Event, changes, outbox, turns};

impl Drive {
    fn proofs(&self) -> MutexGuard<'_, Proofs> {
        self.shared.proofs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection begins.
    pub(crate) fn ask_for_proven(&self) {
        self.proofs().begin(self.shared.clock.monotonic());
    }

    /// When something that is proven is to have come.
    pub(crate) fn proven_by(&self) -> Option<lianxin_types::Monotonic> {
        self.proofs().next()
    }

    /// The gateway has accepted something.
    pub(crate) fn note_receipt(&mut self, channel: ChannelId, id: IdempotencyId, receipt: Receipt) {
        if self.heads.get(&channel).is_some_and(|head| *head < receipt.sequence) {
            self.proofs().accepted(channel, id, receipt, self.shared.clock.monotonic());
        }
    }

    /// The gateway has refused something.
    pub(crate) fn note_refusal(&mut self, channel: ChannelId, problem: &Problem) {
        if self.heads.get(&channel).is_some_and(|head| turns::is_to_be_read_first(problem, *head)) {
            self.proofs().goes_to(channel, problem.sequence, self.shared.clock.monotonic());
        }
    }

    /// The channel's log was read as far as `head`.
    pub(crate) fn note_head(&mut self, channel: ChannelId, head: Sequence) {
        self.heads.insert(channel, head);
        self.proofs().given(channel, head, self.shared.clock.monotonic());
    }

    /// Events of some channel have come. Those whose backlog is still to be read are not due.
    pub(crate) fn note_backlog(&self) {
        let now = self.shared.clock.monotonic();
        let mut proofs = self.proofs();
        for (channel, _) in self.lanes.iter().filter(|(_, lane)| !lane.has_caught_up()) {
            proofs.wait_for(*channel, now);
        }
    }

    /// Nothing of the log before is waited for any more.
    pub(crate) fn forget_proven(&mut self, channel: ChannelId) {
        self.heads.remove(&channel);
        self.proofs().forget(channel);
    }

    /// Events that give receipts the lie.
    pub(crate) fn contradicted(&self, events: &[LogEntry]) -> Vec<(LogEntry, Receipt)> {
        let proofs = self.proofs();
        events.iter().filter_map(|event| Some((event.clone(), proofs.contradicted(event)?))).collect()
    }

    /// Tells of them, once they are processed.
    pub(crate) async fn tell_contradicted(&mut self, found: Vec<(LogEntry, Receipt)>) -> Result<(), ClientError> {
        if found.is_empty() {
            return Ok(());
        }
        let device = self.shared.device.clone();
        let told = self.shared.transaction(move |tx, mls| {
            for (event, receipt) in found {
                let (channel, sequence, sender) = (event.channel, event.sequence, event.sender.clone());
                let detail = format!("the receipt for it, or for what this device sent, is of {}", receipt.sequence.0);
                let kind = ViolationKind::ReceiptMismatch;
                let Some(head) = mls.head(tx, channel)? else { continue };
                evidence::keep(tx, &device, &event, (kind, &detail), head)?;
                keep(tx, &Event::Violation { channel, sequence, sender, kind, detail })?;
            }
            Ok(())
        });
        told.await?;
        self.shared.bells.ring(&News::Events);
        Ok(())
    }

    /// The gateway says that there is no more of a channel.
    pub(crate) async fn compare_end(&mut self, channel: ChannelId, sequence: Sequence) -> Result<(), ClientError> {
        if self.proofs().is_cut_short(channel, sequence) {
            return self.withheld(channel).await;
        }
        match self.heads.get(&channel).copied() {
            Some(head) if head < sequence => self.missing(channel, head, sequence.next()).await,
            _ => Ok(()),
        }
    }

    /// What was to come by now has not.
    pub(crate) async fn look_after_proven(&mut self) -> Result<(), ClientError> {
        let due = self.proofs().due(self.shared.clock.monotonic());
        for channel in due {
            self.withheld(channel).await?;
        }
        Ok(())
    }

    async fn withheld(&mut self, channel: ChannelId) -> Result<(), ClientError> {
        let withheld = self.proofs().withheld(channel);
        let (sequence, proven) = match withheld {
            None => return Ok(()),
            Some(Withheld::AskAnew) => {
                let detail = "the gateway gives nothing of what it says that a log holds";
                return Err(CallError::Unknown { detail: detail.to_owned() }.into());
            }
            Some(Withheld::Tell(sequence, proven)) => (sequence, proven),
        };
        let (device, kind) = (self.shared.device.clone(), ViolationKind::Withheld);
        let detail = format!("by its own word the gateway has an event at {}, and gives nothing of it", sequence.0);
        let told = detail.clone();
        self.shared
            .transaction(move |tx, _| {
                let (mls, event_kind) = match proven {
                    Some((id, _)) => sent(tx, channel, id)?,
                    None => (Vec::new(), EventKind::Application),
                };
                let receipt = proven.map(|(_, receipt)| receipt);
                let event = LogEntry {
                    channel,
                    sequence,
                    kind: event_kind,
                    sender: device.clone(),
                    gateway_time: receipt.map_or(Timestamp(0), |receipt| receipt.gateway_time),
                    expiry: receipt.and_then(|receipt| receipt.expiry),
                    label_reference: Digest::ZERO,
                    mls: mls.into(),
                    leaf_index: receipt.map_or(0, |receipt| receipt.leaf_index),
                    leaf_hash: receipt.map_or(Digest::ZERO, |receipt| receipt.leaf_hash),
                    idempotency_id: proven.map_or(IdempotencyId([0; 16]), |(id, _)| id),
                };
                let chain_hash = receipt.and_then(|receipt| receipt.chain_hash).unwrap_or(Digest::ZERO);
                evidence::keep(tx, &device, &event, (kind, &told), Head { sequence, chain_hash })?;
                keep(tx, &Event::Violation { channel, sequence, sender: device, kind, detail: told })
            })
            .await?;
        self.stop_following(channel);
        self.gone(channel, detail).await
    }
}

/// What this device has sent under an id, and as what.
fn sent(tx: &Transaction<'_>, channel: ChannelId, id: IdempotencyId) -> Result<(Vec<u8>, EventKind), ClientError> {
    let kinds = [(IntentKind::Commit, EventKind::Commit), (IntentKind::Start, EventKind::Start)];
    for (kind, event_kind) in kinds {
        if let Some(intent) = changes::get(tx, channel, kind)?.filter(|intent| intent.id == id) {
            return Ok((intent.parts.into_iter().next().unwrap_or_default(), event_kind));
        }
    }
    Ok((outbox::bytes_of(tx, channel, id)?, EventKind::Application))
}
