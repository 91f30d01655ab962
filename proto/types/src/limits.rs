//! The one table of limits (PROTOCOL 12): `check-config` prints it, the directory serves it, tests stand at each bound.

use std::time::Duration;

/// Bounds that both ends keep. Units and direction are in the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Members of one channel.
    pub channel_members_max: usize,
    /// Devices added by one commit.
    pub invites_per_commit_max: usize,
    /// Plaintext of one message, in bytes.
    pub message_body_bytes_max: usize,
    /// MLS bytes of one application message: a full body, its padding and MLS framing.
    pub message_mls_bytes_max: usize,
    /// Commit, Welcomes, GroupInfo and tree of one bundle together, in bytes.
    pub commit_bundle_bytes_max: usize,
    /// Channels that one device may be a member of.
    pub device_channels_max: usize,
    /// Streams open on one connection.
    pub connection_streams_max: u32,
    /// Sends without an answer on one stream.
    pub stream_sends_in_flight_max: usize,
    /// Connections open of one device.
    pub device_connections_max: usize,
    /// Send streams open of one device, over all its connections.
    pub device_send_streams_max: usize,
    /// Receive streams open of one device, over all its connections.
    pub device_receive_streams_max: usize,
    /// Key packages stored for one device.
    pub device_key_packages_max: usize,
    /// One-time key packages of one device that one department has claimed and not used; each ends with its lifetime.
    pub department_unused_claims_max: usize,
    /// Key packages that one device may ask for in a minute.
    pub device_claims_per_minute_max: usize,
    /// Renewals of its certificates that one device may ask for in a minute.
    pub device_renewals_per_minute_max: usize,
    /// Renewals of one department's devices that wait for its issuer.
    pub department_renewals_max: usize,
    /// Difference between two clocks that is tolerated.
    pub clock_skew_max: Duration,
    /// Lifetime of an MLS leaf (PROTOCOL 3).
    pub leaf_lifetime_max: Duration,
    /// How long a leaf may stay after its certificate's end before the gateway asks for its removal (PROTOCOL 1).
    pub leaf_expiry_grace: Duration,
    /// How long who has started a next incarnation may take to seat somebody; after that another may start the one after it.
    pub seats_within: Duration,
    /// Events in one history page.
    pub history_events_max: usize,
    /// Bytes of events in one history page or one frame of a stream.
    pub frame_bytes_max: usize,
    /// Departments named in one channel.
    pub channel_departments_max: usize,
}

/// The limits of this version of the protocol.
pub const LIMITS: Limits = Limits {
    channel_members_max: 1_000,
    invites_per_commit_max: 100,
    message_body_bytes_max: 64 * 1024,
    message_mls_bytes_max: 72 * 1024,
    commit_bundle_bytes_max: 1024 * 1024,
    device_channels_max: 1_000,
    connection_streams_max: 8,
    stream_sends_in_flight_max: 256,
    device_connections_max: 4,
    device_send_streams_max: 16,
    device_receive_streams_max: 16,
    device_key_packages_max: 100,
    department_unused_claims_max: 32,
    device_claims_per_minute_max: 600,
    device_renewals_per_minute_max: 12,
    department_renewals_max: 256,
    clock_skew_max: Duration::from_secs(60),
    leaf_lifetime_max: Duration::from_secs(84 * 24 * 3600),
    leaf_expiry_grace: Duration::from_secs(14 * 24 * 3600),
    seats_within: Duration::from_secs(30),
    history_events_max: 500,
    frame_bytes_max: 1024 * 1024,
    channel_departments_max: 64,
};

/// One row of the table: name, value, unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitRow {
    /// The field's name in [`Limits`].
    pub name: &'static str,
    /// Its value.
    pub value: u64,
    /// What is counted.
    pub unit: &'static str,
}

impl Limits {
    /// The table in the order of the fields; the directory serves these names.
    pub fn rows(&self) -> Vec<LimitRow> {
        let row = |name, value: usize, unit| LimitRow { name, value: value as u64, unit };
        let time = |name, value: Duration| LimitRow { name, value: value.as_secs(), unit: "seconds" };
        vec![
            row("channel_members_max", self.channel_members_max, "members"),
            row("invites_per_commit_max", self.invites_per_commit_max, "devices"),
            row("message_body_bytes_max", self.message_body_bytes_max, "bytes"),
            row("message_mls_bytes_max", self.message_mls_bytes_max, "bytes"),
            row("commit_bundle_bytes_max", self.commit_bundle_bytes_max, "bytes"),
            row("device_channels_max", self.device_channels_max, "channels"),
            row("connection_streams_max", self.connection_streams_max as usize, "streams"),
            row("stream_sends_in_flight_max", self.stream_sends_in_flight_max, "sends"),
            row("device_connections_max", self.device_connections_max, "connections"),
            row("device_send_streams_max", self.device_send_streams_max, "streams"),
            row("device_receive_streams_max", self.device_receive_streams_max, "streams"),
            row("device_key_packages_max", self.device_key_packages_max, "key packages"),
            row("department_unused_claims_max", self.department_unused_claims_max, "key packages of one device"),
            row("device_claims_per_minute_max", self.device_claims_per_minute_max, "key packages"),
            row("device_renewals_per_minute_max", self.device_renewals_per_minute_max, "renewals"),
            row("department_renewals_max", self.department_renewals_max, "waiting renewals"),
            time("clock_skew_max", self.clock_skew_max),
            time("leaf_lifetime_max", self.leaf_lifetime_max),
            time("leaf_expiry_grace", self.leaf_expiry_grace),
            time("seats_within", self.seats_within),
            row("history_events_max", self.history_events_max, "events"),
            row("frame_bytes_max", self.frame_bytes_max, "bytes"),
            row("channel_departments_max", self.channel_departments_max, "departments"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_field_once() {
        let fields = format!("{LIMITS:?}").matches(": ").count();
        let rows = LIMITS.rows();
        assert_eq!(rows.len(), fields);
        let mut names: Vec<_> = rows.iter().map(|row| row.name).collect();
        names.dedup();
        assert_eq!(names.len(), rows.len());
    }

    #[test]
    fn the_figures_of_the_protocol() {
        let expect = [
            ("channel_members_max", 1_000),
            ("invites_per_commit_max", 100),
            ("message_body_bytes_max", 65_536),
            ("commit_bundle_bytes_max", 1_048_576),
            ("device_channels_max", 1_000),
            ("connection_streams_max", 8),
            ("stream_sends_in_flight_max", 256),
            ("device_connections_max", 4),
            ("device_key_packages_max", 100),
            ("department_unused_claims_max", 32),
            ("device_claims_per_minute_max", 600),
            ("clock_skew_max", 60),
            ("leaf_lifetime_max", 7_257_600),
            ("leaf_expiry_grace", 1_209_600),
        ];
        for (name, value) in expect {
            assert!(LIMITS.rows().iter().any(|row| row.name == name && row.value == value), "{name}");
        }
    }
}
