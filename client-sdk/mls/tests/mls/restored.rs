//! A state folder is put back from an older copy: what the device has sent since is in the log, and it knows nothing of it. It never
//! sends with keys that it may have used, follows as far as it can, and comes back where it cannot.

use lianxin_mls::{MlsError, Processed, Renewal, Violation};

use crate::device::Device;
use crate::dishonest::three;
use crate::gateway::{Gateway, body_from, join};
use crate::rules::two;

fn update(device: &Device, gateway: &mut Gateway) {
    let channel = gateway.channel;
    let bundle = device.run(move |mls, tx, federation| mls.commit_pending(tx, federation, channel));
    gateway.commit(device, &bundle.expect("something to renew")).expect("acceptable");
}

fn come_back(device: &Device, gateway: &mut Gateway) {
    let (channel, (group_info, tree)) = (gateway.channel, gateway.served());
    let bundle = device.run(move |mls, tx, federation| mls.rejoin(tx, federation, channel, &group_info, &tree));
    gateway.commit(device, &bundle.expect("a way back")).expect("acceptable");
}

fn renewal(device: &Device, gateway: &Gateway) -> Renewal {
    let channel = gateway.channel;
    device.run(move |mls, tx, federation| mls.renewal(tx, federation, channel)).expect("readable")
}

#[test]
fn who_does_not_remember_its_own_messages_makes_new_keys_before_it_sends() {
    let (jiwei, shenji, mut gateway) = two();
    let copy = shenji.copy();
    for body in ["一", "二"] {
        gateway.say(&shenji, body.as_bytes());
    }
    gateway.say(&jiwei, "三".as_bytes());
    gateway.feed(&shenji);
    gateway.feed(&jiwei);
    assert_eq!(renewal(&shenji, &gateway), Renewal::Nothing);

    shenji.restore(&copy);
    let seen = gateway.feed(&shenji);
    let forgotten = [true, false].map(|is_first| Processed::NotRemembered { is_first });
    assert_eq!(seen[..2], forgotten);
    assert_eq!(body_from(&seen[2], &jiwei).as_deref(), Some("三".as_bytes()), "it follows all the same");
    let channel = gateway.channel;
    assert!(matches!(shenji.encrypt(channel, b"x"), Err(MlsError::OlderState)));
    assert_eq!(renewal(&shenji, &gateway), Renewal::Keys);

    // Another's commit makes no keys for the own leaf.
    update_by_seat(&jiwei, &[&jiwei, &shenji], &mut gateway);
    assert!(matches!(shenji.encrypt(channel, b"x"), Err(MlsError::OlderState)));
    update(&shenji, &mut gateway);
    gateway.feed(&shenji);
    gateway.feed(&jiwei);
    gateway.say(&shenji, "四".as_bytes());
    assert_eq!(body_from(&gateway.feed(&jiwei)[0], &shenji).as_deref(), Some("四".as_bytes()));
    assert_eq!(gateway.feed(&shenji), [Processed::OwnMessage]);
    assert_eq!(renewal(&shenji, &gateway), Renewal::Nothing);
}

/// `inviter` lets somebody in; `members` read it.
fn update_by_seat(inviter: &Device, members: &[&Device], gateway: &mut Gateway) {
    gateway.seat(inviter, members, &[&Device::app("jiwei", "app-2")]);
}

#[test]
fn what_was_on_its_way_when_the_copy_was_made_is_remembered() {
    let (_, shenji, mut gateway) = two();
    let sent = shenji.encrypt(gateway.channel, "在途".as_bytes()).expect("encrypted");
    let copy = shenji.copy();
    gateway.append(lianxin_tlog::EventKind::Application, &shenji.uri, sent.mls);
    gateway.feed(&shenji);
    shenji.restore(&copy);
    assert_eq!(gateway.feed(&shenji), [Processed::OwnMessage]);
    assert_eq!(renewal(&shenji, &gateway), Renewal::Nothing);
}

#[test]
fn who_does_not_remember_its_own_commit_comes_back_and_reports_nobody() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let copy = shenji.copy();
    gateway.seat(&shenji, &[&jiwei, &shenji, &weijian], &[&Device::app("shenji", "app-2")]);
    gateway.say(&jiwei, "后来".as_bytes());
    gateway.feed(&shenji);

    shenji.restore(&copy);
    let (channel, commit) = (gateway.channel, gateway.log.len() - 2);
    let seen = gateway.feed(&shenji);
    assert_eq!(seen, [Violation::OlderState, Violation::ChannelBroken].map(Processed::Hidden));
    let event = gateway.log[commit].clone();
    let report = shenji.run(move |mls, tx, _| mls.report(tx, &event, &Violation::OlderState));
    assert_eq!(report.expect("readable"), None);
    let start = shenji.run(move |mls, tx, federation| mls.next_incarnation(tx, federation, channel));
    assert!(matches!(start, Err(MlsError::NotBroken)), "the channel is in order");
    come_back(&shenji, &mut gateway);
    for device in [&shenji, &jiwei, &weijian] {
        let seen = gateway.feed(device);
        assert!(matches!(seen.last(), Some(Processed::Rejoined { device, .. }) if *device == shenji.uri), "{seen:?}");
    }
    gateway.say(&shenji, "回来".as_bytes());
    assert_eq!(body_from(&gateway.feed(&weijian)[0], &shenji).as_deref(), Some("回来".as_bytes()));
}

#[test]
fn who_does_not_remember_its_own_way_back_comes_back_again() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let copy = shenji.copy();
    let channel = gateway.channel;
    shenji.run(move |mls, tx, _| mls.discard(tx, channel)).expect("forgotten");
    come_back(&shenji, &mut gateway);
    for device in [&jiwei, &weijian] {
        gateway.feed(device);
    }
    shenji.restore(&copy);
    assert_eq!(gateway.feed(&shenji), [Processed::Hidden(Violation::OlderState)]);
    come_back(&shenji, &mut gateway);
    for device in [&jiwei, &weijian, &shenji] {
        let seen = gateway.feed(device);
        assert!(matches!(&seen[..], [Processed::Rejoined { device, .. }] if *device == shenji.uri), "{seen:?}");
    }
}

#[test]
fn an_invitation_for_a_key_package_that_is_not_there_brings_in_all_the_same() {
    let (jiwei, shenji) = (Device::app("jiwei", "app-1"), Device::app("shenji", "app-1"));
    shenji.run(|_, _, _| Ok(())).expect("a state");
    let copy = shenji.copy();
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji"]);
    let (channel, packages) = (gateway.channel, vec![shenji.key_package()]);
    let bundle = jiwei.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &packages));
    let bundle = bundle.expect("an invitation");
    gateway.commit(&jiwei, &bundle).expect("acceptable");
    gateway.feed(&jiwei);
    shenji.restore(&copy);
    assert!(matches!(join(&shenji, &gateway.invitation(&bundle)), Err(MlsError::KeyPackageGone)));
    come_back(&shenji, &mut gateway);
    let seen = gateway.feed(&shenji);
    assert!(matches!(seen.last(), Some(Processed::Rejoined { own_commit: true, .. })), "{seen:?}");
    assert!(matches!(&gateway.feed(&jiwei)[..], [Processed::Rejoined { .. }]));
    gateway.say(&jiwei, "欢迎".as_bytes());
    assert_eq!(body_from(&gateway.feed(&shenji)[0], &jiwei).as_deref(), Some("欢迎".as_bytes()));
}
