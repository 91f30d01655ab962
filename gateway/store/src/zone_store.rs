//! What an engine promises to everything above it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use lianxin_tlog::{Audience, EventKind, Head, LEAF_BYTES};
use lianxin_types::{ChannelId, DeviceUri, Digest, Epoch, IdempotencyId, Incarnation, Sequence, Timestamp, ZoneId};
use thiserror::Error;
use tokio::sync::broadcast;

use crate::commit_figures::{CommitFigures, CommitMeter};
use crate::engine::Room;
use crate::unit::{Accepted, GroupEpoch, Idempotency, Outcome, Unit};

/// Outcomes in the order of the units.
pub type CommitFuture = Pin<Box<dyn Future<Output = Vec<Outcome>> + Send>>;

/// Number of the first bucket that must stay.
pub type DropFuture = Pin<Box<dyn Future<Output = Result<u64, StoreError>> + Send>>;

/// One zone's log and state. There is no generic put: the only way to change log state is [`ZoneStore::commit_many`].
///
/// Reads see everything that was acknowledged before they began. They may touch the disk: call them where blocking for a
/// few milliseconds is allowed.
pub trait ZoneStore: Send + Sync + 'static {
    /// The zone.
    fn zone(&self) -> &ZoneId;

    /// What this engine promises; callers branch on it, never on an engine's name.
    fn caps(&self) -> Caps;

    /// Commits independent units with one durability point. An accepted unit is durable and readable when the future is
    /// ready. Order inside a channel is the order of the units and of the calls; a refused unit fails alone.
    /// Dropping the future does not take the units back.
    fn commit_many(&self, units: Vec<Unit>) -> CommitFuture;

    /// What an earlier unit with this scope and id got; `Ok(None)` if there was none.
    ///
    /// # Errors
    /// [`StoreError`] if the state cannot be read. The inner result is `Err(IdReused)` for other bytes.
    fn repeat(&self, scope: &Idempotency) -> Result<Option<Outcome>, StoreError>;

    /// Epoch, head and members of a channel; `None` if there is no such channel.
    ///
    /// # Errors
    /// [`StoreError`] if the zone is unavailable.
    fn head(&self, channel: &ChannelId) -> Result<Option<Arc<ChannelHead>>, StoreError>;

    /// Events behind `after`, ascending and dense, at most `events_max` and about `bytes_max` (one event always fits). Where
    /// buckets were dropped the page begins at [`Page::first_retained`]. An unknown channel gives an empty page.
    ///
    /// # Errors
    /// [`StoreError`] if the zone is unavailable or a stored record is damaged.
    fn read(
        &self,
        channel: &ChannelId,
        after: Sequence,
        events_max: usize,
        bytes_max: usize,
    ) -> Result<Page, StoreError>;

    /// Chain hash of a channel at `sequence`; `None` if the journal has no such event or has dropped it. Sequence 0 is the start.
    ///
    /// # Errors
    /// [`StoreError`] if the zone is unavailable or a stored record is damaged.
    fn chain_at(&self, channel: &ChannelId, sequence: Sequence) -> Result<Option<Digest>, StoreError>;

    /// Committed events in journal order, at most once each, as they happen. A receiver that lags is told so by the channel
    /// and reads what it missed.
    fn tail(&self) -> broadcast::Receiver<Arc<StoredEvent>>;

    /// Channels that the device is a member of, ascending by id, behind `after`, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`] if the zone is unavailable.
    fn channels_of(
        &self,
        device: &DeviceUri,
        after: Option<&ChannelId>,
        limit: usize,
    ) -> Result<Vec<ChannelId>, StoreError>;

    /// All channels of the zone, ascending by id, behind `after`, at most `limit`: for what the gateway does on its own
    /// account.
    ///
    /// # Errors
    /// [`StoreError`] if the zone is unavailable or a stored record is damaged.
    fn channels(&self, after: Option<&ChannelId>, limit: usize) -> Result<Vec<ChannelId>, StoreError>;

    /// Unconfirmed inbox entries behind `after`, ascending, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`] if the zone is unavailable or a stored record is damaged.
    fn inbox(&self, device: &DeviceUri, after: u64, limit: usize) -> Result<Vec<InboxEntry>, StoreError>;

    /// The public tree that goes with the Welcome made at `sequence`; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError`] if the zone is unavailable or a stored record is damaged.
    fn welcome_tree(&self, channel: &ChannelId, sequence: Sequence) -> Result<Option<Bytes>, StoreError>;

    /// The GroupInfo of the current epoch.
    ///
    /// # Errors
    /// [`StoreError`] if the zone is unavailable or a stored record is damaged.
    fn group_info(&self, channel: &ChannelId) -> Result<Option<Bytes>, StoreError>;

    /// The newest stored view of the channel's group; events behind its sequence must be applied to it.
    ///
    /// # Errors
    /// [`StoreError`] if the zone is unavailable or a stored record is damaged.
    fn group_snapshot(&self, channel: &ChannelId) -> Result<Option<GroupSnapshot>, StoreError>;

    /// Replaces the stored view of the channel's group if `snapshot` is newer. Lazy: not durable when it returns, and never
    /// the only copy, since the journal has an older one and every commit since.
    ///
    /// # Errors
    /// [`StoreError`] if the zone is unavailable.
    fn put_group_snapshot(&self, channel: &ChannelId, snapshot: GroupSnapshot) -> Result<(), StoreError>;

    /// Whether the one-time key package was claimed for this channel and not used yet.
    ///
    /// # Errors
    /// [`StoreError`] if the zone is unavailable.
    fn is_claimed(&self, channel: &ChannelId, reference: &Digest) -> Result<bool, StoreError>;

    /// One-time packages of the device that live on at `now`, and whether it has a last resort.
    ///
    /// # Errors
    /// [`StoreError`] if the zone is unavailable.
    fn key_package_count(&self, owner: &DeviceUri, now: Timestamp) -> Result<(usize, bool), StoreError>;

    /// Whether `reference` is the owner's last resort.
    ///
    /// # Errors
    /// [`StoreError`] if the zone is unavailable.
    fn is_last_resort(&self, owner: &DeviceUri, reference: &Digest) -> Result<bool, StoreError>;

    /// Whether `reporter` has reported the channel's commit at `commit`.
    ///
    /// # Errors
    /// [`StoreError`] if the zone is unavailable.
    fn has_reported(&self, channel: &ChannelId, commit: Sequence, reporter: &DeviceUri) -> Result<bool, StoreError>;

    /// Raises the device's cursors; lower values change nothing. Lazy: losing one only means a second delivery.
    ///
    /// # Errors
    /// [`StoreError`] if the zone is unavailable.
    fn cursor_merge(&self, device: &DeviceUri, cursors: &[(ChannelId, Sequence)]) -> Result<(), StoreError>;

    /// The device's cursor in a channel; 0 if there is none.
    ///
    /// # Errors
    /// [`StoreError`] if the zone is unavailable.
    fn cursor(&self, device: &DeviceUri, channel: &ChannelId) -> Result<Sequence, StoreError>;

    /// Audit records from `from` on, ascending without gaps, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`] if the zone is unavailable or a stored record is damaged.
    fn audit_read(&self, from: u64, limit: usize) -> Result<Vec<AuditRecord>, StoreError>;

    /// Writes a snapshot of the whole state into the newest bucket and waits until what outlives the closed buckets has been
    /// copied. Gives the number that `Effect::DropBuckets` may name then: all buckets below it may go. 0 if none may.
    fn prepare_drop(&self) -> DropFuture;

    /// How the zone is.
    fn health(&self) -> Health;
}

