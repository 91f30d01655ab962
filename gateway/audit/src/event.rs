//! The events. Adding one changes the golden file, visibly.

use lianxin_tlog::EventFamily;
use lianxin_types::{Classification, DepartmentId, DeviceUri, Digest, Epoch, Incarnation, Timestamp};
use serde_json::{Value, json};

/// Who came into a channel and who went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Devices seated.
    pub added: Vec<DeviceUri>,
    /// Devices unseated.
    pub removed: Vec<DeviceUri>,
}

/// What happened. The caller is given beside it, since most events have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditEvent {
    /// A channel started.
    ChannelStarted {
        /// Departments that it names.
        departments: Vec<DepartmentId>,
        /// From its label.
        classification: Classification,
    },
    /// A commit was accepted.
    Committed {
        /// The epoch that it ended.
        epoch: Epoch,
        /// What it changed.
        change: Change,
        /// Bytes of the bundle.
        bytes: usize,
    },
    /// Another group carries the channel on, because a commit has broken the one before.
    IncarnationStarted {
        /// Which of the channel's groups.
        incarnation: Incarnation,
        /// Who is to be seated again, and who made the commit and is left behind.
        change: Change,
    },
    /// A member came back by an external commit: same device, same key, another leaf.
    Rejoined {
        /// The epoch that it ended.
        epoch: Epoch,
        /// Bytes of the bundle.
        bytes: usize,
    },
    /// A member asked to leave.
    LeaveProposed {
        /// The epoch of the proposal.
        epoch: Epoch,
    },
    /// The gateway asked for the removal of a member.
    RemovalQueued {
        /// The epoch of the proposal.
        epoch: Epoch,
        /// Why, in a word.
        reason: &'static str,
        /// Who is to go.
        device: DeviceUri,
    },
    /// A member said that it cannot process a commit.
    CommitReported {
        /// The epoch that the commit ended.
        epoch: Epoch,
        /// Its place in the channel's log.
        sequence: u64,
        /// Why, in a word.
        reason: &'static str,
        /// Who made it.
        committer: DeviceUri,
    },
    /// A committer that was reported may commit again.
    CommitterAllowed {
        /// Who.
        committer: DeviceUri,
    },
    /// An application message was accepted.
    MessageAccepted {
        /// Its epoch.
        epoch: Epoch,
        /// Its MLS bytes.
        bytes: usize,
    },
    /// Key packages were stored.
    KeyPackagesPublished {
        /// One-time packages.
        one_time: usize,
        /// Whether a last resort came with them.
        last_resort: bool,
    },
    /// Key packages were taken.
    KeyPackagesClaimed {
        /// Whose.
        owners: Vec<DeviceUri>,
    },
    /// A device asked its department for its next certificates; the request is sound.
    CertificateRequested,
    /// The department's issuer read what its devices ask for.
    RenewalsRead {
        /// How many.
        renewals: usize,
    },
    /// The department's issuer gave a device its next certificates; they are sound.
    CertificateIssued {
        /// When the first of them ends.
        ends: Timestamp,
        /// To whom.
        device: DeviceUri,
    },
    /// The department's issuer refused a device its next certificates.
    CertificateRefused {
        /// Why, in a word.
        reason: &'static str,
        /// Whom.
        device: DeviceUri,
    },
    /// A device opened a stream for what is meant for it.
    ReceiveOpened,
    /// A stream began to follow a channel.
    Followed {
        /// Behind which sequence.
        after: u64,
    },
    /// A page of a channel's log was read.
    HistoryRead {
        /// Behind which sequence.
        after: u64,
    },
    /// GroupInfo and public tree of the current epoch were read.
    GroupInfoRead,
    /// A member put another GroupInfo in the place of the one that is served.
    GroupInfoReplaced {
        /// The epoch that it is of.
        epoch: Epoch,
    },
    /// The tree that goes with a Welcome was read.
    WelcomeTreeRead,
    /// A caller listed its channels.
    ChannelsListed,
    /// A caller counted its key packages.
    KeyPackagesCounted,
    /// A caller read bundle and revocation lists.
    TrustRead,
    /// A device stored invitations.
    InboxConfirmed {
        /// How many.
        items: usize,
    },
    /// A caller said hello.
    SessionOpened {
        /// The protocol version agreed on.
        protocol_version: u32,
    },
    /// A known caller was refused.
    Refused {
        /// What it wanted.
        action: &'static str,
        /// The reason code's name.
        reason: &'static str,
    },
    /// Calls of a known caller that have no record each: refused for coming too often, or repeats of what was accepted. Counted
    /// per minute. The record's caller is the device; without one it is of several that are told apart no more.
    CallsCounted {
        /// The reason code's name, or `repeat`.
        reason: &'static str,
        /// Minutes since 1970.
        minute: u64,
        /// How many.
        count: u64,
    },
    /// Callers that did not get as far as having a name were refused: counted per minute.
    RefusedBeforeCaller {
        /// Salted hash of the network address, so that counts can be joined within a process and not beyond.
        source: Digest,
        /// Why.
        reason: &'static str,
        /// Minutes since 1970.
        minute: u64,
        /// How many.
        count: u64,
    },
    /// The gateway opened the zone.
    GatewayStarted {
        /// Software version.
        version: &'static str,
        /// Fencing number of this opening.
        fencing_number: u64,
        /// Trust bundle in use.
        bundle_version: u64,
        /// Its digest.
        bundle_digest: Digest,
        /// Digest of the configuration file.
        configuration_digest: Digest,
    },
    /// A running gateway took over another configuration, or other trust or certificate files.
    Reloaded {
        /// Digest of the configuration file before.
        configuration_digest_before: Digest,
        /// Digest of the configuration file that counts now.
        configuration_digest: Digest,
        /// Trust bundle that counts now.
        bundle_version: u64,
        /// Its digest.
        bundle_digest: Digest,
        /// Digest over the revocation lists that count now.
        revocation_lists_digest: Digest,
        /// Keys of the configuration with another value, or whose files have another content.
        changed: Vec<&'static str>,
    },
    /// A running gateway was to take over what it may not, and changed nothing.
    ReloadRefused {
        /// Why.
        reason: &'static str,
        /// Keys of the configuration that need a restart.
        keys: Vec<&'static str>,
    },
    /// The gateway closed the zone in order.
    GatewayStopped,
}

