//! Bundles and lists that follow each other, with a minted federation.

use std::sync::Arc;

use lianxin_certs_dev::{FederationPlan, Minted, mint, read_signing_key};
use lianxin_keystore::{Keystore, StateKey};
use lianxin_trust::sign_bundle;
use lianxin_types::{SystemClock, SystemRandom};

use super::*;
use crate::Config;

const NOW: Timestamp = Timestamp(1);

fn minted() -> (tempfile::TempDir, Minted) {
    let folder = tempfile::tempdir().expect("folder");
    let minted = mint(&FederationPlan::default(), &folder.path().join("federation"), &SystemClock).expect("minted");
    (folder, minted)
}

/// The signed bundle that follows the minted one without the last department, 卫生健康委.
fn without_one_department(minted: &Minted) -> Vec<u8> {
    let current = minted.bundle().expect("a bundle");
    let mut bundle = current.bundle.clone();
    bundle.departments.retain(|department| department.id.as_str() != "weijian");
    signed_after(minted, &current, bundle)
}

/// `bundle` as the signed successor of `before`.
fn signed_after(minted: &Minted, before: &VerifiedBundle, mut bundle: lianxin_trust::TrustBundle) -> Vec<u8> {
    bundle.version = before.bundle.version + 1;
    bundle.predecessor = Some(before.digest);
    let keys = [1, 2].map(|number| read_signing_key(&minted.root_key_file(number)).expect("a key"));
    sign_bundle(&bundle, &[("root-1", &keys[0]), ("root-2", &keys[1])])
}

/// The notes of so many bundles, each the successor of the one before it, after `first`.
fn chain_after(minted: &Minted, first: &VerifiedBundle, count: usize) -> Vec<Vec<u8>> {
    let (roots, mut notes, mut last) = (minted.roots().expect("roots"), Vec::new(), first.clone());
    for _ in 0..count {
        let mut bundle = last.bundle.clone();
        bundle.expires = bundle.expires.plus(std::time::Duration::from_secs(1));
        notes.push(signed_after(minted, &last, bundle));
        last = verify_bundle(&roots, notes.last().expect("just made")).expect("signed");
    }
    notes
}

fn offer(note: &[u8], earlier: &[Vec<u8>], lists: Vec<Vec<u8>>) -> Trust {
    let bytes = |all: &[Vec<u8>]| all.iter().cloned().map(Into::into).collect();
    Trust { trust_bundle: note.to_vec().into(), revocation_lists: bytes(&lists), earlier_bundles: bytes(earlier) }
}

fn lists(federation: &Federation) -> Vec<Vec<u8>> {
    federation.revocation_lists().map(<[u8]>::to_vec).collect()
}

#[test]
fn a_bundle_that_drops_an_authority_leaves_the_lists_of_the_others_in_force() {
    let (_folder, minted) = minted();
    let (current, roots) = (minted.federation().expect("a federation"), minted.roots().expect("roots"));
    let held = lists(&current);
    assert_eq!(held.len(), 4);
    let note = without_one_department(&minted);
    // The gateway sends no list, then one of the three.
    for offered in [vec![], vec![held[1].clone()]] {
        let next =
            successor(&current, &roots, &offer(&note, &[], offered), NOW).expect("it follows").expect("it is new");
        assert_eq!(next.bundle().bundle.departments.len(), 3);
        assert_eq!(lists(&next), held[..3]);
    }
    let foreign = successor(&current, &roots, &offer(&note, &[], vec![b"nonsense".to_vec()]), NOW);
    assert!(matches!(foreign, Err(TrustError::Federation(FederationError::RevocationList { .. }))), "{foreign:?}");
}

#[test]
fn nothing_new_is_nothing_new() {
    let (_folder, minted) = minted();
    let (current, roots) = (minted.federation().expect("a federation"), minted.roots().expect("roots"));
    let note = current.bundle().note.clone();
    let offered = offer(&note, &[], lists(&current));
    // That the gateway has the lists is news once.
    let known = successor(&current, &roots, &offered, NOW).expect("good").expect("the gateway has the lists");
    assert!(successor(&known, &roots, &offered, Timestamp(2)).expect("good").is_none());
    minted.revoke_app("shenji", "app-2").expect("revoked");
    let newer = lists(&minted.federation().expect("a federation"));
    let next =
        successor(&current, &roots, &offer(&note, &[], newer.clone()), NOW).expect("good").expect("a newer list");
    assert_eq!(lists(&next), newer);
}

#[test]
fn at_start_the_stored_lists_stay_in_force_under_a_bundle_that_drops_an_authority() {
    let (folder, minted) = minted();
    let config = Config::from_certs_dev(minted.folder(), "jiwei", "app-1", "unused").expect("configured");
    let old = config.load().expect("loaded");
    minted.revoke_app("shenji", "app-2").expect("revoked");
    let current = minted.federation().expect("a federation");
    let held = lists(&current);
    assert_ne!(held, old.lists, "the stored list of shenji is newer than the configured one");
    let bundle = verify_bundle(&old.roots, &without_one_department(&minted)).expect("signed");
    let keystore = Keystore::open(&folder.path().join("state"), &StateKey::from_bytes([1; 32]), Arc::new(SystemRandom));
    let keystore = keystore.expect("opens");
    // Once the configured files are newer and without any list, once they are older and with the dropped one's.
    for loaded in [Loaded { bundle, lists: vec![], ..config.load().expect("loaded") }, old] {
        let (stored, next) = (Arc::new(minted.federation().expect("a federation")), loaded);
        let started = keystore.transaction_blocking(move |tx| {
            if tx.get(TRUST, BUNDLE)?.is_none() {
                store(tx, &stored)?;
            }
            at_start(tx, &next)
        });
        let started = started.expect("it starts");
        assert_eq!((started.bundle().bundle.version, lists(&started)), (2, held[..3].to_vec()));
    }
}

