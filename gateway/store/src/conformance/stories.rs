//! Channels, refusals, repeats, pages, inboxes: what callers rely on, one story each.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use lianxin_tlog::{EventKind, Head, chain_start};
use lianxin_types::{Clock, Digest, Epoch, LIMITS, Sequence, Timestamp};

use super::audit::check_audit;
use super::fixture::{
    ManualClock, block_on, call, change_group, channel, commit, device, effects, event, first_group, leave, message,
    start, with_proposals,
};
use super::suite::Home;
use crate::unit::{Accepted, Effect, Expect, Outcome, Refused, Unit};
use crate::zone::ZoneOptions;
use crate::zone_store::{GroupSnapshot, Member, ZoneStore};

pub(super) fn open(home: &impl Home, options: ZoneOptions) -> Arc<dyn ZoneStore> {
    home.open(ManualClock::new(), options).expect("the zone opens")
}

pub(super) fn accepted(outcome: Outcome) -> Accepted {
    outcome.expect("the unit is accepted")
}

fn without_repeat(outcome: Outcome) -> Accepted {
    let accepted = accepted(outcome);
    assert!(!accepted.is_repeat);
    accepted
}

pub(super) fn a_channel_orders_its_events(home: &impl Home) {
    let store = open(home, ZoneOptions::default());
    let (one, alice, bob) = (channel(1), device(1), device(2));
    assert_eq!(commit(&*store, message(one, &alice, 0, b"early")), Err(Refused::NoChannel));
    assert_eq!(store.head(&one).expect("readable"), None);
    assert_eq!(without_repeat(commit(&*store, start(one, &alice))).sequence, Sequence(1));
    assert_eq!(commit(&*store, start(one, &bob)), Err(Refused::ChannelExists));
    let units = vec![message(one, &alice, 0, b"a"), message(one, &bob, 0, b"b"), message(one, &alice, 0, b"c")];
    let outcomes = block_on(store.commit_many(units));
    assert_eq!(
        outcomes.iter().map(|outcome| outcome.as_ref().map(|accepted| accepted.sequence.0)).collect::<Vec<_>>(),
        [Ok(2), Err(&Refused::NotMember), Ok(3)]
    );
    let head = store.head(&one).expect("readable").expect("exists");
    assert_eq!(head.members.get(&alice), Some(&Member { leaf: 0, joined: Sequence(1) }));
    assert_eq!((head.epoch, head.epoch_sequence), (Epoch(0), Sequence(1)));
    assert_eq!(head.label_reference, Digest([0x1A; 32]));
    let page = store.read(&one, Sequence(1), 10, 1 << 20).expect("readable");
    assert_eq!(page.events.iter().map(|event| &event.mls[..]).collect::<Vec<_>>(), [b"a", b"c"]);
    // Gateway time, index and hash of the answer are those of the stored event.
    let answer = outcomes[2].as_ref().expect("accepted");
    let last = &page.events[1];
    assert_eq!(
        (answer.gateway_time, answer.expiry, answer.leaf_index, answer.leaf_hash, answer.chain_hash),
        (last.gateway_time, last.expiry, last.leaf_index, last.leaf_hash, last.head.chain_hash)
    );
    assert_eq!(check_audit(&*store, &[one]), 3);
    drop(store);
    let store = open(home, ZoneOptions::default());
    assert_eq!(store.head(&one).expect("readable").as_deref(), Some(&*head));
    drop(store);
    home.lose_state();
    let store = open(home, ZoneOptions::default());
    assert_eq!(store.head(&one).expect("readable").as_deref(), Some(&*head));
    assert_eq!(check_audit(&*store, &[one]), 3);
}

