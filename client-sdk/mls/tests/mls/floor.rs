//! A gateway that wants to lead a device on its way back into a group that the others have left: what was served once, or a log
//! that says what is not so.

use std::sync::Arc;

use lianxin_keystore::Shelf;
use lianxin_mls::{CommitBundle, LogEvent, MlsError, Processed, Violation};
use lianxin_tlog::EventKind;
use openmls::prelude::MlsGroup;

use crate::device::Device;
use crate::dishonest::three;
use crate::federation::office;
use crate::gateway::{Gateway, body_from, join};
use crate::incarnations::{Broken, broken, next, read, seats, take_seat};
use crate::rotation::{renew, rotated};
use crate::rules::{group_id, two};

/// GroupInfo and tree.
type Served = (Vec<u8>, Vec<u8>);

fn rejoin(device: &Device, gateway: &Gateway, (group_info, tree): &Served) -> Result<CommitBundle, MlsError> {
    let (channel, group_info, tree) = (gateway.channel, group_info.clone(), tree.clone());
    device.run(move |mls, tx, federation| mls.rejoin(tx, federation, channel, &group_info, &tree))
}

/// As a device does whose group can go no further, or that has none: in one transaction.
fn begin_anew(device: &Device, gateway: &Gateway, (group_info, tree): &Served) -> Result<CommitBundle, MlsError> {
    let (channel, group_info, tree) = (gateway.channel, group_info.clone(), tree.clone());
    device.run(move |mls, tx, federation| {
        mls.discard(tx, channel)?;
        mls.rejoin(tx, federation, channel, &group_info, &tree)
    })
}

fn drop_commit(device: &Device, gateway: &Gateway) {
    let channel = gateway.channel;
    device.run(move |mls, tx, _| mls.discard_commit(tx, channel)).expect("dropped");
}

/// Loses the group and nothing else, as a damaged state may.
fn lose(device: &Device, id: openmls::prelude::GroupId) {
    let lost = device.run(move |_, tx, _| {
        for storage in [Shelf::First, Shelf::Second].map(|shelf| tx.mls_on(shelf)) {
            if let Some(mut group) = MlsGroup::load(&storage, &id)? {
                group.delete(&storage)?;
            }
        }
        Ok(())
    });
    lost.expect("lost");
}

/// Of an epoch that is over.
#[track_caller]
fn assert_over(made: Result<CommitBundle, MlsError>) {
    assert!(
        matches!(&made, Err(MlsError::OldGroupInfo { found, known }) if found.0 == known.0 && found.1 < known.1),
        "{made:?}"
    );
}

/// Of a group that another has followed.
#[track_caller]
fn assert_left_behind(made: Result<CommitBundle, MlsError>) {
    assert!(matches!(&made, Err(MlsError::OldGroupInfo { found, known }) if found.0 < known.0), "{made:?}");
}

/// The way back is accepted, and the device is heard.
fn comes_back(device: &Device, gateway: &mut Gateway, bundle: &CommitBundle, other: &Device) {
    gateway.commit(device, bundle).expect("acceptable");
    for member in [device, other] {
        let seen = gateway.feed(member);
        assert!(matches!(seen.last(), Some(Processed::Rejoined { .. })), "{seen:?}");
    }
    gateway.say(device, b"back");
    assert!(body_from(&gateway.feed(other)[0], device).is_some());
}

/// Somebody comes in: an epoch more.
fn next_epoch(gateway: &mut Gateway, inviter: &Device, members: &[&Device]) {
    gateway.seat(inviter, members, &[&Device::app("jiwei", "app-2")]);
}

/// A commit of `epoch`, which nobody has signed.
fn claim(gateway: &Gateway, of: &CommitBundle, epoch: u64) -> Vec<u8> {
    let mut bytes = of.commit.clone();
    let id = [&gateway.channel.0[..], &[0; 4]].concat();
    let at = bytes.windows(id.len()).position(|window| window == id).expect("its group") + id.len();
    bytes[at..at + 8].copy_from_slice(&epoch.to_be_bytes());
    bytes
}

