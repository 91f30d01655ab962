//! The session that is captured: the real gateway over a real store, four devices of three departments, one call after the other.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use lianxin_gateway::{Config, Embedded};
use lianxin_mls::{CommitBundle, NewChannel};
use lianxin_profile::{AuthenticatedData, Payload, parse_application, stored_context};
use lianxin_proto::ReasonCode;
use lianxin_proto::channels::{Create, Leave};
use lianxin_proto::messages::Event;
use lianxin_specimens::{fresh_id, office};
use lianxin_tlog::{EventKind, chain_start};
use lianxin_types::{
    ChannelId, Classification, Clock as _, IdempotencyId, Label, Random, Sequence, SystemClock, SystemRandom,
};
use openmls::prelude::{GroupId, MlsGroup};
use openmls_rust_crypto::RustCrypto;

use crate::actor::Actor;
use crate::format::{
    Capture, ChannelPart, EventPart, ExporterPart, FORMAT, FederationPart, FollowerPart, HeadPart, Hex, PlaintextPart,
    SecretsPart,
};
use crate::judge::named_head;
use crate::tape::Tape;

const EXPORTER: (&str, &[u8], usize) = ("lianxin capture", b"epoch", 32);
const NOTE: &str = "TEST KEYS ONLY. Every private key in this file is published: never trust this federation, its authorities or \
                    its devices anywhere.";
const DEPARTMENTS: [&str; 3] = ["jiwei", "shenji", "weijian"];
const PURPOSE: &str = "联合核查";
const LEGAL_BASIS: &str = "审计法第三十七条";

/// Records a session from its beginning to its end.
pub(crate) async fn record(name: &str) -> Result<Capture> {
    let folder = tempfile::tempdir()?;
    let gateway = gateway(folder.path()).await?;
    let tape = Tape::default();
    let mut a = Actor::open("A", "jiwei", &gateway, &tape).await?;
    let mut b = Actor::open("B", "shenji", &gateway, &tape).await?;
    let mut c = Actor::open("C", "weijian", &gateway, &tape).await?;
    let mut d = Actor::open("D", "shenji", &gateway, &tape).await?;
    for actor in [&mut b, &mut c, &mut d] {
        actor.publish().await?;
    }
    let mut book = Book::start(&mut a).await?;
    let channel = book.channel;

    let bundle = book.invite(&a, &[&c]).await?;
    book.commit(&mut a, &mut [], bundle, "A adds C").await?;
    book.joined(&mut c).await?;
    book.talk(&mut a, &mut [&mut c], "纪委监委：只有我们两个在。").await?;
    let bundle = book.invite(&a, &[&b, &d]).await?;
    book.commit(&mut a, &mut [&mut c], bundle, "A adds B and D: one Welcome for both").await?;
    book.joined(&mut b).await?;
    book.joined(&mut d).await?;

    book.talk(&mut a, &mut [&mut b, &mut c, &mut d], "纪委监委：请提供三月份台账。").await?;
    book.talk(&mut b, &mut [&mut a, &mut c, &mut d], "审计局：已收到，稍后提供。").await?;
    let bundle = c.run(move |mls, tx, federation| mls.commit_pending(tx, federation, channel))?;
    // B has not read that commit when it speaks.
    let (id, text) = (fresh_id(), "审计局：台账如下。");
    let committed = book.commit_unread(&mut c, &mut [&mut a], bundle, "C renews the keys of its leaf").await?;
    let answer = b.send(channel, id, text).await?;
    ensure!(answer.is_err_and(|problem| problem.code == ReasonCode::WrongEpoch), "B knew the epoch");
    let refused = b.last_sent.clone();
    for actor in [&mut b, &mut d] {
        actor.read(committed).await?;
    }
    book.talk_as(&mut b, &mut [&mut a, &mut c, &mut d], id, text).await?;
    book.last()?.plaintext.as_mut().context("B has spoken")?.refused = Some(refused.into());

    c.run(move |mls, tx, _| mls.discard(tx, channel))?;
    let (info, tree) = c.served(channel).await?;
    let bundle = c.run(move |mls, tx, federation| mls.rejoin(tx, federation, channel, &info, &tree))?;
    book.come_back(&mut c, &mut [&mut a, &mut b, &mut d], bundle).await?;
    book.talk(&mut c, &mut [&mut a, &mut b, &mut d], "卫生健康委：我回来了。").await?;

    let bundle = a.run(move |mls, tx, federation| mls.commit_pending(tx, federation, channel))?;
    book.commit(&mut a, &mut [&mut b, &mut c, &mut d], bundle, "A renews the keys of its leaf").await?;
    book.talk(&mut d, &mut [&mut a, &mut b, &mut c], "审计局二号机：核对完毕。").await?;
    let gone = b.device.uri.clone();
    let bundle = a.run(move |mls, tx, federation| mls.remove(tx, federation, channel, &[gone]))?;
    book.commit(&mut a, &mut [&mut b, &mut c, &mut d], bundle, "A removes B").await?;
    ensure!(b.closed().await?.code == ReasonCode::NotMember, "B is out");

    book.leave(&mut c, &mut [&mut a, &mut d]).await?;
    let bundle = a.run(move |mls, tx, federation| mls.commit_pending(tx, federation, channel))?;
    book.commit(&mut a, &mut [&mut c, &mut d], bundle, "A commits the leave of C, by reference").await?;
    book.talk(&mut a, &mut [&mut d], "纪委监委：此案办结。").await?;

    let devices = [&a, &b, &c, &d].map(Actor::part).to_vec();
    book.finish(name, devices, &tape)
}

