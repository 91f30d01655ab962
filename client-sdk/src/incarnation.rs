//! A channel that goes on in another group, because a commit has broken the one before and there is no way back into it: started
//! by the first member whose turn it is, who then seats the others; each of them waits for its seat. Should nobody be seated, the
//! next one starts another. By itself, all of it.

use std::sync::Arc;
use std::time::Duration;

use lianxin_connection::{CallError, Claim, Connection, GetWelcomeTree, Receive, WelcomeTree};
use lianxin_keystore::Transaction;
use lianxin_mls::{Mls, MlsError};
use lianxin_trust::Federation;
use lianxin_types::{
    ChannelId, DeviceUri, GroupId, IdempotencyId, Incarnation, LIMITS, Monotonic, Sequence, Timestamp,
};

use crate::calls::CallDone;
use crate::changes::{self, Staged};
use crate::drive::Drive;
use crate::error::chain;
use crate::event::keep;
use crate::lane::Lane;
use crate::pump::not_served;
use crate::rows::{SEAT_WAIT, SeatWaitRow};
use crate::shared::{News, Shared};
use crate::{ClientError, Event, planning, sync, trust};

/// Between attempts, at most.
const DELAY_MAX: Duration = Duration::from_secs(60);

/// How many times [`lianxin_types::Limits::seats_within`] a device waits for its seat, at most.
const WAITS_MAX: u32 = 20;

/// After so long the application is told that nobody seats this device.
const MISSING_AFTER: Duration = Duration::from_secs(600);

/// When the next step comes, and how many were in vain. What the step is, the stored state says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Healing {
    /// `None` while a step is being made.
    pub(crate) moment: Option<Monotonic>,
    attempts: u32,
    /// Whether the step is to start another group because nobody seats this device in the one that it waits for.
    instead: bool,
}

/// Key packages with which others are to be seated.
#[derive(Debug)]
pub(crate) struct Seats {
    packages: Vec<Vec<u8>>,
    /// Of whom there is none yet.
    late: Vec<DeviceUri>,
    /// Whose key packages do not verify: they are not taken along.
    unfit: Vec<DeviceUri>,
}

/// What the stored state asks for.
enum Step {
    /// Nothing, any more or yet.
    None,
    /// To wait for a seat in this incarnation, as the member with so many before it.
    Wait {
        incarnation: Incarnation,
        rank: u32,
        /// The application was told that nobody gives one.
        is_missing: bool,
    },
    /// A start was stored.
    Started,
    /// The seat that this invitation gives is to be taken.
    Take(Sequence),
    /// These are to be seated.
    Seat(Vec<DeviceUri>),
    /// Nothing before there is a trust bundle that is not past its end.
    WaitForTrust,
}

impl Drive {
    /// Plans a step for the member with so many before it, unless one is planned or on its way.
    pub(crate) fn plan_healing(&mut self, channel: ChannelId, rank: u32) {
        let moment = self.shared.clock.monotonic().plus(planning::wait_of(rank));
        self.healings.entry(channel).or_insert(Healing { moment: Some(moment), ..Healing::default() });
    }

    /// An invitation has come for which this device waits.
    pub(crate) fn seat_came(&mut self, channel: ChannelId) {
        self.healings.insert(channel, Healing { moment: Some(self.shared.clock.monotonic()), ..Healing::default() });
    }

    /// The channel's group is another one: who it was waited for does not matter any more.
    pub(crate) fn wait_anew(&mut self, channel: ChannelId) {
        if self.healings.get(&channel).is_some_and(|healing| healing.instead) {
            self.healings.remove(&channel);
        }
    }

