//! A zone that opens itself again after a fault: the fence costs some moments, never the process (PROTOCOL 10).

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use lianxin_types::{ChannelId, DeviceUri, Digest, Sequence, Timestamp, ZoneId};
use tokio::sync::broadcast;

use crate::unit::{Idempotency, Outcome, Refused, Unit};
use crate::zone_store::{
    AuditRecord, Caps, ChannelHead, CommitFuture, DropFuture, GroupSnapshot, Health, InboxEntry, Page, StoreError,
    StoredEvent, ZoneStore,
};

/// Opens the zone anew; keeps nothing of what it opened, so that dropping the store closes the zone.
pub type Opener = Box<dyn Fn() -> Result<Arc<dyn ZoneStore>, StoreError> + Send + Sync>;

/// Between the fault and the first attempt, so that a fault that comes back at once does not keep a processor busy.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Between two attempts at most.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How often the zone is looked at when nobody has met a fault. A look without one makes the next pause short again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// [`ZoneStore`] over one that is dropped at a fault and opened again by a thread of its own. Meanwhile reads are
/// [`StoreError::Unavailable`] and writes are [`Refused::Unavailable`]. Dropping it ends the thread and closes the zone.
pub struct Reopening {
    zone: ZoneId,
    caps: Caps,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What callers share with the thread.
struct Shared {
    /// Read for the length of a call: it is closed when the calls in it are through.
    place: RwLock<Place>,
    signal: Mutex<Signal>,
    changed: Condvar,
}

enum Place {
    Open(Arc<dyn ZoneStore>),
    Closed {
        /// As it was when it was closed.
        health: Box<Health>,
        /// Its receivers wait until the zone is open again, and ask again then.
        next: broadcast::Sender<Arc<StoredEvent>>,
    },
}

#[derive(Default)]
struct Signal {
    is_closing: bool,
    /// Somebody has met a fault.
    is_woken: bool,
}

impl Reopening {
    /// Opens the zone and starts the thread that keeps it open.
    ///
    /// # Errors
    /// What `opener` says of the first attempt; [`StoreError::Io`] if there is no thread to be had.
    pub fn open(opener: Opener) -> Result<Self, StoreError> {
        let store = opener()?;
        let (zone, caps) = (store.zone().clone(), store.caps());
        Self::begin(zone, caps, Place::Open(store), opener)
    }

    /// As [`Reopening::open`], but a zone that is quarantined, or whose disk is too full to open it, is closed and tried again
    /// now and then: it opens when the operator has done what is to be done.
    ///
    /// # Errors
    /// As [`Reopening::open`], apart from [`StoreError::Quarantined`] and a [`StoreError::Io`] for want of space.
    pub fn open_or_wait(zone: ZoneId, caps: Caps, opener: Opener) -> Result<Self, StoreError> {
        let place = match opener() {
            Ok(store) => Place::Open(store),
            Err(error) if waits_for_an_operator(&error) => {
                tracing::error!(%zone, error = &error as &dyn std::error::Error, "zone is not served");
                Place::Closed { health: Box::new(Health::closed(&error)), next: broadcast::Sender::new(1) }
            }
            Err(error) => return Err(error),
        };
        Self::begin(zone, caps, place, opener)
    }

    fn begin(zone: ZoneId, caps: Caps, place: Place, opener: Opener) -> Result<Self, StoreError> {
        let place = RwLock::new(place);
        let shared = Arc::new(Shared { place, signal: Mutex::default(), changed: Condvar::new() });
        let keeper = Keeper { zone: zone.clone(), opener, shared: Arc::clone(&shared) };
        let name = format!("reopen-{zone}");
        let thread = std::thread::Builder::new().name(name.clone()).spawn(move || keeper.run());
        let thread = thread.map_err(|source| StoreError::Io { operation: "start thread", path: name, source })?;
        Ok(Self { zone, caps, shared, thread: Some(thread) })
    }

    fn with<T>(&self, call: impl FnOnce(&dyn ZoneStore) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let place = self.shared.place.read().unwrap_or_else(PoisonError::into_inner);
        let store = match &*place {
            Place::Open(store) => store,
            Place::Closed { health, .. } => {
                let reason = health.fault.clone().unwrap_or_else(|| "closed".to_owned());
                return Err(StoreError::Unavailable { reason });
            }
        };
        let answer = call(&**store);
        if matches!(answer, Err(StoreError::Unavailable { .. })) {
            self.shared.wake();
        }
        answer
    }
}

impl Drop for Reopening {
    fn drop(&mut self) {
        self.shared.signal().is_closing = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // Panics of the opener are caught in it; there is nothing to add to one here.
            let _ = thread.join();
        }
        // A future may still hold what is shared; the zone is closed all the same.
        self.shared.close();
    }
}

