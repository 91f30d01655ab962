//! When the changes for wishes are made anew: after what has overtaken them was read, a little apart at random, by the session. No
//! caller need wait for it.

use std::sync::Arc;
use std::time::Duration;

use lianxin_connection::{CallError, Problem};
use lianxin_types::{ChannelId, IdempotencyId, Monotonic, Sequence};

use crate::calls::CallDone;
use crate::drive::Drive;
use crate::error::chain;
use crate::incarnation::claim_together;
use crate::lane::Lane;
use crate::shared::{News, is_worth_repeating};
use crate::sync::Place;
use crate::wishes::{self, Again, Settled, Wanted};
use crate::{ClientError, trust, turns};

/// Everybody whom one commit has overtaken makes its own anew at different moments of so long, and ever longer.
const SPREAD: Duration = Duration::from_millis(50);
const SPREAD_DOUBLINGS_MAX: u32 = 6;
/// Longest wait for what a change has missed.
const NEWS_WAIT_MAX: Duration = Duration::from_secs(2);
/// When trust bundle or revocation lists have expired, or key packages could not be claimed.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// When the wishes of a channel are looked at next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) moment: Monotonic,
    /// Sooner once the group stands here.
    missed: Sequence,
}

impl Look {
    /// The group stands at `head`: what it may be looked at from `soon` on.
    fn sooner(&mut self, head: Sequence, soon: Monotonic) {
        if self.missed <= head {
            self.moment = self.moment.min(soon);
        }
    }
}

/// Within how long the next change comes after so many in vain.
fn spread(attempts: u8) -> Duration {
    SPREAD * 2_u32.pow(u32::from(attempts).min(SPREAD_DOUBLINGS_MAX))
}

impl Drive {
    fn wish_jitter(&self, attempts: u8) -> Duration {
        spread(attempts) * u32::from(self.shared.random.array::<1>()[0]) / 256
    }

    /// Plans a look at the wishes of a channel, if some of them wait.
    pub(crate) fn note_wishes(&mut self, channel: ChannelId, place: Place) {
        let Some(attempts) = place.wishes else {
            self.wish_looks.remove(&channel);
            return;
        };
        let soon = self.shared.clock.monotonic().plus(self.wish_jitter(attempts));
        self.wish_looks.entry(channel).or_insert(Look { moment: soon, missed: Sequence(0) }).sooner(place.head, soon);
    }

    /// A change was refused: if the log holds what it missed, that is read before it is made anew.
    pub(crate) fn wishes_after_refusal(&mut self, channel: ChannelId, place: Place, problem: &Problem) {
        if place.wishes.is_some() && turns::is_to_be_read_first(problem, place.head) {
            let moment = self.shared.clock.monotonic().plus(NEWS_WAIT_MAX);
            self.wish_looks.insert(channel, Look { moment, missed: problem.sequence });
        } else {
            self.note_wishes(channel, place);
        }
    }

    fn look_later(&mut self, channel: ChannelId) {
        let moment = self.shared.clock.monotonic().plus(RETRY_DELAY);
        self.wish_looks.insert(channel, Look { moment, missed: Sequence(u64::MAX) });
    }