pub(super) fn refusals_come_in_their_order(home: &impl Home) {
    let store = open(home, ZoneOptions::default());
    let (one, alice, bob) = (channel(1), device(1), device(2));
    accepted(commit(&*store, start(one, &alice)));
    accepted(commit(&*store, change_group(one, &alice, 0, &[(2, 1)], &[])));
    let sent = message(one, &bob, 1, b"sent");
    accepted(commit(&*store, sent.clone()));
    // Membership comes before the epoch, the epoch before the bytes, the bytes before the head.
    assert_eq!(commit(&*store, message(one, &device(9), 7, b"sent")), Err(Refused::NotMember));
    let current = Epoch(1);
    let wrong = Err(Refused::WrongEpoch { current, head: Sequence(3) });
    assert_eq!(commit(&*store, message(one, &bob, 0, b"sent")), wrong);
    assert_eq!(commit(&*store, message(one, &bob, 2, b"sent")), wrong);
    let mut again = message(one, &bob, 1, b"sent");
    again.channel.as_mut().expect("an event").event.head = Some(chain_start(&one));
    assert_eq!(commit(&*store, again), Err(Refused::Duplicate));
    // Who asked to leave hears that before it hears of the epoch; a repeat is answered before everything.
    accepted(commit(&*store, leave(one, &bob, 1)));
    assert_eq!(commit(&*store, message(one, &bob, 0, b"x")), Err(Refused::Leaving));
    accepted(commit(&*store, change_group(one, &alice, 1, &[], &[2])));
    assert_eq!(commit(&*store, message(one, &bob, 2, b"x")), Err(Refused::NotMember));
    assert!(accepted(commit(&*store, sent)).is_repeat);
    // An effect on a channel needs an event in it.
    let stray = effects(&alice, vec![Effect::Leaving { device: alice.clone() }]);
    assert_eq!(commit(&*store, stray), Err(Refused::NoChannel));
    assert_eq!(check_audit(&*store, &[one]), 5);
}

pub(super) fn a_repeat_is_answered(home: &impl Home) {
    let mut store = open(home, ZoneOptions::default());
    let (one, alice) = (channel(1), device(1));
    accepted(commit(&*store, start(one, &alice)));
    let unit = message(one, &alice, 0, b"once");
    let scope = unit.idempotency.clone().expect("a call");
    assert_eq!(store.repeat(&scope).expect("readable"), None);
    // Twice in one batch, then alone, then after a restart, then from the journal alone: one event, one answer.
    let outcomes = block_on(store.commit_many(vec![unit.clone(), unit.clone()]));
    let first = without_repeat(outcomes[0].clone());
    let expect: Outcome = Ok(first.clone().as_repeat());
    assert_eq!(outcomes[1], expect);
    let mut other = unit.clone();
    other.idempotency.as_mut().expect("a call").bytes_hash = Digest::sha256(b"other");
    for round in 0..3 {
        assert_eq!(commit(&*store, unit.clone()), expect, "round {round}");
        assert_eq!(store.repeat(&scope).expect("readable"), Some(expect.clone()));
        assert_eq!(commit(&*store, other.clone()), Err(Refused::IdReused), "round {round}");
        let reused = other.idempotency.clone().expect("a call");
        assert_eq!(store.repeat(&reused).expect("readable"), Some(Err(Refused::IdReused)));
        drop(store);
        if round == 1 {
            home.lose_state();
        }
        store = open(home, ZoneOptions::default());
    }
    // The same id of another device, channel or call is another id.
    for change in 0..3 {
        let mut scope = scope.clone();
        match change {
            0 => scope.device = device(2),
            1 => scope.channel = None,
            _ => scope.call = "other",
        }
        assert_eq!(store.repeat(&scope).expect("readable"), None, "change {change}");
    }
    // A refusal is not remembered.
    let mut early = message(one, &alice, 1, b"later");
    assert!(commit(&*store, early.clone()).is_err());
    early.channel.as_mut().expect("an event").expect = Expect::Epoch(first_group(0));
    assert!(!accepted(commit(&*store, early)).is_repeat);
    assert_eq!(check_audit(&*store, &[one]), 3);
}

