//! Revocation lists: whose they are, which is the newest, whom they refuse.

use lianxin_trust::{CertificateError, Federation, FederationError, SuccessionError, Usage};
use lianxin_types::Timestamp;
use rcgen::{CertificateParams, CrlDistributionPoint, CrlIssuingDistributionPoint};

use crate::world::{DAY, Leaf, NOW, SKEW, World, bundle, date};

const SERIAL: &[u8] = &[0x41, 7];

const APP: &str = "lianxin://jiwei/app/a7f3/node-1";

fn app() -> Leaf {
    Leaf::new(APP, Usage::TlsClient)
}

#[test]
fn a_revoked_certificate_is_refused_also_where_expiry_is_forgiven() {
    let world = World::new();
    let federation = world.federation(vec![world.jiwei.list(1, NOW, &[SERIAL])]).expect("a good list");
    let certificate = world.jiwei.issue(app());
    let revoked = Err(CertificateError::Revoked);
    assert_eq!(federation.identify(&[&certificate], Usage::TlsClient, NOW), revoked);
    let later = NOW.plus(100 * DAY);
    assert_eq!(federation.identify(&[&certificate], Usage::TlsClient, later), revoked);
    assert_eq!(federation.identify_ignoring_expiry(&[&certificate], Usage::TlsClient, later), revoked);
    let other = world.jiwei.issue(app().with(|params: &mut CertificateParams| {
        params.serial_number = Some(8_u64.into());
    }));
    assert!(federation.identify(&[&other], Usage::TlsClient, NOW).is_ok());
}

#[test]
fn a_revocation_counts_from_its_date_on() {
    let world = World::new();
    let federation = world.federation(vec![world.jiwei.list(1, NOW, &[SERIAL])]).expect("a good list");
    let certificate = world.jiwei.issue(app());
    let found = |now| federation.identify(&[&certificate], Usage::TlsClient, now).map(|_| ());
    let joining = |now| federation.identify_ignoring_expiry(&[&certificate], Usage::TlsClient, now).map(|_| ());
    let just_before = Timestamp(NOW.0 - 1);
    assert_eq!((found(just_before), joining(just_before)), (Ok(()), Ok(())), "an event of before stays good");
    let revoked = Err(CertificateError::Revoked);
    assert_eq!((found(NOW), joining(NOW)), (revoked.clone(), revoked));
}

#[test]
fn a_revoked_leaf_of_a_tree_is_taken_and_known_to_be_revoked() {
    let world = World::new();
    let federation = world.federation(vec![world.jiwei.list(1, NOW, &[SERIAL])]).expect("a good list");
    let certificate = world.jiwei.issue(Leaf::new(APP, Usage::Mls));
    let seated = |certificate: &[u8], now| federation.identify_seated(&[certificate], Usage::Mls, now).map(|_| ());
    let later = NOW.plus(100 * DAY);
    assert_eq!((seated(&certificate, NOW), seated(&certificate, later)), (Ok(()), Ok(())), "revoked, and expired too");
    assert!(federation.is_revoked(&certificate, NOW) && !federation.is_revoked(&certificate, Timestamp(NOW.0 - 1)));
    // Nothing else is forgiven.
    assert_eq!(seated(&certificate, NOW.minus(2 * DAY)), Err(CertificateError::NotYetValid));
    assert_eq!(seated(&world.jiwei.issue(app()), NOW), Err(CertificateError::WrongUsage));
    let stranger = world.stranger.issue(Leaf::new(APP, Usage::Mls));
    assert_eq!(seated(&stranger, NOW), Err(CertificateError::UnknownAuthority));
    // The number alone is nothing: the list speaks of certificates of its own authority.
    assert!(!federation.is_revoked(&stranger, NOW) && !federation.is_revoked(b"no certificate", NOW));
}

#[test]
fn another_list_makes_another_digest() {
    let world = World::new();
    let digest = |lists| world.federation(lists).expect("good lists").digest();
    let list = world.jiwei.list(1, NOW, &[SERIAL]);
    assert_ne!(digest(vec![]), digest(vec![list.clone()]));
    assert_eq!(digest(vec![list.clone()]), digest(vec![list]));
}

#[test]
fn a_list_speaks_for_its_own_authority_only() {
    let world = World::new();
    let federation = world.federation(vec![world.shenji.list(1, NOW, &[SERIAL])]).expect("a good list");
    assert!(federation.identify(&[&world.jiwei.issue(app())], Usage::TlsClient, NOW).is_ok());
    let shenji = world.shenji.issue(Leaf::new("lianxin://shenji/app/a/b", Usage::TlsClient));
    assert_eq!(federation.identify(&[&shenji], Usage::TlsClient, NOW), Err(CertificateError::Revoked));
}

#[test]
fn lists_that_no_authority_has_signed_are_refused() {
    let world = World::new();
    let refusal = |list: Vec<u8>| world.federation(vec![world.shenji.list(1, NOW, &[]), list]).err();
    let foreign = Some(FederationError::ForeignRevocationList { index: 1 });
    let broken = Some(FederationError::RevocationList { index: 1 });
    assert_eq!(refusal(world.stranger.list(1, NOW, &[])), foreign, "it bears the name, but not the key");
    assert_eq!(refusal(b"nonsense".to_vec()), broken);
    let good = world.jiwei.list(1, NOW, &[SERIAL]);
    assert_eq!(refusal(good.clone()), None);
    for index in 0..good.len() {
        let mut changed = good.clone();
        changed[index] ^= 1;
        let found = refusal(changed);
        assert!(found == foreign || found == broken, "byte {index}: {found:?}");
    }
}

