//! Reports of commits that a member cannot process (PROTOCOL 5): what is signed, and that it is the reporter's.

use lianxin_types::{DecodeError, Digest, Epoch, GroupId, Reader, Sequence, Writer};
use openmls::prelude::{OpenMlsCrypto, SignatureScheme};

use crate::ProfileError;

/// Bytes of a report.
pub const REPORT_BYTES: usize = 134;

const VERSION: u8 = 1;
const SIGNATURE_BYTES: usize = 64;
/// In front of what is signed, with a zero byte behind it.
const LABEL: &[u8] = b"lianxin/report/v1\0";

/// Why a commit cannot be processed, as the reporter found it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReportReason {
    /// It does not verify against the group: a tag, a path secret, a proposal that is not known.
    CannotProcess = 1,
    /// It does what the profile does not allow.
    BreaksProfile = 2,
    /// The head in its authenticated data is not one of the reporter's log.
    WrongHead = 3,
    /// The leaf that signed is not the one that the log names.
    WrongSender = 4,
    /// It is not a commit of the group.
    Malformed = 5,
}

impl ReportReason {
    /// The reason with this number, if there is one.
    pub const fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::CannotProcess),
            2 => Some(Self::BreaksProfile),
            3 => Some(Self::WrongHead),
            4 => Some(Self::WrongSender),
            5 => Some(Self::Malformed),
            _ => None,
        }
    }
}

/// A member's word that it cannot process a commit of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// The group.
    pub group: GroupId,
    /// The epoch that the commit would end.
    pub epoch: Epoch,
    /// The commit's place in the channel's log.
    pub sequence: Sequence,
    /// SHA-256 of the commit's MLS bytes.
    pub commit: Digest,
    /// Why.
    pub reason: ReportReason,
}

/// A report with a signature that nobody has looked at yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedReport {
    report: Report,
    signature: [u8; SIGNATURE_BYTES],
}

impl Report {
    /// version u8, group id 20, epoch u64, sequence u64, commit hash 32, reason u8.
    fn fields(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(VERSION).raw(&self.group.to_bytes()).u64(self.epoch.0).u64(self.sequence.0);
        writer.raw(&self.commit.0).u8(self.reason as u8).finish()
    }

    /// The fields, then the signature, 64 bytes, that `sign` makes over the label and the fields: Ed25519 by the key of the
    /// reporter's leaf.
    pub fn signed(&self, sign: impl FnOnce(&[u8]) -> [u8; SIGNATURE_BYTES]) -> Vec<u8> {
        let fields = self.fields();
        let signature = sign(&[LABEL, &fields].concat());
        [&fields[..], &signature].concat()
    }
}

impl SignedReport {
    /// Reads what [`Report::signed`] wrote, and nothing else.
    ///
    /// # Errors
    /// [`DecodeError`] for every other length, version, group id or reason.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("report version")?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion { version });
        }
        let group = GroupId::try_from(reader.raw("group id", 20)?);
        let group = group.map_err(|_| DecodeError::OutOfRange { field: "group id" })?;
        let epoch = Epoch(reader.u64("epoch")?);
        let sequence = Sequence(reader.u64("sequence")?);
        let commit = Digest(reader.array("commit hash")?);
        let reason = ReportReason::of(reader.u8("reason")?);
        let reason = reason.ok_or(DecodeError::OutOfRange { field: "reason" })?;
        let signature = reader.array("signature")?;
        reader.finish()?;
        Ok(Self { report: Report { group, epoch, sequence, commit, reason }, signature })
    }

    /// What it says, if `key` (Ed25519, 32 bytes) has signed it.
    ///
    /// # Errors
    /// [`ProfileError::SenderMismatch`] for another key or changed bytes.
    pub fn verify(&self, crypto: &impl OpenMlsCrypto, key: &[u8]) -> Result<&Report, ProfileError> {
        let signed = [LABEL, &self.report.fields()].concat();
        let verified = crypto.verify_signature(SignatureScheme::ED25519, &signed, key, &self.signature);
        verified.map(|()| &self.report).map_err(|_| ProfileError::SenderMismatch)
    }

    /// What it says, whoever may have signed it: to find out who should have.
    pub const fn unverified(&self) -> &Report {
        &self.report
    }
}

#[cfg(test)]
mod tests {
    use lianxin_types::{ChannelId, Incarnation};

    use super::*;

    fn report() -> Report {
        Report {
            group: GroupId { channel: ChannelId([0xAA; 16]), incarnation: Incarnation(0) },
            epoch: Epoch(3),
            sequence: Sequence(9),
            commit: Digest([0xCC; 32]),
            reason: ReportReason::WrongHead,
        }
    }

    #[test]
    fn golden_and_back() {
        let bytes = report().signed(|signed| {
            assert!(signed.starts_with(b"lianxin/report/v1\0\x01"));
            [0x5A; 64]
        });
        let fields = format!("01{}0000000000000000000000030000000000000009{}03", "aa".repeat(16), "cc".repeat(32));
        assert_eq!(hex::encode(&bytes), fields + &"5a".repeat(64));
        assert_eq!(bytes.len(), REPORT_BYTES);
        assert_eq!(SignedReport::from_bytes(&bytes).expect("reads").unverified(), &report());
    }

    #[test]
    fn other_bytes_are_refused() {
        let bytes = report().signed(|_| [0; 64]);
        for cut in 0..bytes.len() {
            assert!(SignedReport::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(SignedReport::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        for (place, value) in [(0, 2), (REPORT_BYTES - 65, 0), (REPORT_BYTES - 65, 6)] {
            let mut other = bytes.clone();
            other[place] = value;
            assert!(SignedReport::from_bytes(&other).is_err(), "{value} at {place}");
        }
    }
}
