//! Messages on the wire: the shared encoding is the contract's, values come back, bounds hold.

use lianxin_tlog::{EventKind, Head};
use lianxin_types::{Digest, Timestamp};
use prost::Message;

use super::*;
use crate::ReasonCode;
use crate::receipt::tests::receipt;

fn event(sequence: u64) -> Event {
    Event {
        channel: ChannelId([1; 16]),
        sequence: Sequence(sequence),
        kind: EventKind::Application,
        sender: "lianxin://jiwei/app/a/1".parse().expect("well formed"),
        gateway_time: Timestamp(1_700_000_000_000_000),
        expiry: None,
        label_reference: Digest([2; 32]),
        mls: Bytes::from_static(b"mls"),
        leaf_index: sequence + 100,
        leaf_hash: Digest([3; 32]),
        idempotency_id: IdempotencyId([4; 16]),
    }
}

/// `ReceiveResponse` as any other implementation generates it: `events` is a message.
#[derive(Clone, PartialEq, Message)]
struct AsWritten {
    #[prost(message, optional, tag = "1")]
    events: Option<v1::EventBatch>,
}

#[test]
fn the_shared_encoding_is_that_of_the_contract() {
    let encoded = encode_events(&[event(1), event(2)]);
    let shared = events_frame(encoded.clone()).encode_to_vec();
    // Encoded by hand, tag by tag, in Python.
    let one = |sequence: u8| {
        let head = [b"\x0a\x95\x01\x0a\x10".as_slice(), &[1; 16], &[0x10, sequence, 0x18, 3, 0x22, 23]].concat();
        let time = b"lianxin://jiwei/app/a/1\x28\x80\x80\xf9\xc0\xc1\xc4\x82\x03".as_slice();
        let hashes =
            [b"\x3a\x20".as_slice(), &[2; 32], b"\x42\x03mls\x48", &[sequence + 100], b"\x52\x20", &[3; 32]].concat();
        [head.as_slice(), time, &hashes, b"\x62\x10", &[4; 16]].concat()
    };
    let expect = [b"\x0a\xb0\x02".as_slice(), &one(1), &one(2)].concat();
    assert_eq!(shared, expect);

    let batch = v1::EventBatch { events: vec![(&event(1)).into(), (&event(2)).into()] };
    let written = AsWritten { events: Some(batch.clone()) };
    assert_eq!(shared, written.encode_to_vec());
    assert_eq!(AsWritten::decode(shared.as_slice()), Ok(written));
    assert_eq!(decode_events(encoded), Ok(vec![event(1), event(2)]));
}

#[test]
fn frames_share_the_bytes_and_do_not_copy_them() {
    let encoded = encode_events(&[event(1)]);
    let frames = [events_frame(encoded.clone()), events_frame(encoded.clone())];
    for frame in frames {
        let Some(v1::receive_response::Frame::Events(bytes)) = frame.frame else { panic!("an events frame") };
        assert_eq!(bytes.as_ptr(), encoded.as_ptr());
    }
}

#[test]
fn events_with_a_hole_a_turn_or_of_two_channels_are_refused() {
    let malformed = Err(ParseError::Malformed { field: "events" });
    assert_eq!(decode_events(Bytes::from_static(b"\xff")), malformed);
    assert_eq!(decode_events(Bytes::new()), Err(ParseError::Missing { field: "events" }));
    assert_eq!(decode_events(encode_events(&[event(1), event(3)])), malformed);
    assert_eq!(decode_events(encode_events(&[event(2), event(1)])), malformed);
    assert_eq!(decode_events(encode_events(&[event(1), event(1)])), malformed);
    let foreign = Event { channel: ChannelId([9; 16]), ..event(2) };
    assert_eq!(decode_events(encode_events(&[event(1), foreign])), malformed);
    let run = |count: u64| encode_events(&(1..=count).map(event).collect::<Vec<_>>());
    assert_eq!(decode_events(run(257)), Err(ParseError::TooLarge { field: "events", limit: 256, found: 257 }));
    assert_eq!(decode_events(run(256)).map(|events| events.len()), Ok(256));
}

