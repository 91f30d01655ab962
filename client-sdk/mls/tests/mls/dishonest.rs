//! A gateway that lies, and members that do.

use lianxin_mls::{MlsError, MlsIdentity, Processed, Violation};
use lianxin_profile::{
    AuthenticatedData, CIPHERSUITE, Payload, ProfileError, capabilities, check_key_package, x509_credential,
};
use lianxin_tlog::{EventKind, Head};
use lianxin_types::{Clock as _, DeviceUri, Digest, Kind, Sequence, SystemClock, Timestamp};
use openmls::prelude::{
    CredentialWithKey, Extensions, ExternalProposal, GroupEpoch, KeyPackage, KeyPackageIn, LeafNodeIndex, Lifetime,
    MlsGroup, MlsMessageOut, ProtocolVersion, SenderExtensionIndex,
};
use openmls_rust_crypto::{OpenMlsRustCrypto, RustCrypto};
use openmls_traits::OpenMlsProvider;

use crate::device::{Device, random_id};
use crate::federation::office;
use crate::gateway::{Gateway, body_from, join};
use crate::rules::{RawChange, Signer, TestProvider, group_id, raw_commit};

pub(crate) fn three() -> ([Device; 3], Gateway) {
    let devices = [Device::app("jiwei", "app-1"), Device::app("shenji", "app-1"), Device::app("weijian", "app-1")];
    let mut gateway = Gateway::start(&devices[0], &["jiwei", "shenji", "weijian"]);
    gateway.seat(&devices[0], &[&devices[0]], &[&devices[1], &devices[2]]);
    (devices, gateway)
}

#[test]
fn a_wrong_name_on_a_message_is_found() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let sent = jiwei.encrypt(gateway.channel, b"mine").expect("encrypted");
    gateway.append(EventKind::Application, &shenji.uri, sent.mls);
    let lie = |found: &Device| Violation::SenderMismatch { named: shenji.uri.clone(), found: found.uri.clone() };
    assert_eq!(gateway.feed(&weijian), [Processed::Hidden(lie(&jiwei))]);
    assert_eq!(gateway.feed(&jiwei), [Processed::Hidden(lie(&jiwei))]);
    assert_eq!(gateway.feed(&shenji), [Processed::Hidden(lie(&jiwei))]);
    // The channel goes on, and its chain has the event.
    gateway.say(&weijian, b"next");
    assert!(body_from(&gateway.feed(&jiwei)[0], &weijian).is_some());
}

#[test]
fn a_forked_log_shows_in_the_first_message_across_the_fork() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let event = gateway.say(&jiwei, b"told at two times");
    let mut forked = event.clone();
    forked.gateway_time = Timestamp(event.gateway_time.0 + 1);
    assert!(body_from(&shenji.process(&forked).expect("processed"), &jiwei).is_some());
    gateway.feed(&jiwei);
    gateway.feed(&weijian);
    gateway.say(&shenji, b"from the other side");
    let found = Processed::Hidden(Violation::HeadMismatch { sequence: Sequence(3) });
    assert_eq!(gateway.feed(&weijian), std::slice::from_ref(&found));
    assert_eq!(gateway.feed(&jiwei), [found]);
}

#[test]
fn a_head_older_than_the_epoch_or_in_the_future_is_found() {
    let ([jiwei, shenji, _], mut gateway) = three();
    gateway.seat(&jiwei, &[&jiwei, &shenji], &[&Device::app("jiwei", "app-2")]);
    // Sequence 2 is true and known to everybody, and of the epoch before.
    let future = Head { sequence: Sequence(9), ..gateway.heads[3] };
    for head in [gateway.heads[2], gateway.heads[0], future] {
        let id = group_id(&gateway);
        let mls = jiwei.run(move |_, tx, _| {
            let provider = TestProvider::new(tx);
            let mut group = MlsGroup::load(provider.storage(), &id)?.expect("a group");
            group.set_aad(AuthenticatedData { head }.to_bytes().to_vec());
            let payload = Payload { intent: random_id(), body: vec![] };
            let signer = Signer::of(&office().app("jiwei", "app-1").1);
            let message = group.create_message(&provider, &signer, &payload.to_bytes()?).expect("a message");
            Ok(message.to_bytes().expect("bytes"))
        });
        gateway.append(EventKind::Application, &jiwei.uri, mls.expect("a message"));
        let found = Violation::HeadMismatch { sequence: head.sequence };
        assert_eq!(gateway.feed(&shenji), [Processed::Hidden(found)]);
    }
}

