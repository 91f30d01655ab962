//! The one thing that can be written: a unit, the effect and its audit record together, all or nothing.

use bytes::Bytes;
use lianxin_tlog::{EventFamily, EventKind, Head, PartDraft, RetentionClass};
use lianxin_types::{
    ChannelId, DepartmentId, DeviceUri, Digest, Epoch, IdempotencyId, Incarnation, Sequence, Timestamp,
};

/// What is to become durable at once, or not at all. It belongs to one zone and at most one channel.
#[derive(Debug, Clone)]
pub struct Unit {
    /// The event in a channel's log, if the unit makes one.
    pub channel: Option<ChannelWrite>,
    /// Who calls, by which id, with which bytes; `None` for what the gateway does on its own account.
    pub idempotency: Option<Idempotency>,
    /// Changes of state beside the log, applied in order.
    pub effects: Vec<Effect>,
    /// The audit record.
    pub audit: AuditDraft,
    /// What follows from the event and stands directly behind it in the channel's log: placed with the unit or not at all,
    /// in the same bucket and with the same durability point. Each has an event of the same channel with
    /// [`Expect::Following`], no idempotency and no followers of its own, and no effect that could be refused. A repeat of the
    /// unit places nothing.
    pub followers: Vec<Unit>,
}

impl Unit {
    /// Whether it writes anything beside the audit log.
    pub fn has_effect(&self) -> bool {
        // Dropping buckets gives space back: on a full disk it is what helps.
        let drops = |effect: &Effect| matches!(effect, Effect::DropBuckets { .. });
        self.channel.is_some() || !self.effects.iter().all(drops)
    }

    /// About how much memory it takes while it waits for the committer: what came from outside, and a fixed part.
    pub fn bytes(&self) -> usize {
        let event = self.channel.as_ref().map_or(0, |write| write.event.mls.len());
        let effects: usize = self.effects.iter().map(Effect::bytes).sum();
        let audit: usize = self.audit.parts.iter().map(|part| part.body.len()).sum();
        UNIT_BYTES + event + effects + audit
    }
}

/// What a unit takes beside what is counted: ids, names, hashes.
const UNIT_BYTES: usize = 1_024;

/// An event for a channel's log, and on what condition.
#[derive(Debug, Clone)]
pub struct ChannelWrite {
    /// The channel.
    pub channel: ChannelId,
    /// What must hold when it is sequenced.
    pub expect: Expect,
    /// The event.
    pub event: NewEvent,
}

/// An epoch of a channel: the groups that carry it one after the other each count their own, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupEpoch {
    /// Which of the channel's groups.
    pub incarnation: Incarnation,
    /// Its epoch.
    pub epoch: Epoch,
}

/// Compared by the committer with its own head table, at the moment of sequencing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The channel does not exist: this unit starts it.
    Absent,
    /// The channel's group and epoch are these, the sender owns a leaf and is not leaving, these MLS bytes were never accepted in
    /// this epoch, and `NewEvent::head`, if given, is not older than the epoch's commit nor behind the sender's previous.
    /// An application message finds no removal waiting, a commit or a start is not of a member that is paused.
    Epoch(GroupEpoch),
    /// As [`Expect::Epoch`], and [`ChannelHead::proposal_sequence`](crate::ChannelHead::proposal_sequence) is `proposals`: for
    /// commits and proposals, which were verified against the group with exactly these proposals waiting.
    State {
        /// The channel's group and epoch.
        current: GroupEpoch,
        /// Sequence of the last waiting proposal; 0 if none waits.
        proposals: Sequence,
    },
    /// As [`Expect::State`], for what the gateway itself proposes: its sender is no member.
    Own {
        /// The channel's group and epoch.
        current: GroupEpoch,
        /// Sequence of the last waiting proposal; 0 if none waits.
        proposals: Sequence,
    },
    /// The sender owns a leaf and is not to be removed: for what is about the past, whatever the epoch.
    Member,
    /// Directly behind the event of the unit that it follows; only for [`Unit::followers`].
    Following,
}

/// An event before it has a place.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Its kind.
    pub kind: EventKind,
    /// The TLS caller.
    pub sender: DeviceUri,
    /// When the zone stops keeping it; `None` for no end.
    pub expiry: Option<Timestamp>,
    /// SHA-256 of the channel's label.
    pub label_reference: Digest,
    /// The MLS bytes as sent.
    pub mls: Bytes,
    /// SHA-256 of `mls`.
    pub mls_hash: Digest,
    /// The head in its authenticated data. The caller of the store has compared the hash with the journal already; the
    /// committer compares positions.
    pub head: Option<Head>,
}

/// Recognises a repeat (PROTOCOL 7). Scope: device, channel, call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Idempotency {
    /// The calling device.
    pub device: DeviceUri,
    /// The channel; `None` for calls without one.
    pub channel: Option<ChannelId>,
    /// Which call, for example `send`.
    pub call: &'static str,
    /// The id that the caller chose.
    pub id: IdempotencyId,
    /// SHA-256 over the bytes that the id stands for.
    pub bytes_hash: Digest,
}

