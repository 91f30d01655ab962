//! One device's Receive stream: what is stored first, then what happens, with nothing between lost or doubled.
//!
//! For each followed channel it knows the last sequence it gave out. A live frame that continues there passes as it is;
//! anything else is read from the store. So a full queue, a lagging tail and the moment between catch-up and live are all
//! the same case.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use lianxin_policy::{Follow, Permit};
use lianxin_store::{InboxEntry, StoreError, ZoneStore};
use lianxin_types::{ChannelId, Clock, DeviceUri, LIMITS, Sequence, Timestamp, elsewhere};
use tokio::sync::mpsc;

use crate::fanout::Fanout;
use crate::mailbox::{Frame, Mailbox};

/// Something for the device, in order.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// Events of one channel, shared with all its subscribers.
    Events(Arc<Frame>),
    /// Everything stored when following began has been given out.
    CaughtUp {
        /// The channel.
        channel: ChannelId,
        /// The head when following began, or later.
        sequence: Sequence,
    },
    /// Events are gone by retention.
    Gap {
        /// The channel.
        channel: ChannelId,
        /// The oldest event still there.
        first_retained: Sequence,
    },
    /// An invitation.
    Inbox(InboxEntry),
    /// The device lost its leaf: the channel is not followed any more.
    NotMember {
        /// The channel.
        channel: ChannelId,
    },
    /// Nothing else happened for a while.
    Heartbeat {
        /// The gateway's time.
        now: Timestamp,
    },
}

/// Whether reads from the store may be made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUp {
    /// They may.
    Now,
    /// They wait; what is live goes on where nothing is missing before it.
    Later,
}

#[derive(Debug, Clone, Copy)]
struct Followed {
    sent: Sequence,
    is_behind: bool,
    is_caught_up: bool,
}

/// One device's stream.
pub struct Subscription {
    device: DeviceUri,
    store: Arc<dyn ZoneStore>,
    fanout: Arc<Fanout>,
    clock: Arc<dyn Clock>,
    mailbox: Arc<Mailbox>,
    frames: mpsc::Receiver<Arc<Frame>>,
    followed: BTreeMap<ChannelId, Followed>,
    inbox_after: u64,
    is_inbox_behind: bool,
    ready: VecDeque<Delivery>,
}

const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);

impl Subscription {
    /// A stream for `device` that follows nothing but its inbox yet.
    pub fn new(device: DeviceUri, store: Arc<dyn ZoneStore>, fanout: Arc<Fanout>, clock: Arc<dyn Clock>) -> Self {
        let (mailbox, frames) = Mailbox::new();
        fanout.add_device(device.clone(), &mailbox);
        let (followed, ready) = (BTreeMap::new(), VecDeque::new());
        Self { device, store, fanout, clock, mailbox, frames, followed, inbox_after: 0, is_inbox_behind: false, ready }
    }

    /// Follows the permit's channel behind `after`, but never before the device's own seat.
    ///
    /// # Errors
    /// [`StoreError`] if the zone is unavailable.
    pub fn follow(&mut self, permit: &Permit<Follow>, after: Sequence) -> Result<(), StoreError> {
        let Some(channel) = permit.channel().copied() else { return Ok(()) };
        self.fanout.add_channel(channel, &self.mailbox);
        let head = self.store.head(&channel)?;
        let joined = head.as_ref().and_then(|head| head.in_channel_since(&self.device));
        let Some(joined) = joined else {
            self.unfollow(&channel);
            self.ready.push_back(Delivery::NotMember { channel });
            return Ok(());
        };
        let sent = after.max(Sequence(joined.0.saturating_sub(1)));
        if after > Sequence(0) && after.next() < joined {
            // It was removed and seated again meanwhile: what lies between is not for it.
            self.ready.push_back(Delivery::Gap { channel, first_retained: joined });
        }
        self.followed.insert(channel, Followed { sent, is_behind: true, is_caught_up: false });
        Ok(())
    }

    /// Stops following. Frames that wait already are not given out.
    pub fn unfollow(&mut self, channel: &ChannelId) {
        self.fanout.remove_channel(channel, &self.mailbox);
        self.followed.remove(channel);
    }

    /// The last invitation that was given out; ids ascend.
    pub fn inbox_given(&self) -> u64 {
        self.inbox_after
    }

    /// Channels followed now.
    pub fn followed_count(&self) -> usize {
        self.followed.len()
    }

    /// Whether this channel is followed now.
    pub fn is_following(&self, channel: &ChannelId) -> bool {
        self.followed.contains_key(channel)
    }

