//! From an event to the draft of its record.

use std::collections::BTreeMap;
use std::sync::Arc;

use lianxin_store::AuditDraft;
use lianxin_tlog::{Audience, BodyError, PartDraft, RetentionClass};
use lianxin_types::{ChannelId, DepartmentId, DeviceUri, Random, Timestamp, ZoneId};
use serde_json::{Map, Value, json};

use crate::event::AuditEvent;
use crate::pseudonym::Pseudonyms;

/// Makes records. A department gets a part when one of its devices acts or is acted upon; what all departments of a channel
/// may know stands in the shared part.
pub struct Recorder {
    zone: ZoneId,
    pseudonyms: Pseudonyms,
    random: Arc<dyn Random>,
}

impl Recorder {
    /// A recorder for one zone.
    pub fn new(zone: ZoneId, pseudonyms: Pseudonyms, random: Arc<dyn Random>) -> Self {
        Self { zone, pseudonyms, random }
    }

    /// The draft for an event. `caller` acted; `channel` is named in the shared header; `slot` is given for commits and
    /// starts and random otherwise; `policy_version` is the permit's.
    ///
    /// # Errors
    /// [`BodyError`] if a body cannot be written canonically; the call must then be refused, since it cannot be audited.
    pub fn record(
        &self,
        event: &AuditEvent,
        caller: Option<&DeviceUri>,
        channel: Option<ChannelId>,
        slot: Option<[u8; 16]>,
        policy_version: u64,
        now: Timestamp,
    ) -> Result<AuditDraft, BodyError> {
        let departments = self.department_bodies(event, caller, now);
        let mut shared = as_object(event.shared_fields());
        shared.insert("event".into(), json!(event.name()));
        shared.insert("zone".into(), json!(self.zone.as_str()));
        shared.insert("policy_version".into(), json!(policy_version));
        if let Some(caller) = caller {
            shared.insert("caller_department".into(), json!(caller.department().as_str()));
        }
        let concerned: Vec<_> = departments.keys().map(DepartmentId::as_str).collect();
        shared.insert("departments".into(), json!(concerned));

        let mut parts = vec![self.part(Audience::Shared, &Value::Object(shared))?];
        for (department, body) in departments {
            parts.push(self.part(Audience::Department(department), &Value::Object(body))?);
        }
        Ok(AuditDraft {
            family: event.family(),
            retention_class: RetentionClass::AUDIT,
            slot: slot.unwrap_or_else(|| self.random.array()),
            channel,
            parts,
        })
    }

    fn part(&self, audience: Audience, body: &Value) -> Result<PartDraft, BodyError> {
        PartDraft::new(audience, self.random.array(), body)
    }

    fn department_bodies(
        &self,
        event: &AuditEvent,
        caller: Option<&DeviceUri>,
        now: Timestamp,
    ) -> BTreeMap<DepartmentId, Map<String, Value>> {
        let mut bodies: BTreeMap<DepartmentId, Map<String, Value>> = BTreeMap::new();
        if let Some(caller) = caller {
            let body = bodies.entry(caller.department().clone()).or_default();
            body.insert("actor".into(), json!(self.pseudonyms.of(caller, now)));
            body.insert("actor_kind".into(), json!(caller.kind().as_str()));
        }
        let mut lists: BTreeMap<(DepartmentId, &'static str), Vec<String>> = BTreeMap::new();
        for (word, device) in event.subjects() {
            let list = lists.entry((device.department().clone(), word)).or_default();
            list.push(self.pseudonyms.of(device, now));
        }
        for ((department, word), mut list) in lists {
            list.sort_unstable();
            bodies.entry(department).or_default().insert(word.into(), json!(list));
        }
        for body in bodies.values_mut() {
            body.insert("event".into(), json!(event.name()));
        }
        bodies
    }
}

fn as_object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests;
