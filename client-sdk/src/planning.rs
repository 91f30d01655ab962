//! When this device commits by itself what waits in a channel: members take turns by their place in the tree.

use std::time::Duration;

use lianxin_connection::Problem;
use lianxin_types::{ChannelId, Epoch, Sequence};

use crate::drive::Drive;
use crate::sync::{self, Turn};
use crate::{ClientError, turns};

/// How long each member waits for those before it.
pub(crate) const TURN: Duration = Duration::from_millis(200);
const TURN_MAX: Duration = Duration::from_secs(30);

/// How long the member with so many before it waits for them.
pub(crate) fn wait_of(rank: u32) -> Duration {
    (TURN * rank.min(1000)).min(TURN_MAX)
}

impl Drive {
    /// Plans the own turn to commit what waits: members go by their place in the tree, a little apart at random.
    pub(crate) fn note_turn(&mut self, channel: ChannelId, turn: Option<Turn>) {
        let Some(turn) = turn else {
            self.turns.remove(&channel);
            return;
        };
        let now = self.shared.clock.monotonic();
        let planned = self.turns.get(&channel).is_some_and(|(_, epoch)| *epoch == turn.epoch);
        let refusals = self.refusals.get(&channel).filter(|(epoch, _)| *epoch == turn.epoch).map_or(0, |found| found.1);
        if turns::is_slow(refusals) {
            if !planned {
                self.plan_after_refusal(channel, turn.epoch, refusals);
            }
        } else if self.urgent.contains(&channel) {
            self.turns.insert(channel, (now, turn.epoch));
        } else if !planned {
            let jitter = TURN * u32::from(self.shared.random.array::<1>()[0]) / 512;
            let wait = wait_of(turn.rank) + jitter;
            self.turns.insert(channel, (now.plus(wait), turn.epoch));
        }
    }

    /// An own commit was refused, and the group stands at `head`. If the log holds what it missed, that is read first and
    /// plans the next turn; else the turn comes again, ever later.
    pub(crate) fn commit_refused(&mut self, channel: ChannelId, head: Sequence, turn: Option<Turn>, problem: &Problem) {
        self.turns.remove(&channel);
        let Some(turn) = turn else { return };
        let (epoch, refusals) = self.refusals.entry(channel).or_insert((turn.epoch, 0));
        if *epoch != turn.epoch {
            (*epoch, *refusals) = (turn.epoch, 0);
        }
        *refusals = turns::one_more(*refusals, problem.code);
        let refusals = *refusals;
        if !turns::is_to_be_read_first(problem, head) {
            self.plan_after_refusal(channel, turn.epoch, refusals);
        }
    }

    fn plan_after_refusal(&mut self, channel: ChannelId, epoch: Epoch, refusals: u32) {
        let [random] = self.shared.random.array();
        let moment = self.shared.clock.monotonic().plus(turns::delay_after_refusal(refusals, random));
        self.turns.insert(channel, (moment, epoch));
    }

    /// This device has something to send in the channel: it commits what waits without delay.
    pub(crate) fn commit_soon(&mut self, channel: ChannelId) {
        let now = self.shared.clock.monotonic();
        self.urgent.insert(channel);
        if self.refusals.contains_key(&channel) {
            return;
        }
        if let Some((moment, _)) = self.turns.get_mut(&channel) {
            *moment = now;
        }
    }

    /// Plans a commit in every channel in which the keys of the own leaf are due to be renewed.
    pub(crate) async fn look_after_leaves(&mut self) -> Result<(), ClientError> {
        let channels: Vec<ChannelId> = self.lanes.keys().copied().collect();
        let (device, federation) = (self.shared.device.clone(), self.shared.federation());
        let due = self.shared.transaction(move |tx, mls| {
            let mut due = Vec::new();
            for channel in channels {
                if mls.is_leaf_due(tx, channel)? {
                    due.push((channel, sync::standing(tx, mls, &federation, &device, channel)?));
                }
            }
            Ok(due)
        });
        for (channel, place) in due.await? {
            self.note_turn(channel, place.turn);
        }
        Ok(())
    }
}