impl Shared {
    fn signal(&self) -> MutexGuard<'_, Signal> {
        self.signal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the thread that there may be a fault.
    fn wake(&self) {
        self.signal().is_woken = true;
        self.changed.notify_all();
    }

    /// Waits for a fault to look at, at most `time`; whether nobody met one, or `None` at the end.
    fn wait_for_fault(&self, time: Duration) -> Option<bool> {
        let waited =
            self.changed.wait_timeout_while(self.signal(), time, |signal| !signal.is_closing && !signal.is_woken);
        let (mut signal, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        signal.is_woken = false;
        if signal.is_closing { None } else { Some(timeout.timed_out()) }
    }

    /// Waits for `time`; `None` at the end.
    fn pause(&self, time: Duration) -> Option<()> {
        let waited = self.changed.wait_timeout_while(self.signal(), time, |signal| !signal.is_closing);
        let (signal, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if signal.is_closing { None } else { Some(()) }
    }

    fn health(&self) -> Health {
        match &*self.place.read().unwrap_or_else(PoisonError::into_inner) {
            Place::Open(store) => store.health(),
            Place::Closed { health, .. } => Health::clone(health),
        }
    }

    /// Takes the zone out of service once the calls in it are through, and closes it.
    fn close(&self) {
        let mut place = self.place.write().unwrap_or_else(PoisonError::into_inner);
        let Place::Open(store) = &*place else { return };
        let health = Health { is_writable: false, queued_units: 0, queued_bytes: 0, ..store.health() };
        let before =
            std::mem::replace(&mut *place, Place::Closed { health: Box::new(health), next: broadcast::Sender::new(1) });
        // Who calls now is told so instead of waiting for the files to be closed.
        drop(place);
        if catch_unwind(AssertUnwindSafe(|| drop(before))).is_err() {
            tracing::error!("closing a fenced zone panicked");
        }
    }

    /// Takes note that the zone does not open; whether that was known already.
    fn not_opened(&self, error: &StoreError) -> bool {
        let mut place = self.place.write().unwrap_or_else(PoisonError::into_inner);
        let Place::Closed { health, .. } = &mut *place else { return false };
        let was_quarantined = health.is_quarantined;
        health.is_quarantined = matches!(error, StoreError::Quarantined { .. });
        health.fault = Some(error.to_string());
        was_quarantined && health.is_quarantined
    }

    fn install(&self, store: Arc<dyn ZoneStore>) {
        let mut place = self.place.write().unwrap_or_else(PoisonError::into_inner);
        *place = Place::Open(store);
    }
}

fn waits_for_an_operator(error: &StoreError) -> bool {
    match error {
        StoreError::Quarantined { .. } => true,
        StoreError::Io { source, .. } => matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded),
        _ => false,
    }
}

/// The thread that keeps the zone open.
struct Keeper {
    zone: ZoneId,
    opener: Opener,
    shared: Arc<Shared>,
}

impl Keeper {
    fn run(self) {
        let mut pause = PAUSE_MIN;
        while let Some(is_quiet) = self.shared.wait_for_fault(LOOK_EVERY) {
            if self.shared.health().fault.is_none() {
                if is_quiet {
                    pause = PAUSE_MIN;
                }
                continue;
            }
            self.shared.close();
            loop {
                let Some(()) = self.shared.pause(pause) else { return };
                pause = (pause * 2).min(PAUSE_MAX);
                if self.attempt() {
                    break;
                }
            }
        }
    }

    /// Whether the zone is open again.
    fn attempt(&self) -> bool {
        match catch_unwind(AssertUnwindSafe(&self.opener)) {
            Ok(Ok(store)) => {
                tracing::info!(zone = %self.zone, "fenced zone is open again");
                self.shared.install(store);
                return true;
            }
            // Said once: it will take its time.
            Ok(Err(error)) if self.shared.not_opened(&error) => {}
            Ok(Err(error)) => {
                tracing::error!(zone = %self.zone, error = &error as &dyn std::error::Error, "zone does not open again");
            }
            Err(_) => tracing::error!(zone = %self.zone, "opening the zone again panicked"),
        }
        false
    }
}

impl ZoneStore for Reopening {
    fn zone(&self) -> &ZoneId {
        &self.zone
    }

    fn caps(&self) -> Caps {
        self.caps
    }

