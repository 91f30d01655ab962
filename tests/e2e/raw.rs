//! A device without the SDK's good manners: the MLS engine and the connection, driven by hand, so that a story can send
//! what an honest SDK never would.

use std::sync::Arc;

use bytes::Bytes;
use lianxin_certs_dev::read_signing_key;
use lianxin_connection::{CallError, Connection};
use lianxin_keystore::{Keystore, KeystoreError, StateKey, Transaction};
use lianxin_mls::{
    ChannelView, CommitBundle, Invitation, LogEvent, Mls, MlsError, MlsIdentity, NewChannel, StartBundle,
};
use lianxin_proto::channels::{
    AllowCommitter, Commit, Create, GetGroupInfo, GetWelcomeTree, Leave, ReplaceGroupInfo, Report, StartIncarnation,
};
use lianxin_proto::key_packages::{Claim, Publish};
use lianxin_proto::messages::{Event, Frame, History, InboxItem, Receive, Send};
use lianxin_proto::{Problem, Receipt};
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, DeviceUri, IdempotencyId, Label, Random, Sequence, SystemClock, SystemRandom, ZoneId};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::talk::{departments, soon};
use crate::zone::Zone;

/// What a call got: a receipt, or the gateway's refusal. Anything else fails the story.
pub(crate) type Answer = Result<Receipt, Problem>;

pub(crate) struct RawDevice {
    pub(crate) connection: Connection,
    pub(crate) uri: DeviceUri,
    keystore: Keystore,
    mls: Arc<Mls>,
    pub(crate) federation: Arc<Federation>,
}

#[derive(Debug)]
#[expect(dead_code, reason = "shown when a story fails")]
enum Failed {
    Mls(MlsError),
    State(KeystoreError),
}

impl From<KeystoreError> for Failed {
    fn from(error: KeystoreError) -> Self {
        Self::State(error)
    }
}

pub(crate) fn fresh_id() -> IdempotencyId {
    IdempotencyId((&SystemRandom as &dyn Random).array())
}

#[track_caller]
pub(crate) fn answer(result: Result<Receipt, CallError>) -> Answer {
    match result {
        Ok(receipt) => Ok(receipt),
        Err(CallError::Refused(problem)) => Err(problem),
        Err(other) => panic!("neither yes nor no: {other:?}"),
    }
}

impl Zone {
    /// The first application of each of these departments, without the SDK.
    pub(crate) async fn raws<const N: usize>(&self, departments: [&str; N]) -> [RawDevice; N] {
        let mut opened = Vec::new();
        for department in departments {
            opened.push(RawDevice::open(self, department, "app-1").await);
        }
        opened.try_into().unwrap_or_else(|_| unreachable!("one for each"))
    }
}

impl RawDevice {
    pub(crate) async fn open(zone: &Zone, department: &str, name: &str) -> Self {
        let app = zone.app(department, name);
        let connection = zone.connect(&app).await.expect("connects");
        let certificate = CertificateDer::from_pem_file(&app.mls_certificate).expect("minted");
        let key = read_signing_key(&app.mls_key).expect("minted");
        let identity = MlsIdentity { chain: vec![certificate.to_vec()], key: key.to_bytes().into() };
        let mls = Mls::new(identity, app.uri.clone(), Arc::new(SystemClock), Arc::new(SystemRandom));
        let state = zone.folder("raw").join(format!("{department}-{name}"));
        let keystore = Keystore::open(&state, &StateKey::generate(&SystemRandom), Arc::new(SystemRandom));
        Self {
            connection,
            uri: app.uri,
            keystore: keystore.expect("opens"),
            mls: Arc::new(mls.expect("an engine")),
            federation: Arc::new(zone.minted.federation().expect("verifies")),
        }
    }

    /// The same device on a new connection, with the federation's files as they are now.
    pub(crate) async fn reconnect(&mut self, zone: &Zone, department: &str, name: &str) {
        self.connection = zone.connect(&zone.app(department, name)).await.expect("connects");
        self.federation = Arc::new(zone.minted.federation().expect("verifies"));
    }

