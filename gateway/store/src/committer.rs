//! The one place where a zone's events get their order, their time and their audit leaf.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lianxin_tlog::{
    Audience, ChainLink, DepartmentHeader, Head, Leaf, SharedHeader, chain_next, chain_start, leaf_commitment,
    leaf_hash, part_commitment,
};
use lianxin_types::{ChannelId, Digest, Sequence, Timestamp, ZoneId};

use crate::apply::{DepartmentStep, Placed, apply};
use crate::change::{self, Change, Taken};
use crate::check::{check, check_followers, remembered};
use crate::draft::Draft;
use crate::engine::{Bucket, Engine, Room, Row};
use crate::journal::Start;
use crate::ledger::Ledger;
use crate::record::{EventRecord, OWN_LIFE, RememberedCall, UnitRecord, damaged, enclose, encode_audit, scope_digest};
use crate::state::{RememberedRow, decode_department, decode_packages};
use crate::unit::{Accepted, AuditDraft, Effect, Idempotency, Outcome, Refused, Unit};
use crate::upkeep::Writer;
use crate::zone::ZoneOptions;
use crate::zone_store::{StoreError, StoredEvent, StoredPart};
use crate::{key, parts};

/// Orders units. [`Committer::step`] is a function over a zone's state; a thread drives it in a gateway, a simulation calls
/// it directly (PROTOCOL 10).
pub struct Committer<E> {
    pub(crate) ledger: Arc<Ledger<E>>,
    options: ZoneOptions,
    upkeep: Writer,
}

/// A week of buckets.
const WEEK_SECONDS: u64 = 7 * 24 * 3600;

/// What a batch is about to write.
struct Batch<'a, E> {
    ledger: &'a Ledger<E>,
    draft: Draft<'a, E>,
    room: Room,
    bucket: Bucket,
    next_leaf: u64,
    last_time: Timestamp,
    rows: Vec<Row>,
    events: Vec<StoredEvent>,
    /// What its calls got, for [`Ledger::recent`].
    remembered: Vec<(Digest, RememberedRow)>,
    /// Buckets below this number end with the batch.
    dropped: u64,
}

impl<E: Engine> Committer<E> {
    /// Opens the zone on an engine: reads the heads, and applies what the journal has and the state has not.
    ///
    /// # Errors
    /// [`StoreError`] if the engine failed, or the journal is damaged or shorter than what was acknowledged.
    pub fn open(zone: ZoneId, engine: E, options: ZoneOptions) -> Result<Self, StoreError> {
        let ledger = Arc::new(crate::opening::open(zone, engine, &options)?);
        let upkeep = Writer::new(options.state_bytes_min);
        Ok(Self { ledger, options, upkeep })
    }

    /// Commits a batch; outcomes are in the order of its units, and everything accepted is durable and readable. `now` is
    /// wall time. Once a unit finds no room, no later one of the batch that needs as much is accepted. After a panic or an
    /// engine's error the zone is fenced and every unit without an outcome is [`Refused::Unavailable`].
    pub fn step(&mut self, batch: Vec<Unit>, now: Timestamp) -> Vec<Outcome> {
        let count = batch.len();
        let mut outcomes = Vec::with_capacity(count);
        let mut units = batch.into_iter();
        // Space that is freed between two chunks must not let a message past an earlier one of its sender's that was refused:
        // they are sequenced in the order in which they were encrypted (PROTOCOL 5).
        let mut room = Room::Everything;
        while units.len() > 0 && self.ledger.fault().is_none() {
            let needed = units.as_slice().first().map_or(1, records_of);
            let (bucket, records) = self.choose_bucket(now, needed);
            let chunk = take_whole(&mut units, records);
            let ledger = &*self.ledger;
            let upkeep = &mut self.upkeep;
            // Nothing is published before it is durable, so what a panic leaves behind is the state before the chunk.
            match catch_unwind(AssertUnwindSafe(|| commit(ledger, upkeep, chunk, bucket, &mut room, now))) {
                Ok(Ok(decided)) => outcomes.extend(decided),
                Ok(Err(error)) => ledger.fence(describe(&error)),
                Err(_) => ledger.fence("the committer panicked".to_owned()),
            }
        }
        self.upkeep.look(&self.ledger);
        outcomes.resize(count, Err(Refused::Unavailable));
        outcomes
    }

