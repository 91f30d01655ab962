//! What an application reads: messages, events, invitations. All from the local state, so a slow reader loses nothing and
//! makes nothing grow in memory.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use futures_util::Stream;
use lianxin_connection::FRAME_EVENTS_MAX;
use lianxin_types::{ChannelId, DeviceUri, Digest, Epoch, Sequence, Timestamp};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use crate::event::{Event, kept};
use crate::rows::{MESSAGE, MessageRow, Origin};
use crate::shared::{News, Shared};
use crate::{ClientError, Invitation, sync};

/// Entries read from the local log at a time.
const PAGE: usize = 32;
/// Under which the reading position of events is kept.
const EVENTS_READ: &[u8] = b"events";

/// A message of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// The channel.
    pub channel: ChannelId,
    /// Its position in the channel's log; names it for all members.
    pub sequence: Sequence,
    /// Who sent it, verified.
    pub sender: DeviceUri,
    /// Whether this device sent it.
    pub origin: Origin,
    /// The epoch it was sent in.
    pub epoch: Epoch,
    /// When the gateway accepted it.
    pub gateway_time: Timestamp,
    /// When the zone stops keeping it; `None` for no end.
    pub expiry: Option<Timestamp>,
    /// Index of its leaf in the zone's audit log.
    pub leaf_index: u64,
    /// RFC 6962 leaf hash.
    pub leaf_hash: Digest,
    /// What the sender's application sent, 0 to 64 KiB.
    pub body: Vec<u8>,
}

impl Message {
    pub(crate) fn new(channel: ChannelId, sequence: u64, row: MessageRow) -> Self {
        Self {
            channel,
            sequence: Sequence(sequence),
            sender: row.sender,
            origin: row.origin,
            epoch: row.epoch,
            gateway_time: row.gateway_time,
            expiry: row.expiry,
            leaf_index: row.leaf_index,
            leaf_hash: row.leaf_hash,
            body: row.body,
        }
    }

    /// The body as text, if it is UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.body).ok()
    }
}

/// Messages of the local log behind a sequence.
pub(crate) async fn history(
    shared: &Shared,
    channel: ChannelId,
    after: Sequence,
    limit: usize,
) -> Result<Vec<Message>, ClientError> {
    let read = shared.transaction(move |tx, _| Ok(tx.log_read(MESSAGE, &channel.0, after.0, limit)?)).await?;
    messages(channel, read)
}

/// The last messages of the local log before a sequence.
pub(crate) async fn history_before(
    shared: &Shared,
    channel: ChannelId,
    before: Sequence,
    limit: usize,
) -> Result<Vec<Message>, ClientError> {
    let read = shared.transaction(move |tx, _| Ok(tx.log_read_before(MESSAGE, &channel.0, before.0, limit)?)).await?;
    messages(channel, read)
}

fn messages(channel: ChannelId, read: Vec<(u64, Vec<u8>)>) -> Result<Vec<Message>, ClientError> {
    read.into_iter().map(|(at, bytes)| Ok(Message::new(channel, at, MessageRow::from_bytes(&bytes)?))).collect()
}

/// The messages of one channel, as [`crate::Channel::receive`] gives them.
pub struct Messages {
    shared: Arc<Shared>,
    channel: ChannelId,
    news: watch::Receiver<u64>,
    /// The last position read from the log; `None` before the first read.
    position: Option<u64>,
    /// The message given last: read once the next is asked for.
    given: Option<u64>,
    buffer: VecDeque<Message>,
}

impl Messages {
    pub(crate) fn new(shared: Arc<Shared>, channel: ChannelId) -> Self {
        let news = shared.bells.listen(News::Channel(channel));
        Self { shared, channel, news, position: None, given: None, buffer: VecDeque::new() }
    }

    /// The next message; waits for one. `None` when the client is closed. May be dropped while it waits.
    ///
    /// # Errors
    /// [`ClientError::State`], [`ClientError::Record`].
    pub async fn next(&mut self) -> Option<Result<Message, ClientError>> {
        self.note_given();
        loop {
            if let Some(message) = self.buffer.pop_front() {
                self.given = Some(message.sequence.0);
                return Some(Ok(message));
            }
            if self.shared.is_closed() {
                return None;
            }
            self.news.mark_unchanged();
            match self.fill().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(_) if self.shared.is_closed() => return None,
                Err(error) => return Some(Err(error)),
            }
            if self.news.changed().await.is_err() {
                return None;
            }
        }
    }

    /// The same as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = Result<Message, ClientError>> + Send {
        futures_util::stream::unfold(self, |mut messages| async { messages.next().await.map(|item| (item, messages)) })
    }

    fn note_given(&mut self) {
        if let Some(given) = self.given.take() {
            self.shared.note_read(&self.channel.0, given);
        }
    }

    /// Reads on; says whether there was anything.
    async fn fill(&mut self) -> Result<bool, ClientError> {
        let position = match self.position {
            Some(position) => position,
            None => self.shared.read_position(&self.channel.0).await?,
        };
        let page = history(&self.shared, self.channel, Sequence(position), PAGE).await?;
        self.position = Some(page.last().map_or(position, |message| message.sequence.0));
        let is_anything = !page.is_empty();
        self.buffer.extend(page.into_iter().filter(|message| message.origin == Origin::Member));
        Ok(is_anything)
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.note_given();
    }
}

