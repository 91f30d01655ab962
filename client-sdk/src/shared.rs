//! What the application's calls and the session have in common.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use lianxin_connection::ReasonCode;
use lianxin_connection::{CallError, ConnectError, Connection, TlsIdentity};
use lianxin_keystore::{Enqueued, Keystore, Transaction};
use lianxin_mls::Mls;
use lianxin_trust::{Federation, RootKeys};
use lianxin_types::{ChannelId, Clock, DeviceUri, IdempotencyId, Random, elsewhere};
use tokio::sync::{Mutex as TurnLock, Notify, Semaphore, broadcast, watch};
use tracing::Span;

use crate::identity::Life;
use crate::outbox::OUTBOX_MAX;
use crate::proofs::Proofs;
use crate::rows::READ;
use crate::session::is_of_time;
use crate::unknown::Suspects;
use crate::waiters::{Bells, Waiters};
use crate::{ClientError, Event};

/// Longest wait for a connection before a call that needs one gives up.
const CONNECTION_WAIT_MAX: Duration = Duration::from_secs(60);
/// How often a call without an outcome is made.
const CALL_ATTEMPTS_MAX: u32 = 6;
const CALL_DELAY: Duration = Duration::from_millis(250);

/// The state of the connection.
#[derive(Clone)]
pub(crate) enum Link {
    /// Not yet, or not any more; being tried.
    Down,
    Up(Connection),
    /// The last attempt was refused; being tried again, slowly.
    Refused(Arc<ConnectError>),
    Closed,
}

/// What there is news of.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum News {
    Channel(ChannelId),
    Events,
    Invitations,
}

/// What the session is asked to do. Asking twice is asking once, so what waits is bounded by the number of channels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Task {
    /// A message was stored.
    Send(ChannelId),
    /// A change was stored.
    Change(ChannelId),
    /// The channel is to be followed from where the group is.
    Follow(ChannelId),
    /// An inbox item was used.
    Confirm(u64),
    /// The state may know less than there is: the gateway is asked of which channels this device is a member.
    LookForChannels,
    /// The certificates were renewed: the connection is opened again with the new one.
    Reconnect,
}

pub(crate) struct Shared {
    pub(crate) keystore: Keystore,
    pub(crate) mls: Arc<Mls>,
    pub(crate) device: DeviceUri,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) link: watch::Sender<Link>,
    pub(crate) waiters: Waiters,
    pub(crate) bells: Bells<News>,
    /// Events of the moment.
    pub(crate) moment: broadcast::Sender<Event>,
    federation: RwLock<Arc<Federation>>,
    tls: RwLock<TlsIdentity>,
    /// Who signs trust bundles.
    pub(crate) roots: RootKeys,
    /// Held while a newer bundle is fetched and taken over, so that none comes behind a newer one.
    pub(crate) refreshing: tokio::sync::Mutex<()>,
    tasks: Mutex<BTreeSet<Task>>,
    wake: Notify,
    doorways: Mutex<HashMap<ChannelId, Arc<Doorway>>>,
    read: Mutex<HashMap<Vec<u8>, ReadMark>>,
    /// Channels of which the state may know nothing.
    pub(crate) suspects: Mutex<Suspects>,
    /// What the gateway's own word proves of logs.
    pub(crate) proofs: Mutex<Proofs>,
}

/// How senders of one channel come in, in the order of their calls.
pub(crate) struct Doorway {
    /// Held until the message is in the keystore's queue. A queue with several places does not keep the order by itself:
    /// who is woken to take a free place may be overtaken by who finds another one free.
    pub(crate) turn: TurnLock<()>,
    /// One permit for each message that may wait for the gateway with its caller.
    pub(crate) room: Semaphore,
}

/// How far the application has read something.
#[derive(Clone, Copy)]
struct ReadMark {
    position: u64,
    is_saved: bool,
}

