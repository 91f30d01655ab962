//! The way back into a channel whose group a commit has broken for this device, or which it cannot follow because retention has
//! taken the events behind its head, or of which its state, an older copy, knows nothing: by an external commit, with the own key (PROTOCOL 5), and by itself. Only once the log has
//! been read as far as it goes: what came before the way back is never read.

use std::time::Duration;

use lianxin_connection::{CallError, Connection, GetGroupInfo, GroupInfo, ReasonCode};
use lianxin_mls::MlsError;
use lianxin_types::{ChannelId, Monotonic, Sequence};

use crate::calls::CallDone;
use crate::changes::{self, Staged};
use crate::drive::Drive;
use crate::error::chain;
use crate::event::keep;
use crate::shared::News;
use crate::waiters::Failure;
use crate::{ClientError, Event, outbox, sync, turns, unknown};

/// Everybody whom one commit has broken comes back, one epoch each: they begin at different moments of so long.
const SPREAD: Duration = Duration::from_millis(500);

/// How often that is tried with a public state that does not make one before the channel goes on in another group.
const UNUSABLE_MAX: u32 = 2;

/// When the next attempt comes, and how many were in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct WayBack {
    /// `None` while an attempt is being made, and after too many.
    pub(crate) moment: Option<Monotonic>,
    attempts: u32,
    /// How often the public state that is served did not make a way back.
    unusable: u32,
    /// Why the device begins anew, if it does.
    anew: Option<Anew>,
}

/// Why a device comes back that has no broken group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anew {
    /// The own group is in order and can go no further, for there are no events before this one: it is forgotten with the way
    /// back.
    CutOff(Sequence),
    /// The state knows nothing of the channel.
    Unknown,
}

impl Drive {
    /// The channel's group is broken: plans the way back, unless that is planned or on its way.
    pub(crate) fn plan_way_back(&mut self, channel: ChannelId) {
        if !self.lanes.get(&channel).is_some_and(|lane| lane.has_caught_up()) {
            // Planned when the backlog has been read.
            return;
        }
        let moment = self.shared.clock.monotonic().plus(self.way_back_jitter());
        self.ways_back.entry(channel).or_insert(WayBack { moment: Some(moment), ..WayBack::default() });
    }

    /// The backlog has been read: whether it has left the group broken.
    pub(crate) async fn look_for_way_back(&mut self, channel: ChannelId) -> Result<(), ClientError> {
        let (device, federation) = (self.shared.device.clone(), self.shared.federation());
        let place = self.shared.transaction(move |tx, mls| sync::standing(tx, mls, &federation, &device, channel));
        if place.await?.is_broken {
            self.plan_way_back(channel);
        }
        Ok(())
    }

    /// An attempt was in vain; the next ones come later and later, until there have been too many on this connection.
    pub(crate) fn way_back_failed(&mut self, channel: ChannelId) {
        let jitter = self.way_back_jitter();
        let way_back = self.ways_back.entry(channel).or_default();
        way_back.attempts += 1;
        let delay = turns::delay_after_refusal(way_back.attempts);
        way_back.moment = delay.map(|delay| self.shared.clock.monotonic().plus(delay + jitter));
    }

    /// The gateway gives this device no events between its head and `first`, and never will. A moment is left for an invitation,
    /// for it may have been removed and invited again.
    pub(crate) fn cut_off(&mut self, channel: ChannelId, first: Sequence) {
        self.forget(channel);
        self.stop_following(channel);
        let moment = self.shared.clock.monotonic().plus(SPREAD + self.way_back_jitter());
        self.ways_back
            .insert(channel, WayBack { moment: Some(moment), anew: Some(Anew::CutOff(first)), ..WayBack::default() });
    }

    /// This device has lost the channel's group, and no way back waits.
    pub(crate) fn come_back_into_lost(&mut self, channel: ChannelId) {
        let moment = self.shared.clock.monotonic().plus(self.way_back_jitter());
        self.ways_back.entry(channel).or_insert(WayBack { moment: Some(moment), ..WayBack::default() });
    }

    /// This device is a member of a channel of which its state knows nothing.
    pub(crate) fn come_back_into_unknown(&mut self, channel: ChannelId) {
        let moment = self.shared.clock.monotonic().plus(self.way_back_jitter());
        let new = WayBack { moment: Some(moment), anew: Some(Anew::Unknown), ..WayBack::default() };
        self.ways_back.entry(channel).or_insert(new);
    }

    /// Tells the application; says whether the device goes back by itself, not by an invitation.
    async fn tell_cut_off(&mut self, channel: ChannelId, first: Sequence) -> Result<bool, ClientError> {
        let is_invited = self.shared.transaction(move |tx, _| {
            let is_invited = sync::is_invited(tx, channel)?;
            let reason = format!("this device gets no events before {}", first.0);
            let told = match is_invited {
                true => Event::ChannelGone { channel, reason },
                false => Event::AwayTooLong { channel, sequence: first },
            };
            keep(tx, &told)?;
            Ok(is_invited)
        });
        let is_invited = is_invited.await?;
        self.shared.bells.ring(&News::Events);
        Ok(!is_invited)
    }

