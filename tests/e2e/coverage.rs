//! Every call of the contract has a refused case and an audit record. The list of calls is read from the contract itself:
//! a call without a case here turns this red.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lianxin_connection::{CallError, Connection};
use lianxin_proto::channels::{Commit, Create, GetGroupInfo, GetWelcomeTree, Leave, List};
use lianxin_proto::directory::Hello;
use lianxin_proto::key_packages::{Claim, Publish};
use lianxin_proto::messages::{Frame, History, Receive, Send};
use lianxin_proto::{FILE_DESCRIPTOR_SET, Problem, ReasonCode};
use lianxin_types::{ChannelId, IdempotencyId, Sequence};
use prost::Message;

use crate::zone::Zone;

/// What a refused case must leave: the code that the caller got, and the action in its audit record. `None`: a call that
/// refuses nobody who gets past the handshake, with the event that it leaves instead.
type Expect = (Option<ReasonCode>, &'static str);

const INVENTED: ChannelId = ChannelId([0xEE; 16]);

#[tokio::test(flavor = "multi_thread")]
async fn every_call_has_a_refused_case_and_an_audit_record() {
    let zone = Zone::start().await;
    let connection = zone.connect(&zone.app("waibu", "app-1")).await.expect("connects");
    let mut seen: BTreeMap<String, Expect> = BTreeMap::new();
    for method in methods_of_the_contract() {
        let expect = refuse(&connection, &method).await;
        seen.insert(method, expect);
    }
    drop(connection);
    let bodies = zone.close().await.shared_bodies();
    for (method, (code, word)) in seen {
        let found = bodies.iter().any(|body| match code {
            Some(code) => {
                body["event"] == "refused"
                    && body["action"] == word
                    && format!("REASON_CODE_{}", body["reason"].as_str().unwrap_or_default()) == code.as_str_name()
            }
            None => body["event"] == word,
        });
        assert!(found, "{method} left no audit record of {word} {code:?}; there are: {bodies:#?}");
    }
}

/// Calls one method in a way that must be refused and checks the code.
async fn refuse(connection: &Connection, method: &str) -> Expect {
    let id = IdempotencyId([7; 16]);
    let junk = || Bytes::from_static(b"junk");
    match method {
        "lianxin.channels.v1.Channels/Create" => {
            let create = Create { id, group_info: junk(), ratchet_tree: junk() };
            (Some(code(connection.create(create).await, ReasonCode::InvalidMls)), "create-channel")
        }
        "lianxin.channels.v1.Channels/Commit" => {
            let commit = Commit { id, channel: INVENTED, commit: junk(), welcome: None, group_info: junk() };
            (Some(code(connection.commit(commit).await, ReasonCode::ChannelNotAvailable)), "commit")
        }
        "lianxin.channels.v1.Channels/Leave" => {
            let leave = Leave { id, channel: INVENTED, proposal: junk() };
            (Some(code(connection.leave(leave).await, ReasonCode::ChannelNotAvailable)), "leave")
        }
        "lianxin.channels.v1.Channels/GetWelcomeTree" => {
            let wanted = GetWelcomeTree { channel: INVENTED, sequence: Sequence(1) };
            (Some(code(connection.welcome_tree(wanted).await, ReasonCode::ChannelNotAvailable)), "public-state")
        }
        "lianxin.channels.v1.Channels/GetGroupInfo" => {
            let wanted = GetGroupInfo { channel: INVENTED };
            (Some(code(connection.group_info(wanted).await, ReasonCode::ChannelNotAvailable)), "public-state")
        }
        "lianxin.channels.v1.Channels/List" => {
            let page = connection.list(List { after: None }).await.expect("one's own channels may be listed");
            assert!(page.channels.is_empty());
            (None, "channels-listed")
        }
        "lianxin.messages.v1.Messages/Send" => (Some(refused_send(connection, id).await), "send"),
        "lianxin.messages.v1.Messages/Receive" => (Some(refused_follow(connection).await), "follow"),
        "lianxin.messages.v1.Messages/History" => {
            let wanted = History { channel: INVENTED, after: Sequence(0), events_max: 1 };
            (Some(code(connection.history(wanted).await, ReasonCode::ChannelNotAvailable)), "history")
        }
        "lianxin.key_packages.v1.KeyPackages/Publish" => {
            let publish = Publish { id, key_packages: vec![junk()], last_resort: None };
            (Some(code(connection.publish(publish).await, ReasonCode::InvalidMls)), "publish-key-packages")
        }
        "lianxin.key_packages.v1.KeyPackages/Claim" => {
            let owner = "lianxin://jiwei/app/a/1".parse().expect("well formed");
            let claim = Claim { id, channel: INVENTED, owners: vec![owner] };
            (Some(code(connection.claim(claim).await, ReasonCode::ChannelNotAvailable)), "claim-key-packages")
        }
        "lianxin.key_packages.v1.KeyPackages/Count" => {
            assert_eq!(connection.count().await.expect("one's own may be counted").one_time, 0);
            (None, "key-packages-counted")
        }
        "lianxin.directory.v1.Directory/Hello" => {
            let hello = Hello { protocol_version: 0, capabilities: vec![], client: "old".into() };
            (Some(code(connection.hello(hello).await, ReasonCode::UpgradeRequired)), "hello")
        }
        "lianxin.directory.v1.Directory/GetTrust" => {
            connection.trust().await.expect("everybody in the bundle may read it");
            (None, "trust-read")
        }
        other => panic!("{other} has no refused case here: write one"),
    }
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
fn methods_of_the_contract() -> BTreeSet<String> {
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
