//! Every key of the configuration, and whether a running gateway takes another value of it: one table for the reload, for
//! `check-config` and for the sample.

use super::Config;
use crate::strength::Strength;

/// What another value of a key needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// SIGHUP: taken without a restart, and audited.
    Reload,
    /// A restart. A reload that finds another value is refused and names the key.
    Restart,
}

impl Change {
    /// The word for it in the sample and in what `check-config` prints.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Restart => "restart",
        }
    }
}

/// A key of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its name, with the section before a dot.
    pub name: &'static str,
    /// What another value needs.
    pub change: Change,
    /// The value, to compare with another configuration's.
    pub(crate) value: String,
}

impl Config {
    /// Every key in the order of the sample.
    pub fn keys(&self) -> Vec<Key> {
        // Taken apart field by field, so that a new one does not compile before it has its line here.
        let Self {
            path: _,
            zone,
            listen,
            strength,
            certificate,
            key,
            roots,
            bundle,
            bundle_history,
            revocation_lists,
            reread_seconds,
            removal_key,
            store,
            free_bytes_min,
            reserve_bytes,
            pseudonym_key,
            metrics,
            log_filter,
            log_json,
            drain_seconds_max,
            digest: _,
        } = self;
        let Strength {
            connections_max,
            department_connections_max,
            source_connections_burst,
            source_connections_per_second,
            idle_duration_max,
            connection_duration_max,
            call_duration_max,
            message_duration_max,
            stall_duration_max,
            queue_units_max,
            queue_bytes_max,
        } = strength;
        let reload = |name, value: &dyn std::fmt::Debug| line(name, Change::Reload, value);
        let restart = |name, value: &dyn std::fmt::Debug| line(name, Change::Restart, value);
        vec![
            restart("zone", zone),
            restart("listen", listen),
            reload("drain_seconds_max", drain_seconds_max),
            reload("tls.certificate", certificate),
            reload("tls.key", key),
            restart("trust.roots", roots),
            reload("trust.bundle", bundle),
            reload("trust.bundle_history", bundle_history),
            reload("trust.revocation_lists", revocation_lists),
            reload("trust.reread_seconds", reread_seconds),
            reload("trust.removal_key", removal_key),
            // There is one engine, and another one would be another store.
            restart("store.engine", &"sled"),
            restart("store.folder", store),
            restart("store.free_bytes_min", free_bytes_min),
            restart("store.reserve_bytes", reserve_bytes),
            restart("audit.pseudonym_key", pseudonym_key),
            restart("metrics.listen", metrics),
            reload("log.filter", log_filter),
            restart("log.format", log_json),
            restart("strength.connections_max", connections_max),
            restart("strength.department_connections_max", department_connections_max),
            restart("strength.source_connections_burst", source_connections_burst),
            restart("strength.source_connections_per_second", source_connections_per_second),
            restart("strength.idle_seconds_max", idle_duration_max),
            restart("strength.connection_seconds_max", connection_duration_max),
            restart("strength.call_seconds_max", call_duration_max),
            restart("strength.message_seconds_max", message_duration_max),
            restart("strength.stall_seconds_max", stall_duration_max),
            restart("strength.queue_units_max", queue_units_max),
            restart("strength.queue_mebibytes_max", queue_bytes_max),
        ]
    }

    /// Keys with another value in `newer`, in the order of the sample.
    pub(crate) fn changed(&self, newer: &Self) -> Vec<Key> {
        let pairs = self.keys().into_iter().zip(newer.keys());
        pairs.filter(|(old, new)| old.value != new.value).map(|(old, _)| old).collect()
    }
}

fn line(name: &'static str, change: Change, value: &dyn std::fmt::Debug) -> Key {
    Key { name, change, value: format!("{value:?}") }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SAMPLE: &str = include_str!("../../config.sample.toml");

    fn parse(text: &str) -> Config {
        Config::parse(text, Path::new("/etc/lianxin/gateway.toml")).expect("parses")
    }

    /// The keys of the sample in its order, commented out ones included, each with the word above it.
    fn documented() -> Vec<(String, String)> {
        let (mut section, mut word, mut found) = (String::new(), String::new(), Vec::new());
        for line in SAMPLE.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = format!("{name}.");
            } else if let Some(marker) = line.strip_prefix("# (").and_then(|rest| rest.strip_suffix(')')) {
                word = marker.to_owned();
            } else if let Some((name, _)) = line.trim_start_matches("# ").split_once(" = ")
                && name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_')
            {
                found.push((format!("{section}{name}"), std::mem::take(&mut word)));
            }
        }
        found
    }

    #[test]
    fn the_sample_documents_every_key_and_what_another_value_of_it_needs() {
        let keys = parse(SAMPLE).keys();
        let table: Vec<_> = keys.iter().map(|key| (key.name.to_owned(), key.change.word().to_owned())).collect();
        assert_eq!(documented(), table);
    }

    #[test]
    fn changes_are_named() {
        let changed = |text: &str| {
            let keys = parse(SAMPLE).changed(&parse(text));
            keys.into_iter().map(|key| (key.name, key.change)).collect::<Vec<_>>()
        };
        assert_eq!(changed(SAMPLE), []);
        let other = SAMPLE.replace("cn-zj-1", "cn-zj-2").replace("filter = \"info\"", "filter = \"debug\"");
        assert_eq!(changed(&other), [("zone", Change::Restart), ("log.filter", Change::Reload)]);
    }
}
