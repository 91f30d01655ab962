//! A commit has broken the group for good: a member starts the next one, the others take their seats there, and nothing of the
//! log is skipped.

use std::time::Duration;

use lianxin_mls::{CommitBundle, Invitation, MlsError, Processed, StartBundle, Violation};
use lianxin_profile::ProfileError;
use lianxin_tlog::EventKind;
use lianxin_trust::Past;
use lianxin_types::{ChannelId, Clock as _, Digest, Incarnation, Sequence, SystemClock};

use crate::device::Device;
use crate::federation::{office, with_past};
use crate::gateway::{Gateway, body_from};

const HOUR: Duration = Duration::from_secs(3600);

/// Four members, of whom the last has broken the channel for the first three by the commit at the sequence given; the third has
/// not read it.
pub(crate) struct Broken {
    pub(crate) jiwei: Device,
    pub(crate) shenji: Device,
    pub(crate) away: Device,
    pub(crate) culprit: Device,
    pub(crate) gateway: Gateway,
    pub(crate) commit: Sequence,
}

pub(crate) fn broken() -> Broken {
    broken_with(Device::app("shenji", "app-2"))
}

fn broken_with(away: Device) -> Broken {
    let [jiwei, shenji, culprit] = ["jiwei", "shenji", "weijian"].map(|name| Device::app(name, "app-1"));
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji", "weijian"]);
    gateway.seat(&jiwei, &[&jiwei], &[&shenji, &away, &culprit]);
    gateway.say(&jiwei, b"before");
    for member in [&jiwei, &shenji, &culprit] {
        gateway.feed(member);
    }
    let commit = breaks(&culprit, &mut gateway);
    for member in [&jiwei, &shenji] {
        let seen = gateway.feed(member);
        assert!(matches!(seen[..], [Processed::Hidden(Violation::CannotProcess { .. })]), "{seen:?}");
    }
    Broken { jiwei, shenji, away, culprit, gateway, commit }
}

/// A commit that nobody can process, and a gateway cannot see it; gives its place.
fn breaks(culprit: &Device, gateway: &mut Gateway) -> Sequence {
    let (channel, package) = (gateway.channel, Device::app("weijian", "app-2").key_package());
    let invite = culprit.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[package]));
    let mut bundle = invite.expect("a commit");
    *bundle.commit.last_mut().expect("not empty") ^= 1;
    gateway.commit(culprit, &bundle).expect("a gateway cannot see it");
    gateway.log.last().expect("events").sequence
}

pub(crate) fn next(device: &Device, gateway: &Gateway) -> Result<StartBundle, MlsError> {
    let channel = gateway.channel;
    device.run(move |mls, tx, federation| mls.next_incarnation(tx, federation, channel))
}

pub(crate) fn seats(device: &Device, gateway: &mut Gateway, of: &[&Device]) -> (CommitBundle, Invitation) {
    let (channel, packages) = (gateway.channel, of.iter().map(|one| one.key_package()).collect::<Vec<_>>());
    let bundle = device.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &packages));
    let bundle = bundle.expect("seats");
    gateway.commit(device, &bundle).expect("acceptable");
    let invitation = gateway.invitation(&bundle);
    (bundle, invitation)
}

pub(crate) fn take_seat(device: &Device, invitation: &Invitation) -> Result<(), MlsError> {
    let invitation = invitation.clone();
    device.run(move |mls, tx, federation| mls.take_seat(tx, federation, &invitation))
}

/// Reads on as far as it goes; gives what it sees, and whether it stops because it has no seat.
pub(crate) fn read(device: &Device, gateway: &Gateway) -> (Vec<Processed>, bool) {
    let channel = gateway.channel;
    let head = device.run(move |mls, tx, _| mls.head(tx, channel)).expect("readable").expect("known");
    let mut seen = Vec::new();
    for event in gateway.log.iter().filter(|event| event.sequence > head.sequence) {
        match device.process(event) {
            Ok(processed) => seen.push(processed),
            Err(MlsError::NotSeated) => return (seen, true),
            Err(error) => panic!("{error}"),
        }
    }
    (seen, false)
}

