//! What an application is told besides messages. Events that say what happened to a channel are kept until they are read;
//! those about the connection are of the moment.

use std::sync::Arc;

use lianxin_connection::ConnectError;
use lianxin_keystore::Transaction;
use lianxin_mls::{RemovalReason, ReportReason};
use lianxin_types::{ChannelId, DeviceUri, Epoch, Incarnation, Sequence, Timestamp};

use crate::ClientError;
use crate::evidence::ViolationKind;
use crate::rows::EVENT;
use crate::wishes::{Change, NotMade};

mod stored;

use stored::{decode, encode};

/// Something an application may want to know. A membership change comes before any message of the epoch that it began.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Somebody invited this device; see [`crate::Client::invitations`].
    Invited {
        /// To which channel.
        channel: ChannelId,
        /// Who.
        inviter: DeviceUri,
    },
    /// A device came into a channel.
    MemberJoined {
        /// Which channel.
        channel: ChannelId,
        /// Who came; its department is in the identity.
        device: DeviceUri,
        /// Who let it in.
        by: DeviceUri,
        /// The epoch that began.
        epoch: Epoch,
    },
    /// A device is not in a channel any more.
    MemberLeft {
        /// Which channel.
        channel: ChannelId,
        /// Who went.
        device: DeviceUri,
        /// Who committed it.
        by: DeviceUri,
        /// The epoch that began.
        epoch: Epoch,
    },
    /// A member whose group was broken or lost came back by itself, with the key that it had; it can be this device. It reads
    /// from here on, and never what came between.
    MemberRejoined {
        /// Which channel.
        channel: ChannelId,
        /// Who.
        device: DeviceUri,
        /// The epoch that began.
        epoch: Epoch,
    },
    /// A member wants to leave; the SDK sees to it.
    LeaveProposed {
        /// Which channel.
        channel: ChannelId,
        /// Who.
        device: DeviceUri,
    },
    /// The gateway asks for the removal of a member whose certificate is revoked, or has been over for too long, and this
    /// device sees that it is so. The SDK sees to it; until then nobody's messages are accepted.
    RemovalAsked {
        /// In which channel.
        channel: ChannelId,
        /// Who is to go.
        device: DeviceUri,
        /// Why.
        reason: RemovalReason,
    },
    /// A member says that it cannot process a commit. The committer can send and read, and commit no more until another device
    /// of its department allows it ([`crate::Channel::allow_committer`]).
    CommitReported {
        /// In which channel.
        channel: ChannelId,
        /// Who says so.
        reporter: DeviceUri,
        /// The commit's place in the log.
        commit: Sequence,
        /// Who made it; `None` if this device has not read it, or it is older than the last hundred.
        committer: Option<DeviceUri>,
        /// Why.
        reason: ReportReason,
    },
    /// The gateway takes no commit of this device in a channel, for a member has said that it cannot process one
    /// ([`Event::CommitReported`]). Another device of this department that is or was in the channel can allow it again
    /// ([`crate::Channel::allow_committer`]), and nobody else. Until then this device neither changes the channel nor comes back into
    /// it; it reads, and sends unless it must commit first: then what was sent waits. The SDK goes on trying, with up to a
    /// quarter of an hour between two attempts, and all of it goes on by itself when it is allowed. Told once for each pause.
    CommitterPaused {
        /// In which channel.
        channel: ChannelId,
        /// Whose report this device has read; `None` if none.
        reporter: Option<DeviceUri>,
    },
    /// A commit broke the channel's group for good, and another group carries the channel on: same label, same log, same history.
    /// Everybody who sat in the group before is seated again by itself, but for whoever made that commit. It comes again, with a
    /// later incarnation, if whoever has started that group seats nobody there.
    ChannelRestarted {
        /// Which channel.
        channel: ChannelId,
        /// Which of its groups this is.
        incarnation: Incarnation,
        /// Who started it; it can be this device.
        by: DeviceUri,
        /// Whose commit that was by the log, and who is left behind, also if it was in order for this device. Its content is signed by
        /// that member; what cannot be processed of it, the tags over it, a gateway could have changed, and then that member is
        /// told so by [`ViolationKind::OtherCommitReported`]. `None` for who came in by it, and where this device's own start gives way to another's.
        culprit: Option<DeviceUri>,
    },
    /// The gateway served a GroupInfo by which whoever comes back would have broken the group for everybody else; this device has
    /// offered a right one for its place. If a member has signed it, it is kept as evidence ([`ViolationKind::WrongGroupInfo`]).
    WrongGroupInfo {
        /// Which channel.
        channel: ChannelId,
        /// The epoch of which it says that it is.
        epoch: Epoch,
        /// The last event that this device had read; [`crate::Client::evidence`] has it under that.
        sequence: Sequence,
        /// The member who has signed it; `None` if no member has, so that it is the gateway's own.
        signer: Option<DeviceUri>,
        /// What is wrong with it.
        detail: String,
    },
    /// This device is seated in the group that carries the channel on; messages that waited are on their way.
    ChannelRestored {
        /// Which channel.
        channel: ChannelId,
        /// The group's epoch.
        epoch: Epoch,
    },
    /// This device has waited in vain, for more than ten minutes, for its seat in the group that carries the channel on
    /// ([`Event::ChannelRestarted`]): whoever was to give it does not, and no other group that this device could start is taken. It sends nothing there meanwhile; what it sent is stored, and nobody
    /// waits for that ([`crate::ClientError::NotServed`]). Another member has to invite this device; it takes that for its seat by
    /// itself, and the channel goes on. Told once for each incarnation.
    SeatMissing {
        /// In which channel.
        channel: ChannelId,
        /// Which of its groups.
        incarnation: Incarnation,
    },
    /// A change of a channel that this device's application had asked for was not made, and the SDK does not try any longer. It goes on
    /// by itself until then, also when the call was dropped or the process ended; so this is told also where the call has said the same.
    ChangeNotMade {
        /// Of which channel.
        channel: ChannelId,
        /// What was to be changed.
        change: Change,
        /// Who was to come in or go; without those for whom it has come true by others' hands.
        devices: Vec<DeviceUri>,
        /// Why it was not.
        reason: NotMade,
        /// The same in words.
        detail: String,
    },
    /// This device is not a member any more; its messages stay readable.
    Removed {
        /// Of which channel.
        channel: ChannelId,
        /// Who committed it.
        by: DeviceUri,
    },
    /// The gateway or a member did what an honest one does not do. The event was hidden.
    Violation {
        /// In which channel.
        channel: ChannelId,
        /// At which position of its log.
        sequence: Sequence,
        /// Whom the gateway named as the sender.
        sender: DeviceUri,
        /// What it was. [`crate::Client::evidence`] gives what can be handed on.
        kind: ViolationKind,
        /// The same in words.
        detail: String,
    },
    /// This device was away for so long that it cannot follow a change of the channel any more. It comes back by itself, as
    /// [`Event::MemberRejoined`] says then, and reads nothing of what came between.
    AwayTooLong {
        /// In which channel.
        channel: ChannelId,
        /// The place of the change in its log.
        sequence: Sequence,
    },
    /// The stored log has something that this device sent and its state does not know of: the state folder was put back from an older
    /// copy. (Or while it was away a message was altered or made in its name, or a change of its own was logged that had been refused:
    /// [`crate::Client::evidence`] has it.) The device makes new keys before it sends anything more, by a commit of its own or, where
    /// it cannot follow, by coming back as [`Event::MemberRejoined`] says then. Nothing is noticed of what the log does not have:
    /// what was refused, or comes in after the log was read, may have used keys that are used again. What it sent and received since the copy was made may be missing in its history, and a
    /// message that waited in the copy may have been sent already ([`crate::ClientError::Unanswered`]).
    StateRestored {
        /// In which channel.
        channel: ChannelId,
        /// The place in the log of what it does not know of; 0 if it knows nothing of the channel.
        sequence: Sequence,
    },
    /// The gateway does not serve the channel to this device any more, or not from where its group stands: events in
    /// between are kept no longer, or the device was removed and invited again while it was offline, or cannot process what the gateway
    /// gives. A newer invitation can be accepted. Told again on later connections as long as it is so.
    ChannelGone {
        /// Which channel.
        channel: ChannelId,
        /// Why, in the gateway's words.
        reason: String,
    },
    /// This device has to come back into a channel, and the gateway serves a GroupInfo (RFC 9420 section 12.4.3) for that which its own
    /// log has left behind, again and again: by it the device would sit where the others no longer are. It does not, and asks again,
    /// later and later; nobody waits meanwhile for what was sent there ([`crate::ClientError::NotServed`]). With the right one it comes back as
    /// [`Event::MemberRejoined`] says then. Told once for each way back, and again on later connections as long as it is so.
    OldGroupInfo {
        /// Into which channel.
        channel: ChannelId,
        /// Of which of its groups the GroupInfo is.
        incarnation: Incarnation,
        /// Of which epoch.
        epoch: Epoch,
    },
    /// The gateway's log of a channel ends before what this device has of it: the gateway works on an old copy, or this device
    /// was given another gateway's log. What it has stays readable; nothing is received or sent in the channel until an operator
    /// has looked at it. Told again on later connections as long as it is so.
    GatewayBehind {
        /// Which channel.
        channel: ChannelId,
    },
    /// The trust bundle or the revocation lists that the gateway offers were not taken over.
    TrustRefused {
        /// Why.
        reason: String,
    },
    /// The trust bundle or a revocation list is past its end, and the gateway has brought no newer one. What was agreed goes on: this
    /// device reads, sends, and takes out who must go. It neither comes back into a channel, nor takes a seat in the group that carries
    /// one on or gives one, before there is a newer one, and does so by itself then; calls that join, invite or create answer
    /// [`crate::ClientError::TrustExpired`]. Told once for each end.
    TrustExpired {
        /// When the first of them ended.
        ended: Timestamp,
    },
    /// This device has its next certificates, TLS and MLS, from its department. It uses them by itself: the connection is opened
    /// again, and its leaf in every channel is renewed.
    CertificateRenewed {
        /// When the first of the two ends.
        ends: Timestamp,
    },
    /// This device's certificates end soon, and nobody has renewed them. Told three times for each: with half, a quarter and an
    /// eighth of the last third of their life left. The SDK goes on asking.
    CertificateEnding {
        /// When the first of the two ends.
        ends: Timestamp,
        /// Why there are no next ones, as far as this device knows.
        reason: String,
    },
    /// This device's certificates are over, by its own clock: no gateway lets it in. Its department can give it new ones for the same
    /// MLS key ([`crate::Config`]), and its channels go on. Told once for each.
    CertificateEnded {
        /// When the first of the two ended.
        ended: Timestamp,
        /// What this device says that the time is.
        own: Timestamp,
    },
    /// So many events came before the next one that this application did not read in time: ten thousand are kept.
    EventsDropped {
        /// How many.
        count: u64,
    },
    /// A connection stands. Of the moment.
    Connected,
    /// There is no connection. The SDK goes on trying. Of the moment.
    Disconnected {
        /// Why not, if the gateway or its certificate was refused; `None` if it broke or could not be reached.
        refused: Option<Arc<ConnectError>>,
    },
    /// This device's clock and the gateway's differ by more than is tolerated (`LIMITS.clock_skew_max`): certificates, key packages
    /// and labels are judged by it, so one of the two will soon refuse what is in order. Set the clock that is wrong. Of the
    /// moment, at most once for each connection.
    ClockDiffers {
        /// What the gateway says that it is.
        gateway: Timestamp,
        /// What this device says.
        own: Timestamp,
    },
    /// Everything that was stored of a channel has been received; what follows is live. Of the moment.
    CaughtUp {
        /// Which channel.
        channel: ChannelId,
        /// Up to where.
        sequence: Sequence,
    },
}

