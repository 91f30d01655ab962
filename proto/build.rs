//! Generates the wire types from `api/` without a system `protoc`.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;
use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::Type;

const FILES: [&str; 7] = [
    "lianxin/types/v1/problem.proto",
    "lianxin/types/v1/receipt.proto",
    "lianxin/channels/v1/channels.proto",
    "lianxin/messages/v1/messages.proto",
    "lianxin/key_packages/v1/key_packages.proto",
    "lianxin/directory/v1/directory.proto",
    "lianxin/certificates/v1/certificates.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=api");
    println!("cargo::rerun-if-changed=build.rs");
    let contract = protox::compile(FILES, ["api"])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    // What reflection serves and the tests read is the contract as written; only the generator sees the changed copy.
    fs::write(out.join("contract.binpb"), contract.encode_to_vec())?;
    // Much larger than what else may be there.
    let boxed = "lianxin.messages.v1.SendResponse.outcome.receipt";
    let generator = tonic_prost_build::configure().bytes(".").boxed(boxed).emit_rerun_if_changed(false);
    generator.compile_fds(for_generation(contract))?;
    Ok(())
}

/// `ReceiveResponse.events` becomes `bytes`, which has the same wire format as a message. The gateway can then encode an
/// `EventBatch` once and share the bytes among all subscribers.
fn for_generation(mut contract: FileDescriptorSet) -> FileDescriptorSet {
    let messages = contract.file.iter_mut().filter(|file| file.package() == "lianxin.messages.v1");
    let responses =
        messages.flat_map(|file| &mut file.message_type).filter(|message| message.name() == "ReceiveResponse");
    let mut patched = 0;
    for field in responses.flat_map(|message| &mut message.field).filter(|field| field.name() == "events") {
        field.set_type(Type::Bytes);
        field.type_name = None;
        patched += 1;
    }
    assert_eq!(patched, 1, "the contract has one ReceiveResponse.events");
    contract
}
