//! The door for applications.

use std::sync::{Arc, Mutex, PoisonError};

use lianxin_connection::{GetWelcomeTree, Problem, ReasonCode};
use lianxin_keystore::{Keystore, StateKey};
use lianxin_mls::{Mls, MlsError, NewChannel};
use lianxin_types::{ChannelId, DepartmentId, DeviceUri, Label, Sequence, Timestamp, ZoneId, elsewhere};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{Instrument as _, Span};

use crate::channel::Channel;
use crate::config::{Loaded, StateKeySource};
use crate::evidence::{self, Evidence};
use crate::readers::{Events, Invitations};
use crate::session::Session;
use crate::shared::{Link, Shared, Task};
use crate::summary::{self, ChannelSummary};
use crate::sync;
use crate::waiters::Failure;
use crate::{ClientError, Config, changes, identity, trust};

/// One device of a department: its channels, its connection, its state. Cheap to clone; all clones are the same device.
///
/// Every call may be dropped while it waits: what was stored goes on, what was not has not happened.
///
/// # Examples
/// See `examples/two_departments.rs`.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    zone: ZoneId,
    session: Mutex<Option<Running>>,
}

/// The session's task; dropping it ends the session.
struct Running {
    task: JoinHandle<()>,
    /// Never sent to.
    _closing: watch::Sender<()>,
}

/// An invitation to a channel, not yet accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Invitation {
    /// The channel.
    pub channel: ChannelId,
    /// Who invited; verified when the invitation is accepted.
    pub inviter: DeviceUri,
    /// When the gateway took the invitation.
    pub gateway_time: Timestamp,
    /// Position of the commit that made it.
    pub sequence: Sequence,
}

impl Client {
    /// Opens the state folder, or makes it, and starts to connect in the background. Works without a connection: what
    /// was received can be read, what is sent waits. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::Config`] if a file is missing or does not fit; [`ClientError::State`] if the folder is in use, from
    /// a newer version, or sealed with another key; [`ClientError::Trust`], [`ClientError::Mls`].
    pub async fn open(config: Config) -> Result<Self, ClientError> {
        let clock = Arc::clone(&config.clock);
        // Files and the database are opened off the runtime's threads.
        let opened = tokio::task::spawn_blocking(move || read_files(&config).map(|opened| (config, opened)));
        let (config, (loaded, keystore)) = elsewhere(&*clock, opened).await.map_err(|_| ClientError::Closed)??;
        let begun = keystore.transaction(move |tx| {
            let mut loaded = loaded;
            let federation = trust::at_start(tx, &loaded)?;
            let device = config.device(&loaded, &federation)?;
            identity::at_start(tx, &mut loaded, &federation, &device, config.clock.now())?;
            Ok::<_, ClientError>((config, federation, loaded, device))
        });
        let (config, federation, loaded, device) = elsewhere(&*clock, begun).await?;
        let targets = config.targets(federation.bundle())?;
        let zone = targets.first().map(|target| target.zone.clone()).ok_or(crate::ConfigError::Zone)?;
        let random = Arc::clone(&config.random);
        let mls = Mls::new(loaded.mls, device.clone(), Arc::clone(&clock), Arc::clone(&random))?;
        let mls = mls.with_leaf_care(config.leaf_care);
        let device_name = device.as_str().to_owned();
        let shared =
            Arc::new(Shared::new(keystore, (mls, loaded.tls), device, (loaded.roots, federation), clock, random));
        let session = Session { shared: Arc::clone(&shared), config };
        let (closing, closed) = watch::channel(());
        let span = tracing::info_span!(parent: None, "session", device = device_name);
        let task = tokio::spawn(session.run(closed).instrument(span));
        let session = Mutex::new(Some(Running { task, _closing: closing }));
        Ok(Self { inner: Arc::new(Inner { shared, zone, session }) })
    }

    /// Version of the trust bundle that this device goes by; it rises with every bundle that the gateway brings.
    pub fn bundle_version(&self) -> u64 {
        self.inner.shared.federation().bundle().bundle.version
    }

    /// Who this device is.
    pub fn device(&self) -> &DeviceUri {
        &self.inner.shared.device
    }

    /// Waits until there is a connection, the trust bundle is current and this device can be invited.
    ///
    /// # Errors
    /// [`ClientError::Connect`] as soon as the gateway refuses this device, or is not to be trusted;
    /// [`ClientError::CertificateEnded`], [`ClientError::CertificateDisputed`] if it refuses it because of the time;
    /// [`ClientError::Offline`] after a minute; [`ClientError::Closed`].
    pub async fn connected(&self) -> Result<(), ClientError> {
        self.inner.shared.connection().await.map(|_| ())
    }

