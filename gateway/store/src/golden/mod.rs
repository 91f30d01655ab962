//! Stored bytes, held against `records.txt`, which was written by another program from the descriptions of the formats. A
//! change here is a new format: raise the record's version and keep reading the old one.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use lianxin_tlog::{Audience, EventKind, Head, RetentionClass};
use lianxin_types::{
    ChannelId, DecodeError, DeviceUri, Digest, Epoch, IdempotencyId, Incarnation, Sequence, Timestamp,
};

use crate::change::{self, Change, Taken};
use crate::claim::ClaimRow;
use crate::engine::{Bucket, Engine};
use crate::memory::MemoryEngine;
use crate::record::{
    EventRecord, OWN_LIFE, RememberedCall, UnitRecord, decode_audit, disclose, enclose, encode_audit, scope_digest,
};
use crate::segment;
use crate::snapshot::{RowChain, Snapshot};
use crate::state::{
    HeadRow, InboxRow, Place, RememberedRow, RosterRow, decode_bytes, decode_department, decode_item, decode_number,
    decode_packages, decode_snapshot, encode_bytes, encode_department, encode_item, encode_number, encode_packages,
    encode_snapshot,
};
use crate::unit::{Accepted, Effect, GroupEpoch, Idempotency, KeyPackageItem, Seat};
use crate::zone_store::{GroupSnapshot, StoredPart};
use crate::{key, parts};

const CHANNEL: ChannelId = ChannelId([1; 16]);

fn golden(name: &str) -> Vec<u8> {
    let lines = include_str!("records.txt").lines().filter_map(|line| line.split_once(' '));
    let all: BTreeMap<_, _> = lines.collect();
    hex::decode(all[name]).expect("hexadecimal")
}

fn a() -> DeviceUri {
    "lianxin://jiwei/app/a/1".parse().expect("well formed")
}

fn b() -> DeviceUri {
    "lianxin://shenji/person/b/2".parse().expect("well formed")
}

fn call() -> Idempotency {
    let (id, bytes_hash) = (IdempotencyId([2; 16]), Digest([4; 32]));
    Idempotency { device: a(), channel: Some(CHANNEL), call: "send", id, bytes_hash }
}

fn head(sequence: u64, byte: u8) -> Head {
    Head { sequence: Sequence(sequence), chain_hash: Digest([byte; 32]) }
}

fn item(byte: u8, not_after: u64, bytes: &'static str) -> KeyPackageItem {
    KeyPackageItem {
        reference: Digest([byte; 32]),
        not_after: Timestamp(not_after),
        bytes: Bytes::from_static(bytes.as_bytes()),
    }
}

#[test]
fn scopes() {
    assert_eq!(scope_digest(&call()).0.to_vec(), golden("scope"));
    assert_eq!(scope_digest(&Idempotency { channel: None, ..call() }).0.to_vec(), golden("scope_without_channel"));
}

#[test]
fn units() {
    let event = EventRecord {
        channel: CHANNEL,
        head: head(7, 5),
        kind: EventKind::Application,
        sender: a(),
        expiry: Some(Timestamp(9)),
        label_reference: Digest([6; 32]),
        mls_hash: Digest([7; 32]),
        sender_head: Some(Sequence(6)),
        mls: Bytes::from_static(b"mls"),
    };
    let bare = UnitRecord {
        gateway_time: Timestamp(5),
        leaf_hash: Digest([3; 32]),
        has_changes: false,
        call: None,
        event: None,
    };
    let call = Some(RememberedCall::from(&call()));
    let unit = UnitRecord { has_changes: true, call, event: Some(event), ..bare.clone() };
    for (name, unit) in [("unit", unit), ("unit_bare", bare)] {
        assert_eq!(unit.encode(), golden(name), "{name}");
        assert_eq!(UnitRecord::decode(golden(name)), Ok(unit), "{name}");
    }
    for cut in 0..golden("unit").len() {
        assert!(UnitRecord::decode(golden("unit")[..cut].to_vec()).is_err(), "cut at {cut}");
    }
}

