//! The wire and the log of a capture say the same: each protobuf message is one of the contract, becomes the same bytes again, and
//! bears what the events, devices and keys of the file say.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use lianxin_profile::label_reference;
use lianxin_proto::channels::{self, v1 as channels_v1};
use lianxin_proto::directory::{self, v1 as directory_v1};
use lianxin_proto::key_packages::{self, v1 as key_packages_v1};
use lianxin_proto::messages::{self, Event, Frame, InboxItem, v1 as messages_v1};
use lianxin_proto::{ReasonCode, Receipt};
use lianxin_specimens::Depth;
use lianxin_types::{ChannelId, Classification, IdempotencyId, Label, Sequence};
use prost::Message as _;

use crate::format::{Capture, Direction, EventPart, Item};
use crate::judge::{federation, kind};
use crate::wire::{again, message_of, notes};

/// What was said before, of one device.
#[derive(Default)]
struct Said {
    /// Ids that were handed in and are not answered.
    asked: Vec<IdempotencyId>,
    /// The Welcome whose tree it asked for.
    tree_of: Option<Sequence>,
    /// What the gateway has refused.
    refused: Vec<IdempotencyId>,
    /// Up to where it has the log.
    cursor: Option<Sequence>,
}

struct Reader<'a> {
    capture: &'a Capture,
    channel: ChannelId,
    label: Label,
    said: BTreeMap<&'a str, Said>,
}

