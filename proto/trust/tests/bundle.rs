//! Trust bundles: who may sign them, what they may say, and which may follow which (PROTOCOL 9).

use std::time::Duration;

use ed25519_dalek::SigningKey;
use lianxin_trust::{
    BUNDLE_LABEL, BundleError, Department, Endpoint, RootKey, RootKeys, RootKeysError, TrustBundle, VerifiedBundle,
    Zone, sign_bundle, verify_bundle,
};
use lianxin_types::{Digest, Timestamp};

const GOLDEN: &[u8] = include_bytes!("golden/trust-bundle.note");
/// Printed by `golden/make.py`.
const GOLDEN_DIGEST: &str = "d3d951dbb09e37ab0bec4c1fd9e52f1113ac59235b6f986e803c261a0c96d703";

fn root(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn two_of_three() -> RootKeys {
    let keys = (1..=3).map(|n| RootKey { name: format!("root-{n}"), key: root(n).verifying_key().to_bytes() });
    RootKeys { threshold: 2, keys: keys.collect() }
}

/// What `golden/make.py` says.
fn bundle() -> TrustBundle {
    let department = |id: &str, name: &str| Department {
        id: id.parse().expect("a name"),
        name: name.to_owned(),
        authorities: Vec::new(),
        witness_keys: Vec::new(),
        issuer_keys: Vec::new(),
    };
    let mut jiwei = department("jiwei", "纪委监委");
    jiwei.authorities = vec![b"certificate one".to_vec()];
    jiwei.witness_keys = vec![[1; 32]];
    let mut shenji = department("shenji", "审计局");
    shenji.issuer_keys = vec![[2; 32], [3; 32]];
    let zone = Zone {
        id: "cn-zj-1".parse().expect("a name"),
        department: jiwei.id.clone(),
        endpoints: vec![Endpoint { host: "gw.example".to_owned(), port: 7443 }],
        removal_key: [4; 32],
        removal_keys_before: Vec::new(),
        promise_key: [5; 32],
        log_key: [6; 32],
    };
    TrustBundle {
        version: 7,
        issued: Timestamp::from_seconds(1_800_000_000),
        expires: Timestamp::from_seconds(1_800_604_800),
        predecessor: Some(Digest([0xab; 32])),
        departments: vec![jiwei, shenji],
        zones: vec![zone],
    }
}

fn signed_by(bundle: &TrustBundle, numbers: &[u8]) -> Vec<u8> {
    let keys: Vec<_> = numbers.iter().map(|n| (format!("root-{n}"), root(*n))).collect();
    let signers: Vec<_> = keys.iter().map(|(name, key)| (&name[..], key)).collect();
    sign_bundle(bundle, &signers)
}

fn verified(bundle: &TrustBundle) -> VerifiedBundle {
    verify_bundle(&two_of_three(), &signed_by(bundle, &[1, 2])).expect("two of three have signed")
}

/// The signed note over any text, so that also texts that we never write can be tried.
fn note_over(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    use ed25519_dalek::Signer as _;
    use sha2::Digest as _;
    let mut note = format!("{text}\n");
    for number in [1, 2] {
        let (name, key) = (format!("root-{number}"), root(number));
        let hashed = [name.as_bytes(), b"\n\xff", BUNDLE_LABEL.as_bytes(), key.verifying_key().as_bytes()].concat();
        let message = [BUNDLE_LABEL.as_bytes(), b"\0", text.as_bytes()].concat();
        let line = [&sha2::Sha256::digest(&hashed)[..4], &key.sign(&message).to_bytes()].concat();
        note += &format!("— {name} {}\n", base64::engine::general_purpose::STANDARD.encode(line));
    }
    note.into_bytes()
}

fn refusal_of_text(text: &str) -> BundleError {
    verify_bundle(&two_of_three(), &note_over(text)).expect_err(text)
}

#[test]
fn fewer_signatures_than_the_threshold_are_refused_however_often_one_key_signs() {
    let roots = two_of_three();
    let refusal = |numbers: &[u8]| verify_bundle(&roots, &signed_by(&bundle(), numbers)).expect_err("under threshold");
    assert_eq!(refusal(&[1]), BundleError::UnderThreshold { found: 1, threshold: 2 });
    assert_eq!(refusal(&[1, 1, 1]), BundleError::UnderThreshold { found: 1, threshold: 2 });
    assert_eq!(refusal(&[8, 9]), BundleError::UnderThreshold { found: 0, threshold: 2 });
    assert_eq!(verify_bundle(&roots, &bundle().to_json_bytes()), Err(BundleError::NotANote));
}

#[test]
fn any_two_of_three_suffice_and_lines_of_strangers_do_not_matter() {
    for numbers in [&[1, 2][..], &[1, 3], &[3, 2], &[1, 2, 3], &[9, 1, 8, 2]] {
        let found = verify_bundle(&two_of_three(), &signed_by(&bundle(), numbers)).expect("enough have signed");
        assert_eq!(found.bundle, bundle());
        assert_eq!(found.digest.to_hex(), GOLDEN_DIGEST, "the digest does not depend on who signed");
        assert_eq!(found.note, signed_by(&bundle(), numbers));
    }
}

#[test]
fn another_key_under_a_roots_name_is_a_stranger() {
    let note = sign_bundle(&bundle(), &[("root-1", &root(9)), ("root-2", &root(2))]);
    let refusal = verify_bundle(&two_of_three(), &note);
    assert_eq!(refusal, Err(BundleError::UnderThreshold { found: 1, threshold: 2 }));
}

#[test]
fn a_bad_signature_of_a_root_is_refused_even_when_enough_others_are_good() {
    let note = String::from_utf8(signed_by(&bundle(), &[1, 2, 3])).expect("a note is text");
    let other = TrustBundle { version: 8, ..bundle() };
    let foreign = String::from_utf8(signed_by(&other, &[3])).expect("a note is text");
    let line = |note: &str| note.lines().last().expect("a signature line").to_owned();
    let mixed = note.replace(&line(&note), &line(&foreign));
    assert_ne!(mixed, note);
    let refusal = verify_bundle(&two_of_three(), mixed.as_bytes());
    assert_eq!(refusal, Err(BundleError::BadSignature { name: "root-3".to_owned() }));
}

#[test]
fn no_changed_byte_goes_unnoticed() {
    let note = signed_by(&bundle(), &[1, 2]);
    for index in 0..note.len() {
        let mut changed = note.clone();
        changed[index] ^= 1;
        assert!(verify_bundle(&two_of_three(), &changed).is_err(), "byte {index}");
        assert!(verify_bundle(&two_of_three(), &note[..index]).is_err(), "cut at {index}");
    }
}

#[test]
fn the_signature_is_under_the_label() {
    use base64::Engine as _;
    use ed25519_dalek::Signer as _;
    let good = String::from_utf8(signed_by(&bundle(), &[1, 2])).expect("a note is text");
    let (text, lines) = good.rsplit_once("\n\n").expect("a blank line");
    let engine = base64::engine::general_purpose::STANDARD;
    let line = lines.lines().next().expect("a line");
    let encoded = line.rsplit_once(' ').expect("three words").1;
    let hash = &engine.decode(encoded).expect("base64")[..4];
    let bare = root(1).sign(format!("{text}\n").as_bytes()).to_bytes();
    let forged = good.replace(encoded, &engine.encode([hash, &bare].concat()));
    let refusal = verify_bundle(&two_of_three(), forged.as_bytes());
    assert_eq!(refusal, Err(BundleError::BadSignature { name: "root-1".to_owned() }));
}

#[test]
fn roots_that_cannot_decide_decide_nothing() {
    let note = signed_by(&bundle(), &[1, 2]);
    let mut roots = two_of_three();
    roots.threshold = 0;
    let refusal = Err(BundleError::Roots(RootKeysError::Threshold { threshold: 0, keys: 3 }));
    assert_eq!(verify_bundle(&roots, &note), refusal);
    let mut roots = two_of_three();
    roots.keys[1] = RootKey { name: "root-2".to_owned(), key: roots.keys[0].key };
    let refusal = Err(BundleError::Roots(RootKeysError::Twice { name: "root-2".to_owned() }));
    assert_eq!(verify_bundle(&roots, &note), refusal);
}

#[test]
fn a_well_signed_text_that_is_not_a_bundle_is_refused() {
    let good = String::from_utf8(bundle().to_json_bytes()).expect("json is text");
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        refusal_of_text(&(good.replacen(from, to, 1) + "\n"))
    };
    assert!(matches!(refusal_of_text("hello\n"), BundleError::Json { .. }));
    assert!(matches!(with(r#""version":7"#, r#""version":7,"more":1"#), BundleError::Json { .. }));
    assert!(matches!(with(r#""version":7"#, r#""version":7,"version":8"#), BundleError::Json { .. }));
    assert!(matches!(with(r#""port":7443"#, r#""port":65536"#), BundleError::Json { .. }));
    assert_eq!(with(r#""format":1"#, r#""format":2,"new":true"#), BundleError::Format { format: 2 });
    assert_eq!(with(r#""version":7"#, r#""version": 7"#), BundleError::NotCanonical);
    assert_eq!(with(r#""predecessor":"abab"#, r#""predecessor":"ABab"#), BundleError::NotCanonical);
    let field = |field| BundleError::Field { field };
    assert_eq!(with(r#""version":7"#, r#""version":9007199254740992"#), field("version"));
    assert_eq!(with(r#""expires":1800604800000000"#, r#""expires":1800000000000000"#), field("expires"));
    assert_eq!(with(r#""id":"shenji""#, r#""id":"jiwei""#), field("departments"));
    assert_eq!(with(r#""id":"shenji""#, r#""id":"aaa""#), field("departments"));
    assert_eq!(with(r#""id":"shenji""#, r#""id":"Shenji""#), field("id of a department"));
    assert_eq!(with(r#""name":"审计局""#, r#""name":"""#), field("name of a department"));
    assert_eq!(with(r#""department":"jiwei""#, r#""department":"weijian""#), field("department of a zone"));
    assert_eq!(with(r#""host":"gw.example""#, r#""host":"""#), field("host"));
    assert_eq!(with(r#""log_key":"06"#, r#""log_key":""#), field("log_key"));
}

#[test]
fn only_the_same_or_the_next_bundle_may_follow() {
    let current = verified(&bundle());
    let next = TrustBundle { version: 8, predecessor: Some(current.digest), ..bundle() };
    let check = |newer: TrustBundle| current.check_successor(&verified(&newer));
    let older = TrustBundle { version: 6, predecessor: Some(current.digest), ..bundle() };
    assert_eq!(check(older), Err(BundleError::Older { have: 7, found: 6 }));
    let fork = TrustBundle { expires: bundle().expires.plus(Duration::from_secs(1)), ..bundle() };
    assert_eq!(check(fork), Err(BundleError::Fork { version: 7 }));
    let broken = Err(BundleError::BrokenChain { have: 7, found: 8 });
    assert_eq!(check(TrustBundle { predecessor: None, ..next.clone() }), broken);
    assert_eq!(check(TrustBundle { predecessor: Some(Digest::ZERO), ..next.clone() }), broken);
    let skipping = TrustBundle { version: 9, predecessor: Some(verified(&next).digest), ..bundle() };
    assert_eq!(check(skipping.clone()), Err(BundleError::BrokenChain { have: 7, found: 9 }));
    assert_eq!(check(bundle()), Ok(()));
    assert_eq!(check(next.clone()), Ok(()));
    assert_eq!(verified(&next).check_successor(&verified(&skipping)), Ok(()), "one by one it goes");
}

#[test]
fn a_bundle_expires_a_tolerated_minute_after_its_time() {
    let current = verified(&bundle());
    let expires = current.bundle.expires;
    assert!(!current.is_expired(expires));
    assert!(!current.is_expired(expires.plus(Duration::from_secs(60))));
    assert!(current.is_expired(Timestamp(expires.plus(Duration::from_secs(60)).0 + 1)));
}

#[test]
fn departments_and_zones_are_found_by_name() {
    let bundle = bundle();
    let id = |text: &str| text.parse().expect("a name");
    assert_eq!(bundle.department(&id("shenji")).map(|department| &department.name[..]), Some("审计局"));
    assert_eq!(bundle.department(&id("waibu")), None);
    assert_eq!(bundle.zone(&"cn-zj-1".parse().expect("a name")).map(|zone| zone.log_key), Some([6; 32]));
    assert_eq!(bundle.zone(&"cn-zj-2".parse().expect("a name")), None);
}

#[test]
fn departments_are_sorted_before_they_are_signed() {
    let mut unsorted = bundle();
    unsorted.departments.reverse();
    assert_eq!(unsorted.to_json_bytes(), bundle().to_json_bytes());
}

#[test]
fn the_note_is_the_one_that_others_compute() {
    assert_eq!(String::from_utf8_lossy(&signed_by(&bundle(), &[1, 2])), String::from_utf8_lossy(GOLDEN));
    let found = verify_bundle(&two_of_three(), GOLDEN).expect("the golden note is good");
    assert_eq!((found.bundle, found.digest.to_hex()), (bundle(), GOLDEN_DIGEST.to_owned()));
}

/// A bundle of this version behind another.
fn behind(before: &VerifiedBundle, version: u64) -> VerifiedBundle {
    verified(&TrustBundle { version, predecessor: Some(before.digest), ..bundle() })
}

#[test]
fn who_has_missed_bundles_needs_every_one_between() {
    let first = verified(&bundle());
    let second = behind(&first, 8);
    let third = behind(&second, 10);
    let fourth = behind(&third, 11);
    let broken = Err(BundleError::BrokenChain { have: 7, found: 11 });
    let follows = |between: &[&VerifiedBundle]| {
        let known: Vec<_> = between.iter().map(|one| (*one).clone()).collect();
        let path = first.check_follows(&fourth, &known)?;
        Ok(path.iter().map(|one| one.bundle.version).collect::<Vec<_>>())
    };
    assert_eq!(follows(&[]), broken);
    assert_eq!(follows(&[&third]), broken, "the second is missing");
    assert_eq!(follows(&[&second]), broken, "the third is missing");
    let aside = behind(&verified(&TrustBundle { version: 6, ..bundle() }), 10);
    assert_eq!(follows(&[&second, &aside]), broken, "a third that is not the fourth's predecessor");
    assert_eq!(follows(&[&third, &aside, &second]), Ok(vec![8, 10]), "in any order, with more than is needed");

    // Ours is a fork of the chain that the newest belongs to.
    let other_first = verified(&TrustBundle { predecessor: None, ..bundle() });
    let other_second = behind(&other_first, 8);
    let newest = behind(&other_second, 9);
    let known = [other_first, other_second];
    assert_eq!(first.check_follows(&second, &known), Ok(vec![]), "directly");
    assert_eq!(first.check_follows(&newest, &known), Err(BundleError::BrokenChain { have: 7, found: 9 }));
    assert_eq!(second.check_follows(&first, &known), Err(BundleError::Older { have: 8, found: 7 }));
    assert_eq!(first.check_follows(&known[0], &known), Err(BundleError::Fork { version: 7 }));
}

#[test]
fn removal_keys_of_before_are_few_and_different() {
    let with = |before: Vec<[u8; 32]>| {
        let mut bundle = bundle();
        bundle.zones[0].removal_keys_before = before;
        verify_bundle(&two_of_three(), &signed_by(&bundle, &[1, 2])).map(|verified| verified.bundle == bundle)
    };
    let refused = Err(BundleError::Field { field: "removal_keys_before" });
    assert_eq!(with(vec![[4; 32]]), refused, "the one in use");
    assert_eq!(with(vec![[8; 32], [9; 32], [8; 32]]), refused);
    assert_eq!(with((10..=18).map(|seed| [seed; 32]).collect()), refused, "one too many");
    assert_eq!(with((10..=17).map(|seed| [seed; 32]).collect()), Ok(true));
    // No key of before is written as no member: one text per content.
    let text = String::from_utf8(bundle().to_json_bytes()).expect("json");
    let spelt_out = text.replace("\"removal_key\":\"04", "\"removal_keys_before\":[],\"removal_key\":\"04");
    assert_ne!(spelt_out, text);
    assert_eq!(refusal_of_text(&format!("{spelt_out}\n")), BundleError::NotCanonical);
}
