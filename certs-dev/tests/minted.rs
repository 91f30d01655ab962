//! A minted federation is what it says, and its specimens are refused for exactly their reason.

use std::collections::BTreeSet;
use std::fs;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use lianxin_certs_dev::{
    FederationPlan, Minted, NOT_FOR_PRODUCTION, OFFICER_ROLES, Specimen, clear, mint, read_signing_key,
};
use lianxin_trust::{BundleError, CertificateError, Federation, Identity, Usage, verify_bundle};
use lianxin_types::{Clock, Kind, Monotonic, Timestamp};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A clock that stands still.
struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        NOW
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(0)
    }

    fn sleep_until(&self, _: Monotonic) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::pending())
    }
}

fn minted() -> (tempfile::TempDir, Minted) {
    let folder = tempfile::tempdir().expect("a folder");
    let minted = mint(&FederationPlan::default(), folder.path(), &Noon).expect("minted");
    (folder, minted)
}

fn identify(federation: &Federation, file: &Path, usage: Usage, now: Timestamp) -> Result<Identity, CertificateError> {
    let certificate = CertificateDer::from_pem_file(file).expect("a certificate");
    federation.identify(&[&certificate], usage, now)
}

fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(folder).expect("inside").display().to_string());
            }
        }
    }
    found
}

#[test]
fn every_specimen_is_refused_for_its_reason() {
    let (_folder, minted) = minted();
    let federation = minted.federation().expect("a federation");
    for specimen in Specimen::ALL {
        let expected = match specimen {
            Specimen::Expired => CertificateError::Expired,
            Specimen::NotYetValid => CertificateError::NotYetValid,
            Specimen::Revoked => CertificateError::Revoked,
            Specimen::WrongCa => CertificateError::UnknownAuthority,
            Specimen::OtherDepartment => CertificateError::OtherDepartment {
                named: "shenji".parse().expect("a name"),
                issued_by: "jiwei".parse().expect("a name"),
            },
            Specimen::WrongKindOfficer => CertificateError::WrongKind,
            Specimen::WrongUsageMls => CertificateError::WrongUsage,
        };
        let paths = minted.specimen(specimen);
        let tls = identify(&federation, &paths.tls_certificate, Usage::TlsClient, NOW);
        assert_eq!(tls, Err(expected.clone()), "{specimen:?}");
        assert_eq!(paths.mls_certificate.exists(), specimen.has_mls(), "{specimen:?}");
        if specimen.has_mls() {
            assert_eq!(identify(&federation, &paths.mls_certificate, Usage::Mls, NOW), Err(expected), "{specimen:?}");
        }
    }
}

#[test]
fn every_bundle_among_the_specimens_is_refused_for_its_reason() {
    let (_folder, minted) = minted();
    let roots = minted.roots().expect("roots");
    let current = minted.bundle().expect("a bundle");
    let specimen = |name| verify_bundle(&roots, &fs::read(minted.specimen_bundle_file(name)).expect("a note"));
    assert_eq!(specimen("under-threshold"), Err(BundleError::UnderThreshold { found: 1, threshold: 2 }));
    let older = specimen("older-bundle").expect("well signed");
    assert_eq!(current.check_successor(&older), Err(BundleError::Older { have: 1, found: 0 }));
    assert!(specimen("expired-bundle").expect("well signed").is_expired(NOW));
    assert!(!current.is_expired(NOW));
}

#[test]
fn what_is_minted_is_good_for_its_time_and_no_longer() {
    let (_folder, minted) = minted();
    let federation = minted.federation().expect("a federation");
    for department in ["jiwei", "shenji", "weijian", "waibu"] {
        for name in ["app-1", "app-2"] {
            let app = minted.app(department, name).expect("an application");
            for (file, usage, key_bytes) in
                [(&app.tls_certificate, Usage::TlsClient, 65), (&app.mls_certificate, Usage::Mls, 32)]
            {
                let at = |now| identify(&federation, file, usage, now);
                let found = at(NOW).expect("good");
                assert_eq!((&found.uri, found.public_key.len()), (&app.uri, key_bytes));
                assert_eq!(app.uri.department().as_str(), department);
                assert!(at(NOW.plus(30 * DAY)).is_ok());
                assert_eq!(at(NOW.plus(31 * DAY)), Err(CertificateError::Expired));
            }
        }
        for role in OFFICER_ROLES {
            let (certificate, key) = minted.department(department).officer(role);
            let officer = identify(&federation, &certificate, Usage::Officer, NOW).expect("an officer");
            assert_eq!((officer.uri.kind(), officer.uri.device()), (Kind::Officer, role));
            let key = read_signing_key(&key).expect("a key");
            assert_eq!(officer.public_key, key.verifying_key().as_bytes());
        }
    }
}

