//! Every call of the contract has a refused case and an accepted one, and each leaves its audit record. The list of calls
//! is read from the contract itself: a call without its cases here turns this red.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lianxin_certs_dev::Specimen;
use lianxin_connection::{CallError, Connection};
use lianxin_proto::certificates::{Answer, Renew, RenewalOutcome, RenewalRefusal};
use lianxin_proto::channels::v1::ListRequest;
use lianxin_proto::channels::v1::channels_client::ChannelsClient;
use lianxin_proto::channels::{
    AllowCommitter, Commit, Create, GetGroupInfo, GetWelcomeTree, Leave, List, ReplaceGroupInfo, Report,
    StartIncarnation,
};
use lianxin_proto::directory::v1::GetTrustRequest;
use lianxin_proto::directory::v1::directory_client::DirectoryClient;
use lianxin_proto::directory::{GetTrust, Hello};
use lianxin_proto::key_packages::v1::CountRequest;
use lianxin_proto::key_packages::v1::key_packages_client::KeyPackagesClient;
use lianxin_proto::key_packages::{Claim, Publish};
use lianxin_proto::messages::{Frame, History, Receive, Send};
use lianxin_proto::{FILE_DESCRIPTOR_SET, Problem, ReasonCode};
use lianxin_types::{ChannelId, Digest, IdempotencyId, Sequence};
use prost::Message;
use serde_json::Value;

use crate::forge::Forger;
use crate::raw::{RawDevice, fresh_id};
use crate::talk::soon;
use crate::wire;
use crate::zone::Zone;

/// Where a call was refused, and so what must be in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Refused {
    /// By the gateway, which knew the caller: the code that the caller got, and the action in the record.
    Inside(ReasonCode, &'static str),
    /// With the connection. The call has an empty request and is open to every certificate that gets in, so there is no way
    /// to be refused behind the handshake that does not need a clock or a disk that fails.
    AtTheDoor,
}

const INVENTED: ChannelId = ChannelId([0xEE; 16]);

#[tokio::test(flavor = "multi_thread")]
async fn every_call_has_a_refused_case_and_one_audit_record_of_it() {
    let zone = Zone::start().await;
    let connection = zone.connect(&zone.app("waibu", "app-1")).await.expect("connects");
    let mut refused: BTreeMap<Refused, Vec<String>> = BTreeMap::new();
    for method in methods_of_the_contract() {
        refused.entry(refuse(&zone, &connection, &method).await).or_default().push(method);
    }
    drop(connection);
    let bodies = zone.close().await.shared_bodies();
    for (how, methods) in &refused {
        let recorded = match how {
            Refused::Inside(code, action) => {
                assert_eq!(
                    methods.len(),
                    1,
                    "{methods:?} share the word {action}: one's record would pass for the other's"
                );
                let wanted = |body: &&Value| {
                    body["event"] == "refused" && body["action"] == *action && reason(body) == code.as_str_name()
                };
                bodies.iter().filter(wanted).count() as u64
            }
            Refused::AtTheDoor => refused_at_the_door(&bodies),
        };
        assert_eq!(recorded, methods.len() as u64, "records of {methods:?} {how:?}; there are: {bodies:#?}");
    }
    let of_callers = bodies.iter().filter(|body| body["event"] == "refused").count();
    let inside = refused.keys().filter(|how| **how != Refused::AtTheDoor).count();
    assert_eq!(of_callers, inside, "nothing else was refused: {bodies:#?}");
}

/// How many revoked certificates were turned away. The first of a minute is recorded at once, and the minute's whole count
/// later if it is more.
fn refused_at_the_door(bodies: &[Value]) -> u64 {
    let mut minutes: BTreeMap<String, u64> = BTreeMap::new();
    for body in bodies.iter().filter(|body| body["event"] == "refused-before-caller") {
        assert_eq!(body["reason"], "certificate_revoked");
        let count = minutes.entry(format!("{} {}", body["source"], body["minute"])).or_default();
        *count = body["count"].as_u64().expect("a number").max(*count);
    }
    minutes.values().sum()
}

fn reason(body: &Value) -> String {
    format!("REASON_CODE_{}", body["reason"].as_str().unwrap_or_default())
}

