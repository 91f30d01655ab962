//! Coming and going.

use std::sync::Arc;
use std::time::Duration;

use lianxin_certs_dev::Specimen;
use lianxin_mls::{LogEvent, MlsError, Processed, Violation};
use lianxin_profile::ProfileError;
use lianxin_tlog::EventKind;
use lianxin_trust::Past;
use lianxin_types::{ChannelId, Clock as _, DepartmentId, SystemClock};
use openmls::prelude::{GroupId, MlsGroup};

use crate::device::Device;
use crate::federation::{office, with_past};
use crate::gateway::{Gateway, body_from, join, new_channel};

fn three() -> ([Device; 3], Gateway) {
    let devices = [Device::app("jiwei", "app-1"), Device::app("shenji", "app-1"), Device::app("weijian", "app-1")];
    let mut gateway = Gateway::start(&devices[0], &["jiwei", "shenji", "weijian"]);
    gateway.seat(&devices[0], &[&devices[0]], &[&devices[1], &devices[2]]);
    (devices, gateway)
}

fn epoch_authenticator(device: &Device, channel: ChannelId) -> Vec<u8> {
    let id = GroupId::from_slice(&[&channel.0[..], &[0; 4]].concat());
    let found = device.run(move |_, tx, _| {
        let group = MlsGroup::load(&tx.mls(), &id)?.expect("a group");
        Ok(group.epoch_authenticator().as_slice().to_vec())
    });
    found.expect("a readable state")
}

#[test]
fn a_stranger_departments_device_cannot_be_invited() {
    let (jiwei, outsider) = (Device::app("jiwei", "app-1"), Device::app("waibu", "app-1"));
    let gateway = Gateway::start(&jiwei, &["jiwei", "shenji"]);
    let (channel, package) = (gateway.channel, outsider.key_package());
    let refused = jiwei.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[package]));
    let department: DepartmentId = "waibu".parse().expect("well formed");
    let named =
        matches!(&refused, Err(MlsError::Profile(error)) if *error == ProfileError::DepartmentNotNamed { department });
    assert!(named, "{refused:?}");
    let view = jiwei.view(channel).expect("a member");
    assert!(!view.has_pending_commit, "a refused invitation leaves nothing behind");
}

#[test]
fn a_creator_outside_its_own_channel_or_in_an_unknown_zone_is_refused() {
    let jiwei = Device::app("jiwei", "app-1");
    let alone = new_channel(&["shenji"]);
    let refused = jiwei.run(move |mls, tx, federation| mls.create(tx, federation, &alone));
    assert!(matches!(refused, Err(MlsError::Profile(ProfileError::DepartmentNotNamed { .. }))), "{refused:?}");
    let mut nowhere = new_channel(&["jiwei"]);
    nowhere.zone = "nowhere".parse().expect("well formed");
    let refused = jiwei.run(move |mls, tx, federation| mls.create(tx, federation, &nowhere));
    assert!(matches!(refused, Err(MlsError::Profile(ProfileError::InvalidContext(_)))), "{refused:?}");
    assert_eq!(jiwei.run(|mls, tx, _| mls.channels(tx)).expect("readable"), []);
}

#[test]
fn certificates_that_are_not_good_make_no_key_packages() {
    let (uri, _) = office().app("jiwei", "app-1");
    let specimens = [
        (Specimen::Expired, ProfileError::CredentialExpired),
        (Specimen::NotYetValid, ProfileError::CredentialExpired),
        (Specimen::Revoked, ProfileError::CredentialRevoked),
    ];
    for (specimen, expected) in specimens {
        let device = Device::with(uri.clone(), office().specimen(specimen));
        let refused = device.run(|mls, tx, federation| mls.key_packages(tx, federation, 1, true));
        assert!(matches!(&refused, Err(MlsError::Profile(found)) if *found == expected), "{specimen:?}: {refused:?}");
    }
    for specimen in [Specimen::WrongCa, Specimen::OtherDepartment] {
        let device = Device::with(uri.clone(), office().specimen(specimen));
        let refused = device.run(|mls, tx, federation| mls.key_packages(tx, federation, 1, true));
        assert!(matches!(refused, Err(MlsError::Profile(ProfileError::Certificate(_)))), "{specimen:?}: {refused:?}");
    }
}

