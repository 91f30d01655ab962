//! What an application shows its people: the list of channels, what is unread, pages of the history.

use lianxin_sdk::{Message, Sequence};

use crate::talk::{create, join, own, receive, send, texts};
use crate::zone::Zone;

const NEWEST: Sequence = Sequence(u64::MAX);

fn sequences(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.sequence.0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_channels_counts_what_is_unread_over_restarts() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let first = create(&jiwei, &["jiwei", "shenji"]).await;
    let second = create(&jiwei, &["jiwei", "shenji"]).await;
    let first_there = join(&first, &shenji).await;
    let second_there = join(&second, &shenji).await;
    for text in ["一", "二", "三"] {
        send(&first, text).await;
    }
    let answer = send(&first_there, "收到一").await;
    let last = send(&first, "四").await;
    own(&first_there, 5).await;
    send(&second, "另一件事").await;
    own(&second_there, 1).await;

    // The channel with the latest message is first; what this device sent itself is not unread.
    let list = shenji.overview().await.expect("readable");
    assert_eq!(list.iter().map(|summary| summary.id).collect::<Vec<_>>(), [second.id(), first.id()]);
    assert_eq!(list.iter().map(|summary| summary.unread).collect::<Vec<_>>(), [1, 4]);
    let latest = list[1].latest.as_ref().expect("there are some");
    assert_eq!((latest.text(), latest.sequence.0), (Some("四"), last));
    assert_eq!((list[1].members, list[1].read_mark, list[1].is_broken), (2, Sequence(0), false));
    assert_eq!(list[1].label, first.info().await.expect("a member").label);

    // It reads two; the second counts as read when the stream is dropped.
    assert_eq!(texts(&receive(&first_there, 2).await), ["一", "二"]);
    assert_eq!(shenji.overview().await.expect("readable")[1].unread, 2);
    // It shows the rest otherwise, up to its own answer, and says so; another program later finds it so.
    assert_eq!(first_there.mark_read(Sequence(answer)).await.expect("stored"), Sequence(answer));
    shenji.close().await.expect("closes");
    let shenji = zone.client("shenji", "app-1").await;
    let there = shenji.channel(first.id());
    assert_eq!(there.read_mark().await.expect("readable"), Sequence(answer));
    assert_eq!(shenji.overview().await.expect("readable")[1].unread, 1);
    assert_eq!(texts(&receive(&there, 1).await), ["四"], "reading goes on behind the mark");

    // A mark never goes back, nor ahead of what this device has: what comes later is unread.
    assert_eq!(there.mark_read(Sequence(1)).await.expect("stored"), Sequence(last));
    assert_eq!(there.mark_read(NEWEST).await.expect("stored"), Sequence(last));
    send(&first, "五").await;
    own(&there, 6).await;
    let list = shenji.overview().await.expect("readable");
    assert_eq!((list[0].id, list[0].unread), (first.id(), 1));

    // Nor does it go back when a reader that is further behind ends later.
    let end = send(&first, "六").await;
    own(&there, 7).await;
    let mut reader = there.receive();
    assert_eq!(reader.next().await.expect("open").expect("readable").text(), Some("五"));
    assert_eq!(there.mark_read(NEWEST).await.expect("stored"), Sequence(end));
    drop(reader);
    assert_eq!(there.read_mark().await.expect("readable"), Sequence(end));
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    zone.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_is_paged_both_ways_and_a_receipt_finds_its_message() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let at_jiwei = create(&jiwei, &["jiwei", "shenji"]).await;
    let at_shenji = join(&at_jiwei, &shenji).await;
    let mut sent = Vec::new();
    for number in 0..7 {
        let speaker = if number % 2 == 0 { &at_jiwei } else { &at_shenji };
        sent.push(send(speaker, format!("第 {number} 条")).await);
    }
    own(&at_jiwei, sent.len()).await;

    let newest = at_jiwei.history_before(NEWEST, 3).await.expect("readable");
    assert_eq!(sequences(&newest), sent[4..]);
    let before = at_jiwei.history_before(newest[0].sequence, 3).await.expect("readable");
    assert_eq!(sequences(&before), sent[1..4]);
    let first = at_jiwei.history_before(before[0].sequence, 3).await.expect("readable");
    assert_eq!(sequences(&first), sent[..1]);
    assert_eq!(at_jiwei.history_before(first[0].sequence, 3).await.expect("readable"), []);
    let forward = at_jiwei.history(Sequence(sent[4]), 9).await.expect("readable");
    assert_eq!(sequences(&forward), sent[5..]);

    let found = at_jiwei.message(Sequence(sent[3])).await.expect("readable").expect("it is there");
    assert_eq!((found.text(), &found.sender), (Some("第 3 条"), shenji.device()));
    // The channel's start has a sequence and is no message; neither is what is not there yet.
    for nothing in [Sequence(0), Sequence(1), NEWEST] {
        assert_eq!(at_jiwei.message(nothing).await.expect("readable"), None);
    }
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    zone.close().await;
}
