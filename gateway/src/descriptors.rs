//! Open files: how many a gateway may need, and whether the system allows so many. Running out in the middle of the day would
//! look like a fault of the network and of the disk at once.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::error::ServeError;

/// Log, runtime, listeners, metrics, configuration files read again.
const OTHERS: u64 = 256;
/// Connections where the configuration names none and the system allows so many.
const CONNECTIONS_MAX: u64 = 20_000;
/// Fewer than this serve no federation.
const CONNECTIONS_MIN: u64 = 100;

/// Connections and open files that a gateway of this configuration has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// Connections at the same time.
    pub connections_max: u64,
    /// Files that the store may have open.
    pub store: u64,
    /// Everything else.
    pub others: u64,
    /// What the system allows, once the soft limit has been raised to the hard one.
    pub allowed: u64,
}

impl Descriptors {
    /// All files that may be open at once.
    pub const fn needed(&self) -> u64 {
        self.connections_max + self.store + self.others
    }

    /// Counts for a configuration under the limits of this process; changes nothing.
    ///
    /// # Errors
    /// [`ServeError::Descriptors`] if they do not suffice.
    pub fn of(config: &Config) -> Result<Self, ServeError> {
        let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        Self::under(hard, config.strength.connections_max.map(|wanted| wanted as u64))
    }

    fn under(allowed: u64, wanted: Option<u64>) -> Result<Self, ServeError> {
        let (store, others) = (lianxin_store_sled::FILES_MAX, OTHERS);
        let room = allowed.saturating_sub(store + others);
        let connections_max = wanted.unwrap_or(room.clamp(CONNECTIONS_MIN, CONNECTIONS_MAX));
        let counted = Self { connections_max, store, others, allowed };
        if connections_max > room { Err(ServeError::Descriptors(counted)) } else { Ok(counted) }
    }

    /// As [`Descriptors::of`], and raises the soft limit to the hard one.
    ///
    /// # Errors
    /// As [`Descriptors::of`], and if the system does not let it be raised.
    pub(crate) fn claim(config: &Config) -> Result<Self, ServeError> {
        let counted = Self::of(config)?;
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        if current.is_some_and(|soft| soft < counted.needed()) {
            setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
                .map_err(|source| ServeError::RaiseDescriptors { source: source.into() })?;
        }
        Ok(counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_its_numbers() {
        let others = lianxin_store_sled::FILES_MAX + OTHERS;
        let refused = Descriptors::under(others + 500, Some(501)).expect_err("one too many");
        let text = refused.to_string();
        assert!(text.contains(&(others + 501).to_string()) && text.contains(&(others + 500).to_string()), "{text}");
        assert!(Descriptors::under(others + 99, None).is_err(), "too few for anybody");
        assert!(Descriptors::under(0, None).is_err());
    }

    #[test]
    fn unless_told_otherwise_it_takes_what_there_is_up_to_a_bound() {
        let others = lianxin_store_sled::FILES_MAX + OTHERS;
        let connections = |allowed| Descriptors::under(allowed, None).expect("enough").connections_max;
        assert_eq!(connections(others + 100), 100);
        assert_eq!(connections(others + 19_999), 19_999);
        assert_eq!(connections(u64::MAX), 20_000);
        let exact = Descriptors::under(others + 500, Some(500)).expect("exactly enough");
        assert_eq!(exact.needed(), exact.allowed);
    }
}
