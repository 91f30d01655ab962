//! What an unknown or greedy caller can cost.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lianxin_transport::{Bounds, RefusalReason};
use lianxin_types::{LIMITS, Monotonic, Rate, SystemClock};
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

#[tokio::test]
async fn while_there_is_too_much_to_do_nobody_new_comes_in_and_who_is_inside_stays() {
    let mut stage = Stage::new().await;
    let _inside = stage.app("jiwei", "app-1").connect(stage.address).await.expect("let in");
    let accepted = stage.accepted().await;
    stage.has_strength.store(false, Ordering::Relaxed);
    assert_eq!(stage.app("shenji", "app-1").end(stage.address).await, End::Closed);
    assert_eq!(stage.refusal().await, RefusalReason::Overloaded);
    stage.has_strength.store(true, Ordering::Relaxed);
    let _next = stage.app("shenji", "app-1").connect(stage.address).await.expect("there is strength again");
    let _accepted = stage.accepted().await;
    assert!(!accepted.peer().line.closing().is_cancelled());
}

#[tokio::test]
async fn a_source_knocks_so_often_and_then_is_not_even_listened_to() {
    let source_connections = Rate { burst: 2, per_second: 1 };
    let clock = Arc::new(HandClock::new());
    let bounds = Bounds { source_connections, ..Bounds::default() };
    let mut stage = Stage::with(bounds, Arc::clone(&clock) as _).await;
    let device = stage.app("jiwei", "app-1");
    let mut inside = Vec::new();
    for _ in 0..2 {
        inside.push((device.connect(stage.address).await.expect("within the burst"), stage.accepted().await));
    }
    let mut unheard = TcpStream::connect(stage.address).await.expect("the system answers");
    assert_eq!(stage.refusal().await, RefusalReason::SourceFlood);
    assert_eq!(unheard.read(&mut [0]).await.unwrap_or(0), 0, "not a byte of an answer");
    clock.advance_to(Monotonic(1_000_000));
    inside.push((device.connect(stage.address).await.expect("a second later"), stage.accepted().await));
}
