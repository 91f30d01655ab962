//! The gateway asks for a removal: taken with evidence, refused without.

use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::Signer as _;
use lianxin_mls::{LogEvent, MlsError, Processed, RemovalReason, Violation};
use lianxin_profile::{RemovalCause, RemovalData, check_key_package, removal_due, removal_message, x509_credential};
use lianxin_tlog::EventKind;
use lianxin_trust::{Federation, Usage};
use lianxin_types::{Clock as _, DeviceUri, Digest, Epoch, GroupId, Incarnation, LIMITS, SystemClock};
use openmls::prelude::{ExternalProposal, GroupEpoch, LeafNodeIndex, SenderExtensionIndex};
use openmls_rust_crypto::{OpenMlsRustCrypto, RustCrypto};

use crate::device::{Device, random_id};
use crate::federation::office;
use crate::gateway::Gateway;
use crate::rules::{Signer, group_id};

struct Story {
    jiwei: Device,
    shenji: Device,
    doomed: Device,
    gateway: Gateway,
    /// What everybody will know of `doomed` from now on.
    newer: Arc<Federation>,
}

/// Three members, one of them revoked after it came.
fn story(name: &str) -> Story {
    // The others do not know of it before they are told.
    let (uri, identity, newer) = office().revoked_at(name, SystemClock.now());
    let (jiwei, shenji) = (Device::app("jiwei", "app-1"), Device::app("shenji", "app-1"));
    let doomed = Device::with(uri, identity);
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji", "weijian"]);
    gateway.seat(&jiwei, &[&jiwei], &[&shenji, &doomed]);
    Story { jiwei, shenji, doomed, gateway, newer }
}

fn gateway_uri() -> DeviceUri {
    "lianxin://jiwei/gateway/g/1".parse().expect("well formed")
}

impl Story {
    fn evidence(&self) -> RemovalData {
        let evidence = Digest::sha256(&self.doomed.identity.chain[0]);
        RemovalData { reason: RemovalReason::CertificateRevoked, evidence }
    }

    fn ask(&self, leaf: u32, data: &RemovalData) -> Vec<u8> {
        self.ask_in(Epoch(1), leaf, data)
    }

    fn ask_in(&self, epoch: Epoch, leaf: u32, data: &RemovalData) -> Vec<u8> {
        let group = GroupId { channel: self.gateway.channel, incarnation: Incarnation(0) };
        removal_message(group, epoch, leaf, data, |signed| office().removal_key().sign(signed).to_bytes())
    }

    /// Puts a Remove of the doomed device into the log, as the gateway does.
    fn ask_in_log(&mut self) -> LogEvent {
        self.ask_in_log_of(Epoch(1))
    }

    fn ask_in_log_of(&mut self, epoch: Epoch) -> LogEvent {
        let proposal = self.ask_in(epoch, 2, &self.evidence());
        self.gateway.store_unchecked(&proposal);
        self.gateway.append(EventKind::Proposal, &gateway_uri(), proposal)
    }

    fn newer(&self, device: &Device, event: &LogEvent) -> Processed {
        let (event, newer) = (event.clone(), Arc::clone(&self.newer));
        device.run(move |mls, tx, _| mls.process(tx, &newer, &event)).expect("processed")
    }
}

#[test]
fn who_may_be_behind_fetches_first_and_a_removal_with_evidence_is_committed_by_reference() {
    let mut story = story("doomed-1");
    let event = story.ask_in_log();
    let channel = story.gateway.channel;
    let asked = Processed::RemovalAsked { device: story.doomed.uri.clone(), reason: RemovalReason::CertificateRevoked };

    let early = event.clone();
    let behind = story.jiwei.run(move |mls, tx, old| mls.process_unless_behind(tx, old, &early));
    assert!(matches!(&behind, Err(MlsError::TrustBehind { device }) if *device == story.doomed.uri), "{behind:?}");
    let view = story.jiwei.view(channel).expect("a member");
    assert!(view.head.sequence < event.sequence && view.pending_leaves.is_empty(), "nothing has changed");

    assert_eq!(story.newer(&story.jiwei, &event), asked);
    assert_eq!(story.newer(&story.doomed, &event), asked);
    assert!(matches!(story.jiwei.encrypt(channel, b"x"), Err(MlsError::ProposalsPending)));
    assert!(matches!(story.doomed.encrypt(channel, b"x"), Err(MlsError::Leaving)), "it is silent by itself, too");
    let own = story.doomed.run(move |mls, tx, federation| mls.commit_pending(tx, federation, channel));
    assert!(matches!(own, Err(MlsError::Leaving)), "{own:?}");

    let newer = Arc::clone(&story.newer);
    let bundle = story.jiwei.run(move |mls, tx, _| mls.commit_pending(tx, &newer, channel)).expect("a commit");
    let summary = story.gateway.commit(&story.jiwei, &bundle).expect("acceptable");
    let removed: Vec<_> = summary.removed.iter().map(|one| (&one.uri, one.cause)).collect();
    assert_eq!(removed, [(&story.doomed.uri, RemovalCause::Asked)]);
    let commit = story.gateway.log.last().expect("a commit").clone();
    for (device, is_gone) in [(&story.jiwei, false), (&story.doomed, true)] {
        let seen = story.newer(device, &commit);
        assert!(matches!(&seen, Processed::Membership { removed_self, .. } if *removed_self == is_gone), "{seen:?}");
    }
}

