//! Keys change while a channel goes on: the zone's removal key, and the certificate of a member.

use std::sync::Arc;

use lianxin_mls::{MlsError, Processed, Renewal, Violation};
use lianxin_profile::{ContextError, ProfileError, external_sender};
use lianxin_tlog::EventKind;
use lianxin_trust::Federation;
use openmls::prelude::{Extension, ExternalProposal, GroupEpoch, LeafNodeIndex, SenderExtensionIndex};
use openmls_rust_crypto::OpenMlsRustCrypto;

use crate::device::Device;
use crate::federation::office;
use crate::gateway::{Gateway, body_from, join};
use crate::rules::{RawChange, Signer, context_of, group_id, raw_commit, two};

const NEW_KEY: [u8; 32] = [7; 32];

fn new_public_key() -> [u8; 32] {
    Signer::of_seed(NEW_KEY).public_key().try_into().expect("32 bytes")
}

/// The bundle with a new removal key, and the old one among those of before.
pub(crate) fn rotated() -> Arc<Federation> {
    office().changed(|bundle| {
        let zone = &mut bundle.zones[0];
        zone.removal_keys_before = vec![zone.removal_key];
        zone.removal_key = new_public_key();
    })
}

/// The bundle with a new removal key, and the old one, which was stolen, nowhere.
fn stolen() -> Arc<Federation> {
    office().changed(|bundle| bundle.zones[0].removal_key = new_public_key())
}

/// Whether openmls would take a Remove of leaf 1 that `signer` asks for.
fn is_heard(gateway: &Gateway, epoch: u64, signer: &Signer) -> bool {
    let proposal = ExternalProposal::new_remove::<OpenMlsRustCrypto>(
        LeafNodeIndex::new(1),
        group_id(gateway),
        GroupEpoch::from(epoch),
        signer,
        SenderExtensionIndex::new(0),
    );
    gateway.verifies(&proposal.expect("a proposal").to_bytes().expect("bytes"))
}

fn renewal(device: &Device, gateway: &Gateway) -> Renewal {
    let channel = gateway.channel;
    device.run(move |mls, tx, federation| mls.renewal(tx, federation, channel)).expect("a readable state")
}

pub(crate) fn renew(device: &Device, gateway: &mut Gateway) -> Result<(), MlsError> {
    let channel = gateway.channel;
    let bundle = device.run(move |mls, tx, federation| mls.commit_pending(tx, federation, channel))?;
    gateway.commit(device, &bundle).expect("acceptable");
    Ok(())
}

#[test]
fn a_channel_moves_to_the_new_removal_key_and_the_old_one_is_not_heard_any_more() {
    let (mut jiwei, mut shenji, mut gateway) = two();
    let (old, new) = (Signer::removal_key(), Signer::of_seed(NEW_KEY));
    assert_eq!(renewal(&shenji, &gateway), Renewal::Nothing);
    assert!(matches!(renew(&shenji, &mut gateway), Err(MlsError::NothingPending)));
    for federation in [&mut gateway.federation, &mut jiwei.federation, &mut shenji.federation] {
        *federation = rotated();
    }
    // The channel goes on as it is, and who joins it takes the key of before.
    let said = gateway.say(&jiwei, b"x");
    assert_eq!(body_from(&shenji.process(&said).expect("processed"), &jiwei), Some(b"x".to_vec()));
    gateway.feed(&jiwei);
    assert_eq!(renewal(&shenji, &gateway), Renewal::RemovalKey);
    assert!(is_heard(&gateway, 1, &old) && !is_heard(&gateway, 1, &new));

    renew(&shenji, &mut gateway).expect("something to renew");
    // Who has not heard of the rotation fetches the bundle before it judges.
    let (moved, behind) = (gateway.log[gateway.log.len() - 1].clone(), Arc::clone(&office().federation));
    jiwei.federation = behind;
    let judged = jiwei.run(move |mls, tx, federation| mls.process_unless_behind(tx, federation, &moved));
    assert!(matches!(judged, Err(MlsError::TrustBehind { .. })), "{judged:?}");
    jiwei.federation = rotated();
    for member in [&jiwei, &shenji] {
        assert!(
            matches!(&gateway.feed(member)[..], [Processed::Membership { added, removed, .. }] if added.is_empty() && removed.is_empty())
        );
        assert_eq!(renewal(member, &gateway), Renewal::Nothing);
    }
    assert!(is_heard(&gateway, 2, &new) && !is_heard(&gateway, 2, &old));
    let mut second = Device::app("jiwei", "app-2");
    second.federation = rotated();
    gateway.seat(&jiwei, &[&jiwei, &shenji], &[&second]);
}

