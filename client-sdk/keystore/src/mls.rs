//! openmls's storage provider over the table `mls(kind, key, value)`: keys hashed, values sealed, CBOR inside. CBOR because
//! openmls needs a codec that describes itself (facts/mls.md, storage provider effort).

use std::any::Any;

use openmls_traits::storage::{CURRENT_VERSION, StorageProvider, traits};
use rusqlite::{Connection, OptionalExtension as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::KeystoreError;
use crate::kept::Kept;
use crate::seal::{Place, Sealer};

/// Where a group's state lies: two groups with one id can lie side by side, the one in use and the one that is to take its
/// place. Key packages lie on the first shelf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shelf {
    /// Where a group lies after its start or a Welcome.
    First,
    /// The other one.
    Second,
}

impl Shelf {
    /// Part of each row's lookup key and of what its seal binds: stored, so never renamed.
    const fn table(self) -> &'static str {
        match self {
            Self::First => "mls",
            Self::Second => "mls-second",
        }
    }

    /// The shelf that this one is not.
    pub const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// Names of the values in the database: stored, so never renamed.
mod kind {
    pub(super) const JOIN_CONFIG: &str = "join-config";
    pub(super) const OWN_LEAF_NODES: &str = "own-leaf-nodes";
    pub(super) const PROPOSAL_REFS: &str = "proposal-refs";
    pub(super) const PROPOSAL: &str = "proposal";
    pub(super) const TREE: &str = "tree";
    pub(super) const TRANSCRIPT: &str = "interim-transcript-hash";
    pub(super) const CONTEXT: &str = "group-context";
    pub(super) const CONFIRMATION: &str = "confirmation-tag";
    pub(super) const STATE: &str = "group-state";
    pub(super) const MESSAGE_SECRETS: &str = "message-secrets";
    pub(super) const RESUMPTION: &str = "resumption-psks";
    pub(super) const OWN_LEAF_INDEX: &str = "own-leaf-index";
    pub(super) const EPOCH_SECRETS: &str = "epoch-secrets";
    pub(super) const SIGNATURE_KEYS: &str = "signature-key-pair";
    pub(super) const ENCRYPTION_KEYS: &str = "encryption-key-pair";
    pub(super) const EPOCH_KEYS: &str = "epoch-key-pairs";
    pub(super) const KEY_PACKAGE: &str = "key-package";
    pub(super) const PSK: &str = "psk";
}

/// MLS state inside one transaction. On any error drop the in-memory group: it is ahead of the disk.
pub struct MlsStorage<'a> {
    connection: &'a Connection,
    sealer: &'a Sealer,
    kept: &'a Kept,
    table: &'static str,
}

impl<'a> MlsStorage<'a> {
    pub(crate) const fn new(connection: &'a Connection, sealer: &'a Sealer, kept: &'a Kept, shelf: Shelf) -> Self {
        Self { connection, sealer, kept, table: shelf.table() }
    }

    /// Takes out what [`MlsStorage::keep`] kept for a group: what the rows would give if they were read. `None` if nothing
    /// was kept, or not of this type; if a row whose key is `group` was written or deleted since; if the transaction of then
    /// or a later one was not committed.
    ///
    /// # Errors
    /// [`KeystoreError::Encode`].
    pub fn kept<V: Any>(&self, group: &impl Serialize) -> Result<Option<V>, KeystoreError> {
        Ok(self.kept.take(self.table, &encode(kind::STATE, group)?))
    }

    /// Keeps a group's in-memory form for whoever needs the group next, in this transaction or a later one. Only for a value
    /// of which everything is in the rows by now, and nothing else: never after an error.
    ///
    /// # Errors
    /// [`KeystoreError::Encode`].
    pub fn keep<V: Any + Send>(&self, group: &impl Serialize, value: V) -> Result<(), KeystoreError> {
        self.kept.put(self.table, encode(kind::STATE, group)?, value);
        Ok(())
    }