#[test]
fn a_newcomer_does_not_read_what_came_before_and_a_removed_member_not_what_comes_after() {
    let (jiwei, shenji) = (Device::app("jiwei", "app-1"), Device::app("shenji", "app-1"));
    let late = Device::app("weijian", "app-1");
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji", "weijian"]);
    gateway.seat(&jiwei, &[&jiwei], &[&shenji]);
    let before = gateway.say(&shenji, b"before");
    gateway.feed(&jiwei);
    gateway.feed(&shenji);
    gateway.seat(&jiwei, &[&jiwei, &shenji], &[&late]);
    assert_eq!(late.process(&before).expect("processed"), Processed::AlreadyProcessed);

    // The newcomer's keys do not open it either, put wherever.
    let mut forged = before;
    forged.sequence = late.view(gateway.channel).expect("a member").head.sequence.next();
    assert_eq!(late.process(&forged).expect("processed"), Processed::Hidden(Violation::Undecryptable));

    let (channel, gone) = (gateway.channel, shenji.uri.clone());
    let bundle = jiwei.run(move |mls, tx, federation| mls.remove(tx, federation, channel, &[gone])).expect("a commit");
    gateway.commit(&jiwei, &bundle).expect("acceptable");
    let seen = gateway.feed(&shenji);
    let [Processed::Membership { removed_self: true, removed, by, .. }] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((&removed[..], by), (&[shenji.uri.clone()][..], &jiwei.uri));
    gateway.feed(&jiwei);
    let after = gateway.say(&jiwei, b"after");
    assert!(matches!(shenji.process(&after), Err(MlsError::NotMember)));
    assert!(matches!(shenji.encrypt(channel, b"x"), Err(MlsError::NotMember)));
    assert_eq!(shenji.view(channel), None);
    assert_eq!(shenji.run(|mls, tx, _| mls.channels(tx)).expect("readable"), []);
}

#[test]
fn a_member_revoked_since_does_not_break_what_it_did_before() {
    let moment = SystemClock.now().plus(Duration::from_secs(3600));
    let (uri, identity, newer) = office().revoked_at("to-be-revoked", moment);
    let (jiwei, shenji) = (Device::app("jiwei", "app-1"), Device::app("shenji", "app-1"));
    let weijian = Device::with(uri, identity);
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji", "weijian"]);
    gateway.seat(&jiwei, &[&jiwei], &[&shenji, &weijian]);
    let (channel, gone) = (gateway.channel, jiwei.uri.clone());
    // shenji is offline. weijian takes jiwei out and speaks; then its certificate is revoked.
    let removal = weijian.run(move |mls, tx, federation| mls.remove(tx, federation, channel, &[gone]));
    gateway.commit(&weijian, &removal.expect("a commit")).expect("acceptable");
    gateway.feed(&weijian);
    let said = gateway.say(&weijian, b"before the revocation");
    let read = |event: &LogEvent| {
        let (event, newer) = (event.clone(), Arc::clone(&newer));
        shenji.run(move |mls, tx, _| mls.process(tx, &newer, &event)).expect("processed")
    };
    let commit = gateway.log[gateway.log.len() - 2].clone();
    let seen = read(&commit);
    assert!(matches!(&seen, Processed::Membership { own_commit: false, .. }), "{seen:?}");
    assert_eq!(body_from(&read(&said), &weijian), Some(b"before the revocation".to_vec()));

    // What it commits once the gateway has given out the list is refused.
    let newer = with_past(&newer, Past::default().given_out(newer.revocation_lists(), moment));
    let read = |event: &LogEvent| {
        let (event, newer) = (event.clone(), Arc::clone(&newer));
        shenji.run(move |mls, tx, _| mls.process(tx, &newer, &event)).expect("processed")
    };
    gateway.feed(&weijian);
    let gone = shenji.uri.clone();
    let late = weijian.run(move |mls, tx, federation| mls.remove(tx, federation, channel, &[gone]));
    let mut late = gateway.append(EventKind::Commit, &weijian.uri, late.expect("a commit").commit);
    late.gateway_time = moment.plus(Duration::from_secs(3600));
    let refused = Violation::InvalidCommit(ProfileError::CredentialRevoked);
    assert_eq!(read(&late), Processed::Hidden(refused));
}

