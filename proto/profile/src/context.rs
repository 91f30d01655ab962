//! What all members of a channel agree on: the group-context extension 0xF0A1 (PROTOCOL 3).

use std::fmt;

use hmac::{Hmac, Mac};
use lianxin_types::{
    ChannelId, DecodeError, DepartmentId, Digest, Epoch, LIMITS, Label, Reader, Writer, ZoneId, labelled_sha256,
};
use sha2::Sha256;
use thiserror::Error;

/// Private-use code point of the extension (RFC 9420 section 17.3).
pub const CHANNEL_CONTEXT_EXTENSION: u16 = 0xF0A1;

/// Why a channel context, or the group context around it, is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ContextError {
    /// The bytes are not the format.
    #[error("not a channel context")]
    Decode(#[from] DecodeError),
    /// No department is named, or more than [`LIMITS`] allows.
    #[error("{found} departments are named, allowed are 1 to {limit}")]
    DepartmentCount {
        /// How many.
        found: usize,
        /// The most allowed.
        limit: usize,
    },
    /// Departments are not ascending, or one is named twice.
    #[error("departments are not ascending and unique")]
    DepartmentOrder,
    /// A version without a digest, or a digest without a version.
    #[error("policy version and digest of {department} do not belong together")]
    PolicyReference {
        /// The department.
        department: DepartmentId,
    },
    /// An extension of the group context is missing.
    #[error("extension {code_point:#06x} is missing")]
    Missing {
        /// Its code point.
        code_point: u16,
    },
    /// An extension that the profile does not have.
    #[error("extension {code_point:#06x} does not belong here")]
    Unexpected {
        /// Its code point.
        code_point: u16,
    },
    /// The required capabilities are not the profile's.
    #[error("required capabilities are not the profile's")]
    RequiredCapabilities,
    /// Not exactly one external sender, another than the zone's removal keys, or an older one than before.
    #[error("the one external sender is not a removal key of the zone, or an older one than before")]
    ExternalSender,
    /// The zone is not in the trust bundle.
    #[error("zone {zone} is not in the trust bundle")]
    UnknownZone {
        /// The zone named.
        zone: ZoneId,
    },
    /// The MLS group id is not a channel id with an incarnation, or names another channel than the extension.
    #[error("the group id does not belong to the channel")]
    GroupId,
    /// Another suite or protocol version than the profile's.
    #[error("another suite or protocol version")]
    Suite,
    /// Something changed that may not, or a version went back.
    #[error("{field} may not change this way")]
    Changed {
        /// What changed.
        field: &'static str,
    },
}

/// A department that may have members in the channel, and the policy document that counts for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedDepartment {
    /// The department.
    pub id: DepartmentId,
    /// Version of its published policy document; 0 while it has not published one.
    pub policy_version: u64,
    /// SHA-256 of that document as signed; zero while there is none.
    pub policy_digest: Digest,
}

impl NamedDepartment {
    /// A department that has not published a policy document.
    pub const fn without_policy(id: DepartmentId) -> Self {
        Self { id, policy_version: 0, policy_digest: Digest::ZERO }
    }
}

/// Content of the extension. A value of this type keeps every rule that does not need another value beside it.
#[derive(Clone, PartialEq, Eq)]
pub struct ChannelContext {
    channel: ChannelId,
    zone: ZoneId,
    label: Label,
    departments: Vec<NamedDepartment>,
    envelope_digest: Digest,
    slot_key: [u8; 32],
}

const VERSION: u8 = 1;
/// Longest name of a department or zone, in bytes; the types refuse more too.
const NAME_BYTES_MAX: usize = 64;

