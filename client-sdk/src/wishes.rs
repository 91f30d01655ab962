//! What an application wants changed in a channel, inside a transaction. A wish is stored with the change that is made for it and
//! outlives it: a change that was overtaken is made anew, until the wish has come true, by whosever commit, or is given up with an
//! event. What follows from the state of a group needs no wish: own keys that are due, members who wait to be taken out, the way back
//! into a broken group, seats in the next one.

use lianxin_connection::{Problem, ReasonCode, Receipt};
use lianxin_keystore::Transaction;
use lianxin_mls::{ChannelView, Mls, MlsError};
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, DeviceUri, IdempotencyId};

use crate::changes::{self, Staged};
use crate::error::chain;
use crate::event::keep;
use crate::rows::IntentKind;
use crate::waiters::{Failure, Outcome, Said};
use crate::{ClientError, Event, turns};

mod row;

pub use row::{Change, NotMade};
pub(crate) use row::{Wanted, WishRow};

/// Log per channel: its wishes, in the order in which they came.
const WISH: &str = "wish";
/// Wishes of one channel that may wait.
const WISHES_MAX: usize = 100;
/// How often a change is made for one wish.
const ATTEMPTS_MAX: u8 = 20;
/// How often key packages are claimed for one wish.
const CLAIMS_MAX: u8 = 3;

/// Callers to be told, after the transaction.
pub(crate) type Settled = Vec<(IdempotencyId, Outcome)>;

/// How an epoch, or a group, has ended for the own changes that were made for it.
#[derive(Clone, Copy)]
pub(crate) enum Ending<'a> {
    /// By a commit.
    Commit { is_own: bool, removed_self: bool, added: &'a [DeviceUri], removed: &'a [DeviceUri], receipt: Receipt },
    /// By another's way back, by an own one, or because the group gave way to another.
    Superseded,
    /// By a commit that broke the group.
    Broken,
    /// The device begins anew, and what it had done may stand in the part of the log that it does not read.
    Anew,
    /// The device came in by a newer invitation.
    Invited,
}

impl Ending<'_> {
    /// What became of a change that no wish stands behind.
    const fn of_unwished(&self, is_leave: bool) -> Outcome {
        match self {
            Self::Commit { is_own: true, receipt, .. } if !is_leave => Ok(*receipt),
            Self::Commit { removed_self: true, receipt, .. } if is_leave => Ok(*receipt),
            Self::Commit { .. } | Self::Superseded => Err(Failure::Superseded),
            Self::Broken => Err(Failure::NotMember),
            Self::Anew | Self::Invited => Err(Failure::GivenUp),
        }
    }
}

/// What becomes of a wish.
enum Fate {
    Stays,
    CameTrue(Outcome),
    InVain(Failure),
}

fn all(tx: &Transaction<'_>, channel: ChannelId) -> Result<Vec<(u64, WishRow)>, ClientError> {
    let rows = tx.log_read(WISH, &channel.0, 0, WISHES_MAX)?.into_iter();
    rows.map(|(number, bytes)| Ok((number, WishRow::from_bytes(&bytes)?))).collect()
}

fn put(tx: &Transaction<'_>, channel: ChannelId, number: u64, row: &WishRow) -> Result<(), ClientError> {
    Ok(tx.log_put(WISH, &channel.0, number, &row.to_bytes())?)
}

fn delete(tx: &Transaction<'_>, channel: ChannelId, number: u64) -> Result<(), ClientError> {
    Ok(tx.log_delete(WISH, &channel.0, number)?)
}

/// Whether no change is on its way for a wish.
fn is_waiting(tx: &Transaction<'_>, channel: ChannelId, row: &WishRow) -> Result<bool, ClientError> {
    Ok(match row.staged {
        None => true,
        Some(_) if row.wanted == Wanted::Leave => false,
        Some(staged) => changes::get(tx, channel, IntentKind::Commit)?.is_none_or(|intent| intent.id != staged),
    })
}

/// The wishes of a channel for which no change is on its way.
pub(crate) fn waiting(tx: &Transaction<'_>, channel: ChannelId) -> Result<Vec<(u64, WishRow)>, ClientError> {
    let mut waiting = Vec::new();
    for (number, row) in all(tx, channel)? {
        if is_waiting(tx, channel, &row)? {
            waiting.push((number, row));
        }
    }
    Ok(waiting)
}

/// Whether something is still to be done for a wish. A departure that is in the log is for others to commit.
pub(crate) fn is_any_open(tx: &Transaction<'_>, channel: ChannelId) -> Result<bool, ClientError> {
    let is_leaving = changes::get(tx, channel, IntentKind::Leave)?.is_some();
    Ok(is_leaving || all(tx, channel)?.iter().any(|(_, row)| row.staged.is_none() || row.wanted != Wanted::Leave))
}

