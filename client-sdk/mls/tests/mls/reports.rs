//! Who cannot process a commit says so; the others verify who it was.

use ed25519_dalek::Signer as _;
use lianxin_mls::{LogEvent, MlsError, Processed, ReportReason, Violation};
use lianxin_profile::{Report, SignedReport};
use lianxin_tlog::EventKind;
use lianxin_types::{Digest, Epoch, Timestamp};
use openmls_rust_crypto::RustCrypto;

use crate::device::Device;
use crate::gateway::Gateway;
use crate::rules::two;

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

/// What a gateway makes of a commit that it gives out: `change` of the bytes that `committer` has signed.
fn altered(event: &LogEvent, change: impl FnOnce(&mut Vec<u8>)) -> LogEvent {
    let mut event = event.clone();
    change(&mut event.mls);
    event
}

#[test]
fn a_commit_that_the_gateway_has_altered_accuses_nobody() {
    let (jiwei, shenji, mut gateway) = two();
    let channel = gateway.channel;
    let event = update(&jiwei, &mut gateway);
    // The head in the authenticated data: the member has signed it, and the membership tag covers it as well.
    let head = gateway.heads[2].chain_hash.0;
    let place = event.mls.windows(32).position(|bytes| bytes == head).expect("the head is in it");
    let altered = altered(&event, |mls| mls[place] ^= 1);
    let [seen, named] = [&shenji.uri, &jiwei.uri].map(|sender| LogEvent { sender: sender.clone(), ..altered.clone() });
    for event in [seen, named] {
        let copy = shenji.copy();
        assert_eq!(shenji.process(&event).expect("processed"), Processed::Hidden(Violation::NotSigned));
        let report = shenji.run(move |mls, tx, _| mls.report(tx, &event, &Violation::NotSigned)).expect("readable");
        assert_eq!(report, None);
        let start = shenji.run(move |mls, tx, federation| mls.next_incarnation(tx, federation, channel));
        assert!(matches!(start, Err(MlsError::NotBroken)), "nobody is left behind for it");
        shenji.restore(&copy);
    }
    // The public state that is served is the one that all others have: it comes back among them.
    shenji.process(&altered).expect("processed");
    let (group_info, tree) = gateway.served();
    let bundle = shenji.run(move |mls, tx, federation| mls.rejoin(tx, federation, channel, &group_info, &tree));
    gateway.commit(&shenji, &bundle.expect("a way back")).expect("acceptable");
    assert!(matches!(gateway.feed(&shenji)[..], [Processed::Rejoined { own_commit: true, .. }]));
    // What it was given stays another log than theirs, and every message says so.
    gateway.feed(&jiwei);
    gateway.say(&jiwei, b"x");
    assert!(matches!(gateway.feed(&shenji)[..], [Processed::Hidden(Violation::HeadMismatch { .. })]));
}

#[test]
fn a_commit_that_the_gateway_dates_before_its_certificates_accuses_nobody() {
    let (jiwei, shenji, mut gateway) = two();
    let early = LogEvent { gateway_time: Timestamp(1), ..update(&jiwei, &mut gateway) };
    let Ok(Processed::Hidden(violation)) = shenji.process(&early) else { panic!("it is no time for it") };
    assert!(matches!(violation, Violation::InvalidCommit(_)), "{violation:?}");
    let report = shenji.run(move |mls, tx, _| mls.report(tx, &early, &violation)).expect("readable");
    assert_eq!(report, None);
}

/// The tags are not under the signature: nobody but the committer can tell that the gateway has changed them.
#[test]
fn whoever_made_a_commit_knows_that_another_one_is_reported() {
    let (jiwei, shenji, mut gateway) = two();
    let event = update(&jiwei, &mut gateway);
    let altered = altered(&event, |mls| *mls.last_mut().expect("not empty") ^= 1);
    let Ok(Processed::Hidden(violation)) = shenji.process(&altered) else { panic!("it verifies") };
    assert!(matches!(violation, Violation::CannotProcess { .. }), "{violation:?}");
    let report = shenji.run(move |mls, tx, _| mls.report(tx, &altered, &violation)).expect("readable");
    let sequence = event.sequence;
    gateway.append(EventKind::Report, &shenji.uri, report.expect("the channel is broken for it"));
    let seen = gateway.feed(&jiwei);
    assert!(matches!(seen[0], Processed::Membership { own_commit: true, .. }), "{seen:?}");
    assert_eq!(seen[1..], [Processed::Hidden(Violation::OtherCommitReported { sequence })]);
}

/// A commit of `device` as it is in the log; nobody has read it.
fn update(device: &Device, gateway: &mut Gateway) -> LogEvent {
    let (channel, package) = (gateway.channel, Device::app("jiwei", "app-2").key_package());
    let bundle = device.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[package]));
    gateway.commit(device, &bundle.expect("a commit")).expect("acceptable");
    gateway.log.last().expect("it is there").clone()
}