    fn commit_many(&self, units: Vec<Unit>) -> CommitFuture {
        let count = units.len();
        let place = self.shared.place.read().unwrap_or_else(PoisonError::into_inner);
        let Place::Open(store) = &*place else {
            return Box::pin(async move { vec![Err(Refused::Unavailable); count] });
        };
        let (outcomes, shared) = (store.commit_many(units), Arc::downgrade(&self.shared));
        Box::pin(async move {
            let outcomes = outcomes.await;
            if outcomes.contains(&Err(Refused::Unavailable))
                && let Some(shared) = shared.upgrade()
            {
                shared.wake();
            }
            outcomes
        })
    }

    fn repeat(&self, scope: &Idempotency) -> Result<Option<Outcome>, StoreError> {
        self.with(|store| store.repeat(scope))
    }

    fn head(&self, channel: &ChannelId) -> Result<Option<Arc<ChannelHead>>, StoreError> {
        self.with(|store| store.head(channel))
    }

    fn read(
        &self,
        channel: &ChannelId,
        after: Sequence,
        events_max: usize,
        bytes_max: usize,
    ) -> Result<Page, StoreError> {
        self.with(|store| store.read(channel, after, events_max, bytes_max))
    }

    fn chain_at(&self, channel: &ChannelId, sequence: Sequence) -> Result<Option<Digest>, StoreError> {
        self.with(|store| store.chain_at(channel, sequence))
    }

    /// The open zone's tail. It closes when the zone does; one asked for meanwhile closes when the zone is open again.
    fn tail(&self) -> broadcast::Receiver<Arc<StoredEvent>> {
        match &*self.shared.place.read().unwrap_or_else(PoisonError::into_inner) {
            Place::Open(store) => store.tail(),
            Place::Closed { next, .. } => next.subscribe(),
        }
    }

    fn channels_of(
        &self,
        device: &DeviceUri,
        after: Option<&ChannelId>,
        limit: usize,
    ) -> Result<Vec<ChannelId>, StoreError> {
        self.with(|store| store.channels_of(device, after, limit))
    }

    fn channels(&self, after: Option<&ChannelId>, limit: usize) -> Result<Vec<ChannelId>, StoreError> {
        self.with(|store| store.channels(after, limit))
    }

    fn inbox(&self, device: &DeviceUri, after: u64, limit: usize) -> Result<Vec<InboxEntry>, StoreError> {
        self.with(|store| store.inbox(device, after, limit))
    }

    fn welcome_tree(&self, channel: &ChannelId, sequence: Sequence) -> Result<Option<Bytes>, StoreError> {
        self.with(|store| store.welcome_tree(channel, sequence))
    }

    fn group_info(&self, channel: &ChannelId) -> Result<Option<Bytes>, StoreError> {
        self.with(|store| store.group_info(channel))
    }

    fn group_snapshot(&self, channel: &ChannelId) -> Result<Option<GroupSnapshot>, StoreError> {
        self.with(|store| store.group_snapshot(channel))
    }

    fn put_group_snapshot(&self, channel: &ChannelId, snapshot: GroupSnapshot) -> Result<(), StoreError> {
        self.with(|store| store.put_group_snapshot(channel, snapshot))
    }

    fn is_claimed(&self, channel: &ChannelId, reference: &Digest) -> Result<bool, StoreError> {
        self.with(|store| store.is_claimed(channel, reference))
    }

    fn key_package_count(&self, owner: &DeviceUri, now: Timestamp) -> Result<(usize, bool), StoreError> {
        self.with(|store| store.key_package_count(owner, now))
    }

    fn is_last_resort(&self, owner: &DeviceUri, reference: &Digest) -> Result<bool, StoreError> {
        self.with(|store| store.is_last_resort(owner, reference))
    }

    fn has_reported(&self, channel: &ChannelId, commit: Sequence, reporter: &DeviceUri) -> Result<bool, StoreError> {
        self.with(|store| store.has_reported(channel, commit, reporter))
    }

    fn cursor_merge(&self, device: &DeviceUri, cursors: &[(ChannelId, Sequence)]) -> Result<(), StoreError> {
        self.with(|store| store.cursor_merge(device, cursors))
    }

    fn cursor(&self, device: &DeviceUri, channel: &ChannelId) -> Result<Sequence, StoreError> {
        self.with(|store| store.cursor(device, channel))
    }

    fn audit_read(&self, from: u64, limit: usize) -> Result<Vec<AuditRecord>, StoreError> {
        self.with(|store| store.audit_read(from, limit))
    }

    fn prepare_drop(&self) -> DropFuture {
        match self.with(|store| Ok(store.prepare_drop())) {
            Ok(future) => future,
            Err(error) => Box::pin(async move { Err(error) }),
        }
    }

    fn health(&self) -> Health {
        self.shared.health()
    }
}
