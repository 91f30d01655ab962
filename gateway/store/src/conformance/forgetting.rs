//! What is remembered long enough, and does not stay for ever.

use std::sync::Arc;

use lianxin_types::{Clock, Epoch, Sequence, Timestamp};

use super::drops::check_rebuild;
use super::fixture::{ManualClock, audit, block_on, change_group, channel, commit, device, effects, message, start};
use super::stories::accepted;
use super::suite::Home;
use crate::forgetting::CALLS_KEPT;
use crate::key;
use crate::unit::{Refused, Unit};
use crate::zone::ZoneOptions;

fn rows_of(home: &impl Home, families: &[u8]) -> usize {
    home.state_rows().iter().filter(|(row_key, _)| families.contains(&row_key[0])).count()
}

pub(super) fn calls_are_known_for_thirty_days(home: &impl Home) {
    let clock = ManualClock::new();
    let options = ZoneOptions { bucket_records_max: 7, ..ZoneOptions::default() };
    let open = || home.open(Arc::<ManualClock>::clone(&clock), options).expect("the zone opens");
    let kept = u64::try_from(CALLS_KEPT.as_micros()).expect("thirty days");
    let begin = clock.now();
    let alice = device(1);
    let calls = |count: usize| (0..count).map(|_| effects(&alice, Vec::new())).collect::<Vec<Unit>>();
    let old = calls(20);
    let mut store = open();
    assert!(block_on(store.commit_many(old.clone())).iter().all(Result::is_ok));
    // To the last moment, over restarts, edges of buckets and a lost state.
    clock.set(Timestamp(begin.0 + kept));
    assert!(block_on(store.commit_many(calls(15))).iter().all(Result::is_ok));
    for round in 0..3 {
        for call in &old {
            assert!(accepted(commit(&*store, call.clone())).is_repeat, "round {round}");
        }
        drop(store);
        if round == 1 {
            check_rebuild(home, open);
        }
        store = open();
    }
    // Then each new call takes two old ones with it, and no young one.
    clock.set(Timestamp(begin.0 + kept + 1));
    assert!(block_on(store.commit_many(calls(9))).iter().all(Result::is_ok));
    drop(store);
    assert_eq!(rows_of(home, &[key::REMEMBERED]), 20 + 15 + 9 - 18);
    store = open();
    let young = calls(4);
    assert!(block_on(store.commit_many(young.clone())).iter().all(Result::is_ok));
    for mut call in old {
        // A new record, as its maker would make it: no slot may occur twice.
        call.audit = audit(&alice, None);
        assert!(!accepted(commit(&*store, call)).is_repeat, "forgotten");
    }
    assert!(accepted(commit(&*store, young[0].clone())).is_repeat);
    drop(store);
    assert_eq!(rows_of(home, &[key::REMEMBERED]), 15 + 9 + 4 + 20);
    assert_eq!(rows_of(home, &[key::REMEMBERED_AT]), 15 + 9 + 4 + 20);
    check_rebuild(home, open);
}

pub(super) fn accepted_bytes_of_past_epochs_go(home: &impl Home) {
    let options = ZoneOptions { bucket_records_max: 20, ..ZoneOptions::default() };
    let open = || home.open(ManualClock::new(), options).expect("the zone opens");
    let store = open();
    let (one, alice) = (channel(1), device(1));
    accepted(commit(&*store, start(one, &alice)));
    for number in 0..40u8 {
        accepted(commit(&*store, message(one, &alice, 0, &[number])));
    }
    let current = accepted(commit(&*store, change_group(one, &alice, 0, &[], &[]))).sequence;
    assert_eq!(current, Sequence(42));
    for number in 100..113u8 {
        accepted(commit(&*store, message(one, &alice, 1, &[number])));
    }
    // The old bytes are refused by their epoch, the new ones because they are known.
    let wrong = Err(Refused::WrongEpoch { current: Epoch(1), head: Sequence(55) });
    assert_eq!(commit(&*store, message(one, &alice, 0, &[3])), wrong);
    assert_eq!(commit(&*store, message(one, &alice, 1, &[105])), Err(Refused::Duplicate));
    drop(store);
    assert_eq!(rows_of(home, &[key::DUPLICATE]), 13, "what is left is of this epoch");
    check_rebuild(home, open);
    let store = open();
    assert_eq!(commit(&*store, message(one, &alice, 1, &[105])), Err(Refused::Duplicate));
}
