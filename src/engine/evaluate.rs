//! The evaluator: one task, in the order of arrival. Dedup, judge, commit event and decisions together, answer, hand over.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard};

use chrono::{DateTime, Duration, Utc};
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::catalog::Catalog;
use super::stream::Item;
use super::{Engine, notices, own, ruling, switching};
use crate::chat::words;
use crate::journal::AcceptError;
use crate::journal::inline::Delivery;
use crate::model::action::bind;
use crate::model::event::{Accepted, Event, MAX_DEPTH, NewEvent, SetAside, StoredEvent};
use crate::model::execution::{Change, Execution, Request};
use crate::model::ids::{EventId, ExecutionId};
use crate::model::json::RawJson;
use crate::model::principal::Principal;
use crate::model::reason::Reason;
use crate::model::rule::{Mode, Rule};
use crate::model::verdict::StoredVerdict;
use crate::rule::book::CompiledRule;
use crate::rule::ceiling::Start;
use crate::rule::judge::{self, Match, Rendered, World, judge};
use crate::store::{Batch, CommitError, Sighting, StoreError};
use crate::tasks::{self, Stop};

/// Deliveries that are evaluated and committed together at most.
const DELIVERIES_TOGETHER: usize = 256;

/// A commit that has so many events takes no further delivery.
const EVENTS_TOGETHER: usize = 4_096;

/// An event counts as having happened at most this long after it was received, whatever its sender says.
const FUTURE: Duration = Duration::minutes(1);

/// How often it is looked whether anything could come, and a share of what is remembered for nothing is forgotten.
const TICK: Duration = Duration::seconds(1);

/// How often it is stored that the process is there, while rules wait for silence.
const ALIVE: Duration = Duration::seconds(10);

/// Silences that are told in one commit at most.
const SILENCES_TOGETHER: usize = 256;

/// Runs until the journal's senders are gone or the stop signal is given.
///
/// While a commit is being synced, what arrives is judged already and waits for the next one: commits are as large as they are slow,
/// and become durable in order.
pub async fn run(engine: Arc<Engine>, mut deliveries: mpsc::Receiver<Delivery>, stop: Stop) {
    let mut in_flight: Option<InFlight> = None;
    let mut prepared = Prepared::default();
    let mut ready = Vec::with_capacity(DELIVERIES_TOGETHER);
    let mut timing = Timing::from(engine.clock.now());
    loop {
        let room = prepared.room();
        tokio::select! {
            biased;
            durable = settled(&mut in_flight), if in_flight.is_some() => {
                in_flight = None;
                if !durable {
                    // It may have been judged by what has not become durable.
                    engine.ruling.set_stale();
                    let lost = std::mem::take(&mut prepared);
                    refuse(lost.evaluated, &AcceptError::Unavailable("an earlier commit failed; try again".into()));
                }
            }
            count = deliveries.recv_many(&mut ready, room), if room > 0 => {
                if count == 0 {
                    break;
                }
                evaluate(&engine, std::mem::take(&mut ready), &mut prepared, in_flight.as_ref()).await;
            }
            () = engine.clock.sleep_until(timing.next(&engine)), if in_flight.is_none() => {
                timing.beside(&engine, &mut prepared).await;
            }
            () = stop.stopped() => break,
        }
        if in_flight.is_none() && !prepared.is_empty() {
            // Connections that are ready to hand in something get their turn first: larger commits, without waiting for anybody.
            tokio::task::yield_now().await;
            let room = prepared.room();
            while ready.len() < room
                && let Ok(delivery) = deliveries.try_recv()
            {
                ready.push(delivery);
            }
            evaluate(&engine, std::mem::take(&mut ready), &mut prepared, None).await;
            if timing.next(&engine) <= engine.clock.now() {
                timing.beside(&engine, &mut prepared).await; // under load there is no other time for it
            }
            in_flight = Some(InFlight::start(&engine, std::mem::take(&mut prepared)));
        }
    }
    settled(&mut in_flight).await; // whoever waited for it has its answer
}

/// What is done beside events, and when.
struct Timing {
    tick: DateTime<Utc>,
    alive: DateTime<Utc>,
    /// Silences could not be told; not before then.
    not_before: DateTime<Utc>,
}

impl Timing {
    fn from(now: DateTime<Utc>) -> Self {
        Self { tick: now + TICK, alive: now, not_before: now }
    }