async fn gateway(folder: &Path) -> Result<Embedded> {
    let minted = office().minted();
    let lists = minted.revocation_list_files()?;
    let lists: Vec<_> = lists.iter().map(|path| format!("{:?}", path.display().to_string())).collect();
    let key = folder.join("pseudonym.key").display().to_string();
    let text = format!(
        "zone = \"cn-zj-1\"\nlisten = \"127.0.0.1:0\"\n\
         [tls]\ncertificate = \"gateway/tls.pem\"\nkey = \"gateway/tls.key\"\n\
         [trust]\nroots = \"roots.json\"\nbundle = \"trust-bundle.note\"\nrevocation_lists = [{}]\n\
         removal_key = \"gateway/removal.key\"\n\
         [store]\nengine = \"sled\"\nfolder = \"opened-by-hand\"\n[audit]\npseudonym_key = {key:?}\n",
        lists.join(", ")
    );
    let config = Config::parse(&text, &minted.folder().join("gateway.toml"))?;
    let disk = Arc::new(lianxin_store_sled::RealDisk);
    let store = lianxin_store_sled::open(&folder.join("zone"), config.zone.clone(), Arc::new(SystemClock), disk)?;
    Ok(Embedded::open(&config, store, Arc::new(SystemClock), Arc::new(SystemRandom)).await?)
}

/// What the capture says of the log.
struct Book {
    channel: ChannelId,
    events: Vec<EventPart>,
    followers: Vec<FollowerPart>,
    slot_key: [u8; 32],
}

impl Book {
    async fn start(a: &mut Actor) -> Result<Self> {
        let channel = ChannelId((&SystemRandom as &dyn Random).array());
        let label = Label::new(Classification::General3, PURPOSE, LEGAL_BASIS, None)?;
        let departments = DEPARTMENTS.map(|name| name.parse().expect("well formed")).to_vec();
        let new = NewChannel { channel, zone: "cn-zj-1".parse()?, label, departments };
        let start = a.run(move |mls, tx, federation| mls.create(tx, federation, &new))?;
        let (group_info, ratchet_tree) = (start.group_info.clone().into(), start.ratchet_tree.clone().into());
        let receipt = a.connection().create(Create { id: fresh_id(), group_info, ratchet_tree }).await?;
        let slot_key =
            *stored_context(lianxin_profile::parse_group_info(&start.group_info)?.group_context())?.slot_key();
        let mut book = Self { channel, events: Vec::new(), followers: Vec::new(), slot_key };
        a.follow(channel, Sequence(0)).await?;
        for event in a.read(receipt.sequence).await? {
            book.note(a, &event, "A starts the channel")?;
        }
        let last = book.last()?;
        (last.group_info, last.ratchet_tree) = (Some(start.group_info.into()), Some(start.ratchet_tree.into()));
        Ok(book)
    }

    fn last(&mut self) -> Result<&mut EventPart> {
        self.events.last_mut().context("there was an event")
    }

