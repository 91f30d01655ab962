//! Batches, repeats and kept state over the edges of buckets.

use std::sync::Arc;

use lianxin_types::{Clock, Sequence, Timestamp};

use super::audit::check_audit;
use super::drops::check_rebuild;
use super::fixture::{ManualClock, block_on, channel, device, message, start};
use super::suite::Home;
use crate::unit::Unit;
use crate::zone::ZoneOptions;

const WEEK: u64 = 7 * 24 * 3600 * 1_000_000;

pub(super) fn batches_and_repeats_cross_edges(home: &impl Home) {
    let clock = ManualClock::new();
    let options = ZoneOptions { bucket_records_max: 4, ..ZoneOptions::default() };
    let open = || home.open(Arc::<ManualClock>::clone(&clock), options).expect("the zone opens");
    let mut store = open();
    let (one, two, alice) = (channel(1), channel(2), device(1));
    // One batch fills a bucket and goes on in the next; some of its units are repeats of others in another bucket.
    let mut units = vec![start(one, &alice), start(two, &alice)];
    for number in 0..9u8 {
        units.push(message(if number % 4 == 0 { two } else { one }, &alice, 0, &[number]));
    }
    let repeats: Vec<Unit> = units[2..].to_vec();
    units.extend(repeats);
    let outcomes = block_on(store.commit_many(units.clone()));
    let first: Vec<_> = outcomes[..11].iter().map(|outcome| outcome.clone().expect("accepted")).collect();
    for (again, first) in outcomes[11..].iter().zip(&first[2..]) {
        assert_eq!(*again, Ok(first.clone().as_repeat()));
    }
    assert_eq!(store.health().journal.buckets, 3, "repeats take no room");
    for round in 0..4u64 {
        // The week ends, and for a while the clock goes back.
        clock.set(Timestamp(clock.now().0 + WEEK - (round % 2) * 2 * WEEK));
        for (unit, first) in units[2..11].iter().zip(&first[2..]) {
            let outcome = block_on(store.commit_many(vec![unit.clone()])).remove(0);
            assert_eq!(outcome, Ok(first.clone().as_repeat()), "round {round}");
        }
        let body = format!("round {round}");
        let fresh = block_on(store.commit_many(vec![message(one, &alice, 0, body.as_bytes())])).remove(0);
        let last = fresh.expect("a member").sequence;
        let page = store.read(&one, Sequence(0), 100, 1 << 20).expect("readable");
        assert_eq!(page.events.len() as u64, last.0, "dense over every edge");
        drop(store);
        if round == 2 {
            check_rebuild(home, open);
        }
        store = open();
    }
    assert_eq!(check_audit(&*store, &[one, two]), 15);
}
