//! A device whose calls come one after the other, so that a reader can follow them: the SDK's engine and connection, without its
//! client around them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use lianxin_connection::{CallError, Connection, OutcomeStream, ReceiveControl, SendStream, Target};
use lianxin_gateway::Embedded;
use lianxin_keystore::Transaction;
use lianxin_mls::{CommitBundle, Invitation, LeafCare, LogEvent, Mls, MlsError};
use lianxin_proto::channels::{Commit, GetGroupInfo, GetWelcomeTree};
use lianxin_proto::directory::GetTrust;
use lianxin_proto::key_packages::{Claim, Publish};
use lianxin_proto::messages::{Event, Frame, InboxItem, Receive, Send, Welcome};
use lianxin_proto::{Problem, Receipt};
use lianxin_specimens::{Device, fresh_id, office};
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, IdempotencyId, Sequence, SystemClock};
use openmls::prelude::{MlsMessageBodyIn, MlsMessageIn, ProtocolVersion};
use openmls_rust_crypto::RustCrypto;
use openmls_traits::storage::StorageProvider as _;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tls_codec::Deserialize as _;

use crate::format::{DevicePart, Hex, KeyPackagePart};
use crate::tape::{Recorder, Tape};

/// Its keys are always due, so that it may commit whenever the story says so.
const ALWAYS: LeafCare = LeafCare { after_joining: Duration::ZERO, every: Duration::ZERO };

pub(crate) struct Actor {
    pub(crate) name: &'static str,
    pub(crate) device: Device,
    connection: Connection,
    control: ReceiveControl,
    frames: lianxin_connection::FrameStream,
    sending: SendStream,
    outcomes: OutcomeStream,
    key_packages: Vec<KeyPackagePart>,
    welcome: Option<(u64, Welcome)>,
    /// The message that it has handed in last.
    pub(crate) last_sent: Vec<u8>,
    tls_certificate: Vec<u8>,
}

impl Actor {
    /// Connects, fetches the trust bundle, and opens both streams.
    pub(crate) async fn open(name: &'static str, department: &str, gateway: &Embedded, tape: &Tape) -> Result<Self> {
        let device = Device::caring(department, ALWAYS);
        let tls_certificate = CertificateDer::from_pem_file(device.paths().tls_certificate)?.to_vec();
        let line = gateway.line(Arc::new(vec![tls_certificate.clone()]));
        let bundle = office().minted().bundle()?.bundle;
        let zone = bundle.zones.first().context("the bundle has a zone")?;
        let address = zone.endpoints.first().context("with an endpoint")?.clone();
        let target = Target { zone: zone.id.clone(), operator: zone.department.clone(), address };
        let recorder = Recorder { device: name, line, tape: tape.clone() };
        let (connection, _) =
            Connection::connect_by(&recorder, &target, Arc::new(SystemClock), "lianxin-capture").await?;
        connection.trust(GetTrust { known_version: 0 }).await?;
        let (control, frames) = connection.receive_stream();
        let (sending, outcomes) = connection.send_stream();
        let mut actor = Self {
            name,
            device,
            connection,
            control,
            frames,
            sending,
            outcomes,
            key_packages: Vec::new(),
            welcome: None,
            last_sent: Vec::new(),
            tls_certificate,
        };
        match actor.frame().await? {
            Frame::Opened { .. } => Ok(actor),
            other => Err(anyhow!("a stream begins with Opened: {other:?}")),
        }
    }