/// Reads the wire from its beginning to its end.
pub(crate) fn check_wire(capture: &Capture) -> Result<()> {
    let channel = ChannelId::try_from(capture.channel.id.0.as_slice())?;
    let part = &capture.channel;
    let label = Label::new(Classification::General3, part.purpose.as_str(), part.legal_basis.as_str(), None)?;
    let mut reader = Reader { capture, channel, label, said: BTreeMap::new() };
    for (item, number) in capture.wire.iter().zip(1..) {
        ensure!(item.number == number, "message {number} of the wire is missing");
        reader.read(item).with_context(|| format!("message {number}, {}", item.message))?;
    }
    for event in &capture.events {
        let sender = capture.devices.iter().find(|device| device.uri == event.sender).context("a device")?;
        let sent = |item: &&Item| item.device == sender.name && item.direction == Direction::ToGateway;
        let bears = |item: &Item| holds(&item.bytes.0, &event.idempotency_id.0) && holds(&item.bytes.0, &event.mls.0);
        ensure!(capture.wire.iter().filter(sent).any(bears), "nobody has handed event {} in", event.sequence);
    }
    Ok(())
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

impl<'a> Reader<'a> {
    fn read(&mut self, item: &'a Item) -> Result<()> {
        let bytes = item.bytes.0.as_slice();
        ensure!(message_of(&item.call, item.direction)? == item.message, "the call bears another message");
        ensure!(again(&item.message, bytes)? == bytes, "it becomes other bytes again");
        ensure!(notes(&item.message, bytes)? == item.notes, "the notes say something else");
        let depth = lianxin_specimens::parse(&parser(&item.message)?, bytes);
        ensure!(depth == Depth::Accepted, "it is not accepted: {depth:?}");
        self.capture.device(&item.device)?;
        match item.message.strip_prefix("lianxin.").and_then(|rest| rest.split_once(".v1.")).context("ours")? {
            ("directory", name) => self.directory(name, bytes),
            ("key_packages", name) => self.key_packages(name, item),
            ("channels", name) => self.channels(name, item),
            ("messages", name) => self.messages(name, item),
            (other, _) => bail!("{other} is not judged"),
        }
    }

    fn directory(&self, name: &str, bytes: &[u8]) -> Result<()> {
        match name {
            "HelloRequest" => {
                let hello = directory::Hello::try_from(directory_v1::HelloRequest::decode(bytes)?)?;
                ensure!(hello.protocol_version == self.capture.protocol_version, "another version");
            }
            "HelloResponse" => {
                let hello = directory::HelloAnswer::try_from(directory_v1::HelloResponse::decode(bytes)?)?;
                ensure!(hello.bundle_digest == federation(self.capture)?.bundle().digest, "another bundle");
                ensure!(hello.zone.as_str() == self.capture.channel.zone, "another zone");
            }
            "GetTrustRequest" => {
                let known = directory_v1::GetTrustRequest::decode(bytes)?.known_version;
                ensure!(known == 0, "a new installation knows no bundle");
            }
            "GetTrustResponse" => {
                let trust = directory_v1::GetTrustResponse::decode(bytes)?;
                let captured = &self.capture.federation;
                ensure!(trust.trust_bundle == captured.trust_bundle.0, "another bundle");
                let lists = captured.revocation_lists.iter().map(|list| list.0.as_slice());
                ensure!(trust.revocation_lists.iter().map(|list| &list[..]).eq(lists), "other lists");
            }
            other => bail!("{other} is not judged"),
        }
        Ok(())
    }

    fn key_packages(&self, name: &str, item: &Item) -> Result<()> {
        let bytes = item.bytes.0.as_slice();
        match name {
            "PublishRequest" => self.published(item)?,
            "ClaimRequest" => {
                let claim = key_packages::Claim::try_from(key_packages_v1::ClaimRequest::decode(bytes)?)?;
                ensure!(claim.channel == self.channel, "for another channel");
                for owner in &claim.owners {
                    let known = self.capture.devices.iter().any(|device| device.uri == owner.as_str());
                    ensure!(known, "of a stranger");
                }
            }
            "ClaimResponse" => {
                let claimed = key_packages::Claimed::try_from(key_packages_v1::ClaimResponse::decode(bytes)?)?;
                ensure!(claimed.receipt.sequence == Sequence(0), "a claim is no event");
                let mut known = self.capture.devices.iter().flat_map(|device| &device.key_packages);
                for package in &claimed.key_packages {
                    ensure!(known.any(|one| one.message.0 == package[..]), "a key package that nobody published");
                }
            }
            "PublishResponse" => {
                let receipt = Receipt::try_from(key_packages_v1::PublishResponse::decode(bytes)?)?;
                ensure!(receipt.sequence == Sequence(0), "publishing is no event");
            }
            other => bail!("{other} is not judged"),
        }
        Ok(())
    }

    fn channels(&mut self, name: &str, item: &'a Item) -> Result<()> {
        let bytes = item.bytes.0.as_slice();
        match name {
            "CreateRequest" => {
                let create = channels::Create::try_from(channels_v1::CreateRequest::decode(bytes)?)?;
                let event = self.asked(item, create.id)?;
                ensure!(event.mls.0 == create.group_info, "another GroupInfo");
                ensure!(event.ratchet_tree.as_ref().is_some_and(|tree| tree.0 == create.ratchet_tree), "another tree");
            }
            "CommitRequest" => {
                let commit = channels::Commit::try_from(channels_v1::CommitRequest::decode(bytes)?)?;
                ensure!(commit.channel == self.channel, "in another channel");
                let event = self.asked(item, commit.id)?;
                ensure!(event.mls.0 == commit.commit, "another commit");
                ensure!(event.group_info.as_ref().is_some_and(|info| info.0 == commit.group_info), "another GroupInfo");
                ensure!(
                    event.welcome.as_ref().map(|bytes| &bytes.0[..]) == commit.welcome.as_deref(),
                    "another Welcome"
                );
            }
            "LeaveRequest" => {
                let leave = channels::Leave::try_from(channels_v1::LeaveRequest::decode(bytes)?)?;
                ensure!(leave.channel == self.channel, "in another channel");
                ensure!(self.asked(item, leave.id)?.mls.0 == leave.proposal, "another proposal");
            }
            "CreateResponse" => self.accepted(item, channels_v1::CreateResponse::decode(bytes)?.try_into()?)?,
            "CommitResponse" => self.accepted(item, channels_v1::CommitResponse::decode(bytes)?.try_into()?)?,
            "LeaveResponse" => self.accepted(item, channels_v1::LeaveResponse::decode(bytes)?.try_into()?)?,
            "GetWelcomeTreeRequest" => {
                let wanted = channels::GetWelcomeTree::try_from(channels_v1::GetWelcomeTreeRequest::decode(bytes)?)?;
                ensure!(wanted.channel == self.channel, "of another channel");
                self.said(item).tree_of = Some(wanted.sequence);
            }
            "GetWelcomeTreeResponse" => {
                let sequence = self.said(item).tree_of.take().context("nobody asked")?;
                let tree = channels_v1::GetWelcomeTreeResponse::decode(bytes)?.ratchet_tree;
                let event = self.event(sequence)?;
                ensure!(event.ratchet_tree.as_ref().is_some_and(|known| known.0 == tree), "another tree");
            }
            "GetGroupInfoRequest" => {
                let wanted = channels::GetGroupInfo::try_from(channels_v1::GetGroupInfoRequest::decode(bytes)?)?;
                ensure!(wanted.channel == self.channel, "of another channel");
            }
            "GetGroupInfoResponse" => {
                let served = channels::GroupInfo::try_from(channels_v1::GetGroupInfoResponse::decode(bytes)?)?;
                // That of the commit by which the epoch began.
                let mut before = self.capture.events.iter().filter(|event| event.sequence <= served.sequence.0);
                let event = before.rfind(|event| event.group_info.is_some()).context("a start")?;
                ensure!(event.group_info.as_ref().is_some_and(|info| info.0 == served.group_info), "another GroupInfo");
            }
            other => bail!("{other} is not judged"),
        }
        Ok(())
    }

    fn messages(&mut self, name: &str, item: &'a Item) -> Result<()> {
        let bytes = item.bytes.0.as_slice();
        match name {
            "SendRequest" => {
                let send = messages::Send::try_from(messages_v1::SendRequest::decode(bytes)?)?;
                ensure!(send.channel == self.channel, "in another channel");
                let event = self.asked(item, send.id)?;
                // A message that was refused is encrypted again under its id.
                let is_first = self.refusal_follows(item, send.id)?;
                let refused = event.plaintext.as_ref().and_then(|plaintext| plaintext.refused.as_ref());
                let expected = if is_first { refused.context("a refused message")? } else { &event.mls };
                ensure!(expected.0 == send.mls, "another message");
            }
            "SendResponse" => self.answered(item)?,
            "ReceiveRequest" => self.wants(item)?,
            "ReceiveResponse" => self.received(item)?,
            other => bail!("{other} is not judged"),
        }
        Ok(())
    }

    fn said(&mut self, item: &'a Item) -> &mut Said {
        self.said.entry(&item.device).or_default()
    }

    fn event(&self, sequence: Sequence) -> Result<&'a EventPart> {
        let index = usize::try_from(sequence.0)?.checked_sub(1).context("an event")?;
        self.capture.events.get(index).with_context(|| format!("there is no event {}", sequence.0))
    }

    /// The event that was handed in under this id by this device.
    fn asked(&mut self, item: &'a Item, id: IdempotencyId) -> Result<&'a EventPart> {
        self.said(item).asked.push(id);
        let event = self.capture.events.iter().find(|event| event.idempotency_id.0 == id.0);
        let event = event.context("an id of no event")?;
        ensure!(self.capture.device(&item.device)?.uri == event.sender, "another's event");
        Ok(event)
    }

    fn accepted(&mut self, item: &'a Item, receipt: Receipt) -> Result<()> {
        let id = self.said(item).asked.pop().context("nothing was asked")?;
        self.check_receipt(id, receipt)
    }

    fn check_receipt(&self, id: IdempotencyId, receipt: Receipt) -> Result<()> {
        let event = self.event(receipt.sequence)?;
        ensure!(event.idempotency_id.0 == id.0, "a receipt for something else");
        ensure!(event.gateway_time_us == receipt.gateway_time.0, "another time");
        ensure!((event.leaf_index, receipt.policy_version) == (receipt.leaf_index, 0), "another leaf or policy");
        ensure!(event.leaf_hash.0 == receipt.leaf_hash.0, "another leaf hash");
        // Session 1 is older than this field.
        ensure!(receipt.chain_hash.is_none_or(|hash| event.chain_hash.0 == hash.0), "another chain hash");
        Ok(())
    }

    /// Whether the next answer to this id, behind this message, is a refusal.
    fn refusal_follows(&self, item: &Item, id: IdempotencyId) -> Result<bool> {
        for later in self.capture.wire.iter().filter(|later| later.number > item.number) {
            if later.device == item.device && later.message == "lianxin.messages.v1.SendResponse" {
                let outcome = messages::SendOutcome::try_from(messages_v1::SendResponse::decode(&later.bytes.0[..])?)?;
                ensure!(outcome.id == id, "answers come in the order of requests");
                return Ok(outcome.result.is_err());
            }
        }
        bail!("it has no answer")
    }

    fn answered(&mut self, item: &'a Item) -> Result<()> {
        let outcome = messages::SendOutcome::try_from(messages_v1::SendResponse::decode(&item.bytes.0[..])?)?;
        let asked = self.said(item).asked.pop().context("nothing was asked")?;
        ensure!(asked == outcome.id, "an answer to something else");
        match outcome.result {
            Ok(receipt) => self.check_receipt(outcome.id, receipt),
            Err(problem) => {
                ensure!(problem.code == ReasonCode::WrongEpoch && problem.try_again, "refused for another reason");
                let event = self.event(problem.sequence)?;
                ensure!(event.epoch == problem.epoch.0, "another epoch");
                self.said(item).refused.push(outcome.id);
                Ok(())
            }
        }
    }

    fn published(&self, item: &Item) -> Result<()> {
        let publish = key_packages::Publish::try_from(key_packages_v1::PublishRequest::decode(&item.bytes.0[..])?)?;
        let published = publish.key_packages.iter().chain(&publish.last_resort).map(|package| &package[..]);
        let known = &self.capture.device(&item.device)?.key_packages;
        ensure!(published.eq(known.iter().map(|package| &package.message.0[..])), "other key packages");
        Ok(())
    }

    fn wants(&mut self, item: &'a Item) -> Result<()> {
        match messages::Receive::try_from(messages_v1::ReceiveRequest::decode(&item.bytes.0[..])?)? {
            messages::Receive::Follow { channel, after } => {
                ensure!(channel == self.channel, "another channel");
                self.said(item).cursor = Some(after);
            }
            messages::Receive::Confirm { cursors, inbox } => {
                let cursor = self.said(item).cursor.context("it follows")?;
                ensure!(cursors == [(self.channel, cursor)] && inbox.len() == 1, "it confirms something else");
            }
            messages::Receive::Unfollow { .. } => bail!("nobody stops following"),
        }
        Ok(())
    }

    fn received(&mut self, item: &'a Item) -> Result<()> {
        match Frame::try_from(messages_v1::ReceiveResponse::decode(&item.bytes.0[..])?)? {
            Frame::Events(events) => {
                for event in events {
                    let said = self.said(item);
                    ensure!(said.cursor.map(Sequence::next) == Some(event.sequence), "the log has a hole");
                    said.cursor = Some(event.sequence);
                    self.check_event(&event)?;
                }
            }
            Frame::Opened { bundle_digest, .. } => {
                ensure!(bundle_digest == federation(self.capture)?.bundle().digest, "another bundle");
            }
            Frame::CaughtUp { channel, sequence } => {
                ensure!(channel == self.channel && self.said(item).cursor == Some(sequence), "caught up elsewhere");
            }
            Frame::Inbox { item: InboxItem::Welcome(welcome), .. } => {
                let event = self.event(welcome.head.sequence)?;
                ensure!(welcome.channel == self.channel, "of another channel");
                ensure!(event.chain_hash.0 == welcome.head.chain_hash.0, "another chain");
                ensure!(event.welcome.as_ref().is_some_and(|known| known.0 == welcome.welcome), "another Welcome");
                ensure!(event.sender == welcome.inviter.as_str(), "another inviter");
                ensure!(event.gateway_time_us == welcome.gateway_time.0, "another time");
            }
            Frame::Closed { channel, reason } => {
                ensure!(channel == Some(self.channel) && reason.code == ReasonCode::NotMember, "closed otherwise");
            }
            other => bail!("not in a session: {other:?}"),
        }
        Ok(())
    }

    fn check_event(&self, event: &Event) -> Result<()> {
        let known = self.event(event.sequence)?;
        ensure!(event.channel == self.channel && event.kind == kind(known)?, "another channel or kind");
        ensure!(event.sender.as_str() == known.sender && event.mls == known.mls.0, "another sender or message");
        ensure!(event.gateway_time.0 == known.gateway_time_us && event.expiry.is_none(), "another time");
        ensure!(event.label_reference == label_reference(&self.label), "another label");
        ensure!(event.leaf_index == known.leaf_index && event.leaf_hash.0[..] == known.leaf_hash.0, "another leaf");
        ensure!(event.idempotency_id.0[..] == known.idempotency_id.0, "another id");
        Ok(())
    }
}

/// `lianxin.channels.v1.CreateRequest` is read by the parser `channels_create_request`.
fn parser(message: &str) -> Result<String> {
    let (subject, name) = message.strip_prefix("lianxin.").and_then(|rest| rest.split_once(".v1.")).context("ours")?;
    let mut parser = subject.to_owned();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            parser.push('_');
        }
        parser.push(letter.to_ascii_lowercase());
    }
    Ok(parser)
}