#[test]
fn a_removed_device_can_be_invited_again() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let (channel, gone) = (gateway.channel, shenji.uri.clone());
    let bundle = jiwei.run(move |mls, tx, federation| mls.remove(tx, federation, channel, &[gone])).expect("a commit");
    gateway.commit(&jiwei, &bundle).expect("acceptable");
    for device in [&jiwei, &shenji, &weijian] {
        gateway.feed(device);
    }
    gateway.seat(&jiwei, &[&jiwei, &weijian], &[&shenji]);
    gateway.say(&shenji, "回来了".as_bytes());
    let heard = gateway.feed(&weijian);
    assert_eq!(body_from(&heard[0], &shenji).as_deref(), Some("回来了".as_bytes()));
}

#[test]
fn a_member_that_lost_its_state_is_seated_anew_in_one_commit() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let fresh = Device::with(shenji.uri.clone(), shenji.identity.clone());
    gateway.seat(&jiwei, &[&jiwei, &weijian], &[&fresh]);
    assert_eq!(jiwei.view(gateway.channel).expect("a member").members.len(), 3);
    gateway.say(&weijian, b"welcome back");
    assert!(body_from(&gateway.feed(&fresh)[0], &weijian).is_some());
}

#[test]
fn one_leaves_and_another_commits_it() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let channel = gateway.channel;
    let nothing = jiwei.run(move |mls, tx, federation| mls.commit_pending(tx, federation, channel));
    assert!(matches!(nothing, Err(MlsError::NothingPending)), "{nothing:?}");

    let proposal = shenji.run(move |mls, tx, _| mls.leave(tx, channel)).expect("a proposal");
    gateway.leave(&shenji, proposal).expect("acceptable");
    for device in [&jiwei, &shenji, &weijian] {
        assert_eq!(gateway.feed(device), [Processed::LeaveProposed { device: shenji.uri.clone() }]);
        assert_eq!(device.view(channel).expect("a member").pending_leaves, std::slice::from_ref(&shenji.uri));
    }
    assert!(matches!(shenji.encrypt(channel, b"x"), Err(MlsError::Leaving)));
    assert!(matches!(jiwei.encrypt(channel, b"x"), Err(MlsError::ProposalsPending)));
    let own = shenji.run(move |mls, tx, federation| mls.commit_pending(tx, federation, channel));
    assert!(matches!(own, Err(MlsError::Leaving)), "{own:?}");

    let bundle = weijian.run(move |mls, tx, federation| mls.commit_pending(tx, federation, channel)).expect("a commit");
    assert!(bundle.welcome.is_empty());
    let summary = gateway.commit(&weijian, &bundle).expect("acceptable");
    assert_eq!(summary.removed[0].cause, lianxin_profile::RemovalCause::Left);
    assert!(matches!(&gateway.feed(&shenji)[..], [Processed::Membership { removed_self: true, .. }]));
    assert!(matches!(&gateway.feed(&weijian)[..], [Processed::Membership { own_commit: true, .. }]));
    gateway.feed(&jiwei);
    gateway.say(&jiwei, b"and on");
    assert!(body_from(&gateway.feed(&weijian)[0], &jiwei).is_some());
}