    pub(crate) fn part(&self) -> DevicePart {
        let identity = self.device.identity();
        DevicePart {
            name: self.name.to_owned(),
            uri: self.device.uri.as_str().to_owned(),
            tls_certificate: Hex::from(&self.tls_certificate),
            mls_certificate: Hex::from(&identity.chain[0]),
            mls_signature_key: Hex::from(*identity.key),
            key_packages: self.key_packages.clone(),
        }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Works on the device's own state.
    pub(crate) fn run<T: std::marker::Send + 'static>(
        &self,
        work: impl FnOnce(&Mls, &Transaction<'_>, &Federation) -> Result<T, MlsError> + std::marker::Send + 'static,
    ) -> Result<T, MlsError> {
        tokio::task::block_in_place(|| self.device.run(work))
    }

    /// Makes a key package of one use and a last resort, keeps their private keys for the capture, and publishes them.
    pub(crate) async fn publish(&mut self) -> Result<()> {
        let made = self.run(|mls, tx, federation| mls.key_packages(tx, federation, 1, true))?;
        let last_resort = made.last_resort.context("asked for")?;
        for message in made.one_time.iter().chain([&last_resort]) {
            self.key_packages.push(self.secrets_of(message)?);
        }
        let key_packages = made.one_time.into_iter().map(Bytes::from).collect();
        let publish = Publish { id: fresh_id(), key_packages, last_resort: Some(last_resort.into()) };
        self.connection.publish(publish).await?;
        Ok(())
    }

    /// The private keys of a key package, out of the device's own state.
    fn secrets_of(&self, message: &[u8]) -> Result<KeyPackagePart> {
        let MlsMessageBodyIn::KeyPackage(package) = MlsMessageIn::tls_deserialize_exact(message)?.extract() else {
            return Err(anyhow!("no key package"));
        };
        let package = package.validate(&RustCrypto::default(), ProtocolVersion::Mls10)?;
        let reference = package.hash_ref(&RustCrypto::default())?;
        let bundle = self.run(move |_, tx, _| {
            let bundle: Option<openmls::prelude::KeyPackageBundle> = tx.mls().key_package(&reference)?;
            Ok(bundle.expect("just made"))
        })?;
        let bundle = serde_json::to_value(&bundle)?;
        let key = |name: &str| key_bytes(&bundle[name]).map(Hex).with_context(|| format!("{name}: {}", bundle[name]));
        let (init_key, leaf_key) = (key("private_init_key")?, key("private_encryption_key")?);
        Ok(KeyPackagePart { message: Hex::from(message), init_key, leaf_key })
    }

    pub(crate) async fn claim(&self, channel: ChannelId, owners: &[&Self]) -> Result<Vec<Vec<u8>>> {
        let owners = owners.iter().map(|owner| owner.device.uri.clone()).collect();
        let claimed = self.connection.claim(Claim { id: fresh_id(), channel, owners }).await?;
        Ok(claimed.key_packages.iter().map(|package| package.to_vec()).collect())
    }

    pub(crate) async fn commit(&self, channel: ChannelId, bundle: &CommitBundle) -> Result<Receipt> {
        let welcome = (!bundle.welcome.is_empty()).then(|| bundle.welcome.clone().into());
        let (commit, group_info) = (bundle.commit.clone().into(), bundle.group_info.clone().into());
        Ok(self.connection.commit(Commit { id: fresh_id(), channel, commit, welcome, group_info }).await?)
    }

    /// Encrypts in the epoch that it knows and hands the message in.
    pub(crate) async fn send(
        &mut self,
        channel: ChannelId,
        id: IdempotencyId,
        text: &str,
    ) -> Result<Result<Receipt, Problem>> {
        let body = text.as_bytes().to_vec();
        let made = self.run(move |mls, tx, federation| mls.encrypt(tx, federation, channel, id, &body))?;
        self.last_sent.clone_from(&made.mls);
        self.sending.send(Send { id, channel, mls: made.mls.into() }).await?;
        Ok(self.outcomes.next().await.context("the stream stands")??.result)
    }

    /// GroupInfo and tree of the current epoch.
    pub(crate) async fn served(&self, channel: ChannelId) -> Result<(Bytes, Bytes), CallError> {
        let served = self.connection.group_info(GetGroupInfo { channel }).await?;
        Ok((served.group_info, served.ratchet_tree))
    }

    pub(crate) async fn follow(&self, channel: ChannelId, after: Sequence) -> Result<()> {
        Ok(self.control.request(Receive::Follow { channel, after }).await?)
    }

    /// Waits for the Welcome, joins with the tree, follows the channel, and confirms.
    pub(crate) async fn join(&mut self) -> Result<Vec<u8>> {
        while self.welcome.is_none() {
            let frame = self.frame().await?;
            self.note(frame)?;
        }
        let (inbox_id, welcome) = self.welcome.take().context("waited for")?;
        let (channel, head) = (welcome.channel, welcome.head);
        let tree =
            self.connection.welcome_tree(GetWelcomeTree { channel, sequence: head.sequence }).await?.ratchet_tree;
        let (bytes, inviter) = (welcome.welcome.to_vec(), welcome.inviter);
        let invitation = Invitation { channel, head, welcome: bytes, tree: tree.to_vec(), inviter };
        self.run(move |mls, tx, federation| mls.join(tx, federation, &invitation))?;
        self.follow(channel, head.sequence).await?;
        self.control
            .request(Receive::Confirm { cursors: vec![(channel, head.sequence)], inbox: vec![inbox_id] })
            .await?;
        Ok(tree.to_vec())
    }

    /// Reads the log up to this event and takes it in.
    pub(crate) async fn read(&mut self, last: Sequence) -> Result<Vec<Event>> {
        let mut read = Vec::new();
        while read.last().is_none_or(|event: &Event| event.sequence < last) {
            let frame = self.frame().await?;
            for event in self.note(frame)? {
                let taken = LogEvent {
                    channel: event.channel,
                    sequence: event.sequence,
                    kind: event.kind,
                    sender: event.sender.clone(),
                    gateway_time: event.gateway_time,
                    expiry: event.expiry,
                    mls: event.mls.to_vec(),
                    idempotency_id: event.idempotency_id,
                };
                tokio::task::block_in_place(|| self.device.process(&taken))?;
                read.push(event);
            }
        }
        Ok(read)
    }

    fn note(&mut self, frame: Frame) -> Result<Vec<Event>> {
        match frame {
            Frame::Events(events) => return Ok(events),
            Frame::Inbox { inbox_id, item: InboxItem::Welcome(welcome) } => self.welcome = Some((inbox_id, welcome)),
            Frame::CaughtUp { .. } | Frame::Heartbeat { .. } => {}
            other => return Err(anyhow!("{} did not wait for this: {other:?}", self.name)),
        }
        Ok(Vec::new())
    }

    /// The word by which the gateway ends a channel for it.
    pub(crate) async fn closed(&mut self) -> Result<Problem> {
        match self.frame().await? {
            Frame::Closed { reason, .. } => Ok(reason),
            other => Err(anyhow!("{} waits for the end: {other:?}", self.name)),
        }
    }

    async fn frame(&mut self) -> Result<Frame> {
        Ok(self.frames.next().await.context("the stream stands")??)
    }
}

/// The 32 bytes of a key, wherever they lie in what openmls serialises.
fn key_bytes(value: &serde_json::Value) -> Option<Vec<u8>> {
    match value {
        serde_json::Value::Array(items) => {
            items.iter().map(|item| item.as_u64().and_then(|byte| u8::try_from(byte).ok())).collect()
        }
        serde_json::Value::Object(fields) => fields.values().find_map(key_bytes),
        _ => None,
    }
}
