//! The keys of a leaf grow old: they are renewed soon after joining, on a schedule, and before the first message of who came by
//! a last resort.

use std::time::Duration;

use lianxin_mls::{KEY_PACKAGE_KEPT, LAST_RESORT_KEPT, LeafCare, MlsError, NewKeyPackages, Processed, Renewal};
use lianxin_profile::check_key_package;
use lianxin_types::{Clock as _, SystemClock};
use openmls_rust_crypto::RustCrypto;

use crate::device::Device;
use crate::federation::office;
use crate::gateway::{Gateway, body_from, join};
use crate::rules::two;

fn renewal(device: &Device, gateway: &Gateway) -> Renewal {
    let channel = gateway.channel;
    let found = device.run(move |mls, tx, federation| {
        let (renewal, is_due) = (mls.renewal(tx, federation, channel)?, mls.is_leaf_due(tx, channel)?);
        assert_eq!(renewal == Renewal::Keys, is_due);
        Ok(renewal)
    });
    found.expect("a readable state")
}

fn commit(device: &Device, gateway: &mut Gateway) {
    let channel = gateway.channel;
    let bundle = device.run(move |mls, tx, federation| mls.commit_pending(tx, federation, channel));
    gateway.commit(device, &bundle.expect("something to renew")).expect("acceptable");
}

#[test]
fn a_leaf_is_renewed_soon_after_joining_and_then_every_week() {
    let (mut jiwei, mut shenji, mut gateway) = two();
    let LeafCare { after_joining, every } = LeafCare::default();
    // Another's commit is no renewal of the own leaf, and a device comes up to a quarter later than the schedule says.
    gateway.seat(&jiwei, &[&jiwei, &shenji], &[&Device::app("jiwei", "app-2")]);
    for (ahead, expect) in [
        (Duration::ZERO, Renewal::Nothing),
        (after_joining.mul_f64(0.9), Renewal::Nothing),
        (after_joining.mul_f64(1.25), Renewal::Keys),
    ] {
        shenji.ahead = ahead;
        assert_eq!(renewal(&shenji, &gateway), expect, "{ahead:?} after joining");
    }
    jiwei.ahead = shenji.ahead;
    assert_eq!(renewal(&jiwei, &gateway), Renewal::Nothing, "who has begun the channel has keys of its own");
    commit(&shenji, &mut gateway);
    for member in [&jiwei, &shenji] {
        let seen = gateway.feed(member);
        assert!(matches!(&seen[..], [Processed::Membership { added, .. }] if added.is_empty()), "{seen:?}");
    }
    for (ahead, expect) in
        [(every.mul_f64(0.9), Renewal::Nothing), (every.mul_f64(1.25) + after_joining * 2, Renewal::Keys)]
    {
        for device in [&mut jiwei, &mut shenji] {
            device.ahead = ahead;
            assert_eq!(renewal(device, &gateway), expect, "{ahead:?} later");
        }
    }
    commit(&jiwei, &mut gateway);
    gateway.feed(&shenji);
    assert_eq!(renewal(&shenji, &gateway), Renewal::Keys, "another's commit is not its own");
}

fn last_resort(device: &Device) -> NewKeyPackages {
    device.run(|mls, tx, federation| mls.key_packages(tx, federation, 0, true)).expect("a last resort")
}

fn is_used(device: &Device) -> bool {
    device.run(|mls, tx, _| mls.is_last_resort_used(tx)).expect("readable")
}

/// `device` is invited into a new channel of `jiwei`'s by this key package, and tries to join.
fn invite_by(jiwei: &Device, device: &Device, package: &[u8]) -> (Gateway, Result<(), MlsError>) {
    let mut gateway = Gateway::start(jiwei, &["jiwei", "shenji"]);
    let (channel, package) = (gateway.channel, package.to_vec());
    let bundle = jiwei.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[package]));
    let bundle = bundle.expect("an invitation");
    gateway.commit(jiwei, &bundle).expect("acceptable");
    gateway.feed(jiwei);
    let joined = join(device, &gateway.invitation(&bundle));
    (gateway, joined)
}