    /// Works on the device's own state; whatever the engine refuses fails the story.
    pub(crate) async fn work<T: std::marker::Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>, &Mls, &Federation) -> Result<T, MlsError> + std::marker::Send + 'static,
    ) -> T {
        let (mls, federation) = (Arc::clone(&self.mls), Arc::clone(&self.federation));
        let done = self.keystore.transaction(move |tx| work(tx, &mls, &federation).map_err(Failed::Mls));
        done.await.expect("the engine agrees")
    }

    /// Works on the device's own state and then takes everything back, but for what was made.
    pub(crate) async fn without_trace<T: std::marker::Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> T + std::marker::Send + 'static,
    ) -> T {
        let (keep, kept) = tokio::sync::oneshot::channel();
        let undone = self.keystore.transaction(move |tx| {
            // The story waits for it.
            let _sent = keep.send(work(tx));
            Err::<(), _>(Failed::Mls(MlsError::NothingPending))
        });
        undone.await.expect_err("rolled back");
        kept.await.expect("made")
    }

    pub(crate) async fn start(&self, channel: ChannelId, names: &[&str], label: Label) -> StartBundle {
        self.start_in(channel, "cn-zj-1".parse().expect("well formed"), names, label).await
    }

    pub(crate) async fn start_in(&self, channel: ChannelId, zone: ZoneId, names: &[&str], label: Label) -> StartBundle {
        let new = NewChannel { channel, zone, label, departments: departments(names) };
        self.work(move |tx, mls, federation| mls.create(tx, federation, &new)).await
    }

    pub(crate) async fn create(&self, bundle: &StartBundle, id: IdempotencyId) -> Answer {
        let (group_info, ratchet_tree) = (bundle.group_info.clone().into(), bundle.ratchet_tree.clone().into());
        answer(soon("an answer", self.connection.create(Create { id, group_info, ratchet_tree })).await)
    }

    /// A channel of its own, started and read back.
    pub(crate) async fn channel(&self, names: &[&str]) -> ChannelId {
        let channel = ChannelId((&SystemRandom as &dyn Random).array());
        let bundle = self.start(channel, names, crate::talk::label()).await;
        self.create(&bundle, fresh_id()).await.expect("created");
        self.read(channel).await;
        channel
    }

    pub(crate) async fn key_packages(&self, count: usize) -> Vec<Bytes> {
        let made = self.work(move |tx, mls, federation| mls.key_packages(tx, federation, count, false)).await;
        made.one_time.into_iter().map(Bytes::from).collect()
    }

    pub(crate) async fn publish(&self, packages: Vec<Bytes>) -> Answer {
        let publish = Publish { id: fresh_id(), key_packages: packages, last_resort: None };
        answer(soon("an answer", self.connection.publish(publish)).await)
    }

    /// Makes a last resort, publishes it in the place of any older one, and gives it.
    pub(crate) async fn publish_last_resort(&self) -> Bytes {
        let made = self.work(|tx, mls, federation| mls.key_packages(tx, federation, 0, true)).await;
        let last_resort = Bytes::from(made.last_resort.expect("asked for"));
        let publish = Publish { id: fresh_id(), key_packages: vec![], last_resort: Some(last_resort.clone()) };
        answer(soon("an answer", self.connection.publish(publish)).await).expect("published");
        last_resort
    }

    pub(crate) async fn claim(&self, channel: ChannelId, owner: &DeviceUri) -> Result<Vec<Bytes>, Problem> {
        let claim = Claim { id: fresh_id(), channel, owners: vec![owner.clone()] };
        match soon("an answer", self.connection.claim(claim)).await {
            Ok(claimed) => Ok(claimed.key_packages),
            Err(CallError::Refused(problem)) => Err(problem),
            Err(other) => panic!("neither yes nor no: {other:?}"),
        }
    }

    /// A commit that adds the owner of this package.
    pub(crate) async fn invite_bundle(&self, channel: ChannelId, package: &Bytes) -> CommitBundle {
        let packages = vec![package.to_vec()];
        self.work(move |tx, mls, federation| mls.invite(tx, federation, channel, &packages)).await
    }

    /// A commit that removes this device.
    pub(crate) async fn removal(&self, channel: ChannelId, device: &DeviceUri) -> CommitBundle {
        let gone = device.clone();
        self.work(move |tx, mls, federation| mls.remove(tx, federation, channel, &[gone])).await
    }

    /// The channel as this member sees it.
    pub(crate) async fn view(&self, channel: ChannelId) -> ChannelView {
        self.work(move |tx, mls, _| mls.channel(tx, channel)).await.expect("a member")
    }

    /// GroupInfo and tree of the current epoch, as the gateway serves them.
    pub(crate) async fn served(&self, channel: ChannelId) -> (Bytes, Bytes) {
        let served = soon("the group", self.connection.group_info(GetGroupInfo { channel })).await.expect("a member");
        (served.group_info, served.ratchet_tree)
    }

    /// Puts this GroupInfo in the place of the one that is served.
    pub(crate) async fn replace(&self, channel: ChannelId, group_info: Bytes, id: IdempotencyId) -> Answer {
        let replace = ReplaceGroupInfo { id, channel, group_info };
        answer(soon("an answer", self.connection.replace_group_info(replace)).await)
    }

    /// A GroupInfo of this device's epoch, signed by it.
    pub(crate) async fn group_info(&self, channel: ChannelId) -> Bytes {
        self.work(move |tx, mls, _| mls.group_info(tx, channel)).await.into()
    }

    /// Loses the channel's group and everything that it knew of it.
    pub(crate) async fn lose(&self, channel: ChannelId) {
        self.work(move |tx, mls, _| mls.discard(tx, channel)).await;
    }

    /// The external commit by which this device, whose group is lost or broken, comes back.
    pub(crate) async fn rejoin_bundle(&self, channel: ChannelId) -> CommitBundle {
        let (group_info, tree) = self.served(channel).await;
        self.work(move |tx, mls, federation| mls.rejoin(tx, federation, channel, &group_info, &tree)).await
    }

    /// Comes back and reads up to the head.
    pub(crate) async fn rejoin(&self, channel: ChannelId) -> Receipt {
        let bundle = self.rejoin_bundle(channel).await;
        let receipt = self.commit(channel, &bundle, fresh_id()).await.expect("it may come back");
        self.read(channel).await;
        receipt
    }

    pub(crate) async fn discard(&self, channel: ChannelId) {
        self.work(move |tx, mls, _| mls.discard_commit(tx, channel)).await;
    }

    pub(crate) async fn commit(&self, channel: ChannelId, bundle: &CommitBundle, id: IdempotencyId) -> Answer {
        let welcome = (!bundle.welcome.is_empty()).then(|| bundle.welcome.clone().into());
        let (commit, group_info) = (bundle.commit.clone().into(), bundle.group_info.clone().into());
        let commit = Commit { id, channel, commit, welcome, group_info };
        answer(soon("an answer", self.connection.commit(commit)).await)
    }

    /// Adds another device, which joins and has read up to the head.
    pub(crate) async fn add(&self, channel: ChannelId, other: &Self) {
        other.publish(other.key_packages(1).await).await.expect("published");
        self.seat(channel, &other.uri).await;
        other.join_and_read(channel).await;
    }

    /// Commits a seat for a device that has published key packages, and reads it.
    pub(crate) async fn seat(&self, channel: ChannelId, owner: &DeviceUri) {
        let package = self.claim(channel, owner).await.expect("claimed").remove(0);
        let bundle = self.invite_bundle(channel, &package).await;
        self.commit(channel, &bundle, fresh_id()).await.expect("committed");
        self.read(channel).await;
    }

    /// Joins what it was invited to and reads up to the head.
    pub(crate) async fn join_and_read(&self, channel: ChannelId) {
        self.join(channel).await;
        self.read(channel).await;
    }

    async fn join(&self, channel: ChannelId) {
        let (control, mut frames) = self.connection.receive_stream();
        // An older invitation may still be there: its confirmation is a word on a stream that was closed behind it.
        let (inbox_id, welcome, tree) = loop {
            let frame = soon("an invitation", frames.next()).await.expect("open").expect("a frame");
            let Frame::Inbox { inbox_id, item: InboxItem::Welcome(welcome) } = frame else { continue };
            if welcome.channel != channel {
                continue;
            }
            let wanted = GetWelcomeTree { channel: welcome.channel, sequence: welcome.head.sequence };
            if let Ok(tree) = soon("the tree", self.connection.welcome_tree(wanted)).await {
                break (inbox_id, welcome, tree.ratchet_tree);
            }
        };
        let invitation = Invitation {
            channel: welcome.channel,
            head: welcome.head,
            welcome: welcome.welcome.to_vec(),
            tree: tree.to_vec(),
            inviter: welcome.inviter,
        };
        self.work(move |tx, mls, federation| mls.join(tx, federation, &invitation).map(|_| ())).await;
        let confirm = Receive::Confirm { cursors: vec![], inbox: vec![inbox_id] };
        control.request(confirm).await.expect("confirmed");
    }

    /// Reads the channel's log to its end and takes it in.
    pub(crate) async fn read(&self, channel: ChannelId) {
        let head = self.work(move |tx, mls, _| mls.head(tx, channel)).await;
        for event in self.log(channel, head.map_or(Sequence(0), |head| head.sequence)).await {
            self.take_in(event).await;
        }
    }

    /// Takes one event in, as the gateway gave it or as the story changed it.
    pub(crate) async fn take_in(&self, event: Event) {
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
        self.work(move |tx, mls, federation| mls.process(tx, federation, &event).map(|_| ())).await;
    }

    pub(crate) async fn log(&self, channel: ChannelId, after: Sequence) -> Vec<Event> {
        let wanted = History { channel, after, events_max: 500 };
        soon("the log", self.connection.history(wanted)).await.expect("served").events
    }

    pub(crate) async fn encrypt(&self, channel: ChannelId, body: &str) -> Bytes {
        let body = body.as_bytes().to_vec();
        let encrypted =
            self.work(move |tx, mls, federation| mls.encrypt(tx, federation, channel, fresh_id(), &body)).await;
        encrypted.mls.into()
    }

    /// Sends these on one stream and gives the answers in order.
    pub(crate) async fn send(&self, channel: ChannelId, messages: &[(IdempotencyId, Bytes)]) -> Vec<Answer> {
        let (sender, mut outcomes) = self.connection.send_stream();
        let mut answers = Vec::new();
        for (id, mls) in messages {
            sender.send(Send { id: *id, channel, mls: mls.clone() }).await.expect("sent");
            let outcome = soon("an answer", outcomes.next()).await.expect("open").expect("inside the stream");
            assert_eq!(outcome.id, *id);
            answers.push(outcome.result);
        }
        answers
    }

    pub(crate) async fn report(&self, channel: ChannelId, report: Bytes, id: IdempotencyId) -> Answer {
        answer(soon("an answer", self.connection.report(Report { id, channel, report })).await)
    }

    pub(crate) async fn allow(&self, channel: ChannelId, committer: &DeviceUri) -> Answer {
        self.allow_as(channel, committer, fresh_id()).await
    }

    pub(crate) async fn allow_as(&self, channel: ChannelId, committer: &DeviceUri, id: IdempotencyId) -> Answer {
        let allow = AllowCommitter { id, channel, committer: committer.clone() };
        answer(soon("an answer", self.connection.allow_committer(allow)).await)
    }

    pub(crate) async fn start_incarnation(&self, channel: ChannelId, start: &StartBundle, id: IdempotencyId) -> Answer {
        let (group_info, ratchet_tree) = (start.group_info.clone().into(), start.ratchet_tree.clone().into());
        let start = StartIncarnation { id, channel, group_info, ratchet_tree };
        answer(soon("an answer", self.connection.start_incarnation(start)).await)
    }

    pub(crate) async fn leave_proposal(&self, channel: ChannelId) -> Bytes {
        self.work(move |tx, mls, _| mls.leave(tx, channel)).await.into()
    }

    pub(crate) async fn leave(&self, channel: ChannelId, proposal: Bytes) -> Answer {
        let leave = Leave { id: fresh_id(), channel, proposal };
        answer(soon("an answer", self.connection.leave(leave)).await)
    }
}
