//! Behind what no way back leads: the newest group and epoch of a channel that this device knows of, by its own group or by the
//! log. Out of an older GroupInfo a gateway could show it a group that the others have left, or one that it was taken out of.

use lianxin_profile::parse_handshake;
use lianxin_types::{DecodeError, Epoch, GroupId, Incarnation, Reader, Writer};

use crate::MlsError;
use crate::record::Records;

/// Rows, one per channel. It outlives the record, so that whoever begins anew does not begin behind it.
const EPOCHS: &str = "mls-log-epoch";

/// It is only ever raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Floor {
    incarnation: Incarnation,
    /// A way back starts in this epoch or a later one.
    epoch: Epoch,
    /// The last epoch that was verified, and one for each commit in the log since. A commit that this device cannot verify may
    /// claim any epoch, and counts for no more than that.
    at_most: Epoch,
}

impl Floor {
    pub(crate) const fn at(group: GroupId, epoch: Epoch) -> Self {
        Self { incarnation: group.incarnation, epoch, at_most: epoch }
    }

    /// The higher one; of two equal ones this.
    fn or(self, other: Self) -> Self {
        let is_higher = (other.incarnation, other.epoch) > (self.incarnation, self.epoch);
        if is_higher { other } else { self }
    }

    /// Behind a commit in the log that was not verified; `claim` is the group and the epoch that it says it ends, if it can be read.
    fn counted(self, claim: Option<(GroupId, Epoch)>) -> Self {
        let at_most = Epoch(self.at_most.0.saturating_add(1));
        let claim = claim.filter(|(group, _)| group.incarnation == self.incarnation);
        let begun = claim.map_or(self.epoch, |(_, ended)| Epoch(ended.0.saturating_add(1)));
        Self { epoch: self.epoch.max(begun.min(at_most)), at_most, ..self }
    }

    /// incarnation u32, epoch u64, epoch at most u64.
    fn to_bytes(self) -> Vec<u8> {
        Writer::new().u32(self.incarnation.0).u64(self.epoch.0).u64(self.at_most.0).finish()
    }

    /// The first rows had no last field.
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let incarnation = Incarnation(reader.u32("incarnation")?);
        let epoch = Epoch(reader.u64("epoch of the log")?);
        let at_most = if reader.is_empty() { epoch } else { Epoch(reader.u64("epoch at most")?) };
        reader.finish()?;
        Ok(Self { incarnation, epoch, at_most })
    }
}

impl Records<'_> {
    /// The floor, and no less than `known`.
    fn floor(&self, known: Option<Floor>) -> Result<Option<Floor>, MlsError> {
        let stored = self.tx.get(EPOCHS, &self.channel.0)?;
        let stored = stored.map(|bytes| Floor::from_bytes(&bytes)).transpose()?;
        Ok(stored.into_iter().chain(known).reduce(Floor::or))
    }

    /// Whether a way back may start here, for whoever knows this much by its record.
    ///
    /// # Errors
    /// [`MlsError::OldGroupInfo`] for a group that another has followed, and for an epoch that is over.
    pub(crate) fn check_floor(&self, known: Option<Floor>, group: GroupId, epoch: Epoch) -> Result<(), MlsError> {
        let Some(floor) = self.floor(known)? else { return Ok(()) };
        let (found, known) = ((group.incarnation, epoch), (floor.incarnation, floor.epoch));
        if found < known { Err(MlsError::OldGroupInfo { found, known }) } else { Ok(()) }
    }

    /// The channel has come to this, as was verified.
    pub(crate) fn raise_floor(&self, group: GroupId, epoch: Epoch) -> Result<(), MlsError> {
        let floor = self.floor(Some(Floor::at(group, epoch)))?;
        floor.map_or(Ok(()), |floor| self.save_floor(floor))
    }

    /// A commit is in the log that this device cannot verify; its own group, or what it knows of it, stands at `own`.
    pub(crate) fn count_commit(&self, own: Floor, commit: &[u8]) -> Result<(), MlsError> {
        let claim = parse_handshake(commit).ok().map(|frame| (frame.group, frame.epoch));
        let floor = self.floor(Some(own))?;
        floor.map_or(Ok(()), |floor| self.save_floor(floor.counted(claim)))
    }

    fn save_floor(&self, floor: Floor) -> Result<(), MlsError> {
        Ok(self.tx.put(EPOCHS, &self.channel.0, &floor.to_bytes())?)
    }

    /// For a channel that never was.
    pub(crate) fn forget_floor(&self) -> Result<(), MlsError> {
        Ok(self.tx.delete(EPOCHS, &self.channel.0)?)
    }
}

#[cfg(test)]
mod tests {
    use lianxin_types::ChannelId;

    use super::*;

    fn group(incarnation: u32) -> GroupId {
        GroupId { channel: ChannelId([0xAA; 16]), incarnation: Incarnation(incarnation) }
    }

    #[test]
    fn a_commit_that_nobody_has_verified_raises_it_by_one_at_most_and_never_lowers_it() {
        let floor = Floor::at(group(1), Epoch(7));
        let after = |claim| floor.counted(claim).epoch;
        assert_eq!(after(Some((group(1), Epoch(7)))), Epoch(8), "as an honest log has it");
        assert_eq!(after(Some((group(1), Epoch(u64::MAX)))), Epoch(8), "no more than there were commits");
        assert_eq!(after(Some((group(1), Epoch(2)))), Epoch(7), "no less than was known");
        assert_eq!(after(Some((group(2), Epoch(9)))), Epoch(7), "of another group");
        assert_eq!(after(None), Epoch(7), "it says nothing");
        let second = floor.counted(None).counted(Some((group(1), Epoch(8))));
        assert_eq!(second.epoch, Epoch(9), "and is a commit all the same");
        // What is verified counts from there on.
        assert_eq!(second.or(Floor::at(group(1), Epoch(20))).counted(Some((group(1), Epoch(99)))).epoch, Epoch(21));
        assert_eq!(second.or(Floor::at(group(1), Epoch(8))), second);
        assert_eq!(second.or(Floor::at(group(0), Epoch(99))), second);
        assert_eq!(second.or(Floor::at(group(2), Epoch(0))), Floor::at(group(2), Epoch(0)));
    }

    #[test]
    fn golden_and_back() {
        let floor = Floor::at(group(1), Epoch(7)).counted(None);
        let bytes = floor.to_bytes();
        let shown: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, "0000000100000000000000070000000000000008");
        assert_eq!(Floor::from_bytes(&bytes), Ok(floor));
        assert_eq!(Floor::from_bytes(&bytes[..12]), Ok(Floor::at(group(1), Epoch(7))));
        assert!(Floor::from_bytes(&bytes[..15]).is_err());
    }
}
