//! One channel, as applications use it.

use std::sync::Arc;

use lianxin_connection::{AllowCommitter, CallError, Claim, Problem, ReasonCode, Receipt};
use lianxin_mls::MlsError;
use lianxin_types::{ChannelId, DepartmentId, DeviceUri, Digest, Epoch, LIMITS, Label, Sequence, ZoneId, elsewhere};

use crate::changes::Staged;
use crate::lane::TOLD_WITHIN;
use crate::readers::{self, Message, Messages};
use crate::shared::{News, Shared, Task};
use crate::waiters::Failure;
use crate::wishes::{self, Wanted};
use crate::{ClientError, outbox, summary, trust};

/// A channel of this device. Cheap to clone.
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
    id: ChannelId,
}

/// What this device knows of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelInfo {
    /// The channel.
    pub id: ChannelId,
    /// What it is for; all members agree on it cryptographically.
    pub label: Label,
    /// Where it lives.
    pub zone: ZoneId,
    /// Departments that may have members, ascending.
    pub departments: Vec<DepartmentId>,
    /// Members now, verified.
    pub members: Vec<DeviceUri>,
    /// The group's epoch.
    pub epoch: Epoch,
    /// What all members of the epoch agree on, and nobody else knows (RFC 9420 section 8.7). Two devices that read it to each
    /// other and find it equal are in the same group state, whatever the gateway told either.
    pub epoch_authenticator: Digest,
    /// The last event processed.
    pub head: Sequence,
    /// Whether an own change of the group waits for the gateway's answer, or for its place in the log.
    pub has_pending_change: bool,
    /// Whether a bad commit broke the channel: it can be read no further until this device is back, or is seated in the group that
    /// carries the channel on.
    pub is_broken: bool,
}

impl Channel {
    pub(crate) fn new(shared: Arc<Shared>, id: ChannelId) -> Self {
        Self { shared, id }
    }

    /// Its id.
    pub const fn id(&self) -> ChannelId {
        self.id
    }

    /// Label, members and state, as this device has verified them.
    ///
    /// # Errors
    /// [`ClientError::NotMember`]; [`ClientError::State`], [`ClientError::Mls`].
    pub async fn info(&self) -> Result<ChannelInfo, ClientError> {
        let id = self.id;
        let found = self.shared.transaction(move |tx, mls| Ok((mls.channel(tx, id)?, wishes::is_any_open(tx, id)?)));
        let (view, is_wished) = found.await?;
        let view = view.ok_or(ClientError::NotMember)?;
        Ok(ChannelInfo {
            id,
            label: view.label,
            zone: view.zone,
            departments: view.departments,
            members: view.members,
            epoch: view.epoch,
            epoch_authenticator: view.epoch_authenticator,
            head: view.head.sequence,
            has_pending_change: view.has_pending_commit || is_wished,
            is_broken: view.is_broken || view.is_awaited,
        })
    }

    /// Sends 0 to 64 KiB, end-to-end encrypted, and waits until the gateway has it durable, in order and audited. Once
    /// the call has stored the message it is sent exactly once, over lost connections and restarts, even if the caller
    /// stops waiting. Messages of one device keep the order of their calls.
    ///
    /// # Errors
    /// [`ClientError::TooLarge`]; [`ClientError::NotMember`]; [`ClientError::Refused`] if the gateway will never accept
    /// it; [`ClientError::OutboxFull`], [`ClientError::Mls`], [`ClientError::State`]; [`ClientError::Closed`], after which
    /// the message may still be stored and goes on at the next opening; [`ClientError::NotServed`], after which it is
    /// stored as well; [`ClientError::Unanswered`] if this device came into the
    /// channel anew before it had read what became of the message.
    #[tracing::instrument(level = "debug", skip_all, fields(channel = %self.id.to_hex()))]
    pub async fn send(&self, body: impl Into<Vec<u8>>) -> Result<Receipt, ClientError> {
        let (body, channel, shared) = (body.into(), self.id, &self.shared);
        let (bytes, bytes_max) = (body.len(), LIMITS.message_body_bytes_max);
        if bytes > bytes_max {
            return Err(ClientError::TooLarge { bytes, bytes_max });
        }
        let doorway = shared.doorway(channel);
        let turn = doorway.turn.lock().await;
        let _room = doorway.room.acquire().await.map_err(|_| ClientError::Closed)?;
        let id = shared.id();
        let settled = shared.waiters.register(id);
        let wake = shared.ask_later(Task::Send(channel));
        let federation = shared.federation();
        let stored = shared.enqueue(move |tx, mls| outbox::put(tx, mls, &federation, channel, id, body)).await?;
        drop(turn);
        elsewhere(&*shared.clock, stored.end()).await?;
        drop(wake);
        outcome(settled.await.map_err(|_| ClientError::Closed)?)
    }

