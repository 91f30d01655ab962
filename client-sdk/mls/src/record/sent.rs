//! Own messages of the epoch: which ones were made, and which of them have come back in the log. An own message does not open for
//! its sender, so a device knows by this alone that it has sent what is said to be its own.

use lianxin_types::{DecodeError, Digest, Reader, Sequence, Writer};

use super::Records;
use crate::MlsError;

/// Rows by channel and hash: a message's place in the order below, or that it is in the log.
const SENT: &str = "mls-sent";
/// Log by channel: hash, and the head that the message names.
const SENT_ORDER: &str = "mls-sent-order";
/// Row by channel: how far all that has come.
const SENT_MARKS: &str = "mls-sent-mark";
/// Value of a message's row once it is in the log.
const LOGGED: &[u8] = &[1];

/// Own messages remembered of an epoch; the oldest are forgotten first. Any of them has been overtaken by far more than
/// [`UNLOGGED_MAX`], so it is in the log or never comes.
const SENT_MAX: u64 = 10_000;
/// Messages made in a row of which none is in the log. After that many the device makes new keys first: whoever has not had
/// them opens no message that is 1,000 ahead (the sender ratchet of this crate's groups).
const UNLOGGED_MAX: u64 = 900;
const VERSION: u8 = 1;

/// What is known of an own message of the current epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sent {
    /// It has not come back in the log.
    OnItsWay,
    /// It has.
    Logged,
}

/// How far the own messages of the epoch have come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Mark {
    /// The place in the order of the last one in the log.
    logged: u64,
    /// Some of those that name a head before this one are forgotten; 0 if none is. All of them were made before this device
    /// had read so far, so one that is not remembered is no sign of an older state.
    forgotten_before: Sequence,
}

impl Mark {
    /// version u8, place u64, sequence u64.
    fn to_bytes(self) -> Vec<u8> {
        Writer::new().u8(VERSION).u64(self.logged).u64(self.forgotten_before.0).finish()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("mark version")?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion { version });
        }
        let logged = reader.u64("last own message in the log")?;
        let forgotten_before = Sequence(reader.u64("forgotten before")?);
        reader.finish()?;
        Ok(Self { logged, forgotten_before })
    }
}

impl Records<'_> {
    /// Remembers an own message that names `head`, so that nobody can say that this device sent what it did not.
    pub(crate) fn save_sent(&self, hash: &Digest, head: Sequence) -> Result<(), MlsError> {
        let position = self.tx.log_last(SENT_ORDER, &self.channel.0)?.unwrap_or(0) + 1;
        let entry = Writer::new().raw(&hash.0).u64(head.0).finish();
        self.tx.log_put(SENT_ORDER, &self.channel.0, position, &entry)?;
        self.tx.put(SENT, &self.sent_key(&hash.0), &position.to_be_bytes())?;
        match position.checked_sub(SENT_MAX) {
            None | Some(0) => Ok(()),
            Some(last) => self.forget_up_to(last),
        }
    }

    /// Forgets the oldest, two for each that comes: a state of an earlier version may have had more.
    fn forget_up_to(&self, last: u64) -> Result<(), MlsError> {
        let mut mark = self.mark()?;
        for (position, entry) in self.tx.log_read(SENT_ORDER, &self.channel.0, 0, 2)? {
            if position > last {
                break;
            }
            let (hash, head) = parse(&entry)?;
            self.tx.delete(SENT, &self.sent_key(&hash))?;
            self.tx.log_delete(SENT_ORDER, &self.channel.0, position)?;
            mark.forgotten_before = mark.forgotten_before.max(head.map_or(Sequence(0), Sequence::next));
        }
        self.save_mark(mark)
    }

    /// What was known of an own message that is in the log now; `None` if this device did not make it in this epoch, or has
    /// forgotten it ([`Records::may_be_forgotten`]).
    pub(crate) fn take_sent(&self, hash: &Digest) -> Result<Option<Sent>, MlsError> {
        let key = self.sent_key(&hash.0);
        let Some(value) = self.tx.get(SENT, &key)? else { return Ok(None) };
        if value == LOGGED {
            return Ok(Some(Sent::Logged));
        }
        self.tx.put(SENT, &key, LOGGED)?;
        // Earlier versions kept no place.
        if let Ok(position) = <[u8; 8]>::try_from(&value[..]).map(u64::from_be_bytes) {
            let mark = self.mark()?;
            self.save_mark(Mark { logged: mark.logged.max(position), ..mark })?;
        }
        Ok(Some(Sent::OnItsWay))
    }

    /// Whether a message under the own leaf that is not remembered and names this head can be one that was forgotten. Else nothing
    /// that this state has made names it.
    pub(crate) fn may_be_forgotten(&self, head: Sequence) -> Result<bool, MlsError> {
        Ok(head < self.mark()?.forgotten_before)
    }

    /// Whether so many messages in a row are not in the log that others might not open the next one.
    pub(crate) fn is_too_far_ahead(&self) -> Result<bool, MlsError> {
        let last = self.tx.log_last(SENT_ORDER, &self.channel.0)?.unwrap_or(0);
        Ok(last >= UNLOGGED_MAX && last - self.mark()?.logged.min(last) >= UNLOGGED_MAX)
    }

    /// Forgets own messages of an epoch that is over: they cannot be accepted any more.
    pub(crate) fn forget_sent(&self) -> Result<(), MlsError> {
        self.tx.delete(SENT_MARKS, &self.channel.0)?;
        self.drain(SENT_ORDER, |entry| Ok(self.tx.delete(SENT, &self.sent_key(&parse(entry)?.0))?))
    }

    fn mark(&self) -> Result<Mark, MlsError> {
        let found = self.tx.get(SENT_MARKS, &self.channel.0)?;
        Ok(found.map(|bytes| Mark::from_bytes(&bytes)).transpose()?.unwrap_or_default())
    }

    fn save_mark(&self, mark: Mark) -> Result<(), MlsError> {
        Ok(self.tx.put(SENT_MARKS, &self.channel.0, &mark.to_bytes())?)
    }

    fn sent_key(&self, hash: &[u8; 32]) -> Vec<u8> {
        [&self.channel.0[..], hash].concat()
    }
}

/// Hash and head of an entry of the order; earlier versions kept no head.
fn parse(entry: &[u8]) -> Result<([u8; 32], Option<Sequence>), DecodeError> {
    let mut reader = Reader::new(entry);
    let hash = reader.array("hash of an own message")?;
    let head = match entry.len() {
        32 => None,
        _ => Some(Sequence(reader.u64("head of an own message")?)),
    };
    reader.finish()?;
    Ok((hash, head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_and_back() {
        let mark = Mark { logged: 0x0102, forgotten_before: Sequence(3) };
        let bytes = mark.to_bytes();
        assert_eq!(bytes, [1, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(Mark::from_bytes(&bytes), Ok(mark));
        assert!(Mark::from_bytes(&bytes[1..]).is_err() && Mark::from_bytes(&[2, 0]).is_err());
    }

    #[test]
    fn entries_of_earlier_versions_have_no_head() {
        let entry = [[7; 32].as_slice(), &[0, 0, 0, 0, 0, 0, 0, 9]].concat();
        assert_eq!(parse(&entry), Ok(([7; 32], Some(Sequence(9)))));
        assert_eq!(parse(&entry[..32]), Ok(([7; 32], None)));
        assert!(parse(&entry[..31]).is_err() && parse(&entry[..39]).is_err());
    }
}
