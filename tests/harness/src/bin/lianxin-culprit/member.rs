//! A device without the SDK's good manners: engine and connection, driven by hand.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ed25519_dalek::SigningKey;
use lianxin_certs_dev::{Minted, read_signing_key};
use lianxin_connection::{CallError, Connection, Target, TlsIdentity};
use lianxin_harness::Refusal;
use lianxin_keystore::{Keystore, StateKey, Transaction};
use lianxin_mls::{Invitation, LeafCare, LogEvent, Mls, MlsError, MlsIdentity};
use lianxin_proto::Receipt;
use lianxin_proto::channels::{Commit, GetWelcomeTree};
use lianxin_proto::key_packages::Publish;
use lianxin_proto::messages::{Frame, History, InboxItem, Send};
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, DeviceUri, IdempotencyId, Random, Sequence, SystemClock, SystemRandom};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::forge;

/// Its keys are always due, so it may commit whenever it likes.
const ALWAYS: LeafCare = LeafCare { after_joining: Duration::ZERO, every: Duration::ZERO };
const PAGE: usize = 500;

/// The device, and the channel that it joined.
pub(crate) struct Member {
    connection: Connection,
    device: DeviceUri,
    keystore: Keystore,
    mls: Arc<Mls>,
    key: SigningKey,
    federation: Arc<Federation>,
    channel: Option<ChannelId>,
}

impl Member {
    /// Connects as this application and publishes a key package.
    pub(crate) async fn open(federation: &Path, department: &str, app: &str, state: &Path) -> anyhow::Result<Self> {
        let minted = Minted::open(federation)?;
        let paths = minted.app(department, app)?;
        let bundle = minted.bundle()?.bundle;
        let zone = bundle.zones.first().context("the bundle has no zone")?;
        let address = zone.endpoints.first().context("the zone has no endpoint")?.clone();
        let target = Target { zone: zone.id.clone(), operator: zone.department.clone(), address };
        let tls = TlsIdentity::from_pem(&std::fs::read(&paths.tls_certificate)?, &std::fs::read(&paths.tls_key)?)?;
        let federation = Arc::new(minted.federation()?);
        let clock = Arc::new(SystemClock);
        let (connection, _) =
            Connection::connect(&target, &tls, Arc::clone(&federation), clock, "lianxin-culprit").await?;
        let chain = vec![CertificateDer::from_pem_file(&paths.mls_certificate)?.to_vec()];
        let key = read_signing_key(&paths.mls_key)?;
        let identity = MlsIdentity { chain, key: key.to_bytes().into() };
        let mls = Mls::new(identity, paths.uri.clone(), Arc::new(SystemClock), Arc::new(SystemRandom))?;
        let keystore = Keystore::open(state, &StateKey::generate(&SystemRandom), Arc::new(SystemRandom))?;
        let mls = Arc::new(mls.with_leaf_care(ALWAYS));
        let device = paths.uri;
        let member = Self { connection, device, keystore, mls, key, federation, channel: None };
        let made = member.work(|tx, mls, federation| mls.key_packages(tx, federation, 1, false)).await?;
        let key_packages = made.one_time.into_iter().map(Into::into).collect();
        let publish = Publish { id: fresh_id(), key_packages, last_resort: None };
        accepted(member.connection.publish(publish).await)?;
        Ok(member)
    }

    pub(crate) fn device(&self) -> &str {
        self.device.as_str()
    }

    /// Waits for an invitation and joins.
    pub(crate) async fn join(&mut self) -> anyhow::Result<ChannelId> {
        let (_control, mut frames) = self.connection.receive_stream();
        let welcome = loop {
            let frame = frames.next().await.context("the stream has ended")??;
            if let Frame::Inbox { item: InboxItem::Welcome(welcome), .. } = frame {
                break welcome;
            }
        };
        let wanted = GetWelcomeTree { channel: welcome.channel, sequence: welcome.head.sequence };
        let tree = self.connection.welcome_tree(wanted).await?.ratchet_tree;
        let invitation = Invitation {
            channel: welcome.channel,
            head: welcome.head,
            welcome: welcome.welcome.to_vec(),
            tree: tree.to_vec(),
            inviter: welcome.inviter,
        };
        self.work(move |tx, mls, federation| mls.join(tx, federation, &invitation).map(drop)).await?;
        self.channel = Some(welcome.channel);
        Ok(welcome.channel)
    }

