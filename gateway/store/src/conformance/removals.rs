//! Members that are to be removed, events that follow another, and what the gateway asks of all channels.

use lianxin_types::{Epoch, Sequence};

use super::audit::check_audit;
use super::fixture::{
    block_on, change_group, channel, commit, device, effects, following, leave, message, removal, start, with_proposals,
};
use super::stories::{accepted, open};
use super::suite::Home;
use crate::unit::{Effect, Refused};
use crate::zone::ZoneOptions;

pub(super) fn a_removal_stops_messages(home: &impl Home) {
    let mut store = open(home, ZoneOptions::default());
    let (one, alice, bob, carol) = (channel(1), device(1), device(2), device(3));
    accepted(commit(&*store, start(one, &alice)));
    accepted(commit(&*store, change_group(one, &alice, 0, &[(2, 1), (3, 2)], &[])));
    let wait = |sequence| Err(Refused::ProposalsWait { sequence: Sequence(sequence) });

    // A member who leaves of its own accord stops nobody.
    let left = accepted(commit(&*store, leave(one, &carol, 1))).sequence;
    accepted(commit(&*store, message(one, &alice, 1, b"still open")));
    // The gateway is no member, but it proposes for the state that it saw, too.
    let wrong = Err(Refused::WrongEpoch { current: Epoch(1), head: Sequence(4) });
    assert_eq!(commit(&*store, removal(one, &bob, 0, left.0)), wrong);
    assert_eq!(commit(&*store, removal(one, &bob, 1, 0)), wait(left.0));
    let asked = accepted(commit(&*store, removal(one, &bob, 1, left.0))).sequence;
    for lost in [false, true] {
        let head = store.head(&one).expect("readable").expect("exists");
        assert_eq!((head.removal_sequence, head.proposal_sequence), (asked, asked));
        assert_eq!(head.leaving, [carol.clone(), bob.clone()]);
        assert_eq!(commit(&*store, message(one, &alice, 1, b"too early")), wait(asked.0), "nobody sends now");
        assert_eq!(commit(&*store, message(one, &bob, 1, b"never")), Err(Refused::Leaving));
        drop(store);
        if lost {
            home.lose_state();
        }
        store = open(home, ZoneOptions::default());
    }
    accepted(commit(&*store, with_proposals(change_group(one, &alice, 1, &[], &[2, 3]), asked.0)));
    let head = store.head(&one).expect("readable").expect("exists");
    assert_eq!((head.removal_sequence, head.leaving.len()), (Sequence(0), 0));
    accepted(commit(&*store, message(one, &alice, 2, b"open again")));
    check_audit(&*store, &[one]);
}

pub(super) fn followers_stand_behind_their_unit(home: &impl Home) {
    let options = ZoneOptions { bucket_records_max: 4, ..ZoneOptions::default() };
    let mut store = open(home, options);
    let (one, alice, bob, carol) = (channel(1), device(1), device(2), device(3));
    accepted(commit(&*store, start(one, &alice)));
    accepted(commit(&*store, change_group(one, &alice, 0, &[(2, 1), (3, 2)], &[])));
    let with = |epoch, followers| {
        let mut unit = change_group(one, &alice, epoch, &[], &[]);
        unit.followers = followers;
        unit
    };
    let behind = |gone| following(removal(one, gone, 0, 0));

    // Not together: none of it happens.
    let elsewhere = following(removal(channel(2), &bob, 0, 0));
    let undecided = {
        let mut unit = behind(&bob);
        unit.effects.push(Effect::ClaimKeyPackages {
            channel: one,
            department: bob.department().clone(),
            owners: vec![bob.clone()],
        });
        unit
    };
    for follower in [elsewhere, undecided, removal(one, &bob, 1, 0), effects(&alice, Vec::new())] {
        assert_eq!(commit(&*store, with(1, vec![follower])), Err(Refused::NotTogether));
    }
    assert_eq!(commit(&*store, behind(&bob)), Err(Refused::NotTogether), "there is nothing that it follows");
    let wrong = Err(Refused::WrongEpoch { current: Epoch(1), head: Sequence(2) });
    assert_eq!(commit(&*store, with(7, vec![behind(&bob)])), wrong);
    let head = store.head(&one).expect("readable").expect("exists");
    assert_eq!((head.head.sequence, head.leaving.len()), (Sequence(2), 0));

    // Two records are in a bucket of four: a unit of three goes into the next, whole.
    let unit = with(1, vec![behind(&bob), behind(&carol)]);
    let call = unit.idempotency.clone().expect("a call");
    let outcomes = block_on(store.commit_many(vec![unit.clone(), message(one, &alice, 2, b"too early")]));
    let first = accepted(outcomes[0].clone());
    assert_eq!(first.sequence, Sequence(3));
    assert_eq!(outcomes[1], Err(Refused::ProposalsWait { sequence: Sequence(5) }), "nothing comes in between");
    for lost in [false, true] {
        let head = store.head(&one).expect("readable").expect("exists");
        assert_eq!((head.epoch, head.head.sequence, head.removal_sequence), (Epoch(2), Sequence(5), Sequence(5)));
        assert_eq!(head.leaving, [bob.clone(), carol.clone()]);
        let repeat = accepted(store.repeat(&call).expect("readable").expect("remembered"));
        assert_eq!((repeat.sequence, repeat.is_repeat), (Sequence(3), true));
        assert!(accepted(commit(&*store, unit.clone())).is_repeat);
        check_audit(&*store, &[one]);
        let page = store.read(&one, Sequence(2), 10, usize::MAX).expect("readable");
        let leaves: Vec<_> = page.events.iter().map(|event| event.leaf_index).collect();
        assert_eq!(leaves, [2, 3, 4], "three records, three audit leaves, side by side");
        drop(store);
        if lost {
            home.lose_state();
        }
        store = open(home, options);
    }
    // More than a bucket holds: it gets one of its own.
    let many = with(2, (0..6).map(|_| behind(&bob)).collect());
    assert_eq!(accepted(commit(&*store, many)).sequence, Sequence(6));
    assert_eq!(store.head(&one).expect("readable").expect("exists").head.sequence, Sequence(12));
    check_audit(&*store, &[one]);
}

pub(super) fn all_channels_in_pages(home: &impl Home) {
    let store = open(home, ZoneOptions::default());
    let alice = device(1);
    assert_eq!(store.channels(None, 10).expect("readable"), []);
    let all: Vec<_> = (1..=5).map(channel).collect();
    for id in all.iter().rev() {
        accepted(commit(&*store, start(*id, &alice)));
    }
    let first = store.channels(None, 3).expect("readable");
    assert_eq!(first, all[..3]);
    assert_eq!(store.channels(first.last(), 3).expect("readable"), all[3..]);
    assert_eq!(store.channels(all.last(), 3).expect("readable"), []);
}
