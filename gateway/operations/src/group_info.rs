//! The GroupInfo that a channel serves, replaced by a member.

use std::sync::Arc;

use bytes::Bytes;
use lianxin_audit::AuditEvent;
use lianxin_identity::Caller;
use lianxin_store::Idempotency;
use lianxin_types::{ChannelId, Digest, IdempotencyId};

use crate::gate::{Operations, Receipt};
use crate::guard::unit;
use crate::refusal::Refusal;

impl Operations {
    /// Puts another GroupInfo of the current epoch in the place of the one that is served.
    ///
    /// # Errors
    /// [`Refusal`] as listed at `Channels.ReplaceGroupInfo` in the contract.
    pub async fn replace_group_info(
        &self,
        caller: &Caller,
        id: IdempotencyId,
        channel: ChannelId,
        group_info: Bytes,
    ) -> Result<Receipt, Refusal> {
        const ACTION: &str = "replace-group-info";
        let bytes_hash = Digest::sha256(&group_info);
        let scope = Idempotency { device: caller.uri.clone(), channel: Some(channel), call: ACTION, id, bytes_hash };
        let done = self.replace(caller, scope.clone(), channel, group_info).await;
        self.answer(&scope, done, Receipt::again).await
    }

    async fn replace(
        &self,
        caller: &Caller,
        scope: Idempotency,
        channel: ChannelId,
        group_info: Bytes,
    ) -> Result<Receipt, Refusal> {
        if let Some(accepted) = self.guard.repeat(&scope)? {
            return Ok(Receipt::again(accepted));
        }
        let facts = self.facts(caller, channel).await?;
        let permit = self.guard.engine.replace_group_info(&self.request(caller, facts.as_ref()))?;
        let version = permit.policy_version();
        let (guard, channels) = (Arc::clone(&self.guard), Arc::clone(&self.channels));
        let verify = move || channels.verify_group_info(&guard.federation(), &permit, group_info);
        let effect = self.guard.validate(&caller.uri, verify).await??;
        let event = AuditEvent::GroupInfoReplaced { epoch: effect.epoch() };
        let audit = self.guard.record(&event, Some(&caller.uri), Some(channel), None, version)?;
        let accepted = self.guard.commit(unit(None, Some(scope), vec![effect.into_effect()], audit)).await?;
        Ok(Receipt::of(&accepted, version))
    }
}