    /// Begins a snapshot of the state, unless one is being written; it is written by [`Committer::work`].
    pub fn write_snapshot(&mut self) {
        self.upkeep.want_snapshot();
    }

    pub(crate) fn is_writing_snapshot(&self) -> bool {
        self.has_work() && self.upkeep.is_writing_snapshot()
    }

    /// Whether [`Committer::work`] has something to do.
    pub fn has_work(&self) -> bool {
        // A snapshot would take the room that audit records need.
        self.upkeep.has_work() && self.ledger.fault().is_none() && self.ledger.engine.room() == Room::Everything
    }

    /// Does some milliseconds of what can wait: a slice of a state snapshot, or of rewriting the state. Call it between
    /// batches. After a panic or an engine's error the zone is fenced.
    pub fn work(&mut self) {
        if !self.has_work() {
            return;
        }
        let (ledger, upkeep) = (&*self.ledger, &mut self.upkeep);
        match catch_unwind(AssertUnwindSafe(|| upkeep.work(ledger))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => ledger.fence(describe(&error)),
            Err(_) => ledger.fence("writing a snapshot panicked".to_owned()),
        }
    }

    /// The bucket for the next units, of which the first has `needed` records, and how many records.
    fn choose_bucket(&self, now: Timestamp, needed: usize) -> (Bucket, usize) {
        let week = now.seconds() / WEEK_SECONDS;
        let batch = self.options.batch_units_max.max(1);
        let bucket_max = self.options.bucket_records_max.max(1);
        let fresh =
            |number, week| (Bucket { number, week }, batch.min(usize::try_from(bucket_max).unwrap_or(usize::MAX)));
        let Some(last) = self.ledger.journal.last() else { return fresh(1, week) };
        let records = self.ledger.leaf_count.load(Ordering::Acquire) - last.first_leaf;
        if records.saturating_add(needed as u64) > bucket_max || week > last.bucket.week {
            // The clock may have gone back since the last bucket was begun; buckets do not.
            return fresh(last.bucket.number + 1, week.max(last.bucket.week));
        }
        (last.bucket, batch.min(usize::try_from(bucket_max - records).unwrap_or(usize::MAX)))
    }
}

/// Records that the journal gets for a unit: its own and those of its followers.
fn records_of(unit: &Unit) -> usize {
    1 + unit.followers.len()
}

/// The next units that have room together; one at least, so that a unit with more followers than a bucket has room for gets
/// a bucket of its own. A unit and its followers are never apart.
fn take_whole(units: &mut std::vec::IntoIter<Unit>, room: usize) -> Vec<Unit> {
    let (mut chunk, mut records) = (Vec::new(), 0);
    while let Some(next) = units.as_slice().first() {
        records += records_of(next);
        if records > room && !chunk.is_empty() {
            break;
        }
        chunk.extend(units.next());
    }
    chunk
}