#[test]
fn what_earlier_bundles_listed_is_remembered_over_a_start() {
    let (folder, minted) = minted();
    let config = Config::from_certs_dev(minted.folder(), "jiwei", "app-1", "unused").expect("configured");
    let (current, roots) = (minted.federation().expect("a federation"), minted.roots().expect("roots"));
    let note = without_one_department(&minted);
    let next = successor(&current, &roots, &offer(&note, &[], lists(&current)[..1].to_vec()), NOW);
    let next = next.expect("it follows").expect("it is new");
    let dropped = current.bundle().bundle.departments.last().expect("weijian").authorities[0].clone();
    assert!(next.past().to_bytes().windows(dropped.len()).any(|bytes| bytes == dropped));
    let keystore = Keystore::open(&folder.path().join("state"), &StateKey::from_bytes([1; 32]), Arc::new(SystemRandom));
    let (past, loaded) = (next.past().clone(), config.load().expect("loaded"));
    let started = keystore.expect("opens").transaction_blocking(move |tx| {
        store(tx, &next)?;
        at_start(tx, &loaded)
    });
    assert_eq!(*started.expect("it starts").past(), past);
}

#[test]
fn a_configured_bundle_is_the_way_back_over_a_gap_and_another_chain_is_not() {
    let (folder, minted) = minted();
    let current = minted.bundle().expect("a bundle");
    let config = Config::from_certs_dev(minted.folder(), "jiwei", "app-1", "unused").expect("configured");
    let keystore = Keystore::open(&folder.path().join("state"), &StateKey::from_bytes([1; 32]), Arc::new(SystemRandom));
    let keystore = keystore.expect("opens");
    let start_with = |note: &[u8]| {
        std::fs::write(minted.bundle_file(), note).expect("written");
        let loaded = config.load().expect("loaded");
        let started = keystore.transaction_blocking(move |tx| at_start(tx, &loaded)).expect("it starts");
        started.bundle().bundle.version
    };
    let notes = chain_after(&minted, &current, 70);
    // The next number, and signed, but after another bundle than the one in use: that is no gap.
    let mut forked = current.clone();
    forked.digest = lianxin_types::Digest([7; 32]);
    let fork = signed_after(&minted, &forked, current.bundle.clone());
    assert_eq!(start_with(&current.note), 1);
    assert_eq!(start_with(&fork), 1);
    assert_eq!(start_with(&notes[69]), 71);
    assert_eq!(start_with(&notes[3]), 71, "never back");
}

#[test]
fn missed_bundles_are_gone_through_one_by_one_also_in_parts() {
    let (_folder, minted) = minted();
    let (current, roots) = (minted.federation().expect("a federation"), minted.roots().expect("roots"));
    let notes = chain_after(&minted, current.bundle(), 4);
    let version = |earlier: &[Vec<u8>]| {
        let next = successor(&current, &roots, &offer(&notes[3], earlier, lists(&current)), NOW).expect("it follows");
        next.expect("it is new").bundle().bundle.version
    };
    assert_eq!(version(&notes[..3]), 5);
    // The rest comes when it is asked for again: what was verified is taken.
    assert_eq!(version(&notes[..2]), 3);
}

#[test]
fn a_chain_with_a_gap_is_named_and_another_chain_or_a_lower_bundle_is_refused() {
    let (_folder, minted) = minted();
    let (current, roots) = (minted.federation().expect("a federation"), minted.roots().expect("roots"));
    let notes = chain_after(&minted, current.bundle(), 4);
    let refused = |current: &Federation, earlier: &[Vec<u8>]| {
        successor(current, &roots, &offer(&notes[3], earlier, Vec::new()), NOW).expect_err("it does not follow")
    };
    // None of them, not the oldest, not one in the middle that was kept.
    assert!(matches!(refused(&current, &[]), TrustError::Gap { have: 1, found: 5 }));
    assert!(matches!(refused(&current, &notes[1..3]), TrustError::Gap { have: 1, found: 3 }));
    assert!(matches!(refused(&current, &[notes[0].clone(), notes[2].clone()]), TrustError::Gap { have: 2, found: 4 }));
    // Signed by the root keys all the same, but its predecessor is not ours.
    let other = verify_bundle(&roots, &without_one_department(&minted)).expect("signed");
    let other = Federation::new(other, Vec::new()).expect("a federation");
    let broken = refused(&other, &notes[1..3]);
    assert!(matches!(broken, TrustError::Bundle(BundleError::BrokenChain { have: 2, found: 3 })), "{broken}");
    let newest = verify_bundle(&roots, &notes[3]).expect("signed");
    let newest = Federation::new(newest, Vec::new()).expect("a federation");
    let lower = successor(&newest, &roots, &offer(&notes[2], &[], Vec::new()), NOW).expect_err("lower");
    assert!(matches!(lower, TrustError::Bundle(BundleError::Older { have: 5, found: 4 })), "{lower}");
    // Nor does an older bundle come in among the earlier ones.
    let again = refused(&newest, &notes[2..3]);
    assert!(matches!(again, TrustError::Bundle(BundleError::Older { have: 5, found: 4 })), "{again}");
}
