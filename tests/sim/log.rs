//! The channel's log as the gateway has accepted it, and who was a member from where to where: what the devices are judged by.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lianxin_store::{StoredEvent, ZoneStore};
use lianxin_tlog::EventKind;
use lianxin_types::{ChannelId, DeviceUri, Sequence};
use tokio::sync::broadcast::error::RecvError;

/// Shared by the gateways that follow each other.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Pages>>);

/// What has been accepted, also where retention has taken it since.
#[derive(Default)]
pub(crate) struct Pages {
    pub(crate) events: BTreeMap<u64, Arc<StoredEvent>>,
    pub(crate) stays: Vec<Stay>,
    /// Which event began each epoch.
    epochs: BTreeMap<u64, u64>,
    /// After which event retention took something, and which was the first that was left.
    taken: BTreeMap<u64, u64>,
}

/// A device's time in the channel: it may read what lies between the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stay {
    pub(crate) device: DeviceUri,
    /// The event that seated it.
    pub(crate) joined: u64,
    /// The event that took it out, or seated it anew.
    pub(crate) left: Option<u64>,
}

impl Log {
    pub(crate) fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down everything that `store` accepts, beginning with what it has already.
    pub(crate) async fn follow(self, store: Arc<dyn ZoneStore>) {
        let mut tail = store.tail();
        let channels = store.channels(None, 2).expect("readable");
        for channel in channels {
            self.catch_up(&*store, &channel);
        }
        loop {
            match tail.recv().await {
                Ok(event) => self.pages().write(&*store, event),
                Err(RecvError::Lagged(_)) => panic!("the log was not followed closely enough"),
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn catch_up(&self, store: &dyn ZoneStore, channel: &ChannelId) {
        let mut pages = self.pages();
        let after = Sequence(pages.events.last_key_value().map_or(0, |(at, _)| *at));
        let missed = store.read(channel, after, 10_000, usize::MAX).expect("readable");
        for event in missed.events {
            pages.write(store, event);
        }
    }
}

impl Pages {
    /// Retention has taken what it may; the gateway has the events from `first` on.
    pub(crate) fn note_taken(&mut self, first: Sequence) {
        let last = self.events.last_key_value().map_or(0, |(at, _)| *at);
        self.taken.insert(last, first.0);
    }

    /// The way back into an epoch loses what came before, so it is only for whom retention has cut off: what a device that had
    /// read up to `read` needed next was taken before the way back was accepted.
    pub(crate) fn was_cut_off(&self, device: &DeviceUri, epoch: u64, read: impl Iterator<Item = u64>) -> bool {
        let Some(back) = self.epochs.get(&epoch) else { return false };
        let seated = self.stays.iter().filter(|stay| stay.device == *device && stay.joined < *back);
        let joined = seated.map(|stay| stay.joined).max().unwrap_or_default();
        let had = read.filter(|at| at < back).chain([joined]).max().unwrap_or_default();
        self.taken.range(..back).any(|(_, first)| *first > had + 1)
    }

    fn write(&mut self, store: &dyn ZoneStore, event: Arc<StoredEvent>) {
        let at = event.head.sequence.0;
        if self.events.contains_key(&at) {
            return;
        }
        assert_eq!(at, self.events.len() as u64 + 1, "the log is dense");
        if matches!(event.kind, EventKind::Start | EventKind::Commit) {
            let head = store.head(&event.channel).expect("readable").expect("it has an event");
            self.epochs.insert(head.epoch.0, at);
            for stay in self.stays.iter_mut().filter(|stay| stay.left.is_none()) {
                if head.members.get(&stay.device).is_none_or(|member| member.joined.0 != stay.joined) {
                    stay.left = Some(at);
                }
            }
            for (device, member) in &head.members {
                let joined = member.joined.0;
                if !self.stays.iter().any(|stay| stay.device == *device && stay.joined == joined) {
                    self.stays.push(Stay { device: device.clone(), joined, left: None });
                }
            }
        }
        self.events.insert(at, event);
    }

    /// A device's stays; it came back into `rejoined` epochs by itself, and was told that it reads nothing of what came between.
    pub(crate) fn stays_of(&self, device: &DeviceUri, rejoined: &[u64]) -> Vec<Stay> {
        let mut stays: Vec<Stay> = self.stays.iter().filter(|stay| stay.device == *device).cloned().collect();
        for at in rejoined.iter().filter_map(|epoch| self.epochs.get(epoch)) {
            if let Some(stay) =
                stays.iter_mut().find(|stay| stay.joined < *at && stay.left.is_none_or(|left| left > *at))
            {
                let left = stay.left.replace(*at);
                stays.push(Stay { device: device.clone(), joined: *at, left });
            }
        }
        stays
    }

    /// Positions of the messages between two events.
    pub(crate) fn messages(&self, after: u64, before: Option<u64>) -> Vec<u64> {
        let between = self.events.range(after + 1..before.unwrap_or(u64::MAX));
        between.filter(|(_, event)| event.kind == EventKind::Application).map(|(at, _)| *at).collect()
    }
}
