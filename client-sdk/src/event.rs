//! What an application is told besides messages. Events that say what happened to a channel are kept until they are read;
//! those about the connection are of the moment.

use std::sync::Arc;

use lianxin_connection::ConnectError;
use lianxin_keystore::Transaction;
use lianxin_mls::{RemovalReason, ReportReason};
use lianxin_types::{ChannelId, DecodeError, DeviceUri, Epoch, Incarnation, Reader, Sequence, Timestamp, Writer};

use crate::ClientError;
use crate::evidence::ViolationKind;
use crate::rows::{EVENT, read_uri};

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
    /// between are kept no longer, or the device was removed and invited again while it was offline. A newer invitation
    /// can be accepted. Told again on later connections as long as it is so.
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
const VERSION: u8 = 1;
const TEXT_BYTES_MAX: usize = 1024;

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

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

/// `None` for events of the moment.
fn encode(event: &Event) -> Option<Vec<u8>> {
    let mut writer = Writer::new();
    writer.u8(VERSION);
    let number = |writer: &mut Writer, number: u8, channel: &ChannelId| {
        writer.u8(number).raw(&channel.0);
    };
    let uri = |writer: &mut Writer, uri: &DeviceUri| {
        writer.bytes(uri.as_str().as_bytes());
    };
    match event {
        Event::Invited { channel, inviter } => {
            number(&mut writer, 1, channel);
            uri(&mut writer, inviter);
        }
        Event::MemberJoined { channel, device, by, epoch } | Event::MemberLeft { channel, device, by, epoch } => {
            number(&mut writer, if matches!(event, Event::MemberJoined { .. }) { 2 } else { 3 }, channel);
            uri(&mut writer, device);
            uri(&mut writer, by);
            writer.u64(epoch.0);
        }
        Event::LeaveProposed { channel, device } => {
            number(&mut writer, 4, channel);
            uri(&mut writer, device);
        }
        Event::Removed { channel, by } => {
            number(&mut writer, 5, channel);
            uri(&mut writer, by);
        }
        Event::Violation { channel, sequence, sender, kind, detail } => {
            number(&mut writer, 14, channel);
            writer.u8(*kind as u8);
            writer.u64(sequence.0);
            uri(&mut writer, sender);
            writer.bytes(cut(detail).as_bytes());
        }
        Event::AwayTooLong { channel, sequence } | Event::StateRestored { channel, sequence } => {
            number(&mut writer, if matches!(event, Event::AwayTooLong { .. }) { 12 } else { 17 }, channel);
            writer.u64(sequence.0);
        }
        Event::ChannelGone { channel, reason } => {
            number(&mut writer, 7, channel);
            writer.bytes(cut(reason).as_bytes());
        }
        Event::GatewayBehind { channel } => number(&mut writer, 13, channel),
        Event::OldGroupInfo { channel, incarnation, epoch } => {
            number(&mut writer, 19, channel);
            writer.u32(incarnation.0).u64(epoch.0);
        }
        Event::MemberRejoined { channel, device, epoch } => {
            number(&mut writer, 9, channel);
            uri(&mut writer, device);
            writer.u64(epoch.0);
        }
        Event::RemovalAsked { channel, device, reason } => {
            number(&mut writer, 10, channel);
            uri(&mut writer, device);
            writer.u8(*reason as u8);
        }
        Event::CommitReported { channel, reporter, commit, committer, reason } => {
            number(&mut writer, 11, channel);
            uri(&mut writer, reporter);
            writer.u64(commit.0).u8(*reason as u8);
            committer.iter().for_each(|committer| uri(&mut writer, committer));
        }
        Event::CommitterPaused { channel, reporter } => {
            number(&mut writer, 23, channel);
            writer.u8(u8::from(reporter.is_some()));
            reporter.iter().for_each(|reporter| uri(&mut writer, reporter));
        }
        Event::ChannelRestarted { channel, incarnation, by, culprit } => {
            number(&mut writer, 15, channel);
            writer.u32(incarnation.0);
            uri(&mut writer, by);
            writer.u8(u8::from(culprit.is_some()));
            culprit.iter().for_each(|culprit| uri(&mut writer, culprit));
        }
        Event::ChannelRestored { channel, epoch } => {
            number(&mut writer, 16, channel);
            writer.u64(epoch.0);
        }
        Event::SeatMissing { channel, incarnation } => {
            number(&mut writer, 18, channel);
            writer.u32(incarnation.0);
        }
        Event::WrongGroupInfo { channel, epoch, sequence, signer, detail } => {
            number(&mut writer, 25, channel);
            writer.u64(epoch.0).u64(sequence.0).u8(u8::from(signer.is_some()));
            signer.iter().for_each(|signer| uri(&mut writer, signer));
            writer.bytes(cut(detail).as_bytes());
        }
        Event::TrustRefused { .. }
        | Event::TrustExpired { .. }
        | Event::CertificateRenewed { .. }
        | Event::CertificateEnding { .. }
        | Event::CertificateEnded { .. } => encode_of_device(&mut writer, event)?,
        Event::EventsDropped { .. }
        | Event::Connected
        | Event::Disconnected { .. }
        | Event::ClockDiffers { .. }
        | Event::CaughtUp { .. } => {
            return None;
        }
    }
    Some(writer.finish())
}