    /// How many key packages have their private keys here.
    ///
    /// # Errors
    /// [`KeystoreError::Database`].
    pub fn key_package_count(&self) -> Result<u64, KeystoreError> {
        let mut statement = self.connection.prepare_cached("SELECT COUNT(*) FROM mls WHERE kind = ?1")?;
        let count = statement.query_row([kind::KEY_PACKAGE], |row| row.get::<_, i64>(0))?;
        u64::try_from(count).map_err(|_| KeystoreError::Tampered { kind: kind::KEY_PACKAGE })
    }

    fn write(&self, kind: &'static str, key: &impl Serialize, value: &impl Serialize) -> Result<(), KeystoreError> {
        let lookup = self.changing(kind, key)?;
        let plain = Zeroizing::new(encode(kind, value)?);
        let sealed = self.sealer.seal(Place { table: self.table, kind, key: &lookup, position: 0 }, &plain)?;
        let sql = "INSERT OR REPLACE INTO mls (kind, key, value) VALUES (?1, ?2, ?3)";
        self.connection.prepare_cached(sql)?.execute((kind, lookup, sealed))?;
        Ok(())
    }

    fn read<V: DeserializeOwned>(&self, kind: &'static str, key: &impl Serialize) -> Result<Option<V>, KeystoreError> {
        let lookup = self.lookup(kind, key)?;
        let mut statement = self.connection.prepare_cached("SELECT value FROM mls WHERE kind = ?1 AND key = ?2")?;
        let stored = statement.query_row((kind, lookup), |row| row.get::<_, Vec<u8>>(0)).optional()?;
        let Some(stored) = stored else { return Ok(None) };
        let plain = self.sealer.open(Place { table: self.table, kind, key: &lookup, position: 0 }, &stored)?;
        decode(kind, &Zeroizing::new(plain)).map(Some)
    }

    fn read_list<V: DeserializeOwned>(
        &self,
        kind: &'static str,
        key: &impl Serialize,
    ) -> Result<Vec<V>, KeystoreError> {
        Ok(self.read(kind, key)?.unwrap_or_default())
    }

    fn delete(&self, kind: &'static str, key: &impl Serialize) -> Result<(), KeystoreError> {
        let lookup = self.changing(kind, key)?;
        let mut statement = self.connection.prepare_cached("DELETE FROM mls WHERE kind = ?1 AND key = ?2")?;
        statement.execute((kind, lookup))?;
        Ok(())
    }

    /// The place of a row that is about to change.
    fn changing(&self, kind: &'static str, key: &impl Serialize) -> Result<[u8; 32], KeystoreError> {
        let key = Zeroizing::new(encode(kind, key)?);
        self.kept.forget(self.table, &key);
        Ok(self.sealer.lookup(self.table, kind, &key))
    }

    fn lookup(&self, kind: &'static str, key: &impl Serialize) -> Result<[u8; 32], KeystoreError> {
        Ok(self.sealer.lookup(self.table, kind, &Zeroizing::new(encode(kind, key)?)))
    }
}

fn encode(kind: &'static str, value: &impl Serialize) -> Result<Vec<u8>, KeystoreError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).map_err(|_| KeystoreError::Encode { kind })?;
    Ok(bytes)
}

fn decode<V: DeserializeOwned>(kind: &'static str, bytes: &[u8]) -> Result<V, KeystoreError> {
    ciborium::from_reader(bytes).map_err(|_| KeystoreError::Decode { kind })
}

// One line each: method<type parameters in openmls's order>(key type, value type) and the kind stored.
macro_rules! writes {
    ($($method:ident<$a:ident, $b:ident>($key:ident, $value:ident) $kind:ident;)*) => {$(
        fn $method<$a: traits::$a<CURRENT_VERSION>, $b: traits::$b<CURRENT_VERSION>>(
            &self, key: &$key, value: &$value,
        ) -> Result<(), KeystoreError> {
            self.write(kind::$kind, key, value)
        }
    )*};
}

