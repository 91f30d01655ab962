//! A zone as readers see it: the engine, the committed heads, and everything that can be asked of them.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use lianxin_tlog::chain_start;
use lianxin_types::{ChannelId, DecodeError, DeviceUri, Digest, Sequence, Timestamp, ZoneId};
use tokio::sync::broadcast;

use crate::copies::Copies;
use crate::draft::Table;
use crate::engine::{Engine, Room, Row, Space};
use crate::guards::Guards;
use crate::journal::Journal;
use crate::recent::Recent;
use crate::record::{damaged, decode_audit, scope_digest};
use crate::snapshot::Snapshot;
use crate::state::{
    InboxRow, RememberedRow, decode_bytes, decode_item, decode_number, decode_packages, decode_snapshot, encode_number,
    encode_snapshot,
};
use crate::unit::{Idempotency, Outcome};
use crate::zone_store::{
    AuditRecord, ChannelHead, GroupSnapshot, InboxEntry, JournalHealth, Page, StoreError, StoredEvent,
};
use crate::{key, parts};

/// What the committer and all readers of a zone share.
pub(crate) struct Ledger<E> {
    pub(crate) zone: ZoneId,
    pub(crate) engine: E,
    pub(crate) table: Table,
    pub(crate) journal: Journal,
    pub(crate) leaf_count: AtomicU64,
    /// When the newest leaf was accepted.
    pub(crate) last_time: AtomicU64,
    pub(crate) tail: broadcast::Sender<Arc<StoredEvent>>,
    pub(crate) fault: RwLock<Option<String>>,
    /// Held by who reads and raises a row that only lazy writers touch.
    pub(crate) lazy: Mutex<()>,
    /// Held by who reads or changes a row that may have several parts.
    pub(crate) guards: Guards,
    /// Calls of the last hour.
    pub(crate) recent: Recent,
    /// What has been copied out of closed buckets.
    pub(crate) copies: Copies,
    pub(crate) upkeep: Upkeep,
    /// Background work ends soon.
    pub(crate) is_closing: AtomicBool,
}

/// How far background work has come.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    /// The newest complete state snapshot.
    pub(crate) snapshot: RwLock<Option<Snapshot>>,
    /// Rows of the snapshot that is being written; 0 if none is.
    pub(crate) snapshot_rows: AtomicU64,
    /// Buckets below this number are copied.
    copied_before: AtomicU64,
    /// Buckets below this number are copied, and every byte of their copies has been read in this opening.
    verified_before: AtomicU64,
    fault: RwLock<Option<String>>,
}

impl Upkeep {
    /// Nothing done yet but for this snapshot, which an earlier opening has completed.
    pub(crate) fn since(snapshot: Option<Snapshot>) -> Self {
        Self { snapshot: RwLock::new(snapshot), ..Self::default() }
    }
}

impl<E: Engine> Ledger<E> {
    /// Takes the zone out of service until it is opened again.
    pub(crate) fn fence(&self, reason: String) {
        tracing::error!(zone = %self.zone, reason, "zone is fenced");
        let mut fault = self.fault.write().unwrap_or_else(PoisonError::into_inner);
        fault.get_or_insert(reason);
    }

