//! May this execution start now? One file a gate, in the order of [`Limit`]'s names; all gates of an action must be open.
//!
//! Pure: it is told what starts and ends, and says who may go on. A *door* is one policy and one key; who may not go through waits there,
//! in the order of being asked for. A place that becomes free is kept for the first who waits.

mod circuit_breaker;
mod concurrency;
mod rate;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::model::execution::Request;
use crate::model::ids::ExecutionId;
use crate::model::policy::{Limit, MAX_KEY_BYTES, MAX_KEYS, OnReached, Policy};
use crate::model::reason::Reason;
use crate::template::text::plain;
use crate::template::value::{Scope, ValueTemplate};

/// How a policy limits one key.
trait Gate: Send + Sync {
    /// How many may start now, and when there may be more although none ends.
    fn free(&mut self, now: i64) -> Free;

    /// Why none may.
    fn why(&mut self, now: i64) -> (Reason, String);

    /// One starts; whether that must be stored.
    fn started(&mut self, id: ExecutionId, now: i64) -> bool;

    /// One runs already, although this gate did not see it start.
    fn runs(&mut self, _: ExecutionId) {}

    /// One has ended, and failed or not; whether that must be stored.
    fn ended(&mut self, id: ExecutionId, failed: bool, now: i64) -> bool;

    /// Whether it remembers nothing that means anything.
    fn is_empty(&mut self, now: i64) -> bool;

    /// When that will be so although nothing happens.
    fn over(&self) -> Option<i64> {
        None
    }

    /// What must outlive the process.
    fn stored(&self) -> Option<Value> {
        None
    }

    /// Takes in what was stored.
    fn restore(&mut self, _: &Value) {}
}

/// Places at a gate.
struct Free {
    places: usize,
    next: Option<i64>,
}

fn gate(limit: &Limit) -> Box<dyn Gate> {
    let milliseconds = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX / 2);
    match *limit {
        Limit::Concurrency { threshold } => Box::new(concurrency::Concurrency { threshold: threshold as usize, running: HashSet::new() }),
        Limit::Rate { limit, per } => Box::new(rate::Rate { limit: limit as usize, per_ms: milliseconds(per), starts: VecDeque::new() }),
        Limit::CircuitBreaker { failures, within, open_for } => Box::new(circuit_breaker::CircuitBreaker {
            failures: failures as usize,
            within_ms: milliseconds(within),
            open_ms: milliseconds(open_for),
            failed: VecDeque::new(),
            open_until: None,
            tried: HashSet::new(),
        }),
    }
}

/// The order in which gates are asked: what is broken, what is full, what is too fast.
fn rank(limit: &Limit) -> u8 {
    match limit {
        Limit::CircuitBreaker { .. } => 0,
        Limit::Concurrency { .. } => 1,
        Limit::Rate { .. } => 2,
    }
}

/// A policy that can be applied.
pub struct CompiledPolicy {
    /// As its author wrote it.
    pub policy: Policy,
    by: Option<ValueTemplate>,
    /// What the names of its stored memories begin with.
    stored_as: String,
}

/// What the names of stored memories begin with.
pub const STORED: &str = "policy/";

impl CompiledPolicy {
    /// Prepares a policy.
    ///
    /// # Errors
    /// When `by` is no template over `parameters`.
    pub fn new(policy: Policy) -> Result<Self, String> {
        let by = policy.by.as_ref().map(|by| ValueTemplate::compile_pattern(&Value::from(by.as_str()), &["parameters"])).transpose()?;
        let stored_as = format!("{STORED}{}/{}/", policy.reference, policy.definition().0);
        Ok(Self { policy, by, stored_as })
    }

    fn key(&self, parameters: &Map<String, Value>) -> Result<String, String> {
        let Some(by) = &self.by else { return Ok(String::new()) };
        let scope = Scope::new(vec![("parameters", Value::Object(parameters.clone()))]);
        let key = match by.render(&scope)? {
            Value::Null => return Err("`by` gave nothing".into()),
            Value::Array(_) | Value::Object(_) => return Err("`by` gave a list or an object, and a key is text".into()),
            value => plain(&value),
        };
        if key.len() > MAX_KEY_BYTES { Err(format!("a key has at most {MAX_KEY_BYTES} bytes")) } else { Ok(key) }
    }
}