/// What an engine promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// When an acknowledgement is given.
    pub durability: Durability,
}

/// From weakest to strongest. The gateway refuses to start below [`Durability::LocalSync`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Gone with the process: for conformance and simulation.
    Process,
    /// `fdatasync` on the local disk.
    LocalSync,
}

/// A channel as the committer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelHead {
    /// Which of its groups carries it.
    pub incarnation: Incarnation,
    /// Current epoch of that group.
    pub epoch: Epoch,
    /// Last event.
    pub head: Head,
    /// Sequence of the event that began the current epoch.
    pub epoch_sequence: Sequence,
    /// Label of the channel's events.
    pub label_reference: Digest,
    /// Members of the current epoch.
    pub members: BTreeMap<DeviceUri, Member>,
    /// Who sat in the group before this one and is to be seated again, and since when it is in the channel. It may read the log
    /// meanwhile.
    pub awaited: BTreeMap<DeviceUri, Sequence>,
    /// Members whose Remove waits for a commit.
    pub leaving: Vec<DeviceUri>,
    /// Sequence of the last waiting proposal; 0 if none waits.
    pub proposal_sequence: Sequence,
    /// Sequence of the last waiting proposal that removes a member whether it wants or not; 0 if none waits. Then nobody
    /// sends messages.
    pub removal_sequence: Sequence,
    /// Who may not commit, because a member has reported a commit of theirs.
    pub paused: std::collections::BTreeSet<DeviceUri>,
    /// Everybody who ever owned a leaf or was sent a Welcome, members included.
    pub known: std::collections::BTreeSet<DeviceUri>,
}

