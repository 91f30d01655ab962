//! Coming back by an external commit: the group is broken or gone, the device and its key are the same.

use lianxin_mls::{CommitBundle, MlsError, Processed, Violation};
use lianxin_profile::ProfileError;
use lianxin_tlog::EventKind;
use lianxin_types::Epoch;

use crate::device::Device;
use crate::gateway::{Gateway, body_from};

/// Three members of three departments, all up to date.
fn three() -> ([Device; 3], Gateway) {
    let [jiwei, shenji, weijian] = ["jiwei", "shenji", "weijian"].map(|name| Device::app(name, "app-1"));
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji", "weijian"]);
    gateway.seat(&jiwei, &[&jiwei], &[&shenji, &weijian]);
    ([jiwei, shenji, weijian], gateway)
}

fn rejoin(device: &Device, gateway: &Gateway) -> Result<CommitBundle, MlsError> {
    let (channel, (group_info, tree)) = (gateway.channel, gateway.served());
    device.run(move |mls, tx, federation| mls.rejoin(tx, federation, channel, &group_info, &tree))
}

fn forget(device: &Device, gateway: &Gateway) {
    let channel = gateway.channel;
    device.run(move |mls, tx, _| mls.discard(tx, channel)).expect("forgotten");
}

/// Everybody is in the same state, and everybody is heard by everybody.
fn assert_together(gateway: &mut Gateway, members: &[&Device]) {
    let view = |device: &Device| device.view(gateway.channel).expect("a member");
    let first = view(members[0]);
    for member in members {
        let view = view(member);
        assert_eq!((view.epoch, view.epoch_authenticator), (first.epoch, first.epoch_authenticator));
        assert_eq!((view.members, view.head), (first.members.clone(), first.head));
        assert!(!view.has_pending_commit && !view.is_broken);
    }
    for speaker in members {
        gateway.say(speaker, b"heard");
        for member in members {
            let heard = gateway.feed(member);
            match member.uri == speaker.uri {
                true => assert_eq!(heard, [Processed::OwnMessage]),
                false => assert_eq!(body_from(&heard[0], speaker).as_deref(), Some(&b"heard"[..])),
            }
        }
    }
}

#[test]
fn who_lost_its_group_comes_back_with_its_key() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    assert!(matches!(rejoin(&shenji, &gateway), Err(MlsError::NotBroken)));
    forget(&shenji, &gateway);
    assert_eq!(shenji.view(gateway.channel), None);

    let outsider = Device::app("jiwei", "app-2");
    assert!(matches!(rejoin(&outsider, &gateway), Err(MlsError::Rejoin { .. })), "it has no leaf");
    let (channel, (group_info, mut tree)) = (gateway.channel, gateway.served());
    let last = tree.len() - 1;
    tree[last] ^= 1;
    let lie = shenji.run(move |mls, tx, federation| mls.rejoin(tx, federation, channel, &group_info, &tree));
    assert!(matches!(lie, Err(MlsError::Library { .. } | MlsError::Profile(_))), "{lie:?}");

    let bundle = rejoin(&shenji, &gateway).expect("a way back");
    assert!(matches!(rejoin(&shenji, &gateway), Err(MlsError::CommitPending)), "one at a time");
    // Two messages before it, which it will never read.
    gateway.say(&jiwei, b"missed");
    for member in [&jiwei, &weijian] {
        gateway.feed(member);
    }
    let summary = gateway.commit(&shenji, &bundle).expect("acceptable");
    assert!(summary.rejoined_from.is_some() && summary.added.is_empty() && summary.removed.is_empty());
    for member in [&jiwei, &weijian] {
        let seen = gateway.feed(member);
        let [Processed::Rejoined { device, own_commit: false, .. }] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!(*device, shenji.uri);
    }
    let seen = gateway.feed(&shenji);
    let [before @ .., Processed::Rejoined { own_commit: true, .. }] = &seen[..] else { panic!("{seen:?}") };
    assert!(before.iter().all(|one| *one == Processed::Hidden(Violation::ChannelBroken)), "{before:?}");
    assert_together(&mut gateway, &[&jiwei, &shenji, &weijian]);
}