#[test]
fn the_bundle_names_the_keys_that_lie_in_the_folder() {
    let (_folder, minted) = minted();
    let bundle = minted.bundle().expect("a bundle").bundle;
    let names: Vec<_> = bundle.departments.iter().map(|one| (one.id.as_str(), &one.name[..])).collect();
    let expected = [("jiwei", "纪委监委"), ("shenji", "审计局"), ("waibu", "外部单位"), ("weijian", "卫生健康委")];
    assert_eq!(names, expected);
    let zone = &bundle.zones[0];
    assert_eq!((zone.id.as_str(), zone.department.as_str()), ("cn-zj-1", "jiwei"));
    let gateway = minted.gateway();
    let public = |file: &Path| read_signing_key(file).expect("a key").verifying_key().to_bytes();
    assert_eq!(public(&gateway.removal_key), zone.removal_key);
    assert_eq!(public(&gateway.promise_key), zone.promise_key);
    assert_eq!(public(&gateway.log_key), zone.log_key);
    let roots = minted.roots().expect("roots");
    assert_eq!((roots.threshold, roots.keys.len()), (2, 3));
    for (index, root) in roots.keys.iter().enumerate() {
        assert_eq!(public(&minted.root_key_file(index + 1)), root.key);
    }
    let app = minted.app("jiwei", "app-1").expect("an application");
    let leaf = identify(&minted.federation().expect("a federation"), &app.mls_certificate, Usage::Mls, NOW);
    assert_eq!(leaf.expect("good").public_key, public(&app.mls_key), "certificate key = leaf signature key");
}

#[test]
fn the_gateway_follows_its_endpoint() {
    let (_folder, minted) = minted();
    let certificate = || fs::read(minted.gateway().tls_certificate).expect("a certificate");
    let (first, before) = (minted.bundle().expect("a bundle"), certificate());
    let second = minted.set_endpoint("127.0.0.1", 40_001).expect("a successor");
    assert_eq!(first.check_successor(&second), Ok(()));
    assert_eq!((second.bundle.version, second.bundle.predecessor), (2, Some(first.digest)));
    let endpoint = &second.bundle.zones[0].endpoints[0];
    assert_eq!((&endpoint.host[..], endpoint.port), ("127.0.0.1", 40_001));
    assert_eq!(certificate(), before, "a running gateway keeps its certificate");
    let third = minted.set_endpoint("gw.example", 7443).expect("a successor");
    assert_eq!(second.check_successor(&third), Ok(()));
    assert_ne!(certificate(), before);
    let federation = minted.federation().expect("a federation");
    let gateway = identify(&federation, &minted.gateway().tls_certificate, Usage::TlsGateway, NOW).expect("a gateway");
    assert_eq!((gateway.uri.kind(), gateway.uri.department().as_str()), (Kind::Gateway, "jiwei"));
}

