//! What a device asks of its Receive stream: to follow from a place, and to take note of what it has.

use lianxin_connection::FrameStream;
use lianxin_proto::ReasonCode;
use lianxin_proto::messages::{Frame, Receive};
use lianxin_types::Sequence;

use crate::raw::fresh_id;
use crate::refusals::assert_recorded;
use crate::talk::soon;
use crate::zone::Zone;

/// The next frame that says something of a channel.
async fn next(frames: &mut FrameStream) -> Frame {
    loop {
        match soon("a frame", frames.next()).await.expect("open").expect("a frame") {
            Frame::Opened { .. } | Frame::Heartbeat { .. } | Frame::Inbox { .. } => {}
            frame => return frame,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_ahead_of_the_log_is_told_so_and_the_stream_goes_on() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.raws(["jiwei", "shenji"]).await;
    let channel = jiwei.channel(&["jiwei", "shenji"]).await;
    jiwei.add(channel, &shenji).await;
    let head = jiwei.view(channel).await.head.sequence;
    let (control, mut frames) = shenji.connection.receive_stream();
    for ahead in [head.next(), Sequence(u64::MAX - 1), Sequence(u64::MAX)] {
        control.request(Receive::Follow { channel, after: ahead }).await.expect("asked");
        let Frame::Closed { channel: Some(of), reason } = next(&mut frames).await else { panic!("followed {ahead:?}") };
        assert_eq!((of, reason.code, reason.try_again), (channel, ReasonCode::BadHead, false));
    }
    control.request(Receive::Follow { channel, after: head }).await.expect("asked");
    let Frame::CaughtUp { sequence, .. } = next(&mut frames).await else { panic!("not followed") };
    assert_eq!(sequence, head);
    drop((control, frames, jiwei, shenji));
    assert_recorded(zone, &[ReasonCode::BadHead]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_confirms_is_kept_when_its_stream_ends_and_what_it_invents_leaves_no_trace() {
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.raws(["jiwei", "shenji"]).await;
    let channel = jiwei.channel(&["jiwei", "shenji"]).await;
    let foreign = jiwei.channel(&["jiwei"]).await;
    jiwei.add(channel, &shenji).await;
    for number in 0..20 {
        let mls = jiwei.encrypt(channel, &format!("{number}")).await;
        jiwei.send(channel, &[(fresh_id(), mls)]).await.remove(0).expect("accepted");
    }
    let (control, mut frames) = shenji.connection.receive_stream();
    control.request(Receive::Follow { channel, after: Sequence(0) }).await.expect("asked");
    while !matches!(next(&mut frames).await, Frame::CaughtUp { .. }) {}
    for sequence in 1..=18 {
        let cursors = vec![(channel, Sequence(sequence)), (foreign, Sequence(1))];
        control.request(Receive::Confirm { cursors, inbox: vec![] }).await.expect("asked");
        let invented = Receive::Confirm { cursors: vec![], inbox: vec![1_000 + sequence, u64::MAX] };
        control.request(invented).await.expect("asked");
    }
    // Requests are taken in order: once this is answered, the ones before have been.
    control.request(Receive::Follow { channel: foreign, after: Sequence(0) }).await.expect("asked");
    assert!(matches!(next(&mut frames).await, Frame::Closed { .. }));
    let device = shenji.uri.clone();
    drop((control, frames, jiwei, shenji));
    let closed = zone.close().await;
    let bodies = closed.shared_bodies();
    // Its own invitation at most: that word came on a stream that was closed behind it.
    assert!(bodies.iter().filter(|body| body["event"] == "inbox-confirmed").count() <= 1);
    assert_eq!(closed.store().cursor(&device, &channel).expect("readable"), Sequence(18));
    assert_eq!(closed.store().cursor(&device, &foreign).expect("readable"), Sequence(0));
}