#[test]
fn who_has_lost_the_group_comes_back_by_the_receipt_and_reads_nothing_before_it() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let channel = gateway.channel;
    forget(&shenji, &gateway);
    let bundle = rejoin(&shenji, &gateway).expect("a way back");
    gateway.say(&jiwei, b"missed");
    gateway.commit(&shenji, &bundle).expect("acceptable");
    let (accepted, head) = (gateway.log[gateway.log.len() - 1].clone(), gateway.heads[gateway.heads.len() - 1]);
    let came_back = |device: &Device, commit: &[u8]| {
        let (commit, place) = (commit.to_vec(), (head, accepted.gateway_time));
        device.run(move |mls, tx, _| mls.came_back(tx, channel, &commit, place)).expect("readable")
    };
    assert_eq!(came_back(&shenji, b"another commit"), None);
    assert_eq!(came_back(&jiwei, &bundle.commit), None, "who has a group waits for the log");
    assert_eq!(came_back(&shenji, &bundle.commit), Some(Epoch(2)));
    assert_eq!(came_back(&shenji, &bundle.commit), None, "once");
    assert_eq!(shenji.process(&accepted).expect("processed"), Processed::AlreadyProcessed);
    for member in [&jiwei, &weijian] {
        gateway.feed(member);
    }
    assert_together(&mut gateway, &[&jiwei, &shenji, &weijian]);
    // Its chain begins there: another's older head from before is not its to compare.
    forget(&weijian, &gateway);
    let bundle = rejoin(&weijian, &gateway).expect("a way back");
    gateway.commit(&weijian, &bundle).expect("acceptable");
    assert!(matches!(gateway.feed(&shenji)[..], [Processed::Rejoined { .. }]));
}

#[test]
fn what_lies_between_two_attempts_is_not_held_against_who_names_it_later() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let channel = gateway.channel;
    forget(&shenji, &gateway);
    rejoin(&shenji, &gateway).expect("a way back");
    // It comes too late: others have said something, and a commit names that.
    gateway.say(&jiwei, b"missed");
    gateway.feed(&jiwei);
    gateway.feed(&weijian);
    gateway.seat(&jiwei, &[&jiwei, &weijian], &[&Device::app("jiwei", "app-2")]);
    shenji.run(move |mls, tx, _| mls.discard_commit(tx, channel)).expect("refused");
    let bundle = rejoin(&shenji, &gateway).expect("a second one");
    gateway.commit(&shenji, &bundle).expect("acceptable");
    let place = (gateway.heads[gateway.heads.len() - 1], gateway.log[gateway.log.len() - 1].gateway_time);
    let by_receipt = shenji.run(move |mls, tx, _| mls.came_back(tx, channel, &bundle.commit, place));
    assert!(by_receipt.expect("readable").is_some());

    // Whoever comes back directly behind it names the head of the same GroupInfo, which shenji has never had.
    forget(&weijian, &gateway);
    let bundle = rejoin(&weijian, &gateway).expect("a way back");
    gateway.commit(&weijian, &bundle).expect("acceptable");
    let seen = gateway.feed(&shenji);
    assert!(matches!(&seen[..], [Processed::Rejoined { device, .. }] if *device == weijian.uri), "{seen:?}");
    gateway.feed(&weijian);
    gateway.feed(&jiwei);
    gateway.say(&weijian, b"heard");
    assert_eq!(body_from(&gateway.feed(&shenji)[0], &weijian).as_deref(), Some(&b"heard"[..]));
}

#[test]
fn a_receipt_with_another_chain_hash_shows_with_the_next_message() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let channel = gateway.channel;
    forget(&shenji, &gateway);
    let bundle = rejoin(&shenji, &gateway).expect("a way back");
    gateway.commit(&shenji, &bundle).expect("acceptable");
    let (time, mut head) = (gateway.log[gateway.log.len() - 1].gateway_time, gateway.heads[gateway.heads.len() - 1]);
    head.chain_hash.0[0] ^= 1;
    shenji.run(move |mls, tx, _| mls.came_back(tx, channel, &bundle.commit, (head, time))).expect("it cannot know");
    for member in [&jiwei, &weijian] {
        gateway.feed(member);
    }
    gateway.say(&jiwei, b"x");
    let mismatch = Violation::HeadMismatch { sequence: head.sequence };
    assert_eq!(gateway.feed(&shenji), [Processed::Hidden(mismatch)]);
}

