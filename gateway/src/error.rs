//! Why a gateway cannot serve.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use lianxin_store::StoreError;
use lianxin_transport::TransportError;
use lianxin_trust::SuccessionError;
use thiserror::Error;

/// Why a gateway cannot serve.
#[derive(Debug, Error)]
pub enum ServeError {
    /// A file cannot be read.
    #[error("read {} (relative paths in the configuration are relative to its file)", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Root keys, bundle, revocation lists or the gateway's own certificate do not verify.
    #[error("verify {}: {fault}", path.display())]
    Trust {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// Bundle or revocation lists are good and may not follow what is in force.
    #[error("use {}", path.display())]
    Succession {
        /// The file of the bundle.
        path: PathBuf,
        /// The cause.
        source: SuccessionError,
    },
    /// Certificate chain and private key of the gateway are no identity.
    #[error("use {} with {}", certificate.display(), key.display())]
    Identity {
        /// The file with the chain.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
        /// The cause.
        source: TransportError,
    },
    /// The zone cannot be opened.
    #[error("use the store")]
    Store(#[from] StoreError),
    /// The engine promises less than a gateway needs.
    #[error("the store's engine does not sync before it acknowledges")]
    Durability,
    /// The machine's clock is before the zone's last record.
    #[error(
        "use the machine's clock: it says {now}, and the zone's last record is of {last}; set the clock right, or wait until \
         it has passed that time if the record is the one that is wrong"
    )]
    Clock {
        /// What the clock says, in UTC.
        now: String,
        /// When the last record was accepted, in UTC.
        last: String,
    },
    /// The system does not allow as many open files as the gateway may need.
    #[error(
        "open enough files: {} may be needed ({} connections, {} for the store, {} others), and {} are allowed; raise the hard \
         limit (ulimit -Hn, LimitNOFILE=) or lower strength.connections_max",
        .0.needed(), .0.connections_max, .0.store, .0.others, .0.allowed
    )]
    Descriptors(crate::descriptors::Descriptors),
    /// The soft limit of open files cannot be raised to the hard one.
    #[error("raise the limit of open files")]
    RaiseDescriptors {
        /// The cause.
        source: std::io::Error,
    },
    /// The listener cannot be had.
    #[error("listen for departments")]
    Transport(#[from] TransportError),
    /// The metrics listener cannot be had.
    #[error("listen for metrics on {address}")]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// The start could not be recorded.
    #[error("record the start in the audit log: {fault}")]
    Audit {
        /// Why.
        fault: String,
    },
    /// The RPC server failed.
    #[error("serve")]
    Server(#[from] tonic::transport::Error),
    /// The gRPC reflection service cannot be built from the contract.
    #[error("describe the contract for reflection: {fault}")]
    Reflection {
        /// Why.
        fault: String,
    },
}

impl ServeError {
    pub(crate) fn trust(path: &Path, fault: impl ToString) -> Self {
        Self::Trust { path: path.to_owned(), fault: fault.to_string() }
    }
}
