//! Does the calls: each in a task of its own over one SDK client.

use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

use anyhow::Context as _;
use lianxin_harness::{Call, Credentials, DeviceInfo, Joined, Listed, MessageInfo, Opened, Request, SentInfo};
use lianxin_sdk::{
    Channel, ChannelId, Classification, Client, ClientError, Config, Invitations, Label, Message, Messages, Receipt,
    Sequence,
};
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::Mutex;
use tokio::task::LocalSet;

use crate::answers::{Fault, answer, write};

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
            Call::Open { federation, department, app, state, credentials } => {
                let opened = desk.open(&federation, &department, &app, &state, credentials).await;
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
    messages: Mutex<HashMap<ChannelId, Rc<Mutex<Messages>>>>,
}

impl Desk {
    async fn open(
        &self,
        federation: &Path,
        department: &str,
        app: &str,
        state: &Path,
        credentials: Option<Credentials>,
    ) -> Outcome {
        let mut config = Config::from_certs_dev(federation, department, app, state).map_err(ClientError::from)?;
        if let Some(other) = credentials {
            config.tls_certificate = other.tls_certificate;
            config.tls_key = other.tls_key;
            config.mls_certificate = other.mls_certificate;
            config.mls_key = other.mls_key;
        }
        let client = Client::open(config).await?;
        let device = client.device().as_str().to_owned();
        let invitations = Mutex::new(client.invitations());
        *self.open.lock().await = Some(Rc::new(Open { client, invitations, messages: Mutex::default() }));
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
            Call::Members { channel } => {
                let members = self.channel(&channel)?.info().await?.members;
                result(DeviceInfo { members: members.iter().map(|member| member.as_str().to_owned()).collect() })
            }
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
        let invitation = self.invitations.lock().await.next().await.ok_or(ClientError::Closed)??;
        joined(&self.client.accept(invitation).await?)
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
