//! Departments that talk, in the words of the stories.

use std::time::Duration;

use lianxin_sdk::{Channel, Classification, Client, Config, DepartmentId, Event, Invitation, Label, Message};

use lianxin_types::Clock as _;

use crate::zone::Zone;

/// Longest wait for anything that must happen; far above what a loaded machine needs, so that only a hang fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// What must happen, or the story fails with what it waited for.
pub(crate) async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::select! {
        done = wait => done,
        () = lianxin_types::SystemClock.sleep(PATIENCE) => panic!("waited in vain for: {what}"),
    }
}

impl Zone {
    /// The application `name` of `department`, opened and connected. Its state stays in the zone's folder, so the same call
    /// later is the same device again.
    pub(crate) async fn client(&self, department: &str, name: &str) -> Client {
        let client = Client::open(self.config(department, name)).await.expect("opens");
        soon("a connection", client.connected()).await.expect("connects");
        client
    }

    /// The first application of each of these departments, opened and connected.
    pub(crate) async fn clients<const N: usize>(&self, departments: [&str; N]) -> [Client; N] {
        let mut opened = Vec::new();
        for department in departments {
            opened.push(self.client(department, "app-1").await);
        }
        opened.try_into().unwrap_or_else(|_| unreachable!("one for each"))
    }

    pub(crate) fn config(&self, department: &str, name: &str) -> Config {
        let state = self.folder("states").join(format!("{department}-{name}"));
        let config = Config::from_certs_dev(self.minted.folder(), department, name, &state).expect("a configuration");
        Config { clock: self.clock.clone(), ..config }
    }
}

pub(crate) fn departments(names: &[&str]) -> Vec<DepartmentId> {
    names.iter().map(|name| name.parse().expect("well formed")).collect()
}

pub(crate) fn label() -> Label {
    Label::new(Classification::General3, "联合核查", "审计法第三十七条", None).expect("valid")
}

/// A channel that names these departments.
pub(crate) async fn create(client: &Client, names: &[&str]) -> Channel {
    soon("a channel", client.create(label(), &departments(names))).await.expect("created")
}

/// Invites and lets the invited accept.
pub(crate) async fn join(channel: &Channel, invited: &Client) -> Channel {
    soon("an invite", channel.invite(&[invited.device().clone()])).await.expect("invited");
    accept(invited).await
}

/// Accepts the next invitation.
pub(crate) async fn accept(client: &Client) -> Channel {
    let invitation: Invitation =
        soon("an invitation", client.invitations().next()).await.expect("open").expect("readable");
    soon("a joined channel", client.accept(invitation)).await.expect("accepted")
}

pub(crate) async fn send(channel: &Channel, body: impl Into<Vec<u8>>) -> u64 {
    soon("a receipt", channel.send(body)).await.expect("accepted").sequence.0
}

/// The next `count` messages of others; its own are in [`own`].
pub(crate) async fn receive(channel: &Channel, count: usize) -> Vec<Message> {
    let mut messages = channel.receive();
    let mut received = Vec::with_capacity(count);
    while received.len() < count {
        let message = soon("a message", messages.next()).await.expect("open").expect("readable");
        received.push(message);
    }
    received
}

/// The first messages of a member's own log, its own included, once there are `count`.
pub(crate) async fn own(channel: &Channel, count: usize) -> Vec<Message> {
    soon("messages in the own log", async {
        loop {
            let messages = channel.history(lianxin_sdk::Sequence(0), count + 1).await.expect("readable");
            if messages.len() >= count {
                break messages;
            }
            lianxin_types::SystemClock.sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

pub(crate) fn texts(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.text().expect("text")).collect()
}

/// Waits for an event that `wanted` accepts and gives what it makes of it.
pub(crate) async fn event<T>(client: &Client, what: &str, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    let mut events = client.events();
    soon(what, async {
        loop {
            let event = events.next().await.expect("open").expect("readable");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    })
    .await
}
