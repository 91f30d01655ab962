//! How kept events are written. Numbers are stable; a field that is new stands at the end, and may be missing.

use lianxin_mls::{RemovalReason, ReportReason};
use lianxin_types::{ChannelId, DecodeError, DeviceUri, Epoch, Incarnation, Reader, Sequence, Timestamp, Writer};

use super::Event;
use crate::evidence::ViolationKind;
use crate::rows::read_uri;
use crate::wishes::{Change, NotMade};

const VERSION: u8 = 1;
const TEXT_BYTES_MAX: usize = 1024;

/// `None` for events of the moment.
pub(super) fn encode(event: &Event) -> Option<Vec<u8>> {
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
            write_some_uri(&mut writer, reporter.as_ref());
        }
        Event::ChannelRestarted { channel, incarnation, by, culprit } => {
            number(&mut writer, 15, channel);
            writer.u32(incarnation.0);
            uri(&mut writer, by);
            write_some_uri(&mut writer, culprit.as_ref());
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
            write_some_uri(writer.u64(epoch.0).u64(sequence.0), signer.as_ref());
            writer.bytes(cut(detail).as_bytes());
        }
        Event::ChangeNotMade { .. } => encode_not_made(&mut writer, event)?,
        Event::TrustRefused { .. }
        | Event::TrustExpired { .. }
        | Event::CertificateRenewed { .. }
        | Event::CertificateEnding { .. }
        | Event::CertificateEnded { .. } => encode_of_device(&mut writer, event)?,
        Event::EventsDropped { .. }
        | Event::Connected
        | Event::Disconnected { .. }
        | Event::ClockDiffers { .. }
        | Event::CaughtUp { .. } => return None,
    }
    Some(writer.finish())
}

/// A wish that was given up.
fn encode_not_made(writer: &mut Writer, event: &Event) -> Option<()> {
    let Event::ChangeNotMade { channel, change, devices, reason, detail } = event else { return None };
    writer.u8(26).raw(&channel.0).u8(*change as u8).u8(*reason as u8).u16(devices.len() as u16);
    for device in devices {
        writer.bytes(device.as_str().as_bytes());
    }
    writer.bytes(cut(detail).as_bytes());
    Some(())
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

fn write_some_uri(writer: &mut Writer, uri: Option<&DeviceUri>) {
    writer.u8(u8::from(uri.is_some()));
    if let Some(uri) = uri {
        writer.bytes(uri.as_str().as_bytes());
    }
}

fn read_some_uri(reader: &mut Reader<'_>, field: &'static str) -> Result<Option<DeviceUri>, DecodeError> {
    match reader.u8(field)? {
        0 => Ok(None),
        1 => read_uri(reader, field).map(Some),
        _ => Err(DecodeError::OutOfRange { field }),
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
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
        26 => {
            let change = Change::of(reader.u8("change")?).ok_or(DecodeError::OutOfRange { field: "change" })?;
            let reason = NotMade::of(reader.u8("reason")?).ok_or(DecodeError::OutOfRange { field: "reason" })?;
            let count = reader.u16("devices")?;
            let devices = (0..count).map(|_| read_uri(reader, "device")).collect::<Result<_, _>>()?;
            Event::ChangeNotMade { channel, change, devices, reason, detail: text(reader)? }
        }
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

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}
