//! One connection in use: a single loop that owns both streams and the calls in flight. It reads, stores, answers; whatever
//! must survive is in the keystore before it is acted upon.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lianxin_connection::Connection;
use lianxin_connection::{Frame, InboxItem, LogEntry, Receive};
use lianxin_types::{ChannelId, Epoch, IdempotencyId, LIMITS, Monotonic, Sequence, Timestamp};

use crate::calls::Call;
use crate::incarnation::Healing;
use crate::key_packages::Replenishing;
use crate::lane::Lane;
use crate::next::{First, Next, ended};
use crate::pump::not_served;
use crate::rows::IntentKind;
use crate::shared::{News, Shared, Task};
use crate::sync::{self, Applied, Asked, Coming, Reader, TrustAge};
use crate::way_back::WayBack;
use crate::wishing::Look;
use crate::{ClientError, Event, changes, trust, unknown};

/// How often cursors are confirmed and what the application has read is stored (PROTOCOL 6: at most every 5 s).
const TICK: Duration = Duration::from_secs(5);
/// How often the channels are looked through for leaves whose keys are due to be renewed.
const LEAF_CHECK: Duration = Duration::from_secs(60);

pub(crate) struct Drive {
    pub(crate) shared: Arc<Shared>,
    pub(crate) connection: Connection,
    pub(crate) lanes: HashMap<ChannelId, Lane>,
    /// Channels whose lane may have something to hand over.
    pub(crate) ready: BTreeSet<ChannelId>,
    /// The channel that has handed over last.
    pub(crate) served: Option<ChannelId>,
    /// Messages without an answer, and of which channel.
    pub(crate) in_flight: HashMap<IdempotencyId, ChannelId>,
    pub(crate) calls: FuturesUnordered<Call>,
    /// Changes being called.
    pub(crate) calling: HashSet<IdempotencyId>,
    /// Changes that an earlier attempt may have brought into the log.
    pub(crate) doubtful: HashSet<IdempotencyId>,
    /// Channels whose changes are to be called again.
    pub(crate) retries: BTreeMap<ChannelId, Monotonic>,
    pub(crate) replenishing: Replenishing,
    leaf_check: Monotonic,
    /// Channels in which this device will commit what waits, unless somebody does before.
    pub(crate) turns: BTreeMap<ChannelId, (Monotonic, Epoch)>,
    /// Channels in which this device has something to send and so commits first (RFC 9420 section 12.4).
    pub(crate) urgent: HashSet<ChannelId>,
    /// Refusals of own commits in a row, and in which epoch.
    pub(crate) refusals: HashMap<ChannelId, (Epoch, u32)>,
    /// Channels with wishes for which a change is to be made.
    pub(crate) wish_looks: BTreeMap<ChannelId, Look>,
    /// Wishes for which key packages are being claimed.
    pub(crate) claiming: HashSet<IdempotencyId>,
    /// Channels with a broken group.
    pub(crate) ways_back: BTreeMap<ChannelId, WayBack>,
    /// Channels that go on in another group, or are to.
    pub(crate) healings: BTreeMap<ChannelId, Healing>,
    /// When this device looks next at the GroupInfo that a channel serves.
    pub(crate) looks: BTreeMap<ChannelId, Monotonic>,
    /// Channels that the gateway does not serve on this connection.
    pub(crate) gone: HashSet<ChannelId>,
    /// Channels with an invitation of which the log that is followed has not told yet.
    pub(crate) held_back: HashSet<ChannelId>,
    /// When the gateway is asked next of which channels this device is a member; `None` while it is being asked, and when there is
    /// no reason to.
    pub(crate) look_for_unknown_at: Option<Monotonic>,
    /// Channels followed again because events were missing.
    pub(crate) gaps: HashMap<ChannelId, Asked>,
    /// For the Receive stream, in order.
    pub(crate) requests: VecDeque<Receive>,
    /// How far the logs have been read.
    pub(crate) heads: HashMap<ChannelId, Sequence>,
    cursors: BTreeMap<ChannelId, Sequence>,
    tick: Monotonic,
}

