//! Buckets that end: what is refused, what readers see afterwards, and that a rebuild equals what was lost.

use std::sync::Arc;

use bytes::Bytes;
use lianxin_tlog::chain_start;
use lianxin_types::{ChannelId, Epoch, Sequence};

use super::audit::check_audit;
use super::fixture::{
    ManualClock, block_on, change_group, channel, commit, device, drop_buckets, effects, message, start,
};
use super::packages::{claim, item, publish};
use super::stories::{accepted, open};
use super::suite::{Home, times};
use crate::key;
use crate::unit::{Effect, Outcome, Refused, Unit};
use crate::zone::ZoneOptions;
use crate::zone_store::{GroupSnapshot, Page, ZoneStore};

const OPTIONS: ZoneOptions = ZoneOptions {
    bucket_records_max: 5,
    batch_units_max: 1_024,
    queue_units_max: 16_384,
    queue_bytes_max: 128 * 1024 * 1024,
    tail_events_max: 4_096,
    state_bytes_min: 0,
};

/// The unit that ends buckets, as a schedule would make it.
pub(super) fn drop_before(before: u64) -> Unit {
    drop_buckets(&device(7), before)
}

/// A lazily stored view of the channel's group as of its last event.
pub(super) fn put_view(store: &dyn ZoneStore, id: &ChannelId) -> Option<GroupSnapshot> {
    let head = store.head(id).expect("readable")?;
    let state = Bytes::from(format!("view at {}", head.head.sequence.0));
    let view = GroupSnapshot { epoch: head.epoch, sequence: head.head.sequence, state };
    store.put_group_snapshot(id, view.clone()).expect("writable");
    Some(view)
}

/// Rows of the closed zone's state that a rebuild must give again: all but the lazy ones, which may be older.
pub(super) fn lasting_rows(home: &impl Home) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = home.state_rows();
    rows.retain(|(row_key, _)| !matches!(row_key[0], key::LAZY_SNAPSHOT | key::CURSOR));
    rows
}

/// Loses the closed zone's state, lets it be computed again, and compares the two, row by row.
pub(super) fn check_rebuild(home: &impl Home, open: impl FnOnce() -> Arc<dyn ZoneStore>) {
    let before = lasting_rows(home);
    home.lose_state();
    drop(open());
    let after = lasting_rows(home);
    assert_eq!(before.len(), after.len(), "as many rows as were lost");
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after, "the row that was lost");
    }
}

fn page(store: &dyn ZoneStore, id: &ChannelId, after: u64) -> Page {
    store.read(id, Sequence(after), 1_000, 1 << 20).expect("readable")
}