#[test]
fn more_applications_come_and_go() {
    let (folder, minted) = minted();
    let elsewhere = Minted::open(folder.path()).expect("the same federation");
    assert_eq!(elsewhere, minted);
    let app = elsewhere.mint_app("shenji", "app-3").expect("one more");
    assert!(elsewhere.mint_app("shenji", "app-3").is_err(), "nothing is written over");
    assert!(elsewhere.mint_app("gongan", "app-1").is_err(), "no such department");
    assert!(elsewhere.mint_app("shenji", "../app").is_err());
    let before = minted.federation().expect("a federation");
    let found = |federation: &Federation, file: &Path, usage| identify(federation, file, usage, NOW);
    let serial = found(&before, &app.tls_certificate, Usage::TlsClient).expect("good").serial;
    minted.revoke_app("shenji", "app-3").expect("revoked");
    let after = minted.federation().expect("a federation");
    assert_eq!(found(&after, &app.tls_certificate, Usage::TlsClient), Err(CertificateError::Revoked));
    assert_eq!(found(&after, &app.mls_certificate, Usage::Mls), Err(CertificateError::Revoked));
    let lines = fs::read_to_string(minted.department("shenji").revoked_serials).expect("serials");
    assert!(lines.starts_with(&hex::encode(serial)));

    let other = minted.app("shenji", "app-1").expect("an application");
    let serial = found(&after, &other.tls_certificate, Usage::TlsClient).expect("untouched").serial;
    minted.revoke("shenji", &serial).expect("revoked");
    let last = minted.federation().expect("a federation");
    assert_eq!(found(&last, &other.tls_certificate, Usage::TlsClient), Err(CertificateError::Revoked));
    assert_eq!(found(&last, &app.tls_certificate, Usage::TlsClient), Err(CertificateError::Revoked), "still");
    assert!(found(&last, &other.mls_certificate, Usage::Mls).is_ok());

    let lists = |federation: &Federation| federation.revocation_lists().map(<[u8]>::to_vec).collect::<Vec<_>>();
    let all = [lists(&last), lists(&before), lists(&after)].concat();
    let merged = Federation::new(minted.bundle().expect("a bundle"), all).expect("good lists");
    assert_eq!(lists(&merged), lists(&last), "each list is newer than the one before");
    let number = |federation: &Federation| {
        let views: Vec<_> =
            federation.revocation_list_views().map(|one| (one.department.clone(), one.number.to_vec())).collect();
        views.into_iter().find(|(department, _)| department.as_str() == "shenji").expect("a list").1
    };
    assert_eq!((number(&before), number(&after), number(&last)), (vec![1], vec![2], vec![3]));
    minted.renew_revocation_list("shenji").expect("a new list");
    let renewed = minted.federation().expect("a federation");
    assert_eq!(number(&renewed), [4]);
    assert_eq!(found(&renewed, &app.tls_certificate, Usage::TlsClient), Err(CertificateError::Revoked), "still");
}

#[test]
fn the_gateway_gets_a_new_key_under_its_identity() {
    let (_folder, minted) = minted();
    let gateway = || {
        let federation = minted.federation().expect("a federation");
        identify(&federation, &minted.gateway().tls_certificate, Usage::TlsGateway, NOW).expect("a gateway")
    };
    let before = gateway();
    minted.renew_gateway_certificate().expect("renewed");
    let after = gateway();
    assert_eq!(after.uri, before.uri);
    assert!(after.public_key != before.public_key && after.serial != before.serial);
}

#[test]
fn bundles_follow_one_another_and_are_kept() {
    let (_folder, minted) = minted();
    let first = minted.bundle().expect("a bundle");
    minted.succeed(|_| ()).expect("a second");
    let third = minted.succeed(|bundle| bundle.departments[1].name = "审计厅".into()).expect("a third");
    assert_eq!((third.bundle.version, &third.bundle.departments[1].name[..]), (3, "审计厅"));
    let note = |version| fs::read(minted.bundle_history_folder().join(format!("{version}.note"))).expect("kept");
    let second = verify_bundle(&minted.roots().expect("roots"), &note(2)).expect("verifies");
    assert_eq!((first.note.clone(), first.check_follows(&third, &[second]).map(|path| path.len())), (note(1), Ok(1)));
}

#[test]
fn time_can_be_moved_on() {
    let (_folder, minted) = minted();
    let later = NOW.plus(8 * DAY);
    assert!(minted.federation().expect("a federation").is_stale(later));
    let moved = minted.at(later);
    moved.set_endpoint("127.0.0.1", 7443).expect("a successor");
    for department in ["jiwei", "shenji", "weijian", "waibu"] {
        moved.revoke(department, &[1]).expect("a new list");
    }
    assert!(!moved.federation().expect("a federation").is_stale(later));
}

#[test]
fn nothing_of_somebody_elses_is_written_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path();
    fs::write(out.join("precious.txt"), "mine").expect("written");
    assert!(mint(&FederationPlan::default(), out, &Noon).is_err());
    assert!(clear(out).is_err());
    assert_eq!(files(out), BTreeSet::from(["precious.txt".to_owned()]));

    let federation = out.join("federation");
    mint(&FederationPlan::default(), &federation, &Noon).expect("a new folder");
    assert!(mint(&FederationPlan::default(), &federation, &Noon).is_err(), "not over an older federation");
    fs::write(federation.join("notes.txt"), "mine").expect("written");
    clear(&federation).expect("ours to clear");
    assert_eq!(files(&federation), BTreeSet::from(["notes.txt".to_owned()]));
    clear(&out.join("not-there")).expect("nothing to do");
}