/// The events of a client, as [`crate::Client::events`] gives them.
pub struct Events {
    shared: Arc<Shared>,
    news: watch::Receiver<u64>,
    moment: broadcast::Receiver<Event>,
    position: Option<u64>,
    /// The kept event given last: read once the next is asked for.
    given: Option<u64>,
    buffer: VecDeque<(u64, Event)>,
}

impl Events {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let news = shared.bells.listen(News::Events);
        let moment = shared.moment.subscribe();
        Self { shared, news, moment, position: None, given: None, buffer: VecDeque::new() }
    }

    /// The next event; waits for one. `None` when the client is closed. May be dropped while it waits. What is kept comes
    /// before what is of the moment.
    ///
    /// # Errors
    /// [`ClientError::State`], [`ClientError::Record`].
    pub async fn next(&mut self) -> Option<Result<Event, ClientError>> {
        self.note_given();
        loop {
            if let Some((position, event)) = self.buffer.pop_front() {
                self.given = Some(position);
                return Some(Ok(event));
            }
            if self.shared.is_closed() {
                return None;
            }
            self.news.mark_unchanged();
            match self.fill().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(_) if self.shared.is_closed() => return None,
                Err(error) => return Some(Err(error)),
            }
            tokio::select! {
                biased;
                heard = self.news.changed() => {
                    if heard.is_err() {
                        return None;
                    }
                }
                event = self.moment.recv() => match event {
                    Ok(event) => return Some(Ok(event)),
                    // Events of the moment that were not read in time are of the past.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }

    /// The same as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = Result<Event, ClientError>> + Send {
        futures_util::stream::unfold(self, |mut events| async { events.next().await.map(|item| (item, events)) })
    }

    fn note_given(&mut self) {
        if let Some(given) = self.given.take() {
            self.shared.note_read(EVENTS_READ, given);
        }
    }

    async fn fill(&mut self) -> Result<bool, ClientError> {
        let position = match self.position {
            Some(position) => position,
            None => self.shared.read_position(EVENTS_READ).await?,
        };
        let page = self.shared.transaction(move |tx, _| kept(tx, position, FRAME_EVENTS_MAX)).await?;
        self.position = Some(page.last().map_or(position, |(position, _)| *position));
        self.buffer.extend(page);
        Ok(!self.buffer.is_empty())
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.note_given();
    }
}

/// Invitations, as [`crate::Client::invitations`] gives them.
pub struct Invitations {
    shared: Arc<Shared>,
    news: watch::Receiver<u64>,
    /// Keys of those given.
    given: HashSet<Vec<u8>>,
    buffer: VecDeque<Invitation>,
}

impl Invitations {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let news = shared.bells.listen(News::Invitations);
        Self { shared, news, given: HashSet::new(), buffer: VecDeque::new() }
    }

    /// The next invitation; waits for one. `None` when the client is closed. May be dropped while it waits.
    ///
    /// # Errors
    /// [`ClientError::State`], [`ClientError::Record`].
    pub async fn next(&mut self) -> Option<Result<Invitation, ClientError>> {
        loop {
            if let Some(invitation) = self.buffer.pop_front() {
                return Some(Ok(invitation));
            }
            if self.shared.is_closed() {
                return None;
            }
            self.news.mark_unchanged();
            match self.fill().await {
                Ok(()) if !self.buffer.is_empty() => continue,
                Ok(()) => {}
                Err(_) if self.shared.is_closed() => return None,
                Err(error) => return Some(Err(error)),
            }
            if self.news.changed().await.is_err() {
                return None;
            }
        }
    }

    /// The same as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = Result<Invitation, ClientError>> + Send {
        futures_util::stream::unfold(self, |mut open| async { open.next().await.map(|item| (item, open)) })
    }

    async fn fill(&mut self) -> Result<(), ClientError> {
        let given = self.given.clone();
        let (open, new) = self.shared.transaction(move |tx, _| sync::open_invitations(tx, &given)).await?;
        self.given = open;
        self.buffer.extend(new);
        Ok(())
    }
}
