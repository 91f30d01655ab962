//! What an application can be told when something does not work.

use std::path::PathBuf;
use std::sync::Arc;

use lianxin_connection::Problem;
use lianxin_connection::{CallError, ConnectError};
use lianxin_keystore::KeystoreError;
use lianxin_mls::MlsError;
use lianxin_trust::{BundleError, FederationError, RootKeysError};
use lianxin_types::{DecodeError, Timestamp};
use thiserror::Error;

/// Why a call of the SDK failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The configuration does not hold together.
    #[error("use the configuration")]
    Config(#[from] ConfigError),
    /// The local state cannot be used.
    #[error("use the local state")]
    State(#[from] KeystoreError),
    /// A record of the local state cannot be read: it was written by something else.
    #[error("read a record of the local state")]
    Record(#[from] DecodeError),
    /// MLS refuses: the channel is unknown, somebody's credential does not verify, the group's rules are broken.
    #[error("work on the channel's group")]
    Mls(#[from] MlsError),
    /// The gateway definitely refused; nothing was accepted. [`Problem::code`] is the stable reason.
    #[error("get the gateway's consent")]
    Refused(#[from] Problem),
    /// The gateway does not let this device in, or is not the right one.
    #[error("connect")]
    Connect(#[source] Arc<ConnectError>),
    /// This device's certificate is over, by its own clock and by the gateway's: nothing of this device is let in. What was received
    /// stays readable, and what waits stays; a certificate in time renews itself, one that is over only its department can
    /// replace ([`crate::Config`]).
    #[error("use the certificate: it ended at {} s and by this device's clock it is {} s", ended.seconds(), own.seconds())]
    CertificateEnded {
        /// When it ended; of TLS and MLS certificate the first.
        ended: Timestamp,
        /// What this device says that the time is.
        own: Timestamp,
    },
    /// The gateway holds this device's certificate for over, or not begun yet; by this device's clock it is good. One of the two
    /// clocks is wrong, and no new certificate helps.
    #[error("agree with the gateway on the time: it takes the certificate for not valid now, this device's clock says {} s",
        own.seconds())]
    CertificateDisputed {
        /// From when it is good.
        begins: Timestamp,
        /// Until when.
        ends: Timestamp,
        /// What this device says that the time is.
        own: Timestamp,
    },
    /// There was no connection for too long. What was stored goes on when there is one.
    #[error("find a connection in time")]
    Offline,
    /// The message is longer than the protocol allows.
    #[error("message has {bytes} bytes, allowed are {bytes_max}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// Too many messages of the channel wait for the gateway; wait for some of them.
    #[error("too many messages wait for the gateway")]
    OutboxFull,
    /// This device is not, or not any more, a member of the channel.
    #[error("this device is not a member of the channel")]
    NotMember,
    /// The gateway does not serve the channel to this device at present, as [`crate::Event::ChannelGone`],
    /// [`crate::Event::GatewayBehind`] or [`crate::Event::OldGroupInfo`] says, or this device has no seat in the group that carries it
    /// on ([`crate::Event::SeatMissing`]). What was stored stays so: it goes by itself if the channel is served again, perhaps on a
    /// later connection, and may have been accepted before.
    #[error("the gateway does not serve the channel to this device")]
    NotServed,
    /// Others changed the channel again and again while this change was tried. Try again.
    #[error("others keep changing the channel")]
    Contended,
    /// Trust bundle or revocation lists are past their end: reading goes on, joining and inviting do not (PROTOCOL 9).
    #[error("trust bundle or revocation lists have expired")]
    TrustExpired,
    /// What the gateway sent as trust bundle or revocation list was not taken over.
    #[error("take over the trust bundle")]
    Trust(#[source] TrustError),
    /// The invitation is not open any more.
    #[error("the invitation is not open any more")]
    InvitationGone,
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
    /// A call was answered neither with a yes nor with a no, again and again; or this device was out of the channel and came into it
    /// anew before it could read what had become of a message or change. It may have been accepted.
    #[error("get an answer from the gateway")]
    Unanswered(#[source] CallError),
}

/// Why a configuration is refused. Each says which file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The TLS certificate and key cannot be used.
    #[error("use the TLS certificate {} with its key", path.display())]
    Tls {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        source: Box<ConnectError>,
    },
    /// Not a PEM certificate chain.
    #[error("read certificates from {}", path.display())]
    MlsCertificate {
        /// The file.
        path: PathBuf,
    },
    /// Not an Ed25519 private key in PKCS #8 PEM.
    #[error("read an Ed25519 private key from {}", path.display())]
    MlsKey {
        /// The file.
        path: PathBuf,
    },
    /// The root keys cannot be used.
    #[error("read the root keys from {}", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why.
        source: RootKeysError,
    },
    /// The trust bundle or a revocation list cannot be used.
    #[error("use the trust bundle")]
    Trust(#[source] TrustError),
    /// The file does not hold a device identity.
    #[error("read a device identity from {}", path.display())]
    Device {
        /// The file.
        path: PathBuf,
    },
    /// The MLS certificate names nobody that the federation knows, and no identity is configured.
    #[error("find out from the MLS certificate who this device is")]
    WhoAmI(#[source] lianxin_trust::CertificateError),
    /// The trust bundle has no such zone, or several and none is configured.
    #[error("find the zone in the trust bundle")]
    Zone,
    /// Neither the trust bundle nor the configuration says where the zone's gateway is.
    #[error("find the address of the zone's gateway")]
    Endpoint,
}

/// Why a trust bundle with its revocation lists is refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The bundle.
    #[error("verify the trust bundle")]
    Bundle(#[from] BundleError),
    /// An authority in it, or a revocation list.
    #[error("use the authorities and revocation lists")]
    Federation(#[from] FederationError),
    /// This client was away for longer than the gateway keeps bundles: what lies between cannot be verified. Put a bundle of
    /// today, out of the department's hands, in the place of the configured one ([`crate::Config::trust_bundle`]) and start
    /// again: it is taken over although those between are missing.
    #[error(
        "go from trust bundle {have} to {found}: those between are gone; configure the bundle of today and start again"
    )]
    Gap {
        /// Version in use.
        have: u64,
        /// Oldest version offered.
        found: u64,
    },
}

impl From<CallError> for ClientError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(problem) => Self::Refused(problem),
            other => Self::Unanswered(other),
        }
    }
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
