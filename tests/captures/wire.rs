//! The contract's messages by their names: which call bears which, what stands in one, and the same bytes again.

use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail, ensure};
use lianxin_proto::FILE_DESCRIPTOR_SET;
use lianxin_proto::channels::v1 as channels;
use lianxin_proto::directory::v1 as directory;
use lianxin_proto::key_packages::v1 as key_packages;
use lianxin_proto::messages::v1 as messages;
use prost::Message as _;
use prost::bytes::Buf as _;
use prost::encoding::{WireType, decode_key, decode_varint};
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};
use serde_json::{Map, Value, json};

use crate::format::Direction;

fn files() -> &'static FileDescriptorSet {
    static FILES: OnceLock<FileDescriptorSet> = OnceLock::new();
    FILES.get_or_init(|| FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("build.rs wrote it"))
}

/// The name of the message that goes this way in `package.Service/Call`.
pub(crate) fn message_of(call: &str, direction: Direction) -> Result<String> {
    let (service, method) = call.split_once('/').context("package.Service/Call")?;
    for file in &files().file {
        for found in &file.service {
            if format!("{}.{}", file.package(), found.name()) != service {
                continue;
            }
            let method = found.method.iter().find(|one| one.name() == method).context("a call of the contract")?;
            let name = match direction {
                Direction::ToGateway => method.input_type(),
                Direction::FromGateway => method.output_type(),
            };
            return Ok(name.trim_start_matches('.').to_owned());
        }
    }
    bail!("{service} is not of the contract")
}

macro_rules! again {
    ($name:expr, $bytes:expr, $($known:literal => $wire:ty),* $(,)?) => {
        match $name {
            $($known => <$wire>::decode($bytes)?.encode_to_vec(),)*
            other => bail!("{other} is no message that a session has"),
        }
    };
}

/// What a message becomes that is decoded and encoded anew.
pub(crate) fn again(name: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    Ok(again!(name, bytes,
        "lianxin.directory.v1.HelloRequest" => directory::HelloRequest,
        "lianxin.directory.v1.HelloResponse" => directory::HelloResponse,
        "lianxin.directory.v1.GetTrustRequest" => directory::GetTrustRequest,
        "lianxin.directory.v1.GetTrustResponse" => directory::GetTrustResponse,
        "lianxin.key_packages.v1.PublishRequest" => key_packages::PublishRequest,
        "lianxin.key_packages.v1.PublishResponse" => key_packages::PublishResponse,
        "lianxin.key_packages.v1.ClaimRequest" => key_packages::ClaimRequest,
        "lianxin.key_packages.v1.ClaimResponse" => key_packages::ClaimResponse,
        "lianxin.channels.v1.CreateRequest" => channels::CreateRequest,
        "lianxin.channels.v1.CreateResponse" => channels::CreateResponse,
        "lianxin.channels.v1.CommitRequest" => channels::CommitRequest,
        "lianxin.channels.v1.CommitResponse" => channels::CommitResponse,
        "lianxin.channels.v1.LeaveRequest" => channels::LeaveRequest,
        "lianxin.channels.v1.LeaveResponse" => channels::LeaveResponse,
        "lianxin.channels.v1.GetWelcomeTreeRequest" => channels::GetWelcomeTreeRequest,
        "lianxin.channels.v1.GetWelcomeTreeResponse" => channels::GetWelcomeTreeResponse,
        "lianxin.channels.v1.GetGroupInfoRequest" => channels::GetGroupInfoRequest,
        "lianxin.channels.v1.GetGroupInfoResponse" => channels::GetGroupInfoResponse,
        "lianxin.messages.v1.SendRequest" => messages::SendRequest,
        "lianxin.messages.v1.SendResponse" => messages::SendResponse,
        "lianxin.messages.v1.ReceiveRequest" => messages::ReceiveRequest,
        "lianxin.messages.v1.ReceiveResponse" => messages::ReceiveResponse,
    ))
}

/// The fields of a message with their names, for a reader: numbers and texts as they are, short bytes in hexadecimal, long ones as
/// their number. Read by the descriptors alone.
pub(crate) fn notes(name: &str, bytes: &[u8]) -> Result<Value> {
    let files = files();
    let found = files.file.iter().find_map(|file| {
        let short = name.strip_prefix(file.package())?.strip_prefix('.')?;
        file.message_type.iter().find(|message| message.name() == short)
    });
    notes_of(files, found.with_context(|| format!("{name} is not of the contract"))?, bytes)
}

/// Bytes up to this many are shown.
const SHOWN_BYTES_MAX: usize = 32;

fn notes_of(files: &FileDescriptorSet, message: &DescriptorProto, mut bytes: &[u8]) -> Result<Value> {
    let mut fields = Map::new();
    while bytes.has_remaining() {
        let (number, wire_type) = decode_key(&mut bytes)?;
        let field = message.field.iter().find(|field| field.number() as u32 == number);
        let field = field.with_context(|| format!("{} has no field {number}", message.name()))?;
        let value = match wire_type {
            WireType::Varint => json!(decode_varint(&mut bytes)?),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut bytes)?)?;
                ensure!(length <= bytes.len(), "{} is cut", field.name());
                let (inside, rest) = bytes.split_at(length);
                bytes = rest;
                match field.r#type() {
                    Type::Message => inner(files, field.type_name(), inside)?,
                    Type::String => json!(std::str::from_utf8(inside)?),
                    _ if length <= SHOWN_BYTES_MAX => json!(hex::encode(inside)),
                    _ => json!(format!("{length} bytes")),
                }
            }
            other => bail!("{other:?} is not used in the contract"),
        };
        match fields.get_mut(field.name()) {
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = json!([first.take(), value]),
            None => drop(fields.insert(field.name().to_owned(), value)),
        }
    }
    Ok(Value::Object(fields))
}

fn inner(files: &FileDescriptorSet, type_name: &str, bytes: &[u8]) -> Result<Value> {
    let name = type_name.trim_start_matches('.');
    for file in &files.file {
        let short = name.strip_prefix(file.package()).and_then(|rest| rest.strip_prefix('.'));
        if let Some(message) = file.message_type.iter().find(|message| Some(message.name()) == short) {
            return notes_of(files, message, bytes);
        }
    }
    Ok(json!(format!("{} bytes", bytes.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_and_an_unknown_one_is_found() {
        let request = directory::GetTrustRequest { known_version: 7 }.encode_to_vec();
        let name = "lianxin.directory.v1.GetTrustRequest";
        assert_eq!(notes(name, &request).expect("of the contract"), json!({ "known_version": 7 }));
        assert_eq!(message_of("lianxin.directory.v1.Directory/GetTrust", Direction::ToGateway).expect("a call"), name);
        assert!(notes(name, &[0x78, 1]).is_err() && notes(name, &request[..1]).is_err());
    }
}