#[test]
fn a_member_starts_the_next_group_and_the_others_are_seated_where_the_log_says() {
    let Broken { jiwei, shenji, away, culprit, mut gateway, commit } = broken();
    let channel = gateway.channel;
    let start = next(&shenji, &gateway).expect("broken");
    assert!(matches!(next(&shenji, &gateway), Err(MlsError::CommitPending)), "one at a time");
    assert!(shenji.view(channel).expect("a member").has_pending_commit);
    let (group_info, tree) = gateway.served();
    gateway.restart(&shenji, &start, (&culprit, commit)).expect("acceptable");
    let begun = |own_start| Processed::Incarnation {
        incarnation: Incarnation(1),
        by: shenji.uri.clone(),
        culprit: Some(culprit.uri.clone()),
        own_start,
    };
    assert_eq!(gateway.feed(&shenji), [begun(true)]);
    let unseated = shenji.run(move |mls, tx, _| mls.unseated(tx, channel)).expect("readable");
    assert_eq!(unseated, [jiwei.uri.clone(), away.uri.clone()], "everybody but the culprit and whom it brought in");
    assert_eq!(gateway.feed(&jiwei), [begun(false)]);
    // An answer that comes late offers the way back into the group that has been left behind.
    let back = jiwei.run(move |mls, tx, federation| mls.rejoin(tx, federation, channel, &group_info, &tree));
    assert!(matches!(back, Err(MlsError::NotBroken)), "{back:?}");

    // Between the start and the seat the log goes on, unread. What the starter said now, nobody could ever read: it waits.
    assert!(matches!(shenji.encrypt(channel, b"alone"), Err(MlsError::SeatsPending)));
    gateway.append(EventKind::Report, &jiwei.uri, b"late".to_vec());
    let (_, invitation) = seats(&shenji, &mut gateway, &[&jiwei, &away]);
    gateway.feed(&shenji);
    gateway.say(&shenji, b"together");
    assert_eq!(read(&jiwei, &gateway), (vec![Processed::Hidden(Violation::ChannelBroken)], true), "up to the commit");
    assert!(matches!(jiwei.encrypt(channel, b"x"), Err(MlsError::Broken)), "it waits");
    take_seat(&jiwei, &invitation).expect("its seat");
    let (seen, stopped) = read(&jiwei, &gateway);
    let [Processed::Seated { epoch }, message] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((epoch.0, stopped), (1, false));
    assert_eq!(body_from(message, &shenji).as_deref(), Some(&b"together"[..]));

    // Who was away reads first what it had not read, then finds its group broken and followed, and is seated.
    let (seen, stopped) = read(&away, &gateway);
    let [message, Processed::Hidden(Violation::CannotProcess { .. }), restarted, _] = &seen[..] else {
        panic!("{seen:?}")
    };
    assert_eq!(body_from(message, &jiwei).as_deref(), Some(&b"before"[..]));
    assert_eq!((restarted, stopped), (&begun(false), true));
    take_seat(&away, &invitation).expect("its seat");
    read(&away, &gateway);

    gateway.say(&jiwei, b"heard");
    let views = [&jiwei, &shenji, &away].map(|member| {
        gateway.feed(member);
        member.view(channel).expect("a member")
    });
    for view in &views {
        assert_eq!((view.epoch_authenticator, view.head), (views[0].epoch_authenticator, views[0].head));
        assert_eq!(view.members, [shenji.uri.clone(), jiwei.uri.clone(), away.uri.clone()]);
        assert!(!view.is_broken && !view.is_awaited && !view.has_pending_commit);
    }
    let unseated = shenji.run(move |mls, tx, _| mls.unseated(tx, channel)).expect("readable");
    assert_eq!(unseated, []);
}