    /// What comes next; what lies in the store only if `catch_up` says so. Cancel-safe: what a dropped call had taken is given out by the next one.
    ///
    /// # Errors
    /// [`StoreError`] if the zone cannot be read; the stream should end then.
    pub async fn next(&mut self, catch_up: CatchUp) -> Result<Delivery, StoreError> {
        let heartbeat = self.clock.monotonic().plus(HEARTBEAT_EVERY);
        loop {
            if let Some(delivery) = self.ready.pop_front() {
                return Ok(delivery);
            }
            for channel in self.mailbox.take_behind() {
                if let Some(followed) = self.followed.get_mut(&channel) {
                    followed.is_behind = true;
                }
            }
            self.is_inbox_behind |= self.mailbox.take_inbox();
            if self.is_inbox_behind {
                self.read_inbox().await?;
                continue;
            }
            let behind = self.followed.iter().find(|(_, state)| state.is_behind).map(|(channel, _)| *channel);
            if let (Some(channel), CatchUp::Now) = (behind, catch_up) {
                self.catch_up(channel).await?;
                continue;
            }
            let idle = self.clock.sleep_until(heartbeat);
            tokio::select! {
                biased;
                frame = self.frames.recv() => if let Some(frame) = frame {
                    self.mailbox.taken(&frame);
                    self.take_live(frame)?;
                },
                () = self.mailbox.woken() => {}
                () = idle => return Ok(Delivery::Heartbeat { now: self.clock.now() }),
            }
        }
    }

    fn take_live(&mut self, frame: Arc<Frame>) -> Result<(), StoreError> {
        let Some(followed) = self.followed.get_mut(frame.channel()) else { return Ok(()) };
        if frame.last() <= followed.sent {
            return Ok(());
        }
        if frame.first() == followed.sent.next() && !followed.is_behind {
            self.give(frame)?;
        } else {
            followed.is_behind = true;
        }
        Ok(())
    }

    /// Gives out one page of what is stored. State changes only behind the await, so a dropped call loses nothing.
    async fn catch_up(&mut self, channel: ChannelId) -> Result<(), StoreError> {
        let Some(sent) = self.followed.get(&channel).map(|followed| followed.sent) else { return Ok(()) };
        let store = Arc::clone(&self.store);
        let read = move || store.read(&channel, sent, LIMITS.history_events_max, LIMITS.frame_bytes_max);
        let page = elsewhere(&*self.clock, tokio::task::spawn_blocking(read))
            .await
            .map_err(|fault| StoreError::Unavailable { reason: fault.to_string() })??;
        self.fanout.count_catch_up_page();
        let Some(followed) = self.followed.get_mut(&channel) else { return Ok(()) };
        if page.first_retained > followed.sent.next() {
            // What is between has gone with its bucket, perhaps up to the head: nothing comes of asking for it again.
            followed.sent = Sequence(page.first_retained.0 - 1);
            self.ready.push_back(Delivery::Gap { channel, first_retained: page.first_retained });
        }
        let reached = page.events.last().map_or(followed.sent, |event| event.head.sequence);
        let is_behind = reached < page.head;
        followed.is_behind = is_behind;
        let announce = !is_behind && !followed.is_caught_up;
        followed.is_caught_up |= announce;
        for frame in Frame::split(page.events) {
            if !self.give(frame)? {
                return Ok(());
            }
        }
        if announce {
            self.ready.push_back(Delivery::CaughtUp { channel, sequence: reached });
        }
        Ok(())
    }

    /// Gives a frame out; after a commit, whether the device still owns the leaf that it reads by.
    fn give(&mut self, frame: Arc<Frame>) -> Result<bool, StoreError> {
        let channel = *frame.channel();
        let (last, may_unseat) = (frame.last(), frame.ends_with_commit());
        let Some(followed) = self.followed.get_mut(&channel) else { return Ok(false) };
        followed.sent = last;
        self.fanout.count_delivered(frame.events().len());
        self.ready.push_back(Delivery::Events(frame));
        if may_unseat && !self.is_seated_since(&channel, last)? {
            self.unfollow(&channel);
            self.ready.push_back(Delivery::NotMember { channel });
            return Ok(false);
        }
        Ok(true)
    }

    fn is_seated_since(&self, channel: &ChannelId, sequence: Sequence) -> Result<bool, StoreError> {
        let Some(head) = self.store.head(channel)? else { return Ok(false) };
        Ok(head.in_channel_since(&self.device).is_some_and(|joined| joined <= sequence))
    }

    /// Gives out one invitation: each can be as large as a frame. State changes only behind the await.
    async fn read_inbox(&mut self) -> Result<(), StoreError> {
        let (store, device, after) = (Arc::clone(&self.store), self.device.clone(), self.inbox_after);
        let read = move || store.inbox(&device, after, 1);
        let entries = elsewhere(&*self.clock, tokio::task::spawn_blocking(read))
            .await
            .map_err(|fault| StoreError::Unavailable { reason: fault.to_string() })??;
        self.is_inbox_behind = !entries.is_empty();
        for entry in entries {
            self.inbox_after = entry.id;
            self.ready.push_back(Delivery::Inbox(entry));
        }
        Ok(())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        for channel in self.followed.keys() {
            self.fanout.remove_channel(channel, &self.mailbox);
        }
    }
}

#[cfg(test)]
mod tests;