pub(super) fn heads_are_compared_by_position(home: &impl Home) {
    let store = open(home, ZoneOptions::default());
    let (one, alice, bob) = (channel(1), device(1), device(2));
    accepted(commit(&*store, start(one, &alice)));
    accepted(commit(&*store, change_group(one, &alice, 0, &[(2, 1)], &[])));
    let mut number = 0;
    let mut send = |sender, sequence| {
        number += 1;
        let mut unit = message(one, sender, 1, format!("message {number}").as_bytes());
        unit.channel.as_mut().expect("an event").event.head =
            Some(Head { sequence: Sequence(sequence), chain_hash: Digest::ZERO });
        commit(&*store, unit).map(|accepted| accepted.sequence.0)
    };
    assert_eq!(send(&bob, 1), Err(Refused::BadHead), "older than the commit of the epoch");
    assert_eq!(send(&bob, 3), Err(Refused::BadHead), "not in the journal");
    assert_eq!(send(&bob, 2), Ok(3));
    assert_eq!(send(&bob, 3), Ok(4));
    assert_eq!(send(&bob, 2), Err(Refused::BadHead), "behind the sender's previous one");
    assert_eq!(send(&alice, 2), Ok(5), "another sender may be further back");
    assert_eq!(send(&bob, 3), Ok(6), "the same head again");
}

pub(super) fn a_leaver_is_silent(home: &impl Home) {
    let mut store = open(home, ZoneOptions::default());
    let (one, alice, bob) = (channel(1), device(1), device(2));
    accepted(commit(&*store, start(one, &alice)));
    accepted(commit(&*store, change_group(one, &alice, 0, &[(2, 1), (3, 2)], &[])));
    let left = accepted(commit(&*store, leave(one, &bob, 1)));
    for _ in 0..2 {
        let head = store.head(&one).expect("readable").expect("exists");
        assert_eq!((head.leaving.as_slice(), head.proposal_sequence), (&[bob.clone()][..], left.sequence));
        drop(store);
        store = open(home, ZoneOptions::default());
    }
    // A commit that does not unseat it ends its proposal with the epoch: it may speak until it asks again.
    accepted(commit(&*store, change_group(one, &alice, 1, &[], &[3])));
    let head = store.head(&one).expect("readable").expect("exists");
    assert_eq!((head.leaving.as_slice(), head.proposal_sequence), (&[][..], Sequence(0)));
    accepted(commit(&*store, message(one, &bob, 2, b"still there")));
    accepted(commit(&*store, leave(one, &bob, 2)));
    assert_eq!(commit(&*store, message(one, &bob, 2, b"x")), Err(Refused::Leaving));
    accepted(commit(&*store, change_group(one, &alice, 2, &[], &[2])));
    let head = store.head(&one).expect("readable").expect("exists");
    assert!(head.leaving.is_empty() && !head.members.contains_key(&bob) && head.known.contains(&bob));
    assert_eq!(store.channels_of(&bob, None, 10).expect("readable"), []);
    // A rejoin takes the old leaf away and gives a new one.
    accepted(commit(&*store, change_group(one, &alice, 3, &[(1, 5)], &[1])));
    let head = store.head(&one).expect("readable").expect("exists");
    assert_eq!(head.members.get(&alice).map(|member| member.leaf), Some(5));
    assert_eq!(store.channels_of(&alice, None, 10).expect("readable"), [one]);
}

