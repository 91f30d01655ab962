//! Invitations as the inbox brings them. One into a channel that the device is in may be its seat in the group that carries the
//! channel on, and its log may not have told of that group yet, be it read from the store or live: the application is told when
//! that has been read.

use std::sync::Arc;

use lianxin_connection::{Receive, Welcome};
use lianxin_keystore::Transaction;
use lianxin_mls::Mls;
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, Sequence};

use crate::ClientError;
use crate::drive::Drive;
use crate::shared::{News, Shared, Task};
use crate::sync::{self, Accepted, Invited, Log, Offered};

impl Shared {
    /// Joins by an invitation. Whoever waits for something in an older group of the channel is told, and the inbox item goes, whether or
    /// not this caller waits.
    pub(crate) async fn accept(
        self: &Arc<Self>,
        federation: Arc<Federation>,
        (channel, sequence): (ChannelId, Sequence),
        tree: Vec<u8>,
    ) -> Result<(), ClientError> {
        let shared = Arc::clone(self);
        let join = move |tx: &Transaction<'_>, mls: &Mls| sync::accept(tx, mls, &federation, channel, sequence, tree);
        let joined = self.transaction_then(join, move |Accepted { inbox_ids, settled }| {
            for (id, outcome) in settled {
                shared.waiters.settle(*id, outcome.clone());
            }
            for inbox_id in inbox_ids {
                shared.ask(Task::Confirm(*inbox_id));
            }
            shared.bells.ring(&News::Channel(channel));
        });
        joined.await.map(|_| ())
    }
}

impl Drive {
    pub(crate) async fn invited(&mut self, inbox_id: u64, welcome: Welcome) -> Result<(), ClientError> {
        let channel = welcome.channel;
        let log = self.log_of(channel);
        let invited = self.shared.transaction(move |tx, mls| {
            let invited = sync::invite(tx, mls, inbox_id, &welcome, log)?;
            Ok((invited, sync::push_out(tx, mls)?))
        });
        let (invited, pushed_out) = invited.await?;
        if !pushed_out.is_empty() {
            self.requests.push_back(Receive::Confirm { cursors: vec![], inbox: pushed_out });
        }
        match invited {
            Invited::New => self.told(),
            Invited::Known => {}
            Invited::HeldBack => {
                self.held_back.insert(channel);
            }
            Invited::Seat => self.seat_came(channel),
            Invited::Used => self.requests.push_back(Receive::Confirm { cursors: vec![], inbox: vec![inbox_id] }),
        }
        Ok(())
    }

    fn log_of(&self, channel: ChannelId) -> Log {
        if self.lanes.contains_key(&channel) { Log::Followed } else { Log::Ended }
    }

    /// The channel's log has been read on, or there is no more of it.
    pub(crate) async fn offer(&mut self, channel: ChannelId) -> Result<(), ClientError> {
        let log = self.log_of(channel);
        let offered = self.shared.transaction(move |tx, mls| sync::offer(tx, mls, channel, log)).await?;
        self.offered(channel, offered);
        Ok(())
    }

    pub(crate) fn offered(&mut self, channel: ChannelId, offered: Offered) {
        let Offered { used, is_new, is_seat, is_held_back } = offered;
        if is_held_back {
            self.held_back.insert(channel);
        } else {
            self.held_back.remove(&channel);
        }
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
        self.replenish_soon();
    }
}
