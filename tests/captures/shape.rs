//! What two sessions have in common whatever their keys are: which messages go over the wire with which fields, and what happens.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::format::{Capture, EventPart};

pub(crate) fn of(capture: &Capture) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for item in &capture.wire {
        let call = format!("{} {:?} {}", item.call, item.direction, item.message);
        lines.insert(call.clone());
        fields(&mut lines, &call, &item.notes);
    }
    for event in &capture.events {
        let named = event.names_head.as_ref().map(|head| head.sequence);
        let (sequence, kind, what, epoch) = (event.sequence, &event.kind, &event.what, event.epoch);
        let members = event.members.join(" ");
        lines.insert(format!("event {sequence}: {kind}, {what}, epoch {epoch}, names {named:?}, leaves {members}"));
        lines.insert(format!("event {sequence} has {} bytes", size(event)));
    }
    for follower in &capture.followers {
        lines.insert(format!("{} is followed from {} to {}", follower.device, follower.joins, follower.last));
    }
    lines
}

/// Of a message exactly; in handshakes certificates differ by a few bytes.
fn size(event: &EventPart) -> usize {
    let bytes = event.mls.0.len();
    if event.plaintext.is_some() { bytes } else { bytes.next_multiple_of(500) }
}

fn fields(lines: &mut BTreeSet<String>, place: &str, notes: &Value) {
    match notes {
        Value::Object(inner) => {
            for (name, value) in inner {
                let place = format!("{place}.{name}");
                fields(lines, &place, value);
                lines.insert(place);
            }
        }
        Value::Array(all) => all.iter().for_each(|one| fields(lines, place, one)),
        _ => {}
    }
}