/// Whether a connection stays in use.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goes {
    On,
    OnAnother,
}

impl Drive {
    pub(crate) fn new(shared: Arc<Shared>, connection: Connection) -> Self {
        let now = shared.clock.monotonic();
        Self {
            shared,
            connection,
            lanes: HashMap::new(),
            ready: BTreeSet::new(),
            served: None,
            in_flight: HashMap::new(),
            calls: FuturesUnordered::new(),
            calling: HashSet::new(),
            doubtful: HashSet::new(),
            retries: BTreeMap::new(),
            replenishing: Replenishing::begin(now),
            leaf_check: now.plus(LEAF_CHECK),
            turns: BTreeMap::new(),
            urgent: HashSet::new(),
            refusals: HashMap::new(),
            wish_looks: BTreeMap::new(),
            claiming: HashSet::new(),
            ways_back: BTreeMap::new(),
            healings: BTreeMap::new(),
            looks: BTreeMap::new(),
            gone: HashSet::new(),
            held_back: HashSet::new(),
            look_for_unknown_at: Some(now.plus(unknown::LOOK_AFTER)),
            gaps: HashMap::new(),
            requests: VecDeque::new(),
            heads: HashMap::new(),
            cursors: BTreeMap::new(),
            tick: now.plus(TICK),
        }
    }

    /// Runs until the connection or the local state fails, or until another is to be opened: between two steps, and what is on
    /// its way then is asked for again with the same ids.
    pub(crate) async fn run(mut self) -> Result<(), ClientError> {
        let (sends, mut outcomes) = self.connection.send_stream();
        let (control, mut frames) = self.connection.receive_stream();
        self.begin().await?;
        let mut first = First::Frames;
        loop {
            self.pump(&sends).await?;
            let wake = self.shared.clock.sleep_until(self.deadline());
            let request = self.requests.front().cloned();
            let frame = async { Next::Frame(frames.next().await.unwrap_or_else(ended)) };
            let other = async {
                tokio::select! {
                    biased;
                    outcome = outcomes.next() => Next::Outcome(outcome.unwrap_or_else(ended)),
                    Some(done) = self.calls.next() => Next::CallDone(done),
                    sent = async { control.request(request.expect("the branch is guarded")).await }, if request.is_some() => {
                        Next::Requested(sent)
                    }
                    () = self.shared.asked() => Next::Asked,
                    () = wake => Next::Woken,
                }
            };
            let next = first.of(frame, other).await;
            first = First::after(&next);
            match next {
                Next::Frame(frame) => self.frame(frame?).await?,
                Next::Outcome(outcome) => self.outcome(outcome?).await?,
                Next::CallDone(done) => self.call_done(done).await?,
                Next::Requested(sent) => {
                    sent?;
                    self.requests.pop_front();
                }
                Next::Asked => {
                    if self.tasks().await? == Goes::OnAnother {
                        return Ok(());
                    }
                }
                Next::Woken => self.woken().await?,
            }
        }
    }

    /// Follows every channel from where its group is, and takes up what was left.
    async fn begin(&mut self) -> Result<(), ClientError> {
        let (device, federation) = (self.shared.device.clone(), self.shared.federation());
        let standings = self.shared.transaction(move |tx, mls| {
            let mut standings = Vec::new();
            for channel in mls.channels(tx)? {
                if changes::get(tx, channel, IntentKind::Create)?.is_none() {
                    standings.push((channel, sync::standing(tx, mls, &federation, &device, channel)?));
                }
            }
            let mut lost = Vec::new();
            for channel in mls.lost(tx)? {
                match mls.is_coming_back(tx, channel)? {
                    // Called for with the other changes, even if it was accepted: the receipt says where it is.
                    true => changes::call_again(tx, channel)?,
                    false => lost.push(channel),
                }
            }
            Ok((standings, lost))
        });
        let (standings, lost) = standings.await?;
        // Nothing of their logs can be read before the way back is there.
        for channel in lost {
            self.come_back_into_lost(channel);
        }
        self.ask_for_proven();
        for (channel, place) in standings {
            self.note_head(channel, place.head);
            self.requests.push_back(Receive::Follow { channel, after: place.head });
            self.lanes.insert(channel, Lane::default());
            self.note_turn(channel, place.turn);
            if place.is_between {
                self.plan_healing(channel, 0);
            }
        }
        self.resume_changes().await
    }