    fn next(&self, engine: &Engine) -> DateTime<Utc> {
        let silence = engine.ruling.state().windows.next_deadline().and_then(DateTime::from_timestamp_millis);
        silence.map_or(self.tick, |silence| self.tick.min(silence.max(self.not_before)))
    }

    async fn beside(&mut self, engine: &Engine, prepared: &mut Prepared) {
        let now = engine.clock.now();
        if now >= self.tick || self.tick - now > TICK {
            self.tick = now + TICK;
            let mut state = engine.ruling.state();
            state.tick(!engine.load.has_room(), &engine.sensors, now);
            if state.windows.is_waiting() && (now >= self.alive || self.alive - now > ALIVE) {
                self.alive = now + ALIVE;
                prepared.batch.settings.push(state.alive(now));
            }
            engine.metrics.window_keys.set(i64::try_from(state.windows.len()).unwrap_or(i64::MAX));
            prepared.has_changes |= state.windows.has_changes();
        }
        if let Err(error) = silences(engine, prepared).await {
            tracing::debug!("silences are told later: {error}");
            self.not_before = now + TICK;
        }
    }
}

/// Runs what rules run that have waited for silence long enough.
async fn silences(engine: &Engine, prepared: &mut Prepared) -> Result<(), StoreError> {
    let now = engine.clock.now();
    let catalog = engine.catalog.get();
    ruling::prepare(engine, &catalog).await?;
    engine.store.health().await?;
    let found = {
        let mut state = engine.ruling.state();
        state.look_at(&engine.sensors, now);
        state.windows.silences(now.timestamp_millis(), SILENCES_TOGETHER)
    };
    let mut told = Vec::new();
    for silence in found {
        let Some(rule) = catalog.rules.get(&silence.rule) else { continue };
        if catalog.off.contains_key(&silence.rule) {
            // Once it is switched on, it waits from then on.
            engine.ruling.state().windows.wait_again(&silence, now.timestamp_millis());
            continue;
        }
        let uncommitted =
            prepared.batch.events.iter().find(|stored| Some(stored.event.id) == silence.last).map(|stored| stored.event.clone());
        let last = match silence.last {
            Some(id) if uncommitted.is_none() => match engine.store.event(id).await {
                Ok(stored) => stored.map(|stored| stored.event),
                Err(error) => {
                    tracing::warn!(rule = &*silence.rule, key = silence.key, "a silence is told later: {error}");
                    engine.ruling.state().windows.tell_later(&silence, now.timestamp_millis());
                    continue;
                }
            },
            _ => uncommitted,
        };
        let deadline = DateTime::from_timestamp_millis(silence.deadline).unwrap_or(now);
        let last = last.unwrap_or_else(|| nothing_yet(rule, &silence.key, deadline));
        told.push((silence, Arc::clone(rule), last, deadline));
    }
    let keys = engine.ruling.keys(now);
    let mut work = Work { engine, catalog: &catalog, prepared, state: engine.ruling.state(), keys: &keys };
    for (silence, rule, last, deadline) in told {
        let world = World { keys: &keys, off: &catalog.off };
        let Some(parameters) = judge::silence(&rule, &last, deadline, world, &mut work.state.windows) else {
            engine.metrics.verdicts.with_label_values(&[Reason::Throttled.code()]).inc();
            continue;
        };
        if rule.rule.mode == Mode::Shadow {
            let key = silence.key;
            engine.metrics.verdicts.with_label_values(&[Reason::Shadowed.code()]).inc();
            tracing::info!(rule = &*rule.rule.reference, key, "silence; the rule is in shadow mode, so nothing runs");
            continue;
        }
        let cause = Asked {
            id: ExecutionId::of_silence(&silence.rule, &silence.key, silence.last, deadline),
            event: silence.last,
            key: last.key.clone(),
            depth: last.depth,
            at: now,
            reason: Reason::Silent,
        };
        work.request(cause, &rule.rule, &parameters);
    }
    work.prepared.has_changes = true;
    Ok(())
}

/// What stands for the last event of a key that has had none.
pub(super) fn nothing_yet(rule: &CompiledRule, key: &str, deadline: DateTime<Utc>) -> Event {
    Event {
        id: EventId(ulid::Ulid::nil()),
        trigger: rule.rule.trigger.to_string(),
        key: Some(key.to_string()),
        dedup_key: None,
        occurred_at: deadline,
        received_at: deadline,
        source: "window".into(),
        cause: None,
        depth: 0,
        payload: RawJson::of(&serde_json::json!({})),
    }
}

