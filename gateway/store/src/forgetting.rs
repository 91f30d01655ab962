//! What the state forgets. Each record of the journal takes a few old rows with it, never more, so that the committer's steps
//! stay short, the state does not grow for ever, and a replay forgets exactly what was forgotten the first time.

use std::time::Duration;

use lianxin_types::{ChannelId, Digest, Epoch, Timestamp};

use crate::draft::Draft;
use crate::engine::Engine;
use crate::key;
use crate::record::damaged;
use crate::state::{decode_number, encode_bytes};
use crate::zone_store::StoreError;

/// An accepted call is recognised for at least this long (PROTOCOL 7).
pub(crate) const CALLS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Old calls that one new call takes away. More than one, so that they become fewer whenever there are old ones.
const CALLS_PER_CALL: usize = 2;
/// Rows about accepted bytes of past epochs that one event of the channel takes away; it adds one.
const DUPLICATES_PER_EVENT: usize = 4;
/// Rows about dropped buckets that a channel's first event in a bucket takes away; it adds one.
const BUCKETS_PER_BUCKET: usize = 4;

/// Notes when a call was accepted, and forgets calls that are older than [`CALLS_KEPT`] then.
///
/// # Errors
/// [`StoreError`] if the engine failed or the state is damaged.
pub(crate) fn remember_time<E: Engine>(
    draft: &mut Draft<'_, E>,
    scope: &Digest,
    time: Timestamp,
) -> Result<(), StoreError> {
    let kept = u64::try_from(CALLS_KEPT.as_micros()).expect("thirty days are few microseconds");
    if draft.calls_may_end(time.0.saturating_sub(kept)) {
        let oldest = draft.first(&[key::REMEMBERED_AT], CALLS_PER_CALL)?;
        let mut next = None;
        for (row_key, _) in oldest {
            let (accepted, scope) =
                key::remembered_at_parts(&row_key).ok_or(StoreError::Damaged { what: "time of a remembered call" })?;
            if accepted.0.saturating_add(kept) >= time.0 {
                next = Some(accepted.0);
                break;
            }
            draft.delete(row_key);
            draft.delete(key::remembered(&scope));
            draft.delete(key::remembered_packages(&scope));
        }
        draft.oldest_call(next);
    }
    draft.put(key::remembered_at(time, scope), encode_bytes(&[]));
    draft.newer_call(time.0);
    Ok(())
}

/// Forgets some bytes that were accepted in epochs before `epoch`. A message names its epoch and is refused in any other, so
/// only those of the current one are ever compared (PROTOCOL 5). Gives the oldest epoch that may still have rows.
///
/// # Errors
/// [`StoreError`] if the engine failed or the state is damaged.
pub(crate) fn forget_duplicates<E: Engine>(
    draft: &mut Draft<'_, E>,
    channel: &ChannelId,
    epoch: Epoch,
) -> Result<Epoch, StoreError> {
    let rows = draft.first(&key::duplicates(channel), DUPLICATES_PER_EVENT)?;
    for (row_key, _) in rows {
        let found = key::duplicate_epoch(&row_key).ok_or(StoreError::Damaged { what: "accepted bytes" })?;
        if found >= epoch {
            return Ok(epoch);
        }
        draft.delete(row_key);
    }
    let left = draft.first(&key::duplicates(channel), 1)?;
    Ok(left.first().and_then(|(row_key, _)| key::duplicate_epoch(row_key)).unwrap_or(epoch).min(epoch))
}

/// Forgets where the channel's events began in some buckets that have been dropped.
///
/// # Errors
/// [`StoreError`] if the engine failed or the state is damaged.
pub(crate) fn forget_buckets<E: Engine>(draft: &mut Draft<'_, E>, channel: &ChannelId) -> Result<(), StoreError> {
    let dropped = draft.number(key::DROPPED)?;
    if dropped == 0 {
        return Ok(());
    }
    for (row_key, record) in draft.first(&key::buckets_of(channel), BUCKETS_PER_BUCKET)? {
        if decode_number(&record).map_err(damaged("bucket of a channel"))? >= dropped {
            break;
        }
        draft.delete(row_key);
    }
    Ok(())
}
