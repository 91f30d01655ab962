//! Care for the own leaf's keys: how the device came by them, how old they are, and when a commit of its own is due that makes
//! new ones (RFC 9420 section 16.6: who does not update heals no compromise). Who came by a last resort makes new ones before it
//! sends anything, because others may have been invited with the same (PROTOCOL 5); so does who finds that its state is an older copy,
//! by what the log has of it. What the log does not have shows nothing: a message that the gateway refused, withholds, or logs only after
//! the device has read to the end may have been encrypted with a key that is used once more then. MLS provides for that: the nonce
//! of each message is made with four random bytes beside its key, the reuse guard (RFC 9420 section 6.3.1).

use std::time::Duration;

use lianxin_keystore::Transaction;
use lianxin_types::{ChannelId, DecodeError, Reader, Timestamp, Writer, labelled_sha256};

use crate::record::Records;
use crate::{Mls, MlsError};

const VERSION: u8 = 1;

/// When the keys of a leaf are renewed by themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeafCare {
    /// After a device has joined by an invitation: its keys are those of a key package, and the tree above its leaf is blank.
    pub after_joining: Duration,
    /// After its last own commit.
    pub every: Duration,
}

impl Default for LeafCare {
    /// A quarter of an hour after joining, and every week; each device up to a quarter later, so that members do not come all
    /// at once.
    fn default() -> Self {
        Self { after_joining: Duration::from_secs(15 * 60), every: Duration::from_secs(7 * 24 * 3600) }
    }
}

/// How the device came by the keys of its leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// By a path of its own.
    OwnPath = 1,
    /// By a key package of one use.
    OneTime = 2,
    /// By a last resort.
    LastResort = 3,
    /// Out of an older copy of this device's state: it has used them further than it knows.
    OlderState = 4,
}

impl Origin {
    pub(crate) const fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::OwnPath),
            2 => Some(Self::OneTime),
            3 => Some(Self::LastResort),
            4 => Some(Self::OlderState),
            _ => None,
        }
    }
}

/// The keys of the own leaf in one channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LeafKeys {
    pub(crate) origin: Origin,
    /// Since when, by this device's clock or the gateway's.
    pub(crate) since: Timestamp,
}

impl LeafKeys {
    /// version u8, origin u8, since u64.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        Writer::new().u8(VERSION).u8(self.origin as u8).u64(self.since.0).finish()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("leaf version")?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion { version });
        }
        let origin = Origin::of(reader.u8("origin")?).ok_or(DecodeError::OutOfRange { field: "origin" })?;
        let since = Timestamp(reader.u64("since")?);
        reader.finish()?;
        Ok(Self { origin, since })
    }
}

impl Mls {
    /// The same engine with another schedule.
    #[must_use]
    pub fn with_leaf_care(self, care: LeafCare) -> Self {
        Self { care, ..self }
    }

    /// Whether a commit of this device is due in a channel that makes new keys for its leaf. Cheap: the group is not read.
    ///
    /// # Errors
    /// [`MlsError::Keystore`], [`MlsError::Record`].
    pub fn is_leaf_due(&self, tx: &Transaction<'_>, channel: ChannelId) -> Result<bool, MlsError> {
        let records = Records::new(tx, channel);
        Ok(self.is_due(&channel, records.leaf()?) || records.is_too_far_ahead()?)
    }

    /// `None` for a leaf whose keys were made before this was remembered.
    pub(crate) fn is_due(&self, channel: &ChannelId, keys: Option<LeafKeys>) -> bool {
        let Some(LeafKeys { origin, since }) = keys else { return true };
        let age = match origin {
            Origin::LastResort | Origin::OlderState => return true,
            Origin::OneTime => self.care.after_joining,
            Origin::OwnPath => self.care.every,
        };
        let digest = labelled_sha256("lianxin/leaf-care/v1", &[&channel.0, self.device.as_str().as_bytes()]);
        let later = age / 4 * u32::from(digest.0[0]) / 256;
        self.clock.now() >= since.plus(age + later)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_and_back() {
        let keys = LeafKeys { origin: Origin::LastResort, since: Timestamp(0x0102) };
        let bytes = keys.to_bytes();
        assert_eq!(bytes, [1, 3, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(LeafKeys::from_bytes(&bytes), Ok(keys));
        assert!(LeafKeys::from_bytes(&bytes[1..]).is_err() && LeafKeys::from_bytes(&[1, 5, 0]).is_err());
    }
}
