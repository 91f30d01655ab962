//! What a device remembers of its own messages in one epoch, and how many it makes of which nobody has heard.

use lianxin_mls::{Encrypted, LogEvent, MlsError, Processed, Renewal, Violation};
use lianxin_tlog::EventKind;

use crate::device::{Device, random_id};
use crate::gateway::{Gateway, body_from};
use crate::rules::two;

/// So many messages at once, in one transaction.
fn encrypt_many(device: &Device, gateway: &Gateway, count: usize) -> Vec<Encrypted> {
    let channel = gateway.channel;
    let made = device.run(move |mls, tx, federation| {
        (0..count).map(|_| mls.encrypt(tx, federation, channel, random_id(), b"x")).collect()
    });
    made.expect("encrypted")
}

/// Everything behind the head, in one transaction.
fn feed_at_once(device: &Device, gateway: &Gateway) -> Vec<Processed> {
    let channel = gateway.channel;
    let head = device.run(move |mls, tx, _| mls.head(tx, channel)).expect("readable").expect("known").sequence;
    let behind: Vec<LogEvent> = gateway.log.iter().filter(|event| event.sequence > head).cloned().collect();
    let fed = device.run(move |mls, tx, federation| {
        behind.iter().map(|event| mls.process(tx, federation, event)).collect::<Result<Vec<_>, _>>()
    });
    fed.expect("processed")
}

fn remembered(device: &Device) -> (usize, usize) {
    let count = |kind| move |_: &_, tx: &lianxin_keystore::Transaction<'_>, _: &_| Ok(tx.list(kind)?.len());
    let rows = device.run(count("mls-sent")).expect("readable");
    (rows, device.run(count("mls-sent-mark")).expect("readable"))
}

#[test]
fn ten_thousand_own_messages_of_an_epoch_are_remembered_and_an_older_one_comes_no_second_time() {
    let (jiwei, _, mut gateway) = two();
    let first = gateway.say(&jiwei, b"first");
    feed_at_once(&jiwei, &gateway);
    for _ in 0..13 {
        for sent in encrypt_many(&jiwei, &gateway, 800) {
            gateway.append(EventKind::Application, &jiwei.uri, sent.mls);
        }
        assert!(feed_at_once(&jiwei, &gateway).iter().all(|one| *one == Processed::OwnMessage));
    }
    assert_eq!(remembered(&jiwei), (10_000, 1));
    let copy = jiwei.copy();
    gateway.append(EventKind::Application, &jiwei.uri, first.mls);
    let last = gateway.log[gateway.log.len() - 2].mls.clone();
    gateway.append(EventKind::Application, &jiwei.uri, last);
    let again = const { Processed::Hidden(Violation::NotSent) };
    assert_eq!(gateway.feed(&jiwei), [again.clone(), again], "neither is a sign of an older state");

    // What is one is told as such all the same.
    gateway.say(&jiwei, b"since");
    gateway.feed(&jiwei);
    jiwei.restore(&copy);
    assert_eq!(gateway.feed(&jiwei)[2], Processed::NotRemembered { is_first: true });
}

#[test]
fn who_has_sent_much_of_which_nothing_came_makes_new_keys_before_others_cannot_open_the_next() {
    let (jiwei, shenji, mut gateway) = two();
    let channel = gateway.channel;
    let renewal = |device: &Device| device.run(move |mls, tx, federation| mls.renewal(tx, federation, channel));
    // Refused, one after the other; one that is logged is a new beginning.
    encrypt_many(&jiwei, &gateway, 899);
    gateway.say(&jiwei, b"opens");
    gateway.feed(&jiwei);
    assert_eq!(body_from(&gateway.feed(&shenji)[0], &jiwei).as_deref(), Some(&b"opens"[..]));
    encrypt_many(&jiwei, &gateway, 899);
    let is_due = |device: &Device| device.run(move |mls, tx, _| mls.is_leaf_due(tx, channel)).expect("readable");
    assert_eq!((renewal(&jiwei).expect("readable"), is_due(&jiwei)), (Renewal::Nothing, false));
    encrypt_many(&jiwei, &gateway, 1);
    assert!(is_due(&jiwei), "also for who looks only whether it is");
    assert!(matches!(jiwei.encrypt(channel, b"x"), Err(MlsError::TooFarAhead)));
    assert_eq!(renewal(&jiwei).expect("readable"), Renewal::Keys);

    let update = jiwei.run(move |mls, tx, federation| mls.commit_pending(tx, federation, channel));
    gateway.commit(&jiwei, &update.expect("something to renew")).expect("acceptable");
    gateway.feed(&jiwei);
    gateway.feed(&shenji);
    assert_eq!(remembered(&jiwei), (0, 0));
    gateway.say(&jiwei, b"heard");
    assert_eq!(body_from(&gateway.feed(&shenji)[0], &jiwei).as_deref(), Some(&b"heard"[..]));
}