pub(super) fn proposals_are_compared(home: &impl Home) {
    let store = open(home, ZoneOptions::default());
    let (one, alice, bob, carol) = (channel(1), device(1), device(2), device(3));
    accepted(commit(&*store, start(one, &alice)));
    accepted(commit(&*store, with_proposals(change_group(one, &alice, 0, &[(2, 1), (3, 2)], &[]), 0)));
    // All verified before any of them was there: the first wins, and a message does not mind.
    let leaves = |seen| with_proposals(leave(one, &bob, 1), seen);
    let also_leaves = |seen| with_proposals(leave(one, &carol, 1), seen);
    let commits = |seen| with_proposals(change_group(one, &alice, 1, &[], &[2]), seen);
    let outcomes =
        block_on(store.commit_many(vec![leaves(0), also_leaves(0), commits(0), message(one, &alice, 1, b"m")]));
    let wait = |sequence| Err(Refused::ProposalsWait { sequence: Sequence(sequence) });
    assert_eq!(accepted(outcomes[0].clone()).sequence, Sequence(3));
    assert_eq!(outcomes[1..3], [wait(3), wait(3)]);
    assert_eq!(accepted(outcomes[3].clone()).sequence, Sequence(4));
    assert_eq!(commit(&*store, commits(4)), wait(3), "the event that waits, not the last event");
    // Membership, leaving and the epoch come before the proposals, the bytes after them.
    assert_eq!(commit(&*store, leaves(0)), Err(Refused::Leaving));
    let wrong = Err(Refused::WrongEpoch { current: Epoch(1), head: Sequence(4) });
    assert_eq!(commit(&*store, with_proposals(leave(one, &carol, 0), 0)), wrong);
    let same_bytes = |seen| with_proposals(message(one, &alice, 1, b"m"), seen);
    assert_eq!(commit(&*store, same_bytes(0)), wait(3));
    assert_eq!(commit(&*store, same_bytes(3)), Err(Refused::Duplicate));
    // Whoever looks again comes through, also after a restart, and a commit ends the waiting.
    drop(store);
    let store = open(home, ZoneOptions::default());
    assert_eq!(accepted(commit(&*store, also_leaves(3))).sequence, Sequence(5));
    assert_eq!(commit(&*store, commits(3)), wait(5));
    accepted(commit(&*store, commits(5)));
    assert_eq!(commit(&*store, with_proposals(change_group(one, &alice, 2, &[], &[3]), 5)), wait(0));
    accepted(commit(&*store, with_proposals(change_group(one, &alice, 2, &[], &[3]), 0)));
    assert_eq!(check_audit(&*store, &[one]), 7);
}

pub(super) fn pages_keep_their_bounds(home: &impl Home) {
    let options = ZoneOptions { bucket_records_max: 4, ..ZoneOptions::default() };
    let store = open(home, options);
    let (one, two, alice) = (channel(1), channel(2), device(1));
    accepted(commit(&*store, start(one, &alice)));
    accepted(commit(&*store, start(two, &alice)));
    for number in 0..20u8 {
        let to = if number % 5 == 0 { two } else { one };
        accepted(commit(&*store, message(to, &alice, 0, &[number; 1000])));
    }
    let page = |after, events_max, bytes_max| {
        let page = store.read(&one, Sequence(after), events_max, bytes_max).expect("readable");
        assert_eq!((page.head, page.first_retained), (Sequence(17), Sequence(1)));
        page.events.iter().map(|event| event.head.sequence.0).collect::<Vec<_>>()
    };
    assert_eq!(page(0, 100, 1 << 20), (1..=17).collect::<Vec<_>>());
    assert_eq!(page(3, 6, 1 << 20), (4..=9).collect::<Vec<_>>());
    assert_eq!(page(3, 6, 2000), [4, 5]);
    assert_eq!(page(3, 6, 2999), [4, 5]);
    assert_eq!(page(3, 6, 0), [4], "one event always fits");
    assert!(page(0, 0, 1 << 20).is_empty());
    assert_eq!(page(16, 9, 1 << 20), [17]);
    assert!(page(17, 9, 1 << 20).is_empty());
    assert!(page(u64::MAX, 9, 1 << 20).is_empty());
    assert_eq!(store.read(&channel(3), Sequence(0), 9, 9).expect("readable").head, Sequence(0));
    assert_eq!(store.chain_at(&one, Sequence(0)).expect("readable"), Some(chain_start(&one).chain_hash));
    assert_eq!(store.chain_at(&one, Sequence(18)).expect("readable"), None);
    assert_eq!(store.chain_at(&channel(3), Sequence(0)).expect("readable"), None);
    let audit = |from, limit| {
        let records = store.audit_read(from, limit).expect("readable");
        records.iter().map(|record| record.leaf_index).collect::<Vec<_>>()
    };
    assert_eq!(audit(3, 3), [3, 4, 5]);
    assert_eq!(audit(20, 9), [20, 21]);
    assert!(audit(22, 9).is_empty());
    assert!(audit(u64::MAX, usize::MAX).is_empty());
    assert_eq!(check_audit(&*store, &[one, two]), 22);
}