impl AuditEvent {
    /// The family that stands in the leaf.
    pub const fn family(&self) -> EventFamily {
        match self {
            Self::ChannelStarted { .. }
            | Self::IncarnationStarted { .. }
            | Self::Committed { .. }
            | Self::Rejoined { .. }
            | Self::LeaveProposed { .. }
            | Self::GroupInfoReplaced { .. }
            | Self::RemovalQueued { .. }
            | Self::CommitReported { .. }
            | Self::CommitterAllowed { .. } => EventFamily::Channel,
            Self::MessageAccepted { .. } => EventFamily::Message,
            Self::KeyPackagesPublished { .. } | Self::KeyPackagesClaimed { .. } => EventFamily::KeyPackage,
            Self::Followed { .. }
            | Self::HistoryRead { .. }
            | Self::GroupInfoRead
            | Self::WelcomeTreeRead
            | Self::ChannelsListed
            | Self::KeyPackagesCounted
            | Self::RenewalsRead { .. }
            | Self::TrustRead => EventFamily::Read,
            Self::Refused { .. } | Self::CallsCounted { .. } | Self::RefusedBeforeCaller { .. } => EventFamily::Refusal,
            Self::ReceiveOpened
            | Self::InboxConfirmed { .. }
            | Self::SessionOpened { .. }
            | Self::CertificateRequested
            | Self::CertificateIssued { .. }
            | Self::CertificateRefused { .. } => EventFamily::Session,
            Self::GatewayStarted { .. } | Self::Reloaded { .. } | Self::ReloadRefused { .. } | Self::GatewayStopped => {
                EventFamily::Gateway
            }
        }
    }

