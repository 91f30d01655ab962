//! Whose commit was reported, and whether it is this device that may commit no more in a channel until its owner allows it
//! (PROTOCOL 5).

use lianxin_keystore::Transaction;
use lianxin_types::{ChannelId, DeviceUri, Sequence};

use crate::event::keep;
use crate::rows::{COMMITTER, PAUSE, PauseRow};
use crate::{ClientError, Event};

/// Of so many of a channel's last commits it is known who made them. Members whom one has broken come back by commits, and report
/// the one before those.
const COMMITTERS_MAX: u64 = 100;

/// A commit came with the log.
pub(crate) fn committed(
    tx: &Transaction<'_>,
    channel: ChannelId,
    sequence: Sequence,
    by: &DeviceUri,
) -> Result<(), ClientError> {
    tx.log_put(COMMITTER, &channel.0, sequence.0, by.as_str().as_bytes())?;
    if tx.log_count(COMMITTER, &channel.0, 0)? > COMMITTERS_MAX {
        for (oldest, _) in tx.log_read(COMMITTER, &channel.0, 0, 1)? {
            tx.log_delete(COMMITTER, &channel.0, oldest)?;
        }
    }
    Ok(())
}

/// A member says that it cannot process the commit at `commit`. Gives who made that, if this device has read it.
pub(crate) fn reported(
    tx: &Transaction<'_>,
    device: &DeviceUri,
    channel: ChannelId,
    commit: Sequence,
    reporter: &DeviceUri,
) -> Result<Option<DeviceUri>, ClientError> {
    let found = tx.log_read(COMMITTER, &channel.0, commit.0.saturating_sub(1), 1)?;
    let found = found.into_iter().find(|(sequence, _)| *sequence == commit.0);
    let committer = found.and_then(|(_, uri)| std::str::from_utf8(&uri).ok()?.parse().ok());
    if committer.as_ref() == Some(device) {
        let row = PauseRow { reporter: Some(reporter.clone()), ..pause(tx, channel)? };
        tx.put(PAUSE, &channel.0, &row.to_bytes())?;
    }
    Ok(committer)
}

/// The gateway takes no commit of this device. Tells the application, once.
pub(crate) fn paused(tx: &Transaction<'_>, channel: ChannelId) -> Result<(), ClientError> {
    let row = pause(tx, channel)?;
    if row.is_told {
        return Ok(());
    }
    tx.put(PAUSE, &channel.0, &PauseRow { is_told: true, ..row.clone() }.to_bytes())?;
    keep(tx, &Event::CommitterPaused { channel, reporter: row.reporter })
}

/// The gateway has taken one.
pub(crate) fn lifted(tx: &Transaction<'_>, channel: ChannelId) -> Result<(), ClientError> {
    Ok(tx.delete(PAUSE, &channel.0)?)
}

fn pause(tx: &Transaction<'_>, channel: ChannelId) -> Result<PauseRow, ClientError> {
    Ok(tx.get(PAUSE, &channel.0)?.map(|bytes| PauseRow::from_bytes(&bytes)).transpose()?.unwrap_or_default())
}