/// Whether the commit in flight has become durable.
async fn settled(in_flight: &mut Option<InFlight>) -> bool {
    match in_flight {
        Some(in_flight) => (&mut in_flight.committed).await.unwrap_or(false),
        None => true,
    }
}

/// A commit that is not durable yet, and the senders' keys that it will have made known.
struct InFlight {
    known: HashMap<String, Sighting>,
    committed: JoinHandle<bool>,
}

impl InFlight {
    fn start(engine: &Arc<Engine>, prepared: Prepared) -> Self {
        let mut prepared = prepared;
        prepared.batch.windows = engine.ruling.state().take_changes();
        let known = prepared.batch.sightings.iter().map(|sighting| (sighting.key.clone(), sighting.clone())).collect();
        let engine = Arc::clone(engine);
        Self { known, committed: tasks::spawn_bounded(async move { commit(&engine, prepared).await }) }
    }
}

/// What is to be committed, and who waits for it.
#[derive(Default)]
struct Prepared {
    batch: Batch,
    evaluated: Vec<Evaluated>,
    /// Senders' keys, as the store has them and as this commit changes them.
    known: HashMap<String, Sighting>,
    /// Where a key stands among the batch's sightings.
    changed: HashMap<String, usize>,
    /// Whether there is something to commit beside what deliveries became.
    has_changes: bool,
}

impl Prepared {
    fn is_empty(&self) -> bool {
        self.evaluated.is_empty() && !self.has_changes && self.batch.is_empty()
    }

    /// How many more deliveries this commit takes.
    fn room(&self) -> usize {
        if self.batch.events.len() >= EVENTS_TOGETHER { 0 } else { DELIVERIES_TOGETHER.saturating_sub(self.evaluated.len()) }
    }
}

/// What one delivery became.
struct Evaluated {
    delivery: Delivery,
    outcome: Result<Vec<Accepted>, AcceptError>,
}

/// Judges the events of deliveries. The only thing that is asked of the store is whether they are repeats.
async fn evaluate(engine: &Engine, deliveries: Vec<Delivery>, prepared: &mut Prepared, in_flight: Option<&InFlight>) {
    if deliveries.is_empty() {
        return;
    }
    let catalog = engine.catalog.get();
    let known = if let Err(error) = ruling::prepare(engine, &catalog).await {
        Err(AcceptError::Unavailable(error.to_string()))
    } else if engine.load.has_room() {
        sightings(engine, &deliveries).await.map_err(|error| AcceptError::Unavailable(error.to_string()))
    } else {
        Err(engine.load.full())
    };
    match known {
        Err(error) => {
            let refused = deliveries.into_iter().map(|delivery| Evaluated { delivery, outcome: Err(error.clone()) });
            prepared.evaluated.extend(refused);
        }
        Ok(known) => {
            for (key, sighting) in known {
                // What this commit changes itself is newest, then what the one in flight changes.
                if !prepared.changed.contains_key(&key) {
                    prepared.known.insert(key, sighting);
                }
            }
            if let Some(before) = in_flight {
                let keys = deliveries.iter().flat_map(|delivery| &delivery.events).filter_map(|event| event.dedup.as_ref());
                for dedup in keys.filter(|dedup| !prepared.changed.contains_key(&dedup.key)) {
                    if let Some(sighting) = before.known.get(&dedup.key) {
                        prepared.known.insert(dedup.key.clone(), sighting.clone());
                    }
                }
            }
            let keys = engine.ruling.keys(engine.clock.now());
            let mut work = Work { engine, catalog: &catalog, prepared, state: engine.ruling.state(), keys: &keys };
            for mut delivery in deliveries {
                let outcome = work.take(std::mem::take(&mut delivery.events));
                work.prepared.evaluated.push(Evaluated { delivery, outcome });
            }
        }
    }
}