    async fn tasks(&mut self) -> Result<Goes, ClientError> {
        let mut goes = Goes::On;
        for task in self.shared.take_tasks() {
            match task {
                Task::Send(channel) => {
                    self.ready.insert(channel);
                }
                Task::Change(channel) => {
                    self.start_changes(Some(channel)).await?;
                    if self.gone.contains(&channel) {
                        not_served(&self.shared, channel).await?;
                    }
                }
                Task::Follow(channel) => {
                    self.follow(channel).await?;
                    // It may have been the last resort by which this device came in.
                    self.replenish_soon();
                }
                Task::Confirm(inbox_id) => {
                    self.requests.push_back(Receive::Confirm { cursors: vec![], inbox: vec![inbox_id] });
                }
                Task::LookForChannels => self.look_soon_for_unknown(),
                Task::Reconnect => goes = Goes::OnAnother,
            }
        }
        Ok(goes)
    }

    /// Follows a channel from where its group is.
    pub(crate) async fn follow(&mut self, channel: ChannelId) -> Result<(), ClientError> {
        let (device, federation) = (self.shared.device.clone(), self.shared.federation());
        let standing = self.shared.transaction(move |tx, mls| sync::standing(tx, mls, &federation, &device, channel));
        let place = standing.await?;
        self.forget_proven(channel);
        self.note_head(channel, place.head);
        self.requests.push_back(Receive::Follow { channel, after: place.head });
        // A lane that is in use keeps its answers; nothing of an older group of the channel holds the new one.
        self.lanes.entry(channel).or_default().epoch_changed();
        self.ready.insert(channel);
        self.turns.remove(&channel);
        self.urgent.remove(&channel);
        self.refusals.remove(&channel);
        self.gaps.remove(&channel);
        self.ways_back.remove(&channel);
        self.healings.remove(&channel);
        self.gone.remove(&channel);
        self.is_known(channel);
        self.note_turn(channel, place.turn);
        Ok(())
    }

    async fn frame(&mut self, frame: Frame) -> Result<(), ClientError> {
        match frame {
            Frame::Events(events) => {
                let channel = events.first().map(|event| event.channel);
                let done = self.events(events).await;
                match channel {
                    Some(channel) => self.confine(channel, None, done).await?,
                    None => done?,
                }
            }
            Frame::CaughtUp { channel, sequence } => {
                if let Some(lane) = self.lanes.get_mut(&channel) {
                    lane.caught_up();
                    self.ready.insert(channel);
                    let done = self.look_for_way_back(channel).await;
                    self.confine(channel, None, done).await?;
                    self.offer(channel).await?;
                    self.compare_end(channel, sequence).await?;
                }
                // Nobody need listen.
                let _listeners = self.shared.moment.send(Event::CaughtUp { channel, sequence });
            }
            Frame::Gap { channel, first_retained } => self.gap(channel, first_retained).await?,
            Frame::Inbox { inbox_id, item: InboxItem::Welcome(welcome) } => self.invited(inbox_id, welcome).await?,
            Frame::Closed { channel: Some(channel), reason } => self.closed(channel, reason).await?,
            Frame::Closed { channel: None, reason } => return Err(ClientError::Refused(reason)),
            Frame::Opened { gateway_time, .. } => self.compare_clocks(gateway_time),
            Frame::Heartbeat { .. } | Frame::Unknown | Frame::Inbox { item: InboxItem::Unknown, .. } => {}
        }
        Ok(())
    }