/// Stores a wish, and the change for it unless another is on its way.
pub(crate) fn wish(
    tx: &Transaction<'_>,
    mls: &Mls,
    federation: &Federation,
    channel: ChannelId,
    (id, change): (IdempotencyId, IdempotencyId),
    wanted: Wanted,
) -> Result<Staged, ClientError> {
    let staged = stage(tx, mls, federation, (channel, change), &wanted)?;
    if matches!(staged, Staged::Done) {
        return Ok(staged);
    }
    if all(tx, channel)?.len() >= WISHES_MAX {
        return Err(ClientError::Contended);
    }
    let change = matches!(staged, Staged::Ready).then_some(change);
    let number = tx.log_last(WISH, &channel.0)?.unwrap_or(0) + 1;
    put(tx, channel, number, &WishRow { id, staged: change, attempts: 0, claims: 0, wanted })?;
    Ok(staged)
}

fn stage(
    tx: &Transaction<'_>,
    mls: &Mls,
    federation: &Federation,
    (channel, change): (ChannelId, IdempotencyId),
    wanted: &Wanted,
) -> Result<Staged, ClientError> {
    match wanted {
        Wanted::Invite { key_packages, .. } => {
            changes::put_commit(tx, channel, change, mls.invite(tx, federation, channel, key_packages))
        }
        Wanted::Remove { devices } => {
            changes::put_commit(tx, channel, change, mls.remove(tx, federation, channel, devices))
        }
        Wanted::Leave => match mls.leave(tx, channel) {
            Err(MlsError::Leaving) => Ok(Staged::Done),
            proposal => changes::put_leave(tx, channel, change, proposal),
        },
    }
}

/// What became of an attempt to make a change anew.
pub(crate) enum Again {
    /// Stored; the session sends it.
    Ready,
    /// Something must pass first; there will be news of the channel then.
    Busy,
    /// It waits no more.
    Settled(Settled),
}

/// Makes the change for a wish that waits. After an error that is not of the state: [`impossible`], in another transaction.
pub(crate) fn stage_again(
    tx: &Transaction<'_>,
    mls: &Mls,
    federation: &Federation,
    channel: ChannelId,
    (number, change): (u64, IdempotencyId),
) -> Result<Again, ClientError> {
    let Some(mut row) = find(tx, channel, number)? else { return Ok(Again::Settled(Settled::new())) };
    if !is_waiting(tx, channel, &row)? {
        return Ok(Again::Settled(Settled::new()));
    }
    match mls.channel(tx, channel)? {
        None if mls.is_lost(tx, channel)? => return Ok(Again::Busy),
        None => return end(tx, channel, (number, row), Failure::NotMember).map(Again::Settled),
        Some(ChannelView { is_broken, is_awaited, .. }) if is_broken || is_awaited => return Ok(Again::Busy),
        Some(view) => {
            if let Wanted::Remove { devices } = &mut row.wanted {
                devices.retain(|device| view.members.contains(device));
                if devices.is_empty() {
                    // In a part of the log that this device has not read.
                    delete(tx, channel, number)?;
                    return Ok(Again::Settled(vec![(row.id, Err(Failure::GivenUp))]));
                }
            }
        }
    }
    match stage(tx, mls, federation, (channel, change), &row.wanted)? {
        Staged::Busy | Staged::Done => Ok(Again::Busy),
        Staged::Ready => {
            row.staged = Some(change);
            put(tx, channel, number, &row)?;
            Ok(Again::Ready)
        }
    }
}

fn find(tx: &Transaction<'_>, channel: ChannelId, number: u64) -> Result<Option<WishRow>, ClientError> {
    let found = tx.log_read(WISH, &channel.0, number.saturating_sub(1), 1)?.into_iter().next();
    let found = found.filter(|(found, _)| *found == number);
    Ok(found.map(|(_, bytes)| WishRow::from_bytes(&bytes)).transpose()?)
}

/// The change for a wish cannot be made in the group as it is.
pub(crate) fn impossible(
    tx: &Transaction<'_>,
    channel: ChannelId,
    number: u64,
    error: ClientError,
) -> Result<Settled, ClientError> {
    let Some(mut row) = find(tx, channel, number)? else { return Ok(Settled::new()) };
    match error {
        // A key package may have ended meanwhile.
        ClientError::Mls(MlsError::Profile(_)) if to_be_claimed_anew(&mut row) => {
            row.staged = None;
            put(tx, channel, number, &row)?;
            Ok(Settled::new())
        }
        ClientError::Mls(error) => end(tx, channel, (number, row), Failure::NotPossible(Said::new(error))),
        ClientError::Refused(problem) => end(tx, channel, (number, row), Failure::Refused(problem)),
        ClientError::NotMember => end(tx, channel, (number, row), Failure::NotMember),
        error => Err(error),
    }
}

