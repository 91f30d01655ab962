//! A zone in service: a bounded queue, one committer thread behind it, and reads beside it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use bytes::Bytes;
use lianxin_types::{ChannelId, Clock, DeviceUri, Digest, Sequence, Timestamp, ZoneId};
use tokio::sync::{broadcast, oneshot};

use crate::committer::Committer;
use crate::engine::Engine;
use crate::ledger::Ledger;
use crate::unit::{Idempotency, Outcome, Refused, Unit};
use crate::zone_store::{
    AuditRecord, Caps, ChannelHead, CommitFuture, GroupSnapshot, Health, InboxEntry, Page, StoreError, StoredEvent,
    ZoneStore,
};

/// Bounds of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZoneOptions {
    /// Records after which a bucket ends; a week ends it too.
    pub bucket_records_max: u64,
    /// Units committed with one durability point.
    pub batch_units_max: usize,
    /// Units that may wait for the committer.
    pub queue_units_max: usize,
    /// Events that a receiver of the tail may be behind before it lags.
    pub tail_events_max: usize,
}

impl Default for ZoneOptions {
    fn default() -> Self {
        Self { bucket_records_max: 250_000, batch_units_max: 1_024, queue_units_max: 16_384, tail_events_max: 4_096 }
    }
}

struct Job {
    units: Vec<Unit>,
    reply: oneshot::Sender<Vec<Outcome>>,
}

/// [`ZoneStore`] over an [`Engine`]. Dropping it commits what is queued and ends the thread.
pub struct Zone<E: Engine> {
    ledger: Arc<Ledger<E>>,
    options: ZoneOptions,
    queue: Option<mpsc::Sender<Job>>,
    queued: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl<E: Engine> Zone<E> {
    /// Opens the zone and starts its committer.
    ///
    /// # Errors
    /// [`StoreError`] if the engine failed, the journal is damaged or shorter than what was acknowledged, or there is no
    /// thread to be had.
    pub fn open(zone: ZoneId, engine: E, clock: Arc<dyn Clock>, options: ZoneOptions) -> Result<Self, StoreError> {
        let name = format!("zone-{zone}");
        let committer = Committer::open(zone, engine, options)?;
        let ledger = Arc::clone(&committer.ledger);
        let (queue, jobs) = mpsc::channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let drive =
            Driver { committer, jobs, queued: Arc::clone(&queued), clock, batch_units_max: options.batch_units_max };
        let thread = std::thread::Builder::new().name(name.clone()).spawn(move || drive.run());
        let thread = thread.map_err(|source| StoreError::Io { operation: "start thread", path: name, source })?;
        Ok(Self { ledger, options, queue: Some(queue), queued, thread: Some(thread) })
    }

    fn refuse(units: usize, refused: &Refused) -> CommitFuture {
        let outcomes = vec![Err(refused.clone()); units];
        Box::pin(async { outcomes })
    }
}

struct Driver<E: Engine> {
    committer: Committer<E>,
    jobs: mpsc::Receiver<Job>,
    queued: Arc<AtomicUsize>,
    clock: Arc<dyn Clock>,
    batch_units_max: usize,
}

impl<E: Engine> Driver<E> {
    /// Group commit: whatever waits when the last batch is done becomes the next one.
    fn run(mut self) {
        while let Ok(first) = self.jobs.recv() {
            let mut units = first.units;
            let mut replies = vec![(units.len(), first.reply)];
            while units.len() < self.batch_units_max {
                let Ok(job) = self.jobs.try_recv() else { break };
                replies.push((job.units.len(), job.reply));
                units.extend(job.units);
            }
            let count = units.len();
            let mut outcomes = self.committer.step(units, self.clock.now()).into_iter();
            self.queued.fetch_sub(count, Ordering::AcqRel);
            for (count, reply) in replies {
                // Who dropped the future does not want to know.
                let _ = reply.send(outcomes.by_ref().take(count).collect());
            }
        }
    }
}

impl<E: Engine> Drop for Zone<E> {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // The thread catches panics of the committer; there is nothing to add to one here.
            let _ = thread.join();
        }
    }
}

impl<E: Engine> ZoneStore for Zone<E> {
    fn zone(&self) -> &ZoneId {
        &self.ledger.zone
    }

    fn caps(&self) -> Caps {
        self.ledger.engine.caps()
    }

