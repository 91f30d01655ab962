//! The way back into a channel whose group a commit has broken for this device: by an external commit, with the own key
//! (PROTOCOL 5), and by itself. Only once the log has been read to its end: what came before the way back is never read.

use std::time::Duration;

use lianxin_connection::{CallError, Connection, GetGroupInfo, GroupInfo};
use lianxin_mls::MlsError;
use lianxin_types::{ChannelId, Monotonic};

use crate::calls::CallDone;
use crate::changes::{self, Staged};
use crate::drive::Drive;
use crate::error::chain;
use crate::{ClientError, sync, turns};

/// Everybody whom one commit has broken comes back, one epoch each: they begin at different moments of so long.
const SPREAD: Duration = Duration::from_millis(500);

/// When the next attempt comes, and how many were in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WayBack {
    /// `None` while an attempt is being made, and after too many.
    pub(crate) moment: Option<Monotonic>,
    attempts: u32,
}

impl Drive {
    /// The channel's group is broken: plans the way back, unless that is planned or on its way.
    pub(crate) fn plan_way_back(&mut self, channel: ChannelId) {
        if !self.lanes.get(&channel).is_some_and(|lane| lane.has_caught_up()) {
            // Planned when the backlog has been read.
            return;
        }
        let moment = self.shared.clock.monotonic().plus(self.way_back_jitter());
        self.ways_back.entry(channel).or_insert(WayBack { moment: Some(moment), attempts: 0 });
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
        let way_back = self.ways_back.entry(channel).or_insert(WayBack { moment: None, attempts: 0 });
        way_back.attempts += 1;
        let delay = turns::delay_after_refusal(way_back.attempts);
        way_back.moment = delay.map(|delay| self.shared.clock.monotonic().plus(delay + jitter));
    }

    fn way_back_jitter(&self) -> Duration {
        SPREAD * u32::from(self.shared.random.array::<1>()[0]) / 256
    }

    /// Asks for what it takes.
    pub(crate) fn begin_way_back(&mut self, channel: ChannelId) {
        if let Some(way_back) = self.ways_back.get_mut(&channel) {
            way_back.moment = None;
        }
        self.calls.push(Box::pin(public_state(self.connection.clone(), channel)));
    }

    /// Makes the external commit, if the group is still broken, and has it sent like every change.
    pub(crate) async fn go_back(
        &mut self,
        channel: ChannelId,
        state: Result<GroupInfo, CallError>,
    ) -> Result<(), ClientError> {
        let state = match state {
            Ok(state) => state,
            Err(error) => {
                tracing::debug!(?channel, %error, "no group info to come back by");
                self.way_back_failed(channel);
                return Ok(());
            }
        };
        let (federation, id) = (self.shared.federation(), self.shared.id());
        let staged = self.shared.transaction(move |tx, mls| {
            let bundle = mls.rejoin(tx, &federation, channel, &state.group_info, &state.ratchet_tree);
            match changes::put_commit(tx, channel, id, bundle) {
                // Somebody else's commit, or an own one, has done it.
                Err(ClientError::Mls(MlsError::NotBroken)) => Ok(Staged::Done),
                staged => staged,
            }
        });
        match staged.await {
            Ok(Staged::Ready) => self.start_changes(Some(channel)).await,
            Ok(Staged::Busy) => Ok(()),
            Ok(Staged::Done) => {
                self.ways_back.remove(&channel);
                Ok(())
            }
            Err(ClientError::State(error)) => Err(error.into()),
            // What is served is wrong, or this device's certificate is: it must not end the connection.
            Err(error) => {
                tracing::warn!(?channel, error = %chain(&error), "cannot come back into a broken channel");
                self.way_back_failed(channel);
                Ok(())
            }
        }
    }
}

async fn public_state(connection: Connection, channel: ChannelId) -> CallDone {
    CallDone::PublicState { channel, result: connection.group_info(GetGroupInfo { channel }).await }
}
