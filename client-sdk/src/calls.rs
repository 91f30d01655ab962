//! Calls in flight: changes of channels, and key packages.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use lianxin_connection::Publish;
use lianxin_connection::{CallError, Connection};
use lianxin_connection::{Commit, Create, Leave};
use lianxin_connection::{Problem, Receipt};
use lianxin_keystore::Transaction;
use lianxin_mls::Mls;
use lianxin_types::ChannelId;

use crate::changes::{self, Staged};
use crate::drive::Drive;
use crate::error::chain;
use crate::rows::{Intent, IntentKind};
use crate::shared::{News, Shared, is_worth_repeating};
use crate::waiters::Failure;
use crate::{ClientError, sync};

/// Below this many one-time key packages at the gateway more are published, up to the second number.
const KEY_PACKAGES_MIN: u32 = 20;
const KEY_PACKAGES_FULL: u32 = 50;
const RETRY_DELAY: Duration = Duration::from_secs(1);

pub(crate) type Call = Pin<Box<dyn Future<Output = CallDone> + Send>>;

/// A call that ended.
pub(crate) enum CallDone {
    Change { channel: ChannelId, intent: Box<Intent>, result: Result<Receipt, CallError> },
    KeyPackages(Result<(), ClientError>),
}

impl Drive {
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

    /// Publishes key packages in the background, one attempt at a time.
    pub(crate) fn replenish(&mut self) {
        if !std::mem::replace(&mut self.replenishing, true) {
            let (shared, connection) = (Arc::clone(&self.shared), self.connection.clone());
            self.calls.push(Box::pin(async move { CallDone::KeyPackages(replenish(&shared, &connection).await) }));
        }
    }

    pub(crate) async fn call_done(&mut self, done: CallDone) -> Result<(), ClientError> {
        match done {
            CallDone::Change { channel, intent, result } => {
                self.calling.remove(&intent.id);
                match result {
                    Ok(receipt) => self.change_accepted(channel, *intent, receipt).await,
                    Err(CallError::Refused(problem)) if !is_worth_repeating(&CallError::Refused(problem.clone())) => {
                        self.change_refused(channel, *intent, problem).await
                    }
                    // Unknown or busy: the same bytes under the same id again.
                    Err(_) => {
                        self.retries.insert(channel, self.shared.clock.monotonic().plus(RETRY_DELAY));
                        Ok(())
                    }
                }
            }
            CallDone::KeyPackages(result) => {
                self.replenishing = false;
                if let Err(error) = result {
                    tracing::warn!(error = %chain(&error), "key packages not published");
                }
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
        let (id, kind) = (intent.id, intent.kind);
        self.shared.transaction(move |tx, _| changes::accepted(tx, channel, &intent)).await?;
        match kind {
            IntentKind::Create => {
                self.follow(channel).await?;
                self.shared.waiters.settle(id, Ok(receipt));
            }
            IntentKind::Leave => self.shared.waiters.settle(id, Ok(receipt)),
            // Merged, and its caller told, when its own bytes come back.
            IntentKind::Commit => {}
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
        let (id, device) = (intent.id, self.shared.device.clone());
        let dropped = self.shared.transaction(move |tx, mls| {
            let dropped = changes::refused(tx, mls, channel, &intent)?;
            let (_, turn) = sync::standing(tx, mls, &device, channel)?;
            Ok(dropped.then_some(turn))
        });
        if let Some(turn) = dropped.await? {
            self.note_turn(channel, turn);
            self.shared.waiters.settle(id, Err(Failure::Refused(problem)));
            self.shared.bells.ring(&News::Channel(channel));
        }
        Ok(())
    }

    /// Commits the proposals that wait, unless an own commit is on its way or nothing waits any more.
    pub(crate) async fn commit_pending(&mut self, channel: ChannelId) -> Result<(), ClientError> {
        let (federation, id, device) = (self.shared.federation(), self.shared.id(), self.shared.device.clone());
        let staged = self.shared.transaction(move |tx, mls| {
            if sync::standing(tx, mls, &device, channel)?.1.is_none() {
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
        IntentKind::Leave => connection.leave(Leave { id, channel, proposal: part() }).await,
    };
    CallDone::Change { channel, intent: Box::new(intent), result }
}

/// Publishes key packages if the gateway has few left.
pub(crate) async fn replenish(shared: &Shared, connection: &Connection) -> Result<(), ClientError> {
    let count = connection.count().await?;
    let missing = if count.one_time < KEY_PACKAGES_MIN { KEY_PACKAGES_FULL - count.one_time } else { 0 };
    let last_resort = !count.last_resort;
    if missing == 0 && !last_resort {
        return Ok(());
    }
    let federation = shared.federation();
    let make =
        move |tx: &Transaction<'_>, mls: &Mls| Ok(mls.key_packages(tx, &federation, missing as usize, last_resort)?);
    let made = shared.transaction(make).await?;
    let publish = Publish {
        id: shared.id(),
        key_packages: made.one_time.into_iter().map(Into::into).collect(),
        last_resort: made.last_resort.map(Into::into),
    };
    connection.publish(publish).await?;
    Ok(())
}