#[cfg(unix)]
#[test]
fn private_keys_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, minted) = minted();
    minted.mint_app("jiwei", "app-3").expect("one more");
    let keys: Vec<_> = files(folder.path()).into_iter().filter(|file| file.ends_with(".key")).collect();
    assert!(keys.len() > 40, "{}", keys.len());
    for key in keys {
        let mode = fs::metadata(folder.path().join(&key)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
}

#[test]
fn the_folder_has_the_shape_that_others_rely_on() {
    let (folder, _minted) = minted();
    let mut expected = BTreeSet::new();
    let mut add = |folder: &str, names: &str| {
        expected.extend(names.split_whitespace().map(|name| format!("{folder}{name}")));
    };
    add("", "README.txt roots.json trust-bundle.note");
    add("", NOT_FOR_PRODUCTION);
    add("roots/", "root-1.key root-2.key root-3.key");
    add("gateway/", "tls.pem tls.key removal.key promise.key log.key");
    for department in ["jiwei", "shenji", "weijian", "waibu"] {
        let folder = format!("departments/{department}/");
        add(&folder, "ca.pem ca.key revoked.crl revoked.crl.pem revoked-serials.txt");
        add(&format!("{folder}apps/app-1/"), "tls.pem tls.key mls.pem mls.key uri.txt");
        add(&format!("{folder}apps/app-2/"), "tls.pem tls.key mls.pem mls.key uri.txt");
        add(&format!("{folder}officers/"), "security.pem security.key audit.pem audit.key system.pem system.key");
        add(&format!("{folder}issuer/"), "tls.pem tls.key");
    }
    add("specimens/", "older-bundle.note expired-bundle.note under-threshold.note");
    for with_mls in ["expired", "not-yet-valid", "revoked", "wrong-ca", "other-department"] {
        add(&format!("specimens/{with_mls}/"), "tls.pem tls.key mls.pem mls.key");
    }
    add("specimens/", "wrong-ca/ca.key");
    add("specimens/", "wrong-kind-officer/tls.pem wrong-kind-officer/tls.key");
    add("specimens/", "wrong-usage-mls/tls.pem wrong-usage-mls/tls.key");
    assert_eq!(files(folder.path()), expected);
}

#[test]
fn keys_are_rotated_in_two_steps() {
    let (_folder, minted) = minted();
    let app = minted.app("shenji", "app-1").expect("minted");
    let found = |usage, file: &Path| {
        identify(&minted.federation().expect("a federation"), file, usage, NOW).map(|identity| identity.public_key)
    };
    let mls = found(Usage::Mls, &app.mls_certificate).expect("good");
    let old = fs::read(&app.mls_certificate).expect("a certificate");
    let old = CertificateDer::from_pem_slice(&old).expect("PEM");
    let by_old = || minted.federation().expect("a federation").identify(&[&old], Usage::Mls, NOW).map(|one| one.uri);

    minted.rotate_authority("shenji").expect("rotated");
    assert_eq!(by_old(), Ok(app.uri.clone()), "both are good");
    assert!(minted.rotate_authority("shenji").is_err());
    minted.renew_app("shenji", "app-1").expect("renewed");
    assert_eq!(found(Usage::Mls, &app.mls_certificate), Ok(mls.clone()), "renewal keeps the MLS key");
    minted.retire_authority("shenji").expect("retired");
    assert_eq!(by_old(), Err(CertificateError::UnknownAuthority));
    assert_eq!(found(Usage::Mls, &app.mls_certificate), Ok(mls));
    minted.revoke_app("shenji", "app-1").expect("by the new authority");
    assert_eq!(found(Usage::TlsClient, &app.tls_certificate), Err(CertificateError::Revoked));

    let zone = || minted.bundle().expect("a bundle").bundle.zones.remove(0);
    let first = zone().removal_key;
    minted.rotate_removal_key().expect("rotated");
    let public = |file: &Path| read_signing_key(file).expect("a key").verifying_key().to_bytes();
    assert_eq!((zone().removal_key, zone().removal_keys_before), (public(&minted.gateway().removal_key), vec![first]));
    assert_eq!(public(&minted.removal_key_before()), first);
    minted.drop_removal_keys().expect("dropped");
    assert_eq!(zone().removal_keys_before, Vec::<[u8; 32]>::new());
}