    /// Starts a channel in the client's zone, with this device as its only member. `departments` are those that may have
    /// members, the own one included.
    ///
    /// # Errors
    /// [`ClientError::Mls`] if a department is unknown or the label does not fit; [`ClientError::Refused`];
    /// [`ClientError::NotServed`] if what the gateway answers cannot be so;
    /// [`ClientError::Connect`], [`ClientError::Offline`], [`ClientError::TrustExpired`], [`ClientError::Closed`].
    #[tracing::instrument(level = "debug", skip_all, fields(channel))]
    pub async fn create(&self, label: Label, departments: &[DepartmentId]) -> Result<Channel, ClientError> {
        let shared = &self.inner.shared;
        shared.connection().await?;
        let federation = shared.fresh_federation()?;
        let channel = ChannelId(shared.random.array());
        Span::current().record("channel", channel.to_hex());
        let new = NewChannel { channel, zone: self.inner.zone.clone(), label, departments: departments.to_vec() };
        let id = shared.id();
        let settled = shared.waiters.register(id);
        let wake = shared.ask_later(Task::Change(channel));
        let stored = shared.transaction(move |tx, mls| {
            let start = mls.create(tx, &federation, &new)?;
            changes::put_create(tx, channel, id, start)
        });
        stored.await?;
        drop(wake);
        match settled.await.map_err(|_| ClientError::Closed)? {
            Ok(_) => Ok(self.handle(channel)),
            Err(Failure::Refused(problem)) => Err(ClientError::Refused(problem)),
            Err(Failure::NotServed) => Err(ClientError::NotServed),
            Err(_) => Err(ClientError::NotMember),
        }
    }

    /// Invitations: those that are open, the oldest first, then those that come. Each stream gives each once. They stay open until they
    /// are accepted or declined, 200 and 16 MiB of them at most: then the oldest go, as if they were declined.
    pub fn invitations(&self) -> Invitations {
        Invitations::new(Arc::clone(&self.inner.shared))
    }