    fn compare_clocks(&self, gateway: Timestamp) {
        let own = self.shared.clock.now();
        let tolerated = LIMITS.clock_skew_max;
        if own > gateway.plus(tolerated) || gateway > own.plus(tolerated) {
            tracing::warn!(?gateway, ?own, "this device's clock and the gateway's differ");
            // Nobody need listen.
            let _listeners = self.shared.moment.send(Event::ClockDiffers { gateway, own });
        }
    }

    async fn events(&mut self, events: Vec<LogEntry>) -> Result<(), ClientError> {
        let Some(channel) = events.first().map(|event| event.channel) else { return Ok(()) };
        // On its way when the channel was given up or left.
        if !self.lanes.contains_key(&channel) {
            return Ok(());
        }
        self.note_backlog();
        let contradicted = self.contradicted(&events);
        let events = Arc::new(events);
        let mut applied = self.apply(Arc::clone(&events), TrustAge::MayBeBehind).await?;
        if applied.is_trust_behind {
            let change_staged = applied.change_staged;
            self.applied(channel, applied);
            if change_staged {
                self.start_changes(Some(channel)).await?;
            }
            trust::refresh(&self.shared, &self.connection).await?;
            applied = self.apply(events, TrustAge::JustFetched).await?;
        }
        let missing = applied.gap.map(|found| (applied.place.head, found)).filter(|_| !applied.removed);
        let (change_staged, removed) = (applied.change_staged, applied.removed);
        self.applied(channel, applied);
        if removed || self.held_back.contains(&channel) {
            self.offer(channel).await?;
        }
        if change_staged {
            self.start_changes(Some(channel)).await?;
        }
        self.tell_contradicted(contradicted).await?;
        match missing {
            Some((head, found)) => self.missing(channel, head, found).await,
            None => Ok(()),
        }
    }

    async fn apply(&mut self, events: Arc<Vec<LogEntry>>, trust: TrustAge) -> Result<Applied, ClientError> {
        let (federation, device) = (self.shared.federation(), self.shared.device.clone());
        let lane = events.first().and_then(|event| self.lanes.get(&event.channel));
        let coming = if lane.is_some_and(Lane::has_caught_up) { Coming::Live } else { Coming::Stored };
        let applied = self.shared.transaction(move |tx, mls| {
            let reader = Reader { device: &device, federation: &federation, trust, coming };
            sync::apply(tx, mls, reader, &events)
        });
        applied.await
    }

    /// Memory follows what is stored.
    fn applied(&mut self, channel: ChannelId, applied: Applied) {
        if applied.is_state_older
            && let Some(lane) = self.lanes.get_mut(&channel)
        {
            // What is stored has no ciphertext any more.
            lane.start_over();
        }
        if applied.epoch_changed {
            self.turns.remove(&channel);
            self.urgent.remove(&channel);
            self.refusals.remove(&channel);
            self.ways_back.remove(&channel);
            self.gone.remove(&channel);
            self.wait_anew(channel);
            self.plan_look(channel, applied.place.is_to_look && !applied.removed);
            if let Some(lane) = self.lanes.get_mut(&channel) {
                lane.epoch_changed();
                self.ready.insert(channel);
            }
        }
        if applied.removed {
            self.forget(channel);
            self.requests.push_back(Receive::Unfollow { channel });
            self.look_soon_for_unknown();
        } else if applied.is_awaited {
            // What comes is for whoever has a seat already.
            self.forget(channel);
            self.requests.push_back(Receive::Unfollow { channel });
            self.plan_healing(channel, 0);
        } else {
            self.cursors.insert(channel, applied.place.head);
            self.note_head(channel, applied.place.head);
            self.note_turn(channel, applied.place.turn);
            self.note_wishes(channel, applied.place);
            if applied.place.is_broken {
                self.plan_way_back(channel);
            }
            if applied.place.is_between {
                self.plan_healing(channel, 0);
            }
        }
        if applied.settled.iter().any(|(_, outcome)| outcome.is_ok()) {
            // It was perhaps too far ahead of what had come back.
            self.may_encrypt(channel);
        }
        for (id, outcome) in applied.settled {
            self.shared.waiters.settle(id, outcome);
        }
        self.shared.bells.ring(&News::Events);
        self.shared.bells.ring(&News::Channel(channel));
    }