/// Calls one method in a way that must be refused and checks the code.
async fn refuse(zone: &Zone, connection: &Connection, method: &str) -> Refused {
    use Refused::{AtTheDoor, Inside};
    let id = IdempotencyId([7; 16]);
    let junk = || Bytes::from_static(b"junk");
    match method {
        "lianxin.channels.v1.Channels/Create" => {
            let create = Create { id, group_info: junk(), ratchet_tree: junk() };
            Inside(code(connection.create(create).await, ReasonCode::InvalidMls), "create-channel")
        }
        "lianxin.channels.v1.Channels/Commit" => {
            let commit = Commit { id, channel: INVENTED, commit: junk(), welcome: None, group_info: junk() };
            Inside(code(connection.commit(commit).await, ReasonCode::ChannelNotAvailable), "commit")
        }
        "lianxin.channels.v1.Channels/Leave" => {
            let leave = Leave { id, channel: INVENTED, proposal: junk() };
            Inside(code(connection.leave(leave).await, ReasonCode::ChannelNotAvailable), "leave")
        }
        "lianxin.channels.v1.Channels/Report" => {
            let report = Report { id, channel: INVENTED, report: junk() };
            Inside(code(connection.report(report).await, ReasonCode::ChannelNotAvailable), "report")
        }
        "lianxin.channels.v1.Channels/AllowCommitter" => {
            let committer = "lianxin://waibu/app/a/1".parse().expect("well formed");
            let allow = AllowCommitter { id, channel: INVENTED, committer };
            let answer = connection.allow_committer(allow).await;
            Inside(code(answer, ReasonCode::ChannelNotAvailable), "allow-committer")
        }
        "lianxin.channels.v1.Channels/StartIncarnation" => {
            let start = StartIncarnation { id, channel: INVENTED, group_info: junk(), ratchet_tree: junk() };
            let answer = connection.start_incarnation(start).await;
            Inside(code(answer, ReasonCode::ChannelNotAvailable), "start-incarnation")
        }
        "lianxin.channels.v1.Channels/GetWelcomeTree" => {
            let wanted = GetWelcomeTree { channel: INVENTED, sequence: Sequence(1) };
            Inside(code(connection.welcome_tree(wanted).await, ReasonCode::ChannelNotAvailable), "welcome-tree")
        }
        "lianxin.channels.v1.Channels/GetGroupInfo" => {
            let wanted = GetGroupInfo { channel: INVENTED };
            Inside(code(connection.group_info(wanted).await, ReasonCode::ChannelNotAvailable), "group-info")
        }
        "lianxin.channels.v1.Channels/ReplaceGroupInfo" => {
            let replace = ReplaceGroupInfo { id, channel: INVENTED, group_info: junk() };
            let answer = connection.replace_group_info(replace).await;
            Inside(code(answer, ReasonCode::ChannelNotAvailable), "replace-group-info")
        }
        "lianxin.channels.v1.Channels/List" => Inside(refused_list(zone).await, "list"),
        "lianxin.messages.v1.Messages/Send" => Inside(refused_send(connection, id).await, "send"),
        "lianxin.messages.v1.Messages/Receive" => Inside(refused_follow(connection).await, "follow"),
        "lianxin.messages.v1.Messages/History" => {
            let wanted = History { channel: INVENTED, after: Sequence(0), events_max: 1 };
            Inside(code(connection.history(wanted).await, ReasonCode::ChannelNotAvailable), "history")
        }
        "lianxin.key_packages.v1.KeyPackages/Publish" => {
            let publish = Publish { id, key_packages: vec![junk()], last_resort: None };
            Inside(code(connection.publish(publish).await, ReasonCode::InvalidMls), "publish-key-packages")
        }
        "lianxin.key_packages.v1.KeyPackages/Claim" => {
            let owner = "lianxin://jiwei/app/a/1".parse().expect("well formed");
            let claim = Claim { id, channel: INVENTED, owners: vec![owner] };
            Inside(code(connection.claim(claim).await, ReasonCode::ChannelNotAvailable), "claim-key-packages")
        }
        "lianxin.key_packages.v1.KeyPackages/Count" => {
            if let Ok(channel) = wire_as_revoked(zone).await {
                let answer = KeyPackagesClient::new(channel).count(CountRequest {}).await;
                assert!(
                    Problem::from_status(&answer.expect_err("no connection")).is_none(),
                    "refused by the handshake, not inside"
                );
            }
            AtTheDoor
        }
        "lianxin.directory.v1.Directory/Hello" => {
            let hello = Hello { protocol_version: 0, capabilities: vec![], client: "old".into() };
            Inside(code(connection.hello(hello).await, ReasonCode::UpgradeRequired), "hello")
        }
        "lianxin.directory.v1.Directory/GetTrust" => {
            if let Ok(channel) = wire_as_revoked(zone).await {
                let answer = DirectoryClient::new(channel).get_trust(GetTrustRequest { known_version: 0 }).await;
                assert!(
                    Problem::from_status(&answer.expect_err("no connection")).is_none(),
                    "refused by the handshake, not inside"
                );
            }
            AtTheDoor
        }
        "lianxin.certificates.v1.Certificates/Renew" => {
            let renew = Renew { id, tls_request: junk(), mls_certificate: junk(), signature: [0; 64] };
            Inside(code(connection.renew(renew).await, ReasonCode::Malformed), "renew-certificates")
        }
        "lianxin.certificates.v1.Certificates/Pending" => {
            Inside(code(connection.pending_renewals().await, ReasonCode::WrongKind), "read-renewals")
        }
        "lianxin.certificates.v1.Certificates/Answer" => {
            let outcome = RenewalOutcome::Refused(RenewalRefusal::Revoked);
            let answer = Answer { name: Digest([7; 32]), outcome };
            Inside(code(connection.answer_renewal(answer).await, ReasonCode::WrongKind), "answer-renewal")
        }
        other => panic!("{other} has no refused case here: write one"),
    }
}

