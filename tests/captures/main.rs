//! Complete sessions, byte for byte, for whoever brings another MLS library: recorded from the SDK's engine, its connection and the
//! gateway's rooms over a real store, checked in under `proto/captures`, and followed here by everybody: our own rules, mls-rs
//! and openmls.
//!
//! A capture that was released never changes. When the wire does, another one is added:
//!
//! ```text
//! LIANXIN_CAPTURE=session-2 cargo test -p lianxin-captures record       # writes proto/captures/session-2.json
//! LIANXIN_RELEASE=1 cargo test -p lianxin-captures released            # puts its digest into proto/captures/released.txt
//! ```
//!
//! What this does not show: the keys of a member's own path are in no capture, so nobody is followed beyond its own commit, and the
//! creator not at all; each message and each change is followed by somebody else. openmls holds lifetimes against the system's
//! clock: when the key packages of a capture are over, our rules (which stand on openmls) and openmls are not asked about the commits that add
//! somebody any more; mls-rs, the chain and the wire are, for good.

mod actor;
mod agree;
mod flips;
mod foreign;
mod format;
mod judge;
mod native;
mod released;
mod session;
mod shape;
mod tape;
mod wire;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use lianxin_proto::channels::v1::GetGroupInfoResponse;
use prost::Message as _;

use crate::format::Capture;

/// Everything that can be said of a capture.
fn check(capture: &Capture) -> Result<()> {
    agree::check_wire(capture).context("the wire")?;
    judge::check_log(capture).context("the log")?;
    let is_fresh = judge::check_rules(capture).context("our rules")?;
    ensure!(is_fresh == judge::is_fresh(capture)?, "our rules were not asked");
    let (mut trees, mut followed) = (BTreeMap::new(), BTreeSet::new());
    for follower in &capture.followers {
        let name = &follower.device;
        let seen = foreign::follow(capture, follower).with_context(|| format!("mls-rs as {name}"))?;
        let last = native::follow(capture, follower, is_fresh).with_context(|| format!("openmls as {name}"))?;
        ensure!(!is_fresh || last == follower.last, "openmls as {name} stops at {last}");
        let uri = capture.device(name)?.uri.as_str();
        followed.extend((follower.joins..=follower.last).filter(|number| capture.event(*number).sender != uri));
        trees.extend(seen);
    }
    for event in capture.events.iter().filter(|event| event.kind != "START") {
        ensure!(followed.contains(&event.sequence), "nobody follows event {}", event.sequence);
    }
    for item in capture.wire.iter().filter(|item| item.message == "lianxin.channels.v1.GetGroupInfoResponse") {
        let served = GetGroupInfoResponse::decode(&item.bytes.0[..])?;
        let tree = trees.get(&served.sequence).context("a tree that was followed")?;
        ensure!(served.ratchet_tree == tree[..], "the tree that is served is not that of mls-rs");
    }
    Ok(())
}

#[test]
fn everybody_follows_every_released_session() {
    let captures = released::captures();
    assert!(!captures.is_empty());
    for (name, capture) in captures {
        check(&capture).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
}

/// When the key packages of a capture are over, openmls is asked only up to the first commit that adds somebody.
#[test]
fn an_old_session_is_followed_by_openmls_as_far_as_nobody_is_added() {
    let (_, capture) = released::captures().pop().expect("there is one");
    for follower in &capture.followers {
        let adds = capture.events.iter().filter(|event| event.welcome.is_some()).map(|event| event.sequence);
        let next_add = adds.filter(|sequence| *sequence > follower.joins).min();
        let expected = next_add.map_or(follower.last, |add| follower.last.min(add - 1));
        let reached = native::follow(&capture, follower, false).expect("no lifetime is asked about");
        assert_eq!(reached, expected, "{}", follower.device);
    }
}

/// What is made today is like what was released, and everybody follows it, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_today_has_the_shape_of_the_last_released_one() {
    let today = session::record("today").await.expect("recorded");
    check(&today).expect("everybody follows");
    assert!(judge::is_fresh(&today).expect("readable"), "our rules were asked");
    let (name, released) = released::captures().pop().expect("there is one");
    let (was, is) = (shape::of(&released), shape::of(&today));
    let gone: Vec<_> = was.difference(&is).collect();
    let new: Vec<_> = is.difference(&was).collect();
    assert!(gone.is_empty() && new.is_empty(), "the wire is not that of {name}: gone {gone:#?}, new {new:#?}");
}

/// `LIANXIN_CAPTURE=session-2`.
#[tokio::test(flavor = "multi_thread")]
async fn record() {
    let Some(name) = std::env::var_os("LIANXIN_CAPTURE") else { return };
    let name = name.into_string().expect("a name");
    let capture = session::record(&name).await.expect("recorded");
    check(&capture).expect("everybody follows");
    released::write(&capture);
}
