//! What runs through the whole zone: leaves, slots, departments' parts and channels' chains.

use std::collections::{BTreeMap, HashMap};

use lianxin_tlog::{
    Audience, ChainLink, DepartmentHeader, Head, Leaf, SharedHeader, chain_next, chain_start, leaf_commitment,
    part_commitment,
};
use lianxin_types::{ChannelId, DepartmentId, Digest, Sequence, Timestamp};

use super::Fault;
use crate::committer::counter_in;
use crate::record::{EventRecord, UnitRecord};
use crate::zone_store::AuditRecord;

/// The end of a channel as far as it was read.
struct Tip {
    head: Head,
    time: Timestamp,
}

/// What was seen so far.
#[derive(Default)]
pub(super) struct Log {
    /// The leaf that must come next; `None` after a stretch that could not be read.
    next_leaf: Option<u64>,
    is_begun: bool,
    slots: HashMap<[u8; 16], u64>,
    departments: BTreeMap<DepartmentId, (u64, Digest)>,
    channels: HashMap<ChannelId, Tip>,
    /// Something before could not be read: who was not seen yet may go on from anywhere.
    has_lost_departments: bool,
    has_lost_channels: bool,
}

type Find<'a> = dyn FnMut(Fault) + 'a;

impl Log {
    pub(super) fn channels(&self) -> usize {
        self.channels.len()
    }

    /// A stretch of the journal could not be read: what follows is compared with itself only.
    pub(super) fn lose_thread(&mut self) {
        self.is_begun = true;
        self.next_leaf = None;
        self.lose_departments();
        self.lose_channels();
    }

    pub(super) fn lose_departments(&mut self) {
        self.departments.clear();
        self.has_lost_departments = true;
    }

    pub(super) fn lose_channels(&mut self) {
        self.channels.clear();
        self.has_lost_channels = true;
    }

    /// The leaf that should have been the first of a bucket, if `first` is not.
    pub(super) fn next_leaf(&mut self, first: u64) -> Option<u64> {
        let wanted = if self.is_begun { self.next_leaf? } else { 0 };
        if first == wanted {
            return None;
        }
        self.lose_thread();
        Some(wanted)
    }

    pub(super) fn leaf_count(&mut self, leaves: u64) {
        self.is_begun = true;
        self.next_leaf = Some(leaves);
    }

    /// An audit record, and the unit that it belongs to if that could be read.
    pub(super) fn record(&mut self, audit: &AuditRecord, unit: Option<&UnitRecord>, find: &mut Find<'_>) {
        let commitments: Vec<Digest> = audit
            .parts
            .iter()
            .map(|part| part_commitment(&part.salt, &part.audience, &part.header, &Digest::sha256(&part.body)))
            .collect();
        match Leaf::from_bytes(&audit.leaf) {
            Ok(leaf) => self.leaf(audit.leaf_index, &leaf, &commitments, unit, find),
            Err(cause) => find(Fault::Unreadable { cause: cause.to_string() }),
        }
        if !has_part_order(audit) {
            find(Fault::PartOrder);
        }
        for (part, commitment) in audit.parts.iter().zip(commitments) {
            match (&part.audience, unit) {
                (Audience::Shared, Some(unit)) if !fits(&part.header, audit.leaf_index, unit) => {
                    find(Fault::SharedHeader);
                }
                (Audience::Shared, _) => {}
                (Audience::Department(department), _) => self.department(department, &part.header, commitment, find),
            }
        }
    }

    fn leaf(
        &mut self,
        index: u64,
        leaf: &Leaf,
        commitments: &[Digest],
        unit: Option<&UnitRecord>,
        find: &mut Find<'_>,
    ) {
        if leaf.commitment != leaf_commitment(commitments) {
            find(Fault::Commitment);
        }
        if unit.is_some_and(|unit| unit.leaf_hash != leaf.hash()) {
            find(Fault::LeafHash);
        }
        if unit.is_some_and(|unit| unit.gateway_time.hour() != leaf.hour) {
            find(Fault::Hour);
        }
        if let Some(before) = self.slots.insert(leaf.slot, index) {
            find(Fault::SlotTwice { before });
        }
    }