    /// What A knows behind an event.
    fn note(&mut self, a: &Actor, event: &Event, what: &str) -> Result<()> {
        let channel = self.channel;
        let view = a.run(move |mls, tx, _| mls.channel(tx, channel))?.context("A is a member")?;
        ensure!(view.head.sequence == event.sequence, "A reads one event after the other");
        let exported = a.run(move |_, tx, _| {
            let id = GroupId::from_slice(&[&channel.0[..], &[0; 4]].concat());
            let group = MlsGroup::load(&tx.mls(), &id)?.expect("A is a member");
            let (label, context, length) = EXPORTER;
            Ok(group.export_secret(&RustCrypto::default(), label, context, length).expect("there is one"))
        })?;
        let kind = match event.kind {
            EventKind::Start => "START",
            EventKind::Commit => "COMMIT",
            EventKind::Application => "APPLICATION",
            EventKind::Proposal => "PROPOSAL",
            EventKind::Report | EventKind::Notice => anyhow::bail!("not in this session"),
        };
        let names = named_head(event.kind, &event.mls)?;
        let names_head = names.map(|AuthenticatedData { head }| HeadPart {
            sequence: head.sequence.0,
            chain_hash: head.chain_hash.0.into(),
        });
        self.events.push(EventPart {
            sequence: event.sequence.0,
            what: what.to_owned(),
            kind: kind.to_owned(),
            sender: event.sender.as_str().to_owned(),
            gateway_time_us: event.gateway_time.0,
            idempotency_id: event.idempotency_id.0.into(),
            mls: Hex::from(&event.mls),
            names_head,
            chain_hash: view.head.chain_hash.0.into(),
            leaf_index: event.leaf_index,
            leaf_hash: event.leaf_hash.0.into(),
            epoch: view.epoch.0,
            secrets: (event.kind != EventKind::Start).then(|| SecretsPart {
                epoch_authenticator: view.epoch_authenticator.0.into(),
                exported: exported.into(),
            }),
            // Names follow when all devices are known.
            members: view.members.iter().map(|member| member.as_str().to_owned()).collect(),
            group_info: None,
            ratchet_tree: None,
            welcome: None,
            plaintext: None,
        });
        Ok(())
    }

    async fn invite(&self, inviter: &Actor, newcomers: &[&Actor]) -> Result<CommitBundle> {
        let (channel, packages) = (self.channel, inviter.claim(self.channel, newcomers).await?);
        Ok(inviter.run(move |mls, tx, federation| mls.invite(tx, federation, channel, &packages))?)
    }

    /// `sender` commits; it and the others read it.
    async fn commit(
        &mut self,
        sender: &mut Actor,
        others: &mut [&mut Actor],
        bundle: CommitBundle,
        what: &str,
    ) -> Result<()> {
        self.commit_unread(sender, others, bundle, what).await.map(drop)
    }

    /// The same, and somebody else reads it later.
    async fn commit_unread(
        &mut self,
        sender: &mut Actor,
        others: &mut [&mut Actor],
        bundle: CommitBundle,
        what: &str,
    ) -> Result<Sequence> {
        let sequence = sender.commit(self.channel, &bundle).await?.sequence;
        self.read(sender, others, sequence, what).await?;
        let last = self.last()?;
        last.group_info = Some(bundle.group_info.into());
        last.welcome = (!bundle.welcome.is_empty()).then(|| bundle.welcome.into());
        Ok(sequence)
    }

    /// As [`Book::commit`], by one that has lost everything: its chain begins at the head in the GroupInfo by which it comes back, and
    /// what stands between that and its way back it reads unopened.
    async fn come_back(&mut self, c: &mut Actor, others: &mut [&mut Actor], bundle: CommitBundle) -> Result<()> {
        let (channel, last) = (self.channel, self.last()?.sequence);
        let head = c.run(move |mls, tx, _| mls.head(tx, channel))?.context("a way back has a beginning")?;
        c.follow(channel, head.sequence).await?;
        c.read(Sequence(last)).await?;
        let sequence = c.commit(self.channel, &bundle).await?.sequence;
        self.read(c, others, sequence, "C has lost its group and comes back by an external commit").await?;
        self.last()?.group_info = Some(bundle.group_info.into());
        Ok(())
    }

