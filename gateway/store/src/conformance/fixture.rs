//! Units as callers make them, a clock that stands still, and waiting without a runtime.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use bytes::Bytes;
use lianxin_tlog::{Audience, EventFamily, EventKind, PartDraft, RetentionClass};
use lianxin_types::{
    ChannelId, Clock, DeviceUri, Digest, Epoch, IdempotencyId, Incarnation, Monotonic, Sequence, Timestamp,
};

use crate::unit::{AuditDraft, ChannelWrite, Effect, Expect, GroupEpoch, Idempotency, NewEvent, Outcome, Seat, Unit};
use crate::zone_store::ZoneStore;

/// A clock that shows what it was set to.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock at some moment in 2026.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_795_000_000_000_000)))
    }

    /// Sets it, forwards or back.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.0, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(self.0.load(Ordering::Relaxed))
    }

    fn sleep_until(&self, _deadline: Monotonic) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::pending())
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits on this thread until the future is ready.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Commits one unit and waits.
///
/// # Panics
/// If the store does not answer with one outcome.
pub fn commit(store: &dyn ZoneStore, unit: Unit) -> Outcome {
    let mut outcomes = block_on(store.commit_many(vec![unit]));
    assert_eq!(outcomes.len(), 1, "one outcome for one unit");
    outcomes.remove(0)
}

/// Device `number`, of one of three departments.
///
/// # Panics
/// Never: the form is right.
pub fn device(number: usize) -> DeviceUri {
    format!("lianxin://dep-{}/app/a{number}/1", number % 3).parse().expect("well formed")
}

/// Channel `number`.
pub fn channel(number: u64) -> ChannelId {
    let mut id = [0xC0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    ChannelId(id)
}

/// An id that no other call of this process gets.
pub(super) fn fresh_id() -> IdempotencyId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut id = [0; 16];
    id[8..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    IdempotencyId(id)
}

/// An audit record with a shared part and one for the device's department.
pub(super) fn audit(caller: &DeviceUri, channel: Option<ChannelId>) -> AuditDraft {
    let salt = Digest::sha256(&fresh_id().0).0;
    let part = |audience, tag: &str| {
        let body = format!(r#"{{"caller":"{tag}"}}"#).into_bytes();
        PartDraft { audience, salt, body_hash: Digest::sha256(&body), body }
    };
    let department = caller.department();
    let parts = vec![part(Audience::Shared, "x"), part(Audience::Department(department.clone()), department.as_str())];
    let mut slot = [0; 16];
    slot.copy_from_slice(&salt[..16]);
    AuditDraft { family: EventFamily::Message, retention_class: RetentionClass::AUDIT, slot, channel, parts }
}

/// A call that stands for `bytes`.
pub(super) fn call(caller: &DeviceUri, channel: Option<ChannelId>, bytes: &[u8]) -> Idempotency {
    Idempotency { device: caller.clone(), channel, call: "test", id: fresh_id(), bytes_hash: Digest::sha256(bytes) }
}

/// A unit without an event.
pub fn effects(caller: &DeviceUri, effects: Vec<Effect>) -> Unit {
    Unit {
        channel: None,
        idempotency: Some(call(caller, None, b"effects")),
        effects,
        audit: audit(caller, None),
        followers: Vec::new(),
    }
}

/// The unit that ends all buckets below `before`.
pub fn drop_buckets(by: &DeviceUri, before: u64) -> Unit {
    effects(by, vec![Effect::DropBuckets { before }])
}

/// A unit with an event.
pub(super) fn event(to: ChannelId, sender: &DeviceUri, expect: Expect, kind: EventKind, mls: &[u8]) -> Unit {
    let event = NewEvent {
        kind,
        sender: sender.clone(),
        expiry: Some(Timestamp(u64::MAX / 2)),
        label_reference: Digest([0x1A; 32]),
        mls: Bytes::copy_from_slice(mls),
        mls_hash: Digest::sha256(mls),
        head: None,
    };
    Unit {
        channel: Some(ChannelWrite { channel: to, expect, event }),
        idempotency: Some(call(sender, Some(to), mls)),
        effects: Vec::new(),
        audit: audit(sender, Some(to)),
        followers: Vec::new(),
    }
}

/// An epoch of a channel's first group.
pub(super) const fn first_group(epoch: u64) -> GroupEpoch {
    GroupEpoch { incarnation: Incarnation(0), epoch: Epoch(epoch) }
}

/// The unit that starts a channel with one member.
pub fn start(to: ChannelId, creator: &DeviceUri) -> Unit {
    let mut unit = event(to, creator, Expect::Absent, EventKind::Start, b"start");
    let seated = vec![Seat { device: creator.clone(), leaf: 0 }];
    let group_info = Bytes::from_static(b"group info 0");
    unit.effects = vec![Effect::Group { epoch: Epoch(0), seated, unseated: Vec::new(), group_info }];
    unit
}

/// A message of a member.
pub fn message(to: ChannelId, sender: &DeviceUri, epoch: u64, mls: &[u8]) -> Unit {
    event(to, sender, Expect::Epoch(first_group(epoch)), EventKind::Application, mls)
}

/// A commit that ends `epoch`.
pub fn change_group(
    to: ChannelId,
    sender: &DeviceUri,
    epoch: u64,
    seated: &[(usize, u32)],
    unseated: &[usize],
) -> Unit {
    let mls = format!("commit {epoch} {:?}", fresh_id().0);
    let mut unit = event(to, sender, Expect::Epoch(first_group(epoch)), EventKind::Commit, mls.as_bytes());
    unit.effects = vec![Effect::Group {
        epoch: Epoch(epoch + 1),
        seated: seated.iter().map(|(number, leaf)| Seat { device: device(*number), leaf: *leaf }).collect(),
        unseated: unseated.iter().map(|number| device(*number)).collect(),
        group_info: Bytes::from(format!("group info {}", epoch + 1)),
    }];
    unit
}

/// A request to leave.
pub(super) fn leave(to: ChannelId, sender: &DeviceUri, epoch: u64) -> Unit {
    let mls = format!("leave {:?}", fresh_id().0);
    let mut unit = event(to, sender, Expect::Epoch(first_group(epoch)), EventKind::Proposal, mls.as_bytes());
    unit.effects = vec![Effect::Leaving { device: sender.clone() }];
    unit
}

/// The gateway's own proposal to remove a member, verified with these proposals waiting.
pub(super) fn removal(to: ChannelId, gone: &DeviceUri, epoch: u64, proposals: u64) -> Unit {
    let gateway: DeviceUri = "lianxin://dep-0/gateway/g/1".parse().expect("well formed");
    let expect = Expect::Own { current: first_group(epoch), proposals: Sequence(proposals) };
    let mls = format!("removal {:?}", fresh_id().0);
    let mut unit = event(to, &gateway, expect, EventKind::Proposal, mls.as_bytes());
    unit.idempotency = None;
    unit.effects = vec![Effect::Removing { device: gone.clone() }];
    unit
}

/// The same, to stand behind another unit of its channel.
pub(super) fn following(mut unit: Unit) -> Unit {
    unit.channel.as_mut().expect("an event").expect = Expect::Following;
    unit
}

/// The same, verified with these proposals waiting.
pub(super) fn with_proposals(mut unit: Unit, sequence: u64) -> Unit {
    let write = unit.channel.as_mut().expect("an event");
    let Expect::Epoch(current) = write.expect else { panic!("verified against an epoch") };
    write.expect = Expect::State { current, proposals: Sequence(sequence) };
    unit
}
