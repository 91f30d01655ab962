//! Opening a zone: the state is believed as far as it goes, and the journal is applied from there (PROTOCOL 10).

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, RwLock};

use lianxin_tlog::{Audience, Leaf, leaf_commitment, part_commitment};
use lianxin_types::{ChannelId, DeviceUri, Digest, Sequence, ZoneId};
use tokio::sync::broadcast;

use crate::apply::{DepartmentStep, Placed, apply};
use crate::committer::counter_in;
use crate::copies::Copies;
use crate::draft::{Draft, Slot, Table};
use crate::engine::{Engine, Space};
use crate::guards::Guards;
use crate::journal::Journal;
use crate::ledger::{Ledger, Upkeep};
use crate::recent::Recent;
use crate::record::damaged;
use crate::state::{HeadRow, Place, RosterRow, decode_number, encode_number};
use crate::zone::ZoneOptions;
use crate::zone_store::{AuditRecord, ChannelHead, Member, StoreError};
use crate::{key, parts, snapshot};

/// Records applied to the state in one batch while opening.
const REPLAY_RECORDS: u64 = 1_000;

/// The zone's ledger, up to date with its journal.
///
/// # Errors
/// [`StoreError`] if the engine failed, or the journal is damaged or shorter than what was acknowledged.
pub(crate) fn open<E: Engine>(zone: ZoneId, engine: E, options: &ZoneOptions) -> Result<Ledger<E>, StoreError> {
    let (journal, leaf_count) = Journal::open(&engine)?;
    let table = Table::default();
    let applied = match load(&engine, &table) {
        Ok(Some(applied)) if applied >= journal.first_leaf() => applied,
        Ok(Some(_)) => start_over(&engine, &table, &journal, "state is older than the journal")?,
        // A zone that has never been written to.
        Ok(None) if leaf_count == 0 => start_empty(&engine, &table)?,
        Ok(None) => start_over(&engine, &table, &journal, "state is missing")?,
        Err(StoreError::Damaged { what }) => start_over(&engine, &table, &journal, what)?,
        Err(error) => return Err(error),
    };
    if applied > leaf_count {
        // The state is only ever written behind the journal: units that were acknowledged are gone.
        return Err(StoreError::Damaged { what: "journal (it is shorter than the state)" });
    }
    if applied < leaf_count {
        tracing::info!(zone = %zone, from = applied, to = leaf_count, "applying the journal to the state");
    }
    let mut next = applied;
    while next < leaf_count {
        let end = leaf_count.min(next + REPLAY_RECORDS);
        replay(&engine, &table, &journal, next, end)?;
        next = end;
    }
    let dropped = parts::get(&engine, Space::State, key::DROPPED)?.map(|record| decode_number(&record)).transpose();
    let dropped = dropped.map_err(damaged("number of dropped buckets"))?.unwrap_or(0).max(1);
    if journal.first_number() > dropped || (dropped <= 1 && journal.first_leaf() > 0) {
        return Err(StoreError::Damaged { what: "journal (its beginning is missing and was not dropped)" });
    }
    // Some may still be there, if the removing was cut short: the keeper goes on with it.
    journal.drop_before(dropped);
    let upkeep = Upkeep::since(snapshot::newest(&engine, &journal.buckets())?);
    let copies = Copies::open(&engine)?;
    let last_time = match leaf_count.checked_sub(1).filter(|last| *last >= journal.first_leaf()) {
        Some(last) => journal.unit(&engine, last)?.gateway_time.0,
        None => 0,
    };
    Ok(Ledger {
        zone,
        engine,
        table,
        journal,
        leaf_count: AtomicU64::new(leaf_count),
        last_time: AtomicU64::new(last_time),
        tail: broadcast::Sender::new(options.tail_events_max.max(1)),
        fault: RwLock::new(None),
        lazy: Mutex::new(()),
        guards: Guards::new(),
        recent: Recent::default(),
        copies,
        upkeep,
        is_closing: AtomicBool::new(false),
    })
}

/// The state of the newest snapshot that is good; without one, the one before the first record.
fn start_over<E: Engine>(engine: &E, table: &Table, journal: &Journal, why: &str) -> Result<u64, StoreError> {
    for bucket in journal.buckets().into_iter().rev() {
        for found in snapshot::complete(engine, bucket)? {
            if found.as_of >= journal.first_leaf() && snapshot::restore(engine, &found)? {
                tracing::warn!(why, as_of = found.as_of, "computing the state again from a snapshot");
                table.clear();
                let applied = load(engine, table)?;
                return applied
                    .filter(|applied| *applied == found.as_of)
                    .ok_or(StoreError::Damaged { what: "state snapshot" });
            }
        }
    }
    if journal.first_leaf() > 0 {
        return Err(StoreError::Damaged { what: "journal (its beginning was dropped and no state snapshot is good)" });
    }
    tracing::warn!(why, "computing the state again from the whole journal");
    start_empty(engine, table)
}