/// A member of the current epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its leaf index.
    pub leaf: u32,
    /// Sequence of the event that brought it into the channel, where it has been since.
    pub joined: Sequence,
}

/// An event with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// The channel.
    pub channel: ChannelId,
    /// Its place and the chain hash there.
    pub head: Head,
    /// Its kind.
    pub kind: EventKind,
    /// The TLS caller who sent it.
    pub sender: DeviceUri,
    /// When it was accepted.
    pub gateway_time: Timestamp,
    /// When the zone stops keeping it.
    pub expiry: Option<Timestamp>,
    /// SHA-256 of the channel's label.
    pub label_reference: Digest,
    /// The MLS bytes.
    pub mls: Bytes,
    /// Index of its audit leaf.
    pub leaf_index: u64,
    /// RFC 6962 hash of its audit leaf.
    pub leaf_hash: Digest,
    /// The sender's idempotency id; zero if the gateway itself sent it.
    pub idempotency_id: IdempotencyId,
}

/// A page of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Ascending and dense.
    pub events: Vec<Arc<StoredEvent>>,
    /// The channel's head when the page was read; 0 for an unknown channel.
    pub head: Sequence,
    /// The oldest event still there.
    pub first_retained: Sequence,
}

/// A Welcome that waits for its device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxEntry {
    /// Ascending per device, from 1.
    pub id: u64,
    /// The channel.
    pub channel: ChannelId,
    /// The commit that added the device, and the chain hash there.
    pub head: Head,
    /// Who invited it.
    pub inviter: DeviceUri,
    /// MLSMessage with the Welcome.
    pub welcome: Bytes,
    /// When it was accepted.
    pub gateway_time: Timestamp,
}

/// The gateway's view of a group at a point of the channel's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSnapshot {
    /// Its epoch.
    pub epoch: Epoch,
    /// The event after which it was taken.
    pub sequence: Sequence,
    /// Opaque to the store.
    pub state: Bytes,
}

/// A record of the audit log as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Dense from 0.
    pub leaf_index: u64,
    /// The leaf.
    pub leaf: [u8; LEAF_BYTES],
    /// The parts in the order of the leaf's commitment.
    pub parts: Vec<StoredPart>,
}

/// A part as stored: everything needed to recompute its commitment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    /// Who may read it.
    pub audience: Audience,
    /// Its salt.
    pub salt: [u8; 32],
    /// Header bytes as the committer filled them in.
    pub header: Vec<u8>,
    /// JCS body.
    pub body: Vec<u8>,
}

/// How a zone is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether it takes every unit: not fenced, and room on the disk.
    pub is_writable: bool,
    /// What there is room for; what there was, if it is fenced.
    pub room: Room,
    /// Units waiting for the committer.
    pub queued_units: usize,
    /// Units that may wait; what comes beyond is refused.
    pub queue_units_max: usize,
    /// Bytes of the units waiting for the committer.
    pub queued_bytes: usize,
    /// Leaves in the audit log.
    pub leaf_count: u64,
    /// When the newest of them was accepted; 0 before the first.
    pub last_time: Timestamp,
    /// Rises at every open of the zone.
    pub fencing_number: u64,
    /// What the committer has measured since the zone was opened.
    pub commits: CommitFigures,
    /// Why it is fenced, if it is.
    pub fault: Option<String>,
    /// Whether its journal was found damaged, so that it stays closed until an operator has acted.
    pub is_quarantined: bool,
    /// How its journal is kept.
    pub journal: JournalHealth,
}