/// A change of state beside the log. Each is part of the journal record, so the state can be rebuilt from the journal.
#[derive(Debug, Clone)]
pub enum Effect {
    /// The channel's group has these members now. At the start: the creator alone, epoch 0. Proposals end with the epoch:
    /// nobody is leaving any more.
    Group {
        /// The epoch that begins.
        epoch: Epoch,
        /// Who takes a leaf. A member that is not unseated moves to the leaf named, and keeps when it joined.
        seated: Vec<Seat>,
        /// Who loses its leaf.
        unseated: Vec<DeviceUri>,
        /// The GroupInfo of the epoch, served to members.
        group_info: Bytes,
    },
    /// Another group carries the channel from here on: stands before the [`Effect::Group`] with its first member. Whoever sat in
    /// the group before and is awaited in this one loses its leaf, but not what it may read: it has been in the channel all the
    /// time when a later commit seats it.
    Incarnation {
        /// Which of the channel's groups.
        incarnation: Incarnation,
        /// Who is to be seated again.
        awaited: Vec<DeviceUri>,
    },
    /// Another GroupInfo is served for the epoch. Refuses the unit with [`Refused::WrongEpoch`] if that is over.
    ReplaceGroupInfo {
        /// The channel.
        channel: ChannelId,
        /// The epoch that it is of.
        current: GroupEpoch,
        /// MLSMessage with the GroupInfo.
        group_info: Bytes,
    },
    /// The gateway's own view of the group after the event: complete, so that a rebuild never imports a GroupInfo.
    GroupSnapshot {
        /// Opaque to the store.
        state: Bytes,
    },
    /// One Welcome for several devices, put into their inboxes, with the tree that they need beside it.
    Welcome {
        /// Whose inboxes.
        recipients: Vec<DeviceUri>,
        /// Who invited them.
        inviter: DeviceUri,
        /// MLSMessage with the Welcome.
        welcome: Bytes,
        /// The public tree of the epoch that the commit made.
        tree: Bytes,
    },
    /// The device asked to leave; its Remove waits for a commit.
    Leaving {
        /// Who.
        device: DeviceUri,
    },
    /// The device is to be removed, whether it wants or not: it may send nothing more, and nobody sends messages until a
    /// commit has removed it.
    Removing {
        /// Who.
        device: DeviceUri,
    },
    /// A member says that it cannot process a commit. The committer may not commit in the channel until it is allowed
    /// again. Refuses the unit with [`Refused::Duplicate`] if this member has reported this commit before.
    Report {
        /// Who reports.
        reporter: DeviceUri,
        /// Who made the commit.
        committer: DeviceUri,
        /// The commit's place.
        commit: Sequence,
    },
    /// The device may commit in the channel again; reports of what it committed so far pause it no more.
    AllowCommitter {
        /// In which channel.
        channel: ChannelId,
        /// Who.
        device: DeviceUri,
    },
    /// Key packages of a device.
    PublishKeyPackages {
        /// Whose.
        owner: DeviceUri,
        /// One-time packages.
        one_time: Vec<KeyPackageItem>,
        /// A new last resort, replacing the old one.
        last_resort: Option<KeyPackageItem>,
    },
    /// Takes one key package of each owner for the unit's claim; the outcome carries them in the same order.
    /// Refuses the unit with [`Refused::NoKeyPackage`] if an owner has none that lives on at the time of committing, and with
    /// [`Refused::LimitReached`] if the department has `LIMITS.department_unused_claims_max` one-time packages of an owner
    /// that live on and were not used. A claim ends with the life of its package.
    ClaimKeyPackages {
        /// The channel that they are for.
        channel: ChannelId,
        /// The claiming device's department.
        department: DepartmentId,
        /// Whose, each once.
        owners: Vec<DeviceUri>,
    },
    /// These claimed one-time packages have been used by an Add.
    UseClaims {
        /// The channel that they were claimed for.
        channel: ChannelId,
        /// Their references.
        references: Vec<Digest>,
    },
    /// Ends all buckets of the journal below this number. Refused with [`Refused::BucketNeeded`] until a complete snapshot of
    /// the state lies in a newer bucket and what outlives them has been copied: ask
    /// [`ZoneStore::prepare_drop`](crate::ZoneStore::prepare_drop) first. They are gone for readers when the unit is
    /// committed, and removed soon after; so the audit record that names them comes before their end.
    DropBuckets {
        /// Number of the first bucket that stays.
        before: u64,
    },
    /// The device has stored these inbox items.
    ConfirmInbox {
        /// Whose inbox.
        device: DeviceUri,
        /// Inbox ids.
        ids: Vec<u64>,
    },
}