    /// Makes the change for the first wish that waits, unless something must pass first: there will be news of the channel then.
    pub(crate) async fn look_after_wishes(&mut self, channel: ChannelId) -> Result<(), ClientError> {
        self.wish_looks.remove(&channel);
        if !self.lanes.get(&channel).is_some_and(Lane::has_caught_up) {
            // Looked at when the backlog has been read.
            return Ok(());
        }
        let Ok(federation) = self.shared.fresh_federation() else {
            self.look_later(channel);
            return Ok(());
        };
        let waiting = self.shared.transaction(move |tx, _| wishes::waiting(tx, channel)).await?;
        for (number, row) in waiting {
            if let Wanted::Invite { devices, key_packages } = row.wanted
                && key_packages.is_empty()
            {
                if self.claiming.insert(row.id) {
                    let (shared, connection) = (Arc::clone(&self.shared), self.connection.clone());
                    self.calls.push(Box::pin(async move {
                        let found = claim_together(&shared, &connection, channel, &devices).await;
                        CallDone::Claimed { channel, wish: (number, row.id), found }
                    }));
                }
                continue;
            }
            let (federation, change) = (Arc::clone(&federation), self.shared.id());
            let again = self
                .shared
                .transaction(move |tx, mls| wishes::stage_again(tx, mls, &federation, channel, (number, change)));
            match again.await {
                Ok(Again::Ready) => return self.start_changes(Some(channel)).await,
                Ok(Again::Busy) => return Ok(()),
                Ok(Again::Settled(settled)) => self.settle(channel, settled),
                Err(error) => self.wish_is_impossible(channel, number, error).await?,
            }
        }
        Ok(())
    }

    async fn wish_is_impossible(
        &mut self,
        channel: ChannelId,
        number: u64,
        error: ClientError,
    ) -> Result<(), ClientError> {
        tracing::info!(?channel, error = %chain(&error), "a change cannot be made anew");
        let settled = self.shared.transaction(move |tx, _| wishes::impossible(tx, channel, number, error)).await?;
        if settled.is_empty() {
            self.look_later(channel);
        }
        self.settle(channel, settled);
        Ok(())
    }

    /// Key packages for an invitation were claimed anew, or could not be.
    pub(crate) async fn claimed(
        &mut self,
        channel: ChannelId,
        (number, id): (u64, IdempotencyId),
        found: Result<Vec<Vec<u8>>, ClientError>,
    ) -> Result<(), ClientError> {
        self.claiming.remove(&id);
        match found {
            Ok(found) => {
                self.shared.transaction(move |tx, _| wishes::claimed(tx, channel, (number, id), found)).await?;
                self.look_after_wishes(channel).await
            }
            Err(error) if passes(&error) => {
                tracing::debug!(?channel, error = %chain(&error), "no key packages for an invitation");
                let settled = self.shared.transaction(move |tx, _| wishes::in_vain(tx, channel, number)).await?;
                self.settle(channel, settled);
                self.look_later(channel);
                // The gateway may know of an authority that this device has not heard of yet.
                match error {
                    ClientError::Mls(_) => trust::refresh(&self.shared, &self.connection).await,
                    _ => Ok(()),
                }
            }
            Err(error) => self.wish_is_impossible(channel, number, error).await,
        }
    }

    /// Tells callers what a transaction has settled.
    pub(crate) fn settle(&self, channel: ChannelId, settled: Settled) {
        for (id, outcome) in settled {
            self.shared.waiters.settle(id, outcome);
        }
        self.shared.bells.ring(&News::Events);
        self.shared.bells.ring(&News::Channel(channel));
    }
}

/// Whether the same claim may go better soon.
fn passes(error: &ClientError) -> bool {
    match error {
        ClientError::Unanswered(_) | ClientError::TrustExpired => true,
        ClientError::Refused(problem) => is_worth_repeating(&CallError::Refused(problem.clone())),
        ClientError::Mls(error) => error.may_be_mended_by_newer_trust(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_overtaken_again_and_again_comes_ever_further_apart() {
        let spreads: Vec<_> = (0..9).map(|attempts| spread(attempts).as_millis()).collect();
        assert_eq!(spreads, [50, 100, 200, 400, 800, 1600, 3200, 3200, 3200]);
    }

    #[test]
    fn what_was_missed_is_read_first() {
        let (late, soon) = (Monotonic(2_000), Monotonic(1_000));
        let mut look = Look { moment: late, missed: Sequence(7) };
        look.sooner(Sequence(6), soon);
        assert_eq!(look.moment, late);
        look.sooner(Sequence(7), soon);
        assert_eq!(look.moment, soon);
        look.sooner(Sequence(8), late);
        assert_eq!(look.moment, soon, "more news does not put it off");
    }
}
