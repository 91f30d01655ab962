//! What a batch would change, over what is committed: later units of a batch see the earlier ones, and nothing of it
//! exists for anyone else until it is durable.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock};

use lianxin_tlog::{Head, chain_start};
use lianxin_types::{ChannelId, DecodeError, Epoch, Timestamp};

use crate::engine::{Engine, Row, Space};
use crate::record::damaged;
use crate::state::{HeadRow, decode_number, encode_number};
use crate::zone_store::{ChannelHead, StoreError};
use crate::{key, parts};

/// A committed channel.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) head: Arc<ChannelHead>,
    pub(crate) last_time: Timestamp,
    pub(crate) bucket: u64,
    /// The oldest epoch whose accepted bytes may still be known.
    pub(crate) duplicates_from: Epoch,
}

/// All committed channels of the zone. Locked only to copy or exchange an `Arc`.
#[derive(Debug, Default)]
pub(crate) struct Table(RwLock<HashMap<ChannelId, Slot>>);

impl Table {
    pub(crate) fn slot(&self, channel: &ChannelId) -> Option<Slot> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(channel).cloned()
    }

    pub(crate) fn insert(&self, channel: ChannelId, slot: Slot) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(channel, slot);
    }

    pub(crate) fn clear(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn publish(&self, channels: BTreeMap<ChannelId, ChannelDraft>) {
        let mut slots = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (channel, draft) in channels {
            let ChannelDraft { base, changed, head, last_time, bucket, duplicates_from } = draft;
            match (changed, slots.get_mut(&channel)) {
                (Some(mut changed), _) => {
                    changed.head = head;
                    slots.insert(channel, Slot { head: Arc::new(*changed), last_time, bucket, duplicates_from });
                }
                (None, Some(slot)) => {
                    // A message moves the head and nothing else: the members are copied only if a reader holds them.
                    drop(base);
                    Arc::make_mut(&mut slot.head).head = head;
                    slot.last_time = last_time;
                    slot.bucket = bucket;
                    slot.duplicates_from = duplicates_from;
                }
                (None, None) => {}
            }
        }
    }
}

/// A channel in a batch.
#[derive(Debug)]
pub(crate) struct ChannelDraft {
    base: Option<Arc<ChannelHead>>,
    changed: Option<Box<ChannelHead>>,
    pub(crate) head: Head,
    pub(crate) last_time: Timestamp,
    pub(crate) bucket: u64,
    pub(crate) duplicates_from: Epoch,
}

impl ChannelDraft {
    /// Everything but the head, which is in `head`.
    pub(crate) fn view(&self) -> &ChannelHead {
        match (&self.changed, &self.base) {
            (Some(changed), _) => changed,
            (None, Some(base)) => base,
            (None, None) => unreachable!("a draft starts from a committed channel or from a new one"),
        }
    }

    /// The same, to be changed; copies the members once in a batch.
    pub(crate) fn edit(&mut self) -> &mut ChannelHead {
        if self.changed.is_none() {
            self.changed = Some(Box::new(self.view().clone()));
        }
        self.changed.as_mut().expect("it was filled in on the line above")
    }
}

/// Keys and records of the state.
type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// The changes of one batch.
pub(crate) struct Draft<'a, E> {
    pub(crate) engine: &'a E,
    table: &'a Table,
    rows: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    channels: BTreeMap<ChannelId, ChannelDraft>,
    /// Not above the time of the oldest remembered call; `None` if that must be looked up.
    oldest_call: Option<u64>,
}

impl<'a, E: Engine> Draft<'a, E> {
    pub(crate) fn new(engine: &'a E, table: &'a Table) -> Self {
        Self { engine, table, rows: BTreeMap::new(), channels: BTreeMap::new(), oldest_call: None }
    }