    /// The word for it in bodies.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ChannelStarted { .. } => "channel-started",
            Self::Committed { .. } => "committed",
            Self::IncarnationStarted { .. } => "incarnation-started",
            Self::Rejoined { .. } => "rejoined",
            Self::LeaveProposed { .. } => "leave-proposed",
            Self::RemovalQueued { .. } => "removal-queued",
            Self::CommitReported { .. } => "commit-reported",
            Self::CommitterAllowed { .. } => "committer-allowed",
            Self::MessageAccepted { .. } => "message-accepted",
            Self::KeyPackagesPublished { .. } => "key-packages-published",
            Self::KeyPackagesClaimed { .. } => "key-packages-claimed",
            Self::CertificateRequested => "certificate-requested",
            Self::RenewalsRead { .. } => "renewals-read",
            Self::CertificateIssued { .. } => "certificate-issued",
            Self::CertificateRefused { .. } => "certificate-refused",
            Self::ReceiveOpened => "receive-opened",
            Self::Followed { .. } => "followed",
            Self::HistoryRead { .. } => "history-read",
            Self::GroupInfoRead => "group-info-read",
            Self::GroupInfoReplaced { .. } => "group-info-replaced",
            Self::WelcomeTreeRead => "welcome-tree-read",
            Self::ChannelsListed => "channels-listed",
            Self::KeyPackagesCounted => "key-packages-counted",
            Self::TrustRead => "trust-read",
            Self::InboxConfirmed { .. } => "inbox-confirmed",
            Self::SessionOpened { .. } => "session-opened",
            Self::Refused { .. } => "refused",
            Self::CallsCounted { .. } => "calls-counted",
            Self::RefusedBeforeCaller { .. } => "refused-before-caller",
            Self::GatewayStarted { .. } => "gateway-started",
            Self::Reloaded { .. } => "reloaded",
            Self::ReloadRefused { .. } => "reload-refused",
            Self::GatewayStopped => "gateway-stopped",
        }
    }

    /// What every department concerned may read: departments and figures, nobody's identity.
    pub(crate) fn shared_fields(&self) -> Value {
        match self {
            Self::ChannelStarted { departments, classification } => {
                let mut names: Vec<_> = departments.iter().map(DepartmentId::as_str).collect();
                names.sort_unstable();
                json!({"departments_named": names, "classification": *classification as u8})
            }
            Self::Committed { epoch, change, bytes } => json!({
                "epoch": epoch.0,
                "added": change.added.len(),
                "removed": change.removed.len(),
                "bytes_bucket": bytes_bucket(*bytes),
            }),
            Self::IncarnationStarted { incarnation, change } => json!({
                "incarnation": incarnation.0,
                "awaited": change.added.len(),
                "left": change.removed.len(),
            }),
            Self::LeaveProposed { epoch } | Self::GroupInfoReplaced { epoch } => json!({"epoch": epoch.0}),
            Self::RemovalQueued { epoch, reason, .. } => json!({"epoch": epoch.0, "reason": reason}),
            Self::CommitReported { epoch, sequence, reason, .. } => {
                json!({"epoch": epoch.0, "commit_sequence": sequence, "reason": reason})
            }
            Self::MessageAccepted { epoch, bytes } | Self::Rejoined { epoch, bytes } => {
                json!({"epoch": epoch.0, "bytes_bucket": bytes_bucket(*bytes)})
            }
            Self::KeyPackagesPublished { one_time, last_resort } => {
                json!({"one_time": one_time, "last_resort": last_resort})
            }
            Self::KeyPackagesClaimed { owners } => json!({"owners": owners.len()}),
            Self::Followed { after } | Self::HistoryRead { after } => json!({"after_sequence": after}),
            Self::RenewalsRead { renewals } => json!({"renewals": renewals}),
            Self::CertificateIssued { ends, .. } => json!({"ends": ends.0}),
            Self::CertificateRefused { reason, .. } => json!({"reason": reason}),
            Self::InboxConfirmed { items } => json!({"items": items}),
            Self::SessionOpened { protocol_version } => json!({"protocol_version": protocol_version}),
            Self::Refused { action, reason } => json!({"action": action, "reason": reason}),
            Self::CallsCounted { reason, minute, count } => {
                json!({"reason": reason, "minute": minute, "count": count})
            }
            Self::RefusedBeforeCaller { source, reason, minute, count } => {
                json!({"source": source.to_hex(), "reason": reason, "minute": minute, "count": count})
            }
            Self::GatewayStarted { version, fencing_number, bundle_version, bundle_digest, configuration_digest } => {
                json!({
                    "version": version,
                    "fencing_number": fencing_number,
                    "bundle_version": bundle_version,
                    "bundle_digest": bundle_digest.to_hex(),
                    "configuration_digest": configuration_digest.to_hex(),
                })
            }
            Self::Reloaded {
                configuration_digest_before,
                configuration_digest,
                bundle_version,
                bundle_digest,
                revocation_lists_digest,
                changed,
            } => json!({
                "configuration_digest_before": configuration_digest_before.to_hex(),
                "configuration_digest": configuration_digest.to_hex(),
                "bundle_version": bundle_version,
                "bundle_digest": bundle_digest.to_hex(),
                "revocation_lists_digest": revocation_lists_digest.to_hex(),
                "changed": sorted(changed),
            }),
            Self::ReloadRefused { reason, keys } => json!({"reason": reason, "keys": sorted(keys)}),
            Self::CommitterAllowed { .. }
            | Self::CertificateRequested
            | Self::ReceiveOpened
            | Self::GroupInfoRead
            | Self::WelcomeTreeRead
            | Self::ChannelsListed
            | Self::KeyPackagesCounted
            | Self::TrustRead
            | Self::GatewayStopped => json!({}),
        }
    }

    /// Devices beside the caller that the event is about, with the word for what happened to them.
    pub(crate) fn subjects(&self) -> Vec<(&'static str, &DeviceUri)> {
        match self {
            Self::Committed { change, .. } => {
                let added = change.added.iter().map(|device| ("added", device));
                added.chain(change.removed.iter().map(|device| ("removed", device))).collect()
            }
            Self::IncarnationStarted { change, .. } => {
                let awaited = change.added.iter().map(|device| ("awaited", device));
                awaited.chain(change.removed.iter().map(|device| ("left_behind", device))).collect()
            }
            Self::RemovalQueued { device, .. } => vec![("to_be_removed", device)],
            Self::CommitReported { committer, .. } => vec![("reported", committer)],
            Self::CommitterAllowed { committer } => vec![("allowed", committer)],
            Self::KeyPackagesClaimed { owners } => owners.iter().map(|device| ("claimed_from", device)).collect(),
            Self::CertificateIssued { device, .. } => vec![("issued_to", device)],
            Self::CertificateRefused { device, .. } => vec![("refused_to", device)],
            _ => Vec::new(),
        }
    }
}

/// Sets are written as sorted arrays (PROTOCOL 8).
fn sorted<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let mut words = words.to_vec();
    words.sort_unstable();
    words
}

/// Sizes are metadata too: the shared part shows the next power of two only.
fn bytes_bucket(bytes: usize) -> u64 {
    (bytes.max(1) as u64).next_power_of_two()
}
