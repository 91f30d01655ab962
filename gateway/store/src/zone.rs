//! A zone in service: a bounded queue, one committer thread behind it, and reads beside it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use bytes::Bytes;
use lianxin_types::{ChannelId, Clock, DeviceUri, Digest, Sequence, Timestamp, ZoneId, elsewhere};
use tokio::sync::{broadcast, oneshot};

use crate::commit_figures::CommitMeter;
use crate::committer::Committer;
use crate::engine::{Engine, Room};
use crate::keeper::{Keeper, Task};
use crate::ledger::Ledger;
use crate::unit::{Idempotency, Outcome, Refused, Unit};
use crate::zone_store::{
    AuditRecord, Caps, ChannelHead, CommitFuture, DropFuture, GroupSnapshot, Health, InboxEntry, Page, StoreError,
    StoredEvent, ZoneStore,
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
    /// Bytes of units ([`Unit::bytes`]) that may wait for the committer.
    pub queue_bytes_max: usize,
    /// Events that a receiver of the tail may be behind before it lags.
    pub tail_events_max: usize,
    /// Bytes that the state may take on the disk before it is ever rewritten, however few of them live.
    pub state_bytes_min: u64,
}

impl Default for ZoneOptions {
    fn default() -> Self {
        Self {
            bucket_records_max: 250_000,
            batch_units_max: 1_024,
            queue_units_max: 16_384,
            queue_bytes_max: 128 * 1024 * 1024,
            tail_events_max: 4_096,
            state_bytes_min: 64 * 1024 * 1024,
        }
    }
}

/// What the committer's thread is asked for.
enum Order {
    Commit(Job),
    /// To be told which buckets may be dropped, once a new snapshot of the state is complete.
    PrepareDrop(oneshot::Sender<u64>),
}

struct Job {
    units: Vec<Unit>,
    bytes: usize,
    reply: oneshot::Sender<Vec<Outcome>>,
}

/// Tasks that may wait for the keeper of closed buckets.
const KEEPER_TASKS_MAX: usize = 64;

/// [`ZoneStore`] over an [`Engine`]. Dropping it commits what is queued, leaves background work where it is, and ends the
/// threads.
pub struct Zone<E: Engine> {
    ledger: Arc<Ledger<E>>,
    options: ZoneOptions,
    queue: Option<mpsc::Sender<Order>>,
    queued: Arc<Queued>,
    meter: Arc<CommitMeter>,
    clock: Arc<dyn Clock>,
    /// The committer's, then the keeper's.
    threads: Vec<JoinHandle<()>>,
}

impl<E: Engine> Zone<E> {
    /// Opens the zone and starts its committer and the keeper of its closed buckets.
    ///
    /// # Errors
    /// [`StoreError`] if the engine failed, the journal is damaged or shorter than what was acknowledged, or there is no
    /// thread to be had.
    pub fn open(zone: ZoneId, engine: E, clock: Arc<dyn Clock>, options: ZoneOptions) -> Result<Self, StoreError> {
        let names = [format!("zone-{zone}"), format!("keeper-{zone}")];
        let committer = Committer::open(zone, engine, options)?;
        let ledger = Arc::clone(&committer.ledger);
        let (queue, orders) = mpsc::channel();
        let (tell, tasks) = mpsc::sync_channel(KEEPER_TASKS_MAX);
        let queued = Arc::new(Queued::default());
        let meter = Arc::new(CommitMeter::new());
        let drive = Driver {
            committer,
            orders,
            queued: Arc::clone(&queued),
            meter: Arc::clone(&meter),
            clock: Arc::clone(&clock),
            batch_units_max: options.batch_units_max,
            keeper: tell,
            preparing: Vec::new(),
            seen: (0, 0),
        };
        let keeper = Keeper { ledger: Arc::clone(&ledger), tasks };
        let mut zone = Self { ledger, options, queue: Some(queue), queued, meter, clock, threads: Vec::new() };
        let [first, second] = names;
        zone.start(first, move || drive.run())?;
        zone.start(second, move || keeper.run())?;
        Ok(zone)
    }

    fn start(&mut self, name: String, run: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
        let thread = std::thread::Builder::new().name(name.clone()).spawn(run);
        self.threads.push(thread.map_err(|source| StoreError::Io { operation: "start thread", path: name, source })?);
        Ok(())
    }

    fn refuse(units: usize, refused: &Refused) -> CommitFuture {
        let outcomes = vec![Err(refused.clone()); units];
        Box::pin(async { outcomes })
    }
}

/// What waits for the committer, or is with it.
#[derive(Default)]
struct Queued {
    units: AtomicUsize,
    bytes: AtomicUsize,
}

impl Queued {
    fn enter(&self, units: usize, bytes: usize, options: &ZoneOptions) -> Result<(), Refused> {
        let limit = options.queue_units_max;
        if self.units.fetch_add(units, Ordering::AcqRel) + units > limit {
            self.units.fetch_sub(units, Ordering::AcqRel);
            return Err(Refused::LimitReached { what: "queued units", limit: limit as u64 });
        }
        let limit = options.queue_bytes_max;
        if self.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes > limit {
            self.leave(units, bytes);
            return Err(Refused::LimitReached { what: "queued bytes", limit: limit as u64 });
        }
        Ok(())
    }

