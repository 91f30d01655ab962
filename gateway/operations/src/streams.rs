//! Streams that a device has open, over all its connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use lianxin_types::{DeviceUri, LIMITS};

/// Which way a stream's messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// From the device.
    Send,
    /// To the device.
    Receive,
}

/// Counts the open streams of each device.
#[derive(Debug, Default)]
pub(crate) struct DeviceStreams(Mutex<HashMap<(DeviceUri, Direction), usize>>);

/// One open stream; given back on drop.
pub(crate) struct StreamPlace {
    streams: Arc<DeviceStreams>,
    key: (DeviceUri, Direction),
}

impl DeviceStreams {
    /// A place for one more stream, or none if the device has as many as it may.
    pub(crate) fn open(self: &Arc<Self>, device: &DeviceUri, direction: Direction) -> Option<StreamPlace> {
        let limit = match direction {
            Direction::Send => LIMITS.device_send_streams_max,
            Direction::Receive => LIMITS.device_receive_streams_max,
        };
        let key = (device.clone(), direction);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&key).copied().unwrap_or(0);
        if count >= limit {
            return None;
        }
        counts.insert(key.clone(), count + 1);
        Some(StreamPlace { streams: Arc::clone(self), key })
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut counts = self.streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_so_many_streams_each_way_and_leaves_nothing_behind() {
        let streams = Arc::new(DeviceStreams::default());
        let device = |name: &str| format!("lianxin://jiwei/app/{name}/1").parse::<DeviceUri>().expect("well formed");
        let open = |name: &str, direction| streams.open(&device(name), direction);
        let mut held: Vec<_> = (0..LIMITS.device_receive_streams_max)
            .map(|_| open("a", Direction::Receive).expect("within the bound"))
            .collect();
        assert!(open("a", Direction::Receive).is_none());
        held.push(open("a", Direction::Send).expect("the other way has its own bound"));
        held.push(open("b", Direction::Receive).expect("another device has its own"));
        drop(held.remove(0));
        held.push(open("a", Direction::Receive).expect("a place came free"));
        drop(held);
        assert!(streams.0.lock().expect("not poisoned").is_empty());
    }
}
