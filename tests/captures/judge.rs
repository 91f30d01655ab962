//! What our own rules say of a capture: the chain of its log, the acceptance rules of the gateway, and that the wire and the log say
//! the same.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use lianxin_delivery::GroupState;
use lianxin_profile::{
    AuthenticatedData, GroupInfoSigner, Payload, check_group_info, parse_application, parse_group_info, read_head,
    stored_context,
};
use lianxin_store::GroupEpoch;
use lianxin_tlog::{ChainLink, EventKind, chain_next, chain_start};
use lianxin_trust::{Federation, RootKeys, Usage, verify_bundle};
use lianxin_types::{ChannelId, DeviceUri, Digest, Incarnation, Sequence, Timestamp};
use openmls::prelude::{KeyPackageVerifyError, MlsMessageBodyIn, MlsMessageIn, ProtocolVersion, Sender};
use openmls_rust_crypto::RustCrypto;
use tls_codec::{Deserialize as _, VLBytes};

use crate::format::{Capture, EventPart};

/// The head in the authenticated data of an event; a start has none.
pub(crate) fn named_head(kind: EventKind, mls: &[u8]) -> Result<Option<AuthenticatedData>> {
    Ok(match kind {
        EventKind::Application => Some(parse_application(mls)?.authenticated),
        EventKind::Commit | EventKind::Proposal => {
            // RFC 9420 section 6: version and wire format, group id, epoch, sender, authenticated data.
            let mut rest = mls;
            u32::tls_deserialize(&mut rest)?;
            VLBytes::tls_deserialize(&mut rest)?;
            u64::tls_deserialize(&mut rest)?;
            Sender::tls_deserialize(&mut rest)?;
            Some(AuthenticatedData::from_bytes(VLBytes::tls_deserialize(&mut rest)?.as_slice())?)
        }
        EventKind::Start | EventKind::Report | EventKind::Notice => None,
    })
}

pub(crate) fn kind(event: &EventPart) -> Result<EventKind> {
    Ok(match event.kind.as_str() {
        "START" => EventKind::Start,
        "COMMIT" => EventKind::Commit,
        "APPLICATION" => EventKind::Application,
        "PROPOSAL" => EventKind::Proposal,
        other => bail!("{other} is no kind of a session"),
    })
}

pub(crate) fn digest(bytes: &[u8]) -> Result<Digest> {
    Digest::try_from(bytes).map_err(|error| anyhow::anyhow!("{error}"))
}

/// The federation of the capture, by its own root keys.
pub(crate) fn federation(capture: &Capture) -> Result<Arc<Federation>> {
    let roots = RootKeys::from_json(&capture.federation.roots.to_string())?;
    let bundle = verify_bundle(&roots, &capture.federation.trust_bundle.0)?;
    let lists = capture.federation.revocation_lists.iter().map(|list| list.0.clone()).collect();
    Ok(Arc::new(Federation::new(bundle, lists)?))
}

/// Certificates name their devices, keys belong to them, heads follow from the events, and payloads are as the profile demands.
pub(crate) fn check_log(capture: &Capture) -> Result<()> {
    let federation = federation(capture)?;
    for device in &capture.devices {
        for (certificate, usage) in [(&device.mls_certificate, Usage::Mls), (&device.tls_certificate, Usage::TlsClient)]
        {
            let identity = federation.identify(&[&certificate.0], usage, capture.now())?;
            ensure!(
                identity.uri.as_str() == device.uri,
                "a certificate of {} names {}",
                device.name,
                identity.uri.as_str()
            );
            let seed = <[u8; 32]>::try_from(device.mls_signature_key.0.as_slice())?;
            let key = crate::foreign::public_key(&seed);
            ensure!(usage != Usage::Mls || identity.public_key == key, "the key of {} is another", device.name);
        }
        device.key_packages.iter().try_for_each(crate::native::check_keys)?;
    }
    let channel = ChannelId::try_from(capture.channel.id.0.as_slice())?;
    let mut head = chain_start(&channel);
    ensure!(head.chain_hash.0[..] == capture.channel.chain_start.0[..], "h0 differs");
    let start = capture.event(1);
    ensure!(start.group_info.as_ref().is_some_and(|info| *info == start.mls), "the start is its GroupInfo");
    let start = parse_group_info(&start.mls.0)?;
    let slot_key = *stored_context(start.group_context())?.slot_key();
    ensure!(slot_key[..] == capture.channel.slot_key.0[..], "the slot key is another");
    let mut heads = vec![head];
    for (event, sequence) in capture.events.iter().zip(1..) {
        ensure!(event.sequence == sequence, "event {sequence} is missing");
        let (kind, sender) = (kind(event)?, event.sender.parse::<DeviceUri>()?);
        if let Some(AuthenticatedData { head: named }) = named_head(kind, &event.mls.0)? {
            ensure!(heads.contains(&named), "event {sequence} names a head that is not in the log");
            let said = event.names_head.as_ref().context("the head that it names is missing")?;
            ensure!(said.sequence == named.sequence.0, "event {sequence} names another sequence");
            ensure!(said.chain_hash.0 == named.chain_hash.0, "event {sequence} names another hash");
        }
        let link = ChainLink {
            sequence: Sequence(sequence),
            kind,
            gateway_time: Timestamp(event.gateway_time_us),
            expiry: None,
            sender: &sender,
            mls_hash: Digest::sha256(&event.mls.0),
        };
        head = chain_next(&head.chain_hash, &link);
        ensure!(event.chain_hash.0 == head.chain_hash.0, "h{sequence} differs");
        heads.push(head);
        if kind == EventKind::Application {
            let plaintext = event.plaintext.as_ref().context("a message has a plaintext")?;
            let payload = Payload::from_bytes(&plaintext.payload.0)?;
            ensure!(payload.body == plaintext.text.as_bytes(), "event {sequence} says something else");
            ensure!(payload.intent.0[..] == plaintext.intent.0[..], "event {sequence} has another intent id");
        }
    }
    Ok(())
}

