//! What a client must know before it can take part.

use bytes::Bytes;
use lianxin_audit::AuditEvent;
use lianxin_identity::Caller;
use lianxin_types::{Digest, Timestamp};

use crate::gate::Operations;
use crate::refusal::Refusal;

/// What both ends agreed on, and the state of the federation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// The version that both speak.
    pub protocol_version: u32,
    /// Trust bundle in use.
    pub bundle_version: u64,
    /// SHA-256 of that bundle as signed.
    pub bundle_digest: Digest,
    /// The gateway's time.
    pub now: Timestamp,
}

/// The federation, as signed.
#[derive(Debug, Clone)]
pub struct Trust {
    /// The signed note.
    pub trust_bundle: Bytes,
    /// DER revocation lists.
    pub revocation_lists: Vec<Bytes>,
}

/// The protocol versions that this gateway speaks: one so far.
const PROTOCOL_VERSION: u32 = 1;

impl Operations {
    /// The first call on a connection.
    ///
    /// # Errors
    /// [`Refusal::UpgradeRequired`] if the client's highest version is older than the gateway speaks.
    pub async fn hello(&self, caller: &Caller, protocol_version_max: u32) -> Result<Agreement, Refusal> {
        if protocol_version_max < PROTOCOL_VERSION {
            let refusal = Refusal::UpgradeRequired { found: protocol_version_max };
            return Err(self.guard.refuse(&caller.uri, "hello", None, refusal).await);
        }
        let event = AuditEvent::SessionOpened { protocol_version: PROTOCOL_VERSION };
        self.guard.record_read(event, &caller.uri, None, 0).await?;
        Ok(self.agreement())
    }

    /// What a Receive stream says first.
    pub fn agreement(&self) -> Agreement {
        let federation = self.guard.federation();
        Agreement {
            protocol_version: PROTOCOL_VERSION,
            bundle_version: federation.bundle().bundle.version,
            bundle_digest: federation.bundle().digest,
            now: self.guard.now(),
        }
    }

    /// Trust bundle and revocation lists in use.
    ///
    /// # Errors
    /// [`Refusal::ZoneUnavailable`] if the read cannot be recorded.
    pub async fn trust(&self, caller: &Caller) -> Result<Trust, Refusal> {
        let permit = self.guard.engine.read_trust(&self.request(caller, None));
        let permit = self.permitted(caller, "read-trust", None, permit).await?;
        let version = permit.policy_version();
        self.guard.record_read(AuditEvent::TrustRead, &caller.uri, None, version).await?;
        let federation = self.guard.federation();
        Ok(Trust {
            trust_bundle: Bytes::copy_from_slice(&federation.bundle().note),
            revocation_lists: federation.revocation_lists().map(Bytes::copy_from_slice).collect(),
        })
    }
}
