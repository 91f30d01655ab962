//! Whether the gateway serves the GroupInfo that the epoch has. It cannot tell itself, and whoever comes back by a wrong one breaks
//! the group for everybody else (PROTOCOL 5); so members look, and put a right one in its place.

use std::time::Duration;

use lianxin_connection::{CallError, Connection, GetGroupInfo, GroupInfo, LogEntry, ReplaceGroupInfo};
use lianxin_keystore::Transaction;
use lianxin_mls::{Mls, MlsError, ServedGroupInfo};
use lianxin_tlog::EventKind;
use lianxin_types::{ChannelId, DeviceUri, Digest, Epoch, IdempotencyId, Timestamp};

use crate::calls::CallDone;
use crate::drive::Drive;
use crate::error::chain;
use crate::event::keep;
use crate::evidence::{self, ViolationKind};
use crate::shared::{News, is_worth_repeating};
use crate::{ClientError, Event};

/// So many members look at the GroupInfo of an epoch: all would be the size of the tree, times the members, for each commit. One of
/// them may be who made it.
const LOOKERS: u64 = 2;
/// They look within so long.
const SPREAD: Duration = Duration::from_secs(1);
/// After a call that may succeed another time.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// It can be replaced at any time in the epoch, by any member.
const NEXT_LOOK: Duration = Duration::from_secs(600);

/// Whether this device, the one at `own` of `members`, looks in an epoch with that authenticator: nobody outside knows who does.
pub(crate) fn looks(authenticator: &Digest, members: usize, own: usize) -> bool {
    let (members, own) = (members as u64, own as u64);
    let drawn = u64::from_be_bytes(*authenticator.0.first_chunk().expect("a digest has 32 bytes"));
    members > 1 && (own + members - drawn % members) % members < LOOKERS
}

/// What became of a look.
pub(crate) enum Looked {
    /// The one that is served.
    Served(Result<GroupInfo, CallError>),
    /// A right one was offered in its place.
    Replaced(Result<(), CallError>),
}

impl Drive {
    /// An epoch has begun: whether this device is to look.
    pub(crate) fn plan_look(&mut self, channel: ChannelId, is_to_look: bool) {
        let jitter = SPREAD * u32::from(self.shared.random.array::<1>()[0]) / 256;
        match is_to_look {
            true => self.looks.insert(channel, self.shared.clock.monotonic().plus(jitter)),
            false => self.looks.remove(&channel),
        };
    }

    /// Asks for what is served, and plans the next look.
    pub(crate) fn look(&mut self, channel: ChannelId) {
        self.looks.insert(channel, self.shared.clock.monotonic().plus(NEXT_LOOK));
        self.calls.push(Box::pin(served(self.connection.clone(), channel)));
    }

    pub(crate) async fn looked(&mut self, channel: ChannelId, looked: Looked) -> Result<(), ClientError> {
        let state = match looked {
            Looked::Served(Ok(state)) => state,
            Looked::Served(Err(error)) | Looked::Replaced(Err(error)) => {
                tracing::debug!(?channel, error = %chain(&error), "the group info that is served was not looked at, or not replaced");
                if is_worth_repeating(&error) {
                    self.look_again(channel);
                }
                return Ok(());
            }
            // Another member may have put another one there meanwhile.
            Looked::Replaced(Ok(())) => {
                self.look_again(channel);
                return Ok(());
            }
        };
        let (device, now) = (self.shared.device.clone(), self.shared.clock.now());
        let right = self.shared.transaction(move |tx, mls| judge(tx, mls, &device, channel, &state, now));
        if let Some(group_info) = right.await? {
            self.shared.bells.ring(&News::Events);
            let id = self.shared.id();
            self.calls.push(Box::pin(replaced(self.connection.clone(), id, channel, group_info)));
        }
        Ok(())
    }

    fn look_again(&mut self, channel: ChannelId) {
        let moment = self.shared.clock.monotonic().plus(AGAIN_AFTER);
        self.looks.entry(channel).and_modify(|next| *next = moment);
    }
}

/// A right GroupInfo, if the one that is served is wrong; that is told once in an epoch.
fn judge(
    tx: &Transaction<'_>,
    mls: &Mls,
    device: &DeviceUri,
    channel: ChannelId,
    state: &GroupInfo,
    now: Timestamp,
) -> Result<Option<Vec<u8>>, ClientError> {
    let (signer, fault) = match mls.check_group_info(tx, channel, &state.group_info) {
        Ok(ServedGroupInfo::Wrong { signer, fault }) => (signer, fault),
        // The own way out, or the next epoch, came first.
        Ok(ServedGroupInfo::Right | ServedGroupInfo::OtherEpoch { .. })
        | Err(MlsError::NotMember | MlsError::Broken) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let (Some(view), Some(head)) = (mls.channel(tx, channel)?, mls.head(tx, channel)?) else { return Ok(None) };
    let (epoch, detail) = (view.epoch, chain(&fault));
    tracing::warn!(?channel, ?epoch, ?signer, %detail, "the group info that is served is wrong");
    if told(tx, channel)? != Some(epoch) {
        tx.put(TOLD, &channel.0, &epoch.0.to_be_bytes())?;
        if let Some(signer) = &signer {
            let found = LogEntry {
                channel,
                sequence: head.sequence,
                kind: EventKind::Commit,
                sender: signer.clone(),
                gateway_time: now,
                expiry: None,
                label_reference: Digest::ZERO,
                mls: state.group_info.clone(),
                leaf_index: 0,
                leaf_hash: Digest::ZERO,
                idempotency_id: IdempotencyId([0; 16]),
            };
            evidence::keep(tx, device, &found, (ViolationKind::WrongGroupInfo, &detail), head)?;
        }
        keep(tx, &Event::WrongGroupInfo { channel, epoch, sequence: head.sequence, signer, detail })?;
    }
    Ok(Some(mls.group_info(tx, channel)?))
}

/// Rows by channel: the epoch of whose GroupInfo the application was told last.
const TOLD: &str = "told-group-info";

fn told(tx: &Transaction<'_>, channel: ChannelId) -> Result<Option<Epoch>, ClientError> {
    let stored = tx.get(TOLD, &channel.0)?;
    Ok(stored.and_then(|bytes| Some(Epoch(u64::from_be_bytes(bytes.try_into().ok()?)))))
}

async fn served(connection: Connection, channel: ChannelId) -> CallDone {
    let looked = Looked::Served(connection.group_info(GetGroupInfo { channel }).await);
    CallDone::Looked { channel, looked }
}

async fn replaced(connection: Connection, id: IdempotencyId, channel: ChannelId, group_info: Vec<u8>) -> CallDone {
    let done = connection.replace_group_info(ReplaceGroupInfo { id, channel, group_info: group_info.into() }).await;
    CallDone::Looked { channel, looked: Looked::Replaced(done.map(|_| ())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_members_of_an_epoch_look_and_in_each_epoch_others() {
        for members in 2..9_usize {
            let mut seen = vec![0; members];
            for epoch in 0..200_u8 {
                let authenticator = Digest::sha256(&[epoch]);
                let lookers: Vec<usize> = (0..members).filter(|own| looks(&authenticator, members, *own)).collect();
                assert_eq!(lookers.len(), 2);
                lookers.into_iter().for_each(|own| seen[own] += 1);
            }
            assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
        }
        assert!(!looks(&Digest::ZERO, 1, 0), "nobody else is there to come back");
        assert!(!looks(&Digest::ZERO, 0, 0));
    }
}
