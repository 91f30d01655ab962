//! What a member must remember to judge events of the log by what counted when they came in (PROTOCOL 1): who was away while an
//! authority or a removal key was retired, or a certificate revoked, still reads what came before.

use lianxin_types::{DecodeError, DepartmentId, Digest, Reader, Timestamp, Writer, ZoneId};

use crate::bundle::{TrustBundle, Zone};

const VERSION: u8 = 1;
/// Most authorities, and most removal keys, that are remembered; the ones retired first are forgotten first.
const REMEMBERED_MAX: usize = 256;
/// Longest certificate of an authority and longest name in bytes, to read what is stored.
const CERTIFICATE_BYTES_MAX: usize = 64 * 1024;
const NAME_BYTES_MAX: usize = 64;

/// Authorities and removal keys that bundles of one chain listed before, each until the bundle that left it out was signed; and
/// since when the gateway is known to have the revocation lists in use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Past {
    /// In the order in which they were retired.
    pub(crate) authorities: Vec<PastAuthority>,
    /// In the same order; those that one bundle retired at once, the oldest first.
    pub(crate) removal_keys: Vec<PastRemovalKey>,
    /// SHA-256 of a list, and when the gateway first gave it out.
    pub(crate) lists: Vec<(Digest, Timestamp)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PastAuthority {
    pub(crate) department: DepartmentId,
    /// Its certificate, DER.
    pub(crate) certificate: Vec<u8>,
    /// It was listed before this time.
    pub(crate) until: Timestamp,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PastRemovalKey {
    pub(crate) zone: ZoneId,
    pub(crate) key: [u8; 32],
    /// It was listed before this time.
    pub(crate) until: Timestamp,
}

impl Past {
    /// The past of `after`, where this is the past of `before` and `after` is the bundle that follows it.
    #[must_use]
    pub fn moved_on(&self, before: &TrustBundle, after: &TrustBundle) -> Self {
        let until = after.issued;
        let mut next = self.clone();
        for department in &before.departments {
            for certificate in &department.authorities {
                let (department, certificate) = (department.id.clone(), certificate.clone());
                next.authorities.push(PastAuthority { department, certificate, until });
            }
        }
        next.authorities.retain(|one| !lists_authority(after, one));
        for zone in &before.zones {
            for key in zone.removal_keys().collect::<Vec<_>>().into_iter().rev() {
                next.removal_keys.push(PastRemovalKey { zone: zone.id.clone(), key: *key, until });
            }
        }
        next.removal_keys.retain(|one| !lists_removal_key(after, one));
        next.authorities.drain(..next.authorities.len().saturating_sub(REMEMBERED_MAX));
        next.removal_keys.drain(..next.removal_keys.len().saturating_sub(REMEMBERED_MAX));
        next
    }

    /// The same once the gateway has given out these lists, DER, at `now`: they count as known to it since then, or since an
    /// earlier time at which it gave them out. Others are forgotten.
    #[must_use]
    pub fn given_out<'a>(&self, lists: impl Iterator<Item = &'a [u8]>, now: Timestamp) -> Self {
        let since = |list| {
            let digest = Digest::sha256(list);
            (digest, self.known_since(&digest).unwrap_or(now))
        };
        let (authorities, removal_keys) = (self.authorities.clone(), self.removal_keys.clone());
        Self { authorities, removal_keys, lists: lists.take(REMEMBERED_MAX).map(since).collect() }
    }

    /// Since when the gateway is known to have this list.
    pub(crate) fn known_since(&self, list: &Digest) -> Option<Timestamp> {
        self.lists.iter().find(|(digest, _)| digest == list).map(|(_, since)| *since)
    }

    /// version u8; count u16, then each authority's department, certificate and time u64; count u16, then each removal key's
    /// zone, key 32 bytes and time u64; count u16, then each list's digest 32 bytes and time u64. Byte strings with 32-bit lengths in front; big-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let count = |length| u16::try_from(length).expect("no more are remembered than 256");
        let mut writer = Writer::new();
        writer.u8(VERSION).u16(count(self.authorities.len()));
        for one in &self.authorities {
            writer.bytes(one.department.as_str().as_bytes()).bytes(&one.certificate).u64(one.until.0);
        }
        writer.u16(count(self.removal_keys.len()));
        for one in &self.removal_keys {
            writer.bytes(one.zone.as_str().as_bytes()).raw(&one.key).u64(one.until.0);
        }
        writer.u16(count(self.lists.len()));
        for (list, since) in &self.lists {
            writer.raw(&list.0).u64(since.0);
        }
        writer.finish()
    }

    /// Reads what [`Past::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] for other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("past version")?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion { version });
        }
        let mut past = Self::default();
        for _ in 0..reader.u16("authority count")? {
            past.authorities.push(PastAuthority {
                department: name(&mut reader, "department")?,
                certificate: reader.bytes("authority", CERTIFICATE_BYTES_MAX)?.to_vec(),
                until: Timestamp(reader.u64("until")?),
            });
        }
        for _ in 0..reader.u16("removal key count")? {
            let (zone, key) = (name(&mut reader, "zone")?, reader.array("removal key")?);
            past.removal_keys.push(PastRemovalKey { zone, key, until: Timestamp(reader.u64("until")?) });
        }
        for _ in 0..reader.u16("list count")? {
            past.lists.push((Digest(reader.array("list")?), Timestamp(reader.u64("since")?)));
        }
        reader.finish()?;
        Ok(past)
    }

    /// The removal keys of a zone that were listed at `then` or are now, the newest first.
    pub(crate) fn removal_keys_then<'a>(
        &'a self,
        zone: &'a Zone,
        then: Timestamp,
    ) -> impl Iterator<Item = &'a [u8; 32]> {
        let past = self.removal_keys.iter().rev().filter(move |one| one.zone == zone.id && then < one.until);
        zone.removal_keys().chain(past.map(|one| &one.key))
    }
}