#[test]
fn who_is_in_order_or_to_blame_starts_nothing() {
    let Broken { jiwei, culprit, gateway, commit, .. } = broken();
    assert!(matches!(next(&culprit, &gateway), Err(MlsError::NotBroken)), "its own group is in order");
    let stranger = Device::app("jiwei", "app-2");
    assert!(matches!(next(&stranger, &gateway), Err(MlsError::NotMember)));
    let channel = gateway.channel;
    let start = next(&jiwei, &gateway).expect("broken");
    jiwei.run(move |mls, tx, _| mls.discard_commit(tx, channel)).expect("discarded");
    assert!(!jiwei.view(channel).expect("a member").has_pending_commit);
    let again = next(&jiwei, &gateway).expect("after a refusal, another");
    assert_ne!(Digest::sha256(&again.group_info), Digest::sha256(&start.group_info));
    assert!(commit > Sequence(0));
}

#[test]
fn a_start_that_may_not_be_is_hidden_and_the_group_stays() {
    let Broken { jiwei, shenji, culprit, mut gateway, .. } = broken();
    let stranger = Device::app("jiwei", "app-2");
    let start = next(&shenji, &gateway).expect("broken").group_info;
    let mut forged = start.clone();
    *forged.last_mut().expect("not empty") ^= 1;
    let first = gateway.log[0].mls.clone();
    let hidden = |fault| Violation::InvalidStart(ProfileError::InvalidGroupInfo { fault });
    let stolen = hidden("its signature does not verify");
    let cases = [
        ("another's signature", &jiwei, start.clone(), stolen.clone()),
        ("changed", &shenji, forged, stolen),
        ("a stranger's", &stranger, start.clone(), Violation::InvalidStart(ProfileError::SenderMismatch)),
        ("the culprit's", &culprit, start, Violation::InvalidStart(ProfileError::SenderMismatch)),
        ("the first again", &jiwei, first, hidden("it is not the next incarnation")),
    ];
    for (what, sender, mls, violation) in cases {
        gateway.append(EventKind::Start, &sender.uri, mls);
        assert_eq!(gateway.feed(&jiwei), [Processed::Hidden(violation)], "{what}");
        let view = jiwei.view(gateway.channel).expect("a member");
        assert!(view.is_broken && !view.is_awaited, "{what}");
    }
    // One that was made behind another log.
    let channel = gateway.channel;
    shenji.run(move |mls, tx, _| mls.discard_commit(tx, channel)).expect("discarded");
    let fork = gateway.append(EventKind::Application, &culprit.uri, b"for one alone".to_vec()).sequence;
    gateway.feed(&shenji);
    gateway.log.pop();
    gateway.heads.pop();
    gateway.append(EventKind::Application, &culprit.uri, b"for the others".to_vec());
    let late = next(&shenji, &gateway).expect("broken");
    gateway.append(EventKind::Start, &shenji.uri, late.group_info);
    let seen = gateway.feed(&jiwei);
    assert_eq!(seen.last(), Some(&Processed::Hidden(Violation::HeadMismatch { sequence: fork })), "{seen:?}");
}

#[test]
fn another_members_start_takes_the_place_of_the_own_one() {
    let Broken { jiwei, shenji, culprit, mut gateway, commit, .. } = broken();
    let (mine, channel) = (next(&jiwei, &gateway).expect("broken"), gateway.channel);
    let theirs = next(&shenji, &gateway).expect("broken");
    gateway.restart(&shenji, &theirs, (&culprit, commit)).expect("acceptable");
    assert!(matches!(gateway.feed(&jiwei)[..], [Processed::Incarnation { own_start: false, .. }]));
    assert!(!jiwei.view(channel).expect("a member").has_pending_commit, "the own one is forgotten");
    assert_ne!(mine.group_info, theirs.group_info);
}

