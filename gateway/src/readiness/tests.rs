//! Every reason holds from its own moment on and no sooner, and weighs what the table says.

use super::*;

const NOW: Timestamp = Timestamp::from_seconds(1_795_000_000);
const SECOND: Duration = Duration::from_secs(1);

fn well() -> Facts {
    let far = NOW.plus(30 * DAY);
    Facts {
        is_draining: false,
        is_quarantined: false,
        is_fenced: false,
        room: Room::Everything,
        certificate_expires: Some(far),
        bundle_expires: far,
        revocation_lists_expire: Some(far),
        now: NOW,
    }
}

#[test]
fn a_gateway_that_is_well_has_no_reason() {
    assert_eq!((well().reasons(), well().page().as_str()), (vec![], "ok\n"));
    let without_lists = Facts { revocation_lists_expire: None, ..well() };
    assert_eq!(without_lists.reasons(), []);
}

#[test]
fn what_the_zone_and_the_process_say_sends_work_elsewhere() {
    let alone = |facts: Facts, reason: Reason| {
        assert_eq!(facts.reasons(), [reason]);
        assert!(!facts.is_ready(), "{reason:?}");
        assert_eq!(facts.page(), format!("not ready\nnot-ready {}: {}\n", reason.word(), reason.text()));
    };
    alone(Facts { is_draining: true, ..well() }, Reason::Draining);
    // A quarantined zone is fenced, too, and does not open itself: only one of the two is true.
    let closed = Facts { is_fenced: true, room: Room::Nothing, ..well() };
    alone(Facts { is_quarantined: true, ..closed.clone() }, Reason::ZoneQuarantined);
    alone(closed, Reason::ZoneUnavailable);
    alone(Facts { room: Room::AuditOnly, ..well() }, Reason::DiskFull);
    alone(Facts { room: Room::Nothing, ..well() }, Reason::DiskFull);
    alone(Facts { certificate_expires: None, ..well() }, Reason::CertificateUnusable);
}

#[test]
fn what_ends_warns_before_and_is_over_only_after_the_tolerated_skew() {
    type Set = fn(Timestamp) -> Facts;
    let certificate: Set = |end| Facts { certificate_expires: Some(end), ..well() };
    let bundle: Set = |end| Facts { bundle_expires: end, ..well() };
    let list: Set = |end| Facts { revocation_lists_expire: Some(end), ..well() };
    for (facts, notice, soon, over, is_ready_after) in [
        (certificate, 7 * DAY, Reason::CertificateExpiring, Reason::CertificateUnusable, false),
        (bundle, 2 * DAY, Reason::BundleExpiring, Reason::BundleExpired, true),
        (list, DAY, Reason::RevocationListExpiring, Reason::RevocationListExpired, true),
    ] {
        assert_eq!(facts(NOW.plus(notice)).reasons(), [], "{soon:?}");
        let warned = facts(NOW.plus(notice - SECOND));
        assert_eq!((warned.reasons(), warned.is_ready()), (vec![soon], true));
        assert_eq!(warned.page(), format!("ok\nwarning {}: {}\n", soon.word(), soon.text()));
        assert_eq!(facts(NOW.minus(LIMITS.clock_skew_max)).reasons(), [soon]);
        let after = facts(NOW.minus(LIMITS.clock_skew_max + SECOND));
        assert_eq!((after.reasons(), after.is_ready()), (vec![over], is_ready_after));
    }
}

#[test]
fn every_reason_has_a_word_and_a_text_of_its_own() {
    let mut words: Vec<_> = Reason::ALL.iter().map(|reason| (reason.word(), reason.text())).collect();
    for (word, text) in &words {
        assert!(word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') && !text.contains('\n'), "{word}");
    }
    words.sort_unstable();
    words.dedup_by(|one, other| one.0 == other.0 || one.1 == other.1);
    assert_eq!(words.len(), Reason::ALL.len());
}
