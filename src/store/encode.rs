//! Batches to records, and the conditions they rely on. Pure.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::lanes::{DAY, LONG_MEMORY, SHORT_MEMORY, SIGHTING_DAY_S};
use super::record::{self, Kind};
use super::space::Operation;
use super::writer::{Condition, Expectation};
use super::{Batch, Was};
use crate::model::event::StoredEvent;
use crate::model::execution::State;
use crate::model::hash::fingerprint;
use crate::model::ids::EventId;
use crate::model::message::Delivery;
use crate::model::window::{WindowChange, WindowKey, WindowPart};

/// For so long around midnight a sighting may stand in the range of the other day.
const MIDNIGHT: Duration = Duration::from_secs(60);

fn sighting_key(memory: u8, day: u32, key: &str) -> Vec<u8> {
    let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    let mut rest = vec![memory];
    rest.extend_from_slice(&day.to_be_bytes());
    rest.extend_from_slice(&digest.as_ref()[..16]);
    record::key(Kind::Sighting, &rest)
}

/// Where a sighting since a time may lie, the newest place first.
pub(super) fn sighting_keys(key: &str, since: DateTime<Utc>, now: DateTime<Utc>) -> impl Iterator<Item = Vec<u8>> {
    days(since, now).flat_map(move |day| [SHORT_MEMORY, LONG_MEMORY].map(|memory| sighting_key(memory, day, key)))
}

fn day_of(at: DateTime<Utc>) -> u32 {
    u32::try_from(at.timestamp().div_euclid(SIGHTING_DAY_S)).unwrap_or(0)
}

pub(super) fn before(at: DateTime<Utc>, span: Duration) -> DateTime<Utc> {
    chrono::Duration::from_std(span).ok().and_then(|span| at.checked_sub_signed(span)).unwrap_or(DateTime::UNIX_EPOCH)
}

/// The ranges that may hold a sighting since a time, the newest first. Shortly before midnight tomorrow's is one of them: the clock may
/// have gone back over midnight.
fn days(since: DateTime<Utc>, now: DateTime<Utc>) -> impl Iterator<Item = u32> {
    let soon = chrono::Duration::from_std(MIDNIGHT).ok().and_then(|span| now.checked_add_signed(span)).unwrap_or(now);
    (day_of(since)..=day_of(soon)).rev()
}

pub(super) fn key_name(scope: &str, name: &str) -> Vec<u8> {
    format!("{scope}\0{name}").into_bytes()
}

/// Keys that expire lie in the order of their times.
fn due_key(at: DateTime<Utc>, name: &[u8]) -> Vec<u8> {
    record::key(Kind::Due, &[&due_time(at)[..], name].concat())
}

pub(super) fn due_time(at: DateTime<Utc>) -> [u8; 8] {
    u64::try_from(at.timestamp_millis()).unwrap_or(0).to_be_bytes()
}

/// When which key expires, as its record says.
pub(super) fn of_due_key(key: &[u8]) -> Option<(DateTime<Utc>, String, String)> {
    let (time, name) = key.get(1..)?.split_first_chunk::<8>()?;
    let at = DateTime::from_timestamp_millis(i64::try_from(u64::from_be_bytes(*time)).ok()?)?;
    let (scope, name) = std::str::from_utf8(name).ok()?.split_once('\0')?;
    Some((at, scope.into(), name.into()))
}

/// Windows of one rule lie together.
pub(super) fn window_key(of: &WindowKey) -> [u8; 24] {
    let part = [u8::from(of.part == WindowPart::Throttle)];
    let own = ring::digest::digest(&ring::digest::SHA256, &[&part[..], &of.definition.to_be_bytes(), of.key.as_bytes()].concat());
    let mut key = [0; 24];
    key[..8].copy_from_slice(&fingerprint(of.rule.as_bytes()).to_be_bytes());
    key[8..].copy_from_slice(&own.as_ref()[..16]);
    key
}

