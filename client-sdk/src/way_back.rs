//! The way back into a channel whose group a commit has broken for this device, or which it cannot follow because retention has
//! taken the events behind its head, or of which its state, an older copy, knows nothing: by an external commit, with the own key (PROTOCOL 5), and by itself. Only once the log has
//! been read as far as it goes: what came before the way back is never read.

use std::time::Duration;

use lianxin_connection::{CallError, Connection, GetGroupInfo, GroupInfo, Problem, ReasonCode};
use lianxin_mls::MlsError;
use lianxin_types::{ChannelId, Epoch, Incarnation, Monotonic, Sequence};

use crate::calls::CallDone;
use crate::changes::{self, Staged};
use crate::drive::Drive;
use crate::error::chain;
use crate::event::keep;
use crate::lane::TOLD_WITHIN;
use crate::pump::not_served;
use crate::shared::News;
use crate::wishes::{self, Ending, Settled};
use crate::{ClientError, Event, outbox, sync, trust, turns, unknown};

/// Everybody whom one commit has broken comes back, one epoch each: they begin at different moments of so long.
const SPREAD: Duration = Duration::from_millis(500);

/// Past the end of the trust bundle nobody comes back (PROTOCOL 9): how often it is looked whether there is a newer one. A gateway that
/// has one ends the connection, and the next begins with it.
const FOR_TRUST: Duration = Duration::from_secs(60);

/// How often that is tried with a public state that does not make one before the channel goes on in another group.
const UNUSABLE_MAX: u32 = 2;

/// When the next attempt comes, and how many were in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct WayBack {
    /// `None` while an attempt is being made.
    pub(crate) moment: Option<Monotonic>,
    attempts: u32,
    /// How often the public state that is served did not make a way back.
    unusable: u32,
    /// Why the device begins anew, if it does.
    anew: Option<Anew>,
    /// The gateway has said that this device is no member, and the log may tell why.
    was_refused: bool,
    /// The group and epoch to which the log had come when a public state was refused for being older.
    known: Option<(Incarnation, Epoch)>,
    /// The application was told that the gateway serves an old one.
    is_told: bool,
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

/// What an attempt has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    /// The way back waits for the gateway.
    Made,
    /// There is no need for one any more.
    Needless,
    /// It is to be made again: others have changed the group meanwhile, or another own change waits there.
    Again,
    /// The same, because what is served is of this group and epoch, and the log has come to the second ones.
    Old { found: (Incarnation, Epoch), known: (Incarnation, Epoch) },
    /// What is served does not make one, or this device's certificate does not.
    Unusable,
}

impl Attempt {
    const fn of(staged: &Result<(Staged, Settled), ClientError>) -> Self {
        match staged {
            Ok((Staged::Ready, _)) => Self::Made,
            Ok((Staged::Done, _)) => Self::Needless,
            Ok((Staged::Busy, _)) | Err(ClientError::Mls(MlsError::Overtaken)) => Self::Again,
            Err(ClientError::Mls(MlsError::OldGroupInfo { found, known })) => {
                Self::Old { found: *found, known: *known }
            }
            Err(_) => Self::Unusable,
        }
    }
}

impl WayBack {
    /// What is served has not made a way back; says whether that was so too often. Whoever can see that it is wrong has had the
    /// time to replace it then.
    const fn unusable_again(&mut self) -> bool {
        self.unusable += 1;
        self.unusable >= UNUSABLE_MAX && self.anew.is_none()
    }

    /// What is served is of this group and epoch, and the log has come to the second ones; says whether that is so though it was asked
    /// for behind those: others may have gone on in between only once.
    fn is_old_again(&mut self, found: (Incarnation, Epoch), known: (Incarnation, Epoch)) -> bool {
        self.known.replace(known).is_some_and(|known| found < known)
    }

