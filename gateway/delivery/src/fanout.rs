//! From the store's tail to every subscriber: one pass per event, whatever the number of subscribers does to the rest.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use lianxin_store::{StoredEvent, ZoneStore};
use lianxin_types::{ChannelId, Clock, DeviceUri};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::mailbox::{Frame, Mailbox};

/// Who follows what. Mailboxes are held weakly: a subscriber that goes away is forgotten at the next event.
#[derive(Debug, Default)]
pub struct Fanout {
    channels: Mutex<HashMap<ChannelId, Vec<Weak<Mailbox>>>>,
    devices: Mutex<HashMap<DeviceUri, Vec<Weak<Mailbox>>>>,
    events_delivered: AtomicU64,
    catch_up_pages: AtomicU64,
    moved_to_catch_up: AtomicU64,
}

/// What was given out since start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeliveryFigures {
    /// Events given to streams, each once per stream.
    pub events: u64,
    /// Pages read from the store for streams that were behind.
    pub catch_up_pages: u64,
}

/// Pause before a closed tail is asked for again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Events taken from the tail in one go, so that a burst makes few frames.
const EVENTS_AT_ONCE_MAX: usize = 256;

impl Fanout {
    /// Nobody follows anything.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Passes events on. A tail that closes means that the zone is being opened again: the next one is asked for, and
    /// everybody reads what may have been missed. Run it as one owned task, and end it by dropping it.
    pub async fn run(self: Arc<Self>, store: Arc<dyn ZoneStore>, clock: Arc<dyn Clock>) {
        loop {
            let mut tail = store.tail();
            self.mark_everybody();
            loop {
                match tail.recv().await {
                    Ok(event) => self.pass_on(event, &mut tail),
                    Err(RecvError::Lagged(_)) => self.mark_everybody(),
                    Err(RecvError::Closed) => break,
                }
            }
            clock.sleep(ASK_AGAIN_AFTER).await;
        }
    }

    /// How often a subscriber's queue was full and its channel was moved to catch-up from the store.
    pub fn moved_to_catch_up(&self) -> u64 {
        self.moved_to_catch_up.load(Ordering::Relaxed)
    }

    /// The devices have something new in their inboxes.
    pub fn wake_inboxes<'a>(&self, devices: impl IntoIterator<Item = &'a DeviceUri>) {
        let mut waiting = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        for device in devices {
            if let Some(mailboxes) = waiting.get_mut(device) {
                mailboxes.retain(|mailbox| mailbox.upgrade().inspect(|mailbox| mailbox.mark_inbox()).is_some());
            }
        }
    }

    /// What was given out since start.
    pub fn figures(&self) -> DeliveryFigures {
        DeliveryFigures {
            events: self.events_delivered.load(Ordering::Relaxed),
            catch_up_pages: self.catch_up_pages.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn count_delivered(&self, events: usize) {
        self.events_delivered.fetch_add(events as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_catch_up_page(&self) {
        self.catch_up_pages.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_device(&self, device: DeviceUri, mailbox: &Arc<Mailbox>) {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        devices.retain(|_, mailboxes| {
            mailboxes.retain(|mailbox| mailbox.strong_count() > 0);
            !mailboxes.is_empty()
        });
        devices.entry(device).or_default().push(Arc::downgrade(mailbox));
    }

    pub(crate) fn add_channel(&self, channel: ChannelId, mailbox: &Arc<Mailbox>) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let mailboxes = channels.entry(channel).or_default();
        mailboxes.retain(|other| other.strong_count() > 0);
        if !mailboxes.iter().any(|other| std::ptr::eq(other.as_ptr(), Arc::as_ptr(mailbox))) {
            mailboxes.push(Arc::downgrade(mailbox));
        }
    }

    pub(crate) fn remove_channel(&self, channel: &ChannelId, mailbox: &Arc<Mailbox>) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mailboxes) = channels.get_mut(channel) {
            mailboxes.retain(|other| other.strong_count() > 0 && !std::ptr::eq(other.as_ptr(), Arc::as_ptr(mailbox)));
            if mailboxes.is_empty() {
                channels.remove(channel);
            }
        }
    }

    /// Takes what else is ready from the tail, and offers each channel's run of events as shared frames.
    fn pass_on(&self, first: Arc<StoredEvent>, tail: &mut Receiver<Arc<StoredEvent>>) {
        let mut runs: Vec<Vec<Arc<StoredEvent>>> = vec![vec![first]];
        let mut open: HashMap<ChannelId, usize> = HashMap::from([(runs[0][0].channel, 0)]);
        let mut has_lagged = false;
        for _ in 1..EVENTS_AT_ONCE_MAX {
            let event = match tail.try_recv() {
                Ok(event) => event,
                Err(TryRecvError::Lagged(_)) => {
                    has_lagged = true;
                    continue;
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            };
            let run = open.get(&event.channel).copied();
            match run.filter(|run| follows(&runs[*run], &event)) {
                Some(run) => runs[run].push(event),
                None => {
                    open.insert(event.channel, runs.len());
                    runs.push(vec![event]);
                }
            }
        }
        for run in runs {
            self.offer(run);
        }
        if has_lagged {
            self.mark_everybody();
        }
    }

    fn offer(&self, run: Vec<Arc<StoredEvent>>) {
        let Some(channel) = run.first().map(|event| event.channel) else { return };
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mailboxes) = channels.get_mut(&channel) else { return };
        let frames = Frame::split(run);
        mailboxes.retain(|mailbox| {
            let Some(mailbox) = mailbox.upgrade() else { return false };
            let moved = frames.iter().filter(|frame| mailbox.offer(frame)).count();
            self.moved_to_catch_up.fetch_add(moved as u64, Ordering::Relaxed);
            true
        });
        if mailboxes.is_empty() {
            channels.remove(&channel);
        }
    }

    fn mark_everybody(&self) {
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        for (channel, mailboxes) in channels.iter() {
            for mailbox in mailboxes.iter().filter_map(Weak::upgrade) {
                // What the tail forgot is no fault of the subscriber's, and not counted as one.
                let _is_new = mailbox.mark_behind(*channel);
            }
        }
    }
}

fn follows(run: &[Arc<StoredEvent>], event: &StoredEvent) -> bool {
    run.last().is_some_and(|last| last.head.sequence.next() == event.head.sequence)
}
