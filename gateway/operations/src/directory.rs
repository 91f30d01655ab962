//! What a client must know before it can take part.

use bytes::Bytes;
use lianxin_audit::AuditEvent;
use lianxin_identity::Caller;
use lianxin_trust::VerifiedBundle;
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
    /// The signed notes of bundles that led to it, oldest first, as asked for.
    pub earlier_bundles: Vec<Bytes>,
}

/// Which of the earlier bundles a caller wants who has missed some (PROTOCOL 9), and how many it is given at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlierBundles {
    /// The version that it has; 0 for none of them.
    pub after: u64,
    /// Most of them in an answer.
    pub count_max: usize,
    /// Most bytes of them in an answer; one is given however large it is.
    pub bytes_max: usize,
}

impl EarlierBundles {
    /// The oldest of those asked for, of `predecessors` in ascending order.
    fn of(self, predecessors: &[VerifiedBundle]) -> Vec<Bytes> {
        if self.after == 0 {
            return Vec::new();
        }
        let missed = predecessors.iter().skip_while(|one| one.bundle.version <= self.after).take(self.count_max);
        let mut bytes = 0_usize;
        let fits = missed.enumerate().take_while(|(index, one)| {
            bytes = bytes.saturating_add(one.note.len());
            *index == 0 || bytes <= self.bytes_max
        });
        fits.map(|(_, one)| Bytes::copy_from_slice(&one.note)).collect()
    }
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

    /// Trust bundle and revocation lists in use, and the bundles that the caller has missed.
    ///
    /// # Errors
    /// [`Refusal::ZoneUnavailable`] if the read cannot be recorded.
    pub async fn trust(&self, caller: &Caller, earlier: EarlierBundles) -> Result<Trust, Refusal> {
        let permit = self.guard.engine.read_trust(&self.request(caller, None));
        let permit = self.permitted(caller, "read-trust", None, permit).await?;
        let version = permit.policy_version();
        self.guard.record_read(AuditEvent::TrustRead, &caller.uri, None, version).await?;
        let (federation, predecessors) = self.guard.callers.trust();
        Ok(Trust {
            trust_bundle: Bytes::copy_from_slice(&federation.bundle().note),
            revocation_lists: federation.revocation_lists().map(Bytes::copy_from_slice).collect(),
            earlier_bundles: earlier.of(&predecessors),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lianxin_certs_dev::{FederationPlan, mint};
    use lianxin_types::SystemClock;

    #[test]
    fn missed_bundles_are_given_oldest_first_and_within_both_bounds() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let minted = mint(&FederationPlan::default(), &folder.path().join("f"), &SystemClock).expect("mints");
        let bundle = minted.bundle().expect("signed");
        let predecessors: Vec<_> = (1..=5)
            .map(|version| {
                let mut one = bundle.clone();
                (one.bundle.version, one.note) = (version, vec![u8::try_from(version).expect("small"); 10]);
                one
            })
            .collect();
        let given = |after, count_max, bytes_max| -> Vec<u8> {
            let earlier = EarlierBundles { after, count_max, bytes_max }.of(&predecessors);
            earlier.iter().map(|note| note[0]).collect()
        };
        assert_eq!(given(1, 64, 1_000), [2, 3, 4, 5]);
        assert_eq!((given(0, 64, 1_000), given(5, 64, 1_000), given(u64::MAX, 64, 1_000)), (vec![], vec![], vec![]));
        assert_eq!(
            (given(1, 3, 1_000), given(1, 64, 30), given(1, 64, 29)),
            (vec![2, 3, 4], vec![2, 3, 4], vec![2, 3])
        );
        assert_eq!(given(2, 64, 1), [3], "one is given however large it is");
    }
}
