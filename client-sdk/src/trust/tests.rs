//! Bundles and lists that follow each other, with a minted federation.

use std::sync::Arc;

use lianxin_certs_dev::{FederationPlan, Minted, mint, read_signing_key};
use lianxin_keystore::{Keystore, StateKey};
use lianxin_trust::sign_bundle;
use lianxin_types::{SystemClock, SystemRandom};

use super::*;
use crate::Config;

fn minted() -> (tempfile::TempDir, Minted) {
    let folder = tempfile::tempdir().expect("folder");
    let minted = mint(&FederationPlan::default(), &folder.path().join("federation"), &SystemClock).expect("minted");
    (folder, minted)
}

/// The signed bundle that follows the minted one without the last department, 卫生健康委.
fn without_one_department(minted: &Minted) -> Vec<u8> {
    let current = minted.bundle().expect("a bundle");
    let mut bundle = current.bundle;
    bundle.departments.retain(|department| department.id.as_str() != "weijian");
    bundle.version += 1;
    bundle.predecessor = Some(current.digest);
    let keys = [1, 2].map(|number| read_signing_key(&minted.root_key_file(number)).expect("a key"));
    sign_bundle(&bundle, &[("root-1", &keys[0]), ("root-2", &keys[1])])
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
        let next = successor(&current, &roots, &note, offered).expect("it follows").expect("it is new");
        assert_eq!(next.bundle().bundle.departments.len(), 3);
        assert_eq!(lists(&next), held[..3]);
    }
    let foreign = successor(&current, &roots, &note, vec![b"nonsense".to_vec()]);
    assert!(matches!(foreign, Err(TrustError::Federation(FederationError::RevocationList { .. }))), "{foreign:?}");
}

#[test]
fn nothing_new_is_nothing_new() {
    let (_folder, minted) = minted();
    let (current, roots) = (minted.federation().expect("a federation"), minted.roots().expect("roots"));
    let note = current.bundle().note.clone();
    assert!(successor(&current, &roots, &note, lists(&current)).expect("good").is_none());
    minted.revoke_app("shenji", "app-2").expect("revoked");
    let newer = lists(&minted.federation().expect("a federation"));
    let next = successor(&current, &roots, &note, newer.clone()).expect("good").expect("a newer list");
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
