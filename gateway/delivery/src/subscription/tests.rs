use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use lianxin_policy::{ChannelFacts, Engine, Follow, Permit, Request};
use lianxin_store::conformance::{channel, commit, device, drop_buckets, message, start};
use lianxin_store::{Effect, MemoryEngine, Seat, Unit, ZoneOptions, ZoneStore};
use lianxin_tlog::EventKind;
use lianxin_types::{ChannelId, Clock, DeviceUri, Epoch, LIMITS, Sequence, SystemClock, Timestamp};

use super::*;
use crate::fanout::Fanout;

struct Zone {
    store: Arc<dyn ZoneStore>,
    fanout: Arc<Fanout>,
}

impl Zone {
    fn open() -> Self {
        Self::with_tail(4_096)
    }

    /// A zone whose tail remembers only so many events for a receiver that is slow.
    fn with_tail(tail_events_max: usize) -> Self {
        Self::with(ZoneOptions { tail_events_max, ..ZoneOptions::default() })
    }

    fn with(options: ZoneOptions) -> Self {
        let zone = "zone".parse().expect("well formed");
        let opened = lianxin_store::Zone::open(zone, MemoryEngine::new(), Arc::new(SystemClock), options);
        let store: Arc<dyn ZoneStore> = Arc::new(opened.expect("opens"));
        let fanout = Fanout::new();
        tokio::spawn(Arc::clone(&fanout).run(Arc::clone(&store), Arc::new(SystemClock)));
        Self { store, fanout }
    }

    fn subscribe(&self, device: DeviceUri) -> Subscription {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Subscription::new(device, Arc::clone(&self.store), Arc::clone(&self.fanout), clock)
    }

    fn accept(&self, unit: Unit) {
        commit(&*self.store, unit).expect("accepted");
    }
}

fn permit(caller: &DeviceUri, id: ChannelId) -> Permit<Follow> {
    let departments = [caller.department().clone()];
    let facts = ChannelFacts {
        id,
        departments: &departments,
        expires: None,
        is_member: true,
        is_awaited: false,
        is_known: true,
        is_leaving: false,
        is_paused: false,
        was_member: true,
    };
    let request = Request {
        caller,
        now: Timestamp(0),
        channel: Some(facts),
        departments_added: &[],
        members_after: 0,
        devices_added: 0,
    };
    Engine::new(LIMITS).follow(&request).expect("a member may follow")
}

fn commit_of(sender: &DeviceUri, epoch: u64, seated: Vec<Seat>, unseated: Vec<DeviceUri>) -> Unit {
    let mut unit = message(channel(1), sender, epoch, format!("commit {epoch}").as_bytes());
    if let Some(write) = &mut unit.channel {
        write.event.kind = EventKind::Commit;
    }
    unit.effects =
        vec![Effect::Group { epoch: Epoch(epoch + 1), seated, unseated, group_info: Bytes::from_static(b"info") }];
    unit
}

/// Sequences given out until `last`, and what else came.
async fn until(subscription: &mut Subscription, last: u64) -> (Vec<u64>, Vec<Delivery>) {
    let (mut sequences, mut others) = (Vec::new(), Vec::new());
    while sequences.last() != Some(&last) {
        match subscription.next(CatchUp::Now).await.expect("readable") {
            Delivery::Events(frame) => sequences.extend(frame.events().iter().map(|event| event.head.sequence.0)),
            other => others.push(other),
        }
    }
    (sequences, others)
}

const MESSAGES: u64 = 3_000;