#[test]
fn a_list_for_a_part_of_the_certificates_is_refused() {
    let world = World::new();
    let list = rcgen::CertificateRevocationListParams {
        this_update: date(NOW),
        next_update: date(NOW.plus(DAY)),
        crl_number: 1_u64.into(),
        issuing_distribution_point: Some(CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint { uris: vec!["http://example.org/a.crl".to_owned()] },
            scope: None,
        }),
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&world.jiwei.issuer).expect("signed").der().to_vec();
    assert_eq!(world.federation(vec![list]).err(), Some(FederationError::RevocationList { index: 0 }));
}

#[test]
fn the_newest_list_is_kept_in_whatever_order_they_come() {
    let world = World::new();
    let old = world.jiwei.list(255, NOW, &[]);
    let new = world.jiwei.list(256, NOW.minus(DAY), &[SERIAL]);
    let certificate = world.jiwei.issue(app());
    for lists in [vec![old.clone(), new.clone()], vec![new.clone(), old.clone()]] {
        let federation = world.federation(lists).expect("good lists");
        assert_eq!(federation.revocation_lists().collect::<Vec<_>>(), [&new[..]]);
        assert_eq!(federation.identify(&[&certificate], Usage::TlsClient, NOW), Err(CertificateError::Revoked));
    }
    let renewed = world.jiwei.list(256, NOW, &[SERIAL]);
    for lists in [vec![new.clone(), renewed.clone()], vec![renewed.clone(), new.clone()]] {
        let federation = world.federation(lists).expect("good lists");
        assert_eq!(federation.revocation_lists().collect::<Vec<_>>(), [&renewed[..]], "same number, later date");
    }
}

#[test]
fn two_authorities_of_one_department_have_a_list_each() {
    let world = World::new();
    // The stranger bears the same name, so that only the key tells whose a list is.
    let both = || bundle(vec![("jiwei", vec![&world.jiwei.der[..], &world.stranger.der[..]])]);
    let lists = vec![world.stranger.list(1, NOW, &[SERIAL]), world.jiwei.list(9, NOW, &[])];
    let federation = Federation::new(both(), lists).expect("good lists");
    assert_eq!(federation.revocation_lists().count(), 2);
    let found = |certificate: &[u8]| federation.identify(&[certificate], Usage::TlsClient, NOW).map(|_| ());
    assert_eq!(found(&world.jiwei.issue(app())), Ok(()));
    assert_eq!(found(&world.stranger.issue(app())), Err(CertificateError::Revoked));
}

#[test]
fn a_federation_is_stale_when_its_bundle_or_a_list_is() {
    let world = World::new();
    let tick = |at: Timestamp| Timestamp(at.0 + 1);
    let without = world.federation(Vec::new()).expect("good authorities");
    let bundle_end = NOW.plus(7 * DAY + SKEW);
    assert!(!without.is_stale(bundle_end));
    assert!(without.is_stale(tick(bundle_end)));
    let lists = vec![world.jiwei.list(1, NOW, &[]), world.shenji.list(1, NOW.minus(DAY), &[])];
    let with = world.federation(lists).expect("good lists");
    assert_eq!(without.revocation_lists_expire(), None);
    assert_eq!(with.revocation_lists_expire(), Some(NOW.plus(6 * DAY)), "the first of them");
    let list_end = NOW.plus(6 * DAY + SKEW);
    assert!(!with.is_stale(list_end));
    assert!(with.is_stale(tick(list_end)));
}

#[test]
fn no_list_goes_back_or_away_while_its_authority_stays() {
    let world = World::new();
    let with = |lists| world.federation(lists).expect("good lists");
    let list = |number, serials: &[&[u8]]| world.jiwei.list(number, NOW, serials);
    let (two, three) = (list(2, &[SERIAL]), list(3, &[]));
    let current = with(vec![two.clone()]);
    let check = |lists| current.check_successor(&with(lists), &[]).map(|_| ());
    let jiwei = || "jiwei".parse().expect("a name");
    let older = Err(SuccessionError::OlderRevocationList { department: jiwei() });
    assert_eq!(check(vec![list(1, &[SERIAL])]), older);
    assert_eq!(check(vec![list(2, &[])]), older, "other bytes under the same number");
    let missing = Err(SuccessionError::MissingRevocationList { department: jiwei() });
    assert_eq!(check(vec![world.shenji.list(9, NOW, &[])]), missing);

    assert_eq!(check(vec![two]), Ok(()), "the same list");
    assert_eq!(check(vec![three, world.shenji.list(1, NOW, &[])]), Ok(()));
    let view = current.revocation_list_views().next().expect("one list");
    assert_eq!((view.department.as_str(), view.number, view.next_update), ("jiwei", &[2][..], NOW.plus(7 * DAY)));
}