/// The state before the first record.
fn start_empty<E: Engine>(engine: &E, table: &Table) -> Result<u64, StoreError> {
    engine.clear_state()?;
    table.clear();
    // What is written lazily from now on is worth keeping, even before the first record.
    let mut rows = Vec::new();
    parts::put(&mut rows, key::APPLIED, &encode_number(0));
    engine.apply(rows)?;
    Ok(0)
}

/// Fills the table from the state; gives the first leaf that is not applied, `None` for an empty state.
fn load<E: Engine>(engine: &E, table: &Table) -> Result<Option<u64>, StoreError> {
    let Some(record) = parts::get(engine, Space::State, key::APPLIED)? else { return Ok(None) };
    let applied = decode_number(&record).map_err(damaged("applied index"))?;
    let mut rows = Vec::new();
    parts::scan(engine, Space::State, &[key::HEAD], &[], &mut |row_key, record| {
        let channel = ChannelId::try_from(&row_key[1..]).map_err(|_| StoreError::Damaged { what: "channel head" })?;
        rows.push((channel, HeadRow::decode(record).map_err(damaged("channel head"))?));
        Ok(ControlFlow::Continue(()))
    })?;
    for (channel, row) in rows {
        let head = load_head(engine, &channel, &row)?;
        let HeadRow { last_time, bucket, duplicates_from, .. } = row;
        table.insert(channel, Slot { head: Arc::new(head), last_time, bucket, duplicates_from });
    }
    Ok(Some(applied))
}

fn load_head<E: Engine>(engine: &E, channel: &ChannelId, row: &HeadRow) -> Result<ChannelHead, StoreError> {
    let mut head = ChannelHead {
        incarnation: row.incarnation,
        epoch: row.epoch,
        epoch_sequence: row.epoch_sequence,
        label_reference: row.label_reference,
        proposal_sequence: row.proposal_sequence,
        removal_sequence: row.removal_sequence,
        ..ChannelHead::empty(row.head)
    };
    let mut prefix = vec![key::ROSTER];
    prefix.extend_from_slice(channel.as_bytes());
    let mut leaving = Vec::new();
    parts::scan(engine, Space::State, &prefix, &prefix, &mut |row_key, record| {
        let device = device_in(&row_key[prefix.len()..])?;
        let row = RosterRow::decode(record).map_err(damaged("roster"))?;
        match row.place {
            Place::None => {}
            Place::Seated { leaf, joined } => drop(head.members.insert(device.clone(), Member { leaf, joined })),
            Place::Awaited { joined } => drop(head.awaited.insert(device.clone(), joined)),
        }
        if row.leaving > Sequence(0) {
            leaving.push((row.leaving, device.clone()));
        }
        if row.paused > Sequence(0) {
            head.paused.insert(device.clone());
        }
        head.known.insert(device);
        Ok(ControlFlow::Continue(()))
    })?;
    leaving.sort();
    head.leaving = leaving.into_iter().map(|(_, device)| device).collect();
    Ok(head)
}

/// A device at the end of a key, behind its length.
fn device_in(bytes: &[u8]) -> Result<DeviceUri, StoreError> {
    let text = bytes.get(1..).and_then(|text| std::str::from_utf8(text).ok());
    text.and_then(|text| text.parse().ok()).ok_or(StoreError::Damaged { what: "roster" })
}

fn replay<E: Engine>(engine: &E, table: &Table, journal: &Journal, from: u64, end: u64) -> Result<(), StoreError> {
    let mut draft = Draft::new(engine, table);
    for leaf_index in from..end {
        let unit = journal.unit(engine, leaf_index)?;
        let changes = if unit.has_changes { journal.changes(engine, leaf_index)? } else { Vec::new() };
        let audit = journal.audit(engine, leaf_index)?;
        let departments = departments_of(&audit)?;
        let bucket = journal.bucket_number(leaf_index).ok_or(StoreError::Damaged { what: "journal" })?;
        let placed = Placed { leaf_index, bucket, unit: &unit, changes: &changes, departments: &departments };
        apply(&mut draft, &placed)?;
    }
    let (rows, channels) = draft.finish()?;
    engine.apply(rows)?;
    table.publish(channels);
    Ok(())
}

/// The departments' newest parts of a record, once its leaf has been found to commit to them.
fn departments_of(audit: &AuditRecord) -> Result<Vec<DepartmentStep>, StoreError> {
    let leaf = Leaf::from_bytes(&audit.leaf).map_err(damaged("audit leaf"))?;
    let mut commitments = Vec::with_capacity(audit.parts.len());
    let mut departments = Vec::new();
    for part in &audit.parts {
        let commitment = part_commitment(&part.salt, &part.audience, &part.header, &Digest::sha256(&part.body));
        if let Audience::Department(department) = &part.audience {
            let counter = counter_in(&part.header)?;
            departments.push(DepartmentStep { department: department.clone(), counter, commitment });
        }
        commitments.push(commitment);
    }
    if leaf_commitment(&commitments) != leaf.commitment {
        return Err(StoreError::Damaged { what: "audit record (its leaf commits to other parts)" });
    }
    Ok(departments)
}