fn lists_authority(bundle: &TrustBundle, one: &PastAuthority) -> bool {
    bundle.department(&one.department).is_some_and(|department| department.authorities.contains(&one.certificate))
}

fn lists_removal_key(bundle: &TrustBundle, one: &PastRemovalKey) -> bool {
    bundle.zone(&one.zone).is_some_and(|zone| zone.removal_keys().any(|key| *key == one.key))
}

fn name<T: std::str::FromStr>(reader: &mut Reader<'_>, field: &'static str) -> Result<T, DecodeError> {
    reader.text(field, NAME_BYTES_MAX)?.parse().map_err(|_| DecodeError::OutOfRange { field })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Department;

    fn bundle(issued: u64, authorities: &[&[u8]], keys: &[u8]) -> TrustBundle {
        let id: DepartmentId = "shenji".parse().expect("well formed");
        TrustBundle {
            version: issued,
            issued: Timestamp(issued),
            expires: Timestamp(issued + 1),
            predecessor: None,
            departments: vec![Department {
                id: id.clone(),
                name: "审计局".to_owned(),
                authorities: authorities.iter().map(|der| der.to_vec()).collect(),
                witness_keys: Vec::new(),
                issuer_keys: Vec::new(),
            }],
            zones: vec![Zone {
                id: "hangzhou".parse().expect("well formed"),
                department: id,
                endpoints: Vec::new(),
                removal_key: [keys[0]; 32],
                removal_keys_before: keys[1..].iter().map(|key| [*key; 32]).collect(),
                promise_key: [0; 32],
                log_key: [0; 32],
            }],
        }
    }

    /// The past of the last of `chain`.
    fn past(chain: &[TrustBundle]) -> Past {
        chain.windows(2).fold(Past::default(), |past, pair| past.moved_on(&pair[0], &pair[1]))
    }

    #[test]
    fn what_a_bundle_leaves_out_was_listed_until_that_bundle() {
        let chain = [bundle(10, &[b"old"], &[1]), bundle(20, &[b"old", b"new"], &[2, 1]), bundle(30, &[b"new"], &[2])];
        let past = past(&chain);
        let authorities: Vec<_> = past.authorities.iter().map(|one| (&one.certificate[..], one.until.0)).collect();
        assert_eq!(authorities, [(&b"old"[..], 30)]);
        let keys_at = |then| {
            let keys = past.removal_keys_then(&chain[2].zones[0], Timestamp(then));
            keys.map(|key| key[0]).collect::<Vec<_>>()
        };
        assert_eq!((keys_at(29), keys_at(30)), (vec![2, 1], vec![2]));
    }

    #[test]
    fn what_is_listed_again_is_not_past_and_the_newest_key_comes_first() {
        let chain = [
            bundle(10, &[b"a"], &[3, 2, 1]),
            bundle(20, &[b"b"], &[4]),
            bundle(30, &[b"a"], &[5, 4]),
            bundle(40, &[b"a"], &[6]),
        ];
        let past = past(&chain);
        assert_eq!(past.authorities.iter().map(|one| &one.certificate[..]).collect::<Vec<_>>(), [b"b"]);
        let keys = past.removal_keys_then(&chain[3].zones[0], Timestamp(0)).map(|key| key[0]);
        assert_eq!(keys.collect::<Vec<_>>(), [6, 5, 4, 3, 2, 1]);
    }

    #[test]
    fn a_list_is_known_since_it_was_first_given_out_and_forgotten_with_its_successor() {
        let (old, new): (&[u8], &[u8]) = (b"old", b"new");
        let since = |past: &Past, list| past.known_since(&Digest::sha256(list)).map(|since| since.0);
        let first = Past::default().given_out([old].into_iter(), Timestamp(10));
        let both = first.given_out([old, new].into_iter(), Timestamp(20));
        assert_eq!((since(&both, old), since(&both, new)), (Some(10), Some(20)));
        assert_eq!(since(&both.given_out([new].into_iter(), Timestamp(30)), old), None);
    }

    #[test]
    fn it_is_read_as_it_was_written_and_bounded() {
        let chain: Vec<_> = (0..300_u64)
            .map(|number| bundle(number, &[&number.to_be_bytes()], &[u8::try_from(number % 251).expect("small")]))
            .collect();
        let lists: [&[u8]; 2] = [b"one", b"two"];
        let past = past(&chain).given_out(lists.into_iter(), Timestamp(7));
        assert_eq!((past.authorities.len(), past.removal_keys.len()), (256, 250));
        assert_eq!(past.authorities.last().map(|one| one.until.0), Some(299));
        let bytes = past.to_bytes();
        assert_eq!(Past::from_bytes(&bytes), Ok(past));
        assert!(Past::from_bytes(&bytes[..bytes.len() - 1]).is_err() && Past::from_bytes(&[2]).is_err());
    }
}
