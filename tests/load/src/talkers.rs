//! One device that sends and several that receive.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lianxin_certs_dev::FederationPlan;
use lianxin_harness::Stage;
use lianxin_sdk::{Channel, Classification, Client, Label};
use lianxin_types::{Clock as _, SystemClock};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::measure::Counted;

pub(crate) struct Talkers {
    sender: Client,
    channel: Channel,
    receivers: Vec<(Client, Channel)>,
}

const BODY_BYTES: usize = 1_000;

/// A federation with enough applications.
pub(crate) fn plan(receivers: usize) -> FederationPlan {
    let apps = (1..=receivers).map(|number| format!("app-{number}")).collect();
    FederationPlan { apps, ..FederationPlan::default() }
}

impl Talkers {
    /// Opens everybody and seats them in one channel.
    pub(crate) async fn gather(stage: &Stage, receivers: usize) -> anyhow::Result<Self> {
        let sender = stage.client("jiwei", "app-1").await?;
        sender.connected().await?;
        let label = Label::new(Classification::General1, "压力测试", "无", None)?;
        let channel = sender.create(label, &["jiwei".parse()?, "shenji".parse()?]).await?;
        let mut seated = Vec::new();
        for number in 1..=receivers {
            let client = stage.client("shenji", &format!("app-{number}")).await?;
            client.connected().await?;
            channel.invite(&[client.device().clone()]).await?;
            let invitation = client.invitations().next().await.context("the client is open")??;
            let joined = client.accept(invitation).await?;
            seated.push((client, joined));
        }
        Ok(Self { sender, channel, receivers: seated })
    }

    /// Sends for `duration` with at most `in_flight` without a receipt, and waits until everybody has everything.
    pub(crate) async fn talk(&self, in_flight: usize, duration: Duration) -> anyhow::Result<Counted> {
        let start = SystemClock.monotonic();
        let places = Arc::new(Semaphore::new(in_flight));
        let mut sends = JoinSet::new();
        let mut acknowledged = 0;
        while SystemClock.monotonic().since(start) < duration {
            let place = Arc::clone(&places).acquire_owned().await?;
            let channel = self.channel.clone();
            sends.spawn(async move {
                let sent = channel.send(vec![0x5A; BODY_BYTES]).await;
                drop(place);
                sent.map(|_| ())
            });
            while let Some(done) = sends.try_join_next() {
                done??;
                acknowledged += 1;
            }
        }
        while let Some(done) = sends.join_next().await {
            done??;
            acknowledged += 1;
        }
        let mut readers = JoinSet::new();
        for (_, channel) in &self.receivers {
            let mut messages = channel.receive();
            readers.spawn(async move {
                for _ in 0..acknowledged {
                    messages.next().await.context("the client is open")??;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = readers.join_next().await {
            done??;
        }
        let delivered = acknowledged * self.receivers.len() as u64;
        Ok(Counted { acknowledged, delivered, duration: SystemClock.monotonic().since(start) })
    }

    /// Closes everybody.
    pub(crate) async fn leave(self) -> anyhow::Result<()> {
        self.sender.close().await?;
        for (client, _) in self.receivers {
            client.close().await?;
        }
        Ok(())
    }
}