/// How a zone's journal is kept: what stands between a closed bucket and its end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JournalHealth {
    /// Number of the first bucket that has not been dropped.
    pub first_bucket: u64,
    /// Buckets that have not been dropped.
    pub buckets: u64,
    /// Closed buckets of which what outlives them has not been copied yet.
    pub uncopied_buckets: u64,
    /// The leaf that the newest complete state snapshot goes up to; `None` if there is none.
    pub snapshot_leaf: Option<u64>,
    /// Rows written of the snapshot that is being written; 0 if none is.
    pub snapshot_rows_written: u64,
    /// Why closed buckets are not copied or dropped ones not removed, if so. The zone goes on all the same.
    pub fault: Option<String>,
}

/// Why a zone cannot be read or opened.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process holds the zone's folder.
    #[error("open zone: held by process {process_id}")]
    Locked {
        /// The holder.
        process_id: u32,
    },
    /// The folder is another zone's; it is left untouched.
    #[error("open zone {wanted}: the folder is that of zone {found}")]
    OtherZone {
        /// Whose it is.
        found: String,
        /// Which zone was to be opened.
        wanted: ZoneId,
    },
    /// The folder was written by a newer version; it is left untouched.
    #[error("open zone: format {found} is newer than {known}")]
    NewerFormat {
        /// The format found.
        found: u32,
        /// The newest that this build knows.
        known: u32,
    },
    /// The zone's journal was found damaged; it stays closed until an operator has acted.
    #[error(
        "open zone: it is quarantined ({reason}); look into it with `lianxin-gateway store check`, restore it from a backup, \
         and remove {file}"
    )]
    Quarantined {
        /// What was found.
        reason: String,
        /// The file that says so.
        file: String,
    },
    /// A stored record is not what was written.
    #[error("read {what}: record is damaged")]
    Damaged {
        /// Which kind of record.
        what: &'static str,
    },
    /// The zone is fenced after a fault, or closed.
    #[error("zone is unavailable: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// The clock is before the zone's last record; the zone stays closed until it is not.
    #[error("open zone: the clock is before the last record")]
    ClockBehind {
        /// What the clock says.
        now: Timestamp,
        /// When the last record was accepted.
        last: Timestamp,
    },
    /// The disk or the engine failed.
    #[error("{operation} on {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file or folder.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
}

impl Health {
    /// A zone that could not be opened.
    pub(crate) fn closed(reason: &StoreError) -> Self {
        Self {
            is_writable: false,
            room: Room::Nothing,
            queued_units: 0,
            queue_units_max: 0,
            queued_bytes: 0,
            leaf_count: 0,
            last_time: Timestamp(0),
            fencing_number: 0,
            commits: CommitMeter::new().view(),
            fault: Some(reason.to_string()),
            is_quarantined: matches!(reason, StoreError::Quarantined { .. }),
            journal: JournalHealth::default(),
        }
    }
}

impl Accepted {
    /// The same, as the answer to a repeat.
    pub fn as_repeat(mut self) -> Self {
        self.is_repeat = true;
        self
    }
}

impl ChannelHead {
    /// The group and epoch that it is in.
    pub const fn current(&self) -> GroupEpoch {
        GroupEpoch { incarnation: self.incarnation, epoch: self.epoch }
    }

    /// Since when `device` is in the channel, whether it has a leaf now or is awaited in a group that has just begun; `None`
    /// for who is not.
    pub fn in_channel_since(&self, device: &DeviceUri) -> Option<Sequence> {
        let seated = self.members.get(device).map(|member| member.joined);
        seated.or_else(|| self.awaited.get(device).copied())
    }

    /// A channel without events and members.
    pub(crate) fn empty(head: Head) -> Self {
        Self {
            incarnation: Incarnation(0),
            epoch: Epoch(0),
            head,
            epoch_sequence: Sequence(0),
            label_reference: Digest::ZERO,
            members: BTreeMap::new(),
            awaited: BTreeMap::new(),
            leaving: Vec::new(),
            proposal_sequence: Sequence(0),
            removal_sequence: Sequence(0),
            paused: std::collections::BTreeSet::new(),
            known: std::collections::BTreeSet::new(),
        }
    }
}