#[test]
fn who_sees_no_evidence_neither_commits_the_removal_nor_follows_who_does() {
    let mut story = story("doomed-2");
    let event = story.ask_in_log();
    let channel = story.gateway.channel;
    let device = story.doomed.uri.clone();
    assert_eq!(
        story.shenji.process(&event).expect("processed"),
        Processed::Hidden(Violation::UnfoundedRemoval { device })
    );
    let nothing = story.shenji.run(move |mls, tx, federation| mls.commit_pending(tx, federation, channel));
    assert!(matches!(nothing, Err(MlsError::NothingPending)), "{nothing:?}");
    story.shenji.encrypt(channel, b"it goes on").expect("nothing waits that it would have to commit");

    story.newer(&story.jiwei, &event);
    let newer = Arc::clone(&story.newer);
    let bundle = story.jiwei.run(move |mls, tx, _| mls.commit_pending(tx, &newer, channel)).expect("a commit");
    story.gateway.commit(&story.jiwei, &bundle).expect("acceptable to who sees it");
    let seen = story.gateway.feed(&story.shenji);
    assert!(matches!(&seen[..], [Processed::Hidden(Violation::CannotProcess { .. })]), "{seen:?}");
    assert!(story.shenji.view(channel).expect("known").is_broken);
}

#[test]
fn nothing_is_encrypted_for_a_member_that_is_known_to_be_revoked() {
    let story = story("doomed-4");
    let (channel, newer, doomed) = (story.gateway.channel, Arc::clone(&story.newer), story.doomed.uri.clone());
    let stopped = story.jiwei.run(move |mls, tx, older| {
        mls.encrypt(tx, older, channel, random_id(), b"x")?;
        Ok(mls.encrypt(tx, &newer, channel, random_id(), b"y").map(|_| ()))
    });
    let stopped = stopped.expect("nobody is revoked as far as it knows");
    assert!(matches!(&stopped, Err(MlsError::MemberRevoked { device }) if *device == doomed), "{stopped:?}");
}

#[test]
fn who_joins_a_tree_with_a_revoked_leaf_says_nothing_until_it_is_removed() {
    let mut story = story("doomed-5");
    let channel = story.gateway.channel;
    let mut newcomer = Device::app("weijian", "app-2");
    let packages = [newcomer.key_package()];
    let bundle = story.jiwei.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &packages));
    let bundle = bundle.expect("an invitation");
    story.gateway.commit(&story.jiwei, &bundle).expect("acceptable");
    story.gateway.feed(&story.jiwei);
    let invitation = story.gateway.invitation(&bundle);

    // It comes after everybody has learnt of the revocation.
    newcomer.federation = Arc::clone(&story.newer);
    let view = newcomer.run(move |mls, tx, federation| mls.join(tx, federation, &invitation)).expect("it joins");
    assert_eq!(view.members.len(), 4, "the revoked device is still one of them");
    let silent = newcomer.encrypt(channel, b"x");
    assert!(matches!(&silent, Err(MlsError::MemberRevoked { device }) if *device == story.doomed.uri), "{silent:?}");

    let asked = story.ask_in_log_of(Epoch(2));
    for device in [&story.jiwei, &newcomer] {
        assert!(matches!(story.newer(device, &asked), Processed::RemovalAsked { .. }));
    }
    let bundle = newcomer.run(move |mls, tx, federation| mls.commit_pending(tx, federation, channel));
    story.gateway.commit(&newcomer, &bundle.expect("a commit")).expect("acceptable");
    let commit = story.gateway.log.last().expect("a commit").clone();
    assert!(matches!(newcomer.process(&commit), Ok(Processed::Membership { own_commit: true, .. })));
    newcomer.encrypt(channel, b"x").expect("the revoked device is gone");
}

