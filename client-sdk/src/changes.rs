//! Changes of a channel that wait for the gateway (creation, commit, leave), inside a transaction. The staged MLS state and
//! the bytes for the gateway are stored together; nothing is merged before its own bytes come back in the log.

use lianxin_connection::Receipt;
use lianxin_keystore::Transaction;
use lianxin_mls::{CommitBundle, LogEvent, Mls, MlsError, StartBundle};
use lianxin_tlog::{EventKind, Head};
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, DeviceUri, Epoch, IdempotencyId, Sequence};

use crate::ClientError;
use crate::rows::{INTENT, Intent, IntentKind};

fn key(channel: ChannelId, kind: IntentKind) -> Vec<u8> {
    [&channel.0[..], &[kind as u8]].concat()
}

pub(crate) fn get(tx: &Transaction<'_>, channel: ChannelId, kind: IntentKind) -> Result<Option<Intent>, ClientError> {
    let stored = tx.get(INTENT, &key(channel, kind))?;
    Ok(stored.map(|bytes| Intent::from_bytes(&bytes)).transpose()?)
}

fn put(tx: &Transaction<'_>, channel: ChannelId, intent: &Intent) -> Result<(), ClientError> {
    Ok(tx.put(INTENT, &key(channel, intent.kind), &intent.to_bytes())?)
}

fn delete(tx: &Transaction<'_>, channel: ChannelId, kind: IntentKind) -> Result<(), ClientError> {
    Ok(tx.delete(INTENT, &key(channel, kind))?)
}

/// Changes that have not been accepted yet, of one channel or of all.
pub(crate) fn open(tx: &Transaction<'_>, only: Option<ChannelId>) -> Result<Vec<(ChannelId, Intent)>, ClientError> {
    if let Some(channel) = only {
        let found = IntentKind::ALL.into_iter().filter_map(|kind| get(tx, channel, kind).transpose());
        let found = found.collect::<Result<Vec<_>, _>>()?.into_iter();
        return Ok(found.filter(|intent| !intent.accepted).map(|intent| (channel, intent)).collect());
    }
    let mut all = Vec::new();
    for (key, bytes) in tx.list(INTENT)? {
        let intent = Intent::from_bytes(&bytes)?;
        if let Some(channel) = key.get(..16).and_then(|id| ChannelId::try_from(id).ok())
            && !intent.accepted
        {
            all.push((channel, intent));
        }
    }
    Ok(all)
}

/// The ids of a channel's changes that are accepted and wait for their echo.
pub(crate) fn waiting(tx: &Transaction<'_>, channel: ChannelId) -> Result<Vec<IdempotencyId>, ClientError> {
    let found = IntentKind::ALL.into_iter().filter_map(|kind| get(tx, channel, kind).transpose());
    let found = found.collect::<Result<Vec<_>, _>>()?.into_iter();
    Ok(found.filter(|intent| intent.accepted).map(|intent| intent.id).collect())
}

pub(crate) fn put_create(
    tx: &Transaction<'_>,
    channel: ChannelId,
    id: IdempotencyId,
    start: StartBundle,
) -> Result<(), ClientError> {
    let parts = vec![start.group_info, start.ratchet_tree];
    put(tx, channel, &Intent { id, kind: IntentKind::Create, accepted: false, parts })
}

/// What became of the wish to change a group.
pub(crate) enum Staged {
    /// Stored; the session sends it.
    Ready,
    /// Another own change waits; try again when there is news of the channel.
    Busy,
    /// Nothing to do: it is so already.
    Done,
}

/// Stages a commit and stores its bundle.
pub(crate) fn put_commit(
    tx: &Transaction<'_>,
    channel: ChannelId,
    id: IdempotencyId,
    bundle: Result<CommitBundle, MlsError>,
) -> Result<Staged, ClientError> {
    let bundle = match bundle {
        Ok(bundle) => bundle,
        Err(MlsError::CommitPending) => return Ok(Staged::Busy),
        Err(MlsError::NotMember | MlsError::Leaving) => return Err(ClientError::NotMember),
        Err(error) => return Err(error.into()),
    };
    let parts = vec![bundle.commit, bundle.welcome, bundle.group_info];
    put(tx, channel, &Intent { id, kind: IntentKind::Commit, accepted: false, parts })?;
    Ok(Staged::Ready)
}

/// Stores the start of the group that is to carry the channel on.
pub(crate) fn put_start(
    tx: &Transaction<'_>,
    channel: ChannelId,
    id: IdempotencyId,
    start: Result<StartBundle, MlsError>,
) -> Result<Staged, ClientError> {
    let start = match start {
        Ok(start) => start,
        Err(MlsError::CommitPending) => return Ok(Staged::Busy),
        Err(MlsError::NotBroken | MlsError::NotMember) => return Ok(Staged::Done),
        Err(error) => return Err(error.into()),
    };
    let parts = vec![start.group_info, start.ratchet_tree];
    put(tx, channel, &Intent { id, kind: IntentKind::Start, accepted: false, parts })?;
    Ok(Staged::Ready)
}

/// Stages the proposal to leave.
pub(crate) fn put_leave(
    tx: &Transaction<'_>,
    channel: ChannelId,
    id: IdempotencyId,
    proposal: Result<Vec<u8>, MlsError>,
) -> Result<Staged, ClientError> {
    let proposal = match proposal {
        Ok(proposal) => proposal,
        Err(MlsError::CommitPending) => return Ok(Staged::Busy),
        Err(MlsError::NotMember) => return Err(ClientError::NotMember),
        Err(error) => return Err(error.into()),
    };
    put(tx, channel, &Intent { id, kind: IntentKind::Leave, accepted: false, parts: vec![proposal] })?;
    Ok(Staged::Ready)
}