/// A connection that the gateway ends, now or with the first call.
async fn wire_as_revoked(zone: &Zone) -> Result<tonic::transport::Channel, String> {
    let revoked = zone.minted.specimen(Specimen::Revoked);
    wire::channel(zone, &revoked.tls_certificate, &revoked.tls_key).await
}

/// A cursor that is not an id: our own connection cannot spell it.
async fn refused_list(zone: &Zone) -> ReasonCode {
    let app = zone.app("waibu", "app-1");
    let channel = wire::channel(zone, &app.tls_certificate, &app.tls_key).await.expect("let in");
    let request = ListRequest { after_channel_id: Bytes::from_static(b"5byte") };
    let status = ChannelsClient::new(channel).list(request).await.expect_err("malformed");
    let problem = Problem::from_status(&status).expect("a Problem");
    assert_eq!((problem.code, &*problem.field), (ReasonCode::Malformed, "after_channel_id"));
    problem.code
}

/// The event of an accepted call, and how often the story below makes the call.
fn accepted(method: &str) -> (&'static str, usize) {
    match method {
        "lianxin.channels.v1.Channels/Create" => ("channel-started", 1),
        "lianxin.channels.v1.Channels/Commit" => ("committed", 2),
        "lianxin.channels.v1.Channels/Leave" => ("leave-proposed", 1),
        "lianxin.channels.v1.Channels/Report" => ("commit-reported", 1),
        "lianxin.channels.v1.Channels/AllowCommitter" => ("committer-allowed", 1),
        "lianxin.channels.v1.Channels/StartIncarnation" => ("incarnation-started", 1),
        "lianxin.channels.v1.Channels/GetWelcomeTree" => ("welcome-tree-read", 2),
        "lianxin.channels.v1.Channels/GetGroupInfo" => ("group-info-read", 1),
        "lianxin.channels.v1.Channels/ReplaceGroupInfo" => ("group-info-replaced", 1),
        "lianxin.channels.v1.Channels/List" => ("channels-listed", 1),
        "lianxin.messages.v1.Messages/Send" => ("message-accepted", 1),
        // One for each invitation, one to follow the channel.
        "lianxin.messages.v1.Messages/Receive" => ("receive-opened", 3),
        // After the start, after each commit, by each device that joined, by the one that reports, and to see what it reports.
        "lianxin.messages.v1.Messages/History" => ("history-read", 7),
        "lianxin.key_packages.v1.KeyPackages/Publish" => ("key-packages-published", 2),
        "lianxin.key_packages.v1.KeyPackages/Claim" => ("key-packages-claimed", 2),
        "lianxin.key_packages.v1.KeyPackages/Count" => ("key-packages-counted", 1),
        // One for each device, and the issuer.
        "lianxin.directory.v1.Directory/Hello" => ("session-opened", 4),
        "lianxin.directory.v1.Directory/GetTrust" => ("trust-read", 1),
        "lianxin.certificates.v1.Certificates/Renew" => ("certificate-requested", 1),
        "lianxin.certificates.v1.Certificates/Pending" => ("renewals-read", 1),
        "lianxin.certificates.v1.Certificates/Answer" => ("certificate-issued", 1),
        other => panic!("{other} has no accepted case here: write one"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_accepted_call_leaves_one_audit_record() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.raws(["jiwei", "shenji"]).await;
    let channel = jiwei.channel(&["jiwei", "shenji"]).await;
    jiwei.add(channel, &shenji).await;
    let message = (fresh_id(), jiwei.encrypt(channel, "收到").await);
    jiwei.send(channel, &[message]).await.remove(0).expect("accepted");
    jiwei.replace(channel, jiwei.group_info(channel).await, fresh_id()).await.expect("a member may");
    follow(&jiwei.connection, channel).await;
    let connection = &jiwei.connection;
    soon("the group", connection.group_info(GetGroupInfo { channel })).await.expect("a member may read it");
    assert_eq!(soon("a page", connection.list(List { after: None })).await.expect("listed").channels.len(), 1);
    soon("a count", connection.count()).await.expect("one's own may be counted");
    soon("the bundle", connection.trust(GetTrust { known_version: 0 })).await.expect("everybody in it may read it");
    let second = RawDevice::open(&zone, "jiwei", "app-2").await;
    jiwei.add(channel, &second).await;
    shenji.read(channel).await;
    let last = shenji.view(channel).await.head.sequence;
    let said = crate::reports::report(&shenji, channel, last.0).await;
    let bytes = crate::reports::signed(&zone, ("shenji", "app-1"), &said);
    shenji.report(channel, bytes, fresh_id()).await.expect("accepted");
    second.allow(channel, &jiwei.uri).await.expect("accepted");
    second.leave(channel, second.leave_proposal(channel).await).await.expect("accepted");
    let app = zone.app("shenji", "app-1");
    let (forger, head) = (Forger::new(&app.mls_certificate, &app.mls_key), shenji.view(channel).await.head);
    let (group, home) = ((channel, 1), "cn-zj-1".parse().expect("well formed"));
    let start = forger.start_behind(&shenji.federation, group, &home, &["jiwei", "shenji"], [8; 32], head);
    shenji.start_incarnation(channel, &start, fresh_id()).await.expect("who has reported it may go on without it");
    crate::renewals::renewed(&zone, &jiwei.connection, &zone.app("jiwei", "app-1")).await;
    drop((jiwei, shenji, second));

    let bodies = zone.close().await.shared_bodies();
    for method in methods_of_the_contract() {
        let (event, times) = accepted(&method);
        let recorded = bodies.iter().filter(|body| body["event"] == event).count();
        assert_eq!(recorded, times, "records of {method} as {event}; there are: {bodies:#?}");
    }
    let followed = bodies.iter().filter(|body| body["event"] == "followed").count();
    assert_eq!(followed, 1, "what a stream follows has its own record");
    assert!(bodies.iter().all(|body| body["event"] != "refused"), "{bodies:#?}");
}

/// Follows a channel until the stream has caught up.
async fn follow(connection: &Connection, channel: ChannelId) {
    let (control, mut frames) = connection.receive_stream();
    control.request(Receive::Follow { channel, after: Sequence(0) }).await.expect("asked");
    soon("the stored events", async {
        while !matches!(frames.next().await.expect("open").expect("a frame"), Frame::CaughtUp { .. }) {}
    })
    .await;
}

fn code<T: std::fmt::Debug>(answer: Result<T, CallError>, expect: ReasonCode) -> ReasonCode {
    match answer {
        Err(CallError::Refused(Problem { code, .. })) => {
            assert_eq!(code, expect);
            code
        }
        other => panic!("expected {expect:?}, got {other:?}"),
    }
}

async fn refused_send(connection: &Connection, id: IdempotencyId) -> ReasonCode {
    let (sender, mut outcomes) = connection.send_stream();
    sender.send(Send { id, channel: INVENTED, mls: Bytes::from_static(b"junk") }).await.expect("sent");
    let outcome = outcomes.next().await.expect("an answer").expect("inside the stream");
    assert_eq!(outcome.id, id);
    let problem = outcome.result.expect_err("refused");
    assert_eq!(problem.code, ReasonCode::ChannelNotAvailable);
    problem.code
}

async fn refused_follow(connection: &Connection) -> ReasonCode {
    let (control, mut frames) = connection.receive_stream();
    control.request(Receive::Follow { channel: INVENTED, after: Sequence(0) }).await.expect("asked");
    loop {
        match frames.next().await.expect("a frame").expect("the stream goes on") {
            Frame::Closed { channel, reason } => {
                assert_eq!((channel, reason.code), (Some(INVENTED), ReasonCode::ChannelNotAvailable));
                return reason.code;
            }
            Frame::Opened { .. } | Frame::Heartbeat { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// `package.Service/Method` of every call in the contract.
pub(crate) fn methods_of_the_contract() -> BTreeSet<String> {
    let set = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the contract");
    let mut methods = BTreeSet::new();
    for file in set.file {
        for service in &file.service {
            for method in &service.method {
                methods.insert(format!("{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    assert!(methods.len() >= 14, "{methods:?}");
    methods
}
