//! From a certificate to an identity, or to the exact reason why not (PROTOCOL 1).

mod renewal;
mod revocation;
mod world;

use lianxin_trust::{CertificateError, Federation, FederationError, Identity, Usage};
use lianxin_types::{Kind, Timestamp};
use rcgen::{BasicConstraints, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair, PKCS_ED25519, SanType};

use world::{Authority, DAY, Leaf, NOW, SKEW, World, bundle, date, purpose, uri};

const APP: &str = "lianxin://jiwei/app/a7f3/node-1";

fn tls() -> Leaf {
    Leaf::new(APP, Usage::TlsClient)
}

/// What a federation without revocation lists says at `NOW`.
fn identify(world: &World, certificate: &[u8], usage: Usage) -> Result<Identity, CertificateError> {
    world.federation(Vec::new()).expect("good authorities").identify(&[certificate], usage, NOW)
}

#[test]
fn what_cannot_be_read_is_malformed() {
    let world = World::new();
    let federation = world.federation(Vec::new()).expect("good authorities");
    let malformed = |chain: &[&[u8]]| {
        assert_eq!(federation.identify(chain, Usage::TlsClient, NOW), Err(CertificateError::Malformed));
    };
    let good = world.jiwei.issue(tls());
    malformed(&[]);
    malformed(&[b""]);
    malformed(&[b"not a certificate"]);
    malformed(&[&[good.clone(), vec![0]].concat()]);
    for cut in 0..good.len() {
        malformed(&[&good[..cut]]);
    }
    let unknown_and_critical = world.jiwei.issue(tls().with(|params| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 65_535, 9], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    }));
    malformed(&[&unknown_and_critical]);
}

#[test]
fn no_changed_byte_of_a_certificate_gives_an_identity() {
    let world = World::new();
    let good = world.jiwei.issue(tls());
    let federation = world.federation(Vec::new()).expect("good authorities");
    for index in 0..good.len() {
        let mut changed = good.clone();
        changed[index] ^= 1;
        assert!(federation.identify(&[&changed], Usage::TlsClient, NOW).is_err(), "byte {index}");
    }
}

#[test]
fn names_other_than_one_identity_are_refused() {
    let world = World::new();
    let refused = |names: Vec<SanType>| {
        let certificate = world.jiwei.issue(tls().with(|params| params.subject_alt_names = names));
        assert_eq!(identify(&world, &certificate, Usage::TlsClient), Err(CertificateError::NoIdentity));
    };
    let dns = || SanType::DnsName("app.example".try_into().expect("ascii"));
    refused(vec![]);
    refused(vec![dns()]);
    refused(vec![uri("https://jiwei/app/a7f3/node-1")]);
    refused(vec![uri("lianxin://jiwei/admin/a7f3/node-1")]);
    refused(vec![uri(APP), uri(APP)]);
    refused(vec![uri(APP), uri("lianxin://jiwei/app/b/node-1")]);
    refused(vec![uri(APP), uri("https://example.org")]);
    refused(vec![uri(APP), SanType::Rfc822Name("zhang@example.org".try_into().expect("ascii"))]);
    refused(vec![uri(APP), dns()]);
}

#[test]
fn a_gateway_may_have_addresses_besides_its_identity() {
    let world = World::new();
    let leaf = Leaf::new("lianxin://jiwei/gateway/g1/node-1", Usage::TlsGateway).with(|params| {
        params.subject_alt_names.push(SanType::DnsName("gw.example".try_into().expect("ascii")));
        params.subject_alt_names.insert(0, SanType::IpAddress([127, 0, 0, 1].into()));
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    });
    let found = identify(&world, &world.jiwei.issue(leaf), Usage::TlsGateway).expect("a gateway");
    assert_eq!(found.uri.kind(), Kind::Gateway);
}

#[test]
fn an_authority_outside_the_bundle_is_unknown_whatever_it_writes() {
    let world = World::new();
    let unknown = |leaf: Leaf| {
        let certificate = world.stranger.issue(leaf);
        assert_eq!(identify(&world, &certificate, Usage::TlsClient), Err(CertificateError::UnknownAuthority));
    };
    unknown(tls());
    // Nothing else is said about a stranger's certificate.
    unknown(tls().with(|params| params.not_after = date(NOW.minus(DAY / 2))));
    unknown(tls().with(|params| params.not_before = date(NOW.plus(DAY / 2))));
    unknown(tls().with(|params| params.extended_key_usages.clear()));
    unknown(Leaf::new("lianxin://jiwei/officer/a/b", Usage::Officer));
    unknown(Leaf::new("lianxin://gongan/app/a/b", Usage::TlsClient));
}