#[test]
fn a_wrong_name_on_a_commit_breaks_the_channel() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let (channel, gone) = (gateway.channel, weijian.uri.clone());
    let bundle = jiwei.run(move |mls, tx, federation| mls.remove(tx, federation, channel, &[gone])).expect("a commit");
    gateway.append(EventKind::Commit, &shenji.uri, bundle.commit);
    assert!(matches!(&gateway.feed(&shenji)[..], [Processed::Hidden(Violation::SenderMismatch { .. })]));
    assert!(shenji.view(channel).expect("a member").is_broken);
    assert!(matches!(shenji.encrypt(channel, b"x"), Err(MlsError::Broken)));
    gateway.append(EventKind::Application, &jiwei.uri, vec![]);
    assert_eq!(gateway.feed(&shenji), [Processed::Hidden(Violation::ChannelBroken)]);
}

#[test]
fn a_message_put_under_another_kind_is_hidden() {
    let ([jiwei, shenji, _], mut gateway) = three();
    let kinds = [
        (EventKind::Start, Violation::InvalidStart(ProfileError::InvalidMls { what: "group info" })),
        (EventKind::Report, Violation::Malformed),
        (EventKind::Notice, Violation::UnexpectedKind),
        (EventKind::Proposal, Violation::Malformed),
        (EventKind::Commit, Violation::Malformed),
    ];
    for (kind, violation) in kinds {
        let sent = jiwei.encrypt(gateway.channel, b"x").expect("encrypted");
        gateway.append(kind, &jiwei.uri, sent.mls);
        assert_eq!(gateway.feed(&shenji), [Processed::Hidden(violation)], "{kind:?}");
    }
}

#[test]
fn a_wrong_head_in_an_invitation_shows_in_the_first_message() {
    let (jiwei, shenji) = (Device::app("jiwei", "app-1"), Device::app("shenji", "app-1"));
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji"]);
    let (channel, package) = (gateway.channel, shenji.key_package());
    let bundle = jiwei.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[package]));
    let bundle = bundle.expect("a commit");
    gateway.commit(&jiwei, &bundle).expect("acceptable");
    let mut lie = gateway.invitation(&bundle);
    lie.head.chain_hash = Digest([9; 32]);
    join(&shenji, &lie).expect("nothing in the welcome tells");
    gateway.feed(&jiwei);
    gateway.say(&jiwei, b"hello");
    let found = Violation::HeadMismatch { sequence: Sequence(2) };
    assert_eq!(gateway.feed(&shenji), [Processed::Hidden(found)]);
}

#[test]
fn a_message_that_another_member_writes_in_our_name_is_not_ours() {
    let ([jiwei, shenji, _], mut gateway) = three();
    // The bytes are ours, and the log has had them: it cannot have them again, under whatever name.
    let event = gateway.say(&jiwei, b"x");
    assert_eq!(gateway.feed(&jiwei), [Processed::OwnMessage]);
    gateway.append(EventKind::Application, &jiwei.uri, event.mls.clone());
    gateway.append(EventKind::Application, &shenji.uri, event.mls);
    let mismatch = Violation::SenderMismatch { named: shenji.uri.clone(), found: jiwei.uri.clone() };
    let expected = [Processed::Hidden(Violation::NotSent), Processed::Hidden(mismatch)];
    assert_eq!(gateway.feed(&jiwei), expected);
}

