//! The gateway's process is killed with `kill -9` while departments talk and a member comes and goes, again and again. Nothing
//! acknowledged is lost, nothing is doubled, all members are in one group state and in the gateway's epoch, the log has no holes,
//! every event has its audit record, and every record of the zone is as it was written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lianxin_harness::Stage;
use lianxin_sdk::{Channel, ChannelId, Client, ClientError, Receipt, Sequence};
use lianxin_store::{StoredEvent, ZoneStore};
use lianxin_tlog::EventKind;
use lianxin_types::{Clock as _, SystemClock};
use rand::{Rng as _, SeedableRng as _};

use crate::effort::{closing_line, seed, share};
use crate::talk::{accept, create, receive, soon};
use crate::zone::{check_store, open_store};

/// What one department was told is accepted: sequence, and the body that it stands for.
type Acknowledged = BTreeMap<u64, String>;

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_under_load_it_loses_and_doubles_nothing() {
    let kills = share(3, 100);
    let mut random = rand::rngs::StdRng::seed_from_u64(seed());
    let mut stage = Stage::start().await.expect("a gateway process");
    let mut clients = Vec::new();
    for department in ["jiwei", "shenji", "weijian"] {
        clients.push(connected(&stage, department, "app-1").await);
    }
    let guest = connected(&stage, "shenji", "app-2").await;
    let channels = channel_of_all(&clients).await;

    let enough = Arc::new(AtomicBool::new(false));
    let talkers: Vec<_> = channels
        .iter()
        .enumerate()
        .map(|(number, channel)| tokio::spawn(talk(channel.clone(), number, Arc::clone(&enough))))
        .collect();
    let visits = tokio::spawn(come_and_go(channels[0].clone(), guest, Arc::clone(&enough)));
    for _ in 0..kills {
        let pause = Duration::from_millis(random.random_range(100..700));
        SystemClock.sleep(pause).await;
        stage.gateway.kill().await.expect("killed");
        stage.gateway.start().await.expect("starts again");
        for client in &clients {
            soon("a connection after the kill", client.connected()).await.expect("connects");
        }
    }
    enough.store(true, Ordering::Relaxed);
    let mut acknowledged = Acknowledged::new();
    let mut own = Vec::new();
    for talker in talkers {
        let told = talker.await.expect("talks");
        own.push(told.keys().copied().collect::<BTreeSet<_>>());
        for (sequence, body) in told {
            assert_eq!(acknowledged.insert(sequence, body), None, "two messages were told the same place");
        }
    }
    assert!(acknowledged.len() >= kills * 10, "there was hardly any load: {} messages", acknowledged.len());
    let (guest, visits) = visits.await.expect("comes and goes");
    assert!(visits >= kills.div_ceil(10), "hardly any commits: {visits} visits");
    change(|| channels[0].invite(std::slice::from_ref(guest.device()))).await;
    let guests = soon("a joined channel", accept_in_the_end(&guest)).await;
    let receipt = soon("a receipt", channels[1].send("最后一条")).await.expect("accepted");
    acknowledged.insert(receipt.sequence.0, "最后一条".to_owned());
    own[1].insert(receipt.sequence.0);

    for (channel, own) in channels.iter().zip(&own) {
        assert_eq!(
            messages(channel, receipt.sequence).await,
            acknowledged,
            "what a member's log has, and what was told"
        );
        let others: Vec<u64> = acknowledged.keys().copied().filter(|sequence| !own.contains(sequence)).collect();
        let given = receive(channel, others.len()).await;
        let given: Vec<u64> = given.iter().map(|message| message.sequence.0).collect();
        assert_eq!(given, others, "what an application is given of others: each once, in order");
    }
    // The guest has what came while it was there, and nothing twice.
    let seen = messages(&guests, receipt.sequence).await;
    assert!(seen.iter().all(|(sequence, body)| acknowledged.get(sequence).is_none_or(|sent| sent == body)));
    assert!(seen.contains_key(&receipt.sequence.0));
    let id = guests.id();
    let mut infos = Vec::new();
    for channel in channels.iter().chain([&guests]) {
        infos.push(channel.info().await.expect("known"));
    }
    for info in &infos[1..] {
        assert_eq!(info.epoch_authenticator, infos[0].epoch_authenticator, "a fork: {infos:?}");
    }
    drop((channels, guests));
    for client in clients.into_iter().chain([guest]) {
        client.close().await.expect("closes");
    }
    stage.gateway.stop().await.expect("stops in order");
    check_store(&stage.gateway.zone_folder(), stage.folder());
    let store = open_store(&stage.gateway.zone_folder());
    let head = store.head(&id).expect("readable").expect("the channel");
    assert!(infos.iter().all(|info| info.epoch == head.epoch), "{infos:?}, and the gateway is in {:?}", head.epoch);
    assert_eq!(head.members.len(), 4);
    check_log(&*store, id, &acknowledged);
    closing_line(&format!("{kills} kills, {visits} visits, {} messages, epoch {}", acknowledged.len(), head.epoch.0));
}