    fn department(&mut self, department: &DepartmentId, header: &[u8], commitment: Digest, find: &mut Find<'_>) {
        let Ok(counter) = counter_in(header) else {
            find(Fault::DepartmentChain { department: department.clone() });
            return;
        };
        let last = self.departments.get(department).copied();
        let is_unknown = last.is_none() && self.has_lost_departments;
        let (before, previous) = last.unwrap_or((0, Digest::ZERO));
        let wanted = DepartmentHeader { counter: before + 1, previous };
        if !is_unknown && header != wanted.to_bytes() {
            find(Fault::DepartmentChain { department: department.clone() });
        }
        self.departments.insert(department.clone(), (counter, commitment));
    }

    /// The event of a unit, if it has one.
    pub(super) fn event(&mut self, unit: &UnitRecord, find: &mut Find<'_>) {
        let Some(event) = &unit.event else { return };
        let (channel, sequence) = (event.channel, event.head.sequence);
        if Digest::sha256(&event.mls) != event.mls_hash {
            find(Fault::MlsHash);
        }
        let start = || Tip { head: chain_start(&channel), time: Timestamp(0) };
        let before = match self.channels.remove(&channel) {
            None if self.has_lost_channels => None,
            None => Some(start()),
            Some(tip) => Some(tip),
        };
        if let Some(before) = before {
            if sequence != before.head.sequence.next() {
                find(Fault::SequenceOrder { channel, before: before.head.sequence, found: sequence });
            } else if next(&before.head, unit, event) != event.head {
                find(Fault::ChainHash { channel, sequence });
            }
            if unit.gateway_time < before.time {
                find(Fault::TimeOrder { channel, sequence });
            }
        }
        // From here on the channel is compared with what is stored, so that one fault is found once.
        self.channels.insert(channel, Tip { head: event.head, time: unit.gateway_time });
    }
}

fn next(before: &Head, unit: &UnitRecord, event: &EventRecord) -> Head {
    let link = ChainLink {
        sequence: before.sequence.next(),
        kind: event.kind,
        gateway_time: unit.gateway_time,
        expiry: event.expiry,
        sender: &event.sender,
        mls_hash: event.mls_hash,
    };
    chain_next(&before.chain_hash, &link)
}

fn has_part_order(audit: &AuditRecord) -> bool {
    let shared = audit.parts.iter().filter(|part| part.audience == Audience::Shared).count();
    let is_shared_first = audit.parts.first().is_some_and(|part| part.audience == Audience::Shared);
    let names: Vec<_> = audit.parts.iter().skip(1).map(|part| &part.audience).collect();
    let are_apart = names.iter().enumerate().all(|(index, name)| !names[..index].contains(name));
    shared == 1 && is_shared_first && are_apart
}

/// Whether the shared header says of the unit what the unit says. A record without an event may name a channel all the same.
fn fits(header: &[u8], leaf_index: u64, unit: &UnitRecord) -> bool {
    let none = Head { sequence: Sequence(0), chain_hash: Digest::ZERO };
    let (channel, head) = match &unit.event {
        Some(event) => (Some(event.channel), event.head),
        None => (header.get(CHANNEL_AT).and_then(|bytes| ChannelId::try_from(bytes).ok()), none),
    };
    let Some(channel) = channel else { return false };
    let Head { sequence, chain_hash } = head;
    header == SharedHeader { leaf_index, gateway_time: unit.gateway_time, channel, sequence, chain_hash }.to_bytes()
}

/// Where [`SharedHeader::to_bytes`] puts the channel: behind version u8, leaf index u64 and gateway time u64.
const CHANNEL_AT: std::ops::Range<usize> = 17..33;