fn with_welcome(mut unit: Unit, recipients: &[usize], size: usize) -> Unit {
    unit.effects.push(Effect::Welcome {
        recipients: recipients.iter().map(|number| device(*number)).collect(),
        inviter: device(1),
        welcome: Bytes::from(vec![0x77; size]),
        tree: Bytes::from(vec![0x78; size]),
    });
    unit
}

pub(super) fn welcomes_wait_in_inboxes(home: &impl Home) {
    let mut store = open(home, ZoneOptions::default());
    let (one, alice, bob) = (channel(1), device(1), device(2));
    accepted(commit(&*store, start(one, &alice)));
    let size = 300_000;
    let unit = with_welcome(change_group(one, &alice, 0, &[(2, 1), (3, 2)], &[]), &[2, 3], size);
    let first = accepted(commit(&*store, unit));
    let unit = with_welcome(change_group(one, &alice, 1, &[(4, 3)], &[]), &[4, 2], 10);
    accepted(commit(&*store, unit));
    for round in 0..3 {
        let ids = |after, limit| {
            let entries = store.inbox(&bob, after, limit).expect("readable");
            entries.iter().map(|entry| (entry.id, entry.welcome.len())).collect::<Vec<_>>()
        };
        assert_eq!(ids(0, 10), [(1, size), (2, 10)]);
        assert_eq!(ids(0, 1), [(1, size)]);
        assert_eq!(ids(1, 10), [(2, 10)]);
        let entry = store.inbox(&bob, 0, 1).expect("readable").remove(0);
        let head = Head { sequence: first.sequence, chain_hash: first.chain_hash };
        assert_eq!(
            (entry.channel, entry.head, &entry.inviter, entry.gateway_time),
            (one, head, &alice, first.gateway_time)
        );
        let tree = store.welcome_tree(&one, first.sequence).expect("readable");
        assert_eq!(tree, Some(Bytes::from(vec![0x78; size])));
        assert_eq!(store.group_info(&one).expect("readable"), Some(Bytes::from_static(b"group info 2")));
        drop(store);
        if round == 1 {
            home.lose_state();
        }
        store = open(home, ZoneOptions::default());
    }
    let confirm = |who: &_, ids: &[u64]| {
        let unit = effects(who, vec![Effect::ConfirmInbox { device: who.clone(), ids: ids.to_vec() }]);
        accepted(commit(&*store, unit));
    };
    confirm(&bob, &[1, 7]);
    confirm(&bob, &[1]);
    assert_eq!(store.inbox(&bob, 0, 9).expect("readable").len(), 1);
    assert!(store.welcome_tree(&one, first.sequence).expect("readable").is_some(), "another device still waits");
    confirm(&device(3), &[1]);
    assert_eq!(store.welcome_tree(&one, first.sequence).expect("readable"), None);
    assert_eq!(store.inbox(&device(3), 0, 9).expect("readable"), []);
    let known: BTreeSet<_> = store.head(&one).expect("readable").expect("exists").known.clone();
    assert_eq!(known, (1..=4).map(device).collect());
    assert_eq!(check_audit(&*store, &[one]), 6);
}

pub(super) fn lazy_writes_only_go_up(home: &impl Home) {
    let store = open(home, ZoneOptions::default());
    let (one, two, alice) = (channel(1), channel(2), device(1));
    accepted(commit(&*store, start(one, &alice)));
    assert_eq!(store.cursor(&alice, &one).expect("readable"), Sequence(0));
    store.cursor_merge(&alice, &[(one, Sequence(5)), (two, Sequence(1))]).expect("writable");
    store.cursor_merge(&alice, &[(one, Sequence(3))]).expect("writable");
    assert_eq!(store.cursor(&alice, &one).expect("readable"), Sequence(5));
    assert_eq!(store.cursor(&device(2), &one).expect("readable"), Sequence(0));
    let snapshot = |sequence, byte, size| GroupSnapshot {
        epoch: Epoch(sequence),
        sequence: Sequence(sequence),
        state: Bytes::from(vec![byte; size]),
    };
    assert_eq!(store.group_snapshot(&one).expect("readable"), None);
    store.put_group_snapshot(&one, snapshot(1, 1, 50_000)).expect("writable");
    store.put_group_snapshot(&one, snapshot(1, 2, 10)).expect("writable");
    assert_eq!(store.group_snapshot(&one).expect("readable"), Some(snapshot(1, 1, 50_000)));
    let mut unit = change_group(one, &alice, 0, &[], &[]);
    unit.effects.push(Effect::GroupSnapshot { state: Bytes::from(vec![3; 9_000]) });
    accepted(commit(&*store, unit));
    let committed = GroupSnapshot { epoch: Epoch(1), ..snapshot(2, 3, 9_000) };
    assert_eq!(store.group_snapshot(&one).expect("readable"), Some(committed.clone()));
    store.put_group_snapshot(&one, snapshot(4, 4, 5_000)).expect("writable");
    assert_eq!(store.group_snapshot(&one).expect("readable"), Some(snapshot(4, 4, 5_000)));
    drop(store);
    // What was lazy may be lost with the state; what came with a unit may not.
    home.lose_state();
    let store = open(home, ZoneOptions::default());
    assert_eq!(store.group_snapshot(&one).expect("readable"), Some(committed));
}

