//! What is in force changes while the gateway serves: on record first, then everywhere at once.

use lianxin_audit::AuditEvent;
use lianxin_delivery::RemovalKey;
use lianxin_trust::{Federation, VerifiedBundle};
use lianxin_types::{Digest, Writer, labelled_sha256};

use crate::gate::Operations;
use crate::guard::plain;
use crate::refusal::Refusal;

/// Which federation counts, as audit records name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustInForce {
    /// Version of the trust bundle.
    pub bundle_version: u64,
    /// Its digest.
    pub bundle_digest: Digest,
    /// SHA-256 over the revocation lists in the order of the bundle, each with its length in front.
    pub revocation_lists_digest: Digest,
}

impl TrustInForce {
    /// What `federation` is named by.
    pub fn of(federation: &Federation) -> Self {
        let mut lists = Writer::new();
        for list in federation.revocation_lists() {
            lists.bytes(list);
        }
        Self {
            bundle_version: federation.bundle().bundle.version,
            bundle_digest: federation.bundle().digest,
            revocation_lists_digest: labelled_sha256("lianxin/revocation-lists/v1", &[&lists.finish()]),
        }
    }
}

impl Operations {
    /// The federation in use.
    pub fn federation(&self) -> std::sync::Arc<Federation> {
        self.guard.federation()
    }

    /// Records that the gateway takes over another configuration or other files. Nothing may be taken over before.
    ///
    /// # Errors
    /// [`Refusal::ZoneUnavailable`] if it cannot be recorded; everything must stay as it is then.
    pub async fn reloaded(
        &self,
        configuration_digest_before: Digest,
        configuration_digest: Digest,
        trust: TrustInForce,
        changed: Vec<&'static str>,
    ) -> Result<(), Refusal> {
        let TrustInForce { bundle_version, bundle_digest, revocation_lists_digest } = trust;
        let event = AuditEvent::Reloaded {
            configuration_digest_before,
            configuration_digest,
            bundle_version,
            bundle_digest,
            revocation_lists_digest,
            changed,
        };
        let audit = self.guard.record(&event, None, None, None, 0)?;
        self.guard.commit(plain(audit)).await?;
        self.guard.statistics.reload();
        Ok(())
    }

    /// Records that a reload was refused and changed nothing; `keys` are those that need a restart.
    pub async fn reload_refused(&self, reason: &'static str, keys: Vec<&'static str>) {
        self.guard.statistics.reload_refusal();
        self.record_own(AuditEvent::ReloadRefused { reason, keys }).await;
    }

    /// Counts that bundle and revocation lists were read again without being told.
    pub fn trust_reread(&self) {
        self.guard.statistics.trust_reread();
    }

    /// Asks for removals with this key from now on; the federation that names it must follow at once.
    pub fn replace_removal_key(&self, removal_key: RemovalKey) {
        self.channels.replace_removal_key(removal_key);
    }

    /// Uses another federation from now on, to which `predecessors` (ascending) led. It must follow the one in use, and be on
    /// record.
    pub async fn replace_federation(&self, federation: Federation, predecessors: Vec<VerifiedBundle>) {
        self.guard.callers.replace(federation, predecessors);
        self.trust_changed().await;
    }

    /// What must be looked at again when bundle or revocation lists have changed. Leases and streams notice by themselves at
    /// their next step, since the generation of [`lianxin_identity::Callers`] has risen; what has no next step of its own
    /// belongs here.
    async fn trust_changed(&self) {
        let TrustInForce { bundle_version, .. } = TrustInForce::of(&self.guard.federation());
        tracing::info!(bundle_version, generation = self.guard.callers.generation(), "trust replaced");
    }
}