/// Whether key packages are to be claimed anew, and may be.
fn to_be_claimed_anew(row: &mut WishRow) -> bool {
    let Wanted::Invite { key_packages, .. } = &mut row.wanted else { return false };
    row.claims = row.claims.saturating_add(1);
    key_packages.clear();
    row.claims < CLAIMS_MAX
}

/// Key packages were claimed anew.
pub(crate) fn claimed(
    tx: &Transaction<'_>,
    channel: ChannelId,
    (number, id): (u64, IdempotencyId),
    found: Vec<Vec<u8>>,
) -> Result<(), ClientError> {
    let Some(mut row) = find(tx, channel, number)?.filter(|row| row.id == id) else { return Ok(()) };
    match &mut row.wanted {
        // Some of the devices may have come in meanwhile by others' hands.
        Wanted::Invite { devices, key_packages } if devices.len() == found.len() => *key_packages = found,
        _ => return Ok(()),
    }
    put(tx, channel, number, &row)
}

/// An attempt was in vain, and it may be made again.
fn once_more(row: &mut WishRow) -> Fate {
    row.staged = None;
    row.attempts = row.attempts.saturating_add(1);
    if row.attempts < ATTEMPTS_MAX { Fate::Stays } else { Fate::InVain(Failure::Superseded) }
}

/// Nothing could be made for a wish, for a reason that passes.
pub(crate) fn in_vain(tx: &Transaction<'_>, channel: ChannelId, number: u64) -> Result<Settled, ClientError> {
    let Some(mut row) = find(tx, channel, number)? else { return Ok(Settled::new()) };
    let fate = once_more(&mut row);
    decide(tx, channel, (number, row), fate)
}

/// The own changes of an epoch, or of a group, are settled or void.
pub(crate) fn epoch_ended(
    tx: &Transaction<'_>,
    channel: ChannelId,
    ending: Ending<'_>,
) -> Result<Settled, ClientError> {
    let (committed, left) = changes::epoch_ended(tx, channel)?;
    let (mut settled, mut wished) = (Settled::new(), Vec::new());
    for (number, mut row) in all(tx, channel)? {
        wished.extend(row.staged);
        let before = row.clone();
        let fate = fate(&mut row, committed, ending);
        if row != before || !matches!(fate, Fate::Stays) {
            settled.extend(decide(tx, channel, (number, row), fate)?);
        }
    }
    let unwished = [(committed, false), (left, true)].into_iter().filter_map(|(id, is_leave)| Some((id?, is_leave)));
    let unwished = unwished.filter(|(id, _)| !wished.contains(id));
    settled.extend(unwished.map(|(id, is_leave)| (id, ending.of_unwished(is_leave))));
    Ok(settled)
}

fn fate(row: &mut WishRow, committed: Option<IdempotencyId>, ending: Ending<'_>) -> Fate {
    let was_committed = row.staged.is_some() && row.staged == committed;
    match ending {
        Ending::Commit { removed_self: true, receipt, .. } => match row.wanted {
            Wanted::Leave => Fate::CameTrue(Ok(receipt)),
            _ => Fate::InVain(Failure::NotMember),
        },
        Ending::Commit { is_own: true, receipt, .. } if was_committed => Fate::CameTrue(Ok(receipt)),
        Ending::Commit { added, removed, receipt, .. } => {
            let is_true = match &mut row.wanted {
                Wanted::Invite { devices, key_packages } => {
                    let is_in: Vec<bool> = devices.iter().map(|device| added.contains(device)).collect();
                    let (mut one, mut other) = (is_in.iter(), is_in.iter());
                    devices.retain(|_| one.next().is_none_or(|is_in| !is_in));
                    key_packages.retain(|_| other.next().is_none_or(|is_in| !is_in));
                    devices.is_empty()
                }
                Wanted::Remove { devices } => {
                    // Who was seated anew was taken out and let in.
                    devices.retain(|device| !removed.contains(device) || added.contains(device));
                    devices.is_empty()
                }
                Wanted::Leave => false,
            };
            match is_true {
                true => Fate::CameTrue(Ok(receipt)),
                false if row.staged.is_some() => once_more(row),
                false => Fate::Stays,
            }
        }
        Ending::Superseded if row.staged.is_some() => once_more(row),
        Ending::Superseded => Fate::Stays,
        // Made anew when the device is back.
        Ending::Broken => {
            row.staged = None;
            Fate::Stays
        }
        Ending::Anew if row.wanted == Wanted::Leave => {
            row.staged = None;
            Fate::Stays
        }
        // Whoever was invited again was out.
        Ending::Invited if row.wanted == Wanted::Leave => Fate::CameTrue(Err(Failure::GivenUp)),
        Ending::Anew | Ending::Invited => Fate::InVain(Failure::GivenUp),
    }
}