pub(super) fn time_and_buckets_never_go_back(home: &impl Home) {
    let clock = ManualClock::new();
    let options = ZoneOptions { bucket_records_max: 3, ..ZoneOptions::default() };
    let open = || home.open(Arc::<ManualClock>::clone(&clock), options).expect("the zone opens");
    let mut store = open();
    let (one, alice) = (channel(1), device(1));
    let week = 7 * 24 * 3600 * 1_000_000;
    let begin = clock.now();
    accepted(commit(&*store, start(one, &alice)));
    let mut last = begin;
    for (number, weeks) in [1, 3, 2, 0, 0, 5, 4].into_iter().enumerate() {
        clock.set(Timestamp(begin.0 + weeks * week));
        let sent = accepted(commit(&*store, message(one, &alice, 0, &[number as u8])));
        assert_eq!(sent.gateway_time, last.max(clock.now()));
        last = sent.gateway_time;
        drop(store);
        store = open();
    }
    // What is not in the channel has no reason to be later than the clock.
    let free = accepted(commit(&*store, effects(&alice, Vec::new())));
    assert_eq!(free.gateway_time, clock.now());
    let numbers: Vec<_> =
        (0..8).map(|after| store.read(&one, Sequence(after), 1, 1).expect("readable").events.len()).collect();
    assert_eq!(numbers, [1; 8]);
    assert_eq!(check_audit(&*store, &[one]), 9);
}

pub(super) fn the_tail_is_in_order(home: &impl Home) {
    let store = open(home, ZoneOptions::default());
    let (one, two, alice) = (channel(1), channel(2), device(1));
    let mut tail = store.tail();
    accepted(commit(&*store, start(one, &alice)));
    let units = vec![
        start(two, &alice),
        message(one, &alice, 0, b"a"),
        message(one, &alice, 9, b"b"),
        message(two, &alice, 0, b"c"),
    ];
    let _ = block_on(store.commit_many(units));
    let mut seen = Vec::new();
    while let Ok(event) = tail.try_recv() {
        let stored = store.read(&event.channel, Sequence(event.head.sequence.0 - 1), 1, 1).expect("readable");
        assert_eq!(*stored.events[0], *event, "the tail shows what is stored");
        seen.push((event.channel, event.head.sequence.0));
    }
    assert_eq!(seen, [(one, 1), (two, 1), (one, 2), (two, 2)]);
}