impl Effect {
    fn bytes(&self) -> usize {
        const DEVICE_BYTES: usize = 128;
        match self {
            Self::Group { seated, unseated, group_info, .. } => {
                group_info.len() + (seated.len() + unseated.len()) * DEVICE_BYTES
            }
            Self::Incarnation { awaited, .. } => awaited.len() * DEVICE_BYTES,
            Self::ReplaceGroupInfo { group_info, .. } => group_info.len(),
            Self::GroupSnapshot { state } => state.len(),
            Self::Welcome { recipients, welcome, tree, .. } => {
                welcome.len() + tree.len() + recipients.len() * DEVICE_BYTES
            }
            Self::PublishKeyPackages { one_time, last_resort, .. } => {
                one_time.iter().chain(last_resort).map(|item| item.bytes.len() + DEVICE_BYTES).sum()
            }
            Self::ClaimKeyPackages { owners, .. } => owners.len() * DEVICE_BYTES,
            Self::UseClaims { references, .. } => references.len() * size_of::<Digest>(),
            Self::ConfirmInbox { ids, .. } => ids.len() * size_of::<u64>(),
            Self::Leaving { .. }
            | Self::Removing { .. }
            | Self::Report { .. }
            | Self::AllowCommitter { .. }
            | Self::DropBuckets { .. } => 2 * DEVICE_BYTES,
        }
    }
}

/// A device and its leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// Who.
    pub device: DeviceUri,
    /// Leaf index in the ratchet tree.
    pub leaf: u32,
}

/// A key package as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPackageItem {
    /// RFC 9420 KeyPackageRef, 32 bytes for SHA-256 suites.
    pub reference: Digest,
    /// End of its lifetime.
    pub not_after: Timestamp,
    /// MLSMessage with the KeyPackage.
    pub bytes: Bytes,
}

/// The audit record before the committer numbers it.
#[derive(Debug, Clone)]
pub struct AuditDraft {
    /// What it is about.
    pub family: EventFamily,
    /// How long its parts are kept.
    pub retention_class: RetentionClass,
    /// Derived from group and epoch for a commit or start, random otherwise.
    pub slot: [u8; 16],
    /// The channel named in the shared header; `None` where there is none or the caller may not learn of it.
    pub channel: Option<ChannelId>,
    /// The shared part first, then at most one part per department, by name.
    pub parts: Vec<PartDraft>,
}

/// What became of a unit.
pub type Outcome = Result<Accepted, Refused>;

/// The unit is durable, in order and audited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Position of its event in the channel's log; 0 if it made none.
    pub sequence: Sequence,
    /// Chain hash at that position; zero if it made none.
    pub chain_hash: Digest,
    /// When it was accepted.
    pub gateway_time: Timestamp,
    /// When the zone stops keeping the event.
    pub expiry: Option<Timestamp>,
    /// Index of its audit leaf.
    pub leaf_index: u64,
    /// RFC 6962 hash of its audit leaf.
    pub leaf_hash: Digest,
    /// What `Effect::ClaimKeyPackages` took, in the order of its owners.
    pub key_packages: Vec<Bytes>,
    /// Whether this answers a repeat; nothing was written then.
    pub is_repeat: bool,
}

/// Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The idempotency id stands for other bytes.
    #[error("idempotency id reused with other bytes")]
    IdReused,
    /// `Expect::Absent` and the channel exists.
    #[error("channel exists")]
    ChannelExists,
    /// The channel does not exist.
    #[error("no such channel")]
    NoChannel,
    /// Another epoch is current.
    #[error("epoch {current:?} is current")]
    WrongEpoch {
        /// The current epoch.
        current: Epoch,
        /// The channel's last sequence.
        head: Sequence,
    },
    /// The sender owns no leaf of the current epoch.
    #[error("sender is not a member")]
    NotMember,
    /// The sender asked to leave.
    #[error("sender is leaving")]
    Leaving,
    /// [`Expect::State`] and other proposals wait than the caller saw, or a message and a removal waits.
    #[error("the proposal at {sequence:?} waits")]
    ProposalsWait {
        /// Sequence of the last waiting proposal; 0 if none waits.
        sequence: Sequence,
    },
    /// A member has reported a commit of the sender's, and its owner has not allowed it to commit again.
    #[error("committer is paused")]
    CommitterPaused,
    /// The followers of a unit are not such that they can stand directly behind it: a fault of the caller.
    #[error("followers cannot be placed with their unit")]
    NotTogether,
    /// The head is older than the epoch's commit or behind the sender's previous one.
    #[error("head is behind")]
    BadHead,
    /// These MLS bytes were accepted in this epoch before.
    #[error("mls bytes were accepted before")]
    Duplicate,
    /// An owner has no key package left.
    #[error("an owner has no key package")]
    NoKeyPackage {
        /// Whose.
        owner: DeviceUri,
    },
    /// A bucket that [`Effect::DropBuckets`] names must stay.
    #[error("bucket {bucket} is still needed")]
    BucketNeeded {
        /// The first bucket that must stay now.
        bucket: u64,
    },
    /// A limit of the state is reached.
    #[error("limit of {limit} {what} reached")]
    LimitReached {
        /// What is counted.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// There is no room on the disk for a unit of this kind; see [`Room`](crate::Room).
    #[error("disk is full")]
    DiskFull,
    /// The zone is fenced or closing; whether the unit is durable is unknown until it reopens.
    #[error("zone is unavailable")]
    Unavailable,
}