pub(super) fn buckets_end_and_the_rest_stays(home: &impl Home) {
    let mut store = open(home, OPTIONS);
    let (one, quiet, alice) = (channel(1), channel(2), device(1));
    let nobody_waits = Err(Refused::BucketNeeded { bucket: 0 });
    assert_eq!(commit(&*store, drop_before(1)), nobody_waits, "there is no snapshot");
    accepted(commit(&*store, start(quiet, &alice)));
    let first = message(quiet, &alice, 0, b"first");
    let answer = accepted(commit(&*store, first.clone()));
    let last = accepted(commit(&*store, message(quiet, &alice, 0, b"last")));
    accepted(commit(&*store, start(one, &alice)));
    for number in 0..17u8 {
        accepted(commit(&*store, message(one, &alice, 0, &[number])));
    }
    put_view(&*store, &one);
    put_view(&*store, &quiet);
    // 21 records: four buckets of five and one in the fifth.
    assert_eq!(block_on(store.prepare_drop()).expect("the zone is open"), 5);
    assert_eq!(commit(&*store, drop_before(6)), Err(Refused::BucketNeeded { bucket: 5 }));
    assert_eq!(page(&*store, &one, 0).first_retained, Sequence(1), "a refusal drops nothing");
    let dropped = accepted(commit(&*store, drop_before(4)));
    for round in 0..4 {
        let found = page(&*store, &one, 0);
        // Three buckets held leaves 0 to 14, of which the channel's are 3 to 14.
        assert_eq!((found.head, found.first_retained), (Sequence(18), Sequence(13)), "round {round}");
        let sequences: Vec<u64> = found.events.iter().map(|event| event.head.sequence.0).collect();
        assert_eq!(sequences, (13..=18).collect::<Vec<_>>());
        assert_eq!(page(&*store, &one, 15).events.len(), 3);
        let found = page(&*store, &quiet, 0);
        assert_eq!((found.head, found.first_retained, found.events.len()), (Sequence(3), Sequence(4), 0));
        let chain = |id: &ChannelId, sequence| store.chain_at(id, Sequence(sequence)).expect("readable");
        assert_eq!((chain(&one, 12), chain(&quiet, 2)), (None, None));
        assert!(chain(&one, 13).is_some());
        assert_eq!(chain(&quiet, 3), Some(last.chain_hash), "the head is known without its event");
        assert_eq!(chain(&quiet, 0), Some(chain_start(&quiet).chain_hash));
        // The audit log is whole, and what was acknowledged is known.
        assert_eq!(check_audit(&*store, &[one, quiet]), dropped.leaf_index + 1);
        let call = first.idempotency.as_ref().expect("a call");
        assert_eq!(store.repeat(call).expect("readable"), Some(Ok(answer.clone().as_repeat())));
        assert_eq!(store.health().journal.first_bucket, 4);
        drop(store);
        if round == 1 {
            check_rebuild(home, || open(home, OPTIONS));
        }
        store = open(home, OPTIONS);
    }
    // It goes on, also in the channel of which nothing is left.
    let next = accepted(commit(&*store, message(quiet, &alice, 0, b"next")));
    assert_eq!(next.sequence, Sequence(4));
    assert_eq!(page(&*store, &quiet, 0).events.len(), 1);
    assert_eq!(commit(&*store, message(quiet, &alice, 0, b"last")), Err(Refused::Duplicate));
    assert_eq!(check_audit(&*store, &[one, quiet]), next.leaf_index + 1);
}

pub(super) fn a_view_that_is_behind_keeps_its_buckets(home: &impl Home) {
    let store = open(home, OPTIONS);
    let (one, two, alice) = (channel(1), channel(2), device(1));
    accepted(commit(&*store, start(one, &alice)));
    accepted(commit(&*store, start(two, &alice)));
    put_view(&*store, &one);
    put_view(&*store, &two);
    let fill = |count: u64| {
        for _ in 0..count {
            accepted(commit(&*store, effects(&alice, Vec::new())));
        }
    };
    let may_end = || block_on(store.prepare_drop()).expect("the zone is open");
    fill(4);
    // In the second bucket the group changes, and no view says so.
    accepted(commit(&*store, change_group(one, &alice, 0, &[(2, 1)], &[])));
    fill(10);
    assert_eq!(may_end(), 2, "the change must stay readable");
    accepted(commit(&*store, message(one, &alice, 1, b"no change of the group")));
    put_view(&*store, &one);
    assert_eq!(may_end(), 4);
    // One that comes with a unit will do as well.
    let mut unit = change_group(two, &alice, 0, &[(2, 1)], &[]);
    unit.effects.push(Effect::GroupSnapshot { state: Bytes::from_static(b"with the unit") });
    accepted(commit(&*store, unit));
    fill(5);
    assert_eq!(may_end(), 5);
    accepted(commit(&*store, drop_before(5)));
    let view = store.group_snapshot(&two).expect("readable").expect("there is one");
    assert_eq!((view.epoch, view.sequence), (Epoch(1), Sequence(2)));
}