    /// A row of the state as the batch sees it.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.rows.get(key) {
            Some(row) => Ok(row.clone()),
            None => parts::get(self.engine, Space::State, key),
        }
    }

    /// A row, read.
    pub(crate) fn read<T>(
        &self,
        what: &'static str,
        key: &[u8],
        decode: impl FnOnce(Vec<u8>) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, StoreError> {
        self.get(key)?.map(decode).transpose().map_err(damaged(what))
    }

    /// A number; 0 if there is none.
    pub(crate) fn number(&self, key: &[u8]) -> Result<u64, StoreError> {
        Ok(self.read("number", key, |record| decode_number(&record))?.unwrap_or(0))
    }

    pub(crate) fn put(&mut self, key: Vec<u8>, record: Vec<u8>) {
        self.rows.insert(key, Some(record));
    }

    pub(crate) fn put_number(&mut self, key: Vec<u8>, number: u64) {
        self.put(key, encode_number(number));
    }

    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        self.rows.insert(key, None);
    }

    /// All rows under `prefix`, ascending: for families that a limit bounds.
    pub(crate) fn scan(&self, prefix: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
        let mut found = BTreeMap::new();
        parts::scan(self.engine, Space::State, prefix, prefix, &mut |key, record| {
            found.insert(key.to_vec(), record);
            Ok(ControlFlow::Continue(()))
        })?;
        for (key, row) in self.rows.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix)) {
            match row {
                Some(record) => found.insert(key.clone(), record.clone()),
                None => found.remove(key),
            };
        }
        Ok(found)
    }

    /// The first rows under `prefix`, ascending, at most `count`: for families of small records.
    pub(crate) fn first(&self, prefix: &[u8], count: usize) -> Result<Records, StoreError> {
        debug_assert!(!key::is_large(prefix), "large records are not read in passing");
        let mut found = BTreeMap::new();
        parts::scan(self.engine, Space::State, prefix, prefix, &mut |key, record| {
            if !self.rows.contains_key(key) {
                found.insert(key.to_vec(), record);
            }
            Ok(if found.len() < count { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        let changed = self.rows.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        let put = changed.filter_map(|(key, row)| Some((key, row.as_ref()?)));
        found.extend(put.take(count).map(|(key, record)| (key.clone(), record.clone())));
        Ok(found.into_iter().take(count).collect())
    }

    /// Whether a call that was accepted before `time` may be remembered.
    pub(crate) fn calls_may_end(&self, time: u64) -> bool {
        self.oldest_call.is_none_or(|oldest| oldest < time)
    }

    /// Takes note of the oldest remembered call; `None` if it is not known.
    pub(crate) fn oldest_call(&mut self, time: Option<u64>) {
        self.oldest_call = time;
    }

    /// Takes note of another remembered call.
    pub(crate) fn newer_call(&mut self, time: u64) {
        self.oldest_call = self.oldest_call.map(|oldest| oldest.min(time));
    }

    /// The channel as the batch sees it.
    pub(crate) fn channel(&self, channel: &ChannelId) -> Option<ChannelView> {
        if let Some(draft) = self.channels.get(channel) {
            return Some(ChannelView::of(draft));
        }
        let slot = self.table.slot(channel)?;
        Some(ChannelView { position: slot.head.head, last_time: slot.last_time })
    }

    /// The channel, to be looked into or changed.
    pub(crate) fn channel_mut(&mut self, channel: &ChannelId) -> Option<&mut ChannelDraft> {
        if !self.channels.contains_key(channel) {
            let Slot { head, last_time, bucket, duplicates_from } = self.table.slot(channel)?;
            let position = head.head;
            let draft =
                ChannelDraft { base: Some(head), changed: None, head: position, last_time, bucket, duplicates_from };
            self.channels.insert(*channel, draft);
        }
        self.channels.get_mut(channel)
    }

    /// Starts a channel without events.
    pub(crate) fn start_channel(&mut self, channel: ChannelId) {
        let head = chain_start(&channel);
        let changed = Some(Box::new(ChannelHead::empty(head)));
        let draft =
            ChannelDraft { base: None, changed, head, last_time: Timestamp(0), bucket: 0, duplicates_from: Epoch(0) };
        self.channels.insert(channel, draft);
    }

    /// The state rows of the batch, and the channels to be published once those are applied.
    pub(crate) fn finish(mut self) -> Result<(Vec<Row>, BTreeMap<ChannelId, ChannelDraft>), StoreError> {
        for (channel, draft) in &self.channels {
            let row =
                HeadRow::new(draft.view(), draft.head, draft.last_time, draft.bucket, draft.duplicates_from).encode();
            self.rows.insert(key::head(channel), Some(row));
        }
        let mut rows = Vec::with_capacity(self.rows.len());
        for (key, record) in &self.rows {
            parts::replace(self.engine, &mut rows, key, record.as_deref(), key::is_large(key))?;
        }
        Ok((rows, self.channels))
    }
}

/// Where a channel stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChannelView {
    pub(crate) position: Head,
    pub(crate) last_time: Timestamp,
}

impl ChannelView {
    fn of(draft: &ChannelDraft) -> Self {
        Self { position: draft.head, last_time: draft.last_time }
    }
}
