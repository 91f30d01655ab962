//! Whoever follows notices a flipped byte in whatever piece of a capture: else following would prove nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::Result;
use serde_json::Value;

use crate::format::{Capture, FollowerPart};
use crate::{check, foreign, native, released};

fn last() -> Value {
    let (_, capture) = released::captures().pop().expect("there is one");
    serde_json::to_value(capture).expect("JSON")
}

/// Where there are bytes: JSON pointers (RFC 6901).
fn places(value: &Value, place: &str, found: &mut Vec<String>) {
    match value {
        Value::String(text) if text.len() >= 16 && hex::decode(text).is_ok() => found.push(place.to_owned()),
        Value::Array(all) => {
            all.iter().enumerate().for_each(|(at, one)| places(one, &format!("{place}/{at}"), found));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, one)| places(one, &format!("{place}/{name}"), found));
        }
        _ => {}
    }
}

/// The capture with one bit flipped `part` quarters into these bytes.
fn flipped(capture: &Value, place: &str, part: usize) -> Capture {
    let mut changed = capture.clone();
    let text = changed.pointer_mut(place).unwrap_or_else(|| panic!("there is no {place}"));
    let mut bytes = hex::decode(text.as_str().expect("a text")).expect("hexadecimal");
    let at = (bytes.len() - 1) * part / 4;
    bytes[at] ^= 0x10;
    *text = Value::from(hex::encode(bytes));
    serde_json::from_value(changed).expect("still a capture")
}

/// In the middle; in a refusal behind the words for people, which count for nothing.
fn part_that_counts(capture: &Value, place: &str) -> usize {
    let notes = place.strip_suffix("/bytes").and_then(|item| capture.pointer(&format!("{item}/notes")));
    if notes.is_some_and(|notes| notes.get("refusal").or(notes.get("closed")).is_some()) { 3 } else { 2 }
}

/// A judge that panics has noticed, too, but should not have: it is told apart.
fn noticed(what: &str, judge: impl FnOnce() -> Result<()>) -> bool {
    catch_unwind(AssertUnwindSafe(judge)).unwrap_or_else(|_| panic!("{what}: a panic")).is_err()
}

#[test]
fn a_flipped_byte_anywhere_in_a_capture_is_noticed() {
    let capture = last();
    let mut all = Vec::new();
    places(&capture, "", &mut all);
    assert!(all.len() > 250, "only {} pieces", all.len());
    // The federation mints three root keys and signs with two; what the third is nobody can see.
    all.retain(|place| place != "/federation/roots/keys/2/key");
    let passed: Vec<_> = all
        .iter()
        .filter(|place| !noticed(place, || check(&flipped(&capture, place, part_that_counts(&capture, place)))))
        .collect();
    assert!(passed.is_empty(), "nobody notices {passed:?}");
}

/// Each library by itself, without our rules and without the wire: what it follows it has verified.
#[test]
fn a_flipped_byte_of_what_it_follows_is_noticed_by_each_library_alone() {
    let value = last();
    let capture: Capture = serde_json::from_value(value.clone()).expect("a capture");
    let mut judged = 0;
    for follower in &capture.followers {
        let device = capture.devices.iter().position(|device| device.name == follower.device).expect("a device");
        let joins = follower.joins - 1;
        let mut places = vec![(follower.joins, format!("/events/{joins}/welcome"))];
        places.push((follower.joins, format!("/events/{joins}/ratchet_tree")));
        // The Welcome needs the one key, the first path of another member the other.
        for (last, key) in [(follower.joins, "init_key"), (follower.last, "leaf_key")] {
            places.push((last, format!("/devices/{device}/key_packages/0/{key}")));
        }
        for event in &capture.events[follower.joins as usize..follower.last as usize] {
            let is_own = event.sender == capture.devices[device].uri;
            let place = |name: &str| (event.sequence, format!("/events/{}/{name}", event.sequence - 1));
            places.extend((!is_own).then(|| place("mls")));
            places.extend((!is_own && event.plaintext.is_some()).then(|| place("plaintext/payload")));
            // Who is removed by it has no secrets of the epoch.
            let is_out = !event.members.contains(&follower.device);
            let secrets = ["secrets/epoch_authenticator", "secrets/exported"];
            places.extend(secrets.into_iter().filter(|_| !is_out).map(place));
        }
        for (last, place) in places {
            let parts: &[usize] = match place.rsplit('/').next() {
                // A key is one number: its middle, since X25519 ignores bits at its ends (RFC 7748 section 5).
                Some("init_key" | "leaf_key") => &[2],
                // In between stands what is encrypted to others.
                Some("welcome") => &[0, 3, 4],
                _ => &[0, 1, 2, 3, 4],
            };
            for part in parts.iter().copied() {
                let (flipped, what) = (flipped(&value, &place, part), format!("{place} as {}", follower.device));
                let until = FollowerPart { last, ..follower.clone() };
                assert!(noticed(&what, || foreign::follow(&flipped, &until).map(drop)), "mls-rs: {what}, {part}/4");
                let by_openmls = || native::follow(&flipped, &until, true).map(drop);
                assert!(noticed(&what, by_openmls), "openmls: {what}, {part}/4");
                judged += 1;
            }
        }
    }
    assert!(judged > 150, "only {judged}");
}
