//! Claims on one-time key packages: for one channel, by one department, until the package is used or its life ends.

use bytes::Bytes;
use lianxin_types::{ChannelId, DecodeError, DepartmentId, DeviceUri, Digest, Timestamp, Writer};

use crate::change::Taken;
use crate::draft::Draft;
use crate::engine::Engine;
use crate::key;
use crate::record::{Fields, OWN_LIFE, damaged, enclose};
use crate::state::decode_number;
use crate::zone_store::StoreError;

/// Under the channel and the package's reference: whose package, and who claimed it. Under owner, department, channel and
/// reference stands the end of its life, so that a department's claims on a device can be counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClaimRow {
    pub(crate) owner: DeviceUri,
    pub(crate) department: DepartmentId,
}

impl ClaimRow {
    /// owner and department with 32-bit lengths.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.bytes(self.owner.as_str().as_bytes()).bytes(self.department.as_str().as_bytes());
        enclose(OWN_LIFE, None, &writer.finish())
    }

    /// Reads what [`ClaimRow::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] if it did not write this.
    pub(crate) fn decode(record: Vec<u8>) -> Result<Self, DecodeError> {
        let source = Bytes::from(record);
        let mut fields = Fields::open(&source)?;
        let row = Self { owner: fields.device("owner")?, department: fields.department("department")? };
        fields.reader.finish()?;
        Ok(row)
    }
}

/// Claims of a department on packages of a device that live on and were not used.
pub(crate) fn living<E: Engine>(
    draft: &Draft<'_, E>,
    owner: &DeviceUri,
    department: &DepartmentId,
    now: Timestamp,
) -> Result<usize, StoreError> {
    Ok(claims(draft, owner, department)?.iter().filter(|claim| claim.not_after > now).count())
}

/// Notes that the package was claimed, and forgets those of the same owner and department whose life is over.
pub(crate) fn note<E: Engine>(
    draft: &mut Draft<'_, E>,
    channel: &ChannelId,
    department: &DepartmentId,
    taken: &Taken,
    time: Timestamp,
) -> Result<(), StoreError> {
    let (owner, reference) = (&taken.owner, &taken.item.reference);
    for old in claims(draft, owner, department)?.into_iter().filter(|claim| claim.not_after <= time) {
        forget(draft, &old.channel, &old.reference)?;
    }
    // An owner may publish what was taken before.
    forget(draft, channel, reference)?;
    let row = ClaimRow { owner: owner.clone(), department: department.clone() };
    draft.put(key::claim(channel, reference), row.encode());
    draft.put_number(key::claim_by(owner, department, channel, reference), taken.item.not_after.0);
    Ok(())
}

/// The package was used, or its life is over.
pub(crate) fn forget<E: Engine>(
    draft: &mut Draft<'_, E>,
    channel: &ChannelId,
    reference: &Digest,
) -> Result<(), StoreError> {
    let claim = key::claim(channel, reference);
    if let Some(row) = draft.read("claim", &claim, ClaimRow::decode)? {
        draft.delete(key::claim_by(&row.owner, &row.department, channel, reference));
        draft.delete(claim);
    }
    Ok(())
}

struct Claim {
    channel: ChannelId,
    reference: Digest,
    not_after: Timestamp,
}

/// At most as many as the limit allows, and those whose life is over.
fn claims<E: Engine>(
    draft: &Draft<'_, E>,
    owner: &DeviceUri,
    department: &DepartmentId,
) -> Result<Vec<Claim>, StoreError> {
    let damage = || StoreError::Damaged { what: "claim" };
    let prefix = key::claims_by(owner, department);
    let mut found = Vec::new();
    for (row_key, record) in draft.scan(&prefix)? {
        let (channel, reference) = row_key[prefix.len()..].split_at_checked(16).ok_or_else(damage)?;
        found.push(Claim {
            channel: ChannelId::try_from(channel).map_err(|_| damage())?,
            reference: Digest::try_from(reference).map_err(|_| damage())?,
            not_after: Timestamp(decode_number(&record).map_err(damaged("claim"))?),
        });
    }
    Ok(found)
}