#[test]
fn an_intermediate_or_an_authority_itself_is_no_member() {
    let world = World::new();
    let federation = world.federation(Vec::new()).expect("good authorities");
    let unknown = Err(CertificateError::UnknownAuthority);
    let intermediate = Authority::new("intermediate");
    let as_authority = |leaf: Leaf| leaf.with(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let vouched_for = {
        let leaf = as_authority(tls());
        leaf.0.signed_by(intermediate.issuer.key(), &world.jiwei.issuer).expect("signed").der().to_vec()
    };
    let below = intermediate.issue(tls());
    assert_eq!(federation.identify(&[&below, &vouched_for, &world.jiwei.der], Usage::TlsClient, NOW), unknown);
    assert_eq!(federation.identify(&[&world.jiwei.issue(as_authority(tls()))], Usage::TlsClient, NOW), unknown);
}

#[test]
fn a_department_cannot_name_another_one() {
    let world = World::new();
    let refusal = |uri: &str, usage| identify(&world, &world.jiwei.issue(Leaf::new(uri, usage)), usage);
    let other = |named: &str| {
        let (named, issued_by) = (named.parse().expect("a name"), "jiwei".parse().expect("a name"));
        Err(CertificateError::OtherDepartment { named, issued_by })
    };
    assert_eq!(refusal("lianxin://shenji/app/a/b", Usage::TlsClient), other("shenji"));
    assert_eq!(refusal("lianxin://shenji/app/a/b", Usage::Mls), other("shenji"));
    assert_eq!(refusal("lianxin://shenji/gateway/a/b", Usage::TlsGateway), other("shenji"));
    assert_eq!(refusal("lianxin://gongan/app/a/b", Usage::TlsClient), other("gongan"));
}

#[test]
fn every_kind_is_refused_in_every_place_but_its_own() {
    let world = World::new();
    let federation = world.federation(Vec::new()).expect("good authorities");
    for kind in Kind::ALL {
        for place in Usage::ALL {
            let leaf = Leaf::new(&format!("lianxin://jiwei/{}/a/b", kind.as_str()), place);
            let found =
                federation.identify(&[&world.jiwei.issue(leaf)], place, NOW).map(|identity| identity.uri.kind());
            let expected = if place.admits(kind) { Ok(kind) } else { Err(CertificateError::WrongKind) };
            assert_eq!(found, expected, "{kind:?} as {place:?}");
        }
    }
}

#[test]
fn a_certificate_serves_one_place_only() {
    let world = World::new();
    let found = |purposes: Vec<ExtendedKeyUsagePurpose>| {
        let certificate = world.jiwei.issue(tls().with(|params| params.extended_key_usages = purposes));
        identify(&world, &certificate, Usage::TlsClient).map(|_| ())
    };
    let wrong = Err(CertificateError::WrongUsage);
    assert_eq!(found(vec![]), wrong);
    assert_eq!(found(vec![ExtendedKeyUsagePurpose::Any]), wrong);
    assert_eq!(found(vec![ExtendedKeyUsagePurpose::ClientAuth]), wrong);
    assert_eq!(found(vec![purpose(Usage::TlsClient), purpose(Usage::Mls)]), wrong);
    for other in Usage::ALL.into_iter().filter(|usage| *usage != Usage::TlsClient) {
        assert_eq!(found(vec![purpose(other)]), wrong, "{other:?}");
    }
    let longer = [Usage::TlsClient.oid(), &[1]].concat();
    assert_eq!(found(vec![ExtendedKeyUsagePurpose::Other(longer)]), wrong);
    assert_eq!(found(vec![ExtendedKeyUsagePurpose::ClientAuth, purpose(Usage::TlsClient)]), Ok(()));
}

#[test]
fn validity_is_judged_with_a_minute_of_tolerance() {
    let world = World::new();
    let federation = world.federation(Vec::new()).expect("good authorities");
    let certificate = world.jiwei.issue(tls());
    let at = |now: Timestamp| federation.identify(&[&certificate], Usage::TlsClient, now).map(|_| ());
    let tick = |at: Timestamp| Timestamp(at.0 + 1);
    let (begin, end) = (NOW.minus(DAY), NOW.plus(DAY));
    assert_eq!(at(Timestamp(begin.minus(SKEW).0 - 1)), Err(CertificateError::NotYetValid));
    assert_eq!(at(begin.minus(SKEW)), Ok(()));
    assert_eq!(at(end.plus(SKEW)), Ok(()));
    assert_eq!(at(tick(end.plus(SKEW))), Err(CertificateError::Expired));
}

#[test]
fn an_expired_leaf_of_a_tree_is_taken_and_nothing_else_is_forgiven() {
    let world = World::new();
    let federation = world.federation(Vec::new()).expect("good authorities");
    let later = NOW.plus(100 * DAY);
    let at = |certificate: &[u8], now| federation.identify_ignoring_expiry(&[certificate], Usage::Mls, now);
    let good = world.jiwei.issue(Leaf::new(APP, Usage::Mls));
    assert_eq!(at(&world.stranger.issue(Leaf::new(APP, Usage::Mls)), later), Err(CertificateError::UnknownAuthority));
    assert_eq!(at(&world.jiwei.issue(tls()), later), Err(CertificateError::WrongUsage));
    assert_eq!(at(&good, NOW.minus(2 * DAY)), Err(CertificateError::NotYetValid));
    let found = at(&good, later).expect("expired only");
    assert!(found.not_after < later);
    assert_eq!(federation.identify(&[&good], Usage::Mls, later), Err(CertificateError::Expired));
}

#[test]
fn an_identity_carries_what_the_certificate_says() {
    let world = World::new();
    let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
    let leaf = Leaf::new(APP, Usage::Mls);
    let certificate = leaf.0.signed_by(&key, &world.jiwei.issuer).expect("signed").der().to_vec();
    let found = identify(&world, &certificate, Usage::Mls).expect("good");
    assert_eq!(found.uri.as_str(), APP);
    assert_eq!(found.public_key, key.public_key_raw());
    assert_eq!(found.public_key.len(), 32);
    assert_eq!((found.not_before, found.not_after), (NOW.minus(DAY), NOW.plus(DAY)));
    assert_eq!(found.serial, [0x41, 7]);
}

#[test]
fn dates_are_read_as_the_calendar_has_them() {
    let world = World::new();
    let day =
        |year, month, day| time::Date::from_calendar_date(year, month, day).expect("a date").midnight().assume_utc();
    use time::Month::{December, February, January, March};
    // UTCTime to 2049, GeneralizedTime from 2050 on (RFC 5280 4.1.2.5); leap days, and a century without one.
    for end in [
        day(2028, February, 29),
        day(2049, December, 31),
        day(2050, January, 1),
        day(2100, March, 1),
        day(9999, December, 31),
    ] {
        let certificate = world.jiwei.issue(tls().with(|params| params.not_after = end));
        let found = identify(&world, &certificate, Usage::TlsClient).expect("good");
        assert_eq!(found.not_after.seconds() as i64, end.unix_timestamp(), "{end}");
    }
    let before = world.jiwei.issue(tls().with(|params| params.not_before = day(1969, December, 31)));
    assert_eq!(identify(&world, &before, Usage::TlsClient), Err(CertificateError::Malformed));
}

#[test]
fn a_bundle_whose_authorities_cannot_be_told_apart_makes_no_federation() {
    let world = World::new();
    let (jiwei, shenji) = (&world.jiwei.der[..], &world.shenji.der[..]);
    let refusal = |departments| Federation::new(bundle(departments), Vec::new()).err();
    let id = |text: &str| text.parse().expect("a name");
    let broken = FederationError::Authority { department: id("shenji") };
    assert_eq!(refusal(vec![("jiwei", vec![jiwei]), ("shenji", vec![b"nonsense"])]), Some(broken));
    let shared = FederationError::SharedAuthority { first: id("jiwei"), second: id("shenji") };
    assert_eq!(refusal(vec![("jiwei", vec![jiwei]), ("shenji", vec![shenji, jiwei])]), Some(shared));
    assert_eq!(refusal(vec![("jiwei", vec![jiwei]), ("shenji", vec![])]), None);
}

#[test]
fn a_department_may_have_an_old_and_a_new_authority() {
    let world = World::new();
    let both = bundle(vec![("jiwei", vec![&world.jiwei.der[..], &world.stranger.der[..]])]);
    let federation = Federation::new(both, Vec::new()).expect("two authorities of one department");
    for authority in [&world.jiwei, &world.stranger] {
        assert!(federation.identify(&[&authority.issue(tls())], Usage::TlsClient, NOW).is_ok());
    }
}

#[test]
fn a_federation_is_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Federation>();
}

