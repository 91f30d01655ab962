//! How many may be inside: over all, and per device.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lianxin_types::{DeviceUri, LIMITS};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bounds of the listener; every one is a bound on memory or on time that an unknown caller can cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at the same time, in the handshake or after it.
    pub connections_max: usize,
    /// Handshakes at the same time; further callers wait in the system's queue.
    pub handshakes_max: usize,
    /// Longest handshake, from the first byte to the last.
    pub handshake_duration_max: Duration,
    /// Connections of one device at the same time.
    pub device_connections_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            handshakes_max: 256,
            handshake_duration_max: Duration::from_secs(10),
            device_connections_max: LIMITS.device_connections_max,
        }
    }
}

/// Counts who is inside.
pub(crate) struct Admission {
    places: Arc<Semaphore>,
    devices: Arc<Mutex<HashMap<DeviceUri, usize>>>,
    device_connections_max: usize,
}

/// One of the listener's places; given back on drop.
pub(crate) type Place = OwnedSemaphorePermit;

/// One of a device's connections; given back on drop.
pub(crate) struct DevicePlace {
    devices: Arc<Mutex<HashMap<DeviceUri, usize>>>,
    device: DeviceUri,
}

impl Admission {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        Self {
            places: Arc::new(Semaphore::new(bounds.connections_max.min(Semaphore::MAX_PERMITS))),
            devices: Arc::default(),
            device_connections_max: bounds.device_connections_max,
        }
    }

    /// A place for a new connection, or none if all are taken.
    pub(crate) fn enter(&self) -> Option<Place> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// A place for one more connection of `device`, or none if it has as many as it may.
    pub(crate) fn enter_device(&self, device: &DeviceUri) -> Option<DevicePlace> {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let count = devices.entry(device.clone()).or_default();
        if *count >= self.device_connections_max {
            return None;
        }
        *count += 1;
        Some(DevicePlace { devices: Arc::clone(&self.devices), device: device.clone() })
    }
}

impl Drop for DevicePlace {
    fn drop(&mut self) {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = devices.get_mut(&self.device) {
            *count -= 1;
            if *count == 0 {
                devices.remove(&self.device);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str) -> DeviceUri {
        format!("lianxin://jiwei/app/{name}/node-1").parse().expect("well formed")
    }

    #[test]
    fn a_device_has_its_own_bound_and_leaves_nothing_behind() {
        let admission = Admission::new(&Bounds { device_connections_max: 2, ..Bounds::default() });
        let first = admission.enter_device(&device("a")).expect("one of two");
        let _second = admission.enter_device(&device("a")).expect("two of two");
        assert!(admission.enter_device(&device("a")).is_none());
        let other = admission.enter_device(&device("b")).expect("another device has its own count");
        drop(first);
        let _third = admission.enter_device(&device("a")).expect("a place came free");
        drop(other);
        assert_eq!(
            admission.devices.lock().expect("not poisoned").len(),
            1,
            "a device without connections is forgotten"
        );
    }

    #[test]
    fn all_places_together_are_bounded() {
        let admission = Admission::new(&Bounds { connections_max: 1, ..Bounds::default() });
        let only = admission.enter().expect("the only place");
        assert!(admission.enter().is_none());
        drop(only);
        assert!(admission.enter().is_some());
    }
}