#[test]
fn a_removal_by_the_removal_key_is_not_obeyed_under_a_members_name() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let seat = 1;
    let proposal = ExternalProposal::new_remove::<OpenMlsRustCrypto>(
        LeafNodeIndex::new(seat),
        group_id(&gateway),
        GroupEpoch::from(1),
        &Signer::removal_key(),
        SenderExtensionIndex::new(0),
    );
    let proposal = proposal.expect("a proposal").to_bytes().expect("bytes");
    // openmls verifies it: the one external sender of the context is the zone's removal key.
    assert!(gateway.verifies(&proposal));
    let refused = gateway.leave(&jiwei, proposal.clone()).map(|_| ());
    let expected = ProfileError::ProposalNotAllowed { proposal: "only a removal of oneself may stand alone" };
    assert_eq!(refused, Err(expected));
    gateway.append(EventKind::Proposal, &weijian.uri, proposal);
    assert_eq!(gateway.feed(&shenji), [Processed::Hidden(Violation::UnexpectedProposal)]);
}

#[test]
fn a_gateway_that_proposes_anything_but_a_removal_is_not_obeyed() {
    let ([jiwei, shenji, _], mut gateway) = three();
    let (group, epoch) = (group_id(&gateway), GroupEpoch::from(1));
    let (key, index) = (Signer::removal_key(), SenderExtensionIndex::new(0));
    let ghost = parse(&Device::app("weijian", "app-2").key_package());
    let add = ExternalProposal::new_add::<OpenMlsRustCrypto>(ghost, group.clone(), epoch, &key, index);
    let context = ExternalProposal::new_group_context_extensions::<OpenMlsRustCrypto>(
        Extensions::empty(),
        group,
        epoch,
        &key,
        index,
    );
    let gateways: DeviceUri = "lianxin://jiwei/gateway/cn-zj-1/1".parse().expect("well formed");
    assert_eq!(gateways.kind(), Kind::Gateway);
    for proposal in [add.expect("a proposal"), context.expect("a proposal")] {
        let proposal = proposal.to_bytes().expect("bytes");
        gateway.append(EventKind::Proposal, &gateways, proposal.clone());
        gateway.append(EventKind::Proposal, &jiwei.uri, proposal);
        let hidden = Processed::Hidden(Violation::UnexpectedProposal);
        assert_eq!(gateway.feed(&shenji), [hidden.clone(), hidden]);
    }
    gateway.say(&jiwei, b"go on");
    assert!(matches!(gateway.feed(&shenji)[..], [Processed::Message { .. }]));
    // Nothing of it waits to be committed first.
    gateway.say(&shenji, b"go on");
    assert!(matches!(gateway.feed(&jiwei).last(), Some(Processed::Message { .. })));
}

/// A leaf with `owner`'s certificate and another key: openmls takes it.
fn ghost(owner: &MlsIdentity) -> KeyPackage {
    let other = Signer::of(&office().app("weijian", "app-2").1);
    let credential = CredentialWithKey {
        credential: x509_credential(&owner.chain).expect("one certificate"),
        signature_key: other.public_key().into(),
    };
    let provider = OpenMlsRustCrypto::default();
    let now = SystemClock.now().seconds();
    let bundle = KeyPackage::builder()
        .leaf_node_capabilities(capabilities())
        .key_package_lifetime(Lifetime::init(now - 60, now + 3600))
        .build(CIPHERSUITE, &provider, &other, credential);
    bundle.expect("openmls does not look at certificates").into_key_package()
}

#[test]
fn a_ghost_is_refused_at_the_invitation() {
    let jiwei = Device::app("jiwei", "app-1");
    let gateway = Gateway::start(&jiwei, &["jiwei", "shenji"]);
    let ghost = MlsMessageOut::from(ghost(&office().app("shenji", "app-1").1)).to_bytes().expect("bytes");
    let expected = ProfileError::InvalidCredential { fault: "the certificate's key is not the leaf's" };
    let checked = check_key_package(&office().federation, &RustCrypto::default(), &ghost, SystemClock.now());
    assert_eq!(checked.map(|_| ()), Err(expected.clone()));
    let channel = gateway.channel;
    let refused = jiwei.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &[ghost]));
    assert!(matches!(&refused, Err(MlsError::Profile(found)) if *found == expected), "{refused:?}");
}

