//! What an application's list of channels shows, and the marks of what was read.

use lianxin_keystore::Transaction;
use lianxin_mls::Mls;
use lianxin_types::{ChannelId, Label, Sequence};

use crate::readers::Message;
use crate::rows::{IntentKind, MESSAGE, MessageRow, OWN_MESSAGE};
use crate::shared::Shared;
use crate::{ClientError, changes};

/// A channel in the application's list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelSummary {
    /// The channel; [`crate::Client::channel`] gives the handle.
    pub id: ChannelId,
    /// What it is for.
    pub label: Label,
    /// How many devices are members, this one included.
    pub members: usize,
    /// Messages of others that the application has not read.
    pub unread: u64,
    /// Up to where it has read.
    pub read_mark: Sequence,
    /// The last message, of whomever.
    pub latest: Option<Message>,
    /// Whether a bad commit broke the channel: it can be read no further until this device is back, or is seated in the group that
    /// carries the channel on.
    pub is_broken: bool,
}

/// The channels that exist and have this device as a member, ascending by id.
pub(crate) fn channels(tx: &Transaction<'_>, mls: &Mls) -> Result<Vec<ChannelId>, ClientError> {
    let mut ids = Vec::new();
    for channel in mls.channels(tx)? {
        if changes::get(tx, channel, IntentKind::Create)?.is_none() {
            ids.push(channel);
        }
    }
    Ok(ids)
}

/// See [`crate::Client::overview`].
pub(crate) async fn overview(shared: &Shared) -> Result<Vec<ChannelSummary>, ClientError> {
    let mut summaries = Vec::new();
    for id in shared.transaction(channels).await? {
        let read_mark = shared.read_position(&id.0).await?;
        // One transaction each: a long list keeps nobody from sending meanwhile.
        summaries.extend(shared.transaction(move |tx, mls| summary(tx, mls, id, read_mark)).await?);
    }
    let last_time = |summary: &ChannelSummary| summary.latest.as_ref().map(|message| message.gateway_time);
    summaries.sort_by_key(|summary| std::cmp::Reverse(last_time(summary)));
    Ok(summaries)
}

/// `None` if the device has left the channel since it was listed.
fn summary(
    tx: &Transaction<'_>,
    mls: &Mls,
    id: ChannelId,
    read_mark: u64,
) -> Result<Option<ChannelSummary>, ClientError> {
    let Some(view) = mls.channel(tx, id)? else { return Ok(None) };
    let count = |kind| tx.log_count(kind, &id.0, read_mark);
    let unread = count(MESSAGE)?.saturating_sub(count(OWN_MESSAGE)?);
    let last = tx.log_read_before(MESSAGE, &id.0, u64::MAX, 1)?.pop();
    let latest = last.map(|(at, bytes)| Ok::<_, ClientError>(Message::new(id, at, MessageRow::from_bytes(&bytes)?)));
    Ok(Some(ChannelSummary {
        id,
        label: view.label,
        members: view.members.len(),
        unread,
        read_mark: Sequence(read_mark),
        latest: latest.transpose()?,
        is_broken: view.is_broken || view.is_awaited,
    }))
}

/// See [`crate::Channel::mark_read`].
pub(crate) async fn mark_read(shared: &Shared, channel: ChannelId, up_to: Sequence) -> Result<Sequence, ClientError> {
    let last = shared.transaction(move |tx, _| Ok(tx.log_last(MESSAGE, &channel.0)?)).await?;
    let stands = shared.read_position(&channel.0).await?;
    let mark = up_to.0.min(last.unwrap_or(0)).max(stands);
    shared.note_read(&channel.0, mark);
    shared.save_read().await?;
    Ok(Sequence(shared.read_position(&channel.0).await?))
}