/// Kept events; older ones are dropped unread, as [`Event::EventsDropped`] says then.
const KEPT_MAX: u64 = 10_000;

/// Appends an event to the kept ones, in the transaction that makes it true.
pub(crate) fn keep(tx: &Transaction<'_>, event: &Event) -> Result<(), ClientError> {
    let Some(bytes) = encode(event) else { return Ok(()) };
    let position = tx.log_last(EVENT, b"")?.unwrap_or(0) + 1;
    tx.log_put(EVENT, b"", position, &bytes)?;
    if let Some(dropped) = position.checked_sub(KEPT_MAX) {
        tx.log_delete(EVENT, b"", dropped)?;
    }
    Ok(())
}

/// At most `limit` kept events behind position `after`, and before them, if there are none there any more, how many are gone.
pub(crate) fn kept(tx: &Transaction<'_>, after: u64, limit: usize) -> Result<Vec<(u64, Event)>, ClientError> {
    let read = tx.log_read(EVENT, b"", after, limit)?;
    // Positions leave none out.
    let dropped = read.first().map(|(first, _)| first - 1).filter(|last| *last > after);
    let marker = dropped.map(|last| Ok((last, Event::EventsDropped { count: last - after })));
    let read = read.into_iter().map(|(position, bytes)| Ok((position, decode(&bytes)?)));
    marker.into_iter().chain(read).collect()
}

#[cfg(test)]
mod tests;