#[test]
fn a_seat_is_only_where_the_log_and_the_group_before_say() {
    let Broken { jiwei, shenji, away, culprit, mut gateway, commit } = broken();
    let start = next(&shenji, &gateway).expect("broken");
    let newcomer = Device::app("jiwei", "app-2");
    let early = Invitation {
        head: gateway.heads[2],
        ..gateway.invitation(&CommitBundle { commit: vec![], welcome: vec![], group_info: vec![] })
    };
    assert!(matches!(take_seat(&jiwei, &early), Err(MlsError::NotBroken)), "no group follows yet");
    gateway.restart(&shenji, &start, (&culprit, commit)).expect("acceptable");
    gateway.feed(&shenji);
    gateway.feed(&jiwei);
    gateway.feed(&away);
    assert!(matches!(take_seat(&jiwei, &early), Err(MlsError::AlreadyMember)), "older than what was read");

    let (_, invitation) = seats(&shenji, &mut gateway, &[&newcomer]);
    gateway.feed(&shenji);
    crate::gateway::join(&newcomer, &invitation).expect("a join");
    // Somebody who was not in the group before invites: that is for the application to judge.
    let (_, by_stranger) = seats(&newcomer, &mut gateway, &[&jiwei]);
    let refused = take_seat(&jiwei, &by_stranger);
    let fault_of = |error| if let Err(MlsError::Invitation { fault }) = error { Some(fault) } else { None };
    assert_eq!(fault_of(refused), Some("the inviter was not in the group before"));
    gateway.feed(&newcomer);
    gateway.feed(&shenji);

    // An invitation that says of the log what the log does not say.
    let (_, good) = seats(&shenji, &mut gateway, &[&away]);
    let lie = Invitation { head: lianxin_tlog::Head { chain_hash: Digest([9; 32]), ..good.head }, ..good };
    take_seat(&away, &lie).expect("it shows when the log has come there");
    let (seen, stopped) = read(&away, &gateway);
    let sequence = lie.head.sequence;
    assert_eq!((seen.last(), stopped), (Some(&Processed::Hidden(Violation::HeadMismatch { sequence })), false));
    assert!(away.view(gateway.channel).expect("a member").is_awaited, "and it waits on");
}

#[test]
fn nobody_waits_for_who_cannot_be_seated_now_and_it_is_tried_again() {
    let Broken { jiwei, shenji, away, culprit, mut gateway, commit } = broken();
    let channel = gateway.channel;
    let start = next(&shenji, &gateway).expect("broken");
    gateway.restart(&shenji, &start, (&culprit, commit)).expect("acceptable");
    gateway.feed(&shenji);
    seats(&shenji, &mut gateway, &[&jiwei]);
    gateway.feed(&shenji);
    assert!(matches!(shenji.encrypt(channel, b"x"), Err(MlsError::SeatsPending)), "one is still to be seated");
    let late = [away.uri.clone()];
    shenji.run(move |mls, tx, _| mls.defer_seats(tx, channel, &late, &[])).expect("stored");
    shenji.encrypt(channel, b"x").expect("nobody waits for it");
    let unseated = || shenji.run(move |mls, tx, _| mls.unseated(tx, channel)).expect("readable");
    assert_eq!(unseated(), std::slice::from_ref(&away.uri));
    let never = [away.uri.clone()];
    shenji.run(move |mls, tx, _| mls.defer_seats(tx, channel, &[], &never)).expect("stored");
    assert_eq!(unseated(), []);
}

/// What the event of another group says.
fn began(by: &Device, number: u32, culprit: Option<&Device>, own_start: bool) -> Processed {
    let (by, culprit) = (by.uri.clone(), culprit.map(|one| one.uri.clone()));
    Processed::Incarnation { incarnation: Incarnation(number), by, culprit, own_start }
}

