//! Key packages: published by their owner, claimed by whoever may invite it.

use std::sync::Arc;

use bytes::Bytes;
use lianxin_audit::AuditEvent;
use lianxin_delivery::prepare_key_packages;
use lianxin_identity::Caller;
use lianxin_policy::Request;
use lianxin_store::{Accepted, Effect, Idempotency};
use lianxin_types::{ChannelId, DeviceUri, IdempotencyId};

use crate::gate::{Operations, Receipt};
use crate::guard::{hash_of, unit};
use crate::refusal::Refusal;

impl Operations {
    /// Stores key packages of the caller's own leaf.
    ///
    /// # Errors
    /// [`Refusal`] as listed at `KeyPackages.Publish` in the contract.
    pub async fn publish_key_packages(
        &self,
        caller: &Caller,
        id: IdempotencyId,
        one_time: Vec<Bytes>,
        last_resort: Option<Bytes>,
    ) -> Result<Receipt, Refusal> {
        const ACTION: &str = "publish-key-packages";
        // Which of them is the last resort is part of what is asked.
        let [first, second] =
            [hash_of(one_time.iter().map(|bytes| &bytes[..])), hash_of(last_resort.iter().map(|bytes| &bytes[..]))];
        let bytes_hash = hash_of([&first.0[..], &second.0[..]]);
        let scope = Idempotency { device: caller.uri.clone(), channel: None, call: ACTION, id, bytes_hash };
        let done = self.publish(caller, scope.clone(), one_time, last_resort).await;
        self.answer(&scope, done, Receipt::again).await
    }

    async fn publish(
        &self,
        caller: &Caller,
        scope: Idempotency,
        one_time: Vec<Bytes>,
        last_resort: Option<Bytes>,
    ) -> Result<Receipt, Refusal> {
        if let Some(accepted) = self.guard.repeat(&scope)? {
            return Ok(Receipt::again(accepted));
        }
        let permit = self.guard.engine.publish_key_packages(&self.request(caller, None))?;
        let event = AuditEvent::KeyPackagesPublished { one_time: one_time.len(), last_resort: last_resort.is_some() };
        let version = permit.policy_version();
        let (guard, now) = (Arc::clone(&self.guard), self.guard.now());
        let prepare = move || prepare_key_packages(&permit, &guard.federation(), &one_time, last_resort.as_ref(), now);
        let prepared = self.guard.validate(&caller.uri, prepare).await??;
        let audit = self.guard.record(&event, Some(&caller.uri), None, None, version)?;
        let accepted = self.guard.commit(unit(None, Some(scope), vec![prepared.effect], audit)).await?;
        Ok(Receipt::of(&accepted, version))
    }

    /// Takes one key package of each owner for the channel, all or none, in the owners' order.
    ///
    /// # Errors
    /// [`Refusal`] as listed at `KeyPackages.Claim` in the contract.
    pub async fn claim_key_packages(
        &self,
        caller: &Caller,
        id: IdempotencyId,
        channel: ChannelId,
        owners: Vec<DeviceUri>,
    ) -> Result<(Vec<Bytes>, Receipt), Refusal> {
        const ACTION: &str = "claim-key-packages";
        let bytes_hash = hash_of(owners.iter().map(|owner| owner.as_str().as_bytes()));
        let scope = Idempotency { device: caller.uri.clone(), channel: Some(channel), call: ACTION, id, bytes_hash };
        let (this, who, asked) = (self.clone(), caller.clone(), scope.clone());
        // To the end, so that a copy that comes over another connection still waits when this one is lost.
        let done = self.guard.to_the_end(async move { this.claim(&who, asked, channel, owners).await }).await;
        self.answer(&scope, done, claimed_again).await
    }

    async fn claim(
        &self,
        caller: &Caller,
        scope: Idempotency,
        channel: ChannelId,
        owners: Vec<DeviceUri>,
    ) -> Result<(Vec<Bytes>, Receipt), Refusal> {
        // Asking counts, so copies that come at once would be refused by the rate while the first is being committed.
        let _turn = self.guard.copies.take(&scope).await;
        if let Some(accepted) = self.guard.repeat(&scope)? {
            return Ok(claimed_again(accepted));
        }
        let facts = self.facts(caller, channel).await?;
        self.guard.claims.take(&caller.uri, owners.len(), self.guard.clock.monotonic())?;
        let departments: Vec<_> = owners.iter().map(|owner| owner.department().clone()).collect();
        let members = match self.guard.store.head(&channel)? {
            Some(head) => head.members.len(),
            None => 0,
        };
        let permit = self.guard.engine.claim_key_packages(&Request {
            departments_added: &departments,
            devices_added: owners.len(),
            members_after: members + owners.len(),
            ..self.request(caller, facts.as_ref())
        })?;
        let version = permit.policy_version();
        let event = AuditEvent::KeyPackagesClaimed { owners: owners.clone() };
        let audit = self.guard.record(&event, Some(&caller.uri), Some(channel), None, version)?;
        let department = caller.uri.department().clone();
        let effects = vec![Effect::ClaimKeyPackages { channel, department, owners }];
        let accepted = self.guard.commit(unit(None, Some(scope), effects, audit)).await?;
        let receipt = Receipt::of(&accepted, version);
        Ok((accepted.key_packages, receipt))
    }

    /// One-time packages of the caller that live on, and whether it has a last resort.
    ///
    /// # Errors
    /// [`Refusal::WrongKind`], [`Refusal::ZoneUnavailable`].
    pub async fn count_key_packages(&self, caller: &Caller) -> Result<(usize, bool), Refusal> {
        let permit = self.guard.engine.publish_key_packages(&self.request(caller, None));
        let permit = self.permitted(caller, "count-key-packages", None, permit).await?;
        let version = permit.policy_version();
        self.guard.record_read(AuditEvent::KeyPackagesCounted, &caller.uri, None, version).await?;
        let (store, device, now) = (Arc::clone(&self.guard.store), caller.uri.clone(), self.guard.now());
        Ok(self.guard.blocking(move || store.key_package_count(&device, now)).await??)
    }
}

/// What a repeated claim gets: the same packages.
fn claimed_again(accepted: Accepted) -> (Vec<Bytes>, Receipt) {
    let receipt = Receipt::of(&accepted, 0);
    (accepted.key_packages, receipt)
}