#[test]
fn a_public_state_that_the_log_has_left_behind_is_refused() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let channel = gateway.channel;
    let mut left_behind = vec![gateway.served()];
    gateway.append(EventKind::Commit, &weijian.uri, b"not a commit".to_vec());
    for other in [&jiwei, &weijian] {
        gateway.feed(other);
        let bundle = rejoin(other, &gateway).expect("a way back");
        gateway.commit(other, &bundle).expect("acceptable");
        gateway.feed(other);
        left_behind.push(gateway.served());
    }
    // It judges nothing of that, and sees that it was there.
    let hidden = gateway.feed(&shenji);
    assert_eq!(hidden[1..], [const { Processed::Hidden(Violation::ChannelBroken) }; 2]);
    let (group_info, tree) = left_behind.pop().expect("the one that is served now");
    for (group_info, tree) in left_behind {
        let made = shenji.run(move |mls, tx, federation| mls.rejoin(tx, federation, channel, &group_info, &tree));
        let is_over = matches!(&made, Err(MlsError::OldGroupInfo { found, known }) if found < known);
        assert!(is_over, "{made:?}");
    }
    let made = shenji.run(move |mls, tx, federation| mls.rejoin(tx, federation, channel, &group_info, &tree));
    made.expect("a way back");
}

#[test]
fn a_way_back_that_lost_its_epoch_may_be_refused_before_or_after_the_log_says_so() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let channel = gateway.channel;
    forget(&shenji, &gateway);
    rejoin(&shenji, &gateway).expect("a way back");
    let package = Device::app("weijian", "app-2").key_package();
    let other = weijian.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[package]));
    gateway.commit(&weijian, &other.expect("a commit")).expect("it comes first");
    let seen = gateway.feed(&shenji);
    assert!(seen.iter().all(|one| *one == Processed::Hidden(Violation::ChannelBroken)), "{seen:?}");
    let discard = move |device: &Device| device.run(move |mls, tx, _| mls.discard_commit(tx, channel));
    discard(&shenji).expect("nothing is left of it");
    rejoin(&shenji, &gateway).expect("another way back");
    discard(&shenji).expect("refused before the log says so");
    let bundle = rejoin(&shenji, &gateway).expect("a third one");
    gateway.feed(&jiwei);
    gateway.feed(&weijian);
    gateway.commit(&shenji, &bundle).expect("acceptable");
    for member in [&jiwei, &shenji, &weijian] {
        gateway.feed(member);
    }
    assert_together(&mut gateway, &[&jiwei, &shenji, &weijian]);
}

#[test]
fn a_group_that_broke_for_all_is_walked_back_into_one_by_one() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    gateway.append(EventKind::Commit, &jiwei.uri, b"not a commit".to_vec());
    let members = [&jiwei, &shenji, &weijian];
    for member in members {
        assert!(matches!(gateway.feed(member)[..], [Processed::Hidden(Violation::Malformed)]));
        assert!(member.view(gateway.channel).expect("known").is_broken);
    }
    for (number, member) in members.into_iter().enumerate() {
        let bundle = rejoin(member, &gateway).expect("a way back");
        assert!(member.view(gateway.channel).expect("known").has_pending_commit);
        gateway.commit(member, &bundle).expect("acceptable");
        let place = (gateway.heads[gateway.heads.len() - 1], gateway.log[gateway.log.len() - 1].gateway_time);
        let (channel, commit) = (gateway.channel, bundle.commit.clone());
        let by_receipt = member.run(move |mls, tx, _| mls.came_back(tx, channel, &commit, place));
        assert_eq!(by_receipt.expect("readable"), None, "who has a log to read reads it");
        for (other, device) in members.into_iter().enumerate() {
            let seen = gateway.feed(device);
            match other <= number {
                true => assert!(matches!(seen[..], [Processed::Rejoined { .. }]), "{seen:?}"),
                false => assert_eq!(seen, [Processed::Hidden(Violation::ChannelBroken)]),
            }
        }
    }
    assert_together(&mut gateway, &members);
    // Back on its feet, a device commits and is removed like any other, and can come back a second time.
    forget(&shenji, &gateway);
    let bundle = rejoin(&shenji, &gateway).expect("a way back");
    gateway.commit(&shenji, &bundle).expect("acceptable");
    members.iter().for_each(|member| drop(gateway.feed(member)));
    assert_together(&mut gateway, &members);
}

