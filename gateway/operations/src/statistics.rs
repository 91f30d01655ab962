//! Figures for the operator: counters without identities.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since start.
#[derive(Debug, Default)]
pub struct Statistics {
    messages_accepted: AtomicU64,
    commits_accepted: AtomicU64,
    refusals: AtomicU64,
    handshake_refusals: AtomicU64,
    reloads: AtomicU64,
    reload_refusals: AtomicU64,
    trust_rereads: AtomicU64,
    receive_streams: AtomicU64,
    send_streams: AtomicU64,
    streams_cut_off: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatisticsView {
    /// Application messages accepted.
    pub messages_accepted: u64,
    /// Starts, commits and leave proposals accepted.
    pub commits_accepted: u64,
    /// Requests of known callers refused.
    pub refusals: u64,
    /// Connections refused before a caller was known.
    pub handshake_refusals: u64,
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
}

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

    pub(crate) fn refusal(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn handshake_refusal(&self) {
        self.handshake_refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// A face ended a stream whose client took nothing for too long.
    pub fn stream_cut_off(&self) {
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

    /// The counters now.
    pub fn view(&self) -> StatisticsView {
        StatisticsView {
            messages_accepted: self.messages_accepted.load(Ordering::Relaxed),
            commits_accepted: self.commits_accepted.load(Ordering::Relaxed),
            refusals: self.refusals.load(Ordering::Relaxed),
            handshake_refusals: self.handshake_refusals.load(Ordering::Relaxed),
            reloads: self.reloads.load(Ordering::Relaxed),
            reload_refusals: self.reload_refusals.load(Ordering::Relaxed),
            trust_rereads: self.trust_rereads.load(Ordering::Relaxed),
            receive_streams: self.receive_streams.load(Ordering::Relaxed),
            send_streams: self.send_streams.load(Ordering::Relaxed),
            streams_cut_off: self.streams_cut_off.load(Ordering::Relaxed),
        }
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