impl Shared {
    pub(crate) fn new(
        keystore: Keystore,
        (mls, tls): (Mls, TlsIdentity),
        device: DeviceUri,
        (roots, federation): (RootKeys, Federation),
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            keystore,
            mls: Arc::new(mls),
            device,
            clock,
            random,
            link: watch::Sender::new(Link::Down),
            waiters: Waiters::default(),
            bells: Bells::default(),
            moment: broadcast::Sender::new(256),
            federation: RwLock::new(Arc::new(federation)),
            tls: RwLock::new(tls),
            roots,
            refreshing: tokio::sync::Mutex::default(),
            tasks: Mutex::default(),
            wake: Notify::new(),
            doorways: Mutex::default(),
            read: Mutex::default(),
            suspects: Mutex::default(),
            proofs: Mutex::default(),
        }
    }

    /// What the device shows to gateways.
    pub(crate) fn tls(&self) -> TlsIdentity {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn replace_tls(&self, tls: TlsIdentity) {
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
    }

    /// As [`Shared::tls`], for a new connection: who was asked to open one again has done so.
    pub(crate) fn tls_to_connect(&self) -> TlsIdentity {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).remove(&Task::Reconnect);
        self.tls()
    }

    /// For how long the device's certificates are good; `None` if they are not this federation's.
    pub(crate) fn life(&self) -> Option<Life> {
        let (tls, mls, federation) = (self.tls(), self.mls.certificate(), self.federation());
        Life::of(&federation, &self.device, tls.certificate(), &mls, self.clock.now())
    }

    /// What the gateway's word that the certificate is not valid now means, by this device's clock.
    fn not_valid_now(&self) -> Option<ClientError> {
        let (Life { begins, ends }, own) = (self.life()?, self.clock.now());
        Some(if own > ends {
            ClientError::CertificateEnded { ended: ends, own }
        } else {
            ClientError::CertificateDisputed { begins, ends, own }
        })
    }

    fn refused(&self, error: &Arc<ConnectError>) -> ClientError {
        let told = is_of_time(error).then(|| self.not_valid_now()).flatten();
        told.unwrap_or_else(|| ClientError::Connect(Arc::clone(error)))
    }

    fn failed(&self, error: CallError) -> ClientError {
        let is_of_time = error.refusal().is_some_and(|problem| problem.code == ReasonCode::CertificateExpired);
        is_of_time.then(|| self.not_valid_now()).flatten().unwrap_or_else(|| error.into())
    }

    pub(crate) fn federation(&self) -> Arc<Federation> {
        Arc::clone(&self.federation.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn replace_federation(&self, federation: Federation) {
        *self.federation.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(federation);
    }

    /// For joining, inviting and creating: the federation, unless it is past its end.
    pub(crate) fn fresh_federation(&self) -> Result<Arc<Federation>, ClientError> {
        let federation = self.federation();
        if federation.is_stale(self.clock.now()) { Err(ClientError::TrustExpired) } else { Ok(federation) }
    }

    pub(crate) fn id(&self) -> IdempotencyId {
        IdempotencyId(self.random.array())
    }

    /// A transaction with the engine at hand.
    pub(crate) async fn transaction<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Transaction<'_>, &Mls) -> Result<T, ClientError> + Send + 'static,
    ) -> Result<T, ClientError> {
        let (mls, span) = (Arc::clone(&self.mls), Span::current());
        elsewhere(&*self.clock, self.keystore.transaction(move |tx| span.in_scope(|| f(tx, &mls)))).await
    }

    /// As [`Shared::transaction`]; `then` runs once it is durable, also if the caller waits no more.
    pub(crate) async fn transaction_then<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Transaction<'_>, &Mls) -> Result<T, ClientError> + Send + 'static,
        then: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, ClientError> {
        let (mls, span) = (Arc::clone(&self.mls), Span::current());
        let work = self.keystore.transaction_then(move |tx| span.in_scope(|| f(tx, &mls)), then);
        elsewhere(&*self.clock, work).await
    }

    /// As [`Shared::transaction`], in two steps: first its place in the queue, then its end.
    pub(crate) async fn enqueue<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Transaction<'_>, &Mls) -> Result<T, ClientError> + Send + 'static,
    ) -> Result<Enqueued<T, ClientError>, ClientError> {
        let (mls, span) = (Arc::clone(&self.mls), Span::current());
        Ok(elsewhere(&*self.clock, self.keystore.enqueue(move |tx| span.in_scope(|| f(tx, &mls)))).await?)
    }

    pub(crate) fn ask(&self, task: Task) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).insert(task);
        self.wake.notify_one();
    }

    /// What the session was asked to do since it last looked.
    pub(crate) fn take_tasks(&self) -> BTreeSet<Task> {
        std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ready when there is something to do; may be ready too often.
    pub(crate) async fn asked(&self) {
        self.wake.notified().await;
    }

    /// Asks when dropped: what a caller has stored is seen to even if the caller stops waiting in between.
    pub(crate) fn ask_later(self: &Arc<Self>, task: Task) -> AskLater {
        AskLater { shared: Arc::clone(self), task }
    }

    /// The way into a channel's outbox.
    pub(crate) fn doorway(&self, channel: ChannelId) -> Arc<Doorway> {
        let mut all = self.doorways.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Doorway { turn: TurnLock::new(()), room: Semaphore::new(OUTBOX_MAX) });
        Arc::clone(all.entry(channel).or_insert_with(new))
    }

    /// The application has read up to a position of what `key` names; stored by [`Shared::save_read`]. Never goes back.
    pub(crate) fn note_read(&self, key: &[u8], position: u64) {
        let mut marks = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let mark = marks.entry(key.to_vec()).or_insert(ReadMark { position, is_saved: false });
        if position > mark.position {
            *mark = ReadMark { position, is_saved: false };
        }
    }

    /// Stores how far the application has read.
    pub(crate) async fn save_read(&self) -> Result<(), ClientError> {
        let marks = self.read.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let unsaved: Vec<_> = marks.into_iter().filter(|(_, mark)| !mark.is_saved).collect();
        if unsaved.is_empty() {
            return Ok(());
        }
        let save = move |tx: &Transaction<'_>, _: &Mls| {
            for (key, mark) in &unsaved {
                tx.put(READ, key, &mark.position.to_be_bytes())?;
            }
            Ok(unsaved)
        };
        let saved = self.transaction(save).await?;
        let mut marks = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, saved) in saved {
            marks.entry(key).and_modify(|mark| mark.is_saved = mark.position == saved.position);
        }
        Ok(())
    }

    /// How far the application has read what `key` names.
    pub(crate) async fn read_position(&self, key: &[u8]) -> Result<u64, ClientError> {
        let noted = self.read.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied();
        if let Some(mark) = noted {
            return Ok(mark.position);
        }
        let key = key.to_vec();
        let stored = self.transaction(move |tx, _| Ok(tx.get(READ, &key)?)).await?;
        Ok(stored.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes))
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(*self.link.borrow(), Link::Closed)
    }

    /// The connection, waited for.
    ///
    /// # Errors
    /// [`ClientError::Connect`] as soon as an attempt was refused, or [`ClientError::CertificateEnded`] or
    /// [`ClientError::CertificateDisputed`] if it was because of the time; [`ClientError::Offline`] after a minute,
    /// [`ClientError::Closed`].
    pub(crate) async fn connection(&self) -> Result<Connection, ClientError> {
        let mut link = self.link.subscribe();
        let found = async {
            loop {
                match &*link.borrow_and_update() {
                    Link::Up(connection) => return Ok(connection.clone()),
                    Link::Refused(error) => return Err(self.refused(error)),
                    Link::Closed => return Err(ClientError::Closed),
                    Link::Down => {}
                }
                if link.changed().await.is_err() {
                    return Err(ClientError::Closed);
                }
            }
        };
        tokio::select! {
            biased;
            found = found => found,
            () = self.clock.sleep(CONNECTION_WAIT_MAX) => Err(ClientError::Offline),
        }
    }

    /// Makes a call, again while its outcome is unknown or the gateway is busy. The call must have an id or change
    /// nothing.
    pub(crate) async fn call<T, F>(&self, call: impl Fn(Connection) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let mut attempt = 1;
        loop {
            let error = match call(self.connection().await?).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if attempt == CALL_ATTEMPTS_MAX || !is_worth_repeating(&error) {
                return Err(self.failed(error));
            }
            self.clock.sleep(CALL_DELAY * attempt).await;
            attempt += 1;
        }
    }
}

/// Whether the same call may get another answer soon, without anything else happening first.
pub(crate) fn is_worth_repeating(error: &CallError) -> bool {
    match error {
        CallError::Unknown { .. } => true,
        CallError::Refused(problem) => {
            let busy = [
                ReasonCode::ResourceExhausted,
                ReasonCode::ZoneUnavailable,
                ReasonCode::ShuttingDown,
                ReasonCode::Internal,
            ];
            busy.contains(&problem.code)
        }
        CallError::BadAnswer(_) => false,
    }
}

/// See [`Shared::ask_later`].
pub(crate) struct AskLater {
    shared: Arc<Shared>,
    task: Task,
}

impl Drop for AskLater {
    fn drop(&mut self) {
        self.shared.ask(self.task);
    }
}