#[test]
fn who_begins_anew_does_not_begin_behind_its_own_group() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let before = gateway.served();
    next_epoch(&mut gateway, &jiwei, &[&jiwei, &shenji, &weijian]);
    assert_over(begin_anew(&shenji, &gateway, &before));
    let channel = gateway.channel;
    shenji.run(move |mls, tx, _| mls.discard(tx, channel)).expect("forgotten");
    assert_over(rejoin(&shenji, &gateway, &before));
    let bundle = rejoin(&shenji, &gateway, &gateway.served()).expect("a way back");
    let mut served = vec![gateway.served()];
    drop_commit(&shenji, &gateway);
    gateway.feed(&jiwei);
    // It reads nothing of the log, and sees what is there.
    next_epoch(&mut gateway, &jiwei, &[&jiwei, &weijian]);
    gateway.feed(&shenji);
    assert_over(rejoin(&shenji, &gateway, &served[0]));
    // What was only served does not count: one member could make a group of any epoch with this device in it, and bar its way.
    served.push(gateway.served());
    let gone = weijian.uri.clone();
    let removal = jiwei.run(move |mls, tx, federation| mls.remove(tx, federation, channel, &[gone]));
    gateway.commit(&jiwei, &removal.expect("a commit")).expect("acceptable");
    gateway.feed(&jiwei);
    rejoin(&shenji, &gateway, &gateway.served()).expect("a way back into a later epoch");
    drop_commit(&shenji, &gateway);
    rejoin(&shenji, &gateway, &served[1]).expect("nothing that has happened speaks against it");
    drop_commit(&shenji, &gateway);
    assert!(gateway.commit(&shenji, &bundle).is_err(), "that is over");
    let bundle = rejoin(&shenji, &gateway, &gateway.served()).expect("a way back");
    comes_back(&shenji, &mut gateway, &bundle, &jiwei);
}

#[test]
fn who_came_back_by_the_receipt_does_not_come_back_by_the_same_once_more() {
    let ([jiwei, shenji, _], mut gateway) = three();
    let (channel, before) = (gateway.channel, gateway.served());
    let bundle = begin_anew(&shenji, &gateway, &before).expect("a way back");
    gateway.commit(&shenji, &bundle).expect("acceptable");
    let place = (gateway.heads[gateway.heads.len() - 1], gateway.log[gateway.log.len() - 1].gateway_time);
    let back = shenji.run(move |mls, tx, _| mls.came_back(tx, channel, &bundle.commit, place));
    assert!(back.expect("readable").is_some());
    lose(&shenji, group_id(&gateway));
    assert_over(rejoin(&shenji, &gateway, &before));
    assert_over(begin_anew(&shenji, &gateway, &before));
    gateway.feed(&jiwei);
    let bundle = begin_anew(&shenji, &gateway, &gateway.served()).expect("a way back");
    comes_back(&shenji, &mut gateway, &bundle, &jiwei);
}

#[test]
fn a_row_that_an_older_version_wrote_counts_no_more_than_the_own_group() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let (channel, before) = (gateway.channel, gateway.served());
    next_epoch(&mut gateway, &jiwei, &[&jiwei, &shenji, &weijian]);
    gateway.append(EventKind::Commit, &weijian.uri, b"not a commit".to_vec());
    gateway.feed(&shenji);
    let lower = [0_u32.to_be_bytes().to_vec(), 1_u64.to_be_bytes().to_vec()].concat();
    shenji.run(move |_, tx, _| Ok(tx.put("mls-log-epoch", &channel.0, &lower)?)).expect("stored");
    assert_over(rejoin(&shenji, &gateway, &before));
    rejoin(&shenji, &gateway, &gateway.served()).expect("a way back");
}

#[test]
fn a_channel_that_was_never_in_the_log_leaves_nothing() {
    let jiwei = Device::app("jiwei", "app-1");
    let new = crate::gateway::new_channel(&["jiwei"]);
    let channel = new.channel;
    let rows = jiwei.run(move |mls, tx, federation| {
        mls.create(tx, federation, &new)?;
        mls.discard(tx, channel)?;
        Ok(tx.list("mls-log-epoch")?)
    });
    assert_eq!(rows.expect("readable"), []);
}

#[test]
fn a_commit_that_cannot_be_read_hides_nothing_of_where_the_own_group_stood() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let before = gateway.served();
    next_epoch(&mut gateway, &jiwei, &[&jiwei, &shenji, &weijian]);
    gateway.append(EventKind::Commit, &weijian.uri, b"not a commit".to_vec());
    assert_eq!(gateway.feed(&shenji), [Processed::Hidden(Violation::Malformed)]);
    assert_over(rejoin(&shenji, &gateway, &before));
    assert_over(begin_anew(&shenji, &gateway, &before));
    rejoin(&shenji, &gateway, &gateway.served()).expect("a way back");
}

