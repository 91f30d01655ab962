use lianxin_audit::{PseudonymKey, Pseudonyms};
use lianxin_certs_dev::{FederationPlan, mint, read_signing_key};
use lianxin_delivery::{Fanout, RemovalKey};
use lianxin_identity::{Caller, Callers};
use lianxin_store::conformance::{channel, device, message};
use lianxin_store::{MemoryEngine, Zone, ZoneOptions};
use lianxin_types::{Clock, Sequence, SystemClock, SystemRandom};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::*;
use crate::{Operations, Parts, Refusal};

fn department(name: &str) -> DepartmentId {
    name.parse().expect("well formed")
}

/// Small units, all of one size.
fn units(count: usize) -> Vec<Unit> {
    (0..count).map(|number| message(channel(1), &device(0), 0, &number.to_be_bytes())).collect()
}

#[test]
fn levels_begin_at_one_mark_and_end_at_a_lower_one() {
    use Level::{Busy, Calm, Strained};
    let walk = |filled: &[u32]| {
        let next = |level: &mut Level, filled: &u32| {
            *level = level.after(*filled);
            Some(*level)
        };
        filled.iter().scan(Calm, next).collect::<Vec<_>>()
    };
    assert_eq!(walk(&[399, 400, 200, 199, 399]), [Calm, Busy, Busy, Calm, Calm]);
    assert_eq!(walk(&[599, 600, 400, 399, 599, 600]), [Busy, Strained, Strained, Busy, Busy, Strained]);
    assert_eq!(walk(&[1_000, 0]), [Strained, Calm]);
}

#[test]
fn one_department_gets_a_quarter_and_not_one_unit_more() {
    let pressure = Pressure::new(100, usize::MAX);
    let (count, held) = pressure.enter(&department("jiwei"), &units(30));
    assert_eq!(count, 25);
    let (over, _nothing) = pressure.enter(&department("jiwei"), &units(1));
    assert_eq!(over, 0);
    assert_eq!(pressure.level(), Level::Calm, "one department alone puts nothing off for others");
    drop(held);
    assert_eq!(pressure.enter(&department("jiwei"), &units(25)).0, 25, "all of it came back");
}

#[test]
fn bytes_count_as_units_do() {
    let one = units(1)[0].bytes();
    let pressure = Pressure::new(1_000_000, one * 40);
    assert_eq!(pressure.enter(&department("jiwei"), &units(30)).0, 10);
}

#[test]
fn many_that_flood_leave_room_for_one_that_comes() {
    let pressure = Pressure::new(1_000, usize::MAX);
    let mut held = Vec::new();
    for round in 0..50 {
        for name in 0..8 {
            let (_, entered) = pressure.enter(&department(&format!("flood-{name}")), &units(100));
            held.push(entered);
        }
        if round == 0 {
            assert_eq!(pressure.level(), Level::Strained);
        }
    }
    let (count, entered) = pressure.enter(&department("honest"), &units(20));
    assert_eq!(count, 20, "there is room for whoever comes");
    drop((held, entered));
    assert_eq!(pressure.level(), Level::Calm);
    let state = pressure.state();
    assert_eq!((state.total, state.departments.len()), (Load::default(), 0), "nothing is left behind");
}

#[test]
fn who_has_nothing_there_may_always_bring_one() {
    let one = units(1)[0].bytes();
    let pressure = Pressure::new(1_000, one * 2);
    let (first, _held) = pressure.enter(&department("jiwei"), &units(2));
    assert_eq!(first, 1, "one, although it is more than a quarter");
    let (second, _held_too) = pressure.enter(&department("shenji"), &units(2));
    assert_eq!(second, 1);
    assert_eq!(pressure.enter(&department("weijian"), &units(1)).0, 0, "full is full");
}

/// Operations on an empty zone with a short queue, and a caller.
fn operations() -> (Operations, Caller) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let minted = mint(&FederationPlan::default(), &folder.path().join("f"), &SystemClock).expect("mints");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let callers = Arc::new(Callers::new(minted.federation().expect("verifies"), Vec::new(), Arc::clone(&clock)));
    let file = minted.app("jiwei", "app-1").expect("minted").tls_certificate;
    let leaf = CertificateDer::from_pem_file(file).expect("PEM");
    let caller = callers.identify(&Arc::new(vec![leaf.to_vec()])).expect("a caller");
    // Any key will do: nothing is removed here.
    let key = read_signing_key(&minted.root_key_file(1)).expect("minted");
    let options = ZoneOptions { queue_units_max: 40, ..ZoneOptions::default() };
    let zone = "zone".parse().expect("well formed");
    let store = Zone::open(zone, MemoryEngine::new(), Arc::clone(&clock), options).expect("opens");
    let operations = Operations::new(Parts {
        store: Arc::new(store),
        callers,
        queue_units_max: options.queue_units_max,
        queue_bytes_max: options.queue_bytes_max,
        removal_key: RemovalKey::new(device(0), key),
        pseudonyms: Pseudonyms::new(PseudonymKey::new([7; 32])),
        clock,
        random: Arc::new(SystemRandom),
        fanout: Fanout::new(),
    });
    (operations, caller)
}

#[tokio::test]
async fn history_is_put_off_while_others_have_much_to_do_and_comes_back() {
    let (operations, caller) = operations();
    let pressure = Arc::clone(&operations.guard.pressure);
    let fill = |name: &str| pressure.enter(&department(name), &units(10)).1;
    let ask = || operations.history(&caller, channel(1), Sequence(0), 10);
    let mut held = vec![fill("one"), fill("two")];
    assert_eq!(operations.pressure(), Level::Busy, "new connections wait");
    assert_eq!(ask().await.expect_err("no such channel"), Refusal::ChannelNotAvailable, "and history does not yet");
    held.push(fill("three"));
    assert_eq!(operations.pressure(), Level::Strained);
    assert_eq!(ask().await.expect_err("put off"), Refusal::ResourceExhausted);
    drop(held);
    assert_eq!(ask().await.expect_err("no such channel"), Refusal::ChannelNotAvailable);
}

#[tokio::test]
async fn a_commit_that_nobody_waits_for_is_charged_until_it_is_done() {
    let (operations, caller) = operations();
    let guard = &operations.guard;
    let units = units(5);
    {
        let mut commit = std::pin::pin!(guard.commit_many(&caller.uri, units));
        let waker = std::task::Waker::noop();
        // Either it is done at once, or it is given up here.
        let _ready = commit.as_mut().poll(&mut std::task::Context::from_waker(waker));
    }
    operations.settled().await;
    assert_eq!(guard.store.health().queued_units, 0);
    assert_eq!(guard.pressure.state().total, Load::default(), "and no longer");
}
