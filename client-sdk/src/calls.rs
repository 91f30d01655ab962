//! Calls in flight: changes of channels, and what is asked for them.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use lianxin_connection::{CallError, Connection, GroupInfo, WelcomeTree};
use lianxin_connection::{Commit, Create, Leave, Report, StartIncarnation};
use lianxin_connection::{Problem, ReasonCode, Receipt};
use lianxin_types::{ChannelId, IdempotencyId, Sequence};

use crate::changes::{self, Staged, WayIn};
use crate::drive::Drive;
use crate::error::chain;
use crate::incarnation::Seats;
use crate::pump::not_served;
use crate::rows::{Intent, IntentKind};
use crate::served::Looked;
use crate::shared::is_worth_repeating;
use crate::waiters::Failure;
use crate::wishes::{Change, Settled};
use crate::{ClientError, pauses, sync, wishes};

const RETRY_DELAY: Duration = Duration::from_secs(1);
/// After a refusal that this connection will hardly outlive.
const CALLER_RETRY_DELAY: Duration = Duration::from_secs(30);

pub(crate) type Call = Pin<Box<dyn Future<Output = CallDone> + Send>>;

/// What an answer says about a change.
#[derive(Debug, PartialEq)]
enum Judgement {
    /// In the log.
    Accepted(Receipt),
    /// Not in the log, and it will not come: what was staged may be dropped.
    Refused(Problem),
    /// Perhaps in the log: what was staged must stay until the log or a later answer tells.
    Unknown { again_after: Duration },
}

/// What `result` says about a change. `doubtful`: an earlier attempt may have been accepted. The gateway looks an id up
/// before it judges a change, so a refusal of the change says that no attempt was accepted; one of the caller, or of every
/// change at the time, says it only of this attempt.
fn judge(result: Result<Receipt, CallError>, doubtful: bool) -> Judgement {
    match result {
        Ok(receipt) => Judgement::Accepted(receipt),
        Err(CallError::Refused(problem)) if refuses_the_caller(problem.code) => match doubtful {
            true => Judgement::Unknown { again_after: CALLER_RETRY_DELAY },
            false => Judgement::Refused(problem),
        },
        Err(error) if is_worth_repeating(&error) => Judgement::Unknown { again_after: RETRY_DELAY },
        Err(CallError::Refused(problem)) => Judgement::Refused(problem),
        Err(_) => Judgement::Unknown { again_after: RETRY_DELAY },
    }
}

/// Whether a refusal is about who calls, and so comes before anything is looked up.
pub(crate) const fn refuses_the_caller(code: ReasonCode) -> bool {
    matches!(
        code,
        ReasonCode::CertificateExpired
            | ReasonCode::CertificateRevoked
            | ReasonCode::WrongKind
            | ReasonCode::UpgradeRequired
    )
}

/// A call that ended.
pub(crate) enum CallDone {
    Change { channel: ChannelId, intent: Box<Intent>, result: Result<Receipt, CallError> },
    KeyPackages(Result<(), ClientError>),
    PublicState { channel: ChannelId, result: Result<GroupInfo, CallError> },
    SeatTree { channel: ChannelId, sequence: Sequence, result: Result<WelcomeTree, CallError> },
    Seats { channel: ChannelId, found: Seats },
    Looked { channel: ChannelId, looked: Looked },
    Memberships(Result<BTreeSet<ChannelId>, CallError>),
    Claimed { channel: ChannelId, wish: (u64, IdempotencyId), found: Result<Vec<Vec<u8>>, ClientError> },
}

/// What the acceptance of a change has led to.
enum Stored {
    /// Who waits for it.
    Waits(IdempotencyId),
    /// It was the way back into the channel.
    CameBack(Settled),
}

impl Drive {
    /// At the start of a connection: what is stored may have been sent on an earlier one, whose answer was lost.
    pub(crate) async fn resume_changes(&mut self) -> Result<(), ClientError> {
        let open = self.shared.transaction(|tx, _| changes::open(tx, None)).await?;
        self.doubtful.extend(open.into_iter().map(|(_, intent)| intent.id));
        self.start_changes(None).await
    }

    /// Calls for every stored change that is not accepted and not being called.
    pub(crate) async fn start_changes(&mut self, only: Option<ChannelId>) -> Result<(), ClientError> {
        let open = self.shared.transaction(move |tx, _| changes::open(tx, only)).await?;
        for (channel, intent) in open {
            if self.calling.insert(intent.id) {
                self.calls.push(Box::pin(change(self.connection.clone(), channel, intent)));
            }
        }
        Ok(())
    }

