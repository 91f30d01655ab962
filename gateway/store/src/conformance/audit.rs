//! The audit log of a zone, checked from what is stored and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use lianxin_tlog::{
    Audience, ChainLink, DepartmentHeader, Head, Leaf, SharedHeader, chain_next, chain_start, leaf_commitment,
    part_commitment,
};
use lianxin_types::{ChannelId, Digest, Reader, Sequence, Timestamp};

use crate::zone_store::{AuditRecord, ZoneStore};

/// Checks that leaf indexes are dense, that every leaf commits to its stored parts, that departments' counters and previous
/// commitments have no gap, and that each event of `channels` is in exactly one record and, as far as
/// buckets have not been dropped, in an unbroken chain. Gives the number of leaves.
///
/// # Panics
/// If any of this does not hold.
pub fn check_audit(store: &dyn ZoneStore, channels: &[ChannelId]) -> u64 {
    let mut departments: BTreeMap<String, (u64, Digest)> = BTreeMap::new();
    let mut slots = BTreeSet::new();
    let mut events = BTreeMap::new();
    let mut next = 0;
    loop {
        let records = store.audit_read(next, 100).expect("audit records are readable");
        if records.is_empty() {
            break;
        }
        for record in records {
            assert_eq!(record.leaf_index, next, "leaf indexes are dense");
            let header = check_record(&record, &mut departments);
            let leaf = Leaf::from_bytes(&record.leaf).expect("a leaf");
            assert!(slots.insert(leaf.slot), "slot of leaf {next} is new");
            if header.sequence > Sequence(0) {
                let place = (header.channel, header.sequence);
                assert_eq!(
                    events.insert(place, (next, leaf.hash(), header.chain_hash)),
                    None,
                    "one record for an event"
                );
            }
            next += 1;
        }
    }
    assert_eq!(store.health().leaf_count, next);
    for channel in channels {
        check_channel(store, channel, &mut events);
    }
    assert!(events.is_empty(), "records of events that are in no channel: {events:?}");
    next
}

fn check_record(record: &AuditRecord, departments: &mut BTreeMap<String, (u64, Digest)>) -> SharedHeader {
    let mut shared = None;
    let mut commitments = Vec::new();
    for part in &record.parts {
        let commitment = part_commitment(&part.salt, &part.audience, &part.header, &Digest::sha256(&part.body));
        commitments.push(commitment);
        match &part.audience {
            Audience::Shared => shared = Some(shared_header(&part.header)),
            Audience::Department(department) => {
                let last = departments.entry(department.to_string()).or_insert((0, Digest::ZERO));
                let expect = DepartmentHeader { counter: last.0 + 1, previous: last.1 };
                assert_eq!(part.header, expect.to_bytes(), "{department} has no gap at leaf {}", record.leaf_index);
                *last = (expect.counter, commitment);
            }
        }
    }
    let leaf = Leaf::from_bytes(&record.leaf).expect("a leaf");
    assert_eq!(leaf.commitment, leaf_commitment(&commitments), "leaf {} commits to its parts", record.leaf_index);
    let shared = shared.expect("every record has a shared part");
    assert_eq!(shared.leaf_index, record.leaf_index);
    assert_eq!(shared.gateway_time.hour(), leaf.hour);
    shared
}

fn shared_header(bytes: &[u8]) -> SharedHeader {
    let mut reader = Reader::new(bytes);
    assert_eq!(reader.u8("version"), Ok(1));
    let mut number = |field| reader.u64(field).expect("a header");
    let (leaf_index, gateway_time) = (number("leaf index"), Timestamp(number("time")));
    let channel = ChannelId(reader.array("channel").expect("a header"));
    let sequence = Sequence(reader.u64("sequence").expect("a header"));
    let chain_hash = Digest(reader.array("chain hash").expect("a header"));
    reader.finish().expect("a header and nothing else");
    SharedHeader { leaf_index, gateway_time, channel, sequence, chain_hash }
}

type Recorded = BTreeMap<(ChannelId, Sequence), (u64, Digest, Digest)>;

fn check_channel(store: &dyn ZoneStore, channel: &ChannelId, recorded: &mut Recorded) {
    let Some(committed) = store.head(channel).expect("heads are readable") else { return };
    let mut head = chain_start(channel);
    let first = store.read(channel, Sequence(0), 1, 1).expect("events are readable").first_retained;
    while head.sequence.next() < first {
        // Dropped with its bucket, but not its record.
        let sequence = head.sequence.next();
        let (_, _, chain_hash) = recorded.remove(&(*channel, sequence)).expect("an audit record for every event");
        head = Head { sequence, chain_hash };
        assert_eq!(
            store.chain_at(channel, sequence).expect("readable"),
            Some(chain_hash).filter(|_| head == committed.head)
        );
    }
    let mut time = Timestamp(0);
    while head.sequence < committed.head.sequence {
        let page = store.read(channel, head.sequence, 7, 1 << 20).expect("events are readable");
        assert!(!page.events.is_empty(), "events end before the head");
        for event in page.events {
            assert!(event.gateway_time >= time, "time does not go back in a channel");
            time = event.gateway_time;
            let link = ChainLink {
                sequence: head.sequence.next(),
                kind: event.kind,
                gateway_time: event.gateway_time,
                expiry: event.expiry,
                sender: &event.sender,
                mls_hash: Digest::sha256(&event.mls),
            };
            head = chain_next(&head.chain_hash, &link);
            assert_eq!(event.head, head, "dense, and chained over what is stored");
            let (leaf_index, leaf_hash, chain_hash) =
                recorded.remove(&(*channel, head.sequence)).expect("an audit record for every event");
            assert_eq!((event.leaf_index, event.leaf_hash, chain_hash), (leaf_index, leaf_hash, head.chain_hash));
            assert_eq!(store.chain_at(channel, head.sequence).expect("readable"), Some(head.chain_hash));
        }
    }
    assert_eq!(committed.head, head, "the head is the chain's end");
}
