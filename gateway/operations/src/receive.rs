//! The Receive stream: permits for what is followed, and confirmations.

use std::collections::BTreeSet;
use std::sync::Arc;

use lianxin_audit::AuditEvent;
use lianxin_delivery::{CatchUp, Delivery, Subscription};
use lianxin_identity::Caller;
use lianxin_store::Effect;
use lianxin_types::{ChannelId, LIMITS, Sequence};
use tokio::sync::watch;

use crate::cursors::Cursors;
use crate::gate::Operations;
use crate::guard::unit;
use crate::pressure::Level;
use crate::refusal::Refusal;
use crate::statistics::OpenStream;
use crate::streams::{Direction, StreamPlace};
use crate::watch::{Opening, Watch};

/// One Receive stream.
pub struct Receiver {
    operations: Operations,
    caller: Caller,
    subscription: Subscription,
    watch: Watch,
    /// The level of pressure; catch-up waits for it.
    pressure: watch::Receiver<Level>,
    cursors: Cursors,
    /// Invitations that the device has confirmed on this stream.
    confirmed: BTreeSet<u64>,
    _open: (OpenStream, StreamPlace),
}

/// Whether a channel is followed now.
pub type FollowAnswer = Result<(), Refusal>;

impl Operations {
    /// A Receive stream of the caller's.
    ///
    /// # Errors
    /// [`Refusal::WrongKind`] for certificates that own no leaves, [`Refusal::ResourceExhausted`] if the device has as many
    /// as it may.
    pub async fn receiver(&self, caller: &Caller) -> Result<Receiver, Refusal> {
        let Some(place) = self.guard.streams.open(&caller.uri, Direction::Receive) else {
            return Err(self.guard.refuse(&caller.uri, "receive", None, Refusal::ResourceExhausted).await);
        };
        let permit = self.guard.engine.open_receive(&self.request(caller, None));
        let permit = self.permitted(caller, "receive", None, permit).await?;
        let version = permit.policy_version();
        self.guard.record_read(AuditEvent::ReceiveOpened, &caller.uri, None, version).await?;
        let subscription = Subscription::new(
            caller.uri.clone(),
            Arc::clone(&self.guard.store),
            Arc::clone(&self.fanout),
            Arc::clone(&self.guard.clock),
        );
        let open = (self.guard.statistics.open_receive(), place);
        let pressure = self.guard.pressure.watch();
        let watch = Watch::new(Arc::clone(&self.guard), caller, "receive", Opening::StatesTrust);
        let (cursors, confirmed) = (Cursors::default(), BTreeSet::new());
        let (operations, caller) = (self.clone(), caller.clone());
        Ok(Receiver { operations, caller, subscription, watch, pressure, cursors, confirmed, _open: open })
    }
}

