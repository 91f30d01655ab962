//! Does the calls: each in a task of its own over one SDK client.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;

use anyhow::Context as _;
use lianxin_harness::{
    Call, ChannelInfo, Credentials, EventInfo, Joined, Listed, MessageInfo, Opened, Request, SentInfo,
};
use lianxin_sdk::{
    Channel, ChannelId, Classification, Client, ClientError, Config, ConfigError, DeviceUri, Event, Events,
    Invitations, Label, Message, Messages, Receipt, Sequence,
};
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::Mutex;
use tokio::task::LocalSet;

use crate::answers::{Fault, answer, variant, write};

type Outcome = Result<Value, Fault>;

/// Reads calls until `close` or the end of standard input.
pub(crate) async fn run() -> anyhow::Result<()> {
    let desk = Rc::new(Desk::default());
    LocalSet::new().run_until(read_calls(desk)).await
}

async fn read_calls(desk: Rc<Desk>) -> anyhow::Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.context("read a call")? {
        let Request { id, call } = match serde_json::from_str(&line) {
            Ok(request) => request,
            Err(error) => {
                write(&answer(0, Err(Fault::Call(format!("not a call: {error}")))))?;
                continue;
            }
        };
        match call {
            // Others wait until it is open, and nothing comes after it was closed.
            Call::Open { federation, department, app, state, credentials, gateway } => {
                let config = configured(&federation, &department, &app, &state, credentials, gateway);
                let opened = desk.open(config).await;
                write(&answer(id, opened))?;
            }
            Call::Close => return write(&answer(id, desk.close().await)),
            call => {
                let desk = Rc::clone(&desk);
                // A closed pipe shows when the next line is read.
                tokio::task::spawn_local(async move { drop(write(&answer(id, desk.answer(call).await))) });
            }
        }
    }
    desk.close().await.map(drop).map_err(|fault| anyhow::anyhow!("close the client: {fault:?}"))
}

/// The client with the streams that are read from.
#[derive(Default)]
struct Desk {
    open: Mutex<Option<Rc<Open>>>,
}

struct Open {
    client: Client,
    invitations: Mutex<Invitations>,
    events: Mutex<Events>,
    messages: Mutex<HashMap<ChannelId, Rc<Mutex<Messages>>>>,
}

impl Desk {
    async fn open(&self, config: Result<Config, ConfigError>) -> Outcome {
        let client = Client::open(config.map_err(ClientError::from)?).await?;
        let device = client.device().as_str().to_owned();
        let (invitations, events) = (Mutex::new(client.invitations()), Mutex::new(client.events()));
        *self.open.lock().await = Some(Rc::new(Open { client, invitations, events, messages: Mutex::default() }));
        result(Opened { device })
    }

    async fn close(&self) -> Outcome {
        if let Some(open) = self.open.lock().await.take() {
            // The last message of a stream counts as read when the stream is dropped.
            open.messages.lock().await.clear();
            open.client.clone().close().await?;
        }
        Ok(empty())
    }

    async fn answer(&self, call: Call) -> Outcome {
        let open = self.open.lock().await.clone();
        open.ok_or_else(|| Fault::Call("open the client first".into()))?.answer(call).await
    }
}

impl Open {
    async fn answer(&self, call: Call) -> Outcome {
        match call {
            Call::Open { .. } | Call::Close => Err(Fault::Call("not while calls run".into())),
            Call::Break { .. } => Err(Fault::Call("an honest application does not".into())),
            Call::Connected => {
                self.client.connected().await?;
                Ok(empty())
            }
            Call::Create { purpose, legal_basis, departments } => self.create(purpose, legal_basis, &departments).await,
            Call::Invite { channel, devices } => {
                let devices = parsed(&devices)?;
                sent(self.channel(&channel)?.invite(&devices).await?)
            }
            Call::Accept => self.accept().await,
            Call::Send { channel, text } => sent(self.channel(&channel)?.send(text).await?),
            Call::Receive { channel, count } => self.receive(&channel, count).await,
            Call::History { channel, after, limit } => {
                let messages = self.channel(&channel)?.history(Sequence(after), limit).await?;
                result(Listed { messages: messages.iter().map(told).collect() })
            }
            Call::Remove { channel, devices } => {
                let devices = parsed(&devices)?;
                sent(self.channel(&channel)?.remove(&devices).await?)
            }
            Call::Info { channel } => result(info(self.channel(&channel)?.info().await?)),
            Call::Event { name } => self.event(&name).await,
            Call::Leave { channel } => {
                self.channel(&channel)?.leave().await?;
                Ok(empty())
            }
        }
    }

    async fn create(&self, purpose: String, legal_basis: String, departments: &[String]) -> Outcome {
        let label = Label::new(Classification::General3, purpose, legal_basis, None);
        let label = label.map_err(|error| Fault::Call(error.to_string()))?;
        joined(&self.client.create(label, &parsed(departments)?).await?)
    }

    async fn accept(&self) -> Outcome {
        let mut invitations = self.invitations.lock().await;
        let invitation = invitations.next().await.ok_or(ClientError::Closed)??;
        let accepted = self.client.accept(invitation).await;
        if accepted.is_err() {
            // A stream gives each invitation once, and this one may still be open.
            *invitations = self.client.invitations();
        }
        joined(&accepted?)
    }