    pub(crate) async fn call_done(&mut self, done: CallDone) -> Result<(), ClientError> {
        match done {
            CallDone::Change { channel, intent, result } => {
                let id = intent.id;
                self.calling.remove(&id);
                match judge(result, self.doubtful.contains(&id)) {
                    Judgement::Accepted(receipt) => {
                        self.doubtful.remove(&id);
                        let done = self.change_accepted(channel, *intent, receipt).await;
                        self.confine(channel, Some(id), done).await
                    }
                    Judgement::Refused(problem) => {
                        self.doubtful.remove(&id);
                        let done = self.change_refused(channel, *intent, problem).await;
                        self.confine(channel, Some(id), done).await
                    }
                    // The same bytes under the same id again.
                    Judgement::Unknown { again_after } => {
                        self.doubtful.insert(intent.id);
                        self.retries.insert(channel, self.shared.clock.monotonic().plus(again_after));
                        Ok(())
                    }
                }
            }
            CallDone::PublicState { channel, result } => self.go_back(channel, result).await,
            CallDone::SeatTree { channel, sequence, result } => self.take_seat(channel, sequence, result).await,
            CallDone::Seats { channel, found } => self.seat(channel, found).await,
            CallDone::Looked { channel, looked } => {
                let done = self.looked(channel, looked).await;
                self.confine(channel, None, done).await
            }
            CallDone::Memberships(found) => self.memberships(found).await,
            CallDone::Claimed { channel, wish, found } => self.claimed(channel, wish, found).await,
            CallDone::KeyPackages(result) => {
                self.replenished(result);
                Ok(())
            }
        }
    }

    async fn change_accepted(
        &mut self,
        channel: ChannelId,
        intent: Intent,
        receipt: Receipt,
    ) -> Result<(), ClientError> {
        let (kind, change) = (intent.kind, intent.id);
        let (federation, device) = (self.shared.federation(), self.shared.device.clone());
        let stored = self.shared.transaction(move |tx, mls| {
            match intent.kind {
                IntentKind::Create => changes::started(tx, mls, &federation, device, channel, &intent, &receipt)?,
                IntentKind::Commit => match changes::came_back(tx, mls, channel, &intent, &receipt)? {
                    WayIn::ByReceipt(epoch) => {
                        pauses::lifted(tx, channel)?;
                        return sync::came_back(tx, mls, &federation, &device, (channel, epoch)).map(Stored::CameBack);
                    }
                    // It stays to be called for: the receipt of a newer gateway may say more.
                    WayIn::ByLog => return Ok(Stored::CameBack(Settled::new())),
                    WayIn::None => {}
                },
                IntentKind::Leave | IntentKind::Report | IntentKind::Start => {}
            }
            changes::accepted(tx, channel, &intent)?;
            if matches!(intent.kind, IntentKind::Commit | IntentKind::Start) {
                pauses::lifted(tx, channel)?;
            }
            Ok(Stored::Waits(match kind {
                IntentKind::Leave => wishes::who_waits(tx, channel, intent.id)?,
                _ => intent.id,
            }))
        });
        let id = match stored.await? {
            Stored::Waits(id) => {
                if kind != IntentKind::Report {
                    self.note_receipt(channel, change, receipt);
                }
                id
            }
            Stored::CameBack(settled) => {
                self.settle(channel, settled);
                return self.follow(channel).await;
            }
        };
        match kind {
            IntentKind::Create => {
                self.follow(channel).await?;
                self.shared.waiters.settle(id, Ok(receipt));
            }
            IntentKind::Leave => self.shared.waiters.settle(id, Ok(receipt)),
            // Nobody waits for it.
            IntentKind::Report => {}
            // Merged, and its caller told, when its own bytes come back: not on this connection if the channel is not served.
            IntentKind::Commit | IntentKind::Start if self.gone.contains(&channel) => {
                not_served(&self.shared, channel).await?;
            }
            IntentKind::Commit | IntentKind::Start => {}
        }
        Ok(())
    }

    async fn change_refused(
        &mut self,
        channel: ChannelId,
        intent: Intent,
        problem: Problem,
    ) -> Result<(), ClientError> {
        tracing::debug!(?channel, kind = ?intent.kind, %problem, "change refused");
        self.note_refusal(channel, &problem);
        let (kind, device, refused) = (intent.kind, self.shared.device.clone(), problem.clone());
        let federation = self.shared.federation();
        let is_paused = problem.code == ReasonCode::CommitterPaused;
        let dropped = self.shared.transaction(move |tx, mls| {
            if !changes::refused(tx, mls, channel, &intent)? {
                return Ok(None);
            }
            if is_paused {
                pauses::paused(tx, channel)?;
            }
            if kind == IntentKind::Create {
                wishes::not_made(tx, channel, (Change::Create, Vec::new()), &Failure::Refused(refused.clone()))?;
            }
            let settled = wishes::refused(tx, channel, intent.id, refused)?;
            Ok(Some((sync::standing(tx, mls, &federation, &device, channel)?, settled)))
        });
        if let Some((place, settled)) = dropped.await? {
            match kind {
                // It was the way back into a broken group.
                IntentKind::Commit if place.is_broken => self.way_back_refused(channel, &problem),
                IntentKind::Commit => self.commit_refused(channel, place.head, place.turn, &problem),
                IntentKind::Create | IntentKind::Leave => self.note_turn(channel, place.turn),
                IntentKind::Start => self.start_refused(channel).await?,
                IntentKind::Report => tracing::warn!(?channel, %problem, "report of a commit refused"),
            }
            self.wishes_after_refusal(channel, place, &problem);
            self.settle(channel, settled);
        }
        Ok(())
    }