#[test]
fn any_commit_moves_it_and_none_moves_it_back() {
    let (mut jiwei, mut shenji, mut gateway) = two();
    for federation in [&mut gateway.federation, &mut jiwei.federation, &mut shenji.federation] {
        *federation = rotated();
    }
    let mut second = Device::app("jiwei", "app-2");
    second.federation = rotated();
    gateway.seat(&jiwei, &[&jiwei, &shenji], &[&second]);
    assert!(is_heard(&gateway, 2, &Signer::of_seed(NEW_KEY)));

    let (mut extensions, context) = context_of(&jiwei, &gateway);
    let zone = context.zone();
    let old = Signer::removal_key().public_key().try_into().expect("32 bytes");
    extensions.add_or_replace(Extension::ExternalSenders(vec![external_sender(zone, &old)])).expect("allowed");
    let back = raw_commit(&jiwei, &gateway, RawChange { extensions: Some(extensions), ..RawChange::default() });
    let expected = ProfileError::InvalidContext(ContextError::ExternalSender);
    assert_eq!(gateway.commit(&jiwei, &back).map(|_| ()), Err(expected.clone()));
    gateway.append(EventKind::Commit, &jiwei.uri, back.commit);
    assert_eq!(gateway.feed(&shenji), [Processed::Hidden(Violation::InvalidCommit(expected))]);
}

#[test]
fn a_stolen_key_that_is_listed_no_more_lets_nobody_in_and_its_channels_move_on() {
    let (mut jiwei, mut shenji, mut gateway) = two();
    // Somebody who has not heard of it invites.
    let mut second = Device::app("jiwei", "app-2");
    let (package, channel) = (second.key_package(), gateway.channel);
    let bundle = jiwei.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[package]));
    let bundle = bundle.expect("an invitation");
    gateway.commit(&jiwei, &bundle).expect("acceptable");
    second.federation = stolen();
    let refused = join(&second, &gateway.invitation(&bundle)).expect_err("its context names the stolen key");
    assert!(
        matches!(refused, MlsError::Profile(ProfileError::InvalidContext(ContextError::ExternalSender))),
        "{refused:?}"
    );

    for federation in [&mut gateway.federation, &mut jiwei.federation, &mut shenji.federation] {
        *federation = stolen();
    }
    gateway.feed(&jiwei);
    gateway.feed(&shenji);
    let said = gateway.say(&jiwei, b"x");
    assert_eq!(body_from(&shenji.process(&said).expect("processed"), &jiwei), Some(b"x".to_vec()));
    gateway.feed(&jiwei);
    assert_eq!(renewal(&jiwei, &gateway), Renewal::RemovalKey);
    renew(&jiwei, &mut gateway).expect("something to renew");
    gateway.feed(&shenji);
    gateway.feed(&jiwei);
    assert_eq!(renewal(&shenji, &gateway), Renewal::Nothing);
    assert!(is_heard(&gateway, 3, &Signer::of_seed(NEW_KEY)) && !is_heard(&gateway, 3, &Signer::removal_key()));
}

#[test]
fn a_renewed_certificate_comes_into_the_own_leaf() {
    let jiwei = Device::app("jiwei", "app-1");
    let (uri, before, after) = office().renewed();
    let mut weijian = Device::with(uri, before);
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "weijian"]);
    gateway.seat(&jiwei, &[&jiwei], &[&weijian]);
    assert_eq!(renewal(&weijian, &gateway), Renewal::Nothing);
    weijian.identity = after;
    assert_eq!(renewal(&weijian, &gateway), Renewal::OwnLeaf);
    renew(&weijian, &mut gateway).expect("something to renew");
    gateway.feed(&weijian);
    gateway.feed(&jiwei);
    assert_eq!(renewal(&weijian, &gateway), Renewal::Nothing);
    assert_eq!(renewal(&jiwei, &gateway), Renewal::Nothing, "nobody renews another's leaf");
}