/// Makes it durable, answers the senders, hands on what is to be done. Answers whether it is durable.
async fn commit(engine: &Engine, prepared: Prepared) -> bool {
    let Prepared { batch, evaluated, .. } = prepared;
    let mut sequence = 0;
    if !batch.is_empty() {
        let started = engine.clock.now();
        match engine.store.commit(&batch).await {
            Ok(committed) => sequence = committed.sequence,
            Err(error) => {
                let error = match error {
                    CommitError::Store(error) => AcceptError::Unavailable(error.to_string()),
                    // Another node was faster; the sender's next try will find its answer.
                    CommitError::Conflict { what } => {
                        tracing::warn!("events were refused: {what} has changed meanwhile");
                        AcceptError::Unavailable(format!("{what} was taken by another process; try again"))
                    }
                };
                refuse(evaluated, &error);
                return false;
            }
        }
        let took = (engine.clock.now() - started).to_std().unwrap_or_default();
        engine.metrics.commit_seconds.observe(took.as_secs_f64());
    }
    switching::take_effect(engine, &batch.settings);
    count(engine, &batch.events, &evaluated);
    for execution in batch.requested.iter().filter(|execution| execution.state.status.is_final()) {
        engine.metrics.executions.with_label_values(&[execution.state.status.name()]).inc();
    }
    let open: Vec<_> = batch.requested.iter().filter(|execution| !execution.state.status.is_final()).cloned().collect();
    if !open.is_empty() {
        engine.hand_over(open).await;
    }
    for Evaluated { delivery, outcome } in evaluated {
        let _ = delivery.reply.send(outcome); // the sender has gone; its event stays
    }
    if !batch.pending.is_empty() {
        engine.own_events.notify_one();
    }
    let mut items: Vec<Item> = batch.events.into_iter().map(Item::Event).collect();
    items.extend(batch.requested.into_iter().map(Item::Execution));
    engine.stream.publish(sequence, items);
    engine.outbox.wake(batch.messages);
    true
}

fn refuse(evaluated: Vec<Evaluated>, error: &AcceptError) {
    for Evaluated { delivery, .. } in evaluated {
        let _ = delivery.reply.send(Err(error.clone())); // the sender has gone: nobody to tell
    }
}

fn count(engine: &Engine, events: &[Arc<StoredEvent>], evaluated: &[Evaluated]) {
    let accepted = evaluated.iter().filter_map(|one| one.outcome.as_ref().ok()).flatten();
    let duplicates = accepted.filter(|accepted| accepted.duplicate).count();
    let rejected = events.iter().filter(|event| event.set_aside.is_some()).count();
    engine.metrics.events.with_label_values(&["accepted"]).inc_by((events.len() - rejected) as u64);
    engine.metrics.events.with_label_values(&["duplicate"]).inc_by(duplicates as u64);
    engine.metrics.events.with_label_values(&["rejected"]).inc_by(rejected as u64);
    for verdict in events.iter().flat_map(|event| &event.verdicts) {
        engine.metrics.verdicts.with_label_values(&[verdict.reason.code()]).inc();
    }
}

/// What the store remembers of the senders' keys in these deliveries.
async fn sightings(engine: &Engine, deliveries: &[Delivery]) -> Result<HashMap<String, Sighting>, crate::store::StoreError> {
    let dedups = deliveries.iter().flat_map(|delivery| &delivery.events).filter_map(|event| event.dedup.as_ref());
    let keys: Vec<_> = dedups.map(|dedup| (dedup.key.clone(), dedup.memory)).collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let found = engine.store.sightings(&keys, engine.clock.now()).await?;
    Ok(found.into_iter().flatten().map(|sighting| (sighting.key.clone(), sighting)).collect())
}

/// What the rules say about an event, with the parameters of those that match.
struct Judged {
    matches: Vec<(Rendered, Match)>,
    near_misses: Vec<StoredVerdict>,
    more_near_misses: u32,
    keys: Map<String, Value>,
    overruns: Vec<Arc<CompiledRule>>,
}

/// One commit in the making.
struct Work<'e> {
    engine: &'e Engine,
    catalog: &'e Catalog,
    prepared: &'e mut Prepared,
    state: MutexGuard<'e, ruling::State>,
    keys: &'e BTreeMap<String, Value>,
}

/// Why an execution is asked for.
struct Asked {
    id: ExecutionId,
    event: Option<EventId>,
    key: Option<String>,
    depth: u32,
    at: DateTime<Utc>,
    reason: Reason,
}

