//! The second judge: mls-rs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lianxin_trust::{Federation, Usage};
use lianxin_types::Timestamp;
use mls_rs::error::IntoAnyError;
use mls_rs::extension::ExtensionType;
use mls_rs::external_client::builder::{ExternalBaseConfig, WithCryptoProvider, WithIdentityProvider};
use mls_rs::external_client::{ExternalClient, ExternalGroup, ExternalReceivedMessage};
use mls_rs::group::ExportedTree;
use mls_rs::identity::{Credential, CredentialType, SigningIdentity};
use mls_rs::mls_rs_codec::MlsEncode as _;
use mls_rs::time::MlsTime;
use mls_rs::{ExtensionList, IdentityProvider, MlsMessage};
use mls_rs_core::identity::MemberValidationContext;
use mls_rs_crypto_rustcrypto::RustCryptoProvider;

type Configured = WithIdentityProvider<Identities, WithCryptoProvider<RustCryptoProvider, ExternalBaseConfig>>;

/// mls-rs's view of a group.
#[derive(Clone)]
pub(crate) struct Second {
    group: ExternalGroup<Configured>,
    identities: Identities,
}

/// What both judges can say of a group.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) epoch: u64,
    pub(crate) tree: Vec<u8>,
    pub(crate) context: Vec<u8>,
    /// Leaf and signature key, ascending.
    pub(crate) members: Vec<(u32, Vec<u8>)>,
}

impl Second {
    pub(crate) fn start(
        federation: &Arc<Federation>,
        info: &[u8],
        tree: &[u8],
        now: Timestamp,
    ) -> Result<Self, String> {
        let identities = Identities { known: Arc::new(Mutex::new(Known::of(federation, now))) };
        let client: ExternalClient<Configured> = ExternalClient::builder()
            .extension_types([ExtensionType::new(0xF0A1), ExtensionType::new(0xF0A2)])
            .crypto_provider(RustCryptoProvider::default())
            .identity_provider(identities.clone())
            .build();
        let tree = ExportedTree::from_bytes(tree).map_err(text)?;
        let info = MlsMessage::from_bytes(info).map_err(text)?;
        let group = client.observe_group(info, Some(tree), Some(MlsTime::from(now.seconds()))).map_err(text)?;
        Ok(Self { group, identities })
    }

    /// The group behind a commit or with a proposal.
    pub(crate) fn judge(&self, bytes: &[u8], now: Timestamp) -> Result<Self, String> {
        self.identities.known().now = now;
        let mut next = self.clone();
        let message = MlsMessage::from_bytes(bytes).map_err(text)?;
        let taken = next.group.process_incoming_message_with_time(message, MlsTime::from(now.seconds()));
        match taken.map_err(text)? {
            ExternalReceivedMessage::Commit(_) | ExternalReceivedMessage::Proposal(_) => Ok(next),
            other => Err(format!("no handshake: {}", text(other).chars().take(40).collect::<String>())),
        }
    }

    pub(crate) fn learn(&self, federation: &Arc<Federation>) {
        self.identities.known().federation = Arc::clone(federation);
    }

    pub(crate) fn seen(&self) -> Seen {
        let context = self.group.group_context();
        let members = self.group.roster().members_iter();
        Seen {
            epoch: context.epoch,
            tree: self.group.export_tree().expect("a tree that it holds"),
            context: context.mls_encode_to_vec().expect("a context that it holds"),
            members: members.map(|one| (one.index, one.signing_identity.signature_key.to_vec())).collect(),
        }
    }
}

fn text(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

/// Certificates as our profile wants them; mls-rs asks its caller.
#[derive(Clone)]
struct Identities {
    known: Arc<Mutex<Known>>,
}

struct Known {
    federation: Arc<Federation>,
    /// Of the handshake that is judged: mls-rs does not hand it on everywhere.
    now: Timestamp,
    /// Whom the certificates name that were valid once. mls-rs asks again for every leaf that is there, also for one whose
    /// certificate is revoked by now and that is to be removed.
    named: HashMap<Vec<u8>, Vec<u8>>,
}

impl Known {
    fn of(federation: &Arc<Federation>, now: Timestamp) -> Self {
        Self { federation: Arc::clone(federation), now, named: HashMap::new() }
    }
}

#[derive(Debug)]
struct NotOurs;

impl IntoAnyError for NotOurs {}

impl Identities {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The certificate holds, and for this key.
    fn valid(&self, identity: &SigningIdentity) -> Result<Vec<u8>, NotOurs> {
        let Credential::X509(chain) = &identity.credential else { return Err(NotOurs) };
        let chain: Vec<&[u8]> = chain.iter().map(|one| &one[..]).collect();
        let mut known = self.known();
        let found = known.federation.identify(&chain, Usage::Mls, known.now).map_err(|_| NotOurs)?;
        if found.public_key != identity.signature_key.to_vec() {
            return Err(NotOurs);
        }
        let name = found.uri.as_str().as_bytes().to_vec();
        known.named.insert(chain.concat(), name.clone());
        Ok(name)
    }

    fn name(&self, identity: &SigningIdentity) -> Result<Vec<u8>, NotOurs> {
        let Credential::X509(chain) = &identity.credential else { return Err(NotOurs) };
        let bytes: Vec<u8> = chain.iter().flat_map(|one| one.to_vec()).collect();
        let known = self.known().named.get(&bytes).cloned();
        known.map_or_else(|| self.valid(identity), Ok)
    }
}

impl IdentityProvider for Identities {
    type Error = NotOurs;

    fn validate_member(
        &self,
        identity: &SigningIdentity,
        _time: Option<MlsTime>,
        _context: MemberValidationContext<'_>,
    ) -> Result<(), NotOurs> {
        self.valid(identity).map(drop)
    }

    fn validate_external_sender(
        &self,
        _identity: &SigningIdentity,
        _time: Option<MlsTime>,
        _extensions: Option<&ExtensionList>,
    ) -> Result<(), NotOurs> {
        Ok(())
    }

    fn identity(&self, identity: &SigningIdentity, _extensions: &ExtensionList) -> Result<Vec<u8>, NotOurs> {
        self.name(identity)
    }

    fn valid_successor(
        &self,
        before: &SigningIdentity,
        after: &SigningIdentity,
        _extensions: &ExtensionList,
    ) -> Result<bool, NotOurs> {
        Ok(self.name(before)? == self.valid(after)? && before.signature_key == after.signature_key)
    }

    fn supported_types(&self) -> Vec<CredentialType> {
        vec![CredentialType::X509, CredentialType::BASIC]
    }
}