    fn commit_many(&self, units: Vec<Unit>) -> CommitFuture {
        let count = units.len();
        let (Some(queue), None) = (&self.queue, self.ledger.fault()) else {
            return Self::refuse(count, &Refused::Unavailable);
        };
        let limit = self.options.queue_units_max;
        if self.queued.fetch_add(count, Ordering::AcqRel) + count > limit {
            self.queued.fetch_sub(count, Ordering::AcqRel);
            return Self::refuse(count, &Refused::LimitReached { what: "queued units", limit: limit as u64 });
        }
        let (reply, answer) = oneshot::channel();
        if queue.send(Job { units, reply }).is_err() {
            return Self::refuse(count, &Refused::Unavailable);
        }
        Box::pin(async move { answer.await.unwrap_or_else(|_| vec![Err(Refused::Unavailable); count]) })
    }

    fn repeat(&self, scope: &Idempotency) -> Result<Option<Outcome>, StoreError> {
        self.ledger.repeat(scope)
    }

    fn head(&self, channel: &ChannelId) -> Result<Option<Arc<ChannelHead>>, StoreError> {
        self.ledger.head(channel)
    }

    fn read(
        &self,
        channel: &ChannelId,
        after: Sequence,
        events_max: usize,
        bytes_max: usize,
    ) -> Result<Page, StoreError> {
        self.ledger.read(channel, after, events_max, bytes_max)
    }

    fn chain_at(&self, channel: &ChannelId, sequence: Sequence) -> Result<Option<Digest>, StoreError> {
        self.ledger.chain_at(channel, sequence)
    }

    fn tail(&self) -> broadcast::Receiver<Arc<StoredEvent>> {
        self.ledger.tail.subscribe()
    }

    fn channels_of(
        &self,
        device: &DeviceUri,
        after: Option<&ChannelId>,
        limit: usize,
    ) -> Result<Vec<ChannelId>, StoreError> {
        self.ledger.channels_of(device, after, limit)
    }

    fn inbox(&self, device: &DeviceUri, after: u64, limit: usize) -> Result<Vec<InboxEntry>, StoreError> {
        self.ledger.inbox(device, after, limit)
    }

    fn welcome_tree(&self, channel: &ChannelId, sequence: Sequence) -> Result<Option<Bytes>, StoreError> {
        self.ledger.welcome_tree(channel, sequence)
    }

    fn group_info(&self, channel: &ChannelId) -> Result<Option<Bytes>, StoreError> {
        self.ledger.group_info(channel)
    }

    fn group_snapshot(&self, channel: &ChannelId) -> Result<Option<GroupSnapshot>, StoreError> {
        self.ledger.group_snapshot(channel)
    }

    fn put_group_snapshot(&self, channel: &ChannelId, snapshot: GroupSnapshot) -> Result<(), StoreError> {
        self.ledger.put_group_snapshot(channel, &snapshot)
    }

    fn is_claimed(&self, channel: &ChannelId, reference: &Digest) -> Result<bool, StoreError> {
        self.ledger.is_claimed(channel, reference)
    }

    fn key_package_count(&self, owner: &DeviceUri, now: Timestamp) -> Result<(usize, bool), StoreError> {
        self.ledger.key_package_count(owner, now)
    }

    fn is_last_resort(&self, owner: &DeviceUri, reference: &Digest) -> Result<bool, StoreError> {
        self.ledger.is_last_resort(owner, reference)
    }

    fn cursor_merge(&self, device: &DeviceUri, cursors: &[(ChannelId, Sequence)]) -> Result<(), StoreError> {
        self.ledger.cursor_merge(device, cursors)
    }

    fn cursor(&self, device: &DeviceUri, channel: &ChannelId) -> Result<Sequence, StoreError> {
        self.ledger.cursor(device, channel)
    }

    fn audit_read(&self, from: u64, limit: usize) -> Result<Vec<AuditRecord>, StoreError> {
        self.ledger.audit_read(from, limit)
    }

    fn health(&self) -> Health {
        let fault = self.ledger.fault();
        Health {
            is_writable: fault.is_none(),
            queued_units: self.queued.load(Ordering::Acquire),
            leaf_count: self.ledger.leaf_count.load(Ordering::Acquire),
            fencing_number: self.ledger.engine.fencing_number(),
            fault,
        }
    }
}
