//! Many callers at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lianxin_types::{Sequence, Timestamp};

use super::audit::check_audit;
use super::fixture::{change_group, channel, commit, device, message, start};
use super::packages::{claim, item, publish};
use super::stories::{accepted, open};
use super::suite::{Home, times};
use crate::unit::Refused;
use crate::zone::ZoneOptions;
use crate::zone_store::ZoneStore;

const CALLERS: usize = 8;

pub(super) fn claims_are_exactly_once(home: &impl Home) {
    let store = open(home, ZoneOptions::default());
    let (owners, each) = (3, 40);
    for owner in 0..owners {
        let items = (0..each).map(|number| item(owner, number, Timestamp(u64::MAX))).collect();
        accepted(commit(&*store, publish(owner, items, None)));
    }
    let mut taken: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let claimed: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let claimers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let store = Arc::clone(&store);
                scope.spawn(move || {
                    let mut mine = Vec::new();
                    while let Ok(accepted) = commit(&*store, claim(10 + caller, 1, &[0, 1, 2])) {
                        mine.extend(accepted.key_packages.iter().map(|package| package.to_vec()));
                    }
                    mine
                })
            })
            .collect();
        claimers.into_iter().flat_map(|claimer| claimer.join().expect("no claimer panics")).collect()
    });
    for package in claimed {
        *taken.entry(package).or_default() += 1;
    }
    assert_eq!(taken.len(), owners * each, "every package was claimed");
    assert!(taken.values().all(|count| *count == 1), "none was claimed twice");
    check_audit(&*store, &[]);
}

pub(super) fn one_commit_wins_an_epoch(home: &impl Home) {
    let options = ZoneOptions { bucket_records_max: 50, ..ZoneOptions::default() };
    let store = open(home, options);
    let one = channel(1);
    let epochs = times(20) as u64;
    accepted(commit(&*store, start(one, &device(0))));
    let everybody: Vec<(usize, u32)> = (1..CALLERS).map(|number| (number, number as u32)).collect();
    accepted(commit(&*store, change_group(one, &device(0), 0, &everybody, &[])));
    let (wins, messages) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let reader = Arc::clone(&store);
        scope.spawn(move || read_along(&*reader, epochs));
        for number in 0..CALLERS {
            let (store, wins, messages) = (Arc::clone(&store), &wins, &messages);
            scope.spawn(move || {
                let caller = device(number);
                let mut epoch = 1;
                while epoch <= epochs {
                    let text = format!("{number} in {epoch}");
                    if commit(&*store, message(one, &caller, epoch, text.as_bytes())).is_ok() {
                        messages.fetch_add(1, Ordering::Relaxed);
                    }
                    match commit(&*store, change_group(one, &caller, epoch, &[], &[])) {
                        Ok(_) => {
                            wins.fetch_add(1, Ordering::Relaxed);
                            epoch += 1;
                        }
                        Err(Refused::WrongEpoch { current, .. }) => {
                            assert!(current.0 > epoch, "a loser is told a later epoch");
                            epoch = current.0;
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    let head = store.head(&one).expect("readable").expect("exists");
    let (wins, messages) = (wins.into_inner(), messages.into_inner());
    assert_eq!((wins, head.epoch.0), (epochs, epochs + 1), "one winner for each epoch");
    assert_eq!(head.head.sequence, Sequence(2 + wins + messages), "nothing lost, nothing twice");
    assert_eq!(check_audit(&*store, &[one]), 2 + wins + messages);
}

/// Reads while others write: a page is dense and ends at the head that it names, whatever is being committed.
fn read_along(store: &dyn ZoneStore, epochs: u64) {
    loop {
        let is_over = store.head(&channel(1)).expect("readable").expect("exists").epoch.0 > epochs;
        let page = store.read(&channel(1), Sequence(0), usize::MAX, usize::MAX).expect("readable at any moment");
        let sequences = page.events.iter().map(|event| event.head.sequence.0);
        assert!(sequences.eq(1..=page.head.0), "dense up to the head {:?}", page.head);
        if is_over {
            break;
        }
    }
}
