//! Messages of the contract, both ways: requests as the gateway reads them, responses as the SDK does.

use bytes::Bytes;
use lianxin_proto::certificates::{self, v1 as certificates_v1};
use lianxin_proto::channels::{self, v1 as channels_v1};
use lianxin_proto::directory::{self, v1 as directory_v1};
use lianxin_proto::key_packages::{self, v1 as key_packages_v1};
use lianxin_proto::messages::{self, v1 as messages_v1};
use lianxin_proto::{Problem, ReasonCode, Receipt};
use lianxin_tlog::EventKind;
use lianxin_types::{ChannelId, DeviceUri, Digest, IdempotencyId, Sequence, Timestamp};
use prost::Message;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::{Parser, Shape};
use crate::stock::stock;
use crate::{Depth, office};

/// What a message of the wire becomes, and valid ones.
macro_rules! read {
    ($name:literal, $wire:ty => $typed:ty, $specimens:expr) => {
        Parser::new(
            $name,
            Shape::Protobuf,
            |bytes| Depth::of(<$wire>::decode(bytes), <$typed>::try_from),
            || {
                let wire: Vec<$wire> = $specimens;
                wire.iter().map(|wire| wire.encode_to_vec()).collect()
            },
        )
    };
}

const ID: IdempotencyId = IdempotencyId([1; 16]);
const CHANNEL: ChannelId = ChannelId([2; 16]);