macro_rules! reads {
    ($($method:ident<$a:ident, $b:ident>($key:ident) $value:ident $kind:ident;)*) => {$(
        fn $method<$a: traits::$a<CURRENT_VERSION>, $b: traits::$b<CURRENT_VERSION>>(
            &self, key: &$key,
        ) -> Result<Option<$value>, KeystoreError> {
            self.read(kind::$kind, key)
        }
    )*};
}

macro_rules! deletes {
    ($($method:ident<$key:ident> $kind:ident;)*) => {$(
        fn $method<$key: traits::$key<CURRENT_VERSION>>(&self, key: &$key) -> Result<(), KeystoreError> {
            self.delete(kind::$kind, key)
        }
    )*};
}

impl StorageProvider<CURRENT_VERSION> for MlsStorage<'_> {
    type Error = KeystoreError;

    writes! {
        write_mls_join_config<GroupId, MlsGroupJoinConfig>(GroupId, MlsGroupJoinConfig) JOIN_CONFIG;
        write_tree<GroupId, TreeSync>(GroupId, TreeSync) TREE;
        write_interim_transcript_hash<GroupId, InterimTranscriptHash>(GroupId, InterimTranscriptHash) TRANSCRIPT;
        write_context<GroupId, GroupContext>(GroupId, GroupContext) CONTEXT;
        write_confirmation_tag<GroupId, ConfirmationTag>(GroupId, ConfirmationTag) CONFIRMATION;
        write_group_state<GroupState, GroupId>(GroupId, GroupState) STATE;
        write_message_secrets<GroupId, MessageSecrets>(GroupId, MessageSecrets) MESSAGE_SECRETS;
        write_resumption_psk_store<GroupId, ResumptionPskStore>(GroupId, ResumptionPskStore) RESUMPTION;
        write_own_leaf_index<GroupId, LeafNodeIndex>(GroupId, LeafNodeIndex) OWN_LEAF_INDEX;
        write_group_epoch_secrets<GroupId, GroupEpochSecrets>(GroupId, GroupEpochSecrets) EPOCH_SECRETS;
        write_signature_key_pair<SignaturePublicKey, SignatureKeyPair>(SignaturePublicKey, SignatureKeyPair) SIGNATURE_KEYS;
        write_encryption_key_pair<EncryptionKey, HpkeKeyPair>(EncryptionKey, HpkeKeyPair) ENCRYPTION_KEYS;
        write_key_package<HashReference, KeyPackage>(HashReference, KeyPackage) KEY_PACKAGE;
        write_psk<PskId, PskBundle>(PskId, PskBundle) PSK;
    }

    reads! {
        mls_group_join_config<GroupId, MlsGroupJoinConfig>(GroupId) MlsGroupJoinConfig JOIN_CONFIG;
        tree<GroupId, TreeSync>(GroupId) TreeSync TREE;
        group_context<GroupId, GroupContext>(GroupId) GroupContext CONTEXT;
        interim_transcript_hash<GroupId, InterimTranscriptHash>(GroupId) InterimTranscriptHash TRANSCRIPT;
        confirmation_tag<GroupId, ConfirmationTag>(GroupId) ConfirmationTag CONFIRMATION;
        group_state<GroupState, GroupId>(GroupId) GroupState STATE;
        message_secrets<GroupId, MessageSecrets>(GroupId) MessageSecrets MESSAGE_SECRETS;
        resumption_psk_store<GroupId, ResumptionPskStore>(GroupId) ResumptionPskStore RESUMPTION;
        own_leaf_index<GroupId, LeafNodeIndex>(GroupId) LeafNodeIndex OWN_LEAF_INDEX;
        group_epoch_secrets<GroupId, GroupEpochSecrets>(GroupId) GroupEpochSecrets EPOCH_SECRETS;
        signature_key_pair<SignaturePublicKey, SignatureKeyPair>(SignaturePublicKey) SignatureKeyPair SIGNATURE_KEYS;
        encryption_key_pair<HpkeKeyPair, EncryptionKey>(EncryptionKey) HpkeKeyPair ENCRYPTION_KEYS;
        key_package<HashReference, KeyPackage>(HashReference) KeyPackage KEY_PACKAGE;
        psk<PskBundle, PskId>(PskId) PskBundle PSK;
    }

    deletes! {
        delete_own_leaf_nodes<GroupId> OWN_LEAF_NODES;
        delete_group_config<GroupId> JOIN_CONFIG;
        delete_tree<GroupId> TREE;
        delete_confirmation_tag<GroupId> CONFIRMATION;
        delete_group_state<GroupId> STATE;
        delete_context<GroupId> CONTEXT;
        delete_interim_transcript_hash<GroupId> TRANSCRIPT;
        delete_message_secrets<GroupId> MESSAGE_SECRETS;
        delete_all_resumption_psk_secrets<GroupId> RESUMPTION;
        delete_own_leaf_index<GroupId> OWN_LEAF_INDEX;
        delete_group_epoch_secrets<GroupId> EPOCH_SECRETS;
        delete_signature_key_pair<SignaturePublicKey> SIGNATURE_KEYS;
        delete_encryption_key_pair<EncryptionKey> ENCRYPTION_KEYS;
        delete_key_package<HashReference> KEY_PACKAGE;
        delete_psk<PskId> PSK;
    }

    fn append_own_leaf_node<GroupId, LeafNode>(&self, group: &GroupId, node: &LeafNode) -> Result<(), KeystoreError>
    where
        GroupId: traits::GroupId<CURRENT_VERSION>,
        LeafNode: traits::LeafNode<CURRENT_VERSION>,
    {
        let nodes: Vec<LeafNode> = self.read_list(kind::OWN_LEAF_NODES, group)?;
        let all: Vec<&LeafNode> = nodes.iter().chain([node]).collect();
        self.write(kind::OWN_LEAF_NODES, group, &all)
    }

    fn own_leaf_nodes<GroupId, LeafNode>(&self, group: &GroupId) -> Result<Vec<LeafNode>, KeystoreError>
    where
        GroupId: traits::GroupId<CURRENT_VERSION>,
        LeafNode: traits::LeafNode<CURRENT_VERSION>,
    {
        self.read_list(kind::OWN_LEAF_NODES, group)
    }

    fn queue_proposal<GroupId, ProposalRef, QueuedProposal>(
        &self,
        group: &GroupId,
        reference: &ProposalRef,
        proposal: &QueuedProposal,
    ) -> Result<(), KeystoreError>
    where
        GroupId: traits::GroupId<CURRENT_VERSION>,
        ProposalRef: traits::ProposalRef<CURRENT_VERSION>,
        QueuedProposal: traits::QueuedProposal<CURRENT_VERSION>,
    {
        let encoded = encode(kind::PROPOSAL_REFS, reference)?;
        let mut references: Vec<Vec<u8>> = self.read_list(kind::PROPOSAL_REFS, group)?;
        if !references.contains(&encoded) {
            references.push(encoded);
            self.write(kind::PROPOSAL_REFS, group, &references)?;
        }
        self.write(kind::PROPOSAL, &(group, reference), proposal)
    }

    fn queued_proposal_refs<GroupId, ProposalRef>(&self, group: &GroupId) -> Result<Vec<ProposalRef>, KeystoreError>
    where
        GroupId: traits::GroupId<CURRENT_VERSION>,
        ProposalRef: traits::ProposalRef<CURRENT_VERSION>,
    {
        let references: Vec<Vec<u8>> = self.read_list(kind::PROPOSAL_REFS, group)?;
        references.iter().map(|encoded| decode(kind::PROPOSAL_REFS, encoded)).collect()
    }

    fn queued_proposals<GroupId, ProposalRef, QueuedProposal>(
        &self,
        group: &GroupId,
    ) -> Result<Vec<(ProposalRef, QueuedProposal)>, KeystoreError>
    where
        GroupId: traits::GroupId<CURRENT_VERSION>,
        ProposalRef: traits::ProposalRef<CURRENT_VERSION>,
        QueuedProposal: traits::QueuedProposal<CURRENT_VERSION>,
    {
        let references = self.queued_proposal_refs::<GroupId, ProposalRef>(group)?;
        let mut proposals = Vec::with_capacity(references.len());
        for reference in references {
            let stored = self.read(kind::PROPOSAL, &(group, &reference))?;
            let proposal = stored.ok_or(KeystoreError::Tampered { kind: kind::PROPOSAL })?;
            proposals.push((reference, proposal));
        }
        Ok(proposals)
    }

    fn remove_proposal<GroupId, ProposalRef>(
        &self,
        group: &GroupId,
        reference: &ProposalRef,
    ) -> Result<(), KeystoreError>
    where
        GroupId: traits::GroupId<CURRENT_VERSION>,
        ProposalRef: traits::ProposalRef<CURRENT_VERSION>,
    {
        let encoded = encode(kind::PROPOSAL_REFS, reference)?;
        let mut references: Vec<Vec<u8>> = self.read_list(kind::PROPOSAL_REFS, group)?;
        references.retain(|other| *other != encoded);
        self.write(kind::PROPOSAL_REFS, group, &references)?;
        self.delete(kind::PROPOSAL, &(group, reference))
    }

    fn clear_proposal_queue<GroupId, ProposalRef>(&self, group: &GroupId) -> Result<(), KeystoreError>
    where
        GroupId: traits::GroupId<CURRENT_VERSION>,
        ProposalRef: traits::ProposalRef<CURRENT_VERSION>,
    {
        for reference in self.queued_proposal_refs::<GroupId, ProposalRef>(group)? {
            self.delete(kind::PROPOSAL, &(group, &reference))?;
        }
        self.delete(kind::PROPOSAL_REFS, group)
    }

    fn write_encryption_epoch_key_pairs<GroupId, EpochKey, HpkeKeyPair>(
        &self,
        group: &GroupId,
        epoch: &EpochKey,
        leaf_index: u32,
        key_pairs: &[HpkeKeyPair],
    ) -> Result<(), KeystoreError>
    where
        GroupId: traits::GroupId<CURRENT_VERSION>,
        EpochKey: traits::EpochKey<CURRENT_VERSION>,
        HpkeKeyPair: traits::HpkeKeyPair<CURRENT_VERSION>,
    {
        self.write(kind::EPOCH_KEYS, &(group, epoch, leaf_index), &key_pairs)
    }

    fn encryption_epoch_key_pairs<GroupId, EpochKey, HpkeKeyPair>(
        &self,
        group: &GroupId,
        epoch: &EpochKey,
        leaf_index: u32,
    ) -> Result<Vec<HpkeKeyPair>, KeystoreError>
    where
        GroupId: traits::GroupId<CURRENT_VERSION>,
        EpochKey: traits::EpochKey<CURRENT_VERSION>,
        HpkeKeyPair: traits::HpkeKeyPair<CURRENT_VERSION>,
    {
        self.read_list(kind::EPOCH_KEYS, &(group, epoch, leaf_index))
    }

    fn delete_encryption_epoch_key_pairs<GroupId, EpochKey>(
        &self,
        group: &GroupId,
        epoch: &EpochKey,
        leaf_index: u32,
    ) -> Result<(), KeystoreError>
    where
        GroupId: traits::GroupId<CURRENT_VERSION>,
        EpochKey: traits::EpochKey<CURRENT_VERSION>,
    {
        self.delete(kind::EPOCH_KEYS, &(group, epoch, leaf_index))
    }
}
