use lianxin_types::{Classification, Digest, Epoch, Incarnation};

use super::*;
use crate::event::Change;
use crate::pseudonym::PseudonymKey;

/// Counts up, so that bodies and salts are the same in every run.
struct Counting;

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

fn recorder() -> Recorder {
    let pseudonyms = Pseudonyms::new(PseudonymKey::new([5; 32]));
    Recorder::new("cn-zj-1".parse().expect("well formed"), pseudonyms, Arc::new(Counting))
}

fn device(text: &str) -> DeviceUri {
    text.parse().expect("well formed")
}

fn every_event() -> Vec<AuditEvent> {
    let change =
        Change { added: vec![device("lianxin://shenji/app/b/1")], removed: vec![device("lianxin://weijian/app/c/1")] };
    vec![
        AuditEvent::ChannelStarted {
            departments: vec!["shenji".parse().expect("name"), "jiwei".parse().expect("name")],
            classification: Classification::General3,
        },
        AuditEvent::Committed { epoch: Epoch(4), change: change.clone(), bytes: 1_500 },
        AuditEvent::IncarnationStarted { incarnation: Incarnation(1), change },
        AuditEvent::Rejoined { epoch: Epoch(4), bytes: 1_500 },
        AuditEvent::LeaveProposed { epoch: Epoch(4) },
        AuditEvent::RemovalQueued {
            epoch: Epoch(4),
            reason: "certificate-revoked",
            device: device("lianxin://weijian/app/c/1"),
        },
        AuditEvent::CommitReported {
            epoch: Epoch(4),
            sequence: 9,
            reason: "cannot-process",
            committer: device("lianxin://weijian/app/c/1"),
        },
        AuditEvent::CommitterAllowed { committer: device("lianxin://weijian/app/c/1") },
        AuditEvent::MessageAccepted { epoch: Epoch(4), bytes: 600 },
        AuditEvent::KeyPackagesPublished { one_time: 20, last_resort: true },
        AuditEvent::KeyPackagesClaimed { owners: vec![device("lianxin://shenji/app/b/1")] },
        AuditEvent::CertificateRequested,
        AuditEvent::RenewalsRead { renewals: 2 },
        AuditEvent::CertificateIssued {
            ends: Timestamp::from_seconds(1_797_592_000),
            device: device("lianxin://jiwei/app/b/1"),
        },
        AuditEvent::CertificateRefused { reason: "unknown-device", device: device("lianxin://jiwei/app/b/1") },
        AuditEvent::ReceiveOpened,
        AuditEvent::Followed { after: 3 },
        AuditEvent::HistoryRead { after: 3 },
        AuditEvent::GroupInfoRead,
        AuditEvent::GroupInfoReplaced { epoch: Epoch(4) },
        AuditEvent::WelcomeTreeRead,
        AuditEvent::ChannelsListed,
        AuditEvent::KeyPackagesCounted,
        AuditEvent::TrustRead,
        AuditEvent::InboxConfirmed { items: 1 },
        AuditEvent::SessionOpened { protocol_version: 1 },
        AuditEvent::Refused { action: "send", reason: "WRONG_EPOCH" },
        AuditEvent::CallsCounted { reason: "RESOURCE_EXHAUSTED", minute: 5, count: 2 },
        AuditEvent::RefusedBeforeCaller { source: Digest([1; 32]), reason: "expired", minute: 5, count: 2 },
        AuditEvent::GatewayStarted {
            version: "0.1.0",
            fencing_number: 1,
            bundle_version: 1,
            bundle_digest: Digest([2; 32]),
            configuration_digest: Digest([3; 32]),
        },
        AuditEvent::Reloaded {
            configuration_digest_before: Digest([3; 32]),
            configuration_digest: Digest([4; 32]),
            bundle_version: 2,
            bundle_digest: Digest([5; 32]),
            revocation_lists_digest: Digest([6; 32]),
            changed: vec!["trust.bundle", "log.filter"],
        },
        AuditEvent::ReloadRefused { reason: "needs-restart", keys: vec!["zone", "listen"] },
        AuditEvent::GatewayStopped,
    ]
}

/// The bodies of every event, as an auditor reads them. `LIANXIN_BLESS=1` writes the file anew; the diff is the decision.
#[test]
fn bodies_are_as_in_the_golden_file() {
    let caller = device("lianxin://jiwei/app/a/1");
    let mut shown = String::new();
    for event in every_event() {
        let now = Timestamp::from_seconds(1_795_000_000);
        let draft = recorder().record(&event, Some(&caller), None, None, 0, now).expect("canonical");
        shown.push_str(&format!("{} {:?}\n", event.name(), draft.family));
        for part in draft.parts {
            let audience = String::from_utf8(part.audience.as_bytes().to_vec()).expect("text");
            let body = String::from_utf8(part.body).expect("text");
            shown.push_str(&format!("  [{audience}] {body}\n"));
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/recorder/bodies.golden");
    if std::env::var_os("LIANXIN_BLESS").is_some() {
        std::fs::write(path, &shown).expect("writable");
    }
    assert_eq!(shown, std::fs::read_to_string(path).expect("golden file"));
}

#[test]
fn no_part_holds_an_identity() {
    let caller = device("lianxin://jiwei/app/secret-id-1/node-7");
    let added = device("lianxin://shenji/app/secret-id-2/node-8");
    let event =
        AuditEvent::Committed { epoch: Epoch(1), change: Change { added: vec![added], removed: vec![] }, bytes: 1 };
    let draft = recorder().record(&event, Some(&caller), None, None, 0, Timestamp(0)).expect("canonical");
    assert_eq!(draft.parts.len(), 3);
    for part in draft.parts {
        let body = String::from_utf8(part.body).expect("text");
        assert!(!body.contains("secret-id") && !body.contains("node-"), "{body}");
    }
}

#[test]
fn a_department_reads_of_its_own_devices_only() {
    let event = &every_event()[1];
    let caller = device("lianxin://jiwei/app/a/1");
    let draft = recorder().record(event, Some(&caller), None, None, 0, Timestamp(0)).expect("canonical");
    let of = |name: &str| {
        let part = draft.parts.iter().find(|part| part.audience.as_bytes() == name.as_bytes()).expect("a part");
        String::from_utf8(part.body.clone()).expect("text")
    };
    assert!(of("jiwei").contains("actor") && !of("jiwei").contains("added"));
    assert!(of("shenji").contains("added") && !of("shenji").contains("actor"));
    assert!(of("weijian").contains("removed") && !of("weijian").contains("added"));
}