    fn way_back_jitter(&self) -> Duration {
        SPREAD * u32::from(self.shared.random.array::<1>()[0]) / 256
    }

    /// Asks for what it takes.
    pub(crate) async fn begin_way_back(&mut self, channel: ChannelId) -> Result<(), ClientError> {
        let Some(way_back) = self.ways_back.get_mut(&channel) else { return Ok(()) };
        way_back.moment = None;
        let is_first = way_back.attempts == 0;
        if let Some(Anew::CutOff(first)) = way_back.anew.filter(|_| is_first)
            && !self.tell_cut_off(channel, first).await?
        {
            self.ways_back.remove(&channel);
            return Ok(());
        }
        self.calls.push(Box::pin(public_state(self.connection.clone(), channel)));
        Ok(())
    }

    /// Whether this device waits for its seat in the group that carries the channel on, or still reads the log, which tells of that group;
    /// of an own removal it tells a broken group nothing, and the end of the subscription does.
    async fn is_told_by_the_log(&mut self, channel: ChannelId) -> Result<bool, ClientError> {
        let begins_anew = self.ways_back.get(&channel).is_some_and(|way_back| way_back.anew.is_some());
        let follows = self.lanes.contains_key(&channel) && !begins_anew;
        let view = self.shared.transaction(move |tx, mls| Ok(mls.channel(tx, channel)?)).await?;
        Ok(view.is_some_and(|view| view.is_awaited || follows))
    }

    /// Makes the external commit, if the group is still broken, and has it sent like every change.
    pub(crate) async fn go_back(
        &mut self,
        channel: ChannelId,
        state: Result<GroupInfo, CallError>,
    ) -> Result<(), ClientError> {
        let state = match state {
            Ok(state) => state,
            // Another may have carried the channel on in the meantime: it is in the log that this device reads, as its removal is.
            Err(CallError::Refused(problem))
                if problem.code == ReasonCode::NotMember && self.is_told_by_the_log(channel).await? =>
            {
                self.ways_back.remove(&channel);
                return Ok(());
            }
            // Removed in the meantime: there is no way back, and the application is not to wait for one.
            Err(CallError::Refused(problem))
                if matches!(problem.code, ReasonCode::NotMember | ReasonCode::ChannelNotAvailable) =>
            {
                return self.gone(channel, problem.to_string()).await;
            }
            Err(error) => {
                tracing::debug!(?channel, %error, "no group info to come back by");
                self.way_back_failed(channel);
                return Ok(());
            }
        };
        let (federation, id) = (self.shared.federation(), self.shared.id());
        let anew = self.ways_back.get(&channel).and_then(|way_back| way_back.anew);
        let staged = self.shared.transaction(move |tx, mls| {
            let mut failed = Vec::new();
            if anew == Some(Anew::Unknown) && !unknown::is_unknown(tx, mls, channel)? {
                // An invitation came after all.
                return Ok((Staged::Done, failed));
            }
            if anew.is_some() {
                // What waits was for a group that is forgotten here.
                let (committed, left) = changes::epoch_ended(tx, channel)?;
                failed = outbox::drop_all(tx, channel, outbox::Read::InPart)?;
                failed.extend(committed.into_iter().chain(left).map(|id| (id, Failure::GivenUp)));
                mls.discard(tx, channel)?;
            }
            let bundle = mls.rejoin(tx, &federation, channel, &state.group_info, &state.ratchet_tree);
            match changes::put_commit(tx, channel, id, bundle) {
                // Somebody else's commit, or an own one, has done it.
                Err(ClientError::Mls(MlsError::NotBroken)) => Ok((Staged::Done, failed)),
                staged => {
                    let staged = staged?;
                    if anew == Some(Anew::Unknown) && matches!(staged, Staged::Ready) {
                        keep(tx, &Event::StateRestored { channel, sequence: Sequence(0) })?;
                    }
                    Ok((staged, failed))
                }
            }
        });
        match staged.await {
            Ok((Staged::Ready, failed)) => {
                for (id, failure) in failed {
                    self.shared.waiters.settle(id, Err(failure));
                }
                if anew.is_some() {
                    self.shared.bells.ring(&News::Events);
                    self.ways_back.insert(channel, WayBack::default());
                }
                self.start_changes(Some(channel)).await
            }
            Ok((Staged::Busy, _)) => Ok(()),
            Ok((Staged::Done, _)) => {
                self.ways_back.remove(&channel);
                Ok(())
            }
            Err(ClientError::State(error)) => Err(error.into()),
            // What is served is wrong, or this device's certificate is: it must not end the connection.
            Err(error) => {
                tracing::warn!(?channel, error = %chain(&error), "cannot come back into a broken channel");
                self.way_back_failed(channel);
                let way_back = self.ways_back.entry(channel).or_default();
                way_back.unusable += 1;
                // Whoever can see that it is wrong has had the time to replace it.
                match way_back.unusable >= UNUSABLE_MAX && anew.is_none() {
                    true => self.plan_next_incarnation(channel).await,
                    false => Ok(()),
                }
            }
        }
    }
}

async fn public_state(connection: Connection, channel: ChannelId) -> CallDone {
    CallDone::PublicState { channel, result: connection.group_info(GetGroupInfo { channel }).await }
}
