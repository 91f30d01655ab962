//! Who was away judges the log by what counted when it came in, and blames nobody for what has come out since.

use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::Signer as _;
use lianxin_mls::{MlsError, Processed, RemovalReason, Violation};
use lianxin_profile::{ContextError, ProfileError, RemovalData, removal_message};
use lianxin_tlog::EventKind;
use lianxin_trust::{CertificateError, Federation, Past, TrustBundle};
use lianxin_types::{Clock as _, Digest, Epoch, GroupId, Incarnation, SystemClock, Timestamp};
use openmls::prelude::Lifetime;

use crate::device::Device;
use crate::federation::{office, with_past};
use crate::gateway::Gateway;
use crate::key_packages::{base, build};
use crate::rules::two;

const HOUR: Duration = Duration::from_secs(3600);

fn in_an_hour() -> Timestamp {
    SystemClock.now().plus(HOUR)
}

fn retire_weijians_authority(bundle: &mut TrustBundle) {
    for department in bundle.departments.iter_mut().filter(|one| one.id.as_str() == "weijian") {
        department.authorities.clear();
    }
}

/// A new removal key, with the one of before listed.
fn rotate_removal_key(bundle: &mut TrustBundle) {
    let zone = &mut bundle.zones[0];
    zone.removal_keys_before = vec![zone.removal_key];
    zone.removal_key = [7; 32];
}

/// A third removal key, and nothing of before.
fn replace_removal_keys(bundle: &mut TrustBundle) {
    bundle.zones[0].removal_key = [8; 32];
    bundle.zones[0].removal_keys_before.clear();
}

fn is_membership(processed: &[Processed]) -> bool {
    matches!(processed, [Processed::Membership { .. }])
}

#[test]
fn a_revocation_dated_back_does_not_undo_what_everybody_has_taken() {
    // The date on the list comes before the commit; the list itself comes after.
    let revoked = SystemClock.now();
    let (uri, identity, newer) = office().revoked_at("dated-back", revoked);
    let [jiwei, mut shenji, mut witness] = [("jiwei", "app-1"), ("shenji", "app-1"), ("shenji", "app-2")]
        .map(|(department, name)| Device::app(department, name));
    let weijian = Device::with(uri, identity);
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji", "weijian"]);
    gateway.seat(&jiwei, &[&jiwei], &[&shenji, &witness, &weijian]);
    // Nobody knows of it, and weijian takes jiwei out. shenji is away.
    let (channel, gone) = (gateway.channel, jiwei.uri.clone());
    let removal = weijian.run(move |mls, tx, federation| mls.remove(tx, federation, channel, &[gone]));
    gateway.commit(&weijian, &removal.expect("a commit")).expect("acceptable");

    shenji.federation = Arc::clone(&newer);
    assert!(is_membership(&gateway.feed(&shenji)), "it came in, so it counts");
    let silent = shenji.encrypt(channel, b"x");
    assert!(matches!(&silent, Err(MlsError::MemberRevoked { device }) if *device == weijian.uri), "{silent:?}");

    // Had the gateway given out the list before, it would have had to refuse the commit.
    let known = Past::default().given_out(newer.revocation_lists(), revoked.minus(HOUR));
    witness.federation = with_past(&newer, known);
    let refused = Violation::InvalidCommit(ProfileError::CredentialRevoked);
    assert_eq!(gateway.feed(&witness), [Processed::Hidden(refused)]);
}

#[test]
fn the_retirement_of_an_authority_does_not_undo_who_came_in_before() {
    let (jiwei, mut shenji) = (Device::app("jiwei", "app-1"), Device::app("shenji", "app-1"));
    let (weijian, mut stranger) = (Device::app("weijian", "app-1"), Device::app("shenji", "app-2"));
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji", "weijian"]);
    gateway.seat(&jiwei, &[&jiwei], &[&shenji, &stranger]);
    gateway.seat(&jiwei, &[&jiwei], &[&weijian]);

    let retired = office().went_on(in_an_hour(), &[retire_weijians_authority]);
    shenji.federation = Arc::clone(&retired);
    assert!(is_membership(&gateway.feed(&shenji)));
    assert!(shenji.view(gateway.channel).expect("a member").members.contains(&weijian.uri));

    // It is the bundle before that says so, and only until it was replaced.
    let unknown = || Violation::InvalidCommit(ProfileError::Certificate(CertificateError::UnknownAuthority));
    stranger.federation = with_past(&retired, Past::default());
    assert_eq!(gateway.feed(&stranger), [Processed::Hidden(unknown())]);
    let late = Device::app("jiwei", "app-2");
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji", "weijian"]);
    gateway.seat(&jiwei, &[&jiwei], &[&late]);
    gateway.seat(&jiwei, &[&jiwei], &[&weijian]);
    let mut event = gateway.log.last().expect("an invitation").clone();
    event.gateway_time = in_an_hour().plus(HOUR);
    let processed = late.run(move |mls, tx, _| mls.process(tx, &retired, &event)).expect("processed");
    assert_eq!(processed, Processed::Hidden(unknown()));
}

