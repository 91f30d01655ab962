//! Requests that nobody meant, at a real gateway over real TLS: mutants of every call's request, and of the commit bundles,
//! key packages and proposals in them, made from a live channel.
//!
//! 250 mutants by default, 10,000 in a long run (`LIANXIN_TEST_LONG=1 cargo test -p lianxin-e2e mutants`). The seed
//! (`LIANXIN_TEST_SEED`) decides which call is mutated how; the MLS bytes are drawn anew. A failure shows the request's bytes.
//!
//! What cannot be read as protobuf at all is refused as MALFORMED like the rest; it is also counted apart and held against our
//! own reading of the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lianxin_certs_dev::AppPaths;
use lianxin_mutation::{MlsKind, Mutator, Piece, mls, protobuf};
use lianxin_profile::REPORT_BYTES;
use lianxin_proto::certificates::{self, RenewalOutcome, RenewalRefusal, v1 as certificates_v1};
use lianxin_proto::channels::{self, v1 as channels_v1};
use lianxin_proto::directory::{self, v1 as directory_v1};
use lianxin_proto::key_packages::{self, v1 as key_packages_v1};
use lianxin_proto::messages::{self, v1 as messages_v1};
use lianxin_proto::{Problem, ReasonCode};
use lianxin_types::{ChannelId, DeviceUri, Digest, Sequence};
use prost::Message as _;
use tonic::{Request, Status};

use crate::coverage::methods_of_the_contract;
use crate::effort::{seed, share};
use crate::raw::{RawDevice, fresh_id};
use crate::talk::soon;
use crate::wire::{self, AsItIs};
use crate::zone::Zone;

/// One call that can be mutated.
struct Call {
    path: &'static str,
    is_stream: bool,
    request: Bytes,
    /// Whether these bytes are the request's message at all.
    reads: fn(&[u8]) -> bool,
    /// MLS bytes inside the request: a mutant of these is put in their place.
    inside: Vec<Bytes>,
}