    /// There is no way back into the channel's group: this device starts the next one when those before it in the tree have not.
    pub(crate) async fn plan_next_incarnation(&mut self, channel: ChannelId) -> Result<(), ClientError> {
        let view = self.shared.transaction(move |tx, mls| Ok(mls.channel(tx, channel)?)).await?;
        if let Some(view) = view {
            self.plan_healing(channel, u32::try_from(view.own_position).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    /// A step was in vain; the next ones come later and later.
    pub(crate) fn healing_failed(&mut self, channel: ChannelId) {
        let now = self.shared.clock.monotonic();
        let healing = self.healings.entry(channel).or_default();
        healing.attempts += 1;
        let delay = (planning::TURN * 2_u32.pow(healing.attempts.min(10))).min(DELAY_MAX);
        healing.moment = Some(now.plus(delay));
    }

    /// Takes the step that the stored state asks for.
    pub(crate) async fn heal(&mut self, channel: ChannelId) -> Result<(), ClientError> {
        let Some(waiting) = self.healings.get_mut(&channel) else { return Ok(()) };
        waiting.moment = None;
        let healing = *waiting;
        let in_vain = healing.instead;
        // Only who has read everything, and no seats of others, knows that nobody has been seated.
        let instead = in_vain && self.lanes.get(&channel).is_some_and(Lane::has_caught_up);
        let (federation, id, now) = (self.shared.federation(), self.shared.id(), self.shared.clock.now());
        let step = self.shared.transaction(move |tx, mls| {
            let asked = Asked { channel, federation: &federation, id, now, in_vain, instead };
            next_step(tx, mls, asked)
        });
        let step = match step.await {
            Ok(step) => step,
            Err(ClientError::State(error)) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(?channel, error = %chain(&error), "a broken channel cannot go on in another group");
                self.healing_failed(channel);
                return Ok(());
            }
        };
        match step {
            Step::None => {
                self.healings.remove(&channel);
            }
            Step::Wait { incarnation, rank, is_missing } => {
                if is_missing {
                    self.seat_is_missing(channel).await?;
                }
                // Where starts have been in vain before, there may be a reason for it that time must mend.
                let wait = LIMITS.seats_within * incarnation.0.clamp(1, WAITS_MAX);
                let moment = self.shared.clock.monotonic().plus(wait + planning::wait_of(rank));
                self.healings.insert(channel, Healing { moment: Some(moment), attempts: 0, instead: true });
            }
            Step::Started => {
                self.healings.remove(&channel);
                self.start_changes(Some(channel)).await?;
            }
            Step::WaitForTrust => {
                trust::tell_if_expired(&self.shared).await?;
                let moment = self.shared.clock.monotonic().plus(DELAY_MAX);
                self.healings.insert(channel, Healing { moment: Some(moment), ..healing });
            }
            Step::Take(sequence) => self.calls.push(Box::pin(tree(self.connection.clone(), channel, sequence))),
            Step::Seat(devices) => {
                let (shared, connection) = (Arc::clone(&self.shared), self.connection.clone());
                self.calls.push(Box::pin(async move {
                    CallDone::Seats { channel, found: claim(&shared, &connection, channel, devices).await }
                }));
            }
        }
        Ok(())
    }

    /// Whoever sends something is told so at once until there is a seat.
    async fn seat_is_missing(&mut self, channel: ChannelId) -> Result<(), ClientError> {
        self.gone.insert(channel);
        not_served(&self.shared, channel).await?;
        self.shared.bells.ring(&News::Events);
        Ok(())
    }

    /// The own start was refused. Whoever would have started another group because nobody seats it there waits on, and not for ever
    /// without a word.
    pub(crate) async fn start_refused(&mut self, channel: ChannelId) -> Result<(), ClientError> {
        let now = self.shared.clock.now();
        let is_missing = self.shared.transaction(move |tx, mls| match mls.awaited(tx, channel)? {
            Some(GroupId { incarnation, .. }) => note_wait(tx, channel, incarnation, now, true),
            None => Ok(false),
        });
        if is_missing.await? {
            self.seat_is_missing(channel).await?;
        }
        self.healing_failed(channel);
        Ok(())
    }

    /// Takes the seat, if the invitation is into the group that carries the channel on; else it is the application's.
    pub(crate) async fn take_seat(
        &mut self,
        channel: ChannelId,
        sequence: Sequence,
        tree: Result<WelcomeTree, CallError>,
    ) -> Result<(), ClientError> {
        let tree = match tree {
            Ok(tree) => tree.ratchet_tree.to_vec(),
            Err(error) => {
                tracing::debug!(?channel, %error, "no tree for the seat in the next group");
                self.healing_failed(channel);
                return Ok(());
            }
        };
        // It may have ended since the tree was asked for.
        let Ok(federation) = self.shared.fresh_federation() else {
            self.healing_failed(channel);
            return Ok(());
        };
        let taken =
            self.shared.transaction(move |tx, mls| sync::take_seat(tx, mls, &federation, (channel, sequence), tree));
        match taken.await {
            Ok(taken) => {
                self.healings.remove(&channel);
                if let Some(inbox_id) = taken {
                    self.requests.push_back(Receive::Confirm { cursors: vec![], inbox: vec![inbox_id] });
                    self.follow(channel).await?;
                }
                Ok(())
            }
            Err(ClientError::State(error)) => Err(error.into()),
            Err(error) => {
                tracing::warn!(?channel, error = %chain(&error), "an invitation is not the seat that is waited for");
                self.healings.remove(&channel);
                let left = self.shared.transaction(move |tx, mls| {
                    let offered = sync::not_a_seat(tx, mls, channel, sequence)?;
                    Ok((offered, mls.awaited(tx, channel)?.is_some()))
                });
                let (offered, is_awaited) = left.await?;
                self.offered(channel, offered);
                if is_awaited {
                    self.plan_healing(channel, 0);
                }
                Ok(())
            }
        }
    }

    /// Commits the seats of those whose key packages came.
    pub(crate) async fn seat(&mut self, channel: ChannelId, found: Seats) -> Result<(), ClientError> {
        let Ok(federation) = self.shared.fresh_federation() else {
            self.healing_failed(channel);
            return Ok(());
        };
        let id = self.shared.id();
        let staged = self.shared.transaction(move |tx, mls: &Mls| {
            mls.defer_seats(tx, channel, &found.late, &found.unfit)?;
            if found.packages.is_empty() {
                return Ok(Staged::Done);
            }
            let seats = mls.invite(tx, &federation, channel, &found.packages);
            changes::put_commit(tx, channel, id, seats)
        });
        let is_ready = match staged.await {
            Ok(Staged::Done) => {
                // Nobody to wait for: what waits may go.
                self.may_encrypt(channel);
                false
            }
            Ok(staged) => matches!(staged, Staged::Ready),
            Err(ClientError::State(error)) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(?channel, error = %chain(&error), "members cannot be seated in the next group");
                false
            }
        };
        // Whoever is left when this commit has come back, or failed, is looked after then.
        self.healing_failed(channel);
        if is_ready { self.start_changes(Some(channel)).await } else { Ok(()) }
    }
}

/// What [`next_step`] goes by.
#[derive(Clone, Copy)]
struct Asked<'a> {
    channel: ChannelId,
    federation: &'a Federation,
    /// Of what is to be sent.
    id: IdempotencyId,
    now: Timestamp,
    /// A seat was waited for in vain.
    in_vain: bool,
    /// Another group is to be started in the place of the one in which nobody seats this device.
    instead: bool,
}

