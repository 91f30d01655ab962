//! Reports of commits that a member cannot process, and what they do to the committer.

use lianxin_tlog::EventKind;
use lianxin_types::{ChannelId, DeviceUri, Sequence};

use super::fixture::{change_group, channel, commit, device, effects, event, leave, message, start};
use super::stories::{accepted, open};
use super::suite::Home;
use crate::unit::{Effect, Expect, Refused, Unit};
use crate::zone::ZoneOptions;

fn report(to: ChannelId, reporter: &DeviceUri, committer: &DeviceUri, commit: Sequence, bytes: &[u8]) -> Unit {
    let mut unit = event(to, reporter, Expect::Member, EventKind::Report, bytes);
    unit.effects = vec![Effect::Report { reporter: reporter.clone(), committer: committer.clone(), commit }];
    unit
}

pub(super) fn a_report_pauses_a_committer(home: &impl Home) {
    let mut store = open(home, ZoneOptions::default());
    let (one, alice, bob, carol) = (channel(1), device(1), device(2), device(3));
    accepted(commit(&*store, start(one, &alice)));
    let seats = change_group(one, &alice, 0, &[(2, 1), (3, 2)], &[]);
    let reported = accepted(commit(&*store, seats)).sequence;

    let stranger = report(one, &device(9), &alice, reported, b"a stranger's");
    assert_eq!(commit(&*store, stranger), Err(Refused::NotMember));
    accepted(commit(&*store, change_group(one, &carol, 1, &[], &[])));
    accepted(commit(&*store, report(one, &bob, &alice, reported, b"bob's")));
    assert_eq!(commit(&*store, report(one, &bob, &alice, reported, b"bob's second")), Err(Refused::Duplicate));
    for lost in [false, true] {
        let head = store.head(&one).expect("readable").expect("exists");
        assert_eq!(head.paused.iter().collect::<Vec<_>>(), [&alice]);
        assert_eq!(commit(&*store, change_group(one, &alice, 2, &[], &[])), Err(Refused::CommitterPaused));
        drop(store);
        if lost {
            home.lose_state();
        }
        store = open(home, ZoneOptions::default());
    }
    // It goes on reading, sending and leaving; others commit. Being seated anew makes nobody forget.
    accepted(commit(&*store, message(one, &alice, 2, b"a word")));
    accepted(commit(&*store, change_group(one, &carol, 2, &[(1, 5)], &[1])));
    assert_eq!(commit(&*store, change_group(one, &alice, 3, &[], &[])), Err(Refused::CommitterPaused));

    let nowhere = effects(&bob, vec![Effect::AllowCommitter { channel: channel(7), device: alice.clone() }]);
    assert_eq!(commit(&*store, nowhere), Err(Refused::NoChannel));
    accepted(commit(&*store, effects(&bob, vec![Effect::AllowCommitter { channel: one, device: alice.clone() }])));
    // A late report of what was allowed is kept and stops nobody; one of a newer commit does.
    accepted(commit(&*store, report(one, &carol, &alice, reported, b"carol's, late")));
    for lost in [false, true] {
        assert!(store.head(&one).expect("readable").expect("exists").paused.is_empty());
        drop(store);
        if lost {
            home.lose_state();
        }
        store = open(home, ZoneOptions::default());
    }
    let next = accepted(commit(&*store, change_group(one, &alice, 3, &[], &[]))).sequence;
    accepted(commit(&*store, report(one, &bob, &alice, next, b"bob's third")));
    assert_eq!(commit(&*store, change_group(one, &alice, 4, &[], &[])), Err(Refused::CommitterPaused));
    accepted(commit(&*store, leave(one, &bob, 4)));
    assert_eq!(commit(&*store, report(one, &bob, &carol, Sequence(3), b"too late")), Err(Refused::Leaving));
}
