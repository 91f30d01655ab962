//! How kept events are written, and read again.

use super::*;

fn device(name: &str) -> DeviceUri {
    format!("lianxin://{name}/app/b/c").parse().expect("well formed")
}

#[test]
fn kept_events_come_back_as_they_were() {
    let channel = ChannelId([7; 16]);
    let (epoch, detail) = (Epoch(4), "x".to_owned());
    let events = [
        Event::Invited { channel, inviter: device("a") },
        Event::MemberJoined { channel, device: device("a"), by: device("b"), epoch },
        Event::MemberLeft { channel, device: device("a"), by: device("b"), epoch },
        Event::LeaveProposed { channel, device: device("a") },
        Event::ChannelRestarted { channel, incarnation: Incarnation(3), by: device("a"), culprit: None },
        Event::ChannelRestarted { channel, incarnation: Incarnation(3), by: device("a"), culprit: Some(device("b")) },
        Event::ChannelRestored { channel, epoch },
        Event::WrongGroupInfo { channel, epoch, sequence: Sequence(8), signer: None, detail: detail.clone() },
        Event::SeatMissing { channel, incarnation: Incarnation(2) },
        Event::Removed { channel, by: device("b") },
        Event::Violation { channel, sequence: Sequence(9), sender: device("a"), kind: ViolationKind::NotSent, detail },
        Event::AwayTooLong { channel, sequence: Sequence(9) },
        Event::StateRestored { channel, sequence: Sequence(10) },
        Event::ChannelGone { channel, reason: "原因".to_owned() },
        Event::GatewayBehind { channel },
        Event::OldGroupInfo { channel, incarnation: Incarnation(1), epoch },
        Event::CertificateRenewed { ends: Timestamp(5) },
        Event::CertificateEnding { ends: Timestamp(5), reason: "原因".to_owned() },
        Event::CertificateEnded { ended: Timestamp(5), own: Timestamp(6) },
        Event::MemberRejoined { channel, device: device("a"), epoch },
        Event::RemovalAsked { channel, device: device("a"), reason: RemovalReason::CertificateRevoked },
        Event::CommitReported {
            channel,
            reporter: device("a"),
            commit: Sequence(3),
            committer: None,
            reason: ReportReason::CannotProcess,
        },
        Event::CommitReported {
            channel,
            reporter: device("a"),
            commit: Sequence(3),
            committer: Some(device("b")),
            reason: ReportReason::CannotProcess,
        },
        Event::CommitterPaused { channel, reporter: None },
        Event::CommitterPaused { channel, reporter: Some(device("a")) },
        Event::TrustExpired { ended: Timestamp(5) },
        Event::RemovalAsked { channel, device: device("a"), reason: RemovalReason::CertificateExpired },
    ];
    for event in events {
        let bytes = encode(&event).expect("kept");
        assert_eq!(format!("{:?}", decode(&bytes).expect("decodes")), format!("{event:?}"));
        assert!(decode(&bytes[..bytes.len() - 1]).is_err());
    }
    assert!(encode(&Event::Connected).is_none());
}

#[test]
fn golden() {
    let event = Event::Removed { channel: ChannelId([7; 16]), by: device("a") };
    let bytes = encode(&event).expect("kept");
    let shown: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(shown, format!("0105{}000000136c69616e78696e3a2f2f612f6170702f622f63", "07".repeat(16)));
}

#[test]
fn long_texts_are_cut_between_characters() {
    let reason = "字".repeat(1000);
    let bytes = encode(&Event::TrustRefused { reason }).expect("kept");
    assert!(matches!(decode(&bytes), Ok(Event::TrustRefused { reason }) if reason.len() == 1023));
}
