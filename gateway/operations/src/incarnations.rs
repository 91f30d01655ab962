//! The next incarnation of a channel whose group a commit has broken for good (PROTOCOL 2).

use std::sync::Arc;

use bytes::Bytes;
use lianxin_audit::{AuditEvent, Change};
use lianxin_identity::Caller;
use lianxin_store::Idempotency;
use lianxin_types::{ChannelId, IdempotencyId};

use crate::channels::ATTEMPTS_MAX;
use crate::gate::{Operations, Receipt};
use crate::guard::hash_of;
use crate::refusal::Refusal;

impl Operations {
    /// Starts the group that carries the channel on, without whoever made the commit that the caller has reported; or one in the
    /// place of that group, whose starter has seated nobody in time.
    ///
    /// # Errors
    /// [`Refusal`] as listed at `Channels.StartIncarnation` in the contract.
    pub async fn start_incarnation(
        &self,
        caller: &Caller,
        id: IdempotencyId,
        channel: ChannelId,
        group_info: Bytes,
        tree: Bytes,
    ) -> Result<Receipt, Refusal> {
        const ACTION: &str = "start-incarnation";
        let bytes_hash = hash_of([&group_info[..], &tree[..]]);
        let scope = Idempotency { device: caller.uri.clone(), channel: Some(channel), call: ACTION, id, bytes_hash };
        let (this, who, asked) = (self.clone(), caller.clone(), scope.clone());
        let start = async move { this.carry_on(&who, asked, channel, group_info, tree).await };
        let done = self.guard.to_the_end(start).await;
        self.answer(&scope, done, Receipt::again).await
    }

    async fn carry_on(
        &self,
        caller: &Caller,
        scope: Idempotency,
        channel: ChannelId,
        group_info: Bytes,
        tree: Bytes,
    ) -> Result<Receipt, Refusal> {
        if let Some(accepted) = self.guard.repeat(&scope)? {
            return Ok(Receipt::again(accepted));
        }
        for _ in 0..ATTEMPTS_MAX {
            let facts = self.facts(caller, channel).await?;
            let permit = self.guard.engine.start_incarnation(&self.request(caller, facts.as_ref()))?;
            let (guard, channels) = (Arc::clone(&self.guard), Arc::clone(&self.channels));
            let (uri, now) = (caller.uri.clone(), self.guard.now());
            let (info, tree) = (group_info.clone(), tree.clone());
            let verify = move || channels.verify_incarnation(&guard.federation(), &uri, &channel, (info, &tree), now);
            let prepared = self.guard.validate(&caller.uri, verify).await??;
            let event = AuditEvent::IncarnationStarted {
                incarnation: prepared.incarnation(),
                change: Change {
                    added: prepared.awaited().to_vec(),
                    removed: prepared.culprit().cloned().into_iter().collect(),
                },
            };
            let (slot, version) = (Some(prepared.slot()), permit.policy_version());
            match self.accept(scope.clone(), event, slot, version, prepared.into_write(&permit), Vec::new()).await {
                // A removal or a leave came to wait in between: who is not taken along is found out anew.
                Err(Refusal::PendingRemoves { .. }) => {}
                accepted => return Ok(Receipt::of(&accepted?, version)),
            }
        }
        Err(Refusal::ResourceExhausted)
    }
}
