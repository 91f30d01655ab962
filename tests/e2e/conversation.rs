//! Departments talk through a real gateway: order, bodies, limits, coming late, coming and going.

use lianxin_sdk::{ClientError, Event, Problem, ReasonCode, Sequence};
use lianxin_types::LIMITS;

use crate::talk::{accept, create, event, join, receive, send, soon, texts};
use crate::zone::Zone;

#[tokio::test(flavor = "multi_thread")]
async fn three_departments_see_the_same_messages_in_the_same_order() {
    let zone = Zone::start().await;
    let [jiwei, shenji, weijian] = zone.clients(["jiwei", "shenji", "weijian"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    let at_weijian = join(&at_jiwei, &weijian).await;

    const EACH: usize = 20;
    let talk = |channel: lianxin_sdk::Channel, name: &'static str| async move {
        for number in 0..EACH {
            send(&channel, format!("{name}第{number}条")).await;
        }
    };
    tokio::join!(
        talk(at_jiwei.clone(), "纪委监委"),
        talk(at_shenji.clone(), "审计局"),
        talk(at_weijian.clone(), "卫生健康委"),
    );
    // The log is in order, so whoever has a later message of somebody else has everything before it, its own included.
    let end = send(&at_jiwei, "完").await;
    send(&at_shenji, "完").await;
    let jiwei_saw = log_before(&at_jiwei, end, 2 * EACH + 1).await;
    let shenji_saw = log_before(&at_shenji, end, 2 * EACH + 1).await;
    let weijian_saw = log_before(&at_weijian, end, 2 * EACH + 2).await;
    assert_eq!(jiwei_saw.len(), 3 * EACH);
    let order = |messages: &[lianxin_sdk::Message]| -> Vec<_> {
        messages.iter().map(|one| (one.sequence, one.sender.clone(), one.body.clone())).collect()
    };
    assert_eq!(order(&jiwei_saw), order(&shenji_saw));
    assert_eq!(order(&jiwei_saw), order(&weijian_saw));
    for name in ["纪委监委", "审计局", "卫生健康委"] {
        let of_one: Vec<_> = texts(&jiwei_saw).into_iter().filter(|text| text.starts_with(name)).collect();
        let expect: Vec<_> = (0..EACH).map(|number| format!("{name}第{number}条")).collect();
        assert_eq!(of_one, expect, "each sender's own order is kept");
    }
    for client in [jiwei, shenji, weijian] {
        client.close().await.expect("closes");
    }
    let bodies = zone.close().await.shared_bodies();
    let accepted = bodies.iter().filter(|body| body["event"] == "message-accepted").count();
    assert_eq!(accepted, 3 * EACH + 2, "one audit record for each message");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_size_and_script_arrive_as_they_were_sent() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    let full = vec![0xA5; LIMITS.message_body_bytes_max];
    let bodies: Vec<Vec<u8>> =
        vec![vec![], vec![7], full, "线索移送：涉及资金，请核查。".into(), "👨‍👩‍👧‍👦🀄️ emoji".into(), vec![0; 255]];
    for body in &bodies {
        send(&at_jiwei, body.clone()).await;
    }
    let received: Vec<_> = receive(&at_shenji, bodies.len()).await.into_iter().map(|one| one.body).collect();
    assert_eq!(received, bodies);

    let over = vec![0; LIMITS.message_body_bytes_max + 1];
    let refused = soon("an answer", at_jiwei.send(over)).await.expect_err("one byte too many");
    let limit = LIMITS.message_body_bytes_max;
    assert!(
        matches!(refused, ClientError::TooLarge { bytes, bytes_max } if bytes == limit + 1 && bytes_max == limit),
        "{refused:?}"
    );
    send(&at_jiwei, "还能发").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["还能发"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_offline_gets_everything_once_in_order_and_is_told_when_it_is_done() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    send(&at_jiwei, "第0条").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["第0条"]);
    let channel = at_shenji.id();
    drop(at_shenji);
    shenji.close().await.expect("closes");

    const MISSED: usize = 300;
    let mut last = 0;
    for number in 1..=MISSED {
        last = send(&at_jiwei, format!("第{number}条")).await;
    }
    let shenji = zone.client("shenji", "app-1").await;
    let caught_up = event(&shenji, "caught up", |event| match event {
        Event::CaughtUp { channel: id, sequence } if id == channel => Some(sequence),
        _ => None,
    });
    assert!(caught_up.await >= Sequence(last));
    let at_shenji = shenji.channel(channel);
    let missed = receive(&at_shenji, MISSED).await;
    let expect: Vec<_> = (1..=MISSED).map(|number| format!("第{number}条")).collect();
    assert_eq!(texts(&missed), expect);
    send(&at_jiwei, "现在").await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), ["现在"], "nothing was given out twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_reads_nothing_from_before_and_a_removed_member_nothing_from_after() {
    let zone = Zone::start().await;
    let [jiwei, shenji, weijian] = zone.clients(["jiwei", "shenji", "weijian"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    let channel = at_jiwei.id();
    send(&at_jiwei, "之前").await;
    let at_weijian = join(&at_jiwei, &weijian).await;
    send(&at_jiwei, "之间").await;
    assert_eq!(texts(&receive(&at_weijian, 1).await), ["之间"], "nothing from before it joined");

    soon("a removal", at_jiwei.remove(&[shenji.device().clone()])).await.expect("removed");
    let by = event(&shenji, "its removal", |event| match event {
        Event::Removed { by, .. } => Some(by),
        _ => None,
    });
    assert_eq!(by.await, *jiwei.device());
    send(&at_jiwei, "之后").await;
    assert_eq!(texts(&receive(&at_weijian, 1).await), ["之后"]);
    let refused = soon("an answer", at_shenji.send("我还在")).await.expect_err("removed");
    assert!(matches!(refused, ClientError::NotMember), "{refused:?}");
    let seen = at_shenji.history(Sequence(0), 100).await.expect("readable");
    assert_eq!(texts(&seen), ["之前", "之间"]);
    let page = raw_history(&zone, "shenji", channel).await;
    assert_eq!(page, Err(ReasonCode::NotMember), "the gateway serves it nothing more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_leaves_and_the_others_go_on() {
    let zone = Zone::start().await;
    let [jiwei, shenji, weijian] = zone.clients(["jiwei", "shenji", "weijian"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji", "weijian"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    let at_weijian = join(&at_jiwei, &weijian).await;
    soon("leaving", at_shenji.leave()).await.expect("left");
    let gone = event(&weijian, "a departure", |event| match event {
        Event::MemberLeft { device, .. } => Some(device),
        _ => None,
    });
    assert_eq!(gone.await, *shenji.device());
    send(&at_weijian, "继续").await;
    assert_eq!(texts(&receive(&at_jiwei, 1).await), ["继续"]);
    let members = at_jiwei.info().await.expect("known").members;
    assert_eq!(members.len(), 2);
    assert!(!members.contains(shenji.device()));
}

#[tokio::test(flavor = "multi_thread")]
async fn departments_that_a_channel_does_not_name_stay_out() {
    let zone = Zone::start().await;
    let [jiwei, weijian] = zone.clients(["jiwei", "weijian"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let refused = soon("an answer", at_jiwei.invite(&[weijian.device().clone()])).await.expect_err("not named");
    match refused {
        ClientError::Refused(Problem { code: ReasonCode::DepartmentNotNamed, department, .. }) => {
            assert_eq!(department.map(|name| name.to_string()), Some("weijian".into()));
        }
        other => panic!("{other:?}"),
    }
    let channel = at_jiwei.id();
    let outsider = raw_history(&zone, "waibu", channel).await;
    assert_eq!(outsider, Err(ReasonCode::ChannelNotAvailable));
    let invented = raw_history(&zone, "waibu", lianxin_types::ChannelId([1; 16])).await;
    assert_eq!(outsider, invented, "a foreign channel and an invented one look alike");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_of_one_department_and_a_second_channel_keep_apart() {
    let zone = Zone::start().await;
    let first = zone.client("jiwei", "app-1").await;
    let second = zone.client("jiwei", "app-2").await;
    let shenji = zone.client("shenji", "app-1").await;
    let inner = create(&first, &["jiwei"]).await;
    let inner_second = join(&inner, &second).await;
    let outer = create(&first, &["jiwei", "shenji"]).await;
    soon("an invite", outer.invite(&[second.device().clone(), shenji.device().clone()])).await.expect("both at once");
    let outer_second = accept(&second).await;
    let outer_shenji = accept(&shenji).await;
    send(&inner, "内部").await;
    send(&outer, "对外").await;
    assert_eq!(texts(&receive(&inner_second, 1).await), ["内部"]);
    assert_eq!(texts(&receive(&outer_second, 1).await), ["对外"]);
    assert_eq!(texts(&receive(&outer_shenji, 1).await), ["对外"]);
    assert_eq!(shenji.channels().await.expect("listed").len(), 1);
    assert_eq!(second.channels().await.expect("listed").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_one_device_keep_the_order_of_their_calls_however_many_wait() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    const CALLS: usize = 600;
    // One task that begins call after call: more than may wait for the gateway at once, so that every queue is full.
    let mut calls = futures_util::stream::FuturesOrdered::new();
    let mut begun = std::pin::pin!(async {
        for number in 0..CALLS {
            let channel = at_jiwei.clone();
            calls.push_back(async move { channel.send(format!("第{number}条")).await });
            tokio::select! {
                biased;
                Some(sent) = futures_util::StreamExt::next(&mut calls), if calls.len() > 450 => { sent.expect("accepted"); }
                () = std::future::ready(()) => {}
            }
        }
        while let Some(sent) = futures_util::StreamExt::next(&mut calls).await {
            sent.expect("accepted");
        }
    });
    soon("all receipts", begun.as_mut()).await;
    let expect: Vec<_> = (0..CALLS).map(|number| format!("第{number}条")).collect();
    assert_eq!(texts(&receive(&at_shenji, CALLS).await), expect);
}

/// Everything before `end`, once `others` messages of others have come.
async fn log_before(channel: &lianxin_sdk::Channel, end: u64, others: usize) -> Vec<lianxin_sdk::Message> {
    receive(channel, others).await;
    let log = channel.history(Sequence(0), 1_000).await.expect("readable");
    log.into_iter().filter(|message| message.sequence.0 < end).collect()
}

/// What the gateway itself answers to a request for a channel's log.
async fn raw_history(zone: &Zone, department: &str, channel: lianxin_types::ChannelId) -> Result<usize, ReasonCode> {
    let connection = zone.connect(&zone.app(department, "app-2")).await.expect("connects");
    raw_history_by(&connection, channel).await
}

async fn raw_history_by(
    connection: &lianxin_connection::Connection,
    channel: lianxin_types::ChannelId,
) -> Result<usize, ReasonCode> {
    let wanted = lianxin_proto::messages::History { channel, after: Sequence(0), events_max: 10 };
    match connection.history(wanted).await {
        Ok(page) => Ok(page.events.len()),
        Err(lianxin_connection::CallError::Refused(problem)) => Err(problem.code),
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creator_sends_before_its_own_start_has_come_back() {
    let zone = Zone::start().await;
    let jiwei = zone.client("jiwei", "app-1").await;
    for round in 0..10 {
        let channel = create(&jiwei, &["jiwei"]).await;
        let receipt = soon("a receipt", channel.send(format!("第{round}个频道"))).await.expect("accepted at once");
        assert_eq!(receipt.sequence, Sequence(2));
    }
}