pub(super) fn a_device_has_at_most_its_channels(home: &impl Home) {
    let store = open(home, ZoneOptions::default());
    let (alice, bob) = (device(1), device(2));
    let limit = LIMITS.device_channels_max as u64;
    let units: Vec<Unit> = (0..limit).map(|number| start(channel(number), &alice)).collect();
    assert!(block_on(store.commit_many(units)).iter().all(Result::is_ok));
    let refused = Err(Refused::LimitReached { what: "channels of a device", limit });
    assert_eq!(commit(&*store, start(channel(limit), &alice)), refused);
    accepted(commit(&*store, start(channel(limit), &bob)));
    assert_eq!(commit(&*store, change_group(channel(limit), &bob, 0, &[(1, 1)], &[])), refused);
    // A new leaf in an old channel is no new channel; leaving one makes room.
    accepted(commit(&*store, change_group(channel(0), &alice, 0, &[(1, 1), (2, 2)], &[1])));
    accepted(commit(&*store, change_group(channel(0), &bob, 1, &[], &[1])));
    accepted(commit(&*store, change_group(channel(limit), &bob, 0, &[(1, 1)], &[])));
    let listed = store.channels_of(&alice, None, 3).expect("readable");
    assert_eq!(listed, [channel(1), channel(2), channel(3)]);
    assert_eq!(store.channels_of(&alice, listed.last(), 2).expect("readable"), [channel(4), channel(5)]);
    assert_eq!(store.channels_of(&alice, None, 2_000).expect("readable").len(), LIMITS.device_channels_max);
    assert_eq!(store.channels_of(&device(3), None, 3).expect("readable"), []);
    let unit = event(channel(1), &alice, Expect::Absent, EventKind::Start, b"again");
    assert_eq!(commit(&*store, unit), Err(Refused::ChannelExists));
    assert_eq!(store.repeat(&call(&alice, None, b"never")).expect("readable"), None);
}

pub(super) fn group_info_is_replaced_in_its_epoch(home: &impl Home) {
    let mut store = open(home, ZoneOptions::default());
    let (id, alice) = (channel(1), device(1));
    let replace = |to, epoch, text: &'static str| {
        let group_info = Bytes::from_static(text.as_bytes());
        effects(&alice, vec![Effect::ReplaceGroupInfo { channel: to, current: first_group(epoch), group_info }])
    };
    assert_eq!(commit(&*store, replace(id, 0, "too early")), Err(Refused::NoChannel));
    accepted(commit(&*store, start(id, &alice)));
    accepted(commit(&*store, change_group(id, &alice, 0, &[(2, 1)], &[])));
    let over = Refused::WrongEpoch { current: Epoch(1), head: Sequence(2) };
    assert_eq!(commit(&*store, replace(id, 0, "too late")), Err(over));
    let unit = replace(id, 1, "better");
    let first = accepted(commit(&*store, unit.clone()));
    assert_eq!(first.sequence, Sequence(0), "it is no event of the log");
    assert_eq!(commit(&*store, unit), Ok(first.as_repeat()));
    drop(store);
    home.lose_state();
    store = open(home, ZoneOptions::default());
    assert_eq!(store.group_info(&id).expect("readable"), Some(Bytes::from_static(b"better")));
    accepted(commit(&*store, change_group(id, &alice, 1, &[], &[2])));
    assert_eq!(store.group_info(&id).expect("readable"), Some(Bytes::from_static(b"group info 2")));
    check_audit(&*store, &[id]);
}

pub(super) fn proposals_end_with_their_epoch(home: &impl Home) {
    let mut store = open(home, ZoneOptions::default());
    let (id, alice, bob) = (channel(1), device(1), device(2));
    accepted(commit(&*store, start(id, &alice)));
    accepted(commit(&*store, change_group(id, &alice, 0, &[(2, 1)], &[])));
    accepted(commit(&*store, leave(id, &bob, 1)));
    assert_eq!(commit(&*store, message(id, &bob, 1, b"no more")), Err(Refused::Leaving));
    // Alice comes back at another leaf, without having been away: bob's proposal is void, and she joined when she did.
    accepted(commit(&*store, change_group(id, &alice, 1, &[(1, 5)], &[])));
    for _ in 0..2 {
        let head = store.head(&id).expect("readable").expect("it exists");
        assert!(head.leaving.is_empty() && head.proposal_sequence == Sequence(0));
        assert_eq!(head.members.get(&alice), Some(&Member { leaf: 5, joined: Sequence(1) }));
        drop(store);
        home.lose_state();
        store = open(home, ZoneOptions::default());
    }
    accepted(commit(&*store, message(id, &bob, 2, b"still here")));
    accepted(commit(&*store, leave(id, &bob, 2)));
    check_audit(&*store, &[id]);
}