#[test]
fn who_is_invited_anew_by_the_commit_that_takes_it_out_joins_whichever_it_reads_first() {
    for reads_its_removal_first in [true, false] {
        let ([jiwei, shenji, weijian], mut gateway) = three();
        let channel = gateway.channel;
        let proposal = shenji.run(move |mls, tx, _| mls.leave(tx, channel)).expect("a proposal");
        gateway.leave(&shenji, proposal).expect("acceptable");
        gateway.feed(&jiwei);
        let package = shenji.key_package();
        let both = jiwei.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[package]));
        let both = both.expect("a commit that takes its old leaf out");
        let summary = gateway.commit(&jiwei, &both).expect("acceptable");
        assert_eq!((summary.removed.len(), summary.added.len()), (1, 1));
        let invitation = gateway.invitation(&both);
        if reads_its_removal_first {
            let seen = gateway.feed(&shenji);
            assert!(matches!(&seen[..], [_, Processed::Membership { removed_self: true, .. }]), "{seen:?}");
        }
        join(&shenji, &invitation).expect("it joins");
        assert!(matches!(join(&shenji, &invitation), Err(MlsError::AlreadyMember)), "once");
        gateway.feed(&jiwei);
        gateway.feed(&weijian);
        gateway.say(&weijian, b"welcome back");
        assert!(body_from(&gateway.feed(&shenji)[0], &weijian).is_some(), "{reads_its_removal_first}");
    }
}

#[test]
fn two_leave_while_another_commits_and_one_more_commit_takes_both_out() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let channel = gateway.channel;
    // jiwei's commit misses both proposals: the gateway answers PENDING_REMOVES, with the sequence to read up to.
    let newcomer = Device::app("jiwei", "app-2");
    let package = newcomer.key_package();
    let again = package.clone();
    jiwei.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[package])).expect("a commit");
    for device in [&shenji, &weijian] {
        let proposal = device.run(move |mls, tx, _| mls.leave(tx, channel)).expect("a proposal");
        gateway.leave(device, proposal).expect("acceptable");
    }
    jiwei.run(move |mls, tx, _| mls.discard_commit(tx, channel)).expect("dropped");
    let seen = gateway.feed(&jiwei);
    assert!(matches!(&seen[..], [Processed::LeaveProposed { .. }, Processed::LeaveProposed { .. }]), "{seen:?}");
    let bundle = jiwei.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[again])).expect("a commit");
    let summary = gateway.commit(&jiwei, &bundle).expect("acceptable");
    assert_eq!((summary.added.len(), summary.removed.len()), (1, 2));
    for device in [&shenji, &weijian] {
        let seen = gateway.feed(device);
        assert!(matches!(seen.last(), Some(Processed::Membership { removed_self: true, .. })), "{seen:?}");
    }
}

#[test]
fn of_two_commits_for_one_epoch_the_first_wins_and_all_agree() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let channel = gateway.channel;
    let other = Device::app("jiwei", "app-2");
    let (package, gone) = (other.key_package(), weijian.uri.clone());
    let winner =
        jiwei.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[package])).expect("a commit");
    let loser = shenji.run(move |mls, tx, federation| mls.remove(tx, federation, channel, &[gone])).expect("a commit");
    let second = shenji.run(move |mls, tx, federation| mls.commit_pending(tx, federation, channel));
    assert!(second.is_err(), "one commit at a time");

    gateway.commit(&jiwei, &winner).expect("acceptable");
    assert!(gateway.commit(&shenji, &loser).is_err(), "of an epoch that is over");
    join(&other, &gateway.invitation(&winner)).expect("a join");
    let won = gateway.feed(&jiwei);
    let lost = gateway.feed(&shenji);
    gateway.feed(&weijian);
    assert!(
        matches!(&won[..], [Processed::Membership { own_commit: true, discarded_own_commit: false, .. }]),
        "{won:?}"
    );
    assert!(
        matches!(&lost[..], [Processed::Membership { own_commit: false, discarded_own_commit: true, .. }]),
        "{lost:?}"
    );
    let expected = epoch_authenticator(&jiwei, channel);
    for device in [&shenji, &weijian, &other] {
        assert_eq!(epoch_authenticator(device, channel), expected);
        assert!(!device.view(channel).expect("a member").has_pending_commit);
    }
    gateway.say(&shenji, b"agreed");
    assert!(body_from(&gateway.feed(&other)[0], &shenji).is_some());
}