#[test]
fn where_nobody_is_seated_an_awaited_member_starts_another_group_and_the_first_starter_is_seated_there() {
    let Broken { jiwei, shenji, away, culprit, mut gateway, commit } = broken();
    let channel = gateway.channel;
    let start = next(&shenji, &gateway).expect("broken");
    let first = gateway.restart(&shenji, &start, (&culprit, commit)).expect("acceptable").sequence;
    gateway.feed(&shenji);
    // Its seats never leave; here they are staged, so that something waits there, too.
    let package = jiwei.key_package();
    let staged = shenji.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[package]));
    staged.expect("staged");

    assert_eq!(gateway.feed(&jiwei), [began(&shenji, 1, Some(&culprit), false)]);
    // The log goes on without a commit: that is read, for nobody can have been seated.
    gateway.append(EventKind::Report, &jiwei.uri, b"late".to_vec());
    assert_eq!(read(&jiwei, &gateway), (vec![Processed::Hidden(Violation::ChannelBroken)], false));
    let instead = next(&jiwei, &gateway).expect("awaited");
    assert!(matches!(next(&jiwei, &gateway), Err(MlsError::CommitPending)), "one at a time");
    gateway.start_instead(&jiwei, &instead, first).expect("acceptable");
    assert_eq!(gateway.feed(&jiwei), [began(&jiwei, 2, Some(&culprit), true)]);
    let unseated = jiwei.run(move |mls, tx, _| mls.unseated(tx, channel)).expect("readable");
    assert_eq!(unseated, [shenji.uri.clone(), away.uri.clone()], "who was slow is no culprit");

    // Who was slow finds its group followed, and whatever waited in it void.
    let (seen, stopped) = read(&shenji, &gateway);
    assert_eq!((seen.last(), stopped), (Some(&began(&jiwei, 2, None, false)), false), "{seen:?}");
    assert!(matches!(shenji.encrypt(channel, b"x"), Err(MlsError::Broken)), "it waits");
    // Who was away reads of both starts at once.
    let (seen, stopped) = read(&away, &gateway);
    let both = [began(&shenji, 1, Some(&culprit), false), began(&jiwei, 2, Some(&culprit), false)];
    assert!(both.iter().all(|one| seen.contains(one)) && !stopped, "{seen:?}");

    let (_, invitation) = seats(&jiwei, &mut gateway, &[&shenji, &away]);
    gateway.feed(&jiwei);
    gateway.say(&jiwei, b"together");
    for member in [&shenji, &away] {
        assert_eq!(read(member, &gateway), (vec![], true), "not without its seat");
        take_seat(member, &invitation).expect("its seat");
        let (seen, _) = read(member, &gateway);
        let [Processed::Seated { .. }, message] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!(body_from(message, &jiwei).as_deref(), Some(&b"together"[..]));
    }
    gateway.feed(&jiwei);
    let views = [&jiwei, &shenji, &away].map(|member| member.view(channel).expect("a member"));
    for view in &views {
        assert_eq!((view.epoch_authenticator, view.head), (views[0].epoch_authenticator, views[0].head));
        assert_eq!(view.members, [jiwei.uri.clone(), shenji.uri.clone(), away.uri.clone()]);
        assert!(!view.is_broken && !view.is_awaited && !view.has_pending_commit);
    }
    // Now that others sit there, nobody starts another in its place.
    let late = away.run(move |mls, tx, federation| mls.next_incarnation(tx, federation, channel));
    assert!(matches!(late, Err(MlsError::NotBroken)), "{late:?}");
}

/// A member for whom the commit was in order is told who made it, and carries the channel on like everybody else.
#[test]
fn for_whom_the_commit_was_in_order_knows_who_made_it_and_can_start_another_group() {
    let [jiwei, mut shenji, weijian] = ["jiwei", "shenji", "weijian"].map(|name| Device::app(name, "app-1"));
    let (uri, identity, without) = office().revoked_at("named-by-one", SystemClock.now());
    let newcomer = Device::with(uri, identity);
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji", "weijian"]);
    gateway.seat(&jiwei, &[&jiwei], &[&shenji, &weijian]);
    let (channel, package) = (gateway.channel, newcomer.key_package());
    let invite = weijian.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[package]));
    gateway.commit(&weijian, &invite.expect("a commit")).expect("in order");
    let commit = gateway.log.last().expect("events").sequence;
    let seen = gateway.feed(&jiwei);
    assert!(matches!(&seen[..], [Processed::Membership { .. }]), "{seen:?}");
    // One has known for an hour that whom the commit adds is revoked; the others have not heard of it.
    let known = Past::default().given_out(without.revocation_lists(), SystemClock.now().minus(HOUR));
    let known = std::mem::replace(&mut shenji.federation, with_past(&without, known));
    let seen = gateway.feed(&shenji);
    assert!(matches!(&seen[..], [Processed::Hidden(Violation::InvalidCommit(_))]), "{seen:?}");
    shenji.federation = known;

    let start = next(&shenji, &gateway).expect("broken");
    let first = gateway.restart(&shenji, &start, (&weijian, commit)).expect("acceptable").sequence;
    assert_eq!(gateway.feed(&jiwei), [began(&shenji, 1, Some(&weijian), false)]);
    let instead = next(&jiwei, &gateway).expect("awaited");
    gateway.start_instead(&jiwei, &instead, first).expect("acceptable");
    assert_eq!(gateway.feed(&jiwei), [began(&jiwei, 2, Some(&weijian), true)]);
    let unseated = jiwei.run(move |mls, tx, _| mls.unseated(tx, channel)).expect("readable");
    assert!(unseated.contains(&shenji.uri) && !unseated.contains(&weijian.uri), "{unseated:?}");
}

