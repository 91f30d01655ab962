//! What `lianxin-app` is told and answers: one JSON object per line, in on standard input, out on standard output.
//!
//! `{"id":1,"call":"send","channel":"0a…","text":"你好"}` is answered by `{"id":1,"ok":true,"result":{"sequence":7,…}}` or by
//! `{"id":1,"ok":false,"reason":"NOT_MEMBER","error":"…"}`. Calls run beside each other; answers come when they are ready.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use lianxin_sdk::{DepartmentId, DeviceUri};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One line in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the caller; the answer bears it.
    pub id: u64,
    /// What is to be done.
    #[serde(flatten)]
    pub call: Call,
}

/// What can be asked of an application.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Call {
    /// Opens the client; the first call. Answered by [`Opened`].
    Open {
        /// The folder that `lianxin-certs-dev` minted.
        federation: PathBuf,
        /// The department, e.g. `jiwei`.
        department: String,
        /// The application, e.g. `app-1`.
        app: String,
        /// Folder of the local state.
        state: PathBuf,
        /// Other certificates than the application's own.
        #[serde(default)]
        credentials: Option<Credentials>,
        /// Another address of the gateway than the trust bundle's, e.g. a [`crate::Line`]'s.
        #[serde(default)]
        gateway: Option<SocketAddr>,
    },
    /// Waits until there is a connection, or the gateway refuses one. Answered by `{}`.
    Connected,
    /// Creates a channel of class general-3 for the named departments. Answered by [`Joined`].
    Create {
        /// What the channel is for.
        purpose: String,
        /// The law it rests on.
        legal_basis: String,
        /// Departments that may have members, the own one included.
        departments: Vec<String>,
    },
    /// Invites devices by their identities. Answered by [`SentInfo`].
    Invite {
        /// The channel's id in hexadecimal.
        channel: String,
        /// Identities.
        devices: Vec<String>,
    },
    /// Waits for the next invitation and accepts it. Answered by [`Joined`].
    Accept,
    /// Sends a text. Answered by [`SentInfo`] when it is durable.
    Send {
        /// The channel's id in hexadecimal.
        channel: String,
        /// The message.
        text: String,
    },
    /// Waits for the next `count` messages of others. Answered by [`Listed`].
    Receive {
        /// The channel's id in hexadecimal.
        channel: String,
        /// How many.
        count: usize,
    },
    /// Messages from the local history, own ones included. Answered by [`Listed`].
    History {
        /// The channel's id in hexadecimal.
        channel: String,
        /// Behind this sequence number; 0 for the beginning.
        after: u64,
        /// At most so many.
        limit: usize,
    },
    /// Removes devices by their identities. Answered by [`SentInfo`].
    Remove {
        /// The channel's id in hexadecimal.
        channel: String,
        /// Identities.
        devices: Vec<String>,
    },
    /// The channel as this device has verified it. Answered by [`ChannelInfo`].
    Info {
        /// The channel's id in hexadecimal.
        channel: String,
    },
    /// Waits for the next event of this kind and passes over others. Answered by [`EventInfo`].
    Event {
        /// The name of a variant of the SDK's `Event`, e.g. `ChannelRestored`.
        name: String,
    },
    /// Commits what no member can process, with a public state by which nobody can come back. Only `lianxin-culprit` does.
    /// Answered by [`SentInfo`]: the gateway can see neither.
    Break {
        /// The channel's id in hexadecimal.
        channel: String,
    },
    /// Leaves a channel. Answered by `{}`.
    Leave {
        /// The channel's id in hexadecimal.
        channel: String,
    },
    /// Closes the client and ends the process. Answered by `{}`.
    Close,
}

/// Certificates and keys to show instead of the application's own, as an impostor would.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Credentials {
    /// TLS certificate, PEM.
    pub tls_certificate: PathBuf,
    /// TLS key, PEM.
    pub tls_key: PathBuf,
    /// MLS certificate, PEM.
    pub mls_certificate: PathBuf,
    /// MLS key, PEM.
    pub mls_key: PathBuf,
}

/// One line out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// The request's.
    pub id: u64,
    /// Whether it was done.
    pub ok: bool,
    /// What it gave, if it was done.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub result: Value,
    /// Why not, if it was not done.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

/// Why a call was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A stable word: the contract's reason code, a TLS refusal such as `UnknownAuthority`, or the SDK's variant.
    pub reason: String,
    /// The same for people, with its causes.
    pub error: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.error, self.reason)
    }
}