    async fn event(&self, name: &str) -> Outcome {
        let mut events = self.events.lock().await;
        loop {
            let event = happened(&events.next().await.ok_or(ClientError::Closed)??);
            if event.name == name {
                return result(event);
            }
        }
    }

    async fn receive(&self, channel: &str, count: usize) -> Outcome {
        let channel = self.channel(channel)?;
        let mut all = self.messages.lock().await;
        let stream = all.entry(channel.id()).or_insert_with(|| Rc::new(Mutex::new(channel.receive())));
        let stream = Rc::clone(stream);
        drop(all);
        let mut stream = stream.lock().await;
        let mut messages = Vec::new();
        while messages.len() < count {
            messages.push(told(&stream.next().await.ok_or(ClientError::Closed)??));
        }
        result(Listed { messages })
    }

    fn channel(&self, text: &str) -> Result<Channel, Fault> {
        Ok(self.client.channel(channel_id(text).ok_or_else(|| Fault::Call(format!("{text:?} is no channel id")))?))
    }
}

fn configured(
    federation: &Path,
    department: &str,
    app: &str,
    state: &Path,
    credentials: Option<Credentials>,
    gateway: Option<SocketAddr>,
) -> Result<Config, ConfigError> {
    let mut config = Config::from_certs_dev(federation, department, app, state)?;
    if let Some(other) = credentials {
        config.tls_certificate = other.tls_certificate;
        config.tls_key = other.tls_key;
        config.mls_certificate = other.mls_certificate;
        config.mls_key = other.mls_key;
    }
    Ok(match gateway {
        Some(address) => config.with_endpoint(address.ip().to_string(), address.port()),
        None => config,
    })
}

/// 32 hexadecimal digits.
fn channel_id(text: &str) -> Option<ChannelId> {
    let bytes = u128::from_str_radix(text, 16).ok()?.to_be_bytes();
    (text.len() == ChannelId::LENGTH * 2).then_some(ChannelId(bytes))
}

fn parsed<T: std::str::FromStr>(texts: &[String]) -> Result<Vec<T>, Fault>
where
    T::Err: std::fmt::Display,
{
    let parse = |text: &String| text.parse().map_err(|error| Fault::Call(format!("{text:?}: {error}")));
    texts.iter().map(parse).collect()
}

fn told(message: &Message) -> MessageInfo {
    MessageInfo {
        sequence: message.sequence.0,
        sender: message.sender.as_str().to_owned(),
        text: String::from_utf8_lossy(&message.body).into_owned(),
    }
}

fn info(info: lianxin_sdk::ChannelInfo) -> ChannelInfo {
    let mut members: Vec<_> = info.members.iter().map(|member| member.as_str().to_owned()).collect();
    members.sort();
    ChannelInfo {
        purpose: info.label.purpose().to_owned(),
        members,
        epoch: info.epoch.0,
        epoch_authenticator: info.epoch_authenticator.to_hex(),
        has_pending_change: info.has_pending_change,
    }
}

fn happened(event: &Event) -> EventInfo {
    let name = variant(event);
    let text = |device: &DeviceUri| Some(device.as_str().to_owned());
    match event {
        Event::MemberJoined { device, by, .. } | Event::MemberLeft { device, by, .. } => {
            EventInfo { name, device: text(device), by: text(by), ..EventInfo::default() }
        }
        Event::Violation { sequence, sender, .. } => {
            EventInfo { name, sequence: Some(sequence.0), device: text(sender), ..EventInfo::default() }
        }
        Event::Removed { by, .. } => EventInfo { name, by: text(by), ..EventInfo::default() },
        Event::CommitReported { reporter, commit, committer, .. } => EventInfo {
            name,
            sequence: Some(commit.0),
            device: committer.as_ref().and_then(text),
            by: text(reporter),
            ..EventInfo::default()
        },
        Event::CommitterPaused { reporter, .. } => {
            EventInfo { name, by: reporter.as_ref().and_then(text), ..EventInfo::default() }
        }
        Event::ChannelRestarted { incarnation, by, culprit, .. } => EventInfo {
            name,
            device: culprit.as_ref().and_then(text),
            by: text(by),
            incarnation: Some(incarnation.0),
            ..EventInfo::default()
        },
        _ => EventInfo { name, ..EventInfo::default() },
    }
}

fn joined(channel: &Channel) -> Outcome {
    result(Joined { channel: channel.id().to_hex() })
}

fn sent(receipt: Receipt) -> Outcome {
    result(SentInfo { sequence: receipt.sequence.0, leaf_index: receipt.leaf_index })
}

fn result(value: impl Serialize) -> Outcome {
    serde_json::to_value(value).map_err(|error| Fault::Call(error.to_string()))
}

fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_id_is_32_digits() {
        let id = ChannelId([0x0a; 16]);
        assert_eq!(channel_id(&id.to_hex()), Some(id));
        for wrong in ["", "0a", "zz0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a", &"0a".repeat(17)] {
            assert_eq!(channel_id(wrong), None, "{wrong}");
        }
    }
}
