//! Talking.

use lianxin_mls::{MlsError, Processed, Violation};
use lianxin_profile::PayloadError;
use lianxin_tlog::EventKind;
use lianxin_types::{ChannelId, Sequence};

use crate::device::{Device, random_id};
use crate::gateway::{Gateway, body_from};

fn two() -> (Device, Device, Gateway) {
    let (jiwei, shenji) = (Device::app("jiwei", "app-1"), Device::app("shenji", "app-1"));
    let mut gateway = Gateway::start(&jiwei, &["jiwei", "shenji"]);
    gateway.seat(&jiwei, &[&jiwei], &[&shenji]);
    (jiwei, shenji, gateway)
}

#[test]
fn a_stranger_cannot_encrypt_and_a_long_body_is_refused() {
    let (jiwei, _, gateway) = two();
    assert!(matches!(jiwei.encrypt(ChannelId([1; 16]), b"x"), Err(MlsError::NotMember)));
    let refused = jiwei.encrypt(gateway.channel, &vec![1; 65_537]);
    let too_large = PayloadError::TooLarge { bytes: 65_537, bytes_max: 65_536 };
    assert!(matches!(refused, Err(MlsError::Payload(found)) if found == too_large));
}

#[test]
fn two_departments_talk_both_ways() {
    let (jiwei, shenji, mut gateway) = two();
    let bodies = [vec![], vec![7], vec![0xA5; 65_536], "审计底稿已收到".into(), "👍🏽📎".into()];
    for body in &bodies {
        for (from, to) in [(&jiwei, &shenji), (&shenji, &jiwei)] {
            gateway.say(from, body);
            assert_eq!(gateway.feed(from), [Processed::OwnMessage]);
            let [heard] = &gateway.feed(to)[..] else { panic!("one event") };
            assert_eq!(body_from(heard, from).as_ref(), Some(body));
        }
    }
}

#[test]
fn several_messages_may_be_on_their_way_and_some_may_get_lost() {
    let (jiwei, shenji, mut gateway) = two();
    for number in 0..30u8 {
        let sent = jiwei.encrypt(gateway.channel, &[number]).expect("encrypted");
        if number % 10 == 9 {
            gateway.append(EventKind::Application, &jiwei.uri, sent.mls);
        }
    }
    let heard: Vec<_> = gateway.feed(&shenji).iter().filter_map(|one| body_from(one, &jiwei)).collect();
    assert_eq!(heard, [[9], [19], [29]]);

    let on_their_way = |device: &Device| device.run(|_, tx, _| Ok(tx.list("mls-sent")?.len())).expect("readable");
    gateway.feed(&jiwei);
    assert_eq!(on_their_way(&jiwei), 30, "those that came are remembered too, or they could come again");
    gateway.seat(&jiwei, &[&jiwei, &shenji], &[&Device::app("jiwei", "app-2")]);
    assert_eq!(on_their_way(&jiwei), 0, "in another epoch nothing of this one counts");
}

#[test]
fn a_repeated_intent_is_dropped_and_a_strangers_equal_intent_is_not() {
    let (jiwei, shenji, mut gateway) = two();
    let weijian = Device::app("jiwei", "app-2");
    gateway.seat(&jiwei, &[&jiwei, &shenji], &[&weijian]);
    let intent = random_id();
    for sender in [&weijian, &jiwei, &jiwei] {
        let sent = sender.encrypt_as(gateway.channel, intent, b"once").expect("encrypted");
        gateway.append(EventKind::Application, &sender.uri, sent.mls);
    }
    let heard = gateway.feed(&shenji);
    assert!(body_from(&heard[0], &weijian).is_some() && body_from(&heard[1], &jiwei).is_some(), "{heard:?}");
    assert_eq!(heard[2], Processed::RepeatedMessage);
}

#[test]
fn events_come_once_and_in_order() {
    let (jiwei, shenji, mut gateway) = two();
    gateway.say(&jiwei, b"first");
    gateway.say(&jiwei, b"second");
    let (first, second) = (gateway.log[2].clone(), gateway.log[3].clone());
    let gap = shenji.process(&second);
    assert!(matches!(gap, Err(MlsError::Gap { expected: Sequence(3), found: Sequence(4) })), "{gap:?}");
    assert!(body_from(&shenji.process(&first).expect("processed"), &jiwei).is_some());
    assert_eq!(shenji.process(&first).expect("processed"), Processed::AlreadyProcessed);
    assert!(body_from(&shenji.process(&second).expect("processed"), &jiwei).is_some());
    assert_eq!(shenji.view(gateway.channel).expect("a member").head, gateway.heads[4]);
}

#[test]
fn the_same_bytes_twice_do_not_open_twice() {
    let (jiwei, shenji, mut gateway) = two();
    let event = gateway.say(&jiwei, b"once");
    gateway.append(EventKind::Application, &jiwei.uri, event.mls);
    let heard = gateway.feed(&shenji);
    assert_eq!(heard[1], Processed::Hidden(Violation::Undecryptable));
    assert_eq!(gateway.feed(&jiwei), [Processed::OwnMessage, Processed::Hidden(Violation::NotSent)]);
}