async fn write(zone: &Zone, sender: DeviceUri) -> tokio::task::JoinHandle<()> {
    let store = Arc::clone(&zone.store);
    tokio::spawn(async move {
        for number in 0..MESSAGES / 3 {
            let units =
                (0..3).map(|part| message(channel(1), &sender, 0, format!("{number}.{part}").as_bytes())).collect();
            for outcome in store.commit_many(units).await {
                outcome.expect("accepted");
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn between_catch_up_and_live_nothing_is_lost_or_doubled() {
    let zone = Zone::open();
    let creator = device(0);
    zone.accept(start(channel(1), &creator));
    let writer = write(&zone, creator.clone()).await;
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let mut subscription = zone.subscribe(creator.clone());
            subscription.follow(&permit(&creator, channel(1)), Sequence(0)).expect("follows");
            tokio::spawn(async move { until(&mut subscription, MESSAGES + 1).await })
        })
        .collect();
    writer.await.expect("writes");
    let mut total = 0;
    for reader in readers {
        let (sequences, others) = reader.await.expect("reads");
        assert_eq!(sequences, (1..=MESSAGES + 1).collect::<Vec<_>>());
        let caught_up = others.iter().filter(|other| matches!(other, Delivery::CaughtUp { .. })).count();
        assert!(caught_up <= 1, "{others:?}");
        total += caught_up;
    }
    assert!(total > 0, "nobody was told that it has caught up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_subscriber_costs_no_memory_and_still_gets_everything_in_order() {
    let zone = Zone::open();
    let creator = device(0);
    zone.accept(start(channel(1), &creator));
    let mut slow = zone.subscribe(creator.clone());
    slow.follow(&permit(&creator, channel(1)), Sequence(0)).expect("follows");
    let (first, _) = until(&mut slow, 1).await;
    assert_eq!(first, [1]);
    write(&zone, creator).await.await.expect("writes");
    assert!(slow.frames.len() <= slow.frames.max_capacity());
    let (sequences, _) = until(&mut slow, MESSAGES + 1).await;
    assert_eq!(sequences, (2..=MESSAGES + 1).collect::<Vec<_>>());
    let figures = zone.fanout.figures();
    assert_eq!(figures.events, MESSAGES + 1, "each is counted once");
    assert!(figures.catch_up_pages >= 2, "the first page, and what did not fit in its queue: {figures:?}");
}

#[tokio::test]
async fn a_removed_device_sees_its_removal_and_nothing_behind_it() {
    let zone = Zone::open();
    let (creator, other) = (device(0), device(1));
    zone.accept(start(channel(1), &creator));
    zone.accept(commit_of(&creator, 0, vec![Seat { device: other.clone(), leaf: 1 }], vec![]));
    let mut removed = zone.subscribe(other.clone());
    removed.follow(&permit(&other, channel(1)), Sequence(0)).expect("follows");
    let (seen, _) = until(&mut removed, 2).await;
    assert_eq!(seen, [2], "nothing before its own seat");
    zone.accept(message(channel(1), &creator, 1, b"still there"));
    zone.accept(commit_of(&creator, 1, vec![], vec![other.clone()]));
    zone.accept(message(channel(1), &creator, 2, b"not for you"));
    let (seen, _) = until(&mut removed, 4).await;
    assert_eq!(seen, [3, 4]);
    let mut ended = false;
    while !ended {
        match removed.next(CatchUp::Now).await.expect("readable") {
            Delivery::NotMember { channel: id } => ended = id == channel(1),
            Delivery::Events(frame) => panic!("saw {:?}", frame.events()),
            _ => {}
        }
    }
    assert_eq!(removed.followed_count(), 0);
}

#[tokio::test]
async fn following_a_channel_without_a_seat_is_answered_and_gives_nothing() {
    let zone = Zone::open();
    zone.accept(start(channel(1), &device(0)));
    let stranger = device(1);
    let mut subscription = zone.subscribe(stranger.clone());
    subscription.follow(&permit(&stranger, channel(1)), Sequence(0)).expect("answered");
    let delivery = subscription.next(CatchUp::Now).await.expect("readable");
    assert!(matches!(delivery, Delivery::NotMember { .. }), "{delivery:?}");
}

#[tokio::test]
async fn who_comes_back_after_buckets_were_dropped_is_told_of_the_gap_once() {
    let options = ZoneOptions { bucket_records_max: 4, ..ZoneOptions::default() };
    let zone = Zone::with(options);
    let creator = device(0);
    for number in 1..=2 {
        let mut unit = start(channel(number), &creator);
        unit.effects.push(Effect::GroupSnapshot { state: Bytes::from_static(b"view") });
        zone.accept(unit);
    }
    for number in 0..12u8 {
        zone.accept(message(channel(1), &creator, 0, &[number]));
    }
    let before = zone.store.prepare_drop().await.expect("open");
    zone.accept(drop_buckets(&creator, before));
    let first = zone.store.read(&channel(1), Sequence(0), 1, 1).expect("readable").first_retained;
    let mut back = zone.subscribe(creator.clone());
    back.follow(&permit(&creator, channel(1)), Sequence(3)).expect("follows");
    let gap = back.next(CatchUp::Now).await.expect("readable");
    assert!(matches!(gap, Delivery::Gap { first_retained, .. } if first_retained == first), "{gap:?}");
    let sequences = until(&mut back, 13).await.0;
    assert_eq!(sequences, (first.0..=13).collect::<Vec<_>>());
    // Nothing is left of the other one, up to its head: it is caught up, and hears what comes.
    let mut back = zone.subscribe(creator.clone());
    back.follow(&permit(&creator, channel(2)), Sequence(0)).expect("follows");
    let gap = back.next(CatchUp::Now).await.expect("readable");
    assert!(matches!(gap, Delivery::Gap { first_retained: Sequence(2), .. }), "{gap:?}");
    let caught_up = back.next(CatchUp::Now).await.expect("readable");
    assert!(matches!(caught_up, Delivery::CaughtUp { sequence: Sequence(1), .. }), "{caught_up:?}");
    zone.accept(message(channel(2), &creator, 0, b"next"));
    assert_eq!(until(&mut back, 2).await.0, [2]);
}

#[tokio::test]
async fn who_was_removed_and_seated_again_is_told_of_the_gap() {
    let zone = Zone::open();
    let (creator, other) = (device(0), device(1));
    let seat = || vec![Seat { device: other.clone(), leaf: 1 }];
    zone.accept(start(channel(1), &creator));
    zone.accept(commit_of(&creator, 0, seat(), vec![]));
    zone.accept(commit_of(&creator, 1, vec![], vec![other.clone()]));
    zone.accept(message(channel(1), &creator, 2, b"not for it"));
    zone.accept(commit_of(&creator, 2, seat(), vec![]));
    let mut back = zone.subscribe(other.clone());
    back.follow(&permit(&other, channel(1)), Sequence(2)).expect("follows");
    let gap = back.next(CatchUp::Now).await.expect("readable");
    assert!(matches!(gap, Delivery::Gap { first_retained: Sequence(5), .. }), "{gap:?}");
    assert_eq!(until(&mut back, 5).await.0, [5]);
}

#[tokio::test]
async fn a_tail_that_lagged_and_a_frame_that_does_not_continue_are_made_good_from_the_store() {
    // One thread: while this story commits, the fan-out does not run, and its tail forgets all but the last four.
    let zone = Zone::with_tail(4);
    let creator = device(0);
    zone.accept(start(channel(1), &creator));
    let mut subscription = zone.subscribe(creator.clone());
    subscription.follow(&permit(&creator, channel(1)), Sequence(0)).expect("follows");
    assert_eq!(until(&mut subscription, 1).await.0, [1]);
    for number in 0..50 {
        zone.accept(message(channel(1), &creator, 0, format!("{number}").as_bytes()));
    }
    assert_eq!(until(&mut subscription, 51).await.0, (2..=51).collect::<Vec<_>>());

    zone.accept(message(channel(1), &creator, 0, b"missed"));
    zone.accept(message(channel(1), &creator, 0, b"seen"));
    let page = zone.store.read(&channel(1), Sequence(52), 1, 1).expect("readable");
    let mut alone = zone.subscribe(creator.clone());
    alone.followed.insert(channel(1), Followed { sent: Sequence(51), is_behind: false, is_caught_up: true });
    for frame in Frame::split(page.events) {
        alone.take_live(frame).expect("readable");
    }
    assert!(alone.ready.is_empty(), "nothing is given out of turn");
    assert_eq!(until(&mut alone, 53).await.0, [52, 53]);
}

#[tokio::test]
async fn while_catch_up_waits_what_is_live_goes_on_and_what_is_missing_comes_afterwards() {
    let zone = Zone::open();
    let creator = device(0);
    zone.accept(start(channel(1), &creator));
    zone.accept(start(channel(2), &creator));
    let mut subscription = zone.subscribe(creator.clone());
    subscription.follow(&permit(&creator, channel(1)), Sequence(0)).expect("follows");
    // The fan-out marks everybody when it begins; after one more event that is over.
    assert_eq!(until(&mut subscription, 1).await.0, [1]);
    zone.accept(message(channel(1), &creator, 0, b"before"));
    assert_eq!(until(&mut subscription, 2).await.0, [2]);
    subscription.follow(&permit(&creator, channel(2)), Sequence(0)).expect("follows");
    zone.accept(message(channel(1), &creator, 0, b"live"));
    let live = loop {
        match subscription.next(CatchUp::Later).await.expect("readable") {
            Delivery::Events(frame) => break frame,
            Delivery::CaughtUp { channel: id, .. } => assert_eq!(id, channel(1), "nothing is read from the store"),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((*live.channel(), live.first()), (channel(1), Sequence(3)));
    assert_eq!(until(&mut subscription, 1).await.0, [1], "the other channel, once it may be read");
}

#[tokio::test]
async fn invitations_are_given_out_one_by_one_in_order_and_a_dropped_call_loses_none() {
    const INVITATIONS: u64 = 40;
    let zone = Zone::open();
    let (creator, other) = (device(0), device(1));
    zone.accept(start(channel(1), &creator));
    for number in 0..INVITATIONS {
        let mut unit = commit_of(&creator, number, vec![], vec![]);
        unit.effects.push(Effect::Welcome {
            recipients: vec![other.clone()],
            inviter: creator.clone(),
            welcome: Bytes::from(vec![u8::try_from(number).expect("few"); 64 * 1024]),
            tree: Bytes::from_static(b"tree"),
        });
        zone.accept(unit);
    }
    let mut invited = zone.subscribe(other);
    let mut given = Vec::new();
    while given.len() < INVITATIONS as usize {
        // Asked once and dropped, wherever it has come by then.
        let asked = std::pin::pin!(invited.next(CatchUp::Now)).poll(&mut Context::from_waker(Waker::noop()));
        let delivery = match asked {
            Poll::Ready(delivery) => delivery,
            Poll::Pending => invited.next(CatchUp::Now).await,
        };
        let Delivery::Inbox(entry) = delivery.expect("readable") else { continue };
        assert!(invited.ready.is_empty(), "no other one waits in memory");
        assert_eq!(invited.inbox_given(), entry.id);
        given.push(u64::from(entry.welcome[0]));
    }
    assert_eq!(given, (0..INVITATIONS).collect::<Vec<_>>());
}
