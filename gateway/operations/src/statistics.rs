//! Figures for the operator: counters without identities.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counters since start.
#[derive(Debug, Default)]
pub struct Statistics {
    messages_accepted: AtomicU64,
    commits_accepted: AtomicU64,
    refusals: Reasons,
    handshake_refusals: Reasons,
    reloads: AtomicU64,
    reload_refusals: AtomicU64,
    trust_rereads: AtomicU64,
    receive_streams: AtomicU64,
    send_streams: AtomicU64,
    streams_cut_off: AtomicU64,
    units_shed: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatisticsView {
    /// Application messages accepted.
    pub messages_accepted: u64,
    /// Starts, commits and leave proposals accepted.
    pub commits_accepted: u64,
    /// Requests refused, by reason code.
    pub refusals: BTreeMap<&'static str, u64>,
    /// Connections refused before a caller was known, by the listener's word for the reason.
    pub handshake_refusals: BTreeMap<&'static str, u64>,
    /// Reloads taken over.
    pub reloads: u64,
    /// Reloads refused.
    pub reload_refusals: u64,
    /// Times that bundle and revocation lists were read again without being told.
    pub trust_rereads: u64,
    /// Receive streams open now.
    pub receive_streams: u64,
    /// Send streams open now.
    pub send_streams: u64,
    /// Streams ended because their client took nothing for too long.
    pub streams_cut_off: u64,
    /// Units refused because their department's share of the committer's queue, or the queue, was full.
    pub units_shed: u64,
    /// Times that a subscriber's queue was full and its channel was moved to catch-up from the store.
    pub moved_to_catch_up: u64,
}

/// Counters by reason. There are as many as the sources name, since a reason is a word in the code.
#[derive(Debug, Default)]
struct Reasons(Mutex<BTreeMap<&'static str, u64>>);

/// Counts one open stream until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenStream {
    gate: std::sync::Arc<Statistics>,
    counter: fn(&Statistics) -> &AtomicU64,
}

impl Statistics {
    pub(crate) fn message(&self) {
        self.messages_accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn commit(&self) {
        self.commits_accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refusal(&self, reason: &'static str) {
        self.refusals.count(reason);
    }

    pub(crate) fn handshake_refusal(&self, reason: &'static str) {
        self.handshake_refusals.count(reason);
    }

    pub(crate) fn shed(&self, units: usize) {
        self.units_shed.fetch_add(units as u64, Ordering::Relaxed);
    }

    pub(crate) fn stream_cut_off(&self) {
        self.streams_cut_off.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn reload(&self) {
        self.reloads.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn reload_refusal(&self) {
        self.reload_refusals.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn trust_reread(&self) {
        self.trust_rereads.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn open_send(self: &std::sync::Arc<Self>) -> OpenStream {
        OpenStream::new(self, |statistics| &statistics.send_streams)
    }

    pub(crate) fn open_receive(self: &std::sync::Arc<Self>) -> OpenStream {
        OpenStream::new(self, |statistics| &statistics.receive_streams)
    }

    /// The counters now, without what the fan-out counts.
    pub(crate) fn view(&self) -> StatisticsView {
        StatisticsView {
            messages_accepted: self.messages_accepted.load(Ordering::Relaxed),
            commits_accepted: self.commits_accepted.load(Ordering::Relaxed),
            refusals: self.refusals.view(),
            handshake_refusals: self.handshake_refusals.view(),
            reloads: self.reloads.load(Ordering::Relaxed),
            reload_refusals: self.reload_refusals.load(Ordering::Relaxed),
            trust_rereads: self.trust_rereads.load(Ordering::Relaxed),
            receive_streams: self.receive_streams.load(Ordering::Relaxed),
            send_streams: self.send_streams.load(Ordering::Relaxed),
            streams_cut_off: self.streams_cut_off.load(Ordering::Relaxed),
            units_shed: self.units_shed.load(Ordering::Relaxed),
            moved_to_catch_up: 0,
        }
    }
}

impl Reasons {
    fn count(&self, reason: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    fn view(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl OpenStream {
    fn new(gate: &std::sync::Arc<Statistics>, counter: fn(&Statistics) -> &AtomicU64) -> Self {
        counter(gate).fetch_add(1, Ordering::Relaxed);
        Self { gate: std::sync::Arc::clone(gate), counter }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        (self.counter)(&self.gate).fetch_sub(1, Ordering::Relaxed);
    }
}