/// Where something waits: a policy by its place in the list, and a key.
type DoorId = (usize, Arc<str>);

/// Who waits: in the order of being asked for.
pub type Turn = (u64, ExecutionId);

/// Those who wait before another are counted up to so many.
const COUNTED: usize = 100;

struct Door {
    gate: Box<dyn Gate>,
    waiting: BTreeSet<Turn>,
    /// Those for whom a place is kept.
    called: BTreeSet<Turn>,
    /// When it is looked at again.
    due: Option<i64>,
}

/// What becomes of an execution whose turn it is.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// It starts.
    Start,
    /// It waits; until then at least, if that is known. It will be called.
    Hold {
        /// Why.
        reason: Reason,
        /// For people.
        detail: String,
        /// Milliseconds since 1970.
        until: Option<i64>,
    },
    /// It is canceled.
    Cancel {
        /// Why.
        reason: Reason,
        /// For people.
        detail: String,
    },
    /// It cannot be told whether it may start.
    Fail {
        /// Why.
        reason: Reason,
        /// For people.
        detail: String,
    },
}

/// All gates, and who waits at them.
#[derive(Default)]
pub struct Gates {
    policies: Vec<Arc<CompiledPolicy>>,
    /// The policies of an action, in the order of being asked.
    of_action: HashMap<String, Vec<usize>>,
    doors: HashMap<DoorId, Door>,
    keys: Vec<usize>,
    /// Where each that waits or runs is known.
    at: HashMap<ExecutionId, Vec<DoorId>>,
    /// When to look at a door again.
    due: BTreeSet<(i64, DoorId)>,
    changed: BTreeMap<String, Value>,
    /// What was stored, before the first policies are known.
    stored: Vec<(String, Value)>,
}

