//! What stands between the fan-out and one subscriber: a bounded queue of shared frames, and marks for what did not fit.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
    bytes: usize,
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
        let bytes = events.iter().map(|event| event_bytes(event)).sum();
        Some(Arc::new(Self { channel, events, bytes, encoded: OnceLock::new() }))
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
/// Bytes of frames that one subscriber may have waiting. Frames are shared, so this is what it may hold back of what others
/// have had already; one frame always fits.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// The fan-out's end of a subscriber.
#[derive(Debug)]
pub(crate) struct Mailbox {
    frames: mpsc::Sender<Arc<Frame>>,
    /// Bytes of the frames that wait.
    bytes: AtomicUsize,
    behind: Mutex<BTreeSet<ChannelId>>,
    inbox: AtomicBool,
    wake: Notify,
}

impl Mailbox {
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<Arc<Frame>>) {
        let (frames, receiver) = mpsc::channel(FRAMES_MAX);
        let mailbox = Self {
            frames,
            bytes: AtomicUsize::new(0),
            behind: Mutex::new(BTreeSet::new()),
            inbox: AtomicBool::new(true),
            wake: Notify::new(),
        };
        (Arc::new(mailbox), receiver)
    }

    /// Hands over a frame, or marks its channel for catch-up from the store: a slow subscriber costs one mark. Says whether
    /// that moved the channel to catch-up. Only the fan-out's task offers.
    pub(crate) fn offer(&self, frame: &Arc<Frame>) -> bool {
        let before = self.bytes.fetch_add(frame.bytes, Ordering::AcqRel);
        let has_room = before == 0 || before + frame.bytes <= BYTES_MAX;
        if has_room && self.frames.try_send(Arc::clone(frame)).is_ok() {
            return false;
        }
        self.taken(frame);
        self.mark_behind(*frame.channel())
    }

    /// The subscriber has taken a frame.
    pub(crate) fn taken(&self, frame: &Frame) {
        self.bytes.fetch_sub(frame.bytes, Ordering::AcqRel);
    }

    /// The subscriber must read this channel from the store. Says whether that is new.
    pub(crate) fn mark_behind(&self, channel: ChannelId) -> bool {
        let is_new = self.behind.lock().unwrap_or_else(PoisonError::into_inner).insert(channel);
        self.wake.notify_one();
        is_new
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
    fn a_subscriber_that_takes_nothing_holds_back_a_bounded_number_of_frames_and_bytes() {
        let offer = |bytes: usize| {
            let (mailbox, mut waiting) = Mailbox::new();
            let frames: Vec<_> =
                (1..=1_000).flat_map(|n| Frame::split(vec![event(n, EventKind::Commit, bytes)])).collect();
            let moved = frames.iter().filter(|frame| mailbox.offer(frame)).count();
            assert_eq!(moved, 1, "a channel is moved to catch-up once, not with every frame");
            assert_eq!(mailbox.take_behind().len(), 1);
            let held = waiting.len();
            while let Ok(frame) = waiting.try_recv() {
                mailbox.taken(&frame);
            }
            assert_eq!(mailbox.bytes.load(Ordering::Acquire), 0);
            held
        };
        assert_eq!(offer(10), FRAMES_MAX);
        let large = LIMITS.message_mls_bytes_max;
        assert_eq!(offer(large), BYTES_MAX / event_bytes(&event(1, EventKind::Commit, large)));
        assert_eq!(offer(BYTES_MAX), 1, "one always fits");
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