async fn connected(stage: &Stage, department: &str, app: &str) -> Client {
    let client = stage.client(department, app).await.expect("opens");
    soon("a connection", client.connected()).await.expect("connects");
    client
}

async fn channel_of_all(clients: &[Client]) -> Vec<Channel> {
    let first = create(&clients[0], &["jiwei", "shenji", "weijian"]).await;
    let mut channels = vec![first];
    for client in &clients[1..] {
        soon("an invite", channels[0].invite(&[client.device().clone()])).await.expect("invited");
        channels.push(accept(client).await);
    }
    channels
}

/// Sends one message after the other, each different from all others, and remembers what was acknowledged.
async fn talk(channel: Channel, number: usize, enough: Arc<AtomicBool>) -> Acknowledged {
    let mut acknowledged = Acknowledged::new();
    let mut count = 0;
    while !enough.load(Ordering::Relaxed) {
        let body = format!("部门{number}第{count}条");
        count += 1;
        let receipt = soon("a receipt", channel.send(body.clone())).await.expect("accepted in the end");
        acknowledged.insert(receipt.sequence.0, body);
    }
    acknowledged
}

/// The guest is invited, accepts, and is removed, until it is enough. Gives it back, and how often it was there.
async fn come_and_go(host: Channel, guest: Client, enough: Arc<AtomicBool>) -> (Client, usize) {
    let mut visits = 0;
    while !enough.load(Ordering::Relaxed) {
        change(|| host.invite(std::slice::from_ref(guest.device()))).await;
        soon("a joined channel", accept_in_the_end(&guest)).await;
        change(|| host.remove(std::slice::from_ref(guest.device()))).await;
        visits += 1;
    }
    (guest, visits)
}

/// A change of the channel, tried until the gateway has it.
async fn change<F: Future<Output = Result<Receipt, ClientError>>>(attempt: impl Fn() -> F) {
    soon("a change of the channel", async {
        while let Err(error) = attempt().await {
            assert!(passes(&error), "{error:?}");
        }
    })
    .await;
}

async fn accept_in_the_end(client: &Client) -> Channel {
    loop {
        let invitation = client.invitations().next().await.expect("open").expect("readable");
        match client.accept(invitation).await {
            Ok(channel) => break channel,
            Err(error) => assert!(passes(&error), "{error:?}"),
        }
    }
}

/// Whether a gateway that was killed is enough of a reason for it.
fn passes(error: &ClientError) -> bool {
    match error {
        ClientError::Refused(problem) => problem.try_again,
        other => matches!(other, ClientError::Contended | ClientError::Unanswered(_) | ClientError::Offline),
    }
}

/// All messages of a member up to `last`, each once.
async fn messages(channel: &Channel, last: Sequence) -> BTreeMap<u64, String> {
    soon("the whole log at every member", async {
        while channel.info().await.expect("known").head < last {
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let (mut seen, mut bodies) = (BTreeMap::new(), BTreeSet::new());
    let mut after = Sequence(0);
    loop {
        let page = channel.history(after, 500).await.expect("readable");
        let Some(end) = page.last().map(|message| message.sequence) else { return seen };
        after = end;
        for message in page {
            let body = message.text().expect("text").to_owned();
            assert!(bodies.insert(body.clone()), "{body} came twice");
            seen.insert(message.sequence.0, body);
        }
    }
}

/// The disk: dense sequences, one audit record for each event, and exactly the messages that were acknowledged.
fn check_log(store: &dyn ZoneStore, channel: ChannelId, acknowledged: &Acknowledged) {
    let events = whole_log(store, channel);
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event.head.sequence.0, index as u64 + 1);
    }
    let records = crate::zone::audit(store);
    let mut audited = BTreeMap::new();
    for record in &records {
        // version u8, leaf index u64, gateway time u64, channel 16 bytes, sequence u64 (tlog's SharedHeader).
        let header = &record.parts[0].header;
        if header[17..33] == channel.0 && header[33..41] != [0; 8] {
            let sequence = u64::from_be_bytes(header[33..41].try_into().expect("eight bytes"));
            assert_eq!(audited.insert(sequence, record.leaf_index), None, "two records for one event");
        }
    }
    for event in &events {
        assert_eq!(audited.get(&event.head.sequence.0), Some(&event.leaf_index), "event without its record");
    }
    assert_eq!(audited.len(), events.len());
    let messages = events.iter().filter(|event| event.kind == EventKind::Application);
    let messages: Vec<u64> = messages.map(|event| event.head.sequence.0).collect();
    assert!(messages.iter().eq(acknowledged.keys()), "a message that nobody was told of, or one that is gone");
}

fn whole_log(store: &dyn ZoneStore, channel: ChannelId) -> Vec<Arc<StoredEvent>> {
    let mut events: Vec<Arc<StoredEvent>> = Vec::new();
    loop {
        let after = events.last().map_or(Sequence(0), |event| event.head.sequence);
        let page = store.read(&channel, after, 500, 1 << 20).expect("readable");
        if page.events.is_empty() {
            return events;
        }
        events.extend(page.events);
    }
}