impl Receiver {
    /// Waits for the device's turn to follow one more channel. The stream waits with it; whatever ends the stream should end the
    /// wait.
    pub fn turn_to_follow(&self) -> impl Future<Output = ()> + Send + 'static {
        let (guard, device) = (Arc::clone(&self.operations.guard), self.caller.uri.clone());
        async move { guard.pace_follow(&device).await }
    }

    /// Follows a channel behind `after`; ask for the turn first.
    ///
    /// # Errors
    /// [`Refusal::ChannelNotAvailable`], [`Refusal::NotMember`], [`Refusal::LimitReached`], [`Refusal::BadHead`] if `after` lies
    /// ahead of the log; the stream goes on.
    pub async fn follow(&mut self, channel: ChannelId, after: Sequence) -> FollowAnswer {
        const ACTION: &str = "follow";
        let operations = self.operations.clone();
        self.check_caller(ACTION).await?;
        let is_new = !self.subscription.is_following(&channel);
        if is_new && self.subscription.followed_count() >= LIMITS.device_channels_max {
            let refusal = Refusal::LimitReached { limit: LIMITS.device_channels_max as u64 };
            return Err(operations.guard.refuse(&self.caller.uri, ACTION, None, refusal).await);
        }
        let facts = operations.audited_facts(&self.caller, ACTION, channel).await?;
        let permit = operations.guard.engine.follow(&operations.request(&self.caller, facts.as_ref()));
        let permit = operations.permitted(&self.caller, ACTION, facts.as_ref(), permit).await?;
        let head = operations.guard.store.head(&channel)?;
        if head.is_none_or(|head| after > head.head.sequence) {
            // The device has seen more than this log has: one of the two is an old copy.
            return Err(operations.guard.refuse(&self.caller.uri, ACTION, Some(channel), Refusal::BadHead).await);
        }
        let event = AuditEvent::Followed { after: after.0 };
        let version = permit.policy_version();
        operations.guard.record_read(event, &self.caller.uri, Some(channel), version).await?;
        Ok(self.subscription.follow(&permit, after)?)
    }

    /// Stops following a channel.
    pub fn unfollow(&mut self, channel: &ChannelId) {
        self.subscription.unfollow(channel);
    }

    /// What the device has stored: cursors as a hint, which is merged now and then and not recorded, invitations for good. What
    /// was not given out on this stream is passed over.
    ///
    /// # Errors
    /// [`Refusal::ZoneUnavailable`]; the stream should end then.
    pub async fn confirm(&mut self, cursors: &[(ChannelId, Sequence)], mut inbox_ids: Vec<u64>) -> Result<(), Refusal> {
        let guard = &self.operations.guard;
        let now = guard.clock.monotonic();
        for (channel, sequence) in cursors.iter().filter(|(channel, _)| self.subscription.is_following(channel)) {
            self.cursors.note(*channel, *sequence, now);
        }
        let given = self.subscription.inbox_given();
        inbox_ids.retain(|id| *id <= given && self.confirmed.insert(*id));
        if !inbox_ids.is_empty() {
            let event = AuditEvent::InboxConfirmed { items: inbox_ids.len() };
            let audit = guard.record(&event, Some(&self.caller.uri), None, None, 0)?;
            let effect = Effect::ConfirmInbox { device: self.caller.uri.clone(), ids: inbox_ids };
            guard.commit_for(&self.caller.uri, unit(None, None, vec![effect], audit)).await?;
        }
        Ok(())
    }

    /// What comes next. Cancel-safe.
    ///
    /// # Errors
    /// [`Refusal::CertificateRevoked`] or [`Refusal::CertificateExpired`] as soon as the caller's certificate does not hold
    /// any more, [`Refusal::TrustChanged`] some moments after trust bundle or revocation lists were replaced,
    /// [`Refusal::ZoneUnavailable`] if the zone cannot be read; the stream ends then.
    pub async fn next(&mut self) -> Result<Delivery, Refusal> {
        loop {
            let due = self.cursors.due();
            let clock = Arc::clone(&self.operations.guard.clock);
            let merge = async {
                match due {
                    Some(due) => clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let catch_up = match *self.pressure.borrow_and_update() {
                Level::Calm | Level::Busy => CatchUp::Now,
                Level::Strained => CatchUp::Later,
            };
            tokio::select! {
                biased;
                refusal = self.watch.ended() => return Err(refusal),
                // The guard lives as long as this stream, and the pressure as long as the guard.
                _changed = self.pressure.changed() => {}
                () = merge => self.merge_cursors().await?,
                delivery = self.subscription.next(catch_up) => return Ok(delivery?),
            }
        }
    }

    /// Writes what the device has confirmed and is not written yet; to be called when the stream is over, whatever ended it.
    ///
    /// # Errors
    /// [`Refusal::ZoneUnavailable`]: then the hint is lost, and the device knows better.
    pub async fn merge_cursors(&mut self) -> Result<(), Refusal> {
        let cursors = self.cursors.take();
        if cursors.is_empty() {
            return Ok(());
        }
        let (store, device) = (Arc::clone(&self.operations.guard.store), self.caller.uri.clone());
        self.operations
            .guard
            .blocking(move || {
                let mut known = Vec::with_capacity(cursors.len());
                for (channel, sequence) in cursors {
                    let head = store.head(&channel)?.filter(|head| head.in_channel_since(&device).is_some());
                    known.extend(head.map(|head| (channel, sequence.min(head.head.sequence))));
                }
                Ok(store.cursor_merge(&device, &known)?)
            })
            .await?
    }

    /// Waits until the stream must end although there may be more to come, and gives the reason. Cancel-safe up to that
    /// moment; [`Receiver::next`] looks out for it, too.
    pub async fn ended(&mut self) -> Refusal {
        self.watch.ended().await
    }

    /// The caller's certificate must hold for as long as the stream does.
    async fn check_caller(&mut self, action: &'static str) -> Result<(), Refusal> {
        match self.watch.check() {
            Ok(()) => Ok(()),
            Err(refusal) => Err(self.operations.guard.refuse(&self.caller.uri, action, None, refusal).await),
        }
    }
}
