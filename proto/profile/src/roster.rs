//! Who sits where in a group. Kept beside the group, so that a chain is verified once, when its leaf enters.

use std::collections::{BTreeMap, BTreeSet};

use lianxin_trust::Federation;
use lianxin_types::{DecodeError, DeviceUri, LIMITS, Reader, Timestamp, Writer};
use openmls::prelude::Member;

use crate::{ChannelContext, ProfileError, Validity, check_leaf};

/// One member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seat {
    /// Index of its leaf in the tree.
    pub leaf: u32,
    /// Who it is.
    pub uri: DeviceUri,
    /// Its Ed25519 key, 32 bytes: the leaf's and the certificate's.
    pub signature_key: Vec<u8>,
}

/// The members of one epoch; no identity sits twice.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Roster {
    seats: BTreeMap<u32, Seat>,
}

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;

impl Roster {
    /// Verifies the credential of every member of a group that somebody else handed over.
    ///
    /// # Errors
    /// Those of [`check_leaf`] for the first member that is refused; [`ProfileError::InvalidCommit`] if an identity sits
    /// twice; [`ProfileError::LimitReached`].
    pub fn verify(
        federation: &Federation,
        members: impl Iterator<Item = Member>,
        now: Timestamp,
        validity: Validity,
    ) -> Result<Self, ProfileError> {
        let mut roster = Self::default();
        for member in members {
            let identity = check_leaf(federation, &member.credential, &member.signature_key, now, validity)?;
            let seat = Seat { leaf: member.index.u32(), uri: identity.uri, signature_key: member.signature_key };
            roster.seats.insert(seat.leaf, seat);
        }
        roster.check()?;
        Ok(roster)
    }

    /// Whether this roster describes exactly these members: same leaves, same keys. Cheap; to be asked after each merge.
    pub fn matches(&self, members: impl Iterator<Item = Member>) -> bool {
        let mut count = 0;
        for member in members {
            count += 1;
            let same =
                self.seats.get(&member.index.u32()).is_some_and(|seat| seat.signature_key == member.signature_key);
            if !same {
                return false;
            }
        }
        count == self.seats.len()
    }

    /// The members, ascending by leaf.
    pub fn seats(&self) -> impl ExactSizeIterator<Item = &Seat> {
        self.seats.values()
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// The member at `leaf`.
    pub fn at(&self, leaf: u32) -> Option<&Seat> {
        self.seats.get(&leaf)
    }

    /// The seat of `uri`.
    pub fn of(&self, uri: &DeviceUri) -> Option<&Seat> {
        self.seats.values().find(|seat| seat.uri == *uri)
    }

    /// Those members for whom `stays` holds, at their leaves.
    #[must_use]
    pub fn only(&self, stays: impl Fn(&Seat) -> bool) -> Self {
        let seats = self.seats.iter().filter(|(_, seat)| stays(seat));
        Self { seats: seats.map(|(leaf, seat)| (*leaf, seat.clone())).collect() }
    }

    /// version u8, count u32, then each leaf u32, identity with a 32-bit length, key 32 bytes; ascending by leaf. For
    /// whoever keeps a roster beside its group; it is trusted on reading.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(VERSION).u32(u32::try_from(self.seats.len()).expect("checked to be at most 1,000 members"));
        for seat in self.seats.values() {
            writer.u32(seat.leaf).bytes(seat.uri.as_str().as_bytes()).raw(&seat.signature_key);
        }
        writer.finish()
    }

    /// Reads what [`Roster::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] for other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("roster version")?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion { version });
        }
        let mut roster = Self::default();
        for _ in 0..reader.u32("member count")? {
            let leaf = reader.u32("leaf")?;
            let uri = reader.text("identity", DeviceUri::BYTES_MAX)?;
            let uri = uri.parse().map_err(|_| DecodeError::OutOfRange { field: "identity" })?;
            let signature_key = reader.raw("key", KEY_BYTES)?.to_vec();
            roster.seats.insert(leaf, Seat { leaf, uri, signature_key });
        }
        reader.finish()?;
        Ok(roster)
    }

    /// Takes a member out.
    pub(crate) fn remove(&mut self, leaf: u32) -> Option<Seat> {
        self.seats.remove(&leaf)
    }

    /// Seats a new member at the leftmost blank leaf, where RFC 9420 section 12.1.1 puts it.
    pub(crate) fn add(&mut self, uri: DeviceUri, signature_key: Vec<u8>) -> u32 {
        let mut leaf = 0;
        for taken in self.seats.keys() {
            if *taken != leaf {
                break;
            }
            leaf += 1;
        }
        self.seats.insert(leaf, Seat { leaf, uri, signature_key });
        leaf
    }

    /// Gives the member at `leaf` another key.
    pub(crate) fn rekey(&mut self, leaf: u32, signature_key: Vec<u8>) {
        if let Some(seat) = self.seats.get_mut(&leaf) {
            seat.signature_key = signature_key;
        }
    }

    /// Nobody sits twice, and there are no more than 1,000.
    pub(crate) fn check(&self) -> Result<(), ProfileError> {
        let (found, limit) = (self.seats.len(), LIMITS.channel_members_max);
        if found > limit {
            return Err(ProfileError::LimitReached { what: "members", limit, found });
        }
        if self.seats.values().any(|seat| seat.signature_key.len() != KEY_BYTES) {
            return Err(ProfileError::InvalidCredential { fault: "an Ed25519 key has 32 bytes" });
        }
        let mut seen = BTreeSet::new();
        match self.seats.values().all(|seat| seen.insert(&seat.uri)) {
            true => Ok(()),
            false => Err(ProfileError::InvalidCommit { fault: "an identity would sit twice" }),
        }
    }

    /// Refuses a member whose department `context` does not name.
    ///
    /// # Errors
    /// [`ProfileError::DepartmentNotNamed`].
    pub fn check_departments(&self, context: &ChannelContext) -> Result<(), ProfileError> {
        match self.seats.values().find(|seat| !context.names(seat.uri.department())) {
            Some(seat) => Err(ProfileError::DepartmentNotNamed { department: seat.uri.department().clone() }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(name: &str) -> DeviceUri {
        format!("lianxin://jiwei/app/{name}/1").parse().expect("well formed")
    }

    fn three() -> Roster {
        let mut roster = Roster::default();
        for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
            assert_eq!(roster.add(uri(name), vec![number as u8; 32]), number as u32);
        }
        roster
    }

    #[test]
    fn a_newcomer_takes_the_leftmost_blank_leaf() {
        let mut roster = three();
        roster.remove(1);
        assert_eq!(roster.add(uri("d"), vec![4; 32]), 1);
        assert_eq!(roster.add(uri("e"), vec![5; 32]), 3);
        assert_eq!(roster.of(&uri("d")).map(|seat| seat.leaf), Some(1));
        assert_eq!(roster.check(), Ok(()));
        roster.add(uri("a"), vec![6; 32]);
        assert_eq!(roster.check(), Err(ProfileError::InvalidCommit { fault: "an identity would sit twice" }));
    }

    #[test]
    fn golden_and_back() {
        let mut roster = Roster::default();
        roster.add(uri("a"), vec![0xEE; 32]);
        let text = "6c69616e78696e3a2f2f6a69776569";
        let expect = format!("01000000010000000000000017{text}2f6170702f612f31{}", "ee".repeat(32));
        assert_eq!(hex::encode(roster.to_bytes()), expect);
        assert_eq!(Roster::from_bytes(&three().to_bytes()), Ok(three()));
        assert!(Roster::from_bytes(&three().to_bytes()[..40]).is_err());
    }
}