#[test]
fn a_claim_is_answered_with_one_key_package_for_each_device_that_was_asked_for() {
    let [jiwei, shenji, weijian] = ["jiwei", "shenji", "weijian"].map(|name| Device::app(name, "app-1"));
    let [first, second] = [&shenji, &weijian].map(Device::key_package);
    let asked = [shenji.uri.clone(), weijian.uri.clone()];
    let check = |packages: &[&Vec<u8>]| {
        let (asked, packages) = (asked.clone(), packages.iter().copied().cloned().collect::<Vec<_>>());
        jiwei.run(move |mls, _, federation| mls.check_claimed(federation, &asked, &packages))
    };
    check(&[&first, &second]).expect("as asked");
    match check(&[&second, &first]) {
        Err(MlsError::ForeignKeyPackage { asked, found }) => {
            assert_eq!((asked, found), (shenji.uri.clone(), weijian.uri.clone()))
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(check(&[&first, &first]), Err(MlsError::ForeignKeyPackage { .. })));
    assert!(matches!(check(&[&first]), Err(MlsError::KeyPackageCount { asked: 2, found: 1 })));
    assert!(matches!(check(&[&first, &second, &second]), Err(MlsError::KeyPackageCount { asked: 2, found: 3 })));
    assert!(matches!(check(&[&first, &vec![0; 8]]), Err(MlsError::Profile(_))));
}

#[test]
fn a_ghost_that_a_member_adds_is_refused_by_gateway_and_members() {
    let ([jiwei, shenji, weijian], mut gateway) = three();
    let ghost = ghost(&office().app("shenji", "app-2").1);
    let bundle = raw_commit(&jiwei, &gateway, RawChange { adds: vec![ghost], ..RawChange::default() });
    let expected = ProfileError::InvalidCredential { fault: "the certificate's key is not the leaf's" };
    assert_eq!(gateway.commit(&jiwei, &bundle).map(|_| ()), Err(expected.clone()));
    gateway.append(EventKind::Commit, &jiwei.uri, bundle.commit);
    for device in [&shenji, &weijian] {
        assert_eq!(gateway.feed(device), [Processed::Hidden(Violation::InvalidCommit(expected.clone()))]);
        assert!(device.view(gateway.channel).expect("a member").is_broken);
    }
}

#[test]
fn an_outsiders_device_that_a_member_adds_is_refused_by_gateway_and_members() {
    let ([jiwei, shenji, _], mut gateway) = three();
    let package = parse(&Device::app("waibu", "app-1").key_package());
    let bundle = raw_commit(&jiwei, &gateway, RawChange { adds: vec![package], ..RawChange::default() });
    let expected = ProfileError::DepartmentNotNamed { department: "waibu".parse().expect("well formed") };
    assert_eq!(gateway.commit(&jiwei, &bundle).map(|_| ()), Err(expected.clone()));
    gateway.append(EventKind::Commit, &jiwei.uri, bundle.commit);
    assert_eq!(gateway.feed(&shenji), [Processed::Hidden(Violation::InvalidCommit(expected))]);
}

pub(crate) fn parse(bytes: &[u8]) -> KeyPackage {
    use openmls::prelude::tls_codec::Deserialize as _;
    let openmls::prelude::MlsMessageBodyIn::KeyPackage(package) =
        openmls::prelude::MlsMessageIn::tls_deserialize_exact(bytes).expect("a message").extract()
    else {
        panic!("a key package")
    };
    KeyPackageIn::validate(package, &RustCrypto::default(), ProtocolVersion::Mls10).expect("valid")
}