    /// Invites devices, at most 100: claims a key package of each and commits their addition. They are members from the
    /// returned sequence on, and read from there when they accept. Goes on by itself as [`Channel::remove`] does.
    ///
    /// # Errors
    /// [`ClientError::Refused`] (among others DEPARTMENT_NOT_NAMED, NO_KEY_PACKAGE, NOT_MEMBER);
    /// [`ClientError::Mls`] if a key package does not verify or is another device's; [`ClientError::Contended`], [`ClientError::TrustExpired`],
    /// [`ClientError::NotMember`], [`ClientError::Connect`], [`ClientError::Offline`], [`ClientError::Closed`].
    #[tracing::instrument(level = "debug", skip_all, fields(channel = %self.id.to_hex()))]
    pub async fn invite(&self, devices: &[DeviceUri]) -> Result<Receipt, ClientError> {
        let claimed = match self.claim(devices).await {
            Err(ClientError::Refused(problem)) if problem.code == ReasonCode::NotMember => {
                return Err(self.told_why(problem).await?);
            }
            claimed => claimed?,
        };
        self.change(Wanted::Invite { devices: devices.to_vec(), key_packages: claimed }).await
    }

    /// A key package of each device, as asked for and verified.
    async fn claim(&self, devices: &[DeviceUri]) -> Result<Vec<Vec<u8>>, ClientError> {
        let claim = Claim { id: self.shared.id(), channel: self.id, owners: devices.to_vec() };
        let claimed = self.shared.call(|connection| {
            let claim = claim.clone();
            async move { connection.claim(claim).await }
        });
        let packages: Vec<Vec<u8>> = claimed.await?.key_packages.iter().map(|package| package.to_vec()).collect();
        let check = || Ok(self.shared.mls.check_claimed(&*self.shared.fresh_federation()?, devices, &packages)?);
        match check() {
            Err(ClientError::Mls(error)) if error.may_be_mended_by_newer_trust() => {
                // The gateway may know of an authority that this device has not heard of yet.
                trust::refresh(&self.shared, &self.shared.connection().await?).await?;
                check()?;
            }
            checked => checked?,
        }
        Ok(packages)
    }

    /// Takes devices out. They cannot read what comes after the returned sequence. Once the call has stored that, it goes on by itself
    /// until it has come true, by whosever commit, or [`crate::Event::ChangeNotMade`] says why not.
    ///
    /// # Errors
    /// As [`Channel::invite`]; [`ClientError::Mls`] if a device is not a member, or the own one ([`Channel::leave`]).
    #[tracing::instrument(level = "debug", skip_all, fields(channel = %self.id.to_hex()))]
    pub async fn remove(&self, devices: &[DeviceUri]) -> Result<Receipt, ClientError> {
        self.change(Wanted::Remove { devices: devices.to_vec() }).await
    }

    /// Proposes that this device leaves. It can send nothing more; a member commits it within moments, told by
    /// [`crate::Event::Removed`]. Messages received stay readable.
    ///
    /// # Errors
    /// [`ClientError::NotMember`], [`ClientError::Refused`], [`ClientError::Contended`], [`ClientError::Connect`],
    /// [`ClientError::Offline`], [`ClientError::Closed`].
    #[tracing::instrument(level = "debug", skip_all, fields(channel = %self.id.to_hex()))]
    pub async fn leave(&self) -> Result<(), ClientError> {
        self.wish(Wanted::Leave).await.map(|_| ())
    }

    /// Lets a device of the own department commit again that a member has reported ([`crate::Event::CommitReported`]): for
    /// another device that is or was in the channel. Find out first what was wrong with the commit.
    ///
    /// # Errors
    /// [`ClientError::Refused`] (among others NOT_OWNER); [`ClientError::Connect`], [`ClientError::Offline`],
    /// [`ClientError::Closed`].
    #[tracing::instrument(level = "debug", skip_all, fields(channel = %self.id.to_hex()))]
    pub async fn allow_committer(&self, device: &DeviceUri) -> Result<(), ClientError> {
        let allow = AllowCommitter { id: self.shared.id(), channel: self.id, committer: device.clone() };
        let allowed = self.shared.call(|connection| {
            let allow = allow.clone();
            async move { connection.allow_committer(allow).await }
        });
        allowed.await.map(|_| ())
    }

    /// Messages of others: those received since the application last read, then those that come, in the order of the
    /// log. One stream at a time; a message counts as read when the next one is
    /// asked for or the stream is dropped, so after a crash the last ones may come again.
    pub fn receive(&self) -> Messages {
        Messages::new(Arc::clone(&self.shared), self.id)
    }

    /// Messages received and sent behind a sequence, at most `limit`, in the order of the log; from this device's own
    /// sealed log, so it works without a connection.
    ///
    /// # Errors
    /// [`ClientError::State`], [`ClientError::Record`].
    pub async fn history(&self, after: Sequence, limit: usize) -> Result<Vec<Message>, ClientError> {
        readers::history(&self.shared, self.id, after, limit).await
    }

