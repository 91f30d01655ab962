//! One group after the other carries a channel: who is awaited, what is compared, and that nothing of it is lost.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lianxin_tlog::EventKind;
use lianxin_types::{ChannelId, DeviceUri, Epoch, Incarnation, Sequence};

use super::fixture::{change_group, channel, commit, device, effects, event, first_group, message, start};
use super::stories::{accepted, open};
use super::suite::Home;
use crate::unit::{Effect, Expect, GroupEpoch, Refused, Seat, Unit};
use crate::zone::ZoneOptions;
use crate::zone_store::ZoneStore;

const fn second(epoch: u64) -> GroupEpoch {
    GroupEpoch { incarnation: Incarnation(1), epoch: Epoch(epoch) }
}

/// `by` goes on in the second group, without those `left` and with those `awaited`.
fn restart(to: ChannelId, by: &DeviceUri, epoch: u64, awaited: &[usize], left: &[usize]) -> Unit {
    behind(first_group(epoch), to, by, awaited, left)
}

/// `by` goes on in the group behind the one that stands there.
fn behind(current: GroupEpoch, to: ChannelId, by: &DeviceUri, awaited: &[usize], left: &[usize]) -> Unit {
    let expect = Expect::State { current, proposals: Sequence(0) };
    let incarnation = Incarnation(current.incarnation.0 + 1);
    let mut unit = event(to, by, expect, EventKind::Start, format!("start {}", incarnation.0).as_bytes());
    let devices = |numbers: &[usize]| numbers.iter().map(|number| device(*number)).collect::<Vec<_>>();
    unit.effects = vec![
        Effect::Incarnation { incarnation, awaited: devices(awaited) },
        Effect::Group {
            epoch: Epoch(0),
            seated: vec![Seat { device: by.clone(), leaf: 0 }],
            unseated: devices(left),
            group_info: Bytes::from_static(b"group info again"),
        },
    ];
    unit
}

/// The same unit, verified against an epoch of the second group.
fn in_second(mut unit: Unit) -> Unit {
    let write = unit.channel.as_mut().expect("an event");
    let Expect::Epoch(current) = &mut write.expect else { panic!("verified against an epoch") };
    current.incarnation = Incarnation(1);
    unit
}

fn lists(store: &dyn ZoneStore, number: usize) -> Vec<ChannelId> {
    store.channels_of(&device(number), None, 10).expect("readable")
}

pub(super) fn the_next_group_carries_the_channel_on(home: &impl Home) {
    let mut store = open(home, ZoneOptions::default());
    let (one, alice, bob) = (channel(1), device(1), device(2));
    accepted(commit(&*store, start(one, &alice)));
    let seats = change_group(one, &alice, 0, &[(2, 1), (3, 2), (4, 3)], &[]);
    let joined = accepted(commit(&*store, seats)).sequence;
    accepted(commit(&*store, change_group(one, &alice, 1, &[], &[])));
    let old_message = message(one, &bob, 1, b"verified before");

    let started = accepted(commit(&*store, restart(one, &bob, 2, &[3, 4], &[1])));
    assert_eq!(started.sequence, Sequence(4));
    let again = commit(&*store, restart(one, &device(3), 2, &[2, 4], &[1]));
    assert_eq!(again, Err(Refused::NotMember), "one wins, and the others sit there no more");
    accepted(commit(&*store, in_second(change_group(one, &bob, 0, &[(3, 1)], &[]))));

    // The second group stands at epoch 1 as the first one did.
    let wrong = Err(Refused::WrongEpoch { current: Epoch(1), head: Sequence(5) });
    assert_eq!(commit(&*store, old_message), wrong, "what was verified in the first group stays out");
    let old_info =
        Effect::ReplaceGroupInfo { channel: one, current: first_group(1), group_info: Bytes::from_static(b"old") };
    assert_eq!(commit(&*store, effects(&bob, vec![old_info])), wrong);
    assert_eq!(commit(&*store, in_second(message(one, &device(4), 1, b"no leaf yet"))), Err(Refused::NotMember));
    for lost in [false, true] {
        let head = store.head(&one).expect("readable").expect("exists");
        assert_eq!(head.current(), second(1));
        assert_eq!(head.members.keys().cloned().collect::<BTreeSet<_>>(), BTreeSet::from([device(2), device(3)]));
        assert_eq!(head.awaited.iter().collect::<Vec<_>>(), [(&device(4), &joined)]);
        let since: Vec<_> = (1..=4).map(|number| head.in_channel_since(&device(number))).collect();
        assert_eq!(since, [None, Some(joined), Some(joined), Some(joined)]);
        assert_eq!((lists(&*store, 1), lists(&*store, 4)), (vec![], vec![one]));
        drop(store);
        if lost {
            home.lose_state();
        }
        store = open(home, ZoneOptions::default());
    }
    accepted(commit(&*store, in_second(change_group(one, &bob, 1, &[(4, 2)], &[]))));
    accepted(commit(&*store, in_second(message(one, &device(4), 2, b"back"))));
    accepted(commit(&*store, in_second(change_group(one, &bob, 2, &[], &[4]))));
    assert_eq!(lists(&*store, 4), vec![]);
    let head = store.head(&one).expect("readable").expect("exists");
    assert_eq!((head.awaited.len(), head.in_channel_since(&device(4))), (0, None));
}

pub(super) fn who_is_awaited_starts_another_group_as_long_as_nobody_is_seated(home: &impl Home) {
    let mut store = open(home, ZoneOptions::default());
    let (one, alice, bob, carol) = (channel(1), device(1), device(2), device(3));
    accepted(commit(&*store, start(one, &alice)));
    let seats = change_group(one, &alice, 0, &[(2, 1), (3, 2), (4, 3)], &[]);
    let joined = accepted(commit(&*store, seats)).sequence;
    accepted(commit(&*store, restart(one, &bob, 1, &[3, 4], &[1])));

    let out = commit(&*store, behind(second(0), one, &alice, &[2], &[]));
    assert_eq!(out, Err(Refused::NotMember), "who was left behind stays out");
    accepted(commit(&*store, behind(second(0), one, &carol, &[2], &[])));
    for lost in [false, true] {
        let head = store.head(&one).expect("readable").expect("exists");
        assert_eq!(head.current(), GroupEpoch { incarnation: Incarnation(2), epoch: Epoch(0) });
        assert_eq!(head.members.keys().collect::<Vec<_>>(), [&carol]);
        assert_eq!(head.awaited, BTreeMap::from([(bob.clone(), joined), (device(4), joined)]));
        assert_eq!((lists(&*store, 1), lists(&*store, 2)), (vec![], vec![one]));
        drop(store);
        if lost {
            home.lose_state();
        }
        store = open(home, ZoneOptions::default());
    }
    let late = commit(&*store, behind(second(0), one, &bob, &[3], &[]));
    assert_eq!(late, Err(Refused::NotMember), "of several one wins");
    let third = |epoch| GroupEpoch { incarnation: Incarnation(2), epoch: Epoch(epoch) };
    let mut seats = change_group(one, &carol, 0, &[(4, 1)], &[]);
    let Expect::Epoch(current) = &mut seats.channel.as_mut().expect("an event").expect else { panic!("an epoch") };
    *current = third(0);
    accepted(commit(&*store, seats));
    let late = commit(&*store, behind(third(1), one, &bob, &[3, 4], &[]));
    assert_eq!(late, Err(Refused::NotMember), "somebody is seated now");
}
