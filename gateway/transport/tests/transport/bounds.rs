//! What an unknown or greedy caller can cost.

use std::sync::Arc;
use std::time::Duration;

use lianxin_transport::{Bounds, RefusalReason};
use lianxin_types::{LIMITS, Monotonic, SystemClock};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::caller::{End, end_of};
use crate::hand_clock::HandClock;
use crate::stage::Stage;

#[tokio::test]
async fn a_device_has_four_connections_and_not_five() {
    let mut stage = Stage::new().await;
    let device = stage.app("jiwei", "app-1");
    let mut open = Vec::new();
    for _ in 0..LIMITS.device_connections_max {
        let tls = device.connect(stage.address).await.expect("within its bound");
        open.push((tls, stage.accepted().await));
    }
    assert_eq!(device.end(stage.address).await, End::Closed);
    assert_eq!(stage.refusal().await, RefusalReason::DeviceConnectionsFull);

    let _other = stage.app("jiwei", "app-2").connect(stage.address).await.expect("another device has its own");
    let _accepted = stage.accepted().await;

    drop(open.pop());
    let _again = device.connect(stage.address).await.expect("a place came free");
    let _accepted = stage.accepted().await;
}

#[tokio::test]
async fn the_gateway_has_so_many_connections_and_not_one_more() {
    let bounds = Bounds { connections_max: 1, ..Bounds::default() };
    let mut stage = Stage::with(bounds, Arc::new(SystemClock)).await;
    let tls = stage.app("jiwei", "app-1").connect(stage.address).await.expect("the only place");
    let accepted = stage.accepted().await;
    assert_eq!(stage.app("shenji", "app-1").end(stage.address).await, End::Closed);
    assert_eq!(stage.refusal().await, RefusalReason::ConnectionsFull);

    drop(accepted);
    assert_eq!(end_of(tls).await, End::Closed);
    let _next = stage.app("shenji", "app-1").connect(stage.address).await.expect("the place came free");
    let _accepted = stage.accepted().await;
}

#[tokio::test]
async fn a_silent_caller_costs_one_slot_for_a_bounded_time() {
    let clock = Arc::new(HandClock::new());
    let bounds = Bounds { handshakes_max: 1, handshake_duration_max: Duration::from_secs(10), ..Bounds::default() };
    let mut stage = Stage::with(bounds, Arc::clone(&clock) as _).await;
    let mut silent = TcpStream::connect(stage.address).await.expect("it listens");
    // One more sleeps: who makes the rounds.
    clock.sleepers(2).await;
    let (caller, address) = (stage.app("jiwei", "app-1"), stage.address);
    let waiting = tokio::spawn(async move { caller.connect(address).await });

    clock.advance_to(Monotonic(9_999_999));
    assert_eq!(clock.sleepers_max().await, 2, "the only slot is taken; nobody else has begun");
    clock.advance_to(Monotonic(10_000_000));

    assert_eq!(stage.refusal().await, RefusalReason::Timeout);
    assert_eq!(silent.read(&mut [0]).await.expect("closed in order"), 0);
    let _tls = waiting.await.expect("no panic").expect("the next one gets the slot");
    let _accepted = stage.accepted().await;
}