pub(super) const PARSERS: &[Parser] = &[
    read!("channels_create_request", channels_v1::CreateRequest => channels::Create, {
        let (group_info, ratchet_tree) = (stock().start_info.clone().into(), stock().start_tree.clone().into());
        vec![channels::Create { id: ID, group_info, ratchet_tree }.into()]
    }),
    read!("channels_create_response", channels_v1::CreateResponse => Receipt, vec![receipt().into()]),
    read!("channels_commit_request", channels_v1::CommitRequest => channels::Commit, commits()),
    read!("channels_commit_response", channels_v1::CommitResponse => Receipt, vec![receipt().into()]),
    read!("channels_replace_group_info_request", channels_v1::ReplaceGroupInfoRequest => channels::ReplaceGroupInfo, {
        let group_info = stock().start_info.clone().into();
        vec![channels::ReplaceGroupInfo { id: ID, channel: CHANNEL, group_info }.into()]
    }),
    read!("channels_replace_group_info_response", channels_v1::ReplaceGroupInfoResponse => Receipt, {
        vec![receipt().into()]
    }),
    read!("channels_leave_request", channels_v1::LeaveRequest => channels::Leave, {
        vec![channels::Leave { id: ID, channel: CHANNEL, proposal: stock().proposals[0].clone().into() }.into()]
    }),
    read!("channels_leave_response", channels_v1::LeaveResponse => Receipt, vec![receipt().into()]),
    read!("channels_report_request", channels_v1::ReportRequest => channels::Report, {
        vec![channels::Report { id: ID, channel: CHANNEL, report: vec![7; 134].into() }.into()]
    }),
    read!("channels_report_response", channels_v1::ReportResponse => Receipt, vec![receipt().into()]),
    read!("channels_allow_committer_request", channels_v1::AllowCommitterRequest => channels::AllowCommitter, {
        let committer = "lianxin://jiwei/app/a/1".parse().expect("well formed");
        vec![channels::AllowCommitter { id: ID, channel: CHANNEL, committer }.into()]
    }),
    read!("channels_allow_committer_response", channels_v1::AllowCommitterResponse => Receipt, vec![receipt().into()]),
    read!("channels_start_incarnation_request", channels_v1::StartIncarnationRequest => channels::StartIncarnation, {
        let (group_info, ratchet_tree) = (stock().start_info.clone().into(), stock().trees[0].clone().into());
        vec![channels::StartIncarnation { id: ID, channel: CHANNEL, group_info, ratchet_tree }.into()]
    }),
    read!("channels_start_incarnation_response", channels_v1::StartIncarnationResponse => Receipt, vec![receipt().into()]),
    read!("channels_get_welcome_tree_request", channels_v1::GetWelcomeTreeRequest => channels::GetWelcomeTree, {
        vec![channels::GetWelcomeTree { channel: CHANNEL, sequence: Sequence(2) }.into()]
    }),
    read!("channels_get_welcome_tree_response", channels_v1::GetWelcomeTreeResponse => channels::WelcomeTree, {
        vec![channels::WelcomeTree { ratchet_tree: stock().trees[0].clone().into() }.into()]
    }),
    read!("channels_get_group_info_request", channels_v1::GetGroupInfoRequest => channels::GetGroupInfo, {
        vec![channels::GetGroupInfo { channel: CHANNEL }.into()]
    }),
    read!("channels_get_group_info_response", channels_v1::GetGroupInfoResponse => channels::GroupInfo, {
        let (group_info, ratchet_tree) = (stock().group_infos[0].clone().into(), stock().trees[0].clone().into());
        vec![channels::GroupInfo { group_info, ratchet_tree, sequence: Sequence(2) }.into()]
    }),
    read!("channels_list_request", channels_v1::ListRequest => channels::List, {
        vec![channels::List { after: None }.into(), channels::List { after: Some(CHANNEL) }.into()]
    }),
    read!("channels_list_response", channels_v1::ListResponse => channels::ChannelPage, vec![page().into()]),
    read!("messages_send_request", messages_v1::SendRequest => messages::Send, {
        vec![messages::Send { id: ID, channel: CHANNEL, mls: stock().messages[0].clone().into() }.into()]
    }),
    read!("messages_send_response", messages_v1::SendResponse => messages::SendOutcome, {
        let refused = Problem::new(ReasonCode::WrongEpoch).with_sequence(Sequence(3));
        let outcomes = [Ok(receipt()), Err(refused)];
        outcomes.into_iter().map(|result| messages::SendOutcome { id: ID, result }.into()).collect()
    }),
    read!("messages_receive_request", messages_v1::ReceiveRequest => messages::Receive, asked()),
    read!("messages_receive_response", messages_v1::ReceiveResponse => messages::Frame, frames()),
    read!("messages_history_request", messages_v1::HistoryRequest => messages::History, {
        vec![messages::History { channel: CHANNEL, after: Sequence(3), events_max: 100 }.into()]
    }),
    read!("messages_history_response", messages_v1::HistoryResponse => messages::HistoryPage, {
        let events = vec![event(4), event(5)];
        vec![messages::HistoryPage { events, head: Sequence(9), first_retained: Sequence(1) }.into()]
    }),
    read!("key_packages_publish_request", key_packages_v1::PublishRequest => key_packages::Publish, {
        let packages: Vec<Bytes> = stock().key_packages.iter().cloned().map(Bytes::from).collect();
        let (key_packages, last_resort) = (packages[..1].to_vec(), packages.get(1).cloned());
        vec![key_packages::Publish { id: ID, key_packages, last_resort }.into()]
    }),
    read!("key_packages_publish_response", key_packages_v1::PublishResponse => Receipt, vec![receipt().into()]),
    read!("key_packages_claim_request", key_packages_v1::ClaimRequest => key_packages::Claim, {
        vec![key_packages::Claim { id: ID, channel: CHANNEL, owners: vec![uri("a"), uri("b")] }.into()]
    }),
    read!("key_packages_claim_response", key_packages_v1::ClaimResponse => key_packages::Claimed, {
        let key_packages = stock().key_packages.iter().cloned().map(Bytes::from).collect();
        vec![key_packages::Claimed { key_packages, receipt: receipt() }.into()]
    }),
    read!("key_packages_count_response", key_packages_v1::CountResponse => key_packages::Count, {
        vec![key_packages_v1::CountResponse { one_time: 7, last_resort: true }]
    }),
    read!("directory_hello_request", directory_v1::HelloRequest => directory::Hello, {
        let capabilities = vec!["a-capability".to_owned()];
        vec![directory::Hello { protocol_version: 1, capabilities, client: "lianxin-test/1".into() }.into()]
    }),
    read!("directory_hello_response", directory_v1::HelloResponse => directory::HelloAnswer, vec![hello().into()]),
    read!("directory_get_trust_request", directory_v1::GetTrustRequest => directory::GetTrust, {
        vec![directory::GetTrust { known_version: 7 }.into()]
    }),
    read!("directory_get_trust_response", directory_v1::GetTrustResponse => directory::Trust, {
        let trust_bundle = office().federation().bundle().note.clone().into();
        let federation = office().federation();
        let lists = federation.revocation_lists();
        let revocation_lists = lists.map(Bytes::copy_from_slice).collect();
        let earlier_bundles = vec![Bytes::from_static(b"an earlier note")];
        vec![directory::Trust { trust_bundle, revocation_lists, earlier_bundles }.into()]
    }),
    read!("certificates_renew_request", certificates_v1::RenewRequest => certificates::Renew, vec![renew().into()]),
    read!("certificates_renew_response", certificates_v1::RenewResponse => certificates::Issued, vec![issued().into()]),
    read!("certificates_pending_response", certificates_v1::PendingResponse => certificates::Pending, {
        let renewals = vec![certificates::PendingRenewal { name: Digest([4; 32]), request: renew() }];
        vec![certificates::Pending { renewals }.into()]
    }),
    read!("certificates_answer_request", certificates_v1::AnswerRequest => certificates::Answer, {
        let refused = certificates::RenewalOutcome::Refused(certificates::RenewalRefusal::UnknownDevice);
        let outcomes = [certificates::RenewalOutcome::Issued(issued()), refused];
        outcomes.map(|outcome| certificates::Answer { name: Digest([4; 32]), outcome }.into()).to_vec()
    }),
    read!("certificates_answer_response", certificates_v1::AnswerResponse => Receipt, vec![receipt().into()]),
    Parser::new(
        "types_problem",
        Shape::Protobuf,
        |bytes| Depth::of_reading(Problem::from_bytes(bytes).ok_or(())),
        || {
            vec![
                Problem::new(ReasonCode::TooLarge).with_field("commit").with_limit(4).with_found(5).to_bytes().to_vec(),
            ]
        },
    ),
];

