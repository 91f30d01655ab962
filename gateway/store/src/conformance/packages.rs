//! Key packages: published, claimed exactly once, remembered until used.

use bytes::Bytes;
use lianxin_types::{Clock, Digest, LIMITS, Timestamp};

use super::audit::check_audit;
use super::fixture::{ManualClock, channel, commit, device, effects};
use super::stories::{accepted, open};
use super::suite::Home;
use crate::unit::{Effect, KeyPackageItem, Refused, Unit};
use crate::zone::ZoneOptions;

/// Longer than one part, as packages with certificate chains are.
const PACKAGE_BYTES: usize = 5_000;

pub(super) fn item(owner: usize, number: usize, not_after: Timestamp) -> KeyPackageItem {
    let name = format!("package {number} of {owner}");
    let mut bytes = name.clone().into_bytes();
    bytes.resize(PACKAGE_BYTES, b'.');
    KeyPackageItem { reference: Digest::sha256(name.as_bytes()), not_after, bytes: Bytes::from(bytes) }
}

pub(super) fn publish(owner: usize, one_time: Vec<KeyPackageItem>, last_resort: Option<KeyPackageItem>) -> Unit {
    let owner = device(owner);
    effects(&owner, vec![Effect::PublishKeyPackages { owner: owner.clone(), one_time, last_resort }])
}

pub(super) fn claim(caller: usize, to: u64, owners: &[usize]) -> Unit {
    let owners = owners.iter().map(|number| device(*number)).collect();
    let (caller, channel) = (device(caller), channel(to));
    let department = caller.department().clone();
    effects(&caller, vec![Effect::ClaimKeyPackages { channel, department, owners }])
}

pub(super) fn claimed_oldest_first(home: &impl Home) {
    let clock = ManualClock::new();
    let store = home.open(clock.clone(), ZoneOptions::default()).expect("the zone opens");
    let now = clock.now();
    let later = Timestamp(now.0 + 1_000);
    let (old, ends_now, young) = (item(1, 1, later), item(1, 2, now), item(1, 3, later));
    let last = item(1, 9, later);
    let units = publish(1, vec![ends_now.clone(), old.clone(), young.clone()], Some(last.clone()));
    accepted(commit(&*store, units));
    assert_eq!(store.key_package_count(&device(1), now).expect("readable"), (2, true));
    assert!(store.is_last_resort(&device(1), &last.reference).expect("readable"));
    assert!(!store.is_last_resort(&device(1), &old.reference).expect("readable"));
    // The oldest that lives on, then the next, then the last resort, which stays.
    for expect in [&old, &young, &last, &last] {
        let claimed = accepted(commit(&*store, claim(2, 7, &[1]))).key_packages;
        assert_eq!(claimed, std::slice::from_ref(&expect.bytes));
    }
    assert!(!store.is_claimed(&channel(7), &ends_now.reference).expect("readable"));
    assert!(store.is_claimed(&channel(7), &old.reference).expect("readable"));
    assert!(!store.is_claimed(&channel(8), &old.reference).expect("readable"), "claimed for another channel");
    assert!(!store.is_claimed(&channel(7), &last.reference).expect("readable"), "a last resort is never used up");
    let used = Effect::UseClaims { channel: channel(7), references: vec![old.reference] };
    accepted(commit(&*store, effects(&device(2), vec![used])));
    assert!(!store.is_claimed(&channel(7), &old.reference).expect("readable"));
    drop(store);
    home.lose_state();
    let store = home.open(clock.clone(), ZoneOptions::default()).expect("the zone opens");
    assert!(!store.is_claimed(&channel(7), &old.reference).expect("readable"));
    assert!(store.is_claimed(&channel(7), &young.reference).expect("readable"));
    // A last resort ends too, and a new one takes its place.
    clock.set(later);
    let owner = device(1);
    assert_eq!(commit(&*store, claim(2, 7, &[1])), Err(Refused::NoKeyPackage { owner }));
    // Its owner is told so, or it would never make another.
    assert_eq!(store.key_package_count(&device(1), clock.now()).expect("readable"), (0, false));
    let next = item(1, 10, Timestamp(later.0 + 1));
    accepted(commit(&*store, publish(1, Vec::new(), Some(next.clone()))));
    assert_eq!(accepted(commit(&*store, claim(2, 7, &[1]))).key_packages, [next.bytes]);
    check_audit(&*store, &[]);
}