    async fn read(
        &mut self,
        sender: &mut Actor,
        others: &mut [&mut Actor],
        sequence: Sequence,
        what: &str,
    ) -> Result<()> {
        for actor in std::iter::once(sender).chain(others.iter_mut().map(|other| &mut **other)) {
            let read = actor.read(sequence).await?;
            if actor.name == "A" {
                let [event] = &read[..] else { anyhow::bail!("A reads one event after the other: {read:?}") };
                self.note(actor, event, what)?;
            }
        }
        Ok(())
    }

    async fn joined(&mut self, newcomer: &mut Actor) -> Result<()> {
        let tree = newcomer.join().await?;
        let last = self.last()?;
        last.ratchet_tree = Some(tree.into());
        let joins = last.sequence;
        self.followers.push(FollowerPart { device: newcomer.name.to_owned(), joins, last: 0 });
        Ok(())
    }

    async fn talk(&mut self, sender: &mut Actor, others: &mut [&mut Actor], text: &str) -> Result<()> {
        self.talk_as(sender, others, fresh_id(), text).await
    }

    async fn talk_as(
        &mut self,
        sender: &mut Actor,
        others: &mut [&mut Actor],
        id: IdempotencyId,
        text: &str,
    ) -> Result<()> {
        let receipt = sender.send(self.channel, id, text).await?;
        let sequence = receipt.map_err(|problem| anyhow::anyhow!("{problem}"))?.sequence;
        let what = format!("{} speaks", sender.name);
        self.read(sender, others, sequence, &what).await?;
        let payload = Payload { intent: id, body: text.as_bytes().to_vec() }.to_bytes()?;
        let last = self.last()?;
        parse_application(&last.mls.0)?;
        let (payload, intent, text) = (payload.into(), id.0.into(), text.to_owned());
        last.plaintext = Some(PlaintextPart { payload, intent, text, refused: None });
        Ok(())
    }

    async fn leave(&mut self, c: &mut Actor, others: &mut [&mut Actor]) -> Result<()> {
        let channel = self.channel;
        let proposal = c.run(move |mls, tx, _| mls.leave(tx, channel))?.into();
        let receipt = c.connection().leave(Leave { id: fresh_id(), channel, proposal }).await?;
        self.read(c, others, receipt.sequence, "C asks to leave").await
    }

    fn finish(self, name: &str, devices: Vec<crate::format::DevicePart>, tape: &Tape) -> Result<Capture> {
        let Self { channel, mut events, mut followers, slot_key } = self;
        for member in events.iter_mut().flat_map(|event| &mut event.members) {
            let device = devices.iter().find(|device| device.uri == *member);
            *member = device.context("a device")?.name.clone();
        }
        for follower in &mut followers {
            let uri = devices.iter().find(|device| device.name == follower.device).context("a device")?.uri.as_str();
            // Its own commit needs keys that are not in a key package.
            let own = |event: &&EventPart| event.kind == "COMMIT" && event.sender == uri;
            let own = events.iter().find(own).map_or(events.len() as u64, |event| event.sequence - 1);
            let removed = events.iter().find(|event| event.what == format!("A removes {}", follower.device));
            follower.last = removed.map_or(own, |event| event.sequence.min(own));
        }
        let (label, context, length) = EXPORTER;
        let federation = office().federation();
        Ok(Capture {
            format: FORMAT,
            name: name.to_owned(),
            note: NOTE.to_owned(),
            protocol_version: lianxin_proto::PROTOCOL_VERSION,
            captured_us: SystemClock.now().0,
            federation: FederationPart {
                roots: serde_json::from_str(&office().minted().roots()?.to_json())?,
                trust_bundle: Hex::from(&federation.bundle().note),
                revocation_lists: federation.revocation_lists().map(Hex::from).collect(),
            },
            channel: ChannelPart {
                id: channel.0.into(),
                zone: "cn-zj-1".to_owned(),
                departments: DEPARTMENTS.map(str::to_owned).to_vec(),
                purpose: PURPOSE.to_owned(),
                legal_basis: LEGAL_BASIS.to_owned(),
                slot_key: slot_key.into(),
                chain_start: chain_start(&channel).chain_hash.0.into(),
            },
            exporter: ExporterPart { label: label.to_owned(), context: context.into(), length },
            devices,
            followers,
            events,
            wire: tape.take(),
        })
    }
}