#[test]
fn a_move_to_a_removal_key_that_is_listed_no_more_was_good_then() {
    let (jiwei, mut shenji, mut gateway) = two();
    let stranger = Device::app("jiwei", "app-2");
    gateway.seat(&jiwei, &[&jiwei, &shenji], &[&stranger]);
    let rotated = office().changed(rotate_removal_key);
    gateway.federation = Arc::clone(&rotated);
    let channel = gateway.channel;
    let renewal = jiwei.run(move |mls, tx, _| mls.commit_pending(tx, &rotated, channel)).expect("something to renew");
    gateway.commit(&jiwei, &renewal).expect("acceptable");

    let replaced = office().went_on(in_an_hour(), &[rotate_removal_key, replace_removal_keys]);
    shenji.federation = Arc::clone(&replaced);
    assert!(is_membership(&gateway.feed(&shenji)));
    let event = gateway.log.last().expect("a renewal").clone();
    let forgetful = with_past(&replaced, Past::default());
    let processed = stranger.run(move |mls, tx, _| mls.process(tx, &forgetful, &event)).expect("processed");
    let refused = Violation::InvalidCommit(ProfileError::InvalidContext(ContextError::ExternalSender));
    assert_eq!(processed, Processed::Hidden(refused));
}

#[test]
fn a_removal_by_a_list_that_went_with_its_authority_is_followed() {
    let (jiwei, shenji) = (Device::app("jiwei", "app-1"), Device::app("shenji", "app-1"));
    let (uri, identity, revoked) = office().revoked_at("gone-with-its-authority", SystemClock.now());
    let doomed = Device::with(uri, identity);
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji", "weijian"]);
    gateway.seat(&jiwei, &[&jiwei], &[&shenji, &doomed]);
    let evidence = Digest::sha256(&doomed.identity.chain[0]);
    let data = RemovalData { reason: RemovalReason::CertificateRevoked, evidence };
    let group = GroupId { channel: gateway.channel, incarnation: Incarnation(0) };
    let sign = |signed: &[u8]| office().removal_key().sign(signed).to_bytes();
    let proposal = removal_message(group, Epoch(1), 2, &data, sign);
    gateway.store_unchecked(&proposal);
    let asked =
        gateway.append(EventKind::Proposal, &"lianxin://jiwei/gateway/g/1".parse().expect("well formed"), proposal);

    let channel = gateway.channel;
    let commit = jiwei.run(move |mls, tx, _| {
        mls.process(tx, &revoked, &asked)?;
        mls.commit_pending(tx, &revoked, channel)
    });
    gateway.commit(&jiwei, &commit.expect("a commit")).expect("acceptable");
    let retired = office().went_on(in_an_hour(), &[retire_weijians_authority]);
    let seen = feed_with(&gateway, &shenji, &retired);
    assert!(matches!(&seen[..], [Processed::RemovalAsked { .. }, Processed::Membership { .. }]), "{seen:?}");
}

fn feed_with(gateway: &Gateway, device: &Device, federation: &Arc<Federation>) -> Vec<Processed> {
    let (events, federation) = (gateway.log[2..].to_vec(), Arc::clone(federation));
    let processed =
        device.run(move |mls, tx, _| events.iter().map(|event| mls.process(tx, &federation, event)).collect());
    processed.expect("processed")
}

#[test]
fn who_was_away_for_longer_than_a_key_package_lives_blames_nobody() {
    let (jiwei, weijian, mut gateway) = {
        let (jiwei, weijian) = (Device::app("jiwei", "app-1"), Device::app("weijian", "app-1"));
        let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji", "weijian"]);
        gateway.seat(&jiwei, &[&jiwei], &[&weijian]);
        (jiwei, weijian, gateway)
    };
    let now = SystemClock.now().seconds();
    let package = build(base().key_package_lifetime(Lifetime::init(now - 60, now + 2)), lianxin_profile::CIPHERSUITE);
    let channel = gateway.channel;
    let bundle = jiwei.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[package]));
    gateway.commit(&jiwei, &bundle.expect("an invitation")).expect("acceptable");
    while SystemClock.now().seconds() < now + 2 {
        std::thread::yield_now();
    }
    assert_eq!(gateway.feed(&weijian), [Processed::Hidden(Violation::AwayTooLong)]);
    assert!(weijian.view(channel).expect("known").is_broken);
    let event = gateway.log.last().expect("an invitation").clone();
    let report = weijian.run(move |mls, tx, _| mls.report(tx, &event, &Violation::AwayTooLong)).expect("readable");
    assert_eq!(report, None);
}