#[test]
fn a_way_back_that_was_refused_or_overtaken_is_dropped() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let channel = gateway.channel;
    forget(&shenji, &gateway);
    rejoin(&shenji, &gateway).expect("a way back");
    shenji.run(move |mls, tx, _| mls.discard_commit(tx, channel)).expect("dropped");

    let late = rejoin(&shenji, &gateway).expect("a second one");
    let gone = weijian.uri.clone();
    let first = jiwei.run(move |mls, tx, federation| mls.remove(tx, federation, channel, &[gone])).expect("a commit");
    gateway.commit(&jiwei, &first).expect("acceptable");
    gateway.feed(&jiwei);
    assert!(gateway.commit(&shenji, &late).is_err(), "of an epoch that is over");
    gateway.feed(&shenji);
    let again = rejoin(&shenji, &gateway).expect("nothing waits any more");
    gateway.commit(&shenji, &again).expect("acceptable");
    for member in [&jiwei, &shenji] {
        gateway.feed(member);
    }
    assert_together(&mut gateway, &[&jiwei, &shenji]);
}

#[test]
fn who_was_leaving_is_told_to_ask_again() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let channel = gateway.channel;
    let proposal = weijian.run(move |mls, tx, _| mls.leave(tx, channel)).expect("a proposal");
    gateway.leave(&weijian, proposal).expect("acceptable");
    for member in [&jiwei, &weijian] {
        gateway.feed(member);
    }
    forget(&shenji, &gateway);
    let bundle = rejoin(&shenji, &gateway).expect("a way back");
    gateway.commit(&shenji, &bundle).expect("acceptable: it cannot commit what others have proposed");
    let seen = gateway.feed(&weijian);
    assert!(matches!(seen[..], [Processed::Rejoined { discarded_own_leave: true, .. }]), "{seen:?}");
    for member in [&jiwei, &shenji] {
        gateway.feed(member);
        assert!(member.view(channel).expect("a member").pending_leaves.is_empty());
    }
    assert_together(&mut gateway, &[&jiwei, &shenji, &weijian]);
    let proposal = weijian.run(move |mls, tx, _| mls.leave(tx, channel)).expect("asked again");
    gateway.leave(&weijian, proposal).expect("acceptable");
}

#[test]
fn members_judge_a_way_back_by_themselves() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let channel = gateway.channel;
    forget(&shenji, &gateway);
    let bundle = rejoin(&shenji, &gateway).expect("a way back");

    // Said to be another's: no member takes it, whatever the gateway says.
    let mismatch = gateway.commit(&weijian, &bundle).map(|_| ());
    assert_eq!(mismatch, Err(ProfileError::SenderMismatch));
    let event = gateway.append(EventKind::Commit, &weijian.uri, bundle.commit.clone());
    let seen = jiwei.process(&event).expect("processed");
    assert_eq!(seen, Processed::Hidden(Violation::InvalidCommit(ProfileError::SenderMismatch)));
    // In the name of the device that is asked: it never sent that.
    assert!(matches!(weijian.process(&event).expect("processed"), Processed::Hidden(Violation::NotSent)));

    // By one who is leaving.
    let ([jiwei, shenji, _], mut gateway) = {
        drop(gateway);
        three()
    };
    let channel_two = gateway.channel;
    assert_ne!(channel, channel_two);
    let proposal = shenji.run(move |mls, tx, _| mls.leave(tx, channel_two)).expect("a proposal");
    gateway.leave(&shenji, proposal).expect("acceptable");
    gateway.feed(&jiwei);
    forget(&shenji, &gateway);
    let bundle = rejoin(&shenji, &gateway).expect("the engine knows nothing of its own proposal any more");
    gateway.append(EventKind::Commit, &shenji.uri, bundle.commit);
    let fault = "who is leaving does not come back";
    let found = Processed::Hidden(Violation::InvalidCommit(ProfileError::InvalidCommit { fault }));
    assert_eq!(gateway.feed(&jiwei), [found]);
}