#[derive(Debug, Default)]
struct Tally {
    accepted: usize,
    refused: BTreeMap<ReasonCode, usize>,
    unread: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn mutants_of_every_request_are_refused_by_name_and_harm_nobody() {
    let zone = Zone::start().await;
    let (b, e) = (RawDevice::open(&zone, "shenji", "app-1").await, RawDevice::open(&zone, "weijian", "app-1").await);
    let honest = b.channel(&["shenji", "weijian"]).await;
    b.add(honest, &e).await;
    let attacker = RawDevice::open(&zone, "jiwei", "app-1").await;
    let invited = RawDevice::open(&zone, "jiwei", "app-2").await;
    let app = zone.app("jiwei", "app-1");
    let wire = wire::channel(&zone, &app.tls_certificate, &app.tls_key).await.expect("let in");
    let mut client = tonic::client::Grpc::new(wire);
    let mut calls = calls(&attacker, &invited, &app).await;
    let mutated: BTreeSet<_> = calls.iter().map(|call| call.path.trim_start_matches('/')).collect();
    let all = methods_of_the_contract();
    let unmutated: Vec<_> = all.iter().filter(|method| !mutated.contains(method.as_str())).collect();
    // Their requests are empty.
    let empty = ["lianxin.certificates.v1.Certificates/Pending", "lianxin.key_packages.v1.KeyPackages/Count"];
    assert_eq!(unmutated, empty);

    let (mut tally, mut said) = (Tally::default(), 0);
    for number in 0..share(250, 10_000) {
        let call = &calls[number % calls.len()];
        let bytes = mutant(call, number);
        let answer = soon("an answer", ask(&mut client, call, bytes.clone())).await;
        let accepted = tally.count(call, &bytes, answer);
        if accepted && call.path.starts_with("/lianxin.channels.v1.Channels/C") {
            // Valid after all (no gateway can check a membership tag): the next ones are made of another channel.
            calls = self::calls(&attacker, &invited, &app).await;
        }
        if number.is_multiple_of(50) {
            say(&b, honest).await;
            say(&e, honest).await;
            said += 2;
        }
    }
    println!("seed {}: {tally:?}", seed());
    assert!(tally.refused.len() >= 5, "the mutants do not come far: {tally:?}");

    b.read(honest).await;
    e.read(honest).await;
    let (one, other) = (b.view(honest).await, e.view(honest).await);
    assert_eq!((one.epoch, one.head), (other.epoch, other.head));
    // The start, the invitation, and what was said.
    assert_eq!(one.head.sequence, Sequence(2 + said));
    drop((b, e, attacker, invited, client));
    let bodies = zone.close().await.shared_bodies();
    let recorded: BTreeSet<_> = bodies.iter().filter_map(|body| body["reason"].as_str()).collect();
    for code in tally.refused.keys() {
        let name = code.as_str_name().trim_start_matches("REASON_CODE_");
        assert!(recorded.contains(name), "{name} is not on record; recorded: {recorded:?}");
    }
}

impl Tally {
    /// Counts the answer, or fails the story. Gives whether the mutant was accepted.
    fn count(&mut self, call: &Call, bytes: &Bytes, answer: Result<Option<Problem>, Status>) -> bool {
        let shown = || format!("{} with {} of seed {}", call.path, hex(bytes), seed());
        let problem = match answer {
            Ok(None) => {
                self.accepted += 1;
                return true;
            }
            Ok(Some(problem)) => problem,
            Err(status) => {
                Problem::from_status(&status).unwrap_or_else(|| panic!("{status:?} has no Problem: {}", shown()))
            }
        };
        if !(call.reads)(bytes) {
            assert_eq!((problem.code, &*problem.field), (ReasonCode::Malformed, "request"), "{}", shown());
            self.unread += 1;
        }
        assert_ne!(problem.code, ReasonCode::Internal, "{}", shown());
        *self.refused.entry(problem.code).or_default() += 1;
        false
    }
}

/// Makes the call; a refusal inside a stream counts as the call's.
async fn ask(
    client: &mut tonic::client::Grpc<tonic::transport::Channel>,
    call: &Call,
    bytes: Bytes,
) -> Result<Option<Problem>, Status> {
    client.ready().await.expect("the connection stays, whatever was asked");
    let path = http::uri::PathAndQuery::from_static(call.path);
    if !call.is_stream {
        return client.unary(Request::new(bytes), path, AsItIs).await.map(|_| None);
    }
    // A last request that is refused for sure says that everything before it has been answered.
    let last = if call.path.ends_with("Send") {
        let send = messages::Send { id: fresh_id(), channel: INVENTED, mls: Bytes::from_static(b"last") };
        messages_v1::SendRequest::from(send).encode_to_vec()
    } else {
        let follow = messages::Receive::Follow { channel: INVENTED, after: Sequence(0) };
        messages_v1::ReceiveRequest::from(follow).encode_to_vec()
    };
    let requests = tokio_stream::iter([bytes, last.into()]);
    let mut answers = client.streaming(Request::new(requests), path, AsItIs).await?.into_inner();
    let mut found = None;
    while let Some(answer) = answers.message().await? {
        if call.path.ends_with("Send") {
            let outcome = messages_v1::SendResponse::decode(answer).expect("an answer of the contract");
            if let Some(messages_v1::send_response::Outcome::Refusal(refusal)) = outcome.outcome {
                found = found.or(Some(Problem::from_bytes(&refusal).expect("a Problem")));
            }
        } else if let messages::Frame::Closed { channel, reason } = frame(answer) {
            if channel == Some(INVENTED) {
                return Ok(found);
            }
            found = Some(reason);
        }
    }
    Ok(found)
}

fn frame(answer: Bytes) -> messages::Frame {
    let wire = messages_v1::ReceiveResponse::decode(answer).expect("an answer of the contract");
    wire.try_into().expect("a frame of the contract")
}

/// The request with its fields changed, or with a mutant of the MLS bytes in their place.
fn mutant(call: &Call, number: usize) -> Bytes {
    let mut mutator = Mutator::of_case(seed(), call.path, number as u64);
    let message = protobuf(&call.request);
    if call.inside.is_empty() || number.is_multiple_of(3) {
        return mutator.mutate(&message, &message).bytes.into();
    }
    let part = &call.inside[number % call.inside.len()];
    let (piece, donor) = (pieces(part), pieces(&call.inside[0]));
    let changed = mutator.mutate(&piece, &donor).bytes;
    let mut request = message;
    let place = request.places(|field| field.encode().ends_with(part) && field.inner().is_empty()).last().copied();
    if let Some(field) = place.and_then(|place| request.at_mut(place)) {
        field.content = lianxin_mutation::Content::Bytes(changed);
    }
    request.encode().into()
}

fn pieces(bytes: &[u8]) -> Piece {
    let message = mls(MlsKind::Message, bytes);
    if message.count() > 2 { message } else { mls(MlsKind::Tree, bytes) }
}

const INVENTED: ChannelId = ChannelId([0xEE; 16]);

/// What requests are made of: bytes of a channel of the attacker's own, which would all be accepted.
struct Live {
    channel: ChannelId,
    leaving: ChannelId,
    invited: DeviceUri,
    start: [Bytes; 2],
    /// Commit, Welcome, GroupInfo.
    bundle: [Bytes; 3],
    /// Another GroupInfo of the epoch.
    group_info: Bytes,
    message: Bytes,
    proposal: Bytes,
    package: Bytes,
}

impl Live {
    async fn new(attacker: &RawDevice, invited: &RawDevice) -> Self {
        let start = attacker.start(ChannelId(fresh_id().0), &["jiwei"], crate::talk::label()).await;
        let channel = attacker.channel(&["jiwei"]).await;
        // A last resort: what is claimed again and again and hardly ever used would come to its limit.
        invited.publish_last_resort().await;
        let claimed = attacker.claim(channel, &invited.uri).await.expect("claimed").remove(0);
        let message = attacker.encrypt(channel, "原文").await;
        // Who has proposed to leave can do nothing else, so that is in a channel of its own.
        let leaving = attacker.channel(&["jiwei"]).await;
        let proposal = attacker.leave_proposal(leaving).await;
        let group_info = attacker.group_info(channel).await;
        let bundle = attacker.invite_bundle(channel, &claimed).await;
        Self {
            channel,
            leaving,
            invited: invited.uri.clone(),
            start: [start.group_info.clone().into(), start.ratchet_tree.clone().into()],
            bundle: [bundle.commit.clone().into(), bundle.welcome.clone().into(), bundle.group_info.clone().into()],
            group_info,
            message,
            proposal,
            package: attacker.key_packages(1).await.remove(0),
        }
    }
}

/// Every call with a request that would be accepted, for a new channel of `attacker`.
async fn calls(attacker: &RawDevice, invited: &RawDevice, app: &AppPaths) -> Vec<Call> {
    let live = Live::new(attacker, invited).await;
    let mut calls = calls_of_channels(&live);
    calls.extend(other_calls(&live));
    calls.extend(calls_of_certificates(crate::renewals::asked(app)));
    calls
}

fn call<W: prost::Message + Default>(path: &'static str, request: impl Into<W>, inside: &[&Bytes]) -> Call {
    Call {
        path,
        is_stream: path.ends_with("Send") || path.ends_with("Receive"),
        request: request.into().encode_to_vec().into(),
        reads: |bytes| W::decode(bytes).is_ok(),
        inside: inside.iter().copied().cloned().collect(),
    }
}

fn calls_of_channels(live: &Live) -> Vec<Call> {
    let (id, channel) = (fresh_id(), live.channel);
    let [group_info, ratchet_tree] = live.start.clone();
    let [commit, welcome, next] = live.bundle.clone();
    let create = channels::Create { id, group_info, ratchet_tree };
    let commit = channels::Commit { id, channel, commit, welcome: Some(welcome), group_info: next };
    let leave = channels::Leave { id, channel: live.leaving, proposal: live.proposal.clone() };
    let report = channels::Report { id, channel, report: Bytes::from_static(&[1; REPORT_BYTES]) };
    let allow = channels::AllowCommitter { id, channel, committer: live.invited.clone() };
    let replace = channels::ReplaceGroupInfo { id, channel, group_info: live.group_info.clone() };
    let [group_info, ratchet_tree] = live.start.clone();
    let next = channels::StartIncarnation { id, channel, group_info, ratchet_tree };
    let tree = channels::GetWelcomeTree { channel, sequence: Sequence(1) };
    let bundle = live.bundle.each_ref();
    vec![
        call::<channels_v1::CreateRequest>("/lianxin.channels.v1.Channels/Create", create, &live.start.each_ref()),
        call::<channels_v1::CommitRequest>("/lianxin.channels.v1.Channels/Commit", commit, &bundle),
        call::<channels_v1::LeaveRequest>("/lianxin.channels.v1.Channels/Leave", leave, &[&live.proposal]),
        call::<channels_v1::ReportRequest>("/lianxin.channels.v1.Channels/Report", report, &[]),
        call::<channels_v1::AllowCommitterRequest>("/lianxin.channels.v1.Channels/AllowCommitter", allow, &[]),
        call::<channels_v1::StartIncarnationRequest>(
            "/lianxin.channels.v1.Channels/StartIncarnation",
            next,
            &live.start.each_ref(),
        ),
        call::<channels_v1::GetWelcomeTreeRequest>("/lianxin.channels.v1.Channels/GetWelcomeTree", tree, &[]),
        call::<channels_v1::GetGroupInfoRequest>(
            "/lianxin.channels.v1.Channels/GetGroupInfo",
            channels::GetGroupInfo { channel },
            &[],
        ),
        call::<channels_v1::ReplaceGroupInfoRequest>(
            "/lianxin.channels.v1.Channels/ReplaceGroupInfo",
            replace,
            &[&live.group_info],
        ),
        call::<channels_v1::ListRequest>(
            "/lianxin.channels.v1.Channels/List",
            channels::List { after: Some(channel) },
            &[],
        ),
    ]
}

fn other_calls(live: &Live) -> Vec<Call> {
    let (id, channel) = (fresh_id(), live.channel);
    let send = messages::Send { id, channel, mls: live.message.clone() };
    let follow = messages::Receive::Follow { channel, after: Sequence(0) };
    let history = messages::History { channel, after: Sequence(0), events_max: 100 };
    let publish = key_packages::Publish { id, key_packages: vec![live.package.clone()], last_resort: None };
    let claim = key_packages::Claim { id, channel, owners: vec![live.invited.clone()] };
    let hello = directory::Hello { protocol_version: 1, capabilities: vec!["x".into()], client: "mutant/1".into() };
    let trust = directory::GetTrust { known_version: 1 };
    vec![
        call::<messages_v1::SendRequest>("/lianxin.messages.v1.Messages/Send", send, &[&live.message]),
        call::<messages_v1::ReceiveRequest>("/lianxin.messages.v1.Messages/Receive", follow, &[]),
        call::<messages_v1::HistoryRequest>("/lianxin.messages.v1.Messages/History", history, &[]),
        call::<key_packages_v1::PublishRequest>(
            "/lianxin.key_packages.v1.KeyPackages/Publish",
            publish,
            &[&live.package],
        ),
        call::<key_packages_v1::ClaimRequest>("/lianxin.key_packages.v1.KeyPackages/Claim", claim, &[]),
        call::<directory_v1::HelloRequest>("/lianxin.directory.v1.Directory/Hello", hello, &[]),
        call::<directory_v1::GetTrustRequest>("/lianxin.directory.v1.Directory/GetTrust", trust, &[]),
    ]
}

fn calls_of_certificates(renew: certificates::Renew) -> Vec<Call> {
    let outcome = RenewalOutcome::Refused(RenewalRefusal::Unsound);
    let answer = certificates::Answer { name: Digest([7; 32]), outcome };
    let inside = [renew.tls_request.clone(), renew.mls_certificate.clone()];
    vec![
        call::<certificates_v1::RenewRequest>("/lianxin.certificates.v1.Certificates/Renew", renew, &inside.each_ref()),
        call::<certificates_v1::AnswerRequest>("/lianxin.certificates.v1.Certificates/Answer", answer, &[]),
    ]
}

async fn say(device: &RawDevice, channel: ChannelId) {
    device.read(channel).await;
    let message = (fresh_id(), device.encrypt(channel, "还在").await);
    device.send(channel, &[message]).await.remove(0).expect("an honest member is served");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