impl std::error::Error for Refusal {}

/// Who an opened application is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Its identity.
    pub device: String,
}

/// A channel that the application is in now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The channel's id in hexadecimal.
    pub channel: String,
}

/// Something that the gateway has accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentInfo {
    /// Its position in the channel.
    pub sequence: u64,
    /// Its leaf in the zone's audit log.
    pub leaf_index: u64,
}

/// Messages in the order of the channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Ascending by sequence.
    pub messages: Vec<MessageInfo>,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageInfo {
    /// Its position in the channel.
    pub sequence: u64,
    /// Who sent it, verified.
    pub sender: String,
    /// The text.
    pub text: String,
}

/// A channel as one member knows it. Two members with equal values are in the same state of the same group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelInfo {
    /// What it is for.
    pub purpose: String,
    /// Identities, ascending.
    pub members: Vec<String>,
    /// The group's epoch.
    pub epoch: u64,
    /// The epoch authenticator (RFC 9420 section 8.7) in hexadecimal.
    pub epoch_authenticator: String,
    /// Whether an own change waits for the gateway, or for its place in the log.
    pub has_pending_change: bool,
}

/// An event of the SDK. What is not there does not belong to this kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventInfo {
    /// Its kind.
    pub name: String,
    /// The place in the log that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// Whom it is about: the sender, the culprit, who came or went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Who did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Which of the channel's groups carries it on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<u32>,
}

impl Call {
    /// A call to open an application.
    pub fn open(federation: &std::path::Path, department: &str, app: &str, state: PathBuf) -> Self {
        let (department, app) = (department.to_owned(), app.to_owned());
        Self::Open { federation: federation.to_owned(), department, app, state, credentials: None, gateway: None }
    }

    /// A call to invite devices.
    pub fn invite(channel: &str, devices: &[&DeviceUri]) -> Self {
        let devices = devices.iter().map(|device| device.as_str().to_owned()).collect();
        Self::Invite { channel: channel.to_owned(), devices }
    }

    /// A call to remove a device.
    pub fn remove(channel: &str, device: &DeviceUri) -> Self {
        Self::Remove { channel: channel.to_owned(), devices: vec![device.as_str().to_owned()] }
    }

    /// A call to wait for an event.
    pub fn event(name: &str) -> Self {
        Self::Event { name: name.to_owned() }
    }

    /// A call to create a channel.
    pub fn create(purpose: &str, legal_basis: &str, departments: &[DepartmentId]) -> Self {
        let departments = departments.iter().map(ToString::to_string).collect();
        Self::Create { purpose: purpose.to_owned(), legal_basis: legal_basis.to_owned(), departments }
    }

    /// A call to send a text.
    pub fn send(channel: &str, text: impl Into<String>) -> Self {
        Self::Send { channel: channel.to_owned(), text: text.into() }
    }

    /// A call to wait for messages.
    pub fn receive(channel: &str, count: usize) -> Self {
        Self::Receive { channel: channel.to_owned(), count }
    }

    /// A call for the whole history, at most `limit` messages.
    pub fn history(channel: &str, limit: usize) -> Self {
        Self::History { channel: channel.to_owned(), after: 0, limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_documented() {
        let request = Request { id: 1, call: Call::send("0a", "你好") };
        let line = serde_json::to_string(&request).expect("JSON");
        assert_eq!(line, r#"{"id":1,"call":"send","channel":"0a","text":"你好"}"#);
        let refusal = Refusal { reason: "NOT_MEMBER".into(), error: "no".into() };
        let answer = Answer { id: 1, ok: false, result: Value::Null, refusal: Some(refusal.clone()) };
        let line = serde_json::to_string(&answer).expect("JSON");
        assert_eq!(line, r#"{"id":1,"ok":false,"reason":"NOT_MEMBER","error":"no"}"#);
        let read: Answer = serde_json::from_str(&line).expect("the same back");
        assert_eq!(read.refusal, Some(refusal));
        let done: Answer = serde_json::from_str(r#"{"id":2,"ok":true,"result":{"sequence":7}}"#).expect("an answer");
        assert_eq!((done.refusal, done.result["sequence"].as_u64()), (None, Some(7)));
    }

    #[test]
    fn what_is_no_call_is_refused() {
        assert!(serde_json::from_str::<Request>(r#"{"id":1,"call":"shout","text":"x"}"#).is_err());
        assert!(serde_json::from_str::<Request>(r#"{"call":"close"}"#).is_err());
    }
}
