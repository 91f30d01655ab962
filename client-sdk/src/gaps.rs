//! Events that are missing behind a group's head: asked for once, and what is done where the gateway has them no more.

use lianxin_connection::Receive;
use lianxin_types::{ChannelId, Sequence};

use crate::ClientError;
use crate::drive::Drive;
use crate::sync::{self, Asked, GapStep};

impl Drive {
    /// Events are missing behind `head`: they are asked for once.
    pub(crate) async fn missing(
        &mut self,
        channel: ChannelId,
        head: Sequence,
        found: Sequence,
    ) -> Result<(), ClientError> {
        match sync::gap_step(self.gaps.get(&channel).copied(), head, found) {
            GapStep::Wait => {}
            GapStep::FollowAgain => {
                self.gaps.insert(channel, Asked { head, found });
                self.requests.push_back(Receive::Follow { channel, after: head });
            }
            GapStep::GiveUp => {
                self.gone(channel, format!("the gateway has no events between {} and {}", head.0, found.0)).await?;
                self.stop_following(channel);
            }
        }
        Ok(())
    }

    /// The gateway says that it gives this device nothing before `first`. That is no news where the head is behind it: then it is about
    /// an older group, and a newer invitation was accepted meanwhile.
    pub(crate) async fn gap(&mut self, channel: ChannelId, first: Sequence) -> Result<(), ClientError> {
        let found = self.shared.transaction(move |tx, mls| {
            let head = mls.head(tx, channel)?.filter(|head| sync::is_cut_off(head.sequence, first));
            Ok((head.is_some(), mls.channel(tx, channel)?.is_some(), mls.is_coming_back(tx, channel)?))
        });
        match found.await? {
            (true, true, _) => self.cut_off(channel, first),
            // It is back, in a stretch of the log that it cannot join: only a receipt that names the chain's hash brings it in, and
            // is asked for on the next connection.
            (true, false, true) => {
                self.gone(channel, format!("this device gets no events before {}", first.0)).await?;
                self.stop_following(channel);
            }
            _ => {}
        }
        Ok(())
    }
}