impl ChannelContext {
    /// A context. `departments` may come in any order; `envelope_digest` is zero while no document is published;
    /// `slot_key` is 32 random bytes of the creator's.
    ///
    /// # Errors
    /// [`ContextError::DepartmentCount`], [`ContextError::DepartmentOrder`] for a department named twice,
    /// [`ContextError::PolicyReference`].
    pub fn new(
        channel: ChannelId,
        zone: ZoneId,
        label: Label,
        mut departments: Vec<NamedDepartment>,
        envelope_digest: Digest,
        slot_key: [u8; 32],
    ) -> Result<Self, ContextError> {
        departments.sort_by(|a, b| a.id.cmp(&b.id));
        let context = Self { channel, zone, label, departments, envelope_digest, slot_key };
        context.check()?;
        Ok(context)
    }

    fn check(&self) -> Result<(), ContextError> {
        let (found, limit) = (self.departments.len(), LIMITS.channel_departments_max);
        if found == 0 || found > limit {
            return Err(ContextError::DepartmentCount { found, limit });
        }
        if self.departments.windows(2).any(|pair| pair[0].id >= pair[1].id) {
            return Err(ContextError::DepartmentOrder);
        }
        match self.departments.iter().find(|one| (one.policy_version == 0) != (one.policy_digest == Digest::ZERO)) {
            Some(wrong) => Err(ContextError::PolicyReference { department: wrong.id.clone() }),
            None => Ok(()),
        }
    }

    /// The channel.
    pub const fn channel(&self) -> ChannelId {
        self.channel
    }

    /// The zone where the channel lives.
    pub const fn zone(&self) -> &ZoneId {
        &self.zone
    }

    /// What the channel is for.
    pub const fn label(&self) -> &Label {
        &self.label
    }

    /// The departments named, 1 to 64, ascending and unique.
    pub fn departments(&self) -> &[NamedDepartment] {
        &self.departments
    }

    /// Digest of the combined envelope; zero while no department has published a document.
    pub const fn envelope_digest(&self) -> Digest {
        self.envelope_digest
    }

    /// Key from which members and gateway derive the audit slots of the channel's commits; see [`slot`].
    pub const fn slot_key(&self) -> &[u8; 32] {
        &self.slot_key
    }

    /// Whether `department` may have members here.
    pub fn names(&self, department: &DepartmentId) -> bool {
        self.departments.binary_search_by(|one| one.id.cmp(department)).is_ok()
    }