#[test]
fn what_nobody_has_signed_neither_lowers_it_nor_keeps_an_honest_way_back_out() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let (channel, gone, before) = (gateway.channel, weijian.uri.clone(), gateway.served());
    let commit = jiwei.run(move |mls, tx, federation| mls.remove(tx, federation, channel, &[gone])).expect("a commit");
    for claimed in [u64::MAX, 0] {
        let forged = claim(&gateway, &commit, claimed);
        gateway.append(EventKind::Commit, &weijian.uri, forged);
    }
    gateway.feed(&shenji);
    assert!(shenji.view(channel).expect("a member").is_broken);
    assert_over(rejoin(&shenji, &gateway, &before));
    gateway.commit(&jiwei, &commit).expect("acceptable");
    rejoin(&shenji, &gateway, &gateway.served()).expect("a way back");
}

#[test]
fn a_judgement_that_is_put_off_leaves_no_trace() {
    let (mut jiwei, mut shenji, mut gateway) = two();
    let before = gateway.served();
    for federation in [&mut gateway.federation, &mut jiwei.federation, &mut shenji.federation] {
        *federation = rotated();
    }
    renew(&shenji, &mut gateway).expect("something to renew");
    let moved = gateway.log[gateway.log.len() - 1].clone();
    jiwei.federation = Arc::clone(&office().federation);
    let event = moved.clone();
    let put_off = jiwei.run(move |mls, tx, federation| match mls.process_unless_behind(tx, federation, &event) {
        Err(MlsError::TrustBehind { .. }) => Ok(()),
        other => panic!("{other:?}"),
    });
    put_off.expect("kept");
    // The log turns out to have something else there: that is all that counts.
    let other = LogEvent { mls: b"not a commit".to_vec(), ..moved };
    assert_eq!(jiwei.process(&other).expect("processed"), Processed::Hidden(Violation::Malformed));
    rejoin(&jiwei, &gateway, &before).expect("of the epoch in which the own group stands");
}

#[test]
fn who_was_removed_is_not_brought_back_by_what_was_served_before() {
    let ([jiwei, shenji, _], mut gateway) = three();
    let channel = gateway.channel;
    let before = gateway.served();
    let gone = shenji.uri.clone();
    let bundle = jiwei.run(move |mls, tx, federation| mls.remove(tx, federation, channel, &[gone])).expect("a commit");
    gateway.commit(&jiwei, &bundle).expect("acceptable");
    for member in [&jiwei, &shenji] {
        gateway.feed(member);
    }
    assert_over(rejoin(&shenji, &gateway, &before));
    assert_over(begin_anew(&shenji, &gateway, &before));
    let made = begin_anew(&shenji, &gateway, &gateway.served());
    assert!(matches!(made, Err(MlsError::Rejoin { .. })), "it has no leaf there: {made:?}");

    // Invited again, and the invitation is lost.
    let package = shenji.key_package();
    let bundle = jiwei.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[package]));
    gateway.commit(&jiwei, &bundle.expect("a commit")).expect("acceptable");
    gateway.feed(&jiwei);
    let bundle = begin_anew(&shenji, &gateway, &gateway.served()).expect("a way back");
    comes_back(&shenji, &mut gateway, &bundle, &jiwei);
}

#[test]
fn who_was_seated_anew_by_the_commit_that_took_it_out_comes_back_by_what_that_commit_left() {
    let ([jiwei, shenji, _], mut gateway) = three();
    let channel = gateway.channel;
    let (before, package) = (gateway.served(), shenji.key_package());
    let bundle = jiwei.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[package]));
    gateway.commit(&jiwei, &bundle.expect("a commit")).expect("acceptable");
    gateway.feed(&jiwei);
    let seen = gateway.feed(&shenji);
    assert!(matches!(seen[..], [Processed::Membership { removed_self: true, .. }]), "{seen:?}");
    assert_over(begin_anew(&shenji, &gateway, &before));
    // The head in it is from before the removal, for its maker had not read its own commit.
    let bundle = begin_anew(&shenji, &gateway, &gateway.served()).expect("a way back");
    comes_back(&shenji, &mut gateway, &bundle, &jiwei);
}