/// Stores the report of a commit that broke the channel; a later one gives way to it.
pub(crate) fn put_report(
    tx: &Transaction<'_>,
    channel: ChannelId,
    id: IdempotencyId,
    report: Vec<u8>,
) -> Result<(), ClientError> {
    put(tx, channel, &Intent { id, kind: IntentKind::Report, accepted: false, parts: vec![report] })
}

/// Takes the start of an own channel in: its place follows from the receipt and the own bytes, so that the application can
/// send before the event itself comes back. A receipt that lies shows as a head that nobody else has.
pub(crate) fn started(
    tx: &Transaction<'_>,
    mls: &Mls,
    federation: &Federation,
    sender: DeviceUri,
    channel: ChannelId,
    intent: &Intent,
    receipt: &Receipt,
) -> Result<(), ClientError> {
    let is_waiting = mls.channel(tx, channel)?.is_some_and(|view| view.head.sequence == Sequence(0));
    let Some(group_info) = intent.parts.first().filter(|_| is_waiting) else { return Ok(()) };
    let event = LogEvent {
        channel,
        sequence: receipt.sequence,
        kind: EventKind::Start,
        sender,
        gateway_time: receipt.gateway_time,
        expiry: receipt.expiry,
        mls: group_info.clone(),
        idempotency_id: intent.id,
    };
    mls.process(tx, federation, &event)?;
    Ok(())
}

/// What the acceptance of a commit says about a device that has lost its group.
pub(crate) enum WayIn {
    /// Nothing: it has a group, or that was not its way back.
    None,
    /// It is in, in this epoch: the receipt says where, and nothing of the log before that is read.
    ByReceipt(Epoch),
    /// The receipt of an older gateway does not say enough. The log does, from the head in the GroupInfo on.
    ByLog,
}

/// Whether the commit was the way back of a device that has lost its group.
pub(crate) fn came_back(
    tx: &Transaction<'_>,
    mls: &Mls,
    channel: ChannelId,
    intent: &Intent,
    receipt: &Receipt,
) -> Result<WayIn, ClientError> {
    let (Some(commit), true) = (intent.parts.first(), mls.is_coming_back(tx, channel)?) else { return Ok(WayIn::None) };
    let Some(chain_hash) = receipt.chain_hash else { return Ok(WayIn::ByLog) };
    let head = Head { sequence: receipt.sequence, chain_hash };
    let epoch = mls.came_back(tx, channel, commit, (head, receipt.gateway_time))?;
    Ok(epoch.map_or(WayIn::None, WayIn::ByReceipt))
}

/// The way back of a device that has lost its group is called for again: the gateway gives the same receipt.
pub(crate) fn call_again(tx: &Transaction<'_>, channel: ChannelId) -> Result<(), ClientError> {
    match get(tx, channel, IntentKind::Commit)? {
        Some(intent) => put(tx, channel, &Intent { accepted: false, ..intent }),
        None => Ok(()),
    }
}

/// The gateway has accepted. A creation, a report and a leave are done with that; a commit and the start of a next incarnation
/// wait for their echo.
pub(crate) fn accepted(tx: &Transaction<'_>, channel: ChannelId, intent: &Intent) -> Result<(), ClientError> {
    let current = get(tx, channel, intent.kind)?.is_some_and(|stored| stored.id == intent.id);
    match intent.kind {
        // The echo may have been processed before the answer came.
        _ if !current => Ok(()),
        IntentKind::Create | IntentKind::Leave | IntentKind::Report => delete(tx, channel, intent.kind),
        IntentKind::Commit | IntentKind::Start => put(tx, channel, &Intent { accepted: true, ..intent.clone() }),
    }
}

/// The gateway has definitely refused: what was staged is dropped. Says whether it was still there.
pub(crate) fn refused(
    tx: &Transaction<'_>,
    mls: &Mls,
    channel: ChannelId,
    intent: &Intent,
) -> Result<bool, ClientError> {
    if get(tx, channel, intent.kind)?.is_none_or(|stored| stored.id != intent.id) {
        return Ok(false);
    }
    delete(tx, channel, intent.kind)?;
    match intent.kind {
        IntentKind::Create => mls.discard(tx, channel)?,
        IntentKind::Commit | IntentKind::Start => mls.discard_commit(tx, channel)?,
        // The proposal stays in the group's memory until the epoch ends: then it is void.
        IntentKind::Leave => {}
        // It says what is so, whether the gateway takes it or not.
        IntentKind::Report => {}
    }
    Ok(true)
}

/// The epoch has changed: a commit or proposal of the old one is settled or void. Returns the ids of both.
pub(crate) fn epoch_ended(
    tx: &Transaction<'_>,
    channel: ChannelId,
) -> Result<(Option<IdempotencyId>, Option<IdempotencyId>), ClientError> {
    let commit = get(tx, channel, IntentKind::Commit)?.map(|intent| intent.id);
    let leave = get(tx, channel, IntentKind::Leave)?.map(|intent| intent.id);
    delete(tx, channel, IntentKind::Commit)?;
    delete(tx, channel, IntentKind::Leave)?;
    delete(tx, channel, IntentKind::Start)?;
    Ok((commit, leave))
}
