//! How many may be inside: over all, per device and per department.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lianxin_types::{DepartmentId, DeviceUri, LIMITS, Rate};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::refusal::RefusalReason;

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
    /// Connections of all devices of one department at the same time, so that no department takes all places.
    pub department_connections_max: usize,
    /// New connections from one network address (of IPv6, from one /64).
    pub source_connections: Rate,
    /// Handshakes at the same time from one network address.
    pub source_handshakes_max: usize,
    /// A connection without an open call is ended after so long.
    pub idle_duration_max: Duration,
    /// A connection is ended after so long at the latest, or up to a tenth sooner.
    pub connection_duration_max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            handshakes_max: 256,
            handshake_duration_max: Duration::from_secs(10),
            device_connections_max: LIMITS.device_connections_max,
            department_connections_max: 5_000,
            source_connections: Rate { burst: 512, per_second: 64 },
            source_handshakes_max: 64,
            idle_duration_max: Duration::from_secs(300),
            connection_duration_max: Duration::from_secs(24 * 3600),
        }
    }
}

/// Counts who is inside.
pub(crate) struct Admission {
    places: Arc<Semaphore>,
    places_max: usize,
    inside: Arc<Mutex<Inside>>,
    device_connections_max: usize,
    department_connections_max: usize,
}

/// Connections of whoever has any.
#[derive(Default)]
struct Inside {
    devices: HashMap<DeviceUri, usize>,
    departments: HashMap<DepartmentId, usize>,
}

/// One of the listener's places; given back on drop.
pub(crate) type Place = OwnedSemaphorePermit;

/// One of a device's and of its department's connections; given back on drop.
pub(crate) struct DevicePlace {
    inside: Arc<Mutex<Inside>>,
    device: DeviceUri,
}

impl Admission {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        let places_max = bounds.connections_max.min(Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(places_max)),
            places_max,
            inside: Arc::default(),
            device_connections_max: bounds.device_connections_max,
            department_connections_max: bounds.department_connections_max,
        }
    }

    /// A place for a new connection, or none if all are taken.
    pub(crate) fn enter(&self) -> Option<Place> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Places taken, and all there are.
    pub(crate) fn places(&self) -> (usize, usize) {
        (self.places_max.saturating_sub(self.places.available_permits()), self.places_max)
    }

    /// A place for one more connection of `device`.
    ///
    /// # Errors
    /// [`RefusalReason::DeviceConnectionsFull`], [`RefusalReason::DepartmentConnectionsFull`].
    pub(crate) fn enter_device(&self, device: &DeviceUri) -> Result<DevicePlace, RefusalReason> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.devices.get(device).is_some_and(|count| *count >= self.device_connections_max) {
            return Err(RefusalReason::DeviceConnectionsFull);
        }
        let department = device.department();
        if inside.departments.get(department).is_some_and(|count| *count >= self.department_connections_max) {
            return Err(RefusalReason::DepartmentConnectionsFull);
        }
        *inside.devices.entry(device.clone()).or_default() += 1;
        *inside.departments.entry(department.clone()).or_default() += 1;
        Ok(DevicePlace { inside: Arc::clone(&self.inside), device: device.clone() })
    }
}

impl Drop for DevicePlace {
    fn drop(&mut self) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        give_back(&mut inside.devices, &self.device);
        give_back(&mut inside.departments, self.device.department());
    }
}

/// One fewer; who has none is forgotten.
fn give_back<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
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
        assert_eq!(admission.enter_device(&device("a")).err(), Some(RefusalReason::DeviceConnectionsFull));
        let other = admission.enter_device(&device("b")).expect("another device has its own count");
        drop(first);
        let _third = admission.enter_device(&device("a")).expect("a place came free");
        drop(other);
        assert_eq!(
            admission.inside.lock().expect("not poisoned").devices.len(),
            1,
            "a device without connections is forgotten"
        );
    }

    #[test]
    fn a_department_has_its_bound_over_all_its_devices() {
        let admission = Admission::new(&Bounds { department_connections_max: 2, ..Bounds::default() });
        let first = admission.enter_device(&device("a")).expect("one of two");
        let _second = admission.enter_device(&device("b")).expect("two of two");
        assert_eq!(admission.enter_device(&device("c")).err(), Some(RefusalReason::DepartmentConnectionsFull));
        let elsewhere = "lianxin://shenji/app/a/node-1".parse().expect("well formed");
        let other = admission.enter_device(&elsewhere).expect("another department has its own");
        drop(first);
        let _third = admission.enter_device(&device("c")).expect("a place came free");
        drop(other);
        let inside = admission.inside.lock().expect("not poisoned");
        assert_eq!((inside.departments.len(), inside.devices.len()), (1, 2), "who has none is forgotten");
    }

    #[test]
    fn all_places_together_are_bounded() {
        let admission = Admission::new(&Bounds { connections_max: 1, ..Bounds::default() });
        let only = admission.enter().expect("the only place");
        assert!(admission.enter().is_none());
        assert_eq!(admission.places(), (1, 1));
        drop(only);
        assert_eq!(admission.places(), (0, 1));
        assert!(admission.enter().is_some());
    }
}