#[test]
fn who_has_only_lost_its_group_is_led_no_further_back() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let id = group_id(&gateway);
    let before = gateway.served();
    next_epoch(&mut gateway, &jiwei, &[&jiwei, &shenji, &weijian]);
    // Shenji has read the commit; this one joined behind it; and this one came back.
    let newcomer = Device::app("weijian", "app-2");
    gateway.seat(&jiwei, &[&jiwei, &shenji, &weijian], &[&newcomer]);
    let during = gateway.served();
    let bundle = begin_anew(&weijian, &gateway, &during).expect("a way back");
    comes_back(&weijian, &mut gateway, &bundle, &jiwei);
    for (device, old) in [(&shenji, &before), (&newcomer, &before), (&weijian, &during)] {
        lose(device, id.clone());
        assert_over(rejoin(device, &gateway, old));
        rejoin(device, &gateway, &gateway.served()).expect("a way back");
    }
}

#[test]
fn nobody_is_led_back_into_a_group_that_another_has_followed() {
    let Broken { jiwei, shenji, away, culprit, mut gateway, commit } = broken();
    let old = gateway.served();
    // One has lost its group, and its way back came to nothing.
    begin_anew(&away, &gateway, &old).expect("a way back");
    drop_commit(&away, &gateway);
    // One starts the next group, and does not remember it.
    let copy = shenji.copy();
    let start = next(&shenji, &gateway).expect("broken");
    let started = gateway.restart(&shenji, &start, (&culprit, commit)).expect("acceptable");
    gateway.feed(&shenji);
    let (_, invitation) = seats(&shenji, &mut gateway, &[&jiwei, &away]);
    gateway.feed(&shenji);

    let made = rejoin(&jiwei, &gateway, &gateway.served());
    assert!(matches!(&made, Err(MlsError::Overtaken)), "it reads the log first: {made:?}");
    assert!(jiwei.view(gateway.channel).expect("a member").is_broken, "nothing has changed");
    assert!(matches!(jiwei.process(&started), Ok(Processed::Incarnation { .. })));
    assert!(matches!(rejoin(&jiwei, &gateway, &old), Err(MlsError::NotBroken)), "it has a seat to wait for");
    assert_left_behind(begin_anew(&jiwei, &gateway, &old));

    // Who reads nothing of the log is in the group that is served.
    let bundle = rejoin(&away, &gateway, &gateway.served()).expect("a way back");
    comes_back(&away, &mut gateway, &bundle, &shenji);
    let bundle = begin_anew(&jiwei, &gateway, &gateway.served()).expect("a way back");
    comes_back(&jiwei, &mut gateway, &bundle, &shenji);
    let view = jiwei.view(gateway.channel).expect("a member");
    assert_eq!(shenji.view(gateway.channel).expect("a member").epoch_authenticator, view.epoch_authenticator);
    assert!(matches!(join(&jiwei, &invitation), Err(MlsError::AlreadyMember)), "and that is of no use any more");

    shenji.restore(&copy);
    assert_eq!(shenji.process(&started).expect("processed"), Processed::Hidden(Violation::OlderState));
    assert_left_behind(begin_anew(&shenji, &gateway, &old));
    let bundle = begin_anew(&shenji, &gateway, &gateway.served()).expect("a way back");
    comes_back(&shenji, &mut gateway, &bundle, &jiwei);
}

#[test]
fn who_has_taken_its_seat_and_lost_it_is_led_no_further_back() {
    let Broken { jiwei, shenji, away, culprit, mut gateway, commit } = broken();
    let (channel, old) = (gateway.channel, gateway.served());
    let start = next(&shenji, &gateway).expect("broken");
    gateway.restart(&shenji, &start, (&culprit, commit)).expect("acceptable");
    gateway.feed(&shenji);
    seats(&shenji, &mut gateway, &[&away]);
    gateway.feed(&shenji);
    let before = gateway.served();
    let (_, invitation) = seats(&shenji, &mut gateway, &[&jiwei]);
    gateway.feed(&shenji);
    assert!(read(&jiwei, &gateway).1);
    take_seat(&jiwei, &invitation).expect("its seat");
    read(&jiwei, &gateway);
    lose(&jiwei, openmls::prelude::GroupId::from_slice(&[&gateway.channel.0[..], &[0, 0, 0, 1]].concat()));
    assert_over(rejoin(&jiwei, &gateway, &before));
    // Its record alone says in which group it was.
    jiwei.run(move |_, tx, _| Ok(tx.delete("mls-log-epoch", &channel.0)?)).expect("deleted");
    assert_left_behind(rejoin(&jiwei, &gateway, &old));
    rejoin(&jiwei, &gateway, &gateway.served()).expect("a way back");
}
