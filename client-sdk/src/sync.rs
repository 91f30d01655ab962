//! What a stretch of a channel's log changes, in one transaction: the group's state and head, the local log, the outbox and
//! the events for the application move together or not at all.

use lianxin_connection::LogEntry;
use lianxin_keystore::Transaction;
use lianxin_mls::{LogEvent, Mls, MlsError, Renewal};
use lianxin_trust::Federation;
use lianxin_types::{ChannelId, DeviceUri, Epoch, IdempotencyId, Sequence};

use crate::event::keep;
use crate::waiters::Outcome;
use crate::wishes::{self, Ending};
use crate::{ClientError, Event, outbox, served};

mod effect;
mod invitations;
mod kept_invitations;

pub(crate) use invitations::{
    Accepted, Invited, Log, Offered, accept, decline, forget_declined, give_up_invitation, invite, is_declined,
    is_invited, is_kept, newest_seat, not_a_seat, offer, open_invitations, push_out, take_seat, welcomes,
};

/// What a stretch of log did, for the session's memory.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// Callers to be told, after the transaction.
    pub(crate) settled: Vec<(IdempotencyId, Outcome)>,
    /// The group moved on; what waited has been encrypted again.
    pub(crate) epoch_changed: bool,
    /// This device is not a member any more.
    pub(crate) removed: bool,
    /// Another group carries the channel on, in which this device is not seated yet.
    pub(crate) is_awaited: bool,
    /// Events are missing behind the group's head: this one came instead of the next.
    pub(crate) gap: Option<Sequence>,
    /// A change was stored that is to be sent.
    pub(crate) change_staged: bool,
    /// The log has something of this device that its state does not know.
    pub(crate) is_state_older: bool,
    /// An event cannot be judged before the trust bundle and the revocation lists have been fetched.
    pub(crate) is_trust_behind: bool,
    /// Where the group stands behind all of it.
    pub(crate) place: Place,
}

/// Where a channel's group stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The last event processed.
    pub(crate) head: Sequence,
    /// Something waits to be committed.
    pub(crate) turn: Option<Turn>,
    /// It is broken or lost, and no way back has been made.
    pub(crate) is_broken: bool,
    /// Another group carries the channel on, and this device is to be seated there, or is to seat others.
    pub(crate) is_between: bool,
    /// In this epoch it is for this device, among others, to look at the GroupInfo that is served.
    pub(crate) is_to_look: bool,
    /// Wishes wait there that no change is on its way for: how often the first was tried in vain.
    pub(crate) wishes: Option<u8>,
}

/// A request to follow again, because events were missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The group's head then.
    pub(crate) head: Sequence,
    /// What had come instead of the event behind it.
    pub(crate) found: Sequence,
}

/// What to do about missing events.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum GapStep {
    /// Follow again from the group's head.
    FollowAgain,
    /// The answer to the last request is still to come: this was on its way before it.
    Wait,
    /// The gateway was asked, and has nothing that joins the head.
    GiveUp,
}

/// Whether a group at `head` can go no further, because this device gets only events from `first` on.
pub(crate) fn is_cut_off(head: Sequence, first: Sequence) -> bool {
    first > head.next()
}

/// One request per head. Events of one subscription ascend, so what starts no later than the event that made us ask belongs
/// to the answer.
pub(crate) fn gap_step(asked: Option<Asked>, head: Sequence, found: Sequence) -> GapStep {
    match asked {
        Some(asked) if asked.head == head && found <= asked.found => GapStep::GiveUp,
        Some(asked) if asked.head == head => GapStep::Wait,
        _ => GapStep::FollowAgain,
    }
}

/// When it is this device's turn to commit what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    /// The epoch in which it waits.
    pub(crate) epoch: Epoch,
    /// How many members come before this one.
    pub(crate) rank: u32,
}

/// Whether the federation at hand may be older than the gateway's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrustAge {
    MayBeBehind,
    JustFetched,
}

/// Whether events come in their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coming {
    /// They were stored before this device followed.
    Stored,
    /// They happen now.
    Live,
}

/// Who reads, and how.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) device: &'a DeviceUri,
    pub(crate) federation: &'a Federation,
    pub(crate) trust: TrustAge,
    pub(crate) coming: Coming,
}