/// The error with its cause, for the fence.
fn describe(error: &StoreError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn commit<E: Engine>(
    ledger: &Ledger<E>,
    upkeep: &mut Writer,
    units: Vec<Unit>,
    bucket: Bucket,
    room: &mut Room,
    now: Timestamp,
) -> Result<Vec<Outcome>, StoreError> {
    *room = (*room).max(ledger.engine.room());
    let first_leaf = ledger.leaf_count.load(Ordering::Acquire);
    let mut batch = Batch {
        ledger,
        draft: Draft::new(&ledger.engine, &ledger.table),
        room: *room,
        bucket,
        next_leaf: first_leaf,
        last_time: now,
        rows: Vec::new(),
        events: Vec::new(),
        remembered: Vec::new(),
        dropped: 0,
    };
    let outcomes = units.into_iter().map(|unit| batch.place(unit, now)).collect::<Result<Vec<_>, _>>()?;
    let Batch { draft, next_leaf, last_time, rows, events, remembered, dropped, .. } = batch;
    if rows.is_empty() {
        return Ok(outcomes);
    }
    if ledger.journal.last().is_none_or(|last| last.bucket != bucket) {
        ledger.engine.create_bucket(bucket)?;
        ledger.journal.push(Start { bucket, first_leaf });
    }
    ledger.engine.append(bucket, rows)?;
    // From here on the units are durable.
    let (state, channels) = draft.finish()?;
    upkeep.keep_before(&ledger.engine, &state)?;
    ledger.apply(state)?;
    ledger.table.publish(channels);
    ledger.recent.add(now, remembered);
    ledger.journal.drop_before(dropped);
    ledger.leaf_count.store(next_leaf, Ordering::Release);
    ledger.last_time.store(last_time.0, Ordering::Release);
    for event in events {
        // Nobody may be listening; that is no fault.
        let _ = ledger.tail.send(Arc::new(event));
    }
    Ok(outcomes)
}

impl<E: Engine> Batch<'_, E> {
    /// Decides one unit and, if it is accepted, puts it behind those before it.
    fn place(&mut self, mut unit: Unit, now: Timestamp) -> Result<Outcome, StoreError> {
        if let Some(call) = &unit.idempotency
            && let Some(outcome) = self.repeat(call)?
        {
            return Ok(outcome);
        }
        if let Err(refused) = check_followers(&unit) {
            return Ok(Err(refused));
        }
        let droppable = self.ledger.droppable();
        let needed = |effect: &&Effect| matches!(effect, Effect::DropBuckets { before } if *before > droppable);
        if unit.effects.iter().find(needed).is_some() {
            return Ok(Err(Refused::BucketNeeded { bucket: droppable }));
        }
        let has_room = match self.room {
            Room::Everything => true,
            Room::AuditOnly => !unit.has_effect(),
            Room::Nothing => false,
        };
        if !has_room {
            return Ok(Err(Refused::DiskFull));
        }
        let before = unit.channel.as_ref().and_then(|write| self.draft.channel(&write.channel));
        let time = before.map_or(now, |before| now.max(before.last_time));
        let taken = match check(&mut self.draft, &unit, time)? {
            Ok(taken) => taken,
            Err(refused) => return Ok(Err(refused)),
        };
        let before = before.map(|before| before.position);
        let followers = std::mem::take(&mut unit.followers);
        let accepted = self.accept(unit, time, before, taken)?;
        let mut position = Head { sequence: accepted.sequence, chain_hash: accepted.chain_hash };
        for follower in followers {
            let nothing_taken = vec![Vec::new(); follower.effects.len()];
            let placed = self.accept(follower, time, Some(position), nothing_taken)?;
            position = Head { sequence: placed.sequence, chain_hash: placed.chain_hash };
        }
        Ok(Ok(accepted))
    }

    fn repeat(&self, call: &Idempotency) -> Result<Option<Outcome>, StoreError> {
        let scope = scope_digest(call);
        let row = match self.ledger.recent.find(&scope) {
            Some(row) => row,
            None => match remembered(&self.draft, call)? {
                Some(row) => row,
                None => return Ok(None),
            },
        };
        let mut outcome = row.answer(&call.bytes_hash);
        if let (Ok(accepted), true) = (&mut outcome, row.packages > 0) {
            let packages = key::remembered_packages(&scope);
            let packages = self.draft.read("remembered packages", &packages, decode_packages)?;
            // Forgotten with its call, which is still in memory because the clock has jumped.
            let Some(packages) = packages else { return Ok(None) };
            accepted.key_packages = packages;
        }
        Ok(Some(outcome))
    }

    fn accept(
        &mut self,
        unit: Unit,
        time: Timestamp,
        before: Option<Head>,
        taken: Vec<Vec<Taken>>,
    ) -> Result<Accepted, StoreError> {
        let leaf_index = self.next_leaf;
        let call = unit.idempotency.as_ref().map(RememberedCall::from);
        let event = unit.channel.map(|write| {
            let before = before.unwrap_or_else(|| chain_start(&write.channel));
            let link = ChainLink {
                sequence: before.sequence.next(),
                kind: write.event.kind,
                gateway_time: time,
                expiry: write.event.expiry,
                sender: &write.event.sender,
                mls_hash: write.event.mls_hash,
            };
            let head = chain_next(&before.chain_hash, &link);
            EventRecord::new(write.channel, head, write.event)
        });
        let head = event.as_ref().map(|event| event.head);
        let audit = number_parts(&self.draft, unit.audit, leaf_index, time, head)?;
        let changes: Vec<Change> =
            unit.effects.into_iter().zip(taken).map(|(effect, taken)| Change { effect, taken }).collect();
        let record = UnitRecord {
            gateway_time: time,
            leaf_hash: leaf_hash(&audit.leaf),
            has_changes: !changes.is_empty(),
            call,
            event,
        };
        self.write(leaf_index, &record, &changes, &audit);
        let placed = Placed {
            leaf_index,
            bucket: self.bucket.number,
            unit: &record,
            changes: &changes,
            departments: &audit.departments,
        };
        apply(&mut self.draft, &placed)?;
        let accepted = placed.accepted();
        if let Some(call) = &record.call {
            let row = RememberedRow {
                bytes_hash: call.bytes_hash,
                packages: accepted.key_packages.len() as u32,
                accepted: Accepted { key_packages: Vec::new(), ..accepted.clone() },
            };
            self.remembered.push((call.scope, row));
        }
        for change in &changes {
            if let Effect::DropBuckets { before } = change.effect {
                self.dropped = self.dropped.max(before);
            }
        }
        self.events.extend(record.stored_event(leaf_index));
        self.next_leaf += 1;
        self.last_time = time;
        Ok(accepted)
    }

    fn write(&mut self, leaf_index: u64, record: &UnitRecord, changes: &[Change], audit: &Numbered) {
        parts::put(&mut self.rows, &key::leaf(key::UNIT, leaf_index), &record.encode());
        let audit = encode_audit(audit.retention_class, &audit.leaf, &audit.parts);
        parts::put(&mut self.rows, &key::leaf(key::AUDIT, leaf_index), &audit);
        if !changes.is_empty() {
            parts::put(&mut self.rows, &key::leaf(key::CHANGES, leaf_index), &change::encode(changes));
        }
        if let Some(event) = &record.event {
            let index = enclose(OWN_LIFE, event.expiry, &leaf_index.to_be_bytes());
            parts::put(&mut self.rows, &key::event(&event.channel, event.head.sequence), &index);
        }
    }
}