impl Work<'_> {
    /// Takes the events of one delivery: all or none.
    fn take(&mut self, events: Vec<NewEvent>) -> Result<Vec<Accepted>, AcceptError> {
        for dedup in events.iter().filter_map(|event| event.dedup.as_ref()) {
            let differs = |known: &Sighting| known.body.is_some() && dedup.body.is_some() && known.body != dedup.body;
            if self.prepared.known.get(&dedup.key).is_some_and(differs) {
                let key = dedup.key.splitn(3, ':').last().unwrap_or_default();
                return Err(AcceptError::BodyDiffers { key: key.to_string() });
            }
        }
        Ok(events.into_iter().map(|event| self.take_one(event)).collect())
    }

    fn take_one(&mut self, mut new: NewEvent) -> Accepted {
        let now = self.engine.clock.now();
        self.prepared.batch.taken.extend(new.pending);
        let Some(dedup) = new.dedup.take() else { return self.accept(new, None) };
        let Some(mut sighting) = self.prepared.known.get(&dedup.key).cloned() else {
            let accepted = self.accept(new, Some(dedup.key.clone()));
            let sighting = Sighting {
                key: dedup.key.clone(),
                event: accepted.id,
                seen_at: now,
                repeats: 0,
                body: dedup.body,
                memory: dedup.memory,
                first: true,
            };
            self.remember(sighting);
            return accepted;
        };
        // The memory slides: what keeps coming is kept in mind.
        sighting.seen_at = now;
        sighting.memory = dedup.memory;
        sighting.first = false;
        let accepted = if dedup.repeats {
            sighting.repeats += 1;
            new.payload = with_repeat(&new.payload, sighting.repeats);
            self.accept(new, Some(format!("{}#{}", dedup.key, sighting.repeats)))
        } else {
            Accepted { id: sighting.event, trigger: new.trigger, duplicate: true, rejected: None }
        };
        self.remember(sighting);
        accepted
    }

    fn remember(&mut self, sighting: Sighting) {
        let prepared = &mut *self.prepared;
        if let Some(index) = prepared.changed.get(&sighting.key) {
            let earlier = &mut prepared.batch.sightings[*index];
            *earlier = Sighting { first: earlier.first, ..sighting.clone() };
        } else {
            prepared.changed.insert(sighting.key.clone(), prepared.batch.sightings.len());
            prepared.batch.sightings.push(sighting.clone());
        }
        self.prepared.known.insert(sighting.key.clone(), sighting);
    }

    fn accept(&mut self, new: NewEvent, dedup_key: Option<String>) -> Accepted {
        let now = self.engine.clock.now();
        let event = Event {
            id: self.engine.ids.event(now),
            trigger: new.trigger,
            key: new.key,
            dedup_key,
            occurred_at: new.occurred_at.unwrap_or(now).min(now + FUTURE),
            received_at: now,
            source: new.source,
            depth: new.cause.as_ref().map_or(0, |cause| cause.depth.saturating_add(1)),
            cause: new.cause,
            payload: new.payload,
        };
        let accepted = Accepted { id: event.id, trigger: event.trigger.clone(), duplicate: false, rejected: new.rejected.clone() };
        let stored = match new.rejected {
            Some(detail) => aside(event, Reason::Rejected, detail),
            None if event.depth > MAX_DEPTH => {
                let detail = format!(
                    "caused by execution {} at depth {}",
                    event.cause.as_ref().map_or_else(String::new, |cause| cause.execution.to_string()),
                    event.depth
                );
                tracing::warn!(event = %event.id, trigger = event.trigger, "dropped as a loop: {detail}");
                aside(event, Reason::Loop, detail)
            }
            None => self.judge(event),
        };
        self.prepared.batch.events.push(Arc::new(stored));
        accepted
    }

    fn judge(&mut self, event: Event) -> StoredEvent {
        let world = World { keys: self.keys, off: &self.catalog.off };
        let windows = &mut self.state.windows;
        let judged = catch_unwind(AssertUnwindSafe(|| {
            // Twice, because the second time tells a passing fault from one of the event; nothing is counted before it is read.
            let mut judgement =
                judge(&self.catalog.rules, &event, world, windows).or_else(|_| judge(&self.catalog.rules, &event, world, windows))?;
            let matches = std::mem::take(&mut judgement.matches).into_iter();
            let rendered = matches.map(|matched| (judgement.parameters(&matched.rule), matched)).collect();
            Ok(Judged {
                matches: rendered,
                near_misses: judgement.near_misses,
                more_near_misses: judgement.more_near_misses,
                keys: judgement.keys,
                overruns: judgement.overruns,
            })
        }));
        let judged = match judged.unwrap_or_else(|_| Err("the rules' evaluation panicked; see the log".into())) {
            Ok(judged) => judged,
            Err(detail) => {
                tracing::warn!(event = %event.id, trigger = event.trigger, "set aside: {detail}");
                return aside(event, Reason::EvaluationFailed, detail);
            }
        };
        let mut verdicts = Vec::with_capacity(judged.matches.len() + judged.near_misses.len());
        for (parameters, matched) in judged.matches {
            let asked = Asked {
                id: ExecutionId::of_rule(event.id, &matched.rule.rule.reference, 0),
                event: Some(event.id),
                key: event.key.clone(),
                depth: event.depth,
                at: event.received_at,
                reason: Reason::Matched,
            };
            let execution = self.request(asked, &matched.rule.rule, &parameters);
            verdicts.push(matched.verdict(Some(execution)));
        }
        verdicts.extend(judged.near_misses);
        for rule in &judged.overruns {
            self.overrun(rule, &event);
        }
        StoredEvent {
            event,
            ruleset: self.catalog.ruleset,
            verdicts,
            more_near_misses: judged.more_near_misses,
            keys: judged.keys,
            set_aside: None,
        }
    }

    /// A guard used up its budget; once too often, and its rule is not tried any more.
    fn overrun(&mut self, rule: &CompiledRule, event: &Event) {
        if self.state.overrun(&rule.rule.reference, event.received_at.timestamp_millis()) {
            let batch = &mut self.prepared.batch;
            switching::quarantine(self.engine, rule, event, batch);
        }
    }

    fn request(&mut self, asked: Asked, rule: &Rule, parameters: &Rendered) -> ExecutionId {
        let Asked { id, event, key, depth, at, reason } = asked;
        let action = self.catalog.actions.get(&*rule.action);
        let (parameters, fault) = match (action, parameters) {
            (None, _) => (Map::new(), Some((Reason::UnknownAction, self.catalog.no_action(&rule.action)))),
            (Some(action), _) if !action.enabled => {
                (Map::new(), Some((Reason::UnknownAction, format!("action `{}` is not enabled", rule.action))))
            }
            (Some(_), Err(fault)) => (Map::new(), Some((Reason::ParametersFailed, fault.clone()))),
            (Some(action), Ok(given)) => match bind(&action.parameters, given) {
                Ok(parameters) => (parameters, None),
                Err(faults) => {
                    (given.clone(), Some((Reason::ParametersFailed, format!("{}: {}", rule.place(rule.action_at), faults.join("; ")))))
                }
            },
        };
        let request = Request {
            action: rule.action.to_string(),
            parameters,
            requested_by: Principal::Rule(rule.reference.to_string()),
            requested_at: at,
            event,
            key,
            rerun_of: None,
            depth,
            parent: None,
            notify: rule.notify.as_ref().map(|notify| notify.value.clone()),
            idempotent: action.is_some_and(|action| action.idempotent),
            asked: None,
        };
        let mut execution = Execution::requested(id, request, reason);
        let batch = &mut self.prepared.batch;
        if let Some((reason, error)) = fault {
            let change = Change::Fail { at, reason, error, log: Vec::new() };
            execution.change(change).expect("a requested execution can fail");
            batch.messages.extend(notices::of(self.catalog, &execution, at));
            batch.pending.extend(own::finished(self.engine, self.catalog, &execution));
        } else {
            let ceiling = self.state.ceilings.entry(rule.reference.to_string()).or_default();
            if let Start::At { time, tell } = ceiling.next(rule.ceiling, at.timestamp_millis())
                && let Some(until) = DateTime::from_timestamp_millis(time)
            {
                execution.change(Change::Hold { until }).expect("a requested execution can be held");
                if tell {
                    let text = words::held_by_ceiling(&rule.reference, rule.ceiling);
                    tracing::warn!(rule = &*rule.reference, "{text}");
                    batch.messages.extend(notices::to_owner(self.catalog, rule, self.engine.ids.message(at), text, at));
                }
            }
        }
        batch.requested.push(Arc::new(execution));
        id
    }
}

fn aside(event: Event, reason: Reason, detail: String) -> StoredEvent {
    StoredEvent {
        event,
        ruleset: 0,
        verdicts: Vec::new(),
        more_near_misses: 0,
        keys: Map::new(),
        set_aside: Some(SetAside { reason, detail }),
    }
}

/// The payload of a repeat: an object with `repeat` in it.
fn with_repeat(payload: &RawJson, repeat: u32) -> RawJson {
    match payload.value() {
        Ok(Value::Object(mut map)) => {
            map.insert("repeat".into(), Value::from(repeat));
            RawJson::of(&Value::Object(map))
        }
        _ => payload.clone(),
    }
}