#[test]
fn audit_records() {
    let part = |audience, byte, header: &[u8], body: &[u8]| StoredPart {
        audience,
        salt: [byte; 32],
        header: header.to_vec(),
        body: body.to_vec(),
    };
    let jiwei = Audience::Department(a().department().clone());
    let parts = [part(Audience::Shared, 9, b"header", b"{}"), part(jiwei, 10, b"h", br#"{"a":1}"#)];
    assert_eq!(encode_audit(RetentionClass::AUDIT, &[8; 60], &parts), golden("audit"));
    let record = decode_audit(3, &golden("audit")).expect("readable");
    assert_eq!((record.leaf_index, record.leaf, record.parts.as_slice()), (3, [8; 60], &parts[..]));
}

fn in_group(incarnation: u32, epoch: u64) -> GroupEpoch {
    GroupEpoch { incarnation: Incarnation(incarnation), epoch: Epoch(epoch) }
}

#[test]
fn changes_between_groups() {
    let effects = [
        Effect::Incarnation { incarnation: Incarnation(2), awaited: vec![a(), b()] },
        Effect::ReplaceGroupInfo {
            channel: CHANNEL,
            current: in_group(2, 4),
            group_info: Bytes::from_static(b"again"),
        },
    ];
    let changes = effects.map(|effect| Change { effect, taken: Vec::new() });
    assert_eq!(hex::encode(change::encode(&changes)), hex::encode(golden("changes_between_groups")));
    let read = change::decode(golden("changes_between_groups")).expect("readable");
    assert_eq!(change::encode(&read), golden("changes_between_groups"));
    for cut in 0..golden("changes_between_groups").len() {
        assert!(change::decode(golden("changes_between_groups")[..cut].to_vec()).is_err(), "cut at {cut}");
    }
}

#[test]
fn changes() {
    let taken = Taken { owner: b(), ordinal: 2, item: item(0x13, 22, "taken") };
    let effects = [
        Effect::Group {
            epoch: Epoch(4),
            seated: vec![Seat { device: b(), leaf: 3 }],
            unseated: vec![a()],
            group_info: Bytes::from_static(b"info"),
        },
        Effect::GroupSnapshot { state: Bytes::from_static(b"state") },
        Effect::Welcome {
            recipients: vec![b()],
            inviter: a(),
            welcome: Bytes::from_static(b"welcome"),
            tree: Bytes::from_static(b"tree"),
        },
        Effect::Leaving { device: a() },
        Effect::PublishKeyPackages {
            owner: a(),
            one_time: vec![item(0x11, 20, "one")],
            last_resort: Some(item(0x12, 21, "last")),
        },
        Effect::ClaimKeyPackages { channel: CHANNEL, department: a().department().clone(), owners: vec![b()] },
        Effect::UseClaims { channel: CHANNEL, references: vec![Digest([0x14; 32])] },
        Effect::ConfirmInbox { device: b(), ids: vec![1, 2] },
        Effect::DropBuckets { before: 9 },
        Effect::Removing { device: b() },
        Effect::Report { reporter: a(), committer: b(), commit: Sequence(4) },
        Effect::AllowCommitter { channel: CHANNEL, device: b() },
        Effect::ReplaceGroupInfo {
            channel: CHANNEL,
            current: in_group(0, 4),
            group_info: Bytes::from_static(b"again"),
        },
    ];
    let is_claim = |effect: &Effect| matches!(effect, Effect::ClaimKeyPackages { .. });
    let changes = effects
        .map(|effect| Change { taken: if is_claim(&effect) { vec![taken.clone()] } else { Vec::new() }, effect });
    assert_eq!(change::encode(&changes), golden("changes"));
    let read = change::decode(golden("changes")).expect("readable");
    assert_eq!(change::encode(&read), golden("changes"));
    assert_eq!(read[5].taken, [taken]);
    for cut in 0..golden("changes").len() {
        assert!(change::decode(golden("changes")[..cut].to_vec()).is_err(), "cut at {cut}");
    }
}

/// Encodes to the golden bytes, and reads them back.
fn holds<T: PartialEq + std::fmt::Debug>(
    name: &str,
    value: T,
    encoded: Vec<u8>,
    decode: impl FnOnce(Vec<u8>) -> Result<T, DecodeError>,
) {
    assert_eq!(hex::encode(&encoded), hex::encode(golden(name)), "{name}");
    assert_eq!(decode(encoded), Ok(value), "{name}");
}

#[test]
fn rows_of_the_state() {
    let row = HeadRow {
        incarnation: Incarnation(0),
        epoch: Epoch(1),
        head: head(2, 0x15),
        epoch_sequence: Sequence(3),
        duplicates_from: Epoch(4),
        label_reference: Digest([0x16; 32]),
        proposal_sequence: Sequence(5),
        removal_sequence: Sequence(8),
        last_time: Timestamp(6),
        bucket: 7,
    };
    holds("head_row", row, row.encode(), HeadRow::decode);
    let later = HeadRow { incarnation: Incarnation(9), ..row };
    holds("head_row_later", later, later.encode(), HeadRow::decode);
    let seated = Place::Seated { leaf: 3, joined: Sequence(4) };
    let member = RosterRow { place: seated, leaving: Sequence(5), paused: Sequence(6), allowed: Sequence(7) };

    holds("roster_row", member, member.encode(), RosterRow::decode);
    let awaited = RosterRow { place: Place::Awaited { joined: Sequence(4) }, ..member };
    holds("roster_row_awaited", awaited, awaited.encode(), RosterRow::decode);
    let former = RosterRow::default();
    holds("roster_row_former", former, former.encode(), RosterRow::decode);
    let accepted = Accepted {
        sequence: Sequence(1),
        chain_hash: Digest([0x18; 32]),
        gateway_time: Timestamp(2),
        expiry: Some(Timestamp(3)),
        leaf_index: 4,
        leaf_hash: Digest([0x19; 32]),
        key_packages: Vec::new(),
        is_repeat: false,
    };
    let remembered = RememberedRow { bytes_hash: Digest([0x17; 32]), accepted, packages: 5 };
    holds("remembered_row", remembered.clone(), remembered.encode(), RememberedRow::decode);
    let entry =
        InboxRow { channel: CHANNEL, head: head(2, 0x1A), ordinal: 1, inviter: a(), gateway_time: Timestamp(3) };
    holds("inbox_row", entry.clone(), entry.encode(), InboxRow::decode);
    let claim = ClaimRow { owner: a(), department: b().department().clone() };
    holds("claim_row", claim.clone(), claim.encode(), ClaimRow::decode);
    let snapshot = GroupSnapshot { epoch: Epoch(1), sequence: Sequence(2), state: Bytes::from_static(b"state") };
    holds("snapshot_row", snapshot.clone(), encode_snapshot(&snapshot), decode_snapshot);
    let package = item(0x1B, 4, "package");
    holds("item_row", package.clone(), encode_item(&package), decode_item);
    holds("number_row", 258, encode_number(258), |record| decode_number(&record));
    let packages = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
    holds("packages_row", packages.clone(), encode_packages(&packages), decode_packages);
    let department = (1, Digest([0x1C; 32]));
    holds("department_row", department, encode_department(1, &department.1), |record| decode_department(&record));
    holds("bytes_row", Bytes::from_static(b"bytes"), encode_bytes(b"bytes"), decode_bytes);
    let index = enclose(OWN_LIFE, Some(Timestamp(9)), &12u64.to_be_bytes());
    holds("event_index", 12, index, |record| decode_number(&record));
}

#[test]
fn keys() {
    let jiwei = a().department().clone();
    for (name, found) in [
        ("key_unit", key::leaf(key::UNIT, 258)),
        ("key_audit", key::leaf(key::AUDIT, 258)),
        ("key_changes", key::leaf(key::CHANGES, 258)),
        ("key_event", key::event(&CHANNEL, Sequence(258))),
        ("key_roster", key::roster(&CHANNEL, &a())),
        ("key_inbox", key::inbox(&a(), 1)),
        ("key_one_time", key::one_time(&a(), 1)),
        ("key_duplicate", key::duplicate(&CHANNEL, Epoch(3), &Digest([0x1D; 32]))),
        ("key_department", key::department(&jiwei)),
        ("key_snapshot_begin", key::state_mark(key::STATE_BEGIN, 3)),
        ("key_snapshot_end", key::state_mark(key::STATE_END, 3)),
        ("key_claim_by", key::claim_by(&a(), b().department(), &CHANNEL, &Digest([0x1D; 32]))),
        ("key_remembered_at", key::remembered_at(Timestamp(258), &Digest([0x1E; 32]))),
        ("key_remembered_packages", key::remembered_packages(&Digest([0x1F; 32]))),
        ("key_state_row", key::state_row(3, &key::channel_count(&a()))),
        ("key_reported", key::reported(&CHANNEL, Sequence(258), &a())),
    ] {
        assert_eq!(found, golden(name), "{name}");
    }
    assert_eq!(key::leaf_index(&golden("key_unit")), Some(258));
}

#[test]
fn ends_of_state_snapshots() {
    let mut chain = RowChain::new(9);
    chain.add(b"!applied\0\0", &[1, 2]);
    chain.add(b"hkey\0\0", &[3]);
    let RowChain { rows, bytes, digest } = chain;
    let bucket = Bucket { number: 5, week: 6 };
    let snapshot = Snapshot { number: 7, bucket, as_of: 9, rows, bytes, needs_bucket: 4, digest };
    holds("snapshot_end", snapshot, snapshot.encode(), |record| Snapshot::decode(bucket, 7, &record));
}

/// A bucket with leaves 5 to 7, of which the middle one has a class of its own.
#[test]
fn segments() {
    let engine = MemoryEngine::new();
    let bucket = Bucket { number: 3, week: 7 };
    let mut rows = Vec::new();
    for (leaf, class, body) in [(5, 1, "one"), (6, 2, "two"), (7, 1, "three")] {
        let record = enclose(RetentionClass(class), None, body.as_bytes());
        parts::put(&mut rows, &key::leaf(key::AUDIT, leaf), &record);
    }
    engine.append(bucket, rows).expect("memory");
    let classes = segment::classes(&engine, bucket).expect("readable");
    assert_eq!(classes, [RetentionClass(1), RetentionClass(2)]);
    let header = segment::Header { bucket, first_leaf: 5, end_leaf: 8, class: RetentionClass(1), classes };
    let mut written = Vec::new();
    segment::write(&engine, &header, &AtomicBool::new(false), &mut written).expect("readable");
    assert_eq!(hex::encode(&written), hex::encode(golden("segment")));
}

#[test]
fn newer_and_sealed_records_are_refused() {
    let mut newer = golden("number_row");
    newer[0] = 2;
    assert_eq!(disclose(&newer), Err(DecodeError::UnknownVersion { version: 2 }));
    let mut sealed = golden("number_row");
    sealed[11] = 1;
    assert_eq!(disclose(&sealed), Err(DecodeError::OutOfRange { field: "seal kind" }));
    assert!(disclose(&golden("number_row")[..19]).is_err());
}