pub(super) fn encode(batch: &Batch) -> (Vec<Operation>, Vec<Expectation>) {
    let (mut operations, mut expectations) = (Vec::new(), Vec::new());
    let mut put = |kind, rest: &[u8], version, value: Vec<u8>| {
        operations.push(Operation::Put(record::key(kind, rest), record_bytes(kind, version, &value)));
    };
    pack_events(&batch.events, &mut put);
    for execution in &batch.requested {
        let id = execution.id.to_bytes();
        put(Kind::Request, &id, 0, json(&execution.request));
        put_state(&id, &execution.state, &mut put);
        expectations.push(Expectation::absent(record::key(Kind::Request, &id), format!("execution {}", execution.id)));
    }
    for (revision, definition) in &batch.definitions {
        put(Kind::Definition, revision.0.as_bytes(), 0, json(definition));
    }
    if let Some(ruleset) = &batch.ruleset {
        put(Kind::Ruleset, &ruleset.number.to_be_bytes(), 0, json(ruleset));
        let key = record::key(Kind::Ruleset, &ruleset.number.to_be_bytes());
        expectations.push(Expectation::absent(key, format!("rule set {}", ruleset.number)));
    }
    for (name, value) in &batch.settings {
        put(Kind::Setting, name.as_bytes(), 0, json(value));
    }
    for message in &batch.messages {
        let id = message.id.to_bytes();
        put(Kind::Message, &id, 0, json(message));
        put(Kind::Waiting, &id, 0, b"null".to_vec());
        expectations.push(Expectation::absent(record::key(Kind::Message, &id), format!("message {}", message.id)));
    }
    for message in &batch.deliveries {
        put(Kind::Message, &message.id.to_bytes(), 0, json(message));
    }
    for pending in &batch.pending {
        put(Kind::Pending, &pending.id.to_bytes(), 0, json(pending));
    }
    let mut changed = HashSet::new();
    for (id, state) in &batch.states {
        put_state(&id.to_bytes(), state, &mut put);
        if !changed.insert(id) {
            continue; // it changes twice in this commit: only the first change meets what is stored
        }
        let begins = record::envelope(Kind::Open, state.version.wrapping_sub(1)).to_vec();
        let condition = Condition::Begins(record::key(Kind::Open, &id.to_bytes()), begins);
        expectations.push(Expectation { condition, what: format!("execution {id}") });
    }
    for sighting in &batch.sightings {
        let memory = if sighting.memory > DAY { LONG_MEMORY } else { SHORT_MEMORY };
        let key = sighting_key(memory, day_of(sighting.seen_at), &sighting.key);
        if sighting.first {
            let since = before(sighting.seen_at, sighting.memory);
            // Who asks has looked at earlier days already, and nobody writes there any more, but for a moment after midnight.
            let moment_ago = before(sighting.seen_at, MIDNIGHT).max(since);
            let keys = sighting_keys(&sighting.key, moment_ago, sighting.seen_at).collect();
            expectations.push(Expectation { condition: Condition::Unseen(keys, since), what: format!("dedup key {}", sighting.key) });
        }
        operations.push(Operation::Put(key, record::encode(Kind::Sighting, 0, sighting)));
    }
    for change in &batch.keys {
        let name = key_name(&change.scope, &change.name);
        let key = record::key(Kind::Key, &name);
        let condition = match change.was {
            Was::Anything => None,
            Was::Absent => Some(Condition::Absent(key.clone())),
            Was::Version(version) => {
                Some(Condition::Begins(key.clone(), record::envelope(Kind::Key, record::key_number(version)).to_vec()))
            }
        };
        expectations.extend(condition.map(|condition| Expectation { condition, what: format!("key {}", change.name) }));
        operations.extend(change.was_due.map(|at| Operation::Delete(due_key(at, &name))));
        let due = change.entry.as_ref().and_then(|entry| entry.expires_at);
        operations.extend(due.map(|at| Operation::Put(due_key(at, &name), record::encode(Kind::Due, 0, &()))));
        operations.push(match &change.entry {
            Some(entry) => Operation::Put(key, record::encode_entry(entry)),
            None => Operation::Delete(key),
        });
    }
    for WindowChange { of, state } in &batch.windows {
        let key = record::key(Kind::Window, &window_key(of));
        operations.push(match state {
            Some(state) => Operation::Put(key, record::encode(Kind::Window, 0, &(of, state))),
            None => Operation::Delete(key),
        });
    }
    for id in &batch.taken {
        let key = record::key(Kind::Pending, &id.to_bytes());
        expectations.push(Expectation { condition: Condition::Begins(key.clone(), Vec::new()), what: format!("event {id} of our own") });
        operations.push(Operation::Delete(key));
    }
    for (id, _) in batch.states.iter().filter(|(_, state)| state.status.is_final()) {
        operations.push(Operation::Delete(record::key(Kind::Open, &id.to_bytes())));
    }
    for message in batch.deliveries.iter().filter(|message| message.delivery != Delivery::Waiting) {
        operations.push(Operation::Delete(record::key(Kind::Waiting, &message.id.to_bytes())));
    }
    (operations, expectations)
}

/// Where a state is kept: what is open lies apart, so that it is found at a start without reading all.
fn state_kind(state: &State) -> Kind {
    if state.status.is_final() { Kind::State } else { Kind::Open }
}

/// The state of an execution; what it logged lies apart, since it is not kept for as long.
fn put_state(id: &[u8; 16], state: &State, put: &mut impl FnMut(Kind, &[u8], u32, Vec<u8>)) {
    // A later attempt that logged nothing must not show what an earlier one did.
    if !state.log.is_empty() || state.attempt > 1 {
        put(Kind::Output, id, 0, json(&state.log));
        let state = State { log: Vec::new(), ..state.clone() };
        return put(state_kind(&state), id, state.version, json(&state));
    }
    put(state_kind(state), id, state.version, json(state));
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("model types serialize to JSON")
}

fn record_bytes(kind: Kind, version: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(record::ENVELOPE_BYTES + body.len());
    bytes.extend_from_slice(&record::envelope(kind, version));
    bytes.extend_from_slice(body);
    bytes
}

/// Writes neighbouring events into shared records: an array of a hundred costs a tenth of the operations.
fn pack_events(events: &[Arc<StoredEvent>], put: &mut impl FnMut(Kind, &[u8], u32, Vec<u8>)) {
    let (mut first, mut count, mut body) = (None, 0, Vec::new());
    for event in events {
        let encoded = json(event.as_ref());
        if let Some(id) = first.filter(|_| body.len() + encoded.len() > record::PACKED_BYTES) {
            body.push(b']');
            put(Kind::Events, &EventId::to_bytes(id), count, std::mem::take(&mut body));
            (first, count) = (None, 0);
        }
        body.push(if first.is_none() { b'[' } else { b',' });
        first.get_or_insert(event.event.id);
        count += 1;
        body.extend_from_slice(&encoded);
    }
    if let Some(id) = first {
        body.push(b']');
        put(Kind::Events, &id.to_bytes(), count, body);
    }
}