/// Processes events of one channel, ascending; those that were processed before change nothing.
pub(crate) fn apply(
    tx: &Transaction<'_>,
    mls: &Mls,
    reader: Reader<'_>,
    events: &[LogEntry],
) -> Result<Applied, ClientError> {
    let Reader { device, federation, trust, .. } = reader;
    let mut applied = Applied::default();
    for event in events {
        let log_event = LogEvent {
            channel: event.channel,
            sequence: event.sequence,
            kind: event.kind,
            sender: event.sender.clone(),
            gateway_time: event.gateway_time,
            expiry: event.expiry,
            mls: event.mls.to_vec(),
            idempotency_id: event.idempotency_id,
        };
        let processed = match trust {
            TrustAge::MayBeBehind => mls.process_unless_behind(tx, federation, &log_event),
            TrustAge::JustFetched => mls.process(tx, federation, &log_event),
        };
        match processed {
            Ok(processed) => {
                effect::report(tx, mls, &log_event, event, &processed, &mut applied)?;
                effect::effect(tx, mls, reader, event, processed, &mut applied)?;
            }
            Err(MlsError::Gap { found, .. }) => {
                applied.gap = Some(found);
                break;
            }
            Err(MlsError::TrustBehind { .. }) => {
                applied.is_trust_behind = true;
                break;
            }
            // Left behind by a removal in this very stretch, or by a subscription that ends too late.
            Err(MlsError::NotMember) => {
                applied.removed = true;
                break;
            }
            Err(MlsError::NotSeated) => {
                applied.is_awaited = true;
                break;
            }
            Err(error) => return Err(error.into()),
        }
        if applied.removed || applied.is_awaited {
            break;
        }
    }
    if let Some(channel) = events.first().map(|event| event.channel)
        && !applied.removed
    {
        applied.place = standing(tx, mls, federation, device, channel)?;
    }
    Ok(applied)
}

/// This device has come back into a channel whose group it had lost.
pub(crate) fn came_back(
    tx: &Transaction<'_>,
    mls: &Mls,
    federation: &Federation,
    device: &DeviceUri,
    (channel, epoch): (ChannelId, Epoch),
) -> Result<Vec<(IdempotencyId, Outcome)>, ClientError> {
    let mut settled = wishes::epoch_ended(tx, channel, Ending::Superseded)?;
    keep(tx, &Event::MemberRejoined { channel, device: device.clone(), epoch })?;
    let failed = outbox::encrypt_again(tx, mls, federation, channel)?;
    settled.extend(failed.into_iter().map(|(id, failure)| (id, Err(failure))));
    Ok(settled)
}

/// Where the group stands.
pub(crate) fn standing(
    tx: &Transaction<'_>,
    mls: &Mls,
    federation: &Federation,
    device: &DeviceUri,
    channel: ChannelId,
) -> Result<Place, ClientError> {
    let Some(view) = mls.channel(tx, channel)? else {
        let head = mls.head(tx, channel)?.map_or(Sequence(0), |head| head.sequence);
        return Ok(Place { head, is_broken: mls.is_lost(tx, channel)?, ..Place::default() });
    };
    let is_broken = view.is_broken && !view.has_pending_commit;
    let is_between = view.is_awaited || !mls.unseated(tx, channel)?.is_empty();
    let is_to_look = !view.is_broken
        && !view.is_awaited
        && served::looks(&view.epoch_authenticator, view.members.len(), view.own_position);
    let wishes = wishes::waiting(tx, channel)?.first().map(|(_, row)| row.attempts);
    let place = Place { head: view.head.sequence, turn: None, is_broken, is_between, is_to_look, wishes };
    if view.is_broken || view.is_awaited || view.pending_leaves.contains(device) {
        return Ok(place);
    }
    let before = view.members.iter().take(view.own_position);
    let rank = before.filter(|member| !view.pending_leaves.contains(member)).count();
    let rank = match mls.renewal(tx, federation, channel)? {
        _ if !view.pending_leaves.is_empty() => rank,
        Renewal::Nothing => return Ok(place),
        // Nobody does it in this device's place.
        Renewal::OwnLeaf | Renewal::Keys => 0,
        Renewal::RemovalKey => rank,
    };
    let turn = Turn { epoch: view.epoch, rank: u32::try_from(rank).unwrap_or(u32::MAX) };
    Ok(Place { turn: Some(turn), ..place })
}

#[cfg(test)]
mod tests;
