//! Invitations as the inbox brings them. One into a channel that the device is in may be its seat in the group that carries the
//! channel on, and its log may not have told of that group yet: the application is told when that has been read.

use lianxin_connection::{Receive, Welcome};
use lianxin_types::ChannelId;

use crate::ClientError;
use crate::drive::Drive;
use crate::lane::Lane;
use crate::shared::News;
use crate::sync::{self, Invited, Offered};

impl Drive {
    pub(crate) async fn invited(&mut self, inbox_id: u64, welcome: Welcome) -> Result<(), ClientError> {
        let channel = welcome.channel;
        self.is_known(channel);
        let is_read = self.lanes.get(&channel).is_none_or(Lane::has_caught_up);
        let invited =
            self.shared.transaction(move |tx, mls| sync::invite(tx, mls, inbox_id, &welcome, is_read)).await?;
        match invited {
            Invited::New => self.told(),
            Invited::Known | Invited::Withheld => {}
            Invited::Seat => self.seat_came(channel),
            Invited::Used => self.requests.push_back(Receive::Confirm { cursors: vec![], inbox: vec![inbox_id] }),
        }
        Ok(())
    }

    /// The channel's log has been read as far as the gateway gives it.
    pub(crate) async fn offer(&mut self, channel: ChannelId) -> Result<(), ClientError> {
        let offered = self.shared.transaction(move |tx, mls| sync::offer(tx, mls, channel)).await?;
        self.offered(channel, offered);
        Ok(())
    }

    pub(crate) fn offered(&mut self, channel: ChannelId, Offered { used, is_new, is_seat }: Offered) {
        if !used.is_empty() {
            self.requests.push_back(Receive::Confirm { cursors: vec![], inbox: used });
        }
        if is_new {
            self.told();
        }
        if is_seat {
            self.seat_came(channel);
        }
    }

    fn told(&mut self) {
        self.shared.bells.ring(&News::Invitations);
        self.shared.bells.ring(&News::Events);
        self.replenish();
    }
}