/// An event that is of no channel.
fn encode_of_device(writer: &mut Writer, event: &Event) -> Option<()> {
    let number = |writer: &mut Writer, number: u8| {
        writer.u8(number).raw(&[0; 16]);
    };
    match event {
        Event::TrustRefused { reason } => {
            number(writer, 8);
            writer.bytes(cut(reason).as_bytes());
        }
        Event::TrustExpired { ended } => {
            number(writer, 24);
            writer.u64(ended.0);
        }
        Event::CertificateRenewed { ends } => {
            number(writer, 20);
            writer.u64(ends.0);
        }
        Event::CertificateEnding { ends, reason } => {
            number(writer, 21);
            writer.u64(ends.0).bytes(cut(reason).as_bytes());
        }
        Event::CertificateEnded { ended, own } => {
            number(writer, 22);
            writer.u64(ended.0).u64(own.0);
        }
        _ => return None,
    }
    Some(())
}

fn read_some_uri(reader: &mut Reader<'_>, field: &'static str) -> Result<Option<DeviceUri>, DecodeError> {
    match reader.u8(field)? {
        0 => Ok(None),
        1 => read_uri(reader, field).map(Some),
        _ => Err(DecodeError::OutOfRange { field }),
    }
}

fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = reader.u8("record version")?;
    if version != VERSION {
        return Err(DecodeError::UnknownVersion { version });
    }
    let number = reader.u8("event")?;
    let channel = ChannelId(reader.array("channel")?);
    let reader = &mut reader;
    let text = |reader: &mut Reader<'_>| reader.text("text", TEXT_BYTES_MAX).map(str::to_owned);
    let event = match number {
        1 => Event::Invited { channel, inviter: read_uri(reader, "inviter")? },
        2 | 3 => {
            let (device, by) = (read_uri(reader, "device")?, read_uri(reader, "by")?);
            let epoch = Epoch(reader.u64("epoch")?);
            match number {
                2 => Event::MemberJoined { channel, device, by, epoch },
                _ => Event::MemberLeft { channel, device, by, epoch },
            }
        }
        4 => Event::LeaveProposed { channel, device: read_uri(reader, "device")? },
        5 => Event::Removed { channel, by: read_uri(reader, "by")? },
        14 => {
            let kind = ViolationKind::of(reader.u8("kind")?).ok_or(DecodeError::OutOfRange { field: "kind" })?;
            let sequence = Sequence(reader.u64("sequence")?);
            let sender = read_uri(reader, "sender")?;
            Event::Violation { channel, sequence, sender, kind, detail: text(reader)? }
        }
        7 => Event::ChannelGone { channel, reason: text(reader)? },
        13 => Event::GatewayBehind { channel },
        8 => Event::TrustRefused { reason: text(reader)? },
        9 => {
            let device = read_uri(reader, "device")?;
            Event::MemberRejoined { channel, device, epoch: Epoch(reader.u64("epoch")?) }
        }
        15 => {
            let incarnation = Incarnation(reader.u32("incarnation")?);
            let by = read_uri(reader, "by")?;
            let culprit = read_some_uri(reader, "culprit")?;
            Event::ChannelRestarted { channel, incarnation, by, culprit }
        }
        16 => Event::ChannelRestored { channel, epoch: Epoch(reader.u64("epoch")?) },
        17 => Event::StateRestored { channel, sequence: Sequence(reader.u64("sequence")?) },
        18 => Event::SeatMissing { channel, incarnation: Incarnation(reader.u32("incarnation")?) },
        19 => {
            let incarnation = Incarnation(reader.u32("incarnation")?);
            Event::OldGroupInfo { channel, incarnation, epoch: Epoch(reader.u64("epoch")?) }
        }
        25 => {
            let (epoch, sequence) = (Epoch(reader.u64("epoch")?), Sequence(reader.u64("sequence")?));
            let signer = read_some_uri(reader, "signer")?;
            Event::WrongGroupInfo { channel, epoch, sequence, signer, detail: text(reader)? }
        }
        20 => Event::CertificateRenewed { ends: Timestamp(reader.u64("ends")?) },
        21 => Event::CertificateEnding { ends: Timestamp(reader.u64("ends")?), reason: text(reader)? },
        22 => Event::CertificateEnded { ended: Timestamp(reader.u64("ended")?), own: Timestamp(reader.u64("own")?) },
        24 => Event::TrustExpired { ended: Timestamp(reader.u64("ended")?) },
        12 => Event::AwayTooLong { channel, sequence: Sequence(reader.u64("sequence")?) },
        11 => {
            let (reporter, commit) = (read_uri(reader, "reporter")?, Sequence(reader.u64("commit")?));
            let reason = ReportReason::of(reader.u8("reason")?).ok_or(DecodeError::OutOfRange { field: "reason" })?;
            let committer = if reader.is_empty() { None } else { Some(read_uri(reader, "committer")?) };
            Event::CommitReported { channel, reporter, commit, committer, reason }
        }
        23 => {
            let reporter = read_some_uri(reader, "reporter")?;
            Event::CommitterPaused { channel, reporter }
        }
        10 => {
            let device = read_uri(reader, "device")?;
            let reason = match reader.u8("reason")? {
                1 => RemovalReason::CertificateRevoked,
                2 => RemovalReason::CertificateExpired,
                _ => return Err(DecodeError::OutOfRange { field: "reason" }),
            };
            Event::RemovalAsked { channel, device, reason }
        }
        _ => return Err(DecodeError::OutOfRange { field: "event" }),
    };
    if reader.is_empty() { Ok(event) } else { Err(DecodeError::OutOfRange { field: "event" }) }
}

#[cfg(test)]
mod tests;
