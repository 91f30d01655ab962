//! The gateway's process is killed with `kill -9` while departments talk, again and again. Nothing acknowledged is lost,
//! nothing is doubled, the log has no holes, and every event has its audit record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lianxin_harness::Stage;
use lianxin_sdk::{Channel, ChannelId, Client, Sequence};
use lianxin_store::{StoredEvent, ZoneStore};
use lianxin_tlog::EventKind;
use lianxin_types::{Clock as _, SystemClock};
use rand::{Rng as _, SeedableRng as _};

use crate::effort::{seed, share};
use crate::talk::{accept, create, soon};
use crate::zone::open_store;

/// What one department was told is accepted: sequence, and the body that it stands for.
type Acknowledged = BTreeMap<u64, String>;

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_under_load_it_loses_and_doubles_nothing() {
    let kills = share(3, 100);
    let mut random = rand::rngs::StdRng::seed_from_u64(seed());
    let mut stage = Stage::start().await.expect("a gateway process");
    let mut clients = Vec::new();
    for department in ["jiwei", "shenji", "weijian"] {
        let client = stage.client(department, "app-1").await.expect("opens");
        soon("a connection", client.connected()).await.expect("connects");
        clients.push(client);
    }
    let channels = channel_of_all(&clients).await;

    let enough = Arc::new(AtomicBool::new(false));
    let talkers: Vec<_> = channels
        .iter()
        .enumerate()
        .map(|(number, channel)| tokio::spawn(talk(channel.clone(), number, Arc::clone(&enough))))
        .collect();
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
    for talker in talkers {
        for (sequence, body) in talker.await.expect("talks") {
            assert_eq!(acknowledged.insert(sequence, body), None, "two messages were told the same place");
        }
    }
    assert!(acknowledged.len() >= kills * 10, "there was hardly any load: {} messages", acknowledged.len());

    check_members(&channels, &acknowledged).await;
    let id = channels[0].id();
    for client in clients {
        client.close().await.expect("closes");
    }
    stage.gateway.stop().await.expect("stops in order");
    crate::zone::check_store(&stage.gateway.zone_folder(), stage.folder());
    check_store(&stage, id, &acknowledged);
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

/// Every member has every acknowledged message, once, at the place that its sender was told.
async fn check_members(channels: &[Channel], acknowledged: &Acknowledged) {
    let last = Sequence(*acknowledged.keys().last().expect("some were acknowledged"));
    for channel in channels {
        let mut seen = BTreeMap::new();
        soon("the whole log at every member", async {
            while channel.info().await.expect("known").head < last {
                SystemClock.sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let mut after = Sequence(0);
        loop {
            let page = channel.history(after, 500).await.expect("readable");
            let Some(end) = page.last().map(|message| message.sequence) else { break };
            after = end;
            for message in page {
                let body = message.text().expect("text").to_owned();
                let twice = seen.values().any(|other| *other == body);
                assert!(!twice, "{body} came twice");
                seen.insert(message.sequence.0, body);
            }
        }
        for (sequence, body) in acknowledged {
            assert_eq!(seen.get(sequence), Some(body), "acknowledged and not there");
        }
    }
}

/// The disk: dense sequences, one audit record for each event, nothing in a `blobs` folder.
fn check_store(stage: &Stage, channel: ChannelId, acknowledged: &Acknowledged) {
    let store = open_store(&stage.gateway.zone_folder());
    let events = whole_log(&*store, channel);
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event.head.sequence.0, index as u64 + 1);
    }
    let records = crate::zone::audit(&*store);
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
    let messages = events.iter().filter(|event| event.kind == EventKind::Application).count();
    assert!(messages >= acknowledged.len());
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
