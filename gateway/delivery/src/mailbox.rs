//! What stands between the fan-out and one subscriber: a bounded queue of shared frames, and marks for what did not fit.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use lianxin_store::StoredEvent;
use lianxin_tlog::EventKind;
use lianxin_types::{ChannelId, LIMITS, Sequence};
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
    /// Splits consecutive events of one channel into frames within the contract's bounds; one event always fits.
    pub(crate) fn split(events: Vec<Arc<StoredEvent>>) -> Vec<Arc<Self>> {
        let mut frames = Vec::new();
        let mut open: Vec<Arc<StoredEvent>> = Vec::new();
        let mut bytes = 0;
        for event in events {
            let is_last = event.kind == EventKind::Commit;
            if open.len() == FRAME_EVENTS_MAX || bytes + event_bytes(&event) > LIMITS.frame_bytes_max {
                frames.extend(Self::of(std::mem::take(&mut open)));
                bytes = 0;
            }
            bytes += event_bytes(&event);
            open.push(event);
            if is_last {
                frames.extend(Self::of(std::mem::take(&mut open)));
                bytes = 0;
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

/// Events in one frame, as the contract says.
const FRAME_EVENTS_MAX: usize = 256;

/// About what an event takes on the wire: its bytes, its sender, and room for the fixed fields.
fn event_bytes(event: &StoredEvent) -> usize {
    event.mls.len() + event.sender.as_str().len() + 256
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
        let mailbox =
            Self { frames, behind: Mutex::new(BTreeSet::new()), inbox: AtomicBool::new(true), wake: Notify::new() };
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

#[cfg(test)]
mod tests {
    use lianxin_tlog::Head;
    use lianxin_types::{Digest, IdempotencyId, Timestamp};

    use super::*;

    fn event(sequence: u64, kind: EventKind, bytes: usize) -> Arc<StoredEvent> {
        Arc::new(StoredEvent {
            channel: ChannelId([1; 16]),
            head: Head { sequence: Sequence(sequence), chain_hash: Digest::ZERO },
            kind,
            sender: "lianxin://jiwei/app/a/1".parse().expect("well formed"),
            gateway_time: Timestamp(0),
            expiry: None,
            label_reference: Digest::ZERO,
            mls: Bytes::from(vec![0; bytes]),
            leaf_index: 0,
            leaf_hash: Digest::ZERO,
            idempotency_id: IdempotencyId([0; 16]),
        })
    }

    fn lengths(events: Vec<Arc<StoredEvent>>) -> Vec<usize> {
        Frame::split(events).iter().map(|frame| frame.events().len()).collect()
    }

    #[test]
    fn frames_end_with_a_commit_and_keep_their_bounds() {
        let message = |sequence| event(sequence, EventKind::Application, 10);
        let mixed = vec![message(1), event(2, EventKind::Commit, 10), message(3), message(4)];
        assert_eq!(lengths(mixed), [2, 2]);
        assert_eq!(lengths((1..=257).map(message).collect()), [256, 1]);
        let large = |sequence| event(sequence, EventKind::Application, LIMITS.message_mls_bytes_max);
        assert_eq!(lengths((1..=15).map(large).collect()), [14, 1]);
        assert_eq!(lengths(vec![event(1, EventKind::Commit, LIMITS.commit_bundle_bytes_max)]), [1]);
        assert!(lengths(Vec::new()).is_empty());
    }
}
