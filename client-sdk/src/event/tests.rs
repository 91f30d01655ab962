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
        Event::ChangeNotMade {
            channel,
            change: Change::Remove,
            devices: vec![device("a"), device("b")],
            reason: NotMade::Contended,
            detail: "原因".to_owned(),
        },
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

#[test]
fn how_many_events_were_dropped_unread_is_said_before_the_next_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = lianxin_keystore::StateKey::from_bytes([1; 32]);
    let keystore =
        lianxin_keystore::Keystore::open(folder.path(), &key, Arc::new(lianxin_types::SystemRandom)).expect("opens");
    let read = keystore.transaction_blocking::<_, ClientError>(move |tx| {
        for number in 1..=KEPT_MAX + 3 {
            keep(tx, &Event::TrustExpired { ended: Timestamp(number) })?;
        }
        [0, 1, 3, KEPT_MAX + 2, KEPT_MAX + 3].map(|after| kept(tx, after, 2)).into_iter().collect::<Result<Vec<_>, _>>()
    });
    let shown = |(position, event): &(u64, Event)| match event {
        Event::EventsDropped { count } => (*position, format!("{count} dropped")),
        Event::TrustExpired { ended } => (*position, ended.0.to_string()),
        other => panic!("{other:?}"),
    };
    let shown: Vec<Vec<_>> = read.expect("readable").iter().map(|page| page.iter().map(shown).collect()).collect();
    let at = |position: u64| (position, position.to_string());
    assert_eq!(
        shown,
        [
            vec![(3, "3 dropped".to_owned()), at(4), at(5)],
            vec![(3, "2 dropped".to_owned()), at(4), at(5)],
            vec![at(4), at(5)],
            vec![at(KEPT_MAX + 3)],
            vec![],
        ]
    );
}