#[test]
fn who_came_by_a_last_resort_commits_before_it_sends_and_makes_a_new_one() {
    let (jiwei, mut shenji) = (Device::app("jiwei", "app-1"), Device::app("shenji", "app-1"));
    let first = last_resort(&shenji);
    let package = first.last_resort.clone().expect("made");
    assert!(!is_used(&shenji));
    let (mut gateway, joined) = invite_by(&jiwei, &shenji, &package);
    joined.expect("a join");
    assert!(is_used(&shenji), "a new one is to be made");
    assert_eq!(renewal(&shenji, &gateway), Renewal::Keys);
    let channel = gateway.channel;
    assert!(matches!(shenji.encrypt(channel, b"x"), Err(MlsError::LastResortKeys)));
    commit(&shenji, &mut gateway);
    gateway.feed(&shenji);
    let said = gateway.say(&shenji, "自己的钥".as_bytes());
    let heard = gateway.feed(&jiwei);
    assert_eq!(
        body_from(heard.last().expect("a message"), &shenji).as_deref(),
        Some("自己的钥".as_bytes()),
        "{said:?}"
    );
    assert_eq!(renewal(&shenji, &gateway), Renewal::Nothing);

    // The new one counts once it is published; by the old one others may have been invited before that.
    let second = last_resort(&shenji);
    assert!(is_used(&shenji), "made is not published");
    let reference = second.last_resort_reference.clone().expect("made");
    shenji.run(move |mls, tx, _| mls.last_resort_published(tx, &reference)).expect("stored");
    assert!(!is_used(&shenji));
    let forget = |device: &Device| device.run(|mls, tx, _| mls.forget_last_resorts(tx)).expect("readable");
    shenji.ahead = LAST_RESORT_KEPT - Duration::from_secs(60);
    assert_eq!(forget(&shenji), 0);
    invite_by(&jiwei, &shenji, &package).1.expect("its key is kept for 30 days");
    assert!(!is_used(&shenji), "the one that counts has not been used");
    shenji.ahead = LAST_RESORT_KEPT + Duration::from_secs(60);
    assert_eq!(forget(&shenji), 1);
    assert!(matches!(invite_by(&jiwei, &shenji, &package).1, Err(MlsError::KeyPackageGone)));
    assert_eq!(forget(&shenji), 0);
    let package = second.last_resort.expect("made");
    invite_by(&jiwei, &shenji, &package).1.expect("the newer one is there");
}

fn keys(device: &Device) -> u64 {
    device.run(|_, tx, _| Ok(tx.mls().key_package_count()?)).expect("readable")
}

#[test]
fn the_keys_of_a_key_package_go_a_month_behind_its_end_unless_an_invitation_by_it_waits() {
    let (jiwei, mut shenji) = (Device::app("jiwei", "app-1"), Device::app("shenji", "app-1"));
    let made = shenji.run(|mls, tx, federation| mls.key_packages(tx, federation, 3, true)).expect("key packages");
    assert_eq!((keys(&shenji), made.one_time_references.len()), (4, 3));
    invite_by(&jiwei, &shenji, &made.one_time[0]).1.expect("a join");
    assert_eq!(keys(&shenji), 3, "a key is used once");

    // By the second one the device is invited, and its application does nothing.
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji"]);
    let (channel, package) = (gateway.channel, made.one_time[1].clone());
    let bundle = jiwei.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[package]));
    let bundle = bundle.expect("an invitation");
    gateway.commit(&jiwei, &bundle).expect("acceptable");
    let invitation = gateway.invitation(&bundle);

    let checked = check_key_package(&office().federation, &RustCrypto::default(), &made.one_time[2], SystemClock.now());
    let left = Duration::from_micros(checked.expect("a good one").not_after.0 - SystemClock.now().0);
    let forget = |device: &Device, waiting: Vec<Vec<u8>>| {
        let forgotten = device
            .run(move |mls, tx, _| mls.forget_key_packages(tx, waiting.iter().map(Vec::as_slice)))
            .expect("readable");
        (forgotten, keys(device))
    };
    let (welcome, minute) = (invitation.welcome.clone(), Duration::from_secs(60));
    shenji.ahead = left + KEY_PACKAGE_KEPT - minute;
    assert_eq!(forget(&shenji, vec![]), (0, 3));
    shenji.ahead = left + KEY_PACKAGE_KEPT + minute;
    assert_eq!(forget(&shenji, vec![b"no welcome".to_vec(), welcome]), (1, 2));
    let now = std::mem::take(&mut shenji.ahead);
    join(&shenji, &invitation).expect("the invitation holds");
    shenji.ahead = now;
    assert_eq!(forget(&shenji, vec![]), (0, 1), "the last resort has its own end");
}

#[test]
fn key_packages_that_nobody_was_given_go_with_their_keys() {
    let device = Device::app("shenji", "app-1");
    let kept = device.run(|mls, tx, federation| mls.key_packages(tx, federation, 1, true)).expect("key packages");
    let made = device.run(|mls, tx, federation| mls.key_packages(tx, federation, 2, true)).expect("key packages");
    assert_eq!(keys(&device), 5);
    let references: Vec<_> = made.one_time_references.into_iter().chain(made.last_resort_reference).collect();
    device.run(move |mls, tx, _| mls.drop_key_packages(tx, &references)).expect("stored");
    assert_eq!(keys(&device), 2);
    let (jiwei, package) = (Device::app("jiwei", "app-1"), kept.last_resort.expect("made"));
    invite_by(&jiwei, &device, &package).1.expect("the others are there");
}
