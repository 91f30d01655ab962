//! What one event changes beside the group: what was learned of it is stored, waits no more, or is told.

use lianxin_connection::{LogEntry, Receipt};
use lianxin_keystore::Transaction;
use lianxin_mls::{LogEvent, Mls, Processed, Violation};
use lianxin_tlog::EventKind;
use lianxin_types::{Epoch, IdempotencyId, labelled_sha256};

use super::{Applied, Coming, Reader};
use crate::error::chain;
use crate::event::keep;
use crate::evidence::{self, ViolationKind};
use crate::rows::{MESSAGE, MessageRow, Origin};
use crate::wishes::{self, Ending};
use crate::{ClientError, Event, changes, outbox, pauses};

/// Stores what an event meant.
pub(super) fn effect(
    tx: &Transaction<'_>,
    mls: &Mls,
    reader: Reader<'_>,
    event: &LogEntry,
    processed: Processed,
    applied: &mut Applied,
) -> Result<(), ClientError> {
    let Reader { federation, .. } = reader;
    let channel = event.channel;
    if event.kind == EventKind::Commit {
        pauses::committed(tx, channel, event.sequence, &event.sender)?;
    }
    match processed {
        Processed::Message { sender, body, epoch, .. } => {
            let message = MessageRow {
                sender,
                origin: Origin::Member,
                epoch,
                gateway_time: event.gateway_time,
                expiry: event.expiry,
                leaf_index: event.leaf_index,
                leaf_hash: event.leaf_hash,
                body,
            };
            tx.log_put(MESSAGE, &channel.0, event.sequence.0, &message.to_bytes())?;
        }
        Processed::OwnMessage => {
            outbox::settle(tx, event)?;
            applied.settled.push((event.idempotency_id, Ok(receipt(tx, mls, event)?)));
        }
        Processed::NotRemembered { is_first } => not_remembered(tx, mls, reader, event, is_first, applied)?,
        Processed::Membership { epoch, by, added, removed, own_commit, removed_self, discarded_own_commit } => {
            let receipt = receipt(tx, mls, event)?;
            let (added_now, removed_now) = (&added[..], &removed[..]);
            let ending =
                Ending::Commit { is_own: own_commit, removed_self, added: added_now, removed: removed_now, receipt };
            applied.settled.extend(wishes::epoch_ended(tx, channel, ending)?);
            tracing::debug!(?channel, epoch = epoch.0, own_commit, discarded_own_commit, "epoch began");
            // Whom this device had to seat has a seat, or is not to come back into one: whoever goes later is not brought back.
            mls.defer_seats(tx, channel, &[], &[&added[..], &removed[..]].concat())?;
            for device in added {
                keep(tx, &Event::MemberJoined { channel, device, by: by.clone(), epoch })?;
            }
            for device in removed {
                keep(tx, &Event::MemberLeft { channel, device, by: by.clone(), epoch })?;
            }
            applied.epoch_changed = true;
            if removed_self {
                applied.removed = true;
                fail(applied, outbox::drop_all(tx, channel, outbox::Read::ToTheEnd)?);
                keep(tx, &Event::Removed { channel, by })?;
            } else {
                fail(applied, outbox::encrypt_again(tx, mls, federation, channel)?);
            }
        }
        Processed::Rejoined { epoch, device, own_commit, discarded_own_commit, discarded_own_leave } => {
            applied.settled.extend(wishes::epoch_ended(tx, channel, Ending::Superseded)?);
            tracing::debug!(?channel, epoch = epoch.0, own_commit, discarded_own_commit, "a member came back");
            keep(tx, &Event::MemberRejoined { channel, device, epoch })?;
            applied.epoch_changed = true;
            if discarded_own_leave {
                // The wish stands, the proposal fell with its epoch.
                let id = id_of_another_leave(event);
                changes::put_leave(tx, channel, id, mls.leave(tx, channel))?;
                wishes::leave_again(tx, channel, id)?;
                applied.change_staged = true;
            }
            fail(applied, outbox::encrypt_again(tx, mls, federation, channel)?);
        }
        Processed::Incarnation { incarnation, by, culprit, own_start } => {
            applied.settled.extend(wishes::epoch_ended(tx, channel, Ending::Superseded)?);
            keep(tx, &Event::ChannelRestarted { channel, incarnation, by, culprit })?;
            applied.epoch_changed = true;
            if own_start {
                keep(tx, &Event::ChannelRestored { channel, epoch: Epoch(0) })?;
            }
            fail(applied, outbox::encrypt_again(tx, mls, federation, channel)?);
        }
        Processed::Seated { epoch } => {
            keep(tx, &Event::ChannelRestored { channel, epoch })?;
            applied.epoch_changed = true;
            fail(applied, outbox::encrypt_again(tx, mls, federation, channel)?);
        }
        Processed::LeaveProposed { device } => keep(tx, &Event::LeaveProposed { channel, device })?,
        Processed::CommitReported { reporter, commit, reason } => {
            let committer = pauses::reported(tx, reader.device, channel, commit, &reporter)?;
            keep(tx, &Event::CommitReported { channel, reporter, commit, committer, reason })?;
        }
        Processed::RemovalAsked { device, reason } => keep(tx, &Event::RemovalAsked { channel, device, reason })?,
        // The creator's own start, and what came twice.
        Processed::Start | Processed::AlreadyProcessed | Processed::RepeatedMessage => {}
        Processed::Hidden(violation) => hidden(tx, mls, reader, event, &violation, applied)?,
    }
    Ok(())
}

