//! What becomes of wishes when their epoch ends.

use lianxin_types::{Digest, Sequence, Timestamp};

use super::*;

const STAGED: IdempotencyId = IdempotencyId([8; 16]);

fn device(name: &str) -> DeviceUri {
    format!("lianxin://{name}/app/b/c").parse().expect("well formed")
}

fn receipt() -> Receipt {
    Receipt {
        sequence: Sequence(1),
        gateway_time: Timestamp(2),
        expiry: None,
        policy_version: 0,
        leaf_index: 3,
        leaf_hash: Digest([4; 32]),
        chain_hash: Some(Digest([5; 32])),
    }
}

fn row(wanted: Wanted) -> WishRow {
    WishRow { id: IdempotencyId([7; 16]), staged: Some(STAGED), attempts: 0, claims: 0, wanted }
}

fn removal() -> WishRow {
    row(Wanted::Remove { devices: vec![device("a"), device("b")] })
}

fn invitation() -> WishRow {
    row(Wanted::Invite { devices: vec![device("a"), device("b")], key_packages: vec![vec![1], vec![2]] })
}

fn commit<'a>(added: &'a [DeviceUri], removed: &'a [DeviceUri]) -> Ending<'a> {
    Ending::Commit { is_own: false, removed_self: false, added, removed, receipt: receipt() }
}

/// The wish after that, and `None` if it stays.
fn after(mut row: WishRow, ending: Ending<'_>) -> (WishRow, Option<Outcome>) {
    let outcome = match fate(&mut row, Some(STAGED), ending) {
        Fate::Stays => None,
        Fate::CameTrue(outcome) => Some(outcome),
        Fate::InVain(failure) => Some(Err(failure)),
    };
    (row, outcome)
}

#[test]
fn an_own_commit_makes_its_wish_true_and_no_other() {
    let own = Ending::Commit { is_own: true, removed_self: false, added: &[], removed: &[], receipt: receipt() };
    assert_eq!(after(removal(), own).1, Some(Ok(receipt())));
    let other = WishRow { staged: None, ..removal() };
    assert_eq!(after(other.clone(), own), (other, None), "nothing was made for it");
}

#[test]
fn what_another_commit_overtakes_is_made_anew_for_what_is_left_of_it() {
    let (left, outcome) = after(removal(), commit(&[], &[device("b")]));
    let Wanted::Remove { devices } = &left.wanted else { panic!("{left:?}") };
    assert_eq!((devices, left.staged, left.attempts, outcome), (&vec![device("a")], None, 1, None));
    let (left, outcome) = after(invitation(), commit(&[device("a")], &[]));
    let again = Wanted::Invite { devices: vec![device("b")], key_packages: vec![vec![2]] };
    assert_eq!((left.wanted, left.staged, left.attempts, outcome), (again, None, 1, None));
    assert_eq!(after(row(Wanted::Leave), commit(&[], &[])).1, None);
}

#[test]
fn a_wish_comes_true_by_whosever_commit() {
    let both = [device("a"), device("b")];
    assert_eq!(after(removal(), commit(&[], &both)).1, Some(Ok(receipt())));
    assert_eq!(after(removal(), commit(&both, &both)).1, None, "they were seated anew");
    assert_eq!(after(invitation(), commit(&both, &[])).1, Some(Ok(receipt())));
    let out = Ending::Commit { is_own: false, removed_self: true, added: &[], removed: &[], receipt: receipt() };
    assert_eq!(after(row(Wanted::Leave), out).1, Some(Ok(receipt())));
    assert_eq!(after(removal(), out).1, Some(Err(Failure::NotMember)));
}

#[test]
fn what_is_overtaken_again_and_again_is_given_up() {
    let mut wish = removal();
    for attempt in 1..=ATTEMPTS_MAX {
        let (left, outcome) = after(WishRow { staged: Some(STAGED), ..wish }, Ending::Superseded);
        assert_eq!(outcome.is_none(), attempt < ATTEMPTS_MAX, "{attempt}");
        wish = left;
    }
    let waits = WishRow { staged: None, ..removal() };
    assert_eq!(after(waits.clone(), Ending::Superseded), (waits, None), "what was not tried was not in vain");
}

#[test]
fn a_broken_group_ends_no_wish_and_a_new_beginning_ends_those_that_may_have_come_true() {
    let (left, outcome) = after(removal(), Ending::Broken);
    assert_eq!((left.staged, left.attempts, outcome), (None, 0, None));
    assert_eq!(after(removal(), Ending::Anew).1, Some(Err(Failure::GivenUp)));
    assert_eq!(after(row(Wanted::Leave), Ending::Anew).1, None, "it is in, and wants to be out");
    assert_eq!(after(removal(), Ending::Invited).1, Some(Err(Failure::GivenUp)));
}

#[test]
fn key_packages_are_claimed_anew_a_few_times() {
    let mut wish = invitation();
    let again: Vec<bool> = (0..3).map(|_| to_be_claimed_anew(&mut wish)).collect();
    assert_eq!(again, [true, true, false]);
    assert_eq!(wish.wanted, Wanted::Invite { devices: vec![device("a"), device("b")], key_packages: vec![] });
    assert!(!to_be_claimed_anew(&mut removal()));
}
