//! What stands between the fan-out and one subscriber: a bounded queue of shared frames, and marks for what did not fit.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use lianxin_store::StoredEvent;
use lianxin_tlog::EventKind;
use lianxin_types::{ChannelId, Sequence};
use tokio::sync::{Notify, mpsc};

/// Consecutive events of one channel, the same for every subscriber. A commit is always the last of its frame, so that
/// nothing that follows a removal is in a frame that the removed device may still see.
#[derive(Debug)]
pub struct Frame {
    channel: ChannelId,
    events: Vec<Arc<StoredEvent>>,
    encoded: OnceLock<Bytes>,
}

impl Frame {
    /// Splits consecutive events of one channel into frames.
    pub(crate) fn split(events: Vec<Arc<StoredEvent>>) -> Vec<Arc<Self>> {
        let mut frames = Vec::new();
        let mut open: Vec<Arc<StoredEvent>> = Vec::new();
        for event in events {
            let is_last = event.kind == EventKind::Commit;
            open.push(event);
            if is_last {
                frames.extend(Self::of(std::mem::take(&mut open)));
            }
        }
        frames.extend(Self::of(open));
        frames
    }

    fn of(events: Vec<Arc<StoredEvent>>) -> Option<Arc<Self>> {
        let channel = events.first()?.channel;
        Some(Arc::new(Self { channel, events, encoded: OnceLock::new() }))
    }

    /// The channel of all its events.
    pub fn channel(&self) -> &ChannelId {
        &self.channel
    }

    /// Ascending and dense, at least one.
    pub fn events(&self) -> &[Arc<StoredEvent>] {
        &self.events
    }

    /// The frame as sent, encoded by the first subscriber that needs it and shared by all others.
    pub fn encoded(&self, encode: impl FnOnce(&[Arc<StoredEvent>]) -> Bytes) -> Bytes {
        self.encoded.get_or_init(|| encode(&self.events)).clone()
    }

    pub(crate) fn first(&self) -> Sequence {
        self.events.first().map_or(Sequence(0), |event| event.head.sequence)
    }

    pub(crate) fn last(&self) -> Sequence {
        self.events.last().map_or(Sequence(0), |event| event.head.sequence)
    }

    pub(crate) fn ends_with_commit(&self) -> bool {
        self.events.last().is_some_and(|event| event.kind == EventKind::Commit)
    }
}

/// Frames that one subscriber may have waiting.
const FRAMES_MAX: usize = 64;

/// The fan-out's end of a subscriber.
#[derive(Debug)]
pub(crate) struct Mailbox {
    frames: mpsc::Sender<Arc<Frame>>,
    behind: Mutex<BTreeSet<ChannelId>>,
    inbox: AtomicBool,
    wake: Notify,
}

impl Mailbox {
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<Arc<Frame>>) {
        let (frames, receiver) = mpsc::channel(FRAMES_MAX);
        let mailbox = Self {
            frames,
            behind: Mutex::new(BTreeSet::new()),
            inbox: AtomicBool::new(true),
            wake: Notify::new(),
        };
        (Arc::new(mailbox), receiver)
    }

    /// Hands over a frame, or marks its channel for catch-up from the store: a slow subscriber costs one mark.
    pub(crate) fn offer(&self, frame: &Arc<Frame>) {
        if self.frames.try_send(Arc::clone(frame)).is_err() {
            self.mark_behind(*frame.channel());
        }
    }

    /// The subscriber must read this channel from the store.
    pub(crate) fn mark_behind(&self, channel: ChannelId) {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner).insert(channel);
        self.wake.notify_one();
    }

    /// The subscriber must look into its inbox.
    pub(crate) fn mark_inbox(&self) {
        self.inbox.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    pub(crate) fn take_behind(&self) -> BTreeSet<ChannelId> {
        std::mem::take(&mut *self.behind.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn take_inbox(&self) -> bool {
        self.inbox.swap(false, Ordering::AcqRel)
    }

    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }
}
