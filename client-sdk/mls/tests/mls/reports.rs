//! Who cannot process a commit says so; the others verify who it was.

use ed25519_dalek::Signer as _;
use lianxin_mls::{Processed, ReportReason, Violation};
use lianxin_profile::{Report, SignedReport};
use lianxin_tlog::EventKind;
use lianxin_types::{Digest, Epoch};
use openmls_rust_crypto::RustCrypto;

use crate::device::Device;
use crate::gateway::Gateway;

#[test]
fn a_broken_reader_signs_what_broke_it_and_a_reader_in_order_signs_nothing() {
    let (jiwei, shenji) = (Device::app("jiwei", "app-1"), Device::app("shenji", "app-1"));
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji"]);
    gateway.seat(&jiwei, &[&jiwei], &[&shenji]);
    let said = gateway.say(&jiwei, b"x");
    gateway.feed(&shenji);
    let none = shenji.run(move |mls, tx, _| mls.report(tx, &said, &Violation::Malformed)).expect("readable");
    assert_eq!(none, None);

    let (channel, gone) = (gateway.channel, shenji.uri.clone());
    let mut commit =
        jiwei.run(move |mls, tx, federation| mls.remove(tx, federation, channel, &[gone])).expect("a commit").commit;
    *commit.last_mut().expect("not empty") ^= 1;
    let event = gateway.append(EventKind::Commit, &jiwei.uri, commit.clone());
    let Processed::Hidden(violation) = shenji.process(&event).expect("processed") else { panic!("it verifies") };
    assert!(matches!(violation, Violation::CannotProcess { .. }), "{violation:?}");
    let sequence = event.sequence;
    let report = shenji.run(move |mls, tx, _| mls.report(tx, &event, &violation)).expect("readable");
    let signed = SignedReport::from_bytes(&report.expect("the channel is broken")).expect("a report");
    let key = ed25519_dalek::SigningKey::from_bytes(&shenji.identity.key).verifying_key().to_bytes();
    let report = signed.verify(&RustCrypto::default(), &key).expect("signed by its leaf");
    assert_eq!((report.epoch, report.sequence, report.commit), (Epoch(1), sequence, Digest::sha256(&commit)));
    assert_eq!(report.reason, ReportReason::CannotProcess);
    let other = ed25519_dalek::SigningKey::from_bytes(&jiwei.identity.key).verifying_key().to_bytes();
    assert!(signed.verify(&RustCrypto::default(), &other).is_err());
}

#[test]
fn a_report_is_taken_from_the_leaf_that_signed_it_and_from_nobody_else() {
    let (jiwei, shenji) = (Device::app("jiwei", "app-1"), Device::app("shenji", "app-1"));
    let weijian = Device::app("weijian", "app-1");
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji", "weijian"]);
    gateway.seat(&jiwei, &[&jiwei], &[&shenji]);
    let commit = gateway.log[1].clone();
    let group = lianxin_types::GroupId { channel: gateway.channel, incarnation: lianxin_types::Incarnation(0) };
    let reason = ReportReason::BreaksProfile;
    let report =
        Report { group, epoch: Epoch(0), sequence: commit.sequence, commit: Digest::sha256(&commit.mls), reason };
    let by = |device: &Device, report: &Report| {
        let key = ed25519_dalek::SigningKey::from_bytes(&device.identity.key);
        report.signed(|signed| key.sign(signed).to_bytes())
    };
    let future = Report { sequence: lianxin_types::Sequence(99), ..report };
    for (sender, bytes) in
        [(&weijian, by(&weijian, &report)), (&shenji, by(&weijian, &report)), (&shenji, by(&shenji, &future))]
    {
        let event = gateway.append(EventKind::Report, &sender.uri, bytes);
        let seen = jiwei.process(&event).expect("processed");
        assert_eq!(seen, Processed::Hidden(Violation::UnsignedReport));
    }
    let event = gateway.append(EventKind::Report, &shenji.uri, b"nonsense".to_vec());
    assert_eq!(jiwei.process(&event).expect("processed"), Processed::Hidden(Violation::Malformed));
    let event = gateway.append(EventKind::Report, &shenji.uri, by(&shenji, &report));
    let told = Processed::CommitReported { reporter: shenji.uri.clone(), commit: commit.sequence, reason };
    assert_eq!(jiwei.process(&event).expect("processed"), told);
    assert!(!jiwei.view(gateway.channel).expect("a member").is_broken);
}