/// An audit record with its numbers.
struct Numbered {
    retention_class: lianxin_tlog::RetentionClass,
    leaf: [u8; lianxin_tlog::LEAF_BYTES],
    parts: Vec<StoredPart>,
    departments: Vec<DepartmentStep>,
}

/// Fills in what only the committer knows: index, time and place in the shared header, counter and previous commitment in
/// the departments' own (PROTOCOL 8).
fn number_parts<E: Engine>(
    draft: &Draft<'_, E>,
    audit: AuditDraft,
    leaf_index: u64,
    gateway_time: Timestamp,
    head: Option<Head>,
) -> Result<Numbered, StoreError> {
    let Head { sequence, chain_hash } = head.unwrap_or(Head { sequence: Sequence(0), chain_hash: Digest::ZERO });
    let channel = audit.channel.unwrap_or(ChannelId([0; 16]));
    let mut departments: Vec<DepartmentStep> = Vec::new();
    let mut commitments = Vec::with_capacity(audit.parts.len());
    let mut parts = Vec::with_capacity(audit.parts.len());
    for part in audit.parts {
        let header = match &part.audience {
            Audience::Shared => SharedHeader { leaf_index, gateway_time, channel, sequence, chain_hash }.to_bytes(),
            Audience::Department(department) => {
                let in_record = departments.iter().rev().find(|step| step.department == *department);
                let last = match in_record {
                    Some(step) => Some((step.counter, step.commitment)),
                    None => {
                        draft.read("department", &key::department(department), |record| decode_department(&record))?
                    }
                };
                let (counter, previous) = last.unwrap_or((0, Digest::ZERO));
                DepartmentHeader { counter: counter + 1, previous }.to_bytes()
            }
        };
        let commitment = part_commitment(&part.salt, &part.audience, &header, &part.body_hash);
        if let Audience::Department(department) = &part.audience {
            let counter = counter_in(&header)?;
            departments.push(DepartmentStep { department: department.clone(), counter, commitment });
        }
        commitments.push(commitment);
        parts.push(StoredPart { audience: part.audience, salt: part.salt, header, body: part.body });
    }
    let leaf = Leaf {
        family: audit.family,
        retention_class: audit.retention_class,
        hour: gateway_time.hour(),
        slot: audit.slot,
        commitment: leaf_commitment(&commitments),
    };
    Ok(Numbered { retention_class: audit.retention_class, leaf: leaf.to_bytes(), parts, departments })
}

/// The counter in a department's header.
pub(crate) fn counter_in(header: &[u8]) -> Result<u64, StoreError> {
    let mut reader = lianxin_types::Reader::new(header);
    let counter = reader.u8("header version").and_then(|_| reader.u64("counter"));
    counter.map_err(damaged("audit part header"))
}