/// A start by an awaited device with another key than it had is refused by everybody who was there, and keeps nobody from
/// starting the one after it: the gateway, which does not know the keys, has counted it.
#[test]
fn a_start_with_another_key_is_nobodys_group_and_the_next_one_goes_on() {
    let (uri, identity, other) = office().set_up_anew("with-two-keys");
    let Broken { jiwei, shenji, away, culprit, mut gateway, commit } = broken_with(Device::with(uri, identity));
    let start = next(&shenji, &gateway).expect("broken");
    let first = gateway.restart(&shenji, &start, (&culprit, commit)).expect("acceptable").sequence;
    read(&jiwei, &gateway);
    read(&away, &gateway);
    let mut stranger = away;
    stranger.identity = other;
    let instead = next(&stranger, &gateway).expect("awaited");
    let second = gateway.start_instead(&stranger, &instead, first).expect("a gateway does not know the keys").sequence;
    let seen = gateway.feed(&jiwei);
    assert!(
        matches!(&seen[..], [Processed::Hidden(Violation::InvalidStart(ProfileError::InvalidGroupInfo { .. }))]),
        "{seen:?}"
    );
    let again = next(&jiwei, &gateway).expect("awaited still");
    gateway.start_instead(&jiwei, &again, second).expect("the one behind it");
    assert_eq!(gateway.feed(&jiwei), [began(&jiwei, 3, Some(&culprit), true)]);

    // Who started the first one has lost it to that start all the same, and waits like the others.
    let (seen, stopped) = read(&shenji, &gateway);
    let [_, Processed::Hidden(Violation::InvalidStart(_)), third] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((third, stopped), (&began(&jiwei, 3, None, false), false));
    let (_, invitation) = seats(&jiwei, &mut gateway, &[&shenji]);
    gateway.feed(&jiwei);
    take_seat(&shenji, &invitation).expect("its seat");
    let (seen, _) = read(&shenji, &gateway);
    assert!(matches!(seen[..], [Processed::Seated { .. }]), "{seen:?}");
}

/// A device that cannot follow for a reason of its own takes nobody for the culprit but whom the log names.
#[test]
fn who_is_behind_by_itself_follows_a_start_by_the_last_committer_that_it_knew() {
    let [jiwei, shenji, culprit] = ["jiwei", "shenji", "weijian"].map(|name| Device::app(name, "app-1"));
    let behind = Device::app("shenji", "app-2");
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji", "weijian"]);
    gateway.seat(&jiwei, &[&jiwei], &[&shenji, &behind, &culprit]);
    // It is put back to before a commit of its own.
    let copy = behind.copy();
    seats(&behind, &mut gateway, &[&Device::app("jiwei", "app-2")]);
    for member in [&jiwei, &shenji, &culprit] {
        gateway.feed(member);
    }
    behind.restore(&copy);
    let commit = breaks(&culprit, &mut gateway);
    gateway.feed(&jiwei);
    let start = next(&jiwei, &gateway).expect("broken");
    gateway.restart(&jiwei, &start, (&culprit, commit)).expect("acceptable");
    let (seen, stopped) = read(&behind, &gateway);
    let [Processed::Hidden(Violation::OlderState), Processed::Hidden(Violation::ChannelBroken), started] = &seen[..]
    else {
        panic!("{seen:?}")
    };
    assert_eq!((started, stopped), (&began(&jiwei, 1, Some(&culprit), false), false));
}

