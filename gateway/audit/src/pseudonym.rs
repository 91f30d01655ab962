//! Per-department yearly pseudonyms (PROTOCOL 8): the same device looks the same to its own department within a year, and
//! cannot be joined across departments or years without the key.

use std::sync::Arc;

use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use lianxin_types::{DepartmentId, DeviceUri, Timestamp};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The zone's secret from which every department's yearly key is derived. 32 bytes; erased on drop; never shown.
#[derive(Clone)]
pub struct PseudonymKey(Arc<Zeroizing<[u8; 32]>>);

impl PseudonymKey {
    /// A key of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }
}

impl std::fmt::Debug for PseudonymKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PseudonymKey")
    }
}

/// Makes pseudonyms.
#[derive(Debug, Clone)]
pub struct Pseudonyms {
    key: PseudonymKey,
}

impl Pseudonyms {
    /// Pseudonyms by this key.
    pub const fn new(key: PseudonymKey) -> Self {
        Self { key }
    }

    /// 32 hexadecimal digits: HMAC-SHA-256(department's key of the year, identity) cut to 16 bytes. The department's key is
    /// HKDF-SHA-256 of the zone's secret over label, department and year.
    pub fn of(&self, device: &DeviceUri, at: Timestamp) -> String {
        let key = self.department_key(device.department(), year(at));
        let mut mac = Hmac::<Sha256>::new_from_slice(&*key).expect("HMAC takes keys of every length");
        mac.update(device.as_str().as_bytes());
        let code = mac.finalize().into_bytes();
        code[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn department_key(&self, department: &DepartmentId, year: u64) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        let info = [b"lianxin/pseudonym/v1\0", department.as_str().as_bytes(), b"\0", &year.to_be_bytes()].concat();
        Hkdf::<Sha256>::new(None, &**self.key.0).expand(&info, &mut *key).expect("32 bytes are within HKDF's bound");
        key
    }
}

/// Gregorian year of a moment, UTC.
fn year(at: Timestamp) -> u64 {
    let mut days = at.seconds() / 86_400;
    let mut year = 1970;
    loop {
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = if is_leap { 366 } else { 365 };
        if days < length {
            return year;
        }
        days -= length;
        year += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_and_separated_by_department_and_year() {
        let pseudonyms = Pseudonyms::new(PseudonymKey::new([5; 32]));
        let device: DeviceUri = "lianxin://jiwei/app/a/1".parse().expect("well formed");
        let other: DeviceUri = "lianxin://shenji/app/a/1".parse().expect("well formed");
        let in_2026 = Timestamp::from_seconds(1_795_000_000);
        let in_2027 = Timestamp::from_seconds(1_800_000_000);
        let shown = pseudonyms.of(&device, in_2026);
        assert_eq!(shown, "4319bd44363b866516d2251a250f710f");
        assert_ne!(shown, pseudonyms.of(&other, in_2026));
        assert_ne!(shown, pseudonyms.of(&device, in_2027));
        assert_ne!(shown, Pseudonyms::new(PseudonymKey::new([6; 32])).of(&device, in_2026));
    }

    #[test]
    fn years_turn_at_midnight() {
        assert_eq!(year(Timestamp(0)), 1970);
        assert_eq!(year(Timestamp::from_seconds(951_868_799)), 2000);
        assert_eq!(year(Timestamp::from_seconds(1_798_761_599)), 2026);
        assert_eq!(year(Timestamp::from_seconds(1_798_761_600)), 2027);
    }
}