fn renew() -> certificates::Renew {
    let request = super::trust::renewal_request();
    certificates::Renew {
        id: request.id,
        tls_request: request.tls_request.into(),
        mls_certificate: request.mls_certificate.into(),
        signature: request.signature,
    }
}

fn issued() -> certificates::Issued {
    let app = office().minted().app("jiwei", "app-1").expect("minted");
    let read = |file| CertificateDer::from_pem_file(file).expect("minted").to_vec().into();
    certificates::Issued { tls_certificate: read(app.tls_certificate), mls_certificate: read(app.mls_certificate) }
}

fn uri(name: &str) -> DeviceUri {
    format!("lianxin://jiwei/app/{name}/1").parse().expect("well formed")
}

fn receipt() -> Receipt {
    Receipt {
        sequence: Sequence(4),
        gateway_time: Timestamp(1_800_000_000_000_000),
        expiry: Some(Timestamp(1_900_000_000_000_000)),
        policy_version: 0,
        leaf_index: 12,
        leaf_hash: Digest([3; 32]),
        chain_hash: Some(Digest([6; 32])),
    }
}

fn commits() -> Vec<channels_v1::CommitRequest> {
    let commit = |number: usize, welcome: Option<&Vec<u8>>| channels::Commit {
        id: ID,
        channel: CHANNEL,
        commit: stock().commits[number].clone().into(),
        welcome: welcome.cloned().map(Bytes::from),
        group_info: stock().group_infos[number].clone().into(),
    };
    vec![commit(0, stock().welcomes.first()).into(), commit(1, None).into()]
}

fn page() -> channels::ChannelPage {
    let summary = |byte: u8| channels::ChannelSummary {
        channel: ChannelId([byte; 16]),
        epoch: lianxin_types::Epoch(3),
        incarnation: lianxin_types::Incarnation(0),
        head: Sequence(9),
        joined: Sequence(2),
        member_count: 3,
    };
    channels::ChannelPage { channels: vec![summary(1), summary(2)], more: true }
}

fn event(sequence: u64) -> messages::Event {
    messages::Event {
        channel: CHANNEL,
        sequence: Sequence(sequence),
        kind: EventKind::Application,
        sender: uri("a"),
        gateway_time: Timestamp(1_800_000_000_000_000),
        expiry: None,
        label_reference: Digest([4; 32]),
        mls: stock().messages[0].clone().into(),
        leaf_index: sequence,
        leaf_hash: Digest([5; 32]),
        idempotency_id: ID,
    }
}

fn asked() -> Vec<messages_v1::ReceiveRequest> {
    let cursors = vec![(CHANNEL, Sequence(7))];
    let asked = [
        messages::Receive::Follow { channel: CHANNEL, after: Sequence(1) },
        messages::Receive::Unfollow { channel: CHANNEL },
        messages::Receive::Confirm { cursors, inbox: vec![1, 300] },
    ];
    asked.map(messages_v1::ReceiveRequest::from).to_vec()
}

fn frames() -> Vec<messages_v1::ReceiveResponse> {
    let gateway_time = Timestamp(1_800_000_000_000_000);
    let head = lianxin_tlog::Head { sequence: Sequence(2), chain_hash: Digest([6; 32]) };
    let welcome = messages::Welcome {
        channel: CHANNEL,
        head,
        welcome: stock().welcomes[0].clone().into(),
        inviter: uri("b"),
        gateway_time,
    };
    let reason = Problem::new(ReasonCode::NotMember);
    let frames = [
        messages::Frame::Events(vec![event(4), event(5)]),
        messages::Frame::Opened { bundle_version: 1, bundle_digest: Digest([7; 32]), gateway_time },
        messages::Frame::CaughtUp { channel: CHANNEL, sequence: Sequence(5) },
        messages::Frame::Gap { channel: CHANNEL, first_retained: Sequence(3) },
        messages::Frame::Inbox { inbox_id: 1, item: messages::InboxItem::Welcome(welcome) },
        messages::Frame::Heartbeat { gateway_time },
        messages::Frame::Closed { channel: Some(CHANNEL), reason },
    ];
    frames.map(messages_v1::ReceiveResponse::from).to_vec()
}

fn hello() -> directory::HelloAnswer {
    directory::HelloAnswer {
        protocol_version: 1,
        capabilities: Vec::new(),
        zone: "cn-zj-1".parse().expect("well formed"),
        caller: uri("a"),
        bundle_version: 1,
        bundle_digest: Digest([8; 32]),
        gateway_time: Timestamp(1_800_000_000_000_000),
        limits: directory::Limit::table(),
    }
}