/// An event that is not shown.
fn hidden(
    tx: &Transaction<'_>,
    mls: &Mls,
    reader: Reader<'_>,
    event: &LogEntry,
    violation: &Violation,
    applied: &mut Applied,
) -> Result<(), ClientError> {
    let Reader { device, federation, .. } = reader;
    let (channel, sequence, sender) = (event.channel, event.sequence, event.sender.clone());
    let told = match violation {
        // One event per broken channel is enough; what follows it cannot be judged.
        Violation::ChannelBroken => return Ok(()),
        Violation::OlderState if event.kind == EventKind::Start => {
            // The channel goes on in a group that this state does not know, and this device is to come back into.
            fail(applied, outbox::drop_all(tx, channel, outbox::Read::InPart)?);
            applied.settled.extend(wishes::epoch_ended(tx, channel, Ending::Anew)?);
            applied.removed = true;
            under_own_name(tx, mls, reader, event, violation)?
        }
        violation => {
            if event.kind == EventKind::Commit {
                // The group is broken: no change that was made for it will happen. Wishes and messages wait for the way back.
                applied.settled.extend(wishes::epoch_ended(tx, channel, Ending::Broken)?);
                fail(applied, outbox::encrypt_again(tx, mls, federation, channel)?);
            }
            if event.kind == EventKind::Start && mls.awaited(tx, channel)?.is_some() {
                // Nobody takes it, and what this device had begun gave way to it all the same.
                applied.settled.extend(wishes::epoch_ended(tx, channel, Ending::Superseded)?);
                fail(applied, outbox::encrypt_again(tx, mls, federation, channel)?);
                applied.epoch_changed = true;
            }
            match ViolationKind::from_violation(violation) {
                None if *violation == Violation::OlderState => under_own_name(tx, mls, reader, event, violation)?,
                None => Event::AwayTooLong { channel, sequence },
                Some(kind) => {
                    let detail = chain(violation);
                    let head = mls.head(tx, channel)?.ok_or(ClientError::NotMember)?;
                    evidence::keep(tx, device, event, (kind, &detail), head)?;
                    Event::Violation { channel, sequence, sender, kind, detail }
                }
            }
        }
    };
    keep(tx, &told)
}

