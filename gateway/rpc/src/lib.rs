//! A face of the gateway: the tonic services of the contract, one file per subject.
//!
//! For: department applications over mutual TLS. A handler parses, calls, answers. Below: `operations` and the contract in
//! `proto`. Must never know: the store, delivery, audit, policy, TLS. Wire types stop here.

mod answer;
mod certificates;
mod channels;
mod directory;
mod key_packages;
mod messages;
mod outbox;
mod peer;
mod reader;
mod receive;
mod status;
mod stop;
mod unfinished;
mod unread;

use lianxin_operations::Operations;
use lianxin_proto::certificates::v1::certificates_server::CertificatesServer;
use lianxin_proto::channels::v1::channels_server::ChannelsServer;
use lianxin_proto::directory::v1::directory_server::DirectoryServer;
use lianxin_proto::key_packages::v1::key_packages_server::KeyPackagesServer;
use lianxin_proto::messages::v1::messages_server::MessagesServer;

pub use peer::Peer;
pub use reader::Patience;
pub use unread::Answering;

/// The face of one gateway. Cheap to clone.
#[derive(Clone)]
pub struct Face {
    operations: Operations,
    patience: Patience,
    stopping: tokio::sync::watch::Receiver<bool>,
}

/// Largest request: a full commit bundle and its framing.
const REQUEST_BYTES_MAX: usize = lianxin_types::LIMITS.commit_bundle_bytes_max + 64 * 1024;

impl Face {
    /// A face on these operations. Streams end by themselves once `stopping` turns true.
    pub fn new(operations: Operations, patience: Patience, stopping: tokio::sync::watch::Receiver<bool>) -> Self {
        Self { operations, patience, stopping }
    }

    /// The channels service.
    pub fn channels(&self) -> Answering<ChannelsServer<Self>> {
        let service = ChannelsServer::new(self.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
        Answering::new(self.clone(), service)
    }

    /// The messages service.
    pub fn messages(&self) -> Answering<MessagesServer<Self>> {
        let service = MessagesServer::new(self.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
        Answering::new(self.clone(), service)
    }

    /// The key packages service.
    pub fn key_packages(&self) -> Answering<KeyPackagesServer<Self>> {
        let service = KeyPackagesServer::new(self.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
        Answering::new(self.clone(), service)
    }

    /// The certificates service.
    pub fn certificates(&self) -> Answering<CertificatesServer<Self>> {
        let service = CertificatesServer::new(self.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
        Answering::new(self.clone(), service)
    }

    /// The directory service.
    pub fn directory(&self) -> Answering<DirectoryServer<Self>> {
        let service = DirectoryServer::new(self.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
        Answering::new(self.clone(), service)
    }
}