pub(super) fn what_a_claim_took_outlives_its_bucket(home: &impl Home) {
    let mut store = open(home, OPTIONS);
    let (one, alice) = (channel(1), device(1));
    let mut large = item(2, 1, lianxin_types::Timestamp(u64::MAX));
    large.bytes = Bytes::from(vec![0x5C; 20_000]);
    accepted(commit(&*store, publish(2, vec![large.clone()], None)));
    let take = claim(1, 1, &[2]);
    let taken = accepted(commit(&*store, take.clone()));
    assert_eq!(taken.key_packages, [large.bytes]);
    for _ in 0..10 {
        accepted(commit(&*store, effects(&alice, Vec::new())));
    }
    let before = block_on(store.prepare_drop()).expect("the zone is open");
    accepted(commit(&*store, drop_before(before)));
    let expect: Outcome = Ok(taken.as_repeat());
    for _ in 0..2 {
        assert_eq!(commit(&*store, take.clone()), expect);
        assert_eq!(store.repeat(take.idempotency.as_ref().expect("a call")).expect("readable"), Some(expect.clone()));
        assert!(store.is_claimed(&one, &large.reference).expect("readable"));
        drop(store);
        check_rebuild(home, || open(home, OPTIONS));
        store = open(home, OPTIONS);
    }
}

/// The state changes in every family while it is written, and the snapshot has it as of one leaf.
pub(super) fn a_snapshot_is_of_one_moment(home: &impl Home) {
    let options = ZoneOptions { bucket_records_max: 200, batch_units_max: 8, ..OPTIONS };
    let open = || home.open(ManualClock::new(), options).expect("the zone opens");
    let store = open();
    let rounds = times(12).min(200) as u64;
    let (alice, bob) = (device(1), device(2));
    let channels: Vec<ChannelId> = (0..120).map(channel).collect();
    let units: Vec<Unit> = channels.iter().map(|id| start(*id, &alice)).collect();
    assert!(block_on(store.commit_many(units)).iter().all(Result::is_ok));
    std::thread::scope(|scope| {
        let store = &*store;
        scope.spawn(|| {
            for round in 0..rounds {
                let mut units = Vec::new();
                for (number, id) in channels.iter().enumerate().skip(round as usize % 3).step_by(3) {
                    let seats: &[(usize, u32)] = if (round / 3) % 2 == 0 { &[(2, 1)] } else { &[] };
                    let unseated: &[usize] = if (round / 3) % 2 == 0 { &[] } else { &[2] };
                    let mut unit = change_group(*id, &alice, round / 3, seats, unseated);
                    let welcome = Bytes::from(vec![number as u8; 6_000]);
                    let recipients = vec![bob.clone()];
                    let (inviter, tree) = (alice.clone(), welcome.clone());
                    unit.effects.push(Effect::GroupSnapshot { state: Bytes::from(vec![round as u8; 9_000]) });
                    unit.effects.push(Effect::Welcome { recipients, inviter, welcome, tree });
                    units.push(unit);
                }
                let ids = (round..round + 20).collect();
                units.push(effects(&bob, vec![Effect::ConfirmInbox { device: bob.clone(), ids }]));
                assert!(block_on(store.commit_many(units)).iter().all(Result::is_ok));
            }
        });
        scope.spawn(|| {
            for round in 0..10_000 {
                // The other thread may be slow to fill the first bucket.
                if round >= rounds / 4 && store.health().journal.first_bucket > 1 {
                    break;
                }
                for id in &channels {
                    store.cursor_merge(&bob, &[(*id, Sequence(round))]).expect("writable");
                }
                let before = block_on(store.prepare_drop()).expect("the zone is open");
                if before > 0 {
                    accepted(commit(store, drop_before(before)));
                }
            }
        });
    });
    assert!(store.health().journal.first_bucket > 1, "buckets were dropped meanwhile");
    drop(store);
    check_rebuild(home, open);
    let store = open();
    check_audit(&*store, &channels);
}