#[test]
fn an_event_lacking_something_is_refused_by_name() {
    let refused = |change: fn(&mut v1::ChannelEvent)| {
        let mut wire = v1::ChannelEvent::from(&event(1));
        change(&mut wire);
        Event::try_from(wire).expect_err("not as the contract says").field()
    };
    assert_eq!(refused(|wire| wire.channel_id.clear()), "channel_id");
    assert_eq!(refused(|wire| wire.sequence = 0), "sequence");
    assert_eq!(refused(|wire| wire.kind = 0), "kind");
    assert_eq!(refused(|wire| wire.kind = 7), "kind");
    assert_eq!(refused(|wire| wire.kind = 257), "kind");
    assert_eq!(refused(|wire| wire.sender_uri.push('/')), "sender_uri");
    assert_eq!(refused(|wire| wire.gateway_time_us = 0), "gateway_time_us");
    assert_eq!(refused(|wire| wire.label_reference.clear()), "label_reference");
    assert_eq!(refused(|wire| wire.mls.clear()), "mls");
    assert_eq!(refused(|wire| wire.leaf_hash.clear()), "leaf_hash");
    assert_eq!(refused(|wire| wire.idempotency_id.clear()), "idempotency_id");
}

#[test]
fn kinds_have_the_numbers_of_the_contract() {
    for kind in EventKind::ALL {
        let wire = v1::ChannelEvent::from(&Event { kind, ..event(1) });
        let name = format!("EVENT_KIND_{kind:?}").to_uppercase();
        assert_eq!(wire.kind().as_str_name(), name);
    }
}

#[test]
fn a_message_stands_at_its_limit_and_not_one_over() {
    let send = |bytes| Send { id: IdempotencyId([1; 16]), channel: ChannelId([2; 16]), mls: vec![7; bytes].into() };
    let parse = |send: Send| Send::try_from(v1::SendRequest::from(send));
    let most = LIMITS.message_mls_bytes_max;
    let over = ParseError::TooLarge { field: "mls_message", limit: most as u64, found: most as u64 + 1 };
    assert_eq!(parse(send(most + 1)), Err(over));
    assert_eq!(parse(send(most)), Ok(send(most)));
    assert_eq!(parse(send(0)), Err(ParseError::Missing { field: "mls_message" }));
}

#[test]
fn each_message_is_answered_by_a_receipt_or_a_refusal() {
    let id = IdempotencyId([1; 16]);
    let refusal = Problem::new(ReasonCode::PendingRemoves).with_sequence(Sequence(4));
    for result in [Ok(receipt()), Err(refusal.clone())] {
        let outcome = SendOutcome { id, result };
        assert_eq!(SendOutcome::try_from(v1::SendResponse::from(outcome.clone())), Ok(outcome));
    }
    let neither = v1::SendResponse { idempotency_id: fields::wire(id.0), outcome: None };
    assert_eq!(SendOutcome::try_from(neither), Err(ParseError::Missing { field: "outcome" }));
    let garbage = v1::send_response::Outcome::Refusal(Bytes::from_static(b"no"));
    let garbage = v1::SendResponse { idempotency_id: fields::wire(id.0), outcome: Some(garbage) };
    assert_eq!(SendOutcome::try_from(garbage), Err(ParseError::Malformed { field: "refusal" }));
    let echoed = SendOutcome::refused_unparsed(&Bytes::from(vec![9; 1_000]), &refusal);
    assert_eq!(echoed.idempotency_id, [9; 16].as_slice());
    assert_eq!(SendOutcome::refused_unparsed(&Bytes::from_static(b"x"), &refusal).idempotency_id, b"x".as_slice());
}

