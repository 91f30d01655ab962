//! What comes in from the log, and what it means.

use lianxin_profile::{RemovalReason, ReportReason};
use lianxin_tlog::EventKind;
use lianxin_types::{ChannelId, DeviceUri, Epoch, IdempotencyId, Incarnation, Sequence, Timestamp};

use crate::Violation;

/// One accepted event of a channel, as the gateway delivers it.
#[derive(Clone, PartialEq, Eq)]
pub struct LogEvent {
    /// The channel.
    pub channel: ChannelId,
    /// Its position, dense from 1.
    pub sequence: Sequence,
    /// What it says it is.
    pub kind: EventKind,
    /// Whom the gateway names as its sender.
    pub sender: DeviceUri,
    /// When the gateway accepted it.
    pub gateway_time: Timestamp,
    /// When the zone stops keeping it.
    pub expiry: Option<Timestamp>,
    /// The MLS bytes as accepted.
    pub mls: Vec<u8>,
    /// The id that its sender chose for the call.
    pub idempotency_id: IdempotencyId,
}

impl std::fmt::Debug for LogEvent {
    /// Without the bytes: a start holds the group context, and with it the slot key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("LogEvent");
        shown.field("channel", &self.channel).field("sequence", &self.sequence).field("kind", &self.kind);
        shown.field("sender", &self.sender).field("mls_bytes", &self.mls.len()).finish_non_exhaustive()
    }
}

/// What an event was.
#[derive(Clone, PartialEq, Eq)]
pub enum Processed {
    /// A message for the application.
    Message {
        /// Who sent it; name and MLS leaf agree.
        sender: DeviceUri,
        /// The sender's intent.
        intent: IdempotencyId,
        /// What the sender's application sent.
        body: Vec<u8>,
        /// The epoch it was sent in.
        epoch: Epoch,
    },
    /// A message of this device; its content is in the outbox.
    OwnMessage,
    /// A message under this device's leaf that it has neither sent nor had in the log, as far as it knows. Its state is an older copy,
    /// put back; or the gateway altered one, or made it with a member, which cannot be told apart here: the content of an own message
    /// does not open. Until its next own commit the device encrypts nothing ([`crate::MlsError::OlderState`]).
    NotRemembered {
        /// Whether this is the first of them since its last own commit.
        is_first: bool,
    },
    /// A message whose intent this device has had from the same sender; to be dropped.
    RepeatedMessage,
    /// The group changed.
    Membership {
        /// The epoch that began.
        epoch: Epoch,
        /// Who committed.
        by: DeviceUri,
        /// Who came.
        added: Vec<DeviceUri>,
        /// Who went.
        removed: Vec<DeviceUri>,
        /// Whether it is this device's own commit that was confirmed.
        own_commit: bool,
        /// Whether this device went; its group is deleted.
        removed_self: bool,
        /// Whether another's commit came first, so that an own one was dropped and must be made again.
        discarded_own_commit: bool,
    },
    /// A member came back by an external commit, with the same key: nobody came and nobody went.
    Rejoined {
        /// The epoch that began.
        epoch: Epoch,
        /// Who came back.
        device: DeviceUri,
        /// Whether it is this device: it reads from here on, and not what came before.
        own_commit: bool,
        /// Whether an own commit of this device was dropped and must be made again.
        discarded_own_commit: bool,
        /// Whether this device had proposed to leave. The proposal is void: it must ask again.
        discarded_own_leave: bool,
    },
    /// Another group carries the channel on, because a commit broke the one before.
    Incarnation {
        /// Which of the channel's groups.
        incarnation: Incarnation,
        /// Who started it.
        by: DeviceUri,
        /// Who made the commit that broke the one before and is left behind; `None` if that was in order for this device.
        culprit: Option<DeviceUri>,
        /// Whether this device has started it, and is to seat the others; else it waits for an invitation
        /// ([`crate::Mls::take_seat`]), and its log must be read no further until then.
        own_start: bool,
    },
    /// This device is seated in the group that carries the channel on.
    Seated {
        /// The group's epoch.
        epoch: Epoch,
    },
    /// A member wants to leave; somebody must commit it.
    LeaveProposed {
        /// Who.
        device: DeviceUri,
    },
    /// The gateway asks for the removal of a member, with evidence that this device sees, too; somebody must commit it, and
    /// until then nobody sends.
    RemovalAsked {
        /// Who is to go.
        device: DeviceUri,
        /// Why.
        reason: RemovalReason,
    },
    /// A member says that it cannot process a commit. Its committer may not commit until its owner allows it.
    CommitReported {
        /// Who says so; its leaf has signed it.
        reporter: DeviceUri,
        /// The commit's place in the log.
        commit: Sequence,
        /// Why.
        reason: ReportReason,
    },
    /// The channel's first event.
    Start,
    /// An event that was processed before.
    AlreadyProcessed,
    /// Not to be shown; something is wrong with it.
    Hidden(Violation),
}

impl std::fmt::Debug for Processed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Message { sender, intent, body, epoch } => {
                let mut shown = f.debug_struct("Message");
                shown.field("sender", sender).field("intent", intent).field("epoch", epoch);
                shown.field("body_bytes", &body.len()).finish()
            }
            Self::OwnMessage => f.write_str("OwnMessage"),
            Self::NotRemembered { is_first } => f.debug_struct("NotRemembered").field("is_first", is_first).finish(),
            Self::RepeatedMessage => f.write_str("RepeatedMessage"),
            Self::Membership { epoch, by, added, removed, own_commit, removed_self, discarded_own_commit } => f
                .debug_struct("Membership")
                .field("epoch", epoch)
                .field("by", by)
                .field("added", added)
                .field("removed", removed)
                .field("own_commit", own_commit)
                .field("removed_self", removed_self)
                .field("discarded_own_commit", discarded_own_commit)
                .finish(),
            Self::Rejoined { epoch, device, own_commit, discarded_own_commit, discarded_own_leave } => f
                .debug_struct("Rejoined")
                .field("epoch", epoch)
                .field("device", device)
                .field("own_commit", own_commit)
                .field("discarded_own_commit", discarded_own_commit)
                .field("discarded_own_leave", discarded_own_leave)
                .finish(),
            Self::Incarnation { incarnation, by, culprit, own_start } => {
                let mut shown = f.debug_struct("Incarnation");
                shown.field("incarnation", incarnation).field("by", by).field("culprit", culprit);
                shown.field("own_start", own_start).finish()
            }
            Self::Seated { epoch } => f.debug_struct("Seated").field("epoch", epoch).finish(),
            Self::LeaveProposed { device } => f.debug_struct("LeaveProposed").field("device", device).finish(),
            Self::RemovalAsked { device, reason } => {
                f.debug_struct("RemovalAsked").field("device", device).field("reason", reason).finish()
            }
            Self::CommitReported { reporter, commit, reason } => {
                let mut shown = f.debug_struct("CommitReported");
                shown.field("reporter", reporter).field("commit", commit).field("reason", reason).finish()
            }
            Self::Start => f.write_str("Start"),
            Self::AlreadyProcessed => f.write_str("AlreadyProcessed"),
            Self::Hidden(violation) => f.debug_tuple("Hidden").field(violation).finish(),
        }
    }
}