    /// The commit that breaks the channel for everybody: its confirmation tag is wrong, and nobody can come back by its GroupInfo.
    pub(crate) async fn break_channel(&self) -> anyhow::Result<Receipt> {
        let channel = self.channel()?;
        self.read().await?;
        let mut bundle = self.work(move |tx, mls, federation| mls.commit_pending(tx, federation, channel)).await?;
        forge::unconfirmed(&mut bundle.commit);
        let group_info = forge::without_way_back(&bundle.group_info, &self.key).context("an external_pub")?;
        let commit = Commit {
            id: fresh_id(),
            channel,
            commit: bundle.commit.into(),
            welcome: None,
            group_info: group_info.into(),
        };
        accepted(self.connection.commit(commit).await)
    }

    /// Speaks in the group that it knows.
    pub(crate) async fn send(&self, text: &str) -> anyhow::Result<Receipt> {
        let (channel, body) = (self.channel()?, text.as_bytes().to_vec());
        let id = fresh_id();
        let discarded = self.work(move |tx, mls, _| mls.discard_commit(tx, channel)).await;
        discarded.context("drop the own commit, which nobody took")?;
        let made = self.work(move |tx, mls, federation| mls.encrypt(tx, federation, channel, id, &body)).await?;
        let (sender, mut outcomes) = self.connection.send_stream();
        sender.send(Send { id, channel, mls: made.mls.into() }).await?;
        let outcome = outcomes.next().await.context("the stream has ended")??;
        accepted(outcome.result.map_err(CallError::Refused))
    }

    async fn read(&self) -> anyhow::Result<()> {
        let channel = self.channel()?;
        let head = self.work(move |tx, mls, _| mls.head(tx, channel)).await?;
        let after = head.map_or(Sequence(0), |head| head.sequence);
        let page = self.connection.history(History { channel, after, events_max: PAGE }).await?;
        for event in page.events {
            let event = LogEvent {
                channel: event.channel,
                sequence: event.sequence,
                kind: event.kind,
                sender: event.sender,
                gateway_time: event.gateway_time,
                expiry: event.expiry,
                mls: event.mls.to_vec(),
                idempotency_id: event.idempotency_id,
            };
            self.work(move |tx, mls, federation| mls.process(tx, federation, &event).map(drop)).await?;
        }
        Ok(())
    }

    fn channel(&self) -> anyhow::Result<ChannelId> {
        self.channel.context("it has joined nothing")
    }

    async fn work<T: std::marker::Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>, &Mls, &Federation) -> Result<T, MlsError> + std::marker::Send + 'static,
    ) -> anyhow::Result<T> {
        let (mls, federation) = (Arc::clone(&self.mls), Arc::clone(&self.federation));
        let done = self.keystore.transaction(move |tx| work(tx, &mls, &federation).map_err(anyhow::Error::from));
        done.await
    }
}

fn fresh_id() -> IdempotencyId {
    IdempotencyId((&SystemRandom as &dyn Random).array())
}

/// The receipt, or the refusal in the words of the harness.
fn accepted(answer: Result<Receipt, CallError>) -> anyhow::Result<Receipt> {
    match answer {
        Ok(receipt) => Ok(receipt),
        Err(CallError::Refused(problem)) => {
            let reason = problem.code.as_str_name().trim_start_matches("REASON_CODE_").to_owned();
            Err(Refusal { reason, error: problem.to_string() }.into())
        }
        Err(other) => bail!(other),
    }
}