/// The step that the stored state asks for; a start is stored with it.
fn next_step(tx: &Transaction<'_>, mls: &Mls, asked: Asked<'_>) -> Result<Step, ClientError> {
    let Asked { channel, federation, id, now, in_vain, instead } = asked;
    let is_stale = federation.is_stale(now);
    let Some(view) = mls.channel(tx, channel)? else { return Ok(Step::None) };
    if view.is_awaited {
        let invitation = sync::newest_seat(tx, channel)?.filter(|found| *found > view.head.sequence);
        if let Some(sequence) = invitation {
            return Ok(if is_stale { Step::WaitForTrust } else { Step::Take(sequence) });
        }
        if !instead {
            let rank = u32::try_from(view.own_position).unwrap_or(u32::MAX);
            let Some(GroupId { incarnation, .. }) = mls.awaited(tx, channel)? else { return Ok(Step::None) };
            let is_missing = note_wait(tx, channel, incarnation, now, in_vain)?;
            return Ok(Step::Wait { incarnation, rank, is_missing });
        }
    }
    if view.is_broken || view.is_awaited {
        if is_stale {
            return Ok(Step::WaitForTrust);
        }
        let staged = changes::put_start(tx, channel, id, mls.next_incarnation(tx, federation, channel))?;
        return Ok(if matches!(staged, Staged::Ready) { Step::Started } else { Step::None });
    }
    let mut devices = mls.unseated(tx, channel)?;
    devices.truncate(LIMITS.invites_per_commit_max);
    Ok(match devices.is_empty() {
        true => Step::None,
        false if is_stale => Step::WaitForTrust,
        false => Step::Seat(devices),
    })
}