#[test]
fn what_the_client_wants_comes_back_and_is_bounded() {
    let channel = ChannelId([2; 16]);
    let confirm =
        |count: usize| Receive::Confirm { cursors: vec![(channel, Sequence(5)); count], inbox: vec![1; count] };
    let wants = [Receive::Follow { channel, after: Sequence(0) }, Receive::Unfollow { channel }, confirm(1_000)];
    for receive in wants {
        assert_eq!(Receive::try_from(v1::ReceiveRequest::from(receive.clone())), Ok(receive));
    }
    let parse = |receive: Receive| Receive::try_from(v1::ReceiveRequest::from(receive)).map_err(|error| error.field());
    assert_eq!(parse(confirm(1_001)), Err("cursors"));
    assert_eq!(parse(Receive::Confirm { cursors: Vec::new(), inbox: vec![1; 1_001] }), Err("inbox_ids"));
    assert_eq!(Receive::try_from(v1::ReceiveRequest { action: None }), Err(ParseError::Missing { field: "action" }));
}

#[test]
fn every_frame_comes_back() {
    let channel = ChannelId([2; 16]);
    let time = Timestamp(5);
    let welcome = Welcome {
        channel,
        head: Head { sequence: Sequence(3), chain_hash: Digest([6; 32]) },
        welcome: Bytes::from_static(b"welcome"),
        inviter: "lianxin://jiwei/app/a/1".parse().expect("well formed"),
        gateway_time: time,
    };
    let reason = Problem::new(ReasonCode::ShuttingDown);
    let frames = [
        Frame::Events(vec![event(1)]),
        Frame::Opened { bundle_version: 1, bundle_digest: Digest([1; 32]), gateway_time: time },
        Frame::CaughtUp { channel, sequence: Sequence(0) },
        Frame::Gap { channel, first_retained: Sequence(9) },
        Frame::Inbox { inbox_id: 1, item: InboxItem::Welcome(welcome) },
        Frame::Inbox { inbox_id: 2, item: InboxItem::Unknown },
        Frame::Heartbeat { gateway_time: time },
        Frame::Closed { channel: Some(channel), reason: reason.clone() },
        Frame::Closed { channel: None, reason },
        Frame::Unknown,
    ];
    for frame in frames {
        assert_eq!(Frame::try_from(v1::ReceiveResponse::from(frame.clone())), Ok(frame));
    }
}

#[test]
fn a_frame_of_a_later_kind_is_skipped_and_a_bad_one_refused() {
    let later = v1::ReceiveResponse::decode(&b"\xfa\x01\x02hi"[..]).expect("an unknown field is no error");
    assert_eq!(Frame::try_from(later), Ok(Frame::Unknown));
    let bad = v1::receive_response::Frame::Closed(v1::Closed::default());
    let bad = v1::ReceiveResponse { frame: Some(bad) };
    assert_eq!(Frame::try_from(bad), Err(ParseError::Malformed { field: "reason" }));
}

#[test]
fn a_page_of_history_is_bounded() {
    let history = |events_max| History { channel: ChannelId([2; 16]), after: Sequence(3), events_max };
    let parse = |history: History| History::try_from(v1::HistoryRequest::from(history));
    assert_eq!(parse(history(501)), Err(ParseError::TooLarge { field: "events_max", limit: 500, found: 501 }));
    assert_eq!(parse(history(500)), Ok(history(500)));
    assert_eq!(parse(history(0)), Ok(history(500)));
    let page = |count: u64| HistoryPage {
        events: (1..=count).map(event).collect(),
        head: Sequence(count),
        first_retained: Sequence(1),
    };
    let parse = |page: HistoryPage| HistoryPage::try_from(v1::HistoryResponse::from(page));
    assert_eq!(parse(page(501)), Err(ParseError::TooLarge { field: "events", limit: 500, found: 501 }));
    assert_eq!(parse(page(500)), Ok(page(500)));
    assert_eq!(parse(page(0)), Ok(page(0)));
}