/// One member refuses a commit that is in order for the others, and then all of them are broken by another one.
#[test]
fn who_was_broken_before_the_others_leaves_behind_whom_they_do() {
    let [jiwei, mut shenji, weijian] = ["jiwei", "shenji", "weijian"].map(|name| Device::app(name, "app-1"));
    let culprit = Device::app("shenji", "app-2");
    let (uri, identity, without) = office().revoked_at("refused-by-one", SystemClock.now());
    let newcomer = Device::with(uri, identity);
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji", "weijian"]);
    gateway.seat(&jiwei, &[&jiwei], &[&shenji, &weijian, &culprit]);
    seats(&weijian, &mut gateway, &[&newcomer]);
    let known = Past::default().given_out(without.revocation_lists(), SystemClock.now().minus(HOUR));
    shenji.federation = with_past(&without, known);
    gateway.feed(&jiwei);
    gateway.feed(&culprit);
    let seen = gateway.feed(&shenji);
    assert!(matches!(&seen[..], [Processed::Hidden(Violation::InvalidCommit(_))]), "{seen:?}");
    let commit = breaks(&culprit, &mut gateway);
    gateway.feed(&jiwei);
    let start = next(&jiwei, &gateway).expect("broken");
    gateway.restart(&jiwei, &start, (&culprit, commit)).expect("acceptable");
    assert_eq!(gateway.feed(&shenji).last(), Some(&began(&jiwei, 1, Some(&culprit), false)));
}

/// A starter whose own group breaks before it has seated everybody comes back into it, and the others are not forgotten.
#[test]
fn who_comes_back_into_the_group_that_it_has_started_seats_those_who_are_left() {
    comes_back_and_seats(|_, _| ());
    // Also whom it could not seat before, and for whom nobody waits.
    comes_back_and_seats(|shenji, away| {
        let (channel, late) = (shenji.1, away.uri.clone());
        shenji.0.run(move |mls, tx, _| mls.defer_seats(tx, channel, &[late], &[])).expect("deferred");
    });
}

fn comes_back_and_seats(meanwhile: impl FnOnce((&Device, ChannelId), &Device)) {
    let Broken { jiwei, shenji, away, culprit, mut gateway, commit } = broken();
    let channel = gateway.channel;
    let start = next(&shenji, &gateway).expect("broken");
    gateway.restart(&shenji, &start, (&culprit, commit)).expect("acceptable");
    gateway.feed(&shenji);
    read(&jiwei, &gateway);
    let (_, invitation) = seats(&shenji, &mut gateway, &[&jiwei]);
    gateway.feed(&shenji);
    take_seat(&jiwei, &invitation).expect("its seat");
    read(&jiwei, &gateway);
    meanwhile((&shenji, channel), &away);

    let package = Device::app("weijian", "app-2").key_package();
    let invite = jiwei.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[package]));
    let mut bundle = invite.expect("a commit");
    *bundle.commit.last_mut().expect("not empty") ^= 1;
    gateway.commit(&jiwei, &bundle).expect("a gateway cannot see it");
    let seen = gateway.feed(&shenji);
    assert!(matches!(seen[..], [Processed::Hidden(Violation::CannotProcess { .. })]), "{seen:?}");
    let (group_info, tree) = gateway.served();
    let back = shenji.run(move |mls, tx, federation| mls.rejoin(tx, federation, channel, &group_info, &tree));
    gateway.commit(&shenji, &back.expect("a way back")).expect("acceptable");
    assert!(matches!(gateway.feed(&shenji)[..], [Processed::Rejoined { own_commit: true, .. }]));
    let unseated = shenji.run(move |mls, tx, _| mls.unseated(tx, channel)).expect("readable");
    assert_eq!(unseated, std::slice::from_ref(&away.uri));
    let (_, invitation) = seats(&shenji, &mut gateway, &[&away]);
    gateway.feed(&shenji);
    read(&away, &gateway);
    take_seat(&away, &invitation).expect("its seat");
    let (seen, _) = read(&away, &gateway);
    assert!(matches!(seen.last(), Some(Processed::Seated { .. })), "{seen:?}");
}