/// Notes that this device waits for a seat, and tells the application when that has been in vain for too long. Gives whether it is so.
fn note_wait(
    tx: &Transaction<'_>,
    channel: ChannelId,
    incarnation: Incarnation,
    now: Timestamp,
    in_vain: bool,
) -> Result<bool, ClientError> {
    let known = tx.get(SEAT_WAIT, &channel.0)?.map(|bytes| SeatWaitRow::from_bytes(&bytes)).transpose()?;
    let known = known.filter(|wait| wait.incarnation == incarnation);
    let mut wait = known.unwrap_or(SeatWaitRow { incarnation, since: now, is_told: false });
    // Who was away in between has to look first whether it has come.
    if in_vain && !wait.is_told && now > wait.since.plus(MISSING_AFTER) {
        keep(tx, &Event::SeatMissing { channel, incarnation })?;
        wait.is_told = true;
    }
    if known != Some(wait) {
        tx.put(SEAT_WAIT, &channel.0, &wait.to_bytes())?;
    }
    Ok(in_vain && wait.is_told)
}

async fn tree(connection: Connection, channel: ChannelId, sequence: Sequence) -> CallDone {
    CallDone::SeatTree {
        channel,
        sequence,
        result: connection.welcome_tree(GetWelcomeTree { channel, sequence }).await,
    }
}

/// A key package of each, at once; one by one if that fails, so that nobody keeps the others waiting.
async fn claim(shared: &Shared, connection: &Connection, channel: ChannelId, devices: Vec<DeviceUri>) -> Seats {
    let mut seats = Seats { packages: Vec::new(), late: Vec::new(), unfit: Vec::new() };
    if let Ok(packages) = claim_together(shared, connection, channel, &devices).await {
        seats.packages = packages;
        return seats;
    }
    for device in devices {
        match claim_together(shared, connection, channel, std::slice::from_ref(&device)).await {
            Ok(packages) => seats.packages.extend(packages),
            Err(ClientError::Mls(MlsError::Profile(error))) => {
                tracing::warn!(?channel, device = device.as_str(), %error, "cannot be taken along into the next group");
                seats.unfit.push(device);
            }
            Err(error) => {
                tracing::debug!(?channel, device = device.as_str(), error = %chain(&error), "no key package yet");
                seats.late.push(device);
            }
        }
    }
    seats
}

pub(crate) async fn claim_together(
    shared: &Shared,
    connection: &Connection,
    channel: ChannelId,
    devices: &[DeviceUri],
) -> Result<Vec<Vec<u8>>, ClientError> {
    let claim = Claim { id: shared.id(), channel, owners: devices.to_vec() };
    let packages: Vec<Vec<u8>> =
        connection.claim(claim).await?.key_packages.iter().map(|package| package.to_vec()).collect();
    shared.mls.check_claimed(&*shared.fresh_federation()?, devices, &packages)?;
    Ok(packages)
}