    /// The gateway says that this device is no member; says whether the log may still tell why. It tells a broken group of the one
    /// that follows, not of an own removal: so that is asked once more.
    const fn may_be_told(&mut self) -> bool {
        self.anew.is_none() && !std::mem::replace(&mut self.was_refused, true)
    }
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
        let place = place.await?;
        self.note_wishes(channel, place);
        if place.is_broken {
            self.plan_way_back(channel);
        }
        Ok(())
    }

    /// An attempt was in vain; the next ones come later and later.
    pub(crate) fn way_back_failed(&mut self, channel: ChannelId) {
        let attempts = self.ways_back.entry(channel).or_default().attempts;
        self.plan_way_back_again(channel, attempts.saturating_add(1));
    }

    /// The gateway has refused the way back.
    pub(crate) fn way_back_refused(&mut self, channel: ChannelId, problem: &Problem) {
        let attempts = self.ways_back.entry(channel).or_default().attempts;
        self.plan_way_back_again(channel, turns::one_more(attempts, problem.code));
    }

    fn plan_way_back_again(&mut self, channel: ChannelId, attempts: u32) {
        let jitter = self.way_back_jitter();
        let [random] = self.shared.random.array();
        let moment = self.shared.clock.monotonic().plus(turns::delay_after_refusal(attempts, random) + jitter);
        let way_back = self.ways_back.entry(channel).or_default();
        (way_back.attempts, way_back.moment) = (attempts, Some(moment));
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

    /// Tells the application; says whether the device goes back by itself, not by an invitation. Until that is accepted nobody is to
    /// wait for what is stored.
    async fn tell_cut_off(&mut self, channel: ChannelId, first: Sequence) -> Result<bool, ClientError> {
        if self.shared.transaction(move |tx, _| sync::is_invited(tx, channel)).await? {
            self.gone(channel, format!("this device gets no events before {}", first.0)).await?;
            return Ok(false);
        }
        let told = Event::AwayTooLong { channel, sequence: first };
        self.shared.transaction(move |tx, _| keep(tx, &told)).await?;
        self.shared.bells.ring(&News::Events);
        Ok(true)
    }

    fn way_back_jitter(&self) -> Duration {
        SPREAD * u32::from(self.shared.random.array::<1>()[0]) / 256
    }

    /// Asks for what it takes.
    pub(crate) async fn begin_way_back(&mut self, channel: ChannelId) -> Result<(), ClientError> {
        let is_stale = self.shared.fresh_federation().is_err();
        let trust_comes = self.shared.clock.monotonic().plus(FOR_TRUST);
        let Some(way_back) = self.ways_back.get_mut(&channel) else { return Ok(()) };
        if is_stale {
            way_back.moment = Some(trust_comes);
            return trust::tell_if_expired(&self.shared).await;
        }
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

    /// There is no way back for who is no member, and the application is not to wait for one.
    async fn refused(&mut self, channel: ChannelId, problem: Problem) -> Result<(), ClientError> {
        let view = self.shared.transaction(move |tx, mls| Ok(mls.channel(tx, channel)?)).await?;
        let is_awaited = view.is_some_and(|view| view.is_awaited);
        if problem.code == ReasonCode::NotMember && is_awaited {
            // Another has carried the channel on in the meantime, and this device waits for its seat there.
            self.ways_back.remove(&channel);
            return Ok(());
        }
        if self.lanes.contains_key(&channel) {
            let moment = self.shared.clock.monotonic().plus(TOLD_WITHIN);
            let way_back = self.ways_back.entry(channel).or_default();
            if problem.code == ReasonCode::NotMember && way_back.may_be_told() {
                way_back.moment = Some(moment);
                return Ok(());
            }
            self.stop_following(channel);
        }
        self.gone(channel, problem.to_string()).await
    }

    /// Makes the external commit, if the group is still broken, and has it sent like every change.
    pub(crate) async fn go_back(
        &mut self,
        channel: ChannelId,
        state: Result<GroupInfo, CallError>,
    ) -> Result<(), ClientError> {
        let state = match state {
            Ok(state) => state,
            Err(CallError::Refused(problem))
                if matches!(problem.code, ReasonCode::NotMember | ReasonCode::ChannelNotAvailable) =>
            {
                return self.refused(channel, problem).await;
            }
            Err(error) => {
                tracing::debug!(?channel, %error, "no group info to come back by");
                self.way_back_failed(channel);
                return Ok(());
            }
        };
        // It may have ended since that was asked for.
        let Ok(federation) = self.shared.fresh_federation() else {
            self.way_back_failed(channel);
            return Ok(());
        };
        let id = self.shared.id();
        let anew = self.ways_back.get(&channel).and_then(|way_back| way_back.anew);
        let staged = self.shared.transaction(move |tx, mls| {
            let mut settled = Settled::new();
            if anew == Some(Anew::Unknown) && !unknown::is_unknown(tx, mls, channel)? {
                // An invitation came after all.
                return Ok((Staged::Done, settled));
            }
            if anew.is_some() {
                // What waits was for a group that is forgotten here.
                settled = wishes::epoch_ended(tx, channel, Ending::Anew)?;
                let failed = outbox::drop_all(tx, channel, outbox::Read::InPart)?;
                settled.extend(failed.into_iter().map(|(id, failure)| (id, Err(failure))));
                mls.discard(tx, channel)?;
            }
            let bundle = mls.rejoin(tx, &federation, channel, &state.group_info, &state.ratchet_tree);
            match changes::put_commit(tx, channel, id, bundle) {
                // Somebody else's commit, or an own one, has done it.
                Err(ClientError::Mls(MlsError::NotBroken)) => Ok((Staged::Done, settled)),
                staged => {
                    let staged = staged?;
                    if anew == Some(Anew::Unknown) && matches!(staged, Staged::Ready) {
                        keep(tx, &Event::StateRestored { channel, sequence: Sequence(0) })?;
                    }
                    Ok((staged, settled))
                }
            }
        });
        let staged = staged.await;
        let attempt = Attempt::of(&staged);
        match staged {
            Ok((_, settled)) => {
                for (id, outcome) in settled {
                    self.shared.waiters.settle(id, outcome);
                }
            }
            Err(ClientError::State(error)) => return Err(error.into()),
            Err(error) if matches!(attempt, Attempt::Again | Attempt::Old { .. }) => {
                tracing::debug!(?channel, error = %chain(&error), "the way back is made again");
            }
            // What is served is wrong, or this device's certificate is: it must not end the connection.
            Err(error) => {
                tracing::warn!(?channel, error = %chain(&error), "cannot come back into a broken channel");
            }
        }
        self.attempted(channel, attempt, anew).await
    }

    async fn attempted(&mut self, channel: ChannelId, attempt: Attempt, anew: Option<Anew>) -> Result<(), ClientError> {
        match attempt {
            Attempt::Made => {
                self.gone.remove(&channel);
                if anew.is_some() {
                    self.shared.bells.ring(&News::Events);
                    self.ways_back.insert(channel, WayBack::default());
                }
                self.start_changes(Some(channel)).await
            }
            Attempt::Needless => {
                self.gone.remove(&channel);
                self.ways_back.remove(&channel);
                Ok(())
            }
            Attempt::Old { found, known } => {
                self.way_back_failed(channel);
                match self.ways_back.entry(channel).or_default().is_old_again(found, known) {
                    true => self.old_again(channel, found).await,
                    false => Ok(()),
                }
            }
            Attempt::Again => {
                self.way_back_failed(channel);
                Ok(())
            }
            Attempt::Unusable => {
                self.way_back_failed(channel);
                match self.ways_back.entry(channel).or_default().unusable_again() {
                    true => self.plan_next_incarnation(channel).await,
                    false => Ok(()),
                }
            }
        }
    }

    /// The gateway leads back to where the log no longer is: the application is told, and nobody waits for it.
    async fn old_again(
        &mut self,
        channel: ChannelId,
        (incarnation, epoch): (Incarnation, Epoch),
    ) -> Result<(), ClientError> {
        if !std::mem::replace(&mut self.ways_back.entry(channel).or_default().is_told, true) {
            let told = Event::OldGroupInfo { channel, incarnation, epoch };
            self.shared.transaction(move |tx, _| keep(tx, &told)).await?;
            self.shared.bells.ring(&News::Events);
        }
        self.gone.insert(channel);
        not_served(&self.shared, channel).await
    }
}

async fn public_state(connection: Connection, channel: ChannelId) -> CallDone {
    CallDone::PublicState { channel, result: connection.group_info(GetGroupInfo { channel }).await }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(error: MlsError) -> Result<(Staged, Settled), ClientError> {
        Err(ClientError::Mls(error))
    }

    #[test]
    fn only_a_public_state_that_makes_no_way_back_counts_as_one() {
        assert_eq!(Attempt::of(&failed(MlsError::Overtaken)), Attempt::Again);
        let (found, known) = ((Incarnation(0), Epoch(9)), (Incarnation(1), Epoch(2)));
        assert_eq!(Attempt::of(&failed(MlsError::OldGroupInfo { found, known })), Attempt::Old { found, known });
        assert_eq!(Attempt::of(&Ok((Staged::Busy, Vec::new()))), Attempt::Again, "another own change waits");
        assert_eq!(Attempt::of(&Ok((Staged::Ready, Vec::new()))), Attempt::Made);
        assert_eq!(Attempt::of(&Ok((Staged::Done, Vec::new()))), Attempt::Needless);
        let wrong = failed(MlsError::Rejoin { fault: "it has no leaf with this device's key" });
        assert_eq!(Attempt::of(&wrong), Attempt::Unusable);
    }

    #[test]
    fn the_channel_goes_on_in_another_group_when_what_is_served_was_unusable_twice() {
        let mut way_back = WayBack::default();
        assert!(!way_back.unusable_again(), "it may be replaced");
        assert!(way_back.unusable_again());
        let mut anew = WayBack { anew: Some(Anew::Unknown), ..WayBack::default() };
        assert!(!anew.unusable_again() && !anew.unusable_again(), "the channel is in order for the others");
    }

    #[test]
    fn a_public_state_is_old_if_it_was_asked_for_when_the_log_had_come_further() {
        let at = |epoch| (Incarnation(0), Epoch(epoch));
        let mut way_back = WayBack::default();
        assert!(!way_back.is_old_again(at(4), at(5)), "it may have been on its way");
        assert!(!way_back.is_old_again(at(5), at(6)), "and so may this one");
        assert!(way_back.is_old_again(at(5), at(6)));
        let next_group = (Incarnation(1), Epoch(0));
        assert!(!way_back.is_old_again(at(9), next_group), "another group has begun in between");
        assert!(way_back.is_old_again(at(9), next_group));
        assert!(!way_back.is_old_again(next_group, (Incarnation(1), Epoch(1))));
    }

    #[test]
    fn who_is_no_member_any_more_asks_once_more_while_the_log_may_tell_why() {
        let mut way_back = WayBack::default();
        assert!(way_back.may_be_told());
        assert!(!way_back.may_be_told());
        assert!(!WayBack { anew: Some(Anew::Unknown), ..WayBack::default() }.may_be_told(), "it reads no log");
    }
}
