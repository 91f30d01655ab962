//! Large rows that are replaced and deleted while they are read: a reader gets one version, whole.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use lianxin_types::{Epoch, Sequence, Timestamp};

use super::fixture::{change_group, channel, commit, device, effects, start};
use super::packages::{claim, item, publish};
use super::stories::{accepted, open};
use super::suite::{Home, times};
use crate::unit::Effect;
use crate::zone::ZoneOptions;
use crate::zone_store::GroupSnapshot;

/// Says that it is over also when the writer fails, so that a failure ends the test.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Writes while two threads read.
fn race(write: impl FnOnce(), read: impl Fn() + Sync) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    read();
                }
                read();
            });
        }
        let _over = Over(&is_over);
        write();
    });
}

/// Version `number`: bytes that no other version shares, and lengths of which every second is that of its neighbour.
fn version(number: u64) -> Bytes {
    let parts = [40, 40, 3, 3, 90, 90, 0, 40][number as usize % 8];
    Bytes::from(vec![number as u8; parts * 4_096 + 100])
}

fn check_version(bytes: &Bytes) -> u64 {
    let number = u64::from(bytes[0]);
    assert!(bytes.iter().all(|byte| u64::from(*byte) == number), "a mixture of versions");
    assert_eq!(bytes.len(), version(number).len(), "version {number} is whole");
    number
}

pub(super) fn views_and_group_info_are_read_whole(home: &impl Home) {
    let store = open(home, ZoneOptions::default());
    let (one, alice) = (channel(1), device(1));
    accepted(commit(&*store, start(one, &alice)));
    let commit_version = |number: u64| {
        let mut unit = change_group(one, &alice, number - 1, &[], &[]);
        if let Effect::Group { group_info, .. } = &mut unit.effects[0] {
            *group_info = version(number);
        }
        unit.effects.push(Effect::GroupSnapshot { state: version(number) });
        accepted(commit(&*store, unit));
    };
    commit_version(1);
    let read = || {
        let before = store.head(&one).expect("readable").expect("exists");
        let snapshot = store.group_snapshot(&one).expect("readable at any moment").expect("exists");
        assert_eq!(check_version(&snapshot.state), snapshot.epoch.0 % 256);
        assert!(snapshot.sequence >= before.head.sequence, "not older than what was acknowledged");
        let group_info = store.group_info(&one).expect("readable at any moment").expect("exists");
        assert!(check_version(&group_info) >= before.epoch.0);
    };
    race(|| (2..=times(60).min(250) as u64).for_each(commit_version), read);
    // The view that is put lazily is another row.
    let head = store.head(&one).expect("readable").expect("exists").head.sequence.0;
    let put = |number: u64| {
        let (epoch, sequence) = (Epoch(number), Sequence(head + number));
        let snapshot = GroupSnapshot { epoch, sequence, state: version(number % 256) };
        store.put_group_snapshot(&one, snapshot).expect("writable");
    };
    put(1);
    let read = || {
        let snapshot = store.group_snapshot(&one).expect("readable at any moment").expect("exists");
        assert_eq!(check_version(&snapshot.state), (snapshot.sequence.0 - head) % 256);
    };
    race(|| (2..=times(100) as u64).for_each(put), read);
}

pub(super) fn welcomes_and_packages_are_read_whole(home: &impl Home) {
    let store = open(home, ZoneOptions::default());
    let (one, alice, bob) = (channel(1), device(1), device(2));
    let first = accepted(commit(&*store, start(one, &alice))).sequence.0;
    let rounds = times(40).min(250) as u64;
    let large = |number: u64| {
        let mut item = item(2, number as usize, Timestamp(u64::MAX));
        item.bytes = version(number);
        item
    };
    let write = || {
        for number in 1..=rounds {
            let mut unit = change_group(one, &alice, number - 1, &[], &[]);
            let (welcome, tree) = (version(number), version(number));
            unit.effects.push(Effect::Welcome { recipients: vec![bob.clone()], inviter: alice.clone(), welcome, tree });
            accepted(commit(&*store, unit));
            accepted(commit(&*store, publish(2, vec![large(number)], Some(large(number)))));
            accepted(commit(&*store, claim(3, 1, &[2])));
            let used = Effect::UseClaims { channel: one, references: vec![large(number).reference] };
            let confirmed = Effect::ConfirmInbox { device: bob.clone(), ids: vec![number] };
            accepted(commit(&*store, effects(&bob, vec![used, confirmed])));
        }
    };
    let read = || {
        for entry in store.inbox(&bob, 0, 10).expect("readable at any moment") {
            assert_eq!(check_version(&entry.welcome), entry.id);
        }
        let head = store.head(&one).expect("readable").expect("exists").head.sequence;
        if let Some(tree) = store.welcome_tree(&one, head).expect("readable at any moment") {
            assert_eq!(check_version(&tree), head.0 - first);
        }
        let (count, _) = store.key_package_count(&bob, Timestamp(0)).expect("readable at any moment");
        assert!(count <= 1);
        store.is_last_resort(&bob, &large(1).reference).expect("readable at any moment");
    };
    race(write, read);
    assert_eq!(store.inbox(&bob, 0, 10).expect("readable"), []);
    assert!(store.is_last_resort(&bob, &large(rounds).reference).expect("readable"));
}