    /// version u8, channel 16 bytes, zone, label, count u16, then each department's name, version u64 and digest 32 bytes,
    /// envelope digest 32 bytes, slot key 32 bytes. Names with 32-bit lengths in front; big-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(VERSION).raw(&self.channel.0).bytes(self.zone.as_str().as_bytes());
        self.label.write(&mut writer);
        writer.u16(u16::try_from(self.departments.len()).expect("checked to be at most 64 when the value was made"));
        for one in &self.departments {
            writer.bytes(one.id.as_str().as_bytes()).u64(one.policy_version).raw(&one.policy_digest.0);
        }
        writer.raw(&self.envelope_digest.0).raw(&self.slot_key).finish()
    }

    /// Reads what [`ChannelContext::to_bytes`] wrote, and nothing else.
    ///
    /// # Errors
    /// [`ContextError::Decode`] for other bytes; else as [`ChannelContext::new`], here with the order checked too.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ContextError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("context version")?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion { version }.into());
        }
        let channel = ChannelId(reader.array("channel id")?);
        let zone = name(&mut reader, "zone")?;
        let label = Label::read(&mut reader)?;
        let found = usize::from(reader.u16("department count")?);
        let limit = LIMITS.channel_departments_max;
        if found > limit {
            return Err(ContextError::DepartmentCount { found, limit });
        }
        let mut departments = Vec::with_capacity(found);
        for _ in 0..found {
            departments.push(NamedDepartment {
                id: name(&mut reader, "department")?,
                policy_version: reader.u64("policy version")?,
                policy_digest: Digest(reader.array("policy digest")?),
            });
        }
        let envelope_digest = Digest(reader.array("envelope digest")?);
        let slot_key = reader.array("slot key")?;
        reader.finish()?;
        let context = Self { channel, zone, label, departments, envelope_digest, slot_key };
        context.check()?;
        Ok(context)
    }

    /// Whether `next` may follow this context in the same channel: channel, zone, label and slot key stay; no department
    /// comes or goes; no policy version goes back, and a document changes only together with its version.
    ///
    /// A department comes in only together with policies, because neither event nor audit record names it before.
    ///
    /// # Errors
    /// [`ContextError::Changed`] with the field at fault.
    pub fn check_successor(&self, next: &Self) -> Result<(), ContextError> {
        self.check_kept(next, self.slot_key == next.slot_key)?;
        for (one, after) in self.departments.iter().zip(&next.departments) {
            if after.policy_version < one.policy_version {
                return Err(ContextError::Changed { field: "policy version" });
            }
            if after.policy_version == one.policy_version && after.policy_digest != one.policy_digest {
                return Err(ContextError::Changed { field: "policy digest" });
            }
        }
        if self.departments == next.departments && self.envelope_digest != next.envelope_digest {
            return Err(ContextError::Changed { field: "envelope digest" });
        }
        Ok(())
    }

    /// Whether `next` may be the context of the channel's next incarnation: channel, zone, label and departments stay, and the
    /// slot key is another one, because whoever is left behind knows this one.
    ///
    /// Policy versions are not compared: the commit that broke the group may have named others, which whoever goes on cannot
    /// have seen.
    ///
    /// # Errors
    /// [`ContextError::Changed`] with the field at fault.
    pub fn check_next_incarnation(&self, next: &Self) -> Result<(), ContextError> {
        self.check_kept(next, self.slot_key != next.slot_key)
    }

    /// What stays in a channel; the caller says whether the slot key is as it should be.
    fn check_kept(&self, next: &Self, is_slot_key_right: bool) -> Result<(), ContextError> {
        let kept = [
            ("channel", self.channel == next.channel),
            ("zone", self.zone == next.zone),
            ("label", self.label == next.label),
            ("slot key", is_slot_key_right),
        ];
        if let Some((field, _)) = kept.into_iter().find(|(_, same)| !same) {
            return Err(ContextError::Changed { field });
        }
        let ids = |context: &Self| context.departments.iter().map(|one| one.id.clone()).collect::<Vec<_>>();
        if ids(self) != ids(next) {
            return Err(ContextError::Changed { field: "departments" });
        }
        Ok(())
    }
}

impl fmt::Debug for ChannelContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelContext")
            .field("channel", &self.channel)
            .field("zone", &self.zone)
            .field("departments", &self.departments.iter().map(|one| &one.id).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

fn name<T: std::str::FromStr>(reader: &mut Reader<'_>, field: &'static str) -> Result<T, DecodeError> {
    reader.text(field, NAME_BYTES_MAX)?.parse().map_err(|_| DecodeError::OutOfRange { field })
}

/// The audit slot of the commit that makes `epoch` (0 for the start): HMAC-SHA-256(slot key, group id, epoch u64
/// big-endian) cut to 16 bytes (PROTOCOL 8). Two commits for one epoch share it, and so show.
pub fn slot(slot_key: &[u8; 32], group_id: &[u8], epoch: Epoch) -> [u8; 16] {
    let mut mac = Hmac::<Sha256>::new_from_slice(slot_key).expect("HMAC takes keys of every length");
    mac.update(group_id);
    mac.update(&epoch.0.to_be_bytes());
    let mut slot = [0; 16];
    slot.copy_from_slice(&mac.finalize().into_bytes()[..16]);
    slot
}

/// How events refer to a label: SHA-256(label, the bytes that [`Label::write`] makes).
pub fn label_reference(label: &Label) -> Digest {
    let mut writer = Writer::new();
    label.write(&mut writer);
    labelled_sha256("lianxin/label/v1", &[&writer.finish()])
}

#[cfg(test)]
#[path = "context_tests.rs"]
mod tests;