impl Gates {
    /// Gates of these policies at which nobody waits.
    #[must_use]
    pub fn new(policies: &[Arc<CompiledPolicy>]) -> Self {
        let mut policies: Vec<_> = policies.iter().filter(|compiled| compiled.policy.enabled).cloned().collect();
        policies.sort_by_key(|compiled| (rank(&compiled.policy.limit), compiled.policy.reference.clone()));
        let mut of_action: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, compiled) in policies.iter().enumerate() {
            of_action.entry(compiled.policy.resource.clone()).or_default().push(index);
        }
        let keys = vec![0; policies.len()];
        Self { policies, of_action, keys, ..Self::default() }
    }

    /// No gates yet; what was stored waits for the first policies.
    #[must_use]
    pub fn remembering(stored: Vec<(String, Value)>) -> Self {
        Self { stored, ..Self::default() }
    }

    /// Follows other policies; who waited is called, and will be asked again.
    pub fn follow<'r>(
        &mut self,
        policies: &[Arc<CompiledPolicy>],
        running: impl Iterator<Item = (ExecutionId, &'r Request)>,
        now: i64,
    ) -> Vec<Turn> {
        let called = self.waiting();
        let mut next = Self::new(policies);
        next.changed = std::mem::take(&mut self.changed);
        next.restore(std::mem::take(&mut self.stored).into_iter().chain(self.memories()).collect(), now);
        for (id, request) in running {
            next.runs(id, &request.action, &request.parameters);
        }
        *self = next;
        called
    }

    fn doors_of(&self, action: &str, parameters: &Map<String, Value>) -> Result<Vec<DoorId>, String> {
        let indices = self.of_action.get(action).map(Vec::as_slice).unwrap_or_default();
        let door = |index: &usize| {
            let compiled = &self.policies[*index];
            let key = compiled.key(parameters);
            key.map(|key| (*index, Arc::from(key))).map_err(|error| format!("policy `{}`: {error}", compiled.policy.reference))
        };
        indices.iter().map(door).collect()
    }

    fn door(&mut self, id: &DoorId) -> &mut Door {
        let (policies, keys) = (&self.policies, &mut self.keys);
        self.doors.entry(id.clone()).or_insert_with(|| {
            keys[id.0] += 1;
            Door { gate: gate(&policies[id.0].policy.limit), waiting: BTreeSet::new(), called: BTreeSet::new(), due: None }
        })
    }

    /// Decides about an execution whose turn it is. One that is held is called later; others
    /// may be `called` now, because it gives back a place.
    pub fn ask(&mut self, waiter: Turn, (action, parameters): (&str, &Map<String, Value>), now: i64, called: &mut Vec<Turn>) -> Decision {
        if !self.of_action.contains_key(action) {
            return Decision::Start;
        }
        let doors = match self.doors_of(action, parameters) {
            Ok(doors) => doors,
            Err(detail) => return Decision::Fail { reason: Reason::KeyFailed, detail },
        };
        for id in &doors {
            let is_known = self.doors.contains_key(id);
            if !is_known && self.keys[id.0] >= MAX_KEYS {
                self.sweep(id.0, now);
            }
            let policy = Arc::clone(&self.policies[id.0]);
            let policy = &policy.policy;
            if !is_known && self.keys[id.0] >= MAX_KEYS {
                let detail = format!("policy `{}` remembers {MAX_KEYS} keys, and this is another one", policy.reference);
                return Decision::Cancel { reason: Reason::TooManyKeys, detail };
            }
            let door = self.door(id);
            let free = door.gate.free(now);
            let before = door.called.range(..waiter).count();
            let is_called = door.called.contains(&waiter);
            let is_first = is_called || door.waiting.first().is_none_or(|first| *first >= waiter);
            if is_first && free.places > before {
                continue;
            }
            let (reason, mut detail) = door.gate.why(now);
            match door.waiting.range(..waiter).take(COUNTED).count() + before {
                0 => {}
                COUNTED.. => detail.push_str(&format!(", {COUNTED} or more wait before it")),
                ahead => detail.push_str(&format!(", {ahead} wait before it")),
            }
            let key = if id.1.is_empty() { String::new() } else { format!(" for `{}`", id.1) };
            let detail = format!("policy `{}`{key}: {detail}", policy.reference);
            let is_wait = policy.action == OnReached::Delay;
            // It gives back the place that was kept for it, at whichever of the doors that was.
            let left = self.forget(waiter);
            let next: Vec<Turn> = left.iter().filter(|door| *door != id).flat_map(|door| self.call(door, now)).collect();
            called.extend(next);
            if is_wait {
                self.door(id).waiting.insert(waiter);
                self.at.insert(waiter.1, vec![id.clone()]);
            }
            for id in &doors {
                self.settle(id, now);
            }
            return if is_wait { Decision::Hold { reason, detail, until: free.next } } else { Decision::Cancel { reason, detail } };
        }
        for id in &doors {
            let door = self.door(id);
            door.called.remove(&waiter);
            door.waiting.remove(&waiter);
            if door.gate.started(waiter.1, now) {
                self.note(id);
            }
            self.settle(id, now);
        }
        self.at.insert(waiter.1, doors);
        Decision::Start
    }

    /// Takes in one that runs already.
    fn runs(&mut self, id: ExecutionId, action: &str, parameters: &Map<String, Value>) {
        let Ok(doors) = self.doors_of(action, parameters) else { return };
        for door in &doors {
            self.door(door).gate.runs(id);
        }
        self.at.insert(id, doors);
    }

    /// Takes in that an attempt has ended; who may go on now, the first first.
    pub fn ended(&mut self, (_, id): Turn, failed: bool, now: i64) -> Vec<Turn> {
        let mut called = Vec::new();
        for door in self.at.remove(&id).unwrap_or_default() {
            // One at which nothing was remembered may have been forgotten since.
            if self.door(&door).gate.ended(id, failed, now) {
                self.note(&door);
            }
            called.extend(self.call(&door, now));
        }
        called
    }

    /// Takes in that one that waits will never start; who may go on instead.
    pub fn gone(&mut self, waiter: Turn, now: i64) -> Vec<Turn> {
        let doors = self.forget(waiter);
        doors.iter().flat_map(|door| self.call(door, now)).collect()
    }

    fn forget(&mut self, waiter: Turn) -> Vec<DoorId> {
        let doors = self.at.remove(&waiter.1).unwrap_or_default();
        for door in &doors {
            if let Some(door) = self.doors.get_mut(door) {
                door.waiting.remove(&waiter);
                door.called.remove(&waiter);
            }
        }
        doors
    }

    /// Calls those at a door for whom there is a place.
    fn call(&mut self, id: &DoorId, now: i64) -> Vec<Turn> {
        let Some(door) = self.doors.get_mut(id) else { return Vec::new() };
        let mut called = Vec::new();
        let free = door.gate.free(now);
        while free.places > door.called.len()
            && let Some(waiter) = door.waiting.pop_first()
        {
            door.called.insert(waiter);
            called.push(waiter);
        }
        self.settle(id, now);
        called
    }

    /// Sees to it that a door is looked at when something changes there by itself, and forgets it when there is nothing.
    fn settle(&mut self, id: &DoorId, now: i64) {
        let Some(door) = self.doors.get_mut(id) else { return };
        if door.waiting.is_empty() && door.called.is_empty() && door.gate.is_empty(now) {
            self.remove(id);
            return;
        }
        let next = if door.waiting.is_empty() { door.gate.over() } else { door.gate.free(now).next };
        let Some(next) = next.filter(|next| door.due.is_none_or(|due| *next < due)) else { return };
        if let Some(due) = door.due.replace(next) {
            self.due.remove(&(due, id.clone()));
        }
        self.due.insert((next, id.clone()));
    }

    /// Forgets a door at which there is nothing, in the store, too.
    fn remove(&mut self, id: &DoorId) {
        if let Some(door) = self.doors.remove(id) {
            self.keys[id.0] -= 1;
            if let Some(due) = door.due {
                self.due.remove(&(due, id.clone()));
            }
            if door.gate.stored().is_some() {
                self.changed.insert(self.stored_name(id), Value::Null);
            }
        }
    }

    /// When to call [`Gates::due`] next, in milliseconds since 1970.
    #[must_use]
    pub fn next_due(&self) -> Option<i64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Who may go on because time has passed.
    pub fn due(&mut self, now: i64) -> Vec<Turn> {
        let mut called = Vec::new();
        while let Some((at, _)) = self.due.first()
            && *at <= now
        {
            let Some((_, id)) = self.due.pop_first() else { break };
            if let Some(door) = self.doors.get_mut(&id) {
                door.due = None;
            }
            called.extend(self.call(&id, now));
        }
        called
    }

    /// Forgets the keys of a policy that mean nothing any more.
    fn sweep(&mut self, policy: usize, now: i64) {
        let doors = self.doors.iter_mut().filter(|((index, _), _)| *index == policy);
        let empty = doors.filter_map(|(id, door)| {
            let is_empty = door.waiting.is_empty() && door.called.is_empty() && door.gate.is_empty(now);
            is_empty.then(|| id.clone())
        });
        for id in empty.collect::<Vec<_>>() {
            self.remove(&id);
        }
    }

    /// Everyone who waits, the first first.
    fn waiting(&self) -> Vec<Turn> {
        let mut all: Vec<Turn> = self.doors.values().flat_map(|door| &door.waiting).copied().collect();
        all.sort_unstable();
        all
    }

    fn stored_name(&self, (policy, key): &DoorId) -> String {
        format!("{}{key}", self.policies[*policy].stored_as)
    }

    fn note(&mut self, id: &DoorId) {
        let Some(value) = self.doors.get(id).and_then(|door| door.gate.stored()) else { return };
        self.changed.insert(self.stored_name(id), value);
    }

    /// What is to be stored with what has been decided; null where nothing is remembered any more.
    pub fn take_changes(&mut self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.changed).into_iter().collect()
    }

    /// Takes in what was stored; what belongs to no policy of today is removed with the next changes.
    fn restore(&mut self, stored: Vec<(String, Value)>, now: i64) {
        for (name, value) in stored {
            let owner = self.policies.iter().position(|compiled| name.starts_with(&compiled.stored_as));
            let Some(index) = owner else {
                self.changed.insert(name, Value::Null);
                continue;
            };
            let id = (index, Arc::from(&name[self.policies[index].stored_as.len()..]));
            let door = self.door(&id);
            door.gate.restore(&value);
            self.settle(&id, now);
        }
    }

    /// Everything that is remembered and would be stored.
    fn memories(&self) -> Vec<(String, Value)> {
        self.doors.iter().filter_map(|(id, door)| Some((self.stored_name(id), door.gate.stored()?))).collect()
    }
}

impl std::fmt::Debug for CompiledPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.policy.fmt(f)
    }
}