fn decide(
    tx: &Transaction<'_>,
    channel: ChannelId,
    (number, row): (u64, WishRow),
    fate: Fate,
) -> Result<Settled, ClientError> {
    match fate {
        Fate::Stays => put(tx, channel, number, &row).map(|()| Settled::new()),
        Fate::CameTrue(outcome) => delete(tx, channel, number).map(|()| vec![(row.id, outcome)]),
        Fate::InVain(failure) => end(tx, channel, (number, row), failure),
    }
}

/// A wish is given up. The application is told, whether a call waits for it or not: its process may end before that returns.
fn end(
    tx: &Transaction<'_>,
    channel: ChannelId,
    (number, row): (u64, WishRow),
    failure: Failure,
) -> Result<Settled, ClientError> {
    delete(tx, channel, number)?;
    let devices = row.wanted.devices().to_vec();
    not_made(tx, channel, (row.wanted.change(), devices), &failure)?;
    Ok(vec![(row.id, Err(failure))])
}

/// Tells the application of a change that was not made.
pub(crate) fn not_made(
    tx: &Transaction<'_>,
    channel: ChannelId,
    (change, devices): (Change, Vec<DeviceUri>),
    failure: &Failure,
) -> Result<(), ClientError> {
    let (reason, detail) = (NotMade::because(failure), chain(failure));
    keep(tx, &Event::ChangeNotMade { channel, change, devices, reason, detail })
}

/// The gateway has refused the change with this id. Gives who is to be told; nobody if it is made anew.
pub(crate) fn refused(
    tx: &Transaction<'_>,
    channel: ChannelId,
    change: IdempotencyId,
    problem: Problem,
) -> Result<Settled, ClientError> {
    let Some((number, mut row)) = all(tx, channel)?.into_iter().find(|(_, row)| row.staged == Some(change)) else {
        return Ok(vec![(change, Err(Failure::Refused(problem)))]);
    };
    let fate = match problem.code {
        code if turns::is_overtaken(code) => once_more(&mut row),
        ReasonCode::KeyPackageNotClaimed if to_be_claimed_anew(&mut row) => {
            row.staged = None;
            Fate::Stays
        }
        _ => Fate::InVain(Failure::Refused(problem)),
    };
    decide(tx, channel, (number, row), fate)
}

/// Under which id the caller waits of whose wish this change is. (A wish to leave stays when that is accepted, until the device is
/// out: the proposal falls with its epoch.)
pub(crate) fn who_waits(
    tx: &Transaction<'_>,
    channel: ChannelId,
    change: IdempotencyId,
) -> Result<IdempotencyId, ClientError> {
    let row = all(tx, channel)?.into_iter().find(|(_, row)| row.staged == Some(change));
    Ok(row.map_or(change, |(_, row)| row.id))
}

/// The wish to leave stands; a proposal for it was stored again.
pub(crate) fn leave_again(tx: &Transaction<'_>, channel: ChannelId, change: IdempotencyId) -> Result<(), ClientError> {
    let mut is_known = false;
    for (number, mut row) in all(tx, channel)?.into_iter().filter(|(_, row)| row.wanted == Wanted::Leave) {
        row.staged = Some(change);
        put(tx, channel, number, &row)?;
        is_known = true;
    }
    if !is_known {
        let number = tx.log_last(WISH, &channel.0)?.unwrap_or(0) + 1;
        let row = WishRow { id: change, staged: Some(change), attempts: 0, claims: 0, wanted: Wanted::Leave };
        put(tx, channel, number, &row)?;
    }
    Ok(())
}

/// Who waits for a wish in a channel that is not served: of those whose change is on its way the gateway's answer will come first.
pub(crate) fn unserved(tx: &Transaction<'_>, channel: ChannelId) -> Result<Vec<IdempotencyId>, ClientError> {
    let open = changes::open(tx, Some(channel))?;
    let is_called = |row: &WishRow| open.iter().any(|(_, intent)| Some(intent.id) == row.staged);
    Ok(all(tx, channel)?.into_iter().filter(|(_, row)| !is_called(row)).map(|(_, row)| row.id).collect())
}

#[cfg(test)]
mod tests;