#[test]
fn who_comes_back_to_a_tree_with_a_revoked_leaf_is_let_in_and_says_nothing_either() {
    let mut story = story("doomed-6");
    let channel = story.gateway.channel;
    story.shenji.federation = Arc::clone(&story.newer);
    let (group_info, tree) = story.gateway.served();
    let bundle = story.shenji.run(move |mls, tx, federation| {
        mls.discard(tx, channel)?;
        mls.rejoin(tx, federation, channel, &group_info, &tree)
    });
    story.gateway.commit(&story.shenji, &bundle.expect("a way back")).expect("acceptable");
    story.gateway.feed(&story.shenji);
    let silent = story.shenji.encrypt(channel, b"x");
    assert!(matches!(&silent, Err(MlsError::MemberRevoked { device }) if *device == story.doomed.uri), "{silent:?}");
}

#[test]
fn evidence_of_another_and_anything_but_a_removal_is_a_violation() {
    let mut story = story("doomed-3");
    let other = RemovalData { evidence: Digest::sha256(&story.jiwei.identity.chain[0]), ..story.evidence() };
    let unfounded = |device: &DeviceUri| Violation::UnfoundedRemoval { device: device.clone() };
    let cases = [
        // The doomed device's certificate against another's leaf, and another's certificate against its own.
        (story.ask(1, &story.evidence()), unfounded(&story.shenji.uri)),
        (story.ask(2, &other), unfounded(&story.doomed.uri)),
        // Nobody sits there.
        (story.ask(9, &story.evidence()), Violation::UnexpectedProposal),
        // Without evidence: as openmls makes it.
        (bare_removal(&story.gateway), Violation::Malformed),
        (addition(&story), Violation::UnexpectedProposal),
    ];
    for (bytes, violation) in cases {
        let event = story.gateway.append(EventKind::Proposal, &gateway_uri(), bytes);
        assert_eq!(story.newer(&story.jiwei, &event), Processed::Hidden(violation));
    }
    // Under the gateway's name, but signed by a member.
    let channel = story.gateway.channel;
    let leave = story.shenji.run(move |mls, tx, _| mls.leave(tx, channel)).expect("a proposal");
    let event = story.gateway.append(EventKind::Proposal, &gateway_uri(), leave);
    assert_eq!(story.newer(&story.jiwei, &event), Processed::Hidden(Violation::UnexpectedProposal));
    let view = story.jiwei.view(channel).expect("a member");
    assert!(view.pending_leaves.is_empty() && !view.is_broken);
}

fn bare_removal(gateway: &Gateway) -> Vec<u8> {
    let proposal = ExternalProposal::new_remove::<OpenMlsRustCrypto>(
        LeafNodeIndex::new(2),
        group_id(gateway),
        GroupEpoch::from(1),
        &Signer::removal_key(),
        SenderExtensionIndex::new(0),
    );
    proposal.expect("a proposal").to_bytes().expect("bytes")
}

/// The removal key says that somebody is to come.
fn addition(story: &Story) -> Vec<u8> {
    let package = Device::app("weijian", "app-2").key_package();
    let package = check_key_package(&office().federation, &RustCrypto::default(), &package, SystemClock.now());
    let proposal = ExternalProposal::new_add::<OpenMlsRustCrypto>(
        package.expect("a good one").key_package,
        group_id(&story.gateway),
        GroupEpoch::from(1),
        &Signer::removal_key(),
        SenderExtensionIndex::new(0),
    );
    proposal.expect("a proposal").to_bytes().expect("bytes")
}

#[test]
fn a_certificate_that_is_over_is_evidence_only_after_the_grace() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let issued = SystemClock.now().minus(20 * DAY);
    let (_, identity) = office().issued_at("doomed-over", issued);
    let federation = &office().federation;
    let chain = [&identity.chain[0][..]];
    let end = federation.identify(&chain, Usage::Mls, SystemClock.now()).expect("good today").not_after;
    let grace_ends = end.plus(LIMITS.leaf_expiry_grace);

    // What the gateway asks of every leaf, and a member of the one that a Remove names: nothing while the grace lasts, to the microsecond.
    let credential = x509_credential(&identity.chain).expect("one certificate");
    let due = |now| removal_due(federation, &credential, now).expect("one certificate");
    let data = RemovalData { reason: RemovalReason::CertificateExpired, evidence: Digest::sha256(&identity.chain[0]) };
    assert_eq!((due(SystemClock.now()), due(end.plus(DAY)), due(grace_ends)), (None, None, None));
    let after = grace_ends.plus(Duration::from_micros(1));
    assert_eq!(due(after), Some(data));
}