    /// The last messages before a sequence, received and sent, at most `limit`, in the order of the log: for paging back.
    /// `Sequence(u64::MAX)` gives the newest. From this device's own sealed log.
    ///
    /// # Errors
    /// [`ClientError::State`], [`ClientError::Record`].
    pub async fn history_before(&self, before: Sequence, limit: usize) -> Result<Vec<Message>, ClientError> {
        readers::history_before(&self.shared, self.id, before, limit).await
    }

    /// The message at a sequence of the channel's log, e.g. the one that a receipt names; `None` if this device has none
    /// there: other events have sequences too. From this device's own sealed log.
    ///
    /// # Errors
    /// [`ClientError::State`], [`ClientError::Record`].
    pub async fn message(&self, sequence: Sequence) -> Result<Option<Message>, ClientError> {
        let after = Sequence(sequence.0.saturating_sub(1));
        let found = self.history(after, 1).await?.into_iter().next();
        Ok(found.filter(|message| message.sequence == sequence))
    }

    /// Up to where the application has read, by [`Channel::receive`] or [`Channel::mark_read`]; 0 for nothing.
    ///
    /// # Errors
    /// [`ClientError::State`].
    pub async fn read_mark(&self) -> Result<Sequence, ClientError> {
        Ok(Sequence(self.shared.read_position(&self.id.0).await?))
    }

    /// Says that the application has shown everything up to a sequence, for applications that show the history instead of
    /// reading [`Channel::receive`], which begins behind the mark when it is opened next. Durable when this returns. The mark
    /// never goes back, and never ahead of the last message that this device has; returns where it stands.
    ///
    /// # Errors
    /// [`ClientError::State`].
    pub async fn mark_read(&self, up_to: Sequence) -> Result<Sequence, ClientError> {
        summary::mark_read(&self.shared, self.id, up_to).await
    }

    /// Has a change made, and made anew while others come first; that goes on whether or not somebody waits.
    async fn wish(&self, wanted: Wanted) -> Result<Option<Receipt>, ClientError> {
        let (shared, channel) = (&self.shared, self.id);
        shared.connection().await?;
        let (id, change) = (shared.id(), shared.id());
        let settled = shared.waiters.register(id);
        let wake = shared.ask_later(Task::Change(channel));
        let federation = shared.federation();
        let stored =
            shared.transaction(move |tx, mls| wishes::wish(tx, mls, &federation, channel, (id, change), wanted));
        let staged = stored.await?;
        drop(wake);
        if matches!(staged, Staged::Done) {
            return Ok(None);
        }
        match settled.await.map_err(|_| ClientError::Closed)? {
            Err(Failure::Refused(problem)) if problem.code == ReasonCode::NotMember => {
                Err(self.told_why(problem).await?)
            }
            settled => outcome(settled).map(Some),
        }
    }

    async fn change(&self, wanted: Wanted) -> Result<Receipt, ClientError> {
        self.shared.fresh_federation()?;
        self.wish(wanted).await?.ok_or(ClientError::NotMember)
    }

    /// The gateway says that this device is no member. Gives the reason if the log tells it in time: its removal, or a group that
    /// carries the channel on and in which it is not seated yet.
    async fn told_why(&self, problem: Problem) -> Result<ClientError, ClientError> {
        let (shared, id) = (&self.shared, self.id);
        let mut news = shared.bells.listen(News::Channel(id));
        let told = async {
            loop {
                match shared.transaction(move |tx, mls| Ok(mls.channel(tx, id)?)).await? {
                    None => return Ok(ClientError::NotMember),
                    Some(view) if view.is_awaited => return Ok(ClientError::Mls(MlsError::Broken)),
                    Some(_) => news.changed().await.map_err(|_| ClientError::Closed)?,
                }
            }
        };
        tokio::select! {
            biased;
            told = told => told,
            () = shared.clock.sleep(TOLD_WITHIN) => Ok(ClientError::Refused(problem)),
        }
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Channel").field(&self.id).finish()
    }
}

fn outcome(settled: Result<Receipt, Failure>) -> Result<Receipt, ClientError> {
    settled.map_err(|failure| match failure {
        Failure::Refused(problem) => ClientError::Refused(problem),
        Failure::Superseded => ClientError::Contended,
        Failure::NotPossible(said) => said.into_inner().map_or(ClientError::NotMember, ClientError::Mls),
        Failure::NotMember => ClientError::NotMember,
        Failure::NotServed => ClientError::NotServed,
        Failure::GivenUp => ClientError::Unanswered(CallError::Unknown {
            detail: "this device came into the channel anew before it had read what became of it".to_owned(),
        }),
    })
}