pub(super) fn all_or_nothing(home: &impl Home) {
    let mut store = open(home, ZoneOptions::default());
    let later = Timestamp(u64::MAX);
    accepted(commit(&*store, publish(1, vec![item(1, 1, later)], None)));
    accepted(commit(&*store, publish(2, vec![item(2, 1, later)], None)));
    let missing = Err(Refused::NoKeyPackage { owner: device(3) });
    assert_eq!(commit(&*store, claim(5, 7, &[1, 3, 2])), missing);
    assert_eq!(store.key_package_count(&device(1), Timestamp(0)).expect("readable"), (1, false));
    let unit = claim(5, 7, &[2, 1]);
    let first = accepted(commit(&*store, unit.clone()));
    assert_eq!(first.key_packages, [item(2, 1, later).bytes, item(1, 1, later).bytes], "in the order of the owners");
    for round in 0..3 {
        assert_eq!(commit(&*store, unit.clone()), Ok(first.clone().as_repeat()), "round {round}");
        let scope = unit.idempotency.as_ref().expect("a call");
        assert_eq!(store.repeat(scope).expect("readable"), Some(Ok(first.clone().as_repeat())));
        drop(store);
        if round == 1 {
            home.lose_state();
        }
        store = open(home, ZoneOptions::default());
    }
    assert_eq!(commit(&*store, claim(5, 7, &[1])), Err(Refused::NoKeyPackage { owner: device(1) }));
    assert_eq!(check_audit(&*store, &[]), 3);
}

pub(super) fn at_most_the_limit(home: &impl Home) {
    let clock = ManualClock::new();
    let store = home.open(clock.clone(), ZoneOptions::default()).expect("the zone opens");
    let limit = LIMITS.device_key_packages_max;
    let soon = Timestamp(clock.now().0 + 10);
    let items = |numbers: std::ops::Range<usize>| numbers.map(|number| item(1, number, soon)).collect::<Vec<_>>();
    let refused = Err(Refused::LimitReached { what: "key packages of a device", limit: limit as u64 });
    assert_eq!(commit(&*store, publish(1, items(0..limit + 1), None)), refused);
    accepted(commit(&*store, publish(1, items(0..limit), Some(item(1, 999, soon)))));
    assert_eq!(commit(&*store, publish(1, items(limit..limit + 1), None)), refused);
    // The same packages again are no new ones; those whose life is over make room.
    accepted(commit(&*store, publish(1, items(0..limit), None)));
    assert_eq!(store.key_package_count(&device(1), clock.now()).expect("readable"), (limit, true));
    clock.set(soon);
    assert_eq!(store.key_package_count(&device(1), clock.now()).expect("readable").0, 0);
    let fresh = vec![item(1, 1_000, Timestamp(u64::MAX))];
    accepted(commit(&*store, publish(1, fresh, None)));
    assert_eq!(store.key_package_count(&device(1), Timestamp(0)).expect("readable").0, 1, "the dead are swept");
}

pub(super) fn unused_claims_are_bounded_and_end(home: &impl Home) {
    let clock = ManualClock::new();
    let mut store = home.open(clock.clone(), ZoneOptions::default()).expect("the zone opens");
    let limit = LIMITS.department_unused_claims_max;
    let soon = Timestamp(clock.now().0 + 1_000);
    let later = Timestamp(soon.0 + 1_000_000);
    let items = (0..limit + 8).map(|number| item(1, number, if number < limit { soon } else { later })).collect();
    accepted(commit(&*store, publish(1, items, Some(item(1, 999, later)))));
    for _ in 0..limit {
        accepted(commit(&*store, claim(2, 7, &[1])));
    }
    let what = "unused claims of a department on a device";
    let refused = Err(Refused::LimitReached { what, limit: limit as u64 });
    assert_eq!(commit(&*store, claim(2, 8, &[1])), refused, "for whatever channel");
    assert_eq!(commit(&*store, claim(5, 7, &[1])), refused, "by another device of the department");
    accepted(commit(&*store, claim(3, 7, &[1])));
    // One that is used makes room for one.
    let used = item(1, 0, soon).reference;
    accepted(commit(
        &*store,
        effects(&device(2), vec![Effect::UseClaims { channel: channel(7), references: vec![used] }]),
    ));
    accepted(commit(&*store, claim(2, 7, &[1])));
    assert_eq!(commit(&*store, claim(2, 7, &[1])), refused);
    // The rest ends with its packages, and is forgotten when the department claims again.
    clock.set(soon);
    assert!(store.is_claimed(&channel(7), &item(1, 1, soon).reference).expect("readable"));
    accepted(commit(&*store, claim(2, 7, &[1])));
    for number in 0..limit {
        let reference = item(1, number, soon).reference;
        assert!(!store.is_claimed(&channel(7), &reference).expect("readable"), "package {number}");
    }
    drop(store);
    home.lose_state();
    store = home.open(clock.clone(), ZoneOptions::default()).expect("the zone opens");
    assert!(!store.is_claimed(&channel(7), &item(1, 1, soon).reference).expect("readable"));
    assert!(store.is_claimed(&channel(7), &item(1, limit + 1, later).reference).expect("readable"));
    check_audit(&*store, &[]);
}