#[test]
fn a_refused_commit_and_a_refused_start_can_be_dropped() {
    let ([jiwei, shenji, _], mut gateway) = three();
    let (channel, gone) = (gateway.channel, shenji.uri.clone());
    jiwei.run(move |mls, tx, federation| mls.remove(tx, federation, channel, &[gone])).expect("a commit");
    assert!(jiwei.view(channel).expect("a member").has_pending_commit);
    jiwei.run(move |mls, tx, _| mls.discard_commit(tx, channel)).expect("dropped");
    assert!(!jiwei.view(channel).expect("a member").has_pending_commit);
    gateway.say(&jiwei, b"still here");
    assert!(body_from(&gateway.feed(&shenji)[0], &jiwei).is_some());

    let new = new_channel(&["jiwei"]);
    let (again, channel) = (new.clone(), new.channel);
    jiwei.run(move |mls, tx, federation| mls.create(tx, federation, &new)).expect("a start");
    let (first, twice) = (again.clone(), again);
    let refused = jiwei.run(move |mls, tx, federation| mls.create(tx, federation, &first));
    assert!(matches!(refused, Err(MlsError::AlreadyMember)));
    jiwei.run(move |mls, tx, _| mls.discard(tx, channel)).expect("dropped");
    jiwei.run(move |mls, tx, federation| mls.create(tx, federation, &twice)).expect("a start");
}

#[test]
fn an_invitation_counts_once_and_names_its_inviter() {
    let (jiwei, shenji) = (Device::app("jiwei", "app-1"), Device::app("shenji", "app-1"));
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji"]);
    let (channel, package) = (gateway.channel, shenji.key_package());
    let bundle =
        jiwei.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[package])).expect("a commit");
    gateway.commit(&jiwei, &bundle).expect("acceptable");
    let good = gateway.invitation(&bundle);

    let mut lie = good.clone();
    lie.inviter = shenji.uri.clone();
    assert!(matches!(join(&shenji, &lie), Err(MlsError::Invitation { .. })));
    let mut elsewhere = good.clone();
    elsewhere.channel = ChannelId([9; 16]);
    assert!(matches!(join(&shenji, &elsewhere), Err(MlsError::Invitation { .. })));
    let mut cut = good.clone();
    cut.tree.pop();
    assert!(matches!(join(&shenji, &cut), Err(MlsError::Profile(_))));

    // None of the refusals has used up the key package.
    join(&shenji, &good).expect("a join");
    assert!(matches!(join(&shenji, &good), Err(MlsError::AlreadyMember)));
    let other = Device::app("shenji", "app-2");
    assert!(matches!(join(&other, &good), Err(MlsError::KeyPackageGone)));
}

#[test]
fn a_last_resort_serves_two_channels() {
    let (jiwei, shenji) = (Device::app("jiwei", "app-1"), Device::app("shenji", "app-1"));
    let made = shenji.run(|mls, tx, federation| mls.key_packages(tx, federation, 0, true)).expect("a key package");
    let package = made.last_resort.expect("asked for");
    for _ in 0..2 {
        let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji"]);
        let (channel, package) = (gateway.channel, package.clone());
        let bundle = jiwei.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[package]));
        let bundle = bundle.expect("a commit");
        let summary = gateway.commit(&jiwei, &bundle).expect("acceptable");
        assert!(summary.added[0].is_last_resort);
        gateway.feed(&jiwei);
        join(&shenji, &gateway.invitation(&bundle)).expect("a join");
        let own = shenji.run(move |mls, tx, federation| mls.commit_pending(tx, federation, channel));
        gateway.commit(&shenji, &own.expect("keys of its own")).expect("acceptable");
        gateway.feed(&shenji);
        gateway.append(EventKind::Application, &shenji.uri, shenji.encrypt(channel, b"x").expect("encrypted").mls);
        assert!(body_from(&gateway.feed(&jiwei)[1], &shenji).is_some());
    }
}