/// Something under this device's name that it does not know of: its state is an older copy, or this is the work of others.
fn not_remembered(
    tx: &Transaction<'_>,
    mls: &Mls,
    reader: Reader<'_>,
    event: &LogEntry,
    is_first: bool,
    applied: &mut Applied,
) -> Result<(), ClientError> {
    if is_first {
        keep(tx, &under_own_name(tx, mls, reader, event, &Violation::NotSent)?)?;
        applied.is_state_older = true;
        // What was encrypted goes: its keys may have been used. Nothing is encrypted from now on until there are new ones.
        fail(applied, outbox::encrypt_again(tx, mls, reader.federation, event.channel)?);
    }
    fail(applied, outbox::give_up(tx, event)?);
    Ok(())
}

/// How something under this device's name is told that it does not know of, and what is kept of it: the log that was stored while it was
/// away may know more than an older copy of its state does. What happens now is not this device's, or was refused before.
fn under_own_name(
    tx: &Transaction<'_>,
    mls: &Mls,
    Reader { device, coming, .. }: Reader<'_>,
    event: &LogEntry,
    violation: &Violation,
) -> Result<Event, ClientError> {
    let (channel, sequence, sender) = (event.channel, event.sequence, event.sender.clone());
    let kind = ViolationKind::NotSent;
    let detail = match violation {
        Violation::OlderState => {
            "signed with this device's key, and it has no such change, or one that the gateway had refused".to_owned()
        }
        violation => chain(violation),
    };
    let head = mls.head(tx, channel)?.ok_or(ClientError::NotMember)?;
    evidence::keep(tx, device, event, (kind, &detail), head)?;
    Ok(match coming {
        Coming::Stored => Event::StateRestored { channel, sequence },
        Coming::Live => Event::Violation { channel, sequence, sender, kind, detail },
    })
}

/// The id of the call that asks again, after `event` has ended the epoch of the first proposal: the same whenever this event
/// is processed, and of no other call.
fn id_of_another_leave(event: &LogEntry) -> IdempotencyId {
    let digest = labelled_sha256("lianxin/leave-again/v1", &[&event.channel.0, &event.leaf_hash.0]);
    IdempotencyId(digest.0[..16].try_into().expect("a digest has 32 bytes"))
}

/// A commit that breaks the channel for this device is reported: the others learn of it, and its committer is stopped. The id
/// is the same whenever this event is processed, and of no other call.
pub(super) fn report(
    tx: &Transaction<'_>,
    mls: &Mls,
    event: &LogEvent,
    entry: &LogEntry,
    processed: &Processed,
    applied: &mut Applied,
) -> Result<(), ClientError> {
    let Processed::Hidden(violation) = processed else { return Ok(()) };
    if event.kind != EventKind::Commit || *violation == Violation::ChannelBroken {
        return Ok(());
    }
    let Some(report) = mls.report(tx, event, violation)? else { return Ok(()) };
    let digest = labelled_sha256("lianxin/report-id/v1", &[&event.channel.0, &entry.leaf_hash.0]);
    let id = IdempotencyId(digest.0[..16].try_into().expect("a digest has 32 bytes"));
    changes::put_report(tx, event.channel, id, report)?;
    applied.change_staged = true;
    Ok(())
}

fn fail(applied: &mut Applied, failures: outbox::Failures) {
    applied.settled.extend(failures.into_iter().map(|(id, failure)| (id, Err(failure))));
}

/// The own event as its receipt; only the version of the policy is not in it. It is the last one processed.
fn receipt(tx: &Transaction<'_>, mls: &Mls, event: &LogEntry) -> Result<Receipt, ClientError> {
    let head = mls.head(tx, event.channel)?.filter(|head| head.sequence == event.sequence);
    Ok(Receipt {
        sequence: event.sequence,
        gateway_time: event.gateway_time,
        expiry: event.expiry,
        policy_version: 0,
        leaf_index: event.leaf_index,
        leaf_hash: event.leaf_hash,
        chain_hash: head.map(|head| head.chain_hash),
    })
}