#[test]
fn a_connection_is_a_members_or_an_issuers_and_nobody_elses() {
    let world = World::new();
    let issuer = |usage| world.jiwei.issue(Leaf::new("lianxin://jiwei/issuer/a7f3/node-1", usage));
    let caller = |lists, certificate: &[u8]| {
        let federation = world.federation(lists).expect("good authorities");
        federation.identify_caller(&[certificate], NOW).map(|identity| identity.uri.kind())
    };
    assert_eq!(caller(vec![], &world.jiwei.issue(tls())), Ok(Kind::App));
    assert_eq!(caller(vec![], &issuer(Usage::Issuer)), Ok(Kind::Issuer));
    assert_eq!(caller(vec![], &issuer(Usage::TlsClient)), Err(CertificateError::WrongUsage));
    assert_eq!(caller(vec![], &world.jiwei.issue(Leaf::new(APP, Usage::Issuer))), Err(CertificateError::WrongUsage));
    for (kind, usage) in [("officer", Usage::Officer), ("gateway", Usage::TlsGateway), ("witness", Usage::Witness)] {
        let other = world.jiwei.issue(Leaf::new(&format!("lianxin://jiwei/{kind}/a7f3/node-1"), usage));
        assert_eq!(caller(vec![], &other), Err(CertificateError::WrongKind));
    }
    let list = world.jiwei.list(1, NOW.minus(DAY), &[&[0x41, 7]]);
    assert_eq!(caller(vec![list], &issuer(Usage::Issuer)), Err(CertificateError::Revoked));
}