    /// Commits the proposals that wait, unless an own commit is on its way or nothing waits any more.
    pub(crate) async fn commit_pending(&mut self, channel: ChannelId) -> Result<(), ClientError> {
        let (federation, id, device) = (self.shared.federation(), self.shared.id(), self.shared.device.clone());
        let staged = self.shared.transaction(move |tx, mls| {
            if sync::standing(tx, mls, &federation, &device, channel)?.turn.is_none() {
                return Ok(Staged::Busy);
            }
            changes::put_commit(tx, channel, id, mls.commit_pending(tx, &federation, channel))
        });
        match staged.await {
            Ok(Staged::Ready) => self.start_changes(Some(channel)).await,
            Ok(Staged::Busy | Staged::Done) => Ok(()),
            Err(ClientError::State(error)) => Err(error.into()),
            // Somebody else may be able to; it must not end the connection.
            Err(error) => {
                tracing::warn!(error = %chain(&error), "cannot commit what waits");
                Ok(())
            }
        }
    }
}

async fn change(connection: Connection, channel: ChannelId, intent: Intent) -> CallDone {
    let id = intent.id;
    let mut parts = intent.parts.iter().map(|part| bytes::Bytes::copy_from_slice(part));
    let mut part = || parts.next().unwrap_or_default();
    let result = match intent.kind {
        IntentKind::Create => {
            let (group_info, ratchet_tree) = (part(), part());
            connection.create(Create { id, group_info, ratchet_tree }).await
        }
        IntentKind::Commit => {
            let (commit, welcome, group_info) = (part(), part(), part());
            let welcome = Some(welcome).filter(|welcome| !welcome.is_empty());
            connection.commit(Commit { id, channel, commit, welcome, group_info }).await
        }
        IntentKind::Start => {
            let (group_info, ratchet_tree) = (part(), part());
            connection.start_incarnation(StartIncarnation { id, channel, group_info, ratchet_tree }).await
        }
        IntentKind::Leave => connection.leave(Leave { id, channel, proposal: part() }).await,
        IntentKind::Report => connection.report(Report { id, channel, report: part() }).await,
    };
    CallDone::Change { channel, intent: Box::new(intent), result }
}

#[cfg(test)]
mod tests {
    use lianxin_types::{Digest, Timestamp};

    use super::*;

    fn refused(code: ReasonCode) -> Result<Receipt, CallError> {
        Err(CallError::Refused(Problem::new(code)))
    }

    #[test]
    fn a_refusal_of_the_caller_says_nothing_of_an_earlier_attempt() {
        let codes = [
            ReasonCode::CertificateExpired,
            ReasonCode::CertificateRevoked,
            ReasonCode::WrongKind,
            ReasonCode::UpgradeRequired,
        ];
        for code in codes {
            let unknown = Judgement::Unknown { again_after: CALLER_RETRY_DELAY };
            assert_eq!(judge(refused(code), true), unknown, "{code:?}");
            assert_eq!(judge(refused(code), false), Judgement::Refused(Problem::new(code)), "{code:?}");
        }
    }

    #[test]
    fn a_busy_gateway_and_a_lost_answer_leave_the_outcome_open() {
        let codes = [
            ReasonCode::ResourceExhausted,
            ReasonCode::ShuttingDown,
            ReasonCode::ZoneUnavailable,
            ReasonCode::Internal,
        ];
        let unknown = || Judgement::Unknown { again_after: RETRY_DELAY };
        for doubtful in [false, true] {
            for code in codes {
                assert_eq!(judge(refused(code), doubtful), unknown(), "{code:?}");
            }
            assert_eq!(judge(Err(CallError::Unknown { detail: "cut".into() }), doubtful), unknown());
        }
    }

    #[test]
    fn a_refusal_of_the_change_itself_is_final() {
        for doubtful in [false, true] {
            for code in [ReasonCode::WrongEpoch, ReasonCode::PendingRemoves, ReasonCode::NotMember] {
                assert_eq!(judge(refused(code), doubtful), Judgement::Refused(Problem::new(code)), "{code:?}");
            }
        }
        let receipt = Receipt {
            sequence: Sequence(1),
            gateway_time: Timestamp(2),
            expiry: None,
            policy_version: 0,
            leaf_index: 3,
            leaf_hash: Digest([4; 32]),
            chain_hash: Some(Digest([5; 32])),
        };
        assert_eq!(judge(Ok(receipt), true), Judgement::Accepted(receipt));
    }
}