    /// Accepts an invitation: verifies everybody in the channel and joins. Earlier messages cannot be read.
    ///
    /// # Errors
    /// [`ClientError::InvitationGone`] if it was accepted or declined already, or a call before found that it holds no more, which
    /// [`ClientError::Refused`] with `CHANNEL_NOT_AVAILABLE` has said then; [`ClientError::Mls`] if it is not what it says, or a
    /// member does not verify, or ([`lianxin_mls::MlsError::KeyPackageGone`]) if the state folder was put back from a copy that is
    /// older than the key package which the invitation was made for: then the device comes in by itself within minutes, as
    /// [`crate::Event::StateRestored`] says; [`ClientError::Refused`], [`ClientError::Connect`], [`ClientError::Offline`],
    /// [`ClientError::TrustExpired`], [`ClientError::Closed`].
    #[tracing::instrument(level = "debug", skip_all, fields(channel = %invitation.channel.to_hex()))]
    pub async fn accept(&self, invitation: Invitation) -> Result<Channel, ClientError> {
        let shared = &self.inner.shared;
        let (channel, sequence) = (invitation.channel, invitation.sequence);
        if !shared.transaction(move |tx, _| sync::is_kept(tx, channel, sequence)).await? {
            return Err(ClientError::InvitationGone);
        }
        let get = GetWelcomeTree { channel, sequence };
        let tree = match shared.call(move |connection| async move { connection.welcome_tree(get).await }).await {
            Ok(tree) => tree.ratchet_tree,
            Err(error @ ClientError::Refused(Problem { code: ReasonCode::ChannelNotAvailable, .. })) => {
                self.give_up(&invitation).await?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let federation = shared.fresh_federation()?;
        let follow = shared.ask_later(Task::Follow(channel));
        let joined = shared.accept(federation, (channel, sequence), tree.to_vec());
        match joined.await {
            Ok(()) => {}
            Err(error @ ClientError::Mls(MlsError::KeyPackageGone)) => {
                self.give_up(&invitation).await?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        drop(follow);
        Ok(self.handle(channel))
    }

    /// Declines an invitation, and older ones into the same channel: they are given no more, and the device does not come into the
    /// channel by itself, until it is invited anew. Nobody is told: for the others the device has a seat until one of them takes it
    /// out. Durable when this returns.
    ///
    /// # Errors
    /// [`ClientError::InvitationGone`] if it was accepted or declined already; [`ClientError::State`], [`ClientError::Record`].
    #[tracing::instrument(level = "debug", skip_all, fields(channel = %invitation.channel.to_hex()))]
    pub async fn decline(&self, invitation: Invitation) -> Result<(), ClientError> {
        let (shared, Invitation { channel, sequence, .. }) = (&self.inner.shared, invitation);
        for inbox_id in shared.transaction(move |tx, _| sync::decline(tx, channel, sequence)).await? {
            shared.ask(Task::Confirm(inbox_id));
        }
        Ok(())
    }

    /// An invitation brings nobody in: the device was taken out again, or its state is older than what it has done by it.
    async fn give_up(&self, invitation: &Invitation) -> Result<(), ClientError> {
        let shared = &self.inner.shared;
        let (channel, sequence) = (invitation.channel, invitation.sequence);
        let given_up = shared.transaction(move |tx, mls| sync::give_up_invitation(tx, mls, channel, sequence));
        for inbox_id in given_up.await? {
            shared.ask(Task::Confirm(inbox_id));
        }
        shared.ask(Task::LookForChannels);
        Ok(())
    }

    /// The channels that this device is a member of, ascending by id.
    ///
    /// # Errors
    /// [`ClientError::State`], [`ClientError::Mls`].
    pub async fn channels(&self) -> Result<Vec<Channel>, ClientError> {
        let ids = self.inner.shared.transaction(summary::channels).await?;
        Ok(ids.into_iter().map(|channel| self.handle(channel)).collect())
    }

    /// The channels that this device is a member of with what an application's list of channels shows: what each is for, what
    /// is unread, the last message. Those with the latest message first.
    ///
    /// # Errors
    /// [`ClientError::State`], [`ClientError::Mls`], [`ClientError::Record`].
    pub async fn overview(&self) -> Result<Vec<ChannelSummary>, ClientError> {
        summary::overview(&self.inner.shared).await
    }

    /// What this device keeps of the event at `sequence`, if somebody did there what an honest one does not do
    /// ([`crate::Event::Violation`]): to be handed on. Kept also after the event was read: of each
    /// kind in a channel the first five and the last five, a thousand in all.
    ///
    /// # Errors
    /// [`ClientError::State`], [`ClientError::Record`].
    pub async fn evidence(&self, channel: ChannelId, sequence: Sequence) -> Result<Option<Evidence>, ClientError> {
        self.inner.shared.transaction(move |tx, _| evidence::get(tx, channel, sequence)).await
    }

    /// The channel of that id, whether this device is a member or was; messages received stay readable.
    pub fn channel(&self, id: ChannelId) -> Channel {
        self.handle(id)
    }

    /// Events: those kept since the application last read, then those that come. One stream at a time.
    pub fn events(&self) -> Events {
        Events::new(Arc::clone(&self.inner.shared))
    }

    /// Ends the session, stores how far the application has read, and releases the state folder. Calls that wait answer
    /// [`ClientError::Closed`].
    ///
    /// # Errors
    /// [`ClientError::State`] if something could not be stored; the client is closed all the same.
    pub async fn close(self) -> Result<(), ClientError> {
        let shared = Arc::clone(&self.inner.shared);
        let running = self.inner.session.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running { task, _closing }) = running {
            drop(_closing);
            // A panic of the session was printed where it happened; the state is released all the same.
            let _panicked = task.await;
        }
        let saved = shared.save_read().await;
        elsewhere(&*shared.clock, shared.keystore.clone().close()).await;
        match saved {
            // Somebody else has closed it.
            Err(ClientError::State(lianxin_keystore::KeystoreError::Closed)) => Ok(()),
            other => other,
        }
    }

    fn handle(&self, channel: ChannelId) -> Channel {
        Channel::new(Arc::clone(&self.inner.shared), channel)
    }
}

fn read_files(config: &Config) -> Result<(Loaded, Keystore), ClientError> {
    let loaded = config.load()?;
    let key = match &config.state_key {
        StateKeySource::File(path) => StateKey::load_or_create(path, &*config.random)?,
        StateKeySource::Key(key) => key.clone(),
    };
    Ok((loaded, Keystore::open(&config.state_dir, &key, Arc::clone(&config.random))?))
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let link = match *self.inner.shared.link.borrow() {
            Link::Down => "down",
            Link::Up(_) => "up",
            Link::Refused(_) => "refused",
            Link::Closed => "closed",
        };
        f.debug_struct("Client").field("device", self.device()).field("link", &link).finish()
    }
}
