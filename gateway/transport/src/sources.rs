//! What one network address may do before anybody knows who is there.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use lianxin_types::{Monotonic, Throttles};

use crate::admission::Bounds;

/// Counts new connections and open handshakes by where they come from.
pub(crate) struct Sources {
    connections: Throttles<IpAddr>,
    handshakes: Arc<Mutex<HashMap<IpAddr, usize>>>,
    handshakes_max: usize,
}

/// One of a source's handshakes; given back on drop.
pub(crate) struct SourcePlace {
    handshakes: Arc<Mutex<HashMap<IpAddr, usize>>>,
    source: IpAddr,
}

impl Sources {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        Self {
            connections: Throttles::new(bounds.source_connections),
            handshakes: Arc::default(),
            handshakes_max: bounds.source_handshakes_max,
        }
    }

    /// A place for one more handshake, or none: too many, or too fast.
    pub(crate) fn enter(&self, source: IpAddr, now: Monotonic) -> Option<SourcePlace> {
        let source = network(source);
        let mut handshakes = self.handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        // The number of keys is bounded by the number of handshakes.
        if handshakes.get(&source).is_some_and(|count| *count >= self.handshakes_max) {
            return None;
        }
        if !self.connections.take(source, now) {
            return None;
        }
        *handshakes.entry(source).or_default() += 1;
        Some(SourcePlace { handshakes: Arc::clone(&self.handshakes), source })
    }
}

/// Who has one address of an IPv6 network of 64 bits has them all.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

impl Drop for SourcePlace {
    fn drop(&mut self) {
        let mut handshakes = self.handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = handshakes.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                handshakes.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lianxin_types::Rate;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_source_has_so_many_handshakes_at_once_and_leaves_nothing_behind() {
        let sources = Sources::new(&Bounds { source_handshakes_max: 2, ..Bounds::default() });
        let enter = |source: &str| sources.enter(address(source), Monotonic(0));
        let first = enter("10.0.0.1").expect("one of two");
        let second = enter("::ffff:10.0.0.1").expect("two of two, under its other name");
        assert!(enter("10.0.0.1").is_none());
        let other = enter("10.0.0.2").expect("another source has its own");
        drop(first);
        let third = enter("10.0.0.1").expect("a place came free");
        drop((second, third, other));
        assert!(sources.handshakes.lock().expect("not poisoned").is_empty());
    }

    #[test]
    fn a_source_connects_so_often_and_has_no_more_addresses_than_one() {
        let rate = Rate { burst: 2, per_second: 1 };
        let sources = Sources::new(&Bounds { source_connections: rate, ..Bounds::default() });
        let enter = |source: &str, now| sources.enter(address(source), Monotonic(now)).is_some();
        assert!(enter("2001:db8::1", 0) && enter("2001:db8::2", 0));
        assert!(!enter("2001:db8::3", 0), "the same network");
        assert!(enter("2001:db8:0:1::1", 0), "another network");
        assert!(enter("2001:db8::3", 1_000_000), "a second later");
    }
}