    pub(crate) fn fault(&self) -> Option<String> {
        self.fault.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn leaf_count(&self) -> u64 {
        self.leaf_count.load(Ordering::Acquire)
    }

    /// The newest complete state snapshot.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        *self.upkeep.snapshot.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Buckets below this number may be dropped: a complete snapshot lies in a newer one, no view of a group needs their
    /// events, and what outlives them has been copied.
    pub(crate) fn droppable(&self) -> u64 {
        let Some(snapshot) = self.snapshot() else { return 0 };
        snapshot.bucket.number.min(snapshot.needs_bucket).min(self.verified_before())
    }

    pub(crate) fn verified_before(&self) -> u64 {
        self.upkeep.verified_before.load(Ordering::Acquire)
    }

    /// Takes note that the copies of all buckets below `number` are what was written.
    pub(crate) fn verified(&self, number: u64) {
        self.upkeep.verified_before.fetch_max(number, Ordering::AcqRel);
    }

    /// Takes note that all buckets below `number` have been copied.
    pub(crate) fn copied(&self, number: u64) {
        self.upkeep.copied_before.fetch_max(number, Ordering::AcqRel);
    }

    pub(crate) fn set_keeping_fault(&self, fault: Option<String>) {
        *self.upkeep.fault.write().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// How the journal is kept.
    pub(crate) fn journal_health(&self) -> JournalHealth {
        let closed = self.journal.closed();
        let copied = self.upkeep.copied_before.load(Ordering::Acquire);
        JournalHealth {
            first_bucket: self.journal.first_number(),
            buckets: closed.len() as u64 + u64::from(self.journal.last().is_some()),
            uncopied_buckets: closed.iter().filter(|closed| closed.bucket.number >= copied).count() as u64,
            snapshot_leaf: self.snapshot().map(|snapshot| snapshot.as_of),
            snapshot_rows_written: self.upkeep.snapshot_rows.load(Ordering::Relaxed),
            fault: self.upkeep.fault.read().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Reads the journal again if buckets were dropped while it was being read.
    fn whole<T>(&self, read: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
        loop {
            let first = self.journal.first_number();
            match read() {
                Err(_) if self.journal.first_number() != first => {}
                answer => return answer,
            }
        }
    }

    fn available(&self) -> Result<(), StoreError> {
        match self.fault() {
            None => Ok(()),
            Some(reason) => Err(StoreError::Unavailable { reason }),
        }
    }

    fn state<T>(
        &self,
        what: &'static str,
        key: &[u8],
        decode: impl FnOnce(Vec<u8>) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, StoreError> {
        self.record(key)?.map(decode).transpose().map_err(damaged(what))
    }

    /// A record of the state, one version of it.
    fn record(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.available()?;
        let _whole = self.guards.read(key);
        parts::get(&self.engine, Space::State, key)
    }

    /// Records of the state under `prefix`, each in one version.
    fn records(&self, prefix: &[u8], from: &[u8], visit: &mut parts::RecordVisitor<'_>) -> Result<(), StoreError> {
        self.available()?;
        let _whole = self.guards.read(prefix);
        parts::scan(&self.engine, Space::State, prefix, from, visit)
    }

    /// Changes rows of the state.
    pub(crate) fn apply(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        let _whole = self.guards.write(&rows);
        self.engine.apply(rows)
    }

    fn has(&self, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.record(key)?.is_some())
    }

    pub(crate) fn repeat(&self, call: &Idempotency) -> Result<Option<Outcome>, StoreError> {
        self.available()?;
        let scope = scope_digest(call);
        let row = match self.recent.find(&scope) {
            Some(row) => Some(row),
            None => self.state("remembered call", &key::remembered(&scope), RememberedRow::decode)?,
        };
        let Some(row) = row else { return Ok(None) };
        let mut outcome = row.answer(&call.bytes_hash);
        if let (Ok(accepted), true) = (&mut outcome, row.packages > 0) {
            let packages = self.state("remembered packages", &key::remembered_packages(&scope), decode_packages)?;
            // Forgotten between the two reads: then there was no such call.
            let Some(packages) = packages else { return Ok(None) };
            accepted.key_packages = packages;
        }
        Ok(Some(outcome))
    }

    pub(crate) fn head(&self, channel: &ChannelId) -> Result<Option<Arc<ChannelHead>>, StoreError> {
        self.available()?;
        Ok(self.table.slot(channel).map(|slot| slot.head))
    }

    pub(crate) fn read(
        &self,
        channel: &ChannelId,
        after: Sequence,
        events_max: usize,
        bytes_max: usize,
    ) -> Result<Page, StoreError> {
        self.whole(|| self.read_page(channel, after, events_max, bytes_max))
    }

    fn read_page(
        &self,
        channel: &ChannelId,
        after: Sequence,
        events_max: usize,
        bytes_max: usize,
    ) -> Result<Page, StoreError> {
        let Some(committed) = self.head(channel)? else {
            return Ok(Page { events: Vec::new(), head: Sequence(0), first_retained: Sequence(0) });
        };
        let head = committed.head.sequence;
        let first_retained = self.first_retained(channel, head)?;
        let mut page = Page { events: Vec::new(), head, first_retained };
        if after >= head || events_max == 0 {
            return Ok(page);
        }
        let first = after.next().max(first_retained);
        if first > head {
            return Ok(page);
        }
        let mut bytes = 0;
        for leaf in self.journal.leaves_of(&self.engine, channel, (first, head), events_max)? {
            let event = self.event(leaf)?;
            bytes += event.mls.len();
            if bytes > bytes_max && !page.events.is_empty() {
                break;
            }
            page.events.push(Arc::new(event));
        }
        Ok(page)
    }

    /// The first event of a channel in the buckets that are left; the one behind its head if none is.
    fn first_retained(&self, channel: &ChannelId, head: Sequence) -> Result<Sequence, StoreError> {
        let first_bucket = self.journal.first_number();
        if first_bucket <= 1 {
            return Ok(Sequence(1));
        }
        let prefix = key::buckets_of(channel);
        let mut first = None;
        parts::scan(&self.engine, Space::State, &prefix, &prefix, &mut |row_key, record| {
            if decode_number(&record).map_err(damaged("bucket of a channel"))? < first_bucket {
                return Ok(ControlFlow::Continue(()));
            }
            first = Some(key::bucket_first(row_key).ok_or(StoreError::Damaged { what: "bucket of a channel" })?);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(first.unwrap_or(head.next()))
    }

    fn event(&self, leaf: u64) -> Result<StoredEvent, StoreError> {
        let unit = self.journal.unit(&self.engine, leaf)?;
        unit.stored_event(leaf).ok_or(StoreError::Damaged { what: "journal (an event is missing)" })
    }

    pub(crate) fn chain_at(&self, channel: &ChannelId, sequence: Sequence) -> Result<Option<Digest>, StoreError> {
        let Some(committed) = self.head(channel)? else { return Ok(None) };
        let head = committed.head;
        if sequence == Sequence(0) {
            return Ok(Some(chain_start(channel).chain_hash));
        }
        if sequence == head.sequence {
            return Ok(Some(head.chain_hash));
        }
        if sequence > head.sequence {
            return Ok(None);
        }
        self.whole(|| {
            if sequence < self.first_retained(channel, head.sequence)? {
                return Ok(None);
            }
            let leaves = self.journal.leaves_of(&self.engine, channel, (sequence, sequence), 1)?;
            let event = leaves.first().map(|leaf| self.event(*leaf)).transpose()?;
            Ok(event.map(|event| event.head.chain_hash))
        })
    }

    pub(crate) fn channels_of(
        &self,
        device: &DeviceUri,
        after: Option<&ChannelId>,
        limit: usize,
    ) -> Result<Vec<ChannelId>, StoreError> {
        let prefix = key::channels_of(device);
        let from = after.map_or_else(|| prefix.clone(), |channel| key::channel_of(device, channel));
        let mut channels = Vec::new();
        self.records(&prefix, &from, &mut |row_key, _| {
            if channels.len() >= limit {
                return Ok(ControlFlow::Break(()));
            }
            let channel = ChannelId::try_from(&row_key[prefix.len()..]);
            let channel = channel.map_err(|_| StoreError::Damaged { what: "channel of a device" })?;
            if after != Some(&channel) {
                channels.push(channel);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(channels)
    }

    pub(crate) fn channels(&self, after: Option<&ChannelId>, limit: usize) -> Result<Vec<ChannelId>, StoreError> {
        let from = after.map_or_else(|| vec![key::HEAD], key::head);
        let mut channels = Vec::new();
        self.records(&[key::HEAD], &from, &mut |row_key, _| {
            if channels.len() >= limit {
                return Ok(ControlFlow::Break(()));
            }
            let channel = ChannelId::try_from(&row_key[1..]);
            let channel = channel.map_err(|_| StoreError::Damaged { what: "channel head" })?;
            if after != Some(&channel) {
                channels.push(channel);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(channels)
    }

    pub(crate) fn inbox(&self, device: &DeviceUri, after: u64, limit: usize) -> Result<Vec<InboxEntry>, StoreError> {
        let mut entries = Vec::new();
        let mut after = after;
        loop {
            let rows = self.inbox_rows(device, after, limit - entries.len())?;
            let Some((last, _)) = rows.last() else { return Ok(entries) };
            after = *last;
            for (id, row) in rows {
                let stored = key::welcome(&row.channel, row.head.sequence, row.ordinal);
                // A confirmation between the two reads may have taken the Welcome away with the entry.
                let Some(welcome) = self.state("welcome", &stored, decode_bytes)? else { continue };
                let InboxRow { channel, head, inviter, gateway_time, .. } = row;
                entries.push(InboxEntry { id, channel, head, inviter, welcome, gateway_time });
            }
        }
    }

    /// Entries behind `after` without their Welcomes, ascending, at most `limit`.
    fn inbox_rows(&self, device: &DeviceUri, after: u64, limit: usize) -> Result<Vec<(u64, InboxRow)>, StoreError> {
        let prefix = key::inboxes(device);
        let from = key::inbox(device, after.saturating_add(1));
        let mut rows = Vec::new();
        self.records(&prefix, &from, &mut |row_key, record| {
            if rows.len() >= limit {
                return Ok(ControlFlow::Break(()));
            }
            let id = row_key[prefix.len()..].try_into().map(u64::from_be_bytes);
            let id = id.map_err(|_| StoreError::Damaged { what: "inbox entry" })?;
            rows.push((id, InboxRow::decode(record).map_err(damaged("inbox entry"))?));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(rows)
    }

    pub(crate) fn welcome_tree(&self, channel: &ChannelId, sequence: Sequence) -> Result<Option<Bytes>, StoreError> {
        let prefix = key::welcome_trees(channel, sequence);
        let mut tree = None;
        self.records(&prefix, &prefix, &mut |_, record| {
            tree = Some(decode_bytes(record).map_err(damaged("welcome tree"))?);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(tree)
    }

    pub(crate) fn group_info(&self, channel: &ChannelId) -> Result<Option<Bytes>, StoreError> {
        self.state("group info", &key::group_info(channel), decode_bytes)
    }

    pub(crate) fn group_snapshot(&self, channel: &ChannelId) -> Result<Option<GroupSnapshot>, StoreError> {
        let lazy = self.state("group snapshot", &key::lazy_snapshot(channel), decode_snapshot)?;
        let committed = self.state("group snapshot", &key::snapshot(channel), decode_snapshot)?;
        Ok(lazy.into_iter().chain(committed).max_by_key(|snapshot| snapshot.sequence))
    }

    pub(crate) fn put_group_snapshot(&self, channel: &ChannelId, snapshot: &GroupSnapshot) -> Result<(), StoreError> {
        let _only = self.lazy.lock().unwrap_or_else(PoisonError::into_inner);
        if self.engine.room() != Room::Everything {
            // What is written lazily can be done without: the room is for audit records.
            return self.available();
        }
        if self.group_snapshot(channel)?.is_some_and(|stored| stored.sequence >= snapshot.sequence) {
            return Ok(());
        }
        let mut rows = Vec::new();
        let record = encode_snapshot(snapshot);
        parts::replace(&self.engine, &mut rows, &key::lazy_snapshot(channel), Some(&record), true)?;
        self.apply(rows)
    }

    pub(crate) fn is_claimed(&self, channel: &ChannelId, reference: &Digest) -> Result<bool, StoreError> {
        self.has(&key::claim(channel, reference))
    }

    pub(crate) fn key_package_count(&self, owner: &DeviceUri, now: Timestamp) -> Result<(usize, bool), StoreError> {
        let last_resort = self.state("last resort", &key::last_resort(owner), decode_item)?;
        let last_resort = last_resort.is_some_and(|item| item.not_after > now);
        let prefix = key::one_times(owner);
        let mut living = 0;
        self.records(&prefix, &prefix, &mut |_, record| {
            let item = decode_item(record).map_err(damaged("key package"))?;
            living += usize::from(item.not_after > now);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((living, last_resort))
    }

    pub(crate) fn is_last_resort(&self, owner: &DeviceUri, reference: &Digest) -> Result<bool, StoreError> {
        let item = self.state("last resort", &key::last_resort(owner), decode_item)?;
        Ok(item.is_some_and(|item| item.reference == *reference))
    }

    pub(crate) fn has_reported(
        &self,
        channel: &ChannelId,
        commit: Sequence,
        reporter: &DeviceUri,
    ) -> Result<bool, StoreError> {
        self.has(&key::reported(channel, commit, reporter))
    }

    pub(crate) fn cursor_merge(&self, device: &DeviceUri, cursors: &[(ChannelId, Sequence)]) -> Result<(), StoreError> {
        let _only = self.lazy.lock().unwrap_or_else(PoisonError::into_inner);
        if self.engine.room() != Room::Everything {
            return self.available();
        }
        let mut rows: Vec<Row> = Vec::new();
        for (channel, sequence) in cursors {
            if *sequence > self.cursor(device, channel)? {
                parts::put(&mut rows, &key::cursor(device, channel), &encode_number(sequence.0));
            }
        }
        if rows.is_empty() { Ok(()) } else { self.apply(rows) }
    }

    pub(crate) fn cursor(&self, device: &DeviceUri, channel: &ChannelId) -> Result<Sequence, StoreError> {
        let number = self.state("cursor", &key::cursor(device, channel), |record| decode_number(&record))?;
        Ok(Sequence(number.unwrap_or(0)))
    }

    pub(crate) fn audit_read(&self, from: u64, limit: usize) -> Result<Vec<AuditRecord>, StoreError> {
        self.available()?;
        let end = self.leaf_count().min(from.saturating_add(limit as u64));
        (from..end).map(|leaf| self.whole(|| self.audit_record(leaf))).collect()
    }

    /// From the copy, once there is one; a damaged copy of a bucket that is still there costs nothing.
    fn audit_record(&self, leaf: u64) -> Result<AuditRecord, StoreError> {
        match self.copies.record(&self.engine, key::AUDIT, leaf) {
            Ok(Some(record)) => decode_audit(leaf, &record).map_err(damaged("audit record")),
            Err(StoreError::Damaged { what }) if leaf >= self.journal.first_leaf() => {
                tracing::error!(leaf, what, "reading the bucket instead of its copy");
                self.journal.audit(&self.engine, leaf)
            }
            Ok(None) => self.journal.audit(&self.engine, leaf),
            Err(error) => Err(error),
        }
    }
}