    fn leave(&self, units: usize, bytes: usize) {
        self.units.fetch_sub(units, Ordering::AcqRel);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}

struct Driver<E: Engine> {
    committer: Committer<E>,
    orders: mpsc::Receiver<Order>,
    queued: Arc<Queued>,
    meter: Arc<CommitMeter>,
    clock: Arc<dyn Clock>,
    batch_units_max: usize,
    keeper: mpsc::SyncSender<Task>,
    /// Who waits for the snapshot that is being written.
    preparing: Vec<oneshot::Sender<u64>>,
    /// First and last bucket that the keeper has been told of.
    seen: (u64, u64),
}

impl<E: Engine> Driver<E> {
    /// Until nobody is left to order anything. Background work gets a slice after every batch, and all the time when nothing
    /// waits.
    fn run(mut self) {
        loop {
            let order = if self.committer.has_work() {
                self.orders.try_recv()
            } else {
                self.orders.recv().map_err(|_| mpsc::TryRecvError::Disconnected)
            };
            match order {
                Err(mpsc::TryRecvError::Disconnected) => return,
                Err(mpsc::TryRecvError::Empty) => {}
                Ok(Order::Commit(job)) => self.commit(job),
                Ok(Order::PrepareDrop(reply)) => self.prepare_drop(reply),
            }
            self.committer.work();
            self.tell_keeper();
        }
    }

    /// Group commit: whatever waits when the last batch is done becomes the next one.
    fn commit(&mut self, first: Job) {
        let mut units = first.units;
        let mut bytes = first.bytes;
        let mut replies = vec![(units.len(), first.reply)];
        while units.len() < self.batch_units_max {
            match self.orders.try_recv() {
                Ok(Order::Commit(job)) => {
                    bytes += job.bytes;
                    replies.push((job.units.len(), job.reply));
                    units.extend(job.units);
                }
                Ok(Order::PrepareDrop(reply)) => self.prepare_drop(reply),
                Err(_) => break,
            }
        }
        let count = units.len();
        let begun = self.clock.monotonic();
        let outcomes = self.committer.step(units, self.clock.now());
        // Repeats and refusals write nothing.
        let written = outcomes.iter().flatten().filter(|accepted| !accepted.is_repeat).count();
        if written > 0 {
            self.meter.commit(written, self.clock.monotonic().since(begun));
        }
        let mut outcomes = outcomes.into_iter();
        self.queued.leave(count, bytes);
        for (count, reply) in replies {
            // Who dropped the future does not want to know.
            let _ = reply.send(outcomes.by_ref().take(count).collect());
        }
    }

    fn prepare_drop(&mut self, reply: oneshot::Sender<u64>) {
        self.committer.write_snapshot();
        self.preparing.push(reply);
    }

    /// Tells the keeper of buckets that closed or were dropped, and of who waits to hear which may be. A full queue loses
    /// nothing: the keeper looks at all buckets whenever it is told anything, and whose question is lost is told so.
    fn tell_keeper(&mut self) {
        let journal = &self.committer.ledger.journal;
        let seen = (journal.first_number(), journal.last().map_or(0, |last| last.bucket.number));
        if seen != self.seen {
            self.seen = seen;
            let _ = self.keeper.try_send(Task::Look);
        }
        if !self.committer.is_writing_snapshot() {
            for reply in self.preparing.drain(..) {
                let _ = self.keeper.try_send(Task::Report(reply));
            }
        }
    }
}

impl<E: Engine> Drop for Zone<E> {
    fn drop(&mut self) {
        drop(self.queue.take());
        self.ledger.is_closing.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // The threads catch panics of what they drive; there is nothing to add to one here.
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
        let bytes = units.iter().map(Unit::bytes).sum();
        if let Err(refused) = self.queued.enter(count, bytes, &self.options) {
            return Self::refuse(count, &refused);
        }
        let (reply, answer) = oneshot::channel();
        if queue.send(Order::Commit(Job { units, bytes, reply })).is_err() {
            return Self::refuse(count, &Refused::Unavailable);
        }
        let clock = Arc::clone(&self.clock);
        Box::pin(
            async move { elsewhere(&*clock, answer).await.unwrap_or_else(|_| vec![Err(Refused::Unavailable); count]) },
        )
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

    fn channels(&self, after: Option<&ChannelId>, limit: usize) -> Result<Vec<ChannelId>, StoreError> {
        self.ledger.channels(after, limit)
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

    fn has_reported(&self, channel: &ChannelId, commit: Sequence, reporter: &DeviceUri) -> Result<bool, StoreError> {
        self.ledger.has_reported(channel, commit, reporter)
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

    fn prepare_drop(&self) -> DropFuture {
        let unavailable = || StoreError::Unavailable { reason: "the zone is closing or fenced".to_owned() };
        let (reply, answer) = oneshot::channel();
        let is_ordered = match (&self.queue, self.ledger.fault()) {
            (Some(queue), None) => queue.send(Order::PrepareDrop(reply)).is_ok(),
            _ => false,
        };
        let clock = Arc::clone(&self.clock);
        Box::pin(async move {
            if is_ordered { elsewhere(&*clock, answer).await.map_err(|_| unavailable()) } else { Err(unavailable()) }
        })
    }

    fn health(&self) -> Health {
        let fault = self.ledger.fault();
        let room = self.ledger.engine.room();
        Health {
            is_writable: fault.is_none() && room == Room::Everything,
            room,
            queued_units: self.queued.units.load(Ordering::Acquire),
            queued_bytes: self.queued.bytes.load(Ordering::Acquire),
            queue_units_max: self.options.queue_units_max,
            leaf_count: self.ledger.leaf_count.load(Ordering::Acquire),
            last_time: Timestamp(self.ledger.last_time.load(Ordering::Acquire)),
            fencing_number: self.ledger.engine.fencing_number(),
            commits: self.meter.view(),
            fault,
            journal: self.ledger.journal_health(),
            is_quarantined: false,
        }
    }
}