    pub(crate) fn stop_following(&mut self, channel: ChannelId) {
        self.requests.push_back(Receive::Unfollow { channel });
    }

    pub(crate) fn forget(&mut self, channel: ChannelId) {
        self.lanes.remove(&channel);
        self.ready.remove(&channel);
        self.turns.remove(&channel);
        self.urgent.remove(&channel);
        self.cursors.remove(&channel);
        self.refusals.remove(&channel);
        self.gaps.remove(&channel);
        self.ways_back.remove(&channel);
        self.healings.remove(&channel);
        self.looks.remove(&channel);
        self.wish_looks.remove(&channel);
        self.forget_proven(channel);
    }

    fn deadline(&self) -> Monotonic {
        let turns = self.turns.values().map(|(moment, _)| *moment);
        let lanes = self.ready.iter().filter_map(|channel| self.lanes.get(channel)?.wakes());
        turns
            .chain(lanes)
            .chain(self.retries.values().copied())
            .chain(self.ways_back.values().filter_map(|way_back| way_back.moment))
            .chain(self.healings.values().filter_map(|healing| healing.moment))
            .chain(self.looks.values().copied())
            .chain(self.wish_looks.values().map(|look| look.moment))
            .chain(self.look_for_unknown_at)
            .chain(self.proven_by())
            .fold(self.tick, Monotonic::min)
    }

    async fn woken(&mut self) -> Result<(), ClientError> {
        let now = self.shared.clock.monotonic();
        let due: Vec<ChannelId> =
            self.turns.iter().filter(|(_, (moment, _))| *moment <= now).map(|(channel, _)| *channel).collect();
        for channel in due {
            self.turns.remove(&channel);
            self.commit_pending(channel).await?;
        }
        let due: Vec<ChannelId> =
            self.retries.iter().filter(|(_, moment)| **moment <= now).map(|(channel, _)| *channel).collect();
        for channel in due {
            self.retries.remove(&channel);
            self.start_changes(Some(channel)).await?;
        }
        let due: Vec<ChannelId> =
            self.wish_looks.iter().filter(|(_, look)| look.moment <= now).map(|(channel, _)| *channel).collect();
        for channel in due {
            self.look_after_wishes(channel).await?;
        }
        let is_due = |way_back: &WayBack| way_back.moment.is_some_and(|moment| moment <= now);
        let due: Vec<ChannelId> =
            self.ways_back.iter().filter(|(_, way_back)| is_due(way_back)).map(|(channel, _)| *channel).collect();
        for channel in due {
            self.begin_way_back(channel).await?;
        }
        let is_due = |healing: &Healing| healing.moment.is_some_and(|moment| moment <= now);
        let due: Vec<ChannelId> =
            self.healings.iter().filter(|(_, healing)| is_due(healing)).map(|(channel, _)| *channel).collect();
        for channel in due {
            self.heal(channel).await?;
        }
        let due: Vec<ChannelId> =
            self.looks.iter().filter(|(_, moment)| **moment <= now).map(|(channel, _)| *channel).collect();
        for channel in due {
            self.look(channel);
        }
        self.look_after_proven().await?;
        if self.look_for_unknown_at.is_some_and(|moment| moment <= now) {
            self.look_for_unknown();
        }
        if self.tick <= now {
            self.tick = now.plus(TICK);
            self.look_after_key_packages(now).await?;
            if self.leaf_check <= now {
                self.leaf_check = now.plus(LEAF_CHECK);
                self.look_after_leaves().await?;
                trust::tell_if_expired(&self.shared).await?;
            }
            self.shared.save_read().await?;
            let cursors: Vec<_> = std::mem::take(&mut self.cursors).into_iter().collect();
            if !cursors.is_empty() {
                self.requests.push_back(Receive::Confirm { cursors, inbox: vec![] });
            }
        }
        Ok(())
    }
}