/// Whether the lifetimes of the key packages hold by the system's clock: openmls asks that one and takes no other time.
pub(crate) fn is_fresh(capture: &Capture) -> Result<bool> {
    for package in capture.devices.iter().flat_map(|device| &device.key_packages) {
        let MlsMessageBodyIn::KeyPackage(package) = MlsMessageIn::tls_deserialize_exact(&package.message.0)?.extract()
        else {
            bail!("no key package")
        };
        match package.validate(&RustCrypto::default(), ProtocolVersion::Mls10) {
            Ok(_) => {}
            Err(KeyPackageVerifyError::LifetimeError(_)) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// The gateway's rules, handshake by handshake. openmls judges lifetimes by the system's clock, so a capture that is older than its key
/// packages can be judged so only up to the first that it would have to add; then gives `false`.
pub(crate) fn check_rules(capture: &Capture) -> Result<bool> {
    if !is_fresh(capture)? {
        return Ok(false);
    }
    let federation = federation(capture)?;
    let start = capture.event(1);
    let info = &start.group_info.as_ref().context("a start has a GroupInfo")?.0;
    let tree = &start.ratchet_tree.as_ref().context("a start has a tree")?.0;
    let (mut state, _) = GroupState::start(&federation, info, tree, Timestamp(start.gateway_time_us))?;
    for event in &capture.events {
        let (caller, now) = (event.sender.parse::<DeviceUri>()?, Timestamp(event.gateway_time_us));
        let number = event.sequence;
        match kind(event)? {
            EventKind::Start => {}
            EventKind::Commit => {
                state = state.verify_commit(&federation, &caller, &event.mls.0, now)?.next;
                let signer =
                    state.roster().of(&caller).with_context(|| format!("the sender of {number} sits there"))?;
                let signer = GroupInfoSigner { leaf: signer.leaf, signature_key: &signer.signature_key };
                let info = &event.group_info.as_ref().context("a commit has a GroupInfo")?.0;
                let checked = check_group_info(&RustCrypto::default(), info, state.group_context(), signer)?;
                let said = event.names_head.as_ref().context("a commit names a head")?;
                let head = read_head(checked.group_info.extensions())?;
                ensure!(head.sequence.0 == said.sequence, "GroupInfo {number} has another head");
                ensure!(head.chain_hash == digest(&said.chain_hash.0)?, "GroupInfo {number} has another hash");
                if let Some(tree) = &event.ratchet_tree {
                    ensure!(state.tree()?[..] == tree.0[..], "the tree behind {number} is another");
                }
            }
            EventKind::Proposal => state = state.verify_leave(&caller, &event.mls.0)?.next,
            EventKind::Application => {
                let frame = parse_application(&event.mls.0)?;
                ensure!(state.roster().of(&caller).is_some(), "the sender of {number} is no member");
                let current = GroupEpoch { incarnation: Incarnation(0), epoch: state.epoch() };
                let channel = ChannelId::try_from(capture.channel.id.0.as_slice())?;
                GroupState::check_frame(&channel, &frame, current, Sequence(number))?;
            }
            EventKind::Report | EventKind::Notice => bail!("not in a session"),
        }
        ensure!(state.epoch().0 == event.epoch, "event {number} makes another epoch");
        let members = capture.names(state.roster().seats().map(|seat| seat.uri.as_str()))?;
        ensure!(members == event.members, "event {number} leaves other members");
    }
    Ok(true)
}
