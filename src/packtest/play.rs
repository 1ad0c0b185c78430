//! Plays a case and says what is not as expected.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::plan::{CONSOLE, Group, site_for};
use super::stage::{Requests, Stage, Stuck, World};
use super::{Played, Problem, Touched, diff};
use crate::engine::ingest::{self, Refused};
use crate::engine::{converse, keys, plan, why};
use crate::expect::Expected;
use crate::model::datastore::{Change, If, KeyRequest};
use crate::model::event::{NewEvent, StoredEvent};
use crate::model::execution::{Execution, Status};
use crate::model::ids::MessageId;
use crate::model::json::RawJson;
use crate::model::message::Message;
use crate::model::place::Place;
use crate::model::principal::Principal;
use crate::model::sensor::SensorKind;
use crate::outbound::scripted::{Exchange, Scripted, Sent};
use crate::pack::test::read::written;
use crate::pack::test::{
    ActionCase, Call, Case, ChatCase, Emitted, Expectable, Expectation, Occurrence, Outcome, RuleCase, Said, SensorCase, Subject, What,
};
use crate::script::host::MAX_MESSAGES;
use crate::store::Page;

/// How long an execution may take, of simulated time: the longest time-out of an action, and a day for its retries.
const MAX_SPAN: Duration = Duration::from_secs(2 * 86_400);

/// Executions, events, messages and keys of a case that are looked at.
const LOOKED_AT: usize = 10_000;

/// Plays a case on a stage of its own site.
#[must_use]
pub fn play(stage: &Stage, group: &Group, case: &Case, seed: u64) -> Played {
    let mut played = Played {
        pack: group.pack.clone(),
        name: case.name.clone(),
        place: case.place.clone(),
        problems: Vec::new(),
        story: Vec::new(),
        took: Duration::ZERO,
        touched: Touched::default(),
    };
    stage.play(async {
        let requests = Requests { exchanges: case.http.clone(), in_order: case.http_in_order };
        match stage.start(site_for(&group.site, case), seed, case.now, requests).await {
            Ok(world) => Player { world, case, played: &mut played }.play().await,
            Err(error) => played.problems.push(problem(&case.place, format!("the engine does not start: {error}"), Vec::new())),
        }
    });
    played
}

fn problem(place: &Place, what: impl Into<String>, lines: Vec<String>) -> Problem {
    Problem { place: place.clone(), what: what.into(), lines }
}

struct Player<'c> {
    world: World,
    case: &'c Case,
    played: &'c mut Played,
}

/// What has happened when a case is over, in the order of time.
struct Happened {
    executions: Vec<Execution>,
    events: Vec<StoredEvent>,
    messages: Vec<Message>,
}

impl Player<'_> {
    async fn play(mut self) {
        let case = self.case;
        if let Err(fault) = self.perform().await {
            self.wrong(&case.place, fault, Vec::new());
        }
        let Self { world, .. } = self;
        world.core.teardown.run().await;
    }

    fn wrong(&mut self, place: &Place, what: impl Into<String>, lines: Vec<String>) {
        self.played.problems.push(problem(place, what, lines));
    }

    /// Goes through the case. An error is what keeps it from being played at all.
    async fn perform(&mut self) -> Result<(), String> {
        let case = self.case;
        for (scope, name, value) in &case.keys {
            let change = Change::Set { value: value.clone(), ttl: None };
            let request = KeyRequest { scope: scope.clone(), name: name.clone(), change, only: If::Always, by: "test".into(), cause: None };
            let set = keys::change(&self.world.core.engine, request).await;
            set.map_err(|error| format!("the key `{scope}.{name}` cannot be set: {error}"))?;
        }
        self.world.rest().await.map_err(told)?;
        let happened = match &case.subject {
            Subject::Action(of) => self.action(of).await?,
            Subject::Rules(of) => self.rules(of).await?,
            Subject::Sensor(of) => self.sensor(of).await?,
            Subject::Chat(of) => self.chat(of).await?,
        };
        self.requests();
        if let Some((place, expected)) = &case.messages {
            self.messages(place, expected, &happened.messages);
        }
        self.keys().await?;
        self.note(&happened);
        Ok(())
    }

    async fn happened(&self) -> Result<Happened, String> {
        let store = &self.world.core.engine.store;
        let failed = |error: crate::store::StoreError| error.to_string();
        let mut executions = store.executions(Page { before: None, limit: LOOKED_AT }).await.map_err(failed)?;
        let mut events = store.events(Page { before: None, limit: LOOKED_AT }).await.map_err(failed)?;
        let mut messages = store.messages(Page { before: None, limit: LOOKED_AT }).await.map_err(failed)?;
        executions.reverse();
        executions.sort_by_key(|execution| execution.request.requested_at);
        events.reverse();
        messages.reverse();
        // What only tells how far something is may be left out anywhere.
        messages.retain(|message| !message.passing);
        let asked = executions.iter().filter_map(|execution| execution.request.asked.as_deref()?.acknowledged);
        let answers: BTreeSet<MessageId> = asked.collect();
        messages.sort_by_key(|message| (message.created_at, order(message, &answers)));
        Ok(Happened { executions, events, messages })
    }

    async fn action(&mut self, of: &ActionCase) -> Result<Happened, String> {
        let engine = std::sync::Arc::clone(&self.world.core.engine);
        let by = Principal::Token("test".into());
        if let Some((place, expected)) = &of.plan {
            let made = plan::plan(&engine, &of.action.1, &of.parameters, by.clone()).await;
            let made = made.map_or_else(|error| error.to_string(), |made| crate::template::text::plain(&made["plan"]));
            if !expected.fits(&made) {
                self.wrong(place, "the plan is another one", diff::texts("", &expected.to_string(), &made));
            }
        }
        let Some(outcome) = &of.outcome else { return self.happened().await };
        let requested = match engine.request(&of.action.1, &of.parameters, by, None).await {
            Ok(execution) => execution,
            Err(error) => {
                self.refused(of, outcome, &error.to_string());
                return self.happened().await;
            }
        };
        self.world.rest().await.map_err(told)?;
        let end = self.world.start + MAX_SPAN;
        let execution = loop {
            let found = engine.store.execution(requested.id).await.map_err(|error| error.to_string())?;
            match found.filter(|execution| execution.state.status.is_final()) {
                Some(execution) => break execution,
                None if self.world.now() >= end => return Err(format!("`{}` does not end", of.action.1)),
                None => self.world.jump(end).await.map_err(told)?,
            }
        };
        self.outcome(of, outcome, &execution);
        let logged: Vec<&str> = execution.state.log.iter().map(|line| line.text.as_str()).collect();
        let mut left = logged.iter();
        for (place, wording) in &of.log {
            if !left.any(|line| wording.fits(line)) {
                let mut lines = vec![format!("  - {wording}")];
                lines.extend(logged.iter().map(|line| format!("    {line}")));
                self.wrong(place, "this line is not logged, or not in this place", lines);
                break;
            }
        }
        if let Some((place, attempts)) = &of.attempts
            && *attempts != u64::from(execution.state.attempt)
        {
            self.wrong(
                place,
                "it took another number of attempts",
                vec![format!("  - {attempts}"), format!("  + {}", execution.state.attempt)],
            );
        }
        self.happened().await
    }

    /// The engine would not even begin, as with parameters that do not fit: a failure without a reason.
    fn refused(&mut self, of: &ActionCase, outcome: &Outcome, why: &str) {
        match outcome {
            Outcome::Fails(_, failing) if failing.reason.is_none() && failing.message.as_ref().is_some_and(|message| message.fits(why)) => {
            }
            Outcome::Fails(place, failing) => {
                let message = failing.message.as_ref().map_or("message: …".into(), |message| format!("message: {message}"));
                let lines =
                    vec![format!("  - {message}"), format!("  + {why}"), "    this is said before it runs, so there is no `reason`".into()];
                self.wrong(place, format!("`{}` cannot be run", of.action.1), lines);
            }
            Outcome::Succeeds(place, _) => self.wrong(place, format!("`{}` cannot be run", of.action.1), vec![format!("  + {why}")]),
        }
    }

    fn outcome(&mut self, of: &ActionCase, outcome: &Outcome, execution: &Execution) {
        let state = &execution.state;
        let error = state.error.clone().unwrap_or_default();
        let got = || {
            let mut lines = vec![format!("  + {} ({})", state.status.name(), state.reason.code())];
            lines.extend(error.lines().map(|line| format!("    {line}")));
            lines.extend(
                state.result.iter().filter(|_| state.status == Status::Succeeded).map(|result| format!("    {}", diff::compact(result))),
            );
            lines
        };
        match outcome {
            Outcome::Succeeds(place, expected) if state.status == Status::Succeeded => {
                let result = state.result.clone().unwrap_or_default();
                if !expected.differences(&result).is_empty() {
                    self.wrong(place, "the result is another one", diff::lines(expected, &result));
                }
            }
            Outcome::Succeeds(place, _) => self.wrong(place, format!("`{}` was to succeed, and did not", of.action.1), got()),
            Outcome::Fails(place, _) if state.status == Status::Succeeded => {
                self.wrong(place, format!("`{}` was to fail, and succeeded", of.action.1), got());
            }
            Outcome::Fails(place, failing) => {
                let mut lines = Vec::new();
                if let Some(reason) = failing.reason.as_deref().filter(|reason| *reason != state.reason.code()) {
                    lines.extend(diff::texts("reason: ", reason, state.reason.code()));
                }
                if let Some(message) = failing.message.as_ref().filter(|message| !message.fits(&error)) {
                    lines.extend(diff::texts("message: ", &message.to_string(), error.lines().next().unwrap_or_default()));
                }
                if !lines.is_empty() {
                    self.wrong(place, "it failed in another way", lines);
                }
            }
        }
    }

    async fn rules(&mut self, of: &RuleCase) -> Result<Happened, String> {
        for occurrence in &of.events {
            self.world.until(occurrence.at).await.map_err(told)?;
            self.occur(occurrence).await?;
        }
        self.world.until(of.until).await.map_err(told)?;
        if of.carry_out {
            self.all_ended().await?;
        }
        let happened = self.happened().await?;
        let mut left: Vec<&Execution> = happened.executions.iter().collect();
        let mut said: Vec<&Message> = happened.messages.iter().collect();
        for one in &of.expect {
            match &one.what {
                Expectable::Runs { action, parameters } => self.expect_run(one, action, parameters.as_ref(), &mut left, &happened).await,
                Expectable::Said(expected) => self.expect_said(one, expected, &mut said),
            }
        }
        let Some(place) = &of.nothing_else else { return Ok(happened) };
        for execution in left {
            let line = format!("  + {}", self.shown(execution));
            self.wrong(place, "this ran, and nothing else was to run", vec![line]);
        }
        // What is told of an execution that was not carried out is not worth a word.
        for message in said.into_iter().filter(|message| of.carry_out || message.execution.is_none()) {
            let line = format!("  + at {} in {}: {}", written(self.world.since_start(message.created_at)), message.channel, message.text);
            self.wrong(place, "this was said, and nothing else was to be said", vec![line]);
        }
        Ok(happened)
    }

    async fn all_ended(&mut self) -> Result<(), String> {
        let end = self.world.start + MAX_SPAN;
        while self.world.core.engine.load.open() > 0 {
            if self.world.now() >= end {
                return Err("an execution does not end".into());
            }
            self.world.jump(end).await.map_err(told)?;
        }
        Ok(())
    }

    async fn occur(&mut self, occurrence: &Occurrence) -> Result<(), String> {
        match &occurrence.what {
            What::Event { trigger, payload, key, late } => {
                let event = NewEvent {
                    trigger: trigger.clone(),
                    payload: RawJson::of(payload),
                    key: key.clone(),
                    dedup: None,
                    occurred_at: (!late.is_zero()).then(|| self.world.now() - *late),
                    source: "test".into(),
                    cause: None,
                    rejected: None,
                    pending: None,
                };
                self.world.core.journal.accept(vec![event]).await.map_err(|error| format!("the event is not taken: {error}"))?;
            }
            What::Call(call) => {
                if let Err(why) = self.call(call).await? {
                    self.wrong(&occurrence.place, "the webhook refuses the call", vec![format!("  + {why}")]);
                }
            }
        }
        self.world.rest().await.map_err(told)
    }

    /// Calls a webhook; the inner error is its refusal.
    async fn call(&mut self, call: &Call) -> Result<Result<(), String>, String> {
        let engine = &self.world.core.engine;
        let catalog = engine.catalog.get();
        let sensor = catalog.sensors.iter().find(|sensor| sensor.reference == call.sensor.1);
        let Some(SensorKind::Webhook { name, .. }) = sensor.map(|sensor| &sensor.kind) else {
            return Err(format!("`{}` is no webhook; leave `body` out", call.sensor.1));
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &call.headers {
            let wrong = || format!("`headers.{name}` is not valid");
            let value = HeaderValue::from_str(&crate::template::text::plain(value)).map_err(|_| wrong())?;
            headers.insert(HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?, value);
        }
        let here = SocketAddr::from(([127, 0, 0, 1], 1));
        let taken = match ingest::admit(engine, true, name, here, &headers) {
            Ok(admitted) => ingest::webhook(engine, &*self.world.core.journal, admitted, &headers, call.body.as_bytes()).await.map(|_| ()),
            Err(refused) => Err(refused),
        };
        Ok(taken.map_err(|refused| match refused {
            Refused::Unknown(why) | Refused::Unauthorized(why) => why,
            Refused::Rejected(rejected) => rejected.faults.into_iter().map(|(_, fault)| fault).collect::<Vec<_>>().join("; "),
            Refused::Accept(error) => error.to_string(),
        }))
    }

    fn shown(&self, execution: &Execution) -> String {
        let at = written(self.world.since_start(execution.request.requested_at));
        format!("at {at} {} {}", execution.request.action, diff::compact(&Value::Object(execution.request.parameters.clone())))
    }

    async fn expect_run(
        &mut self,
        one: &Expectation,
        action: &str,
        parameters: Option<&Expected>,
        left: &mut Vec<&Execution>,
        happened: &Happened,
    ) {
        let when = one.at.map(|at| format!(" at {}", written(at))).unwrap_or_default();
        let differing = |execution: &Execution| {
            let at = self.world.since_start(execution.request.requested_at);
            let mut lines = Vec::new();
            if let Some(expected) = one.at.filter(|expected| *expected != at) {
                lines.extend(["  - at ", "  + at "].iter().zip([expected, at]).map(|(lead, at)| format!("{lead}{}", written(at))));
            }
            if execution.request.action != action {
                lines.extend(diff::texts("runs: ", action, &execution.request.action));
            }
            let given = Value::Object(execution.request.parameters.clone());
            if let Some(expected) = parameters.filter(|expected| !expected.differences(&given).is_empty()) {
                lines.extend(diff::lines(expected, &given));
            }
            lines
        };
        let compared: Vec<Vec<String>> = left.iter().map(|execution| differing(execution)).collect();
        let marks = |lines: &Vec<String>| lines.iter().filter(|line| line.starts_with("  +") || line.starts_with("  -")).count();
        let nearest = (0..left.len()).min_by_key(|index| marks(&compared[*index]));
        match nearest {
            Some(index) if compared[index].is_empty() => {
                left.remove(index);
            }
            Some(index) => {
                let mut lines = vec!["  the nearest that ran:".to_string()];
                lines.extend(compared[index].clone());
                self.wrong(&one.place, format!("{action} was not run{when} as expected"), lines);
                // It is spoken for: telling it again as something else would be noise.
                left.remove(index);
            }
            None => {
                let lines = self.why(one.at, happened).await;
                self.wrong(&one.place, format!("{action} was not run{when}"), lines);
            }
        }
    }

    /// What the rules of the case said about the events at a time, or about the last ones before it.
    async fn why(&self, at: Option<Duration>, happened: &Happened) -> Vec<String> {
        let Subject::Rules(of) = &self.case.subject else { return Vec::new() };
        let since = |event: &StoredEvent| self.world.since_start(event.event.received_at);
        let last = happened.events.iter().map(since).filter(|time| at.is_none_or(|at| *time <= at)).max();
        let mut lines = Vec::new();
        for event in happened.events.iter().filter(|event| Some(since(event)) == last) {
            for (_, rule) in &of.rules {
                let Ok(answer) = why::rule(&self.world.core.engine, rule, event.event.id).await else { continue };
                let verdict = &answer.verdict;
                let at = written(since(event));
                lines.push(format!("  {rule} and {} at {at}: {} - {}", event.event.trigger, verdict.reason.code(), answer.meaning));
                lines.extend(verdict.detail.iter().map(|detail| format!("    {detail}")));
                for one in verdict.criteria.iter().filter(|one| !one.held) {
                    let error = one.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
                    lines.push(format!(
                        "    {} is {}, not {} {}{error}",
                        one.key,
                        diff::compact(&one.value),
                        one.operator,
                        diff::compact(&one.pattern)
                    ));
                }
            }
        }
        if lines.is_empty() {
            lines.push("  no event had come".into());
        }
        lines
    }

    fn expect_said(&mut self, one: &Expectation, expected: &Said, said: &mut Vec<&Message>) {
        let at = |message: &Message| self.world.since_start(message.created_at);
        let fits = |message: &&Message| one.at.is_none_or(|expected| expected == at(message)) && is_said(expected, message);
        if let Some(index) = said.iter().position(fits) {
            said.remove(index);
            return;
        }
        let mut lines = vec![format!("  - {}", wanted(one.at, expected))];
        lines.extend(said.iter().map(|message| format!("  + at {} in {}: {}", written(at(message)), message.channel, message.text)));
        self.wrong(&one.place, "this was not said", lines);
    }

    async fn sensor(&mut self, of: &SensorCase) -> Result<Happened, String> {
        let refused = match &of.call {
            Some(call) => self.call(call).await?.err(),
            None => None,
        };
        self.world.rest().await.map_err(told)?;
        self.world.until(of.until).await.map_err(told)?;
        match (&of.refuses, refused) {
            (Some((place, expected)), Some(why)) if !expected.fits(&why) => {
                self.wrong(place, "the webhook says something else", diff::texts("", &expected.to_string(), &why));
            }
            (Some((place, _)), None) => self.wrong(place, "the webhook was to refuse the call, and took it", Vec::new()),
            (None, Some(why)) => self.wrong(&of.sensor.0, "the webhook refuses the call", vec![format!("  + {why}")]),
            _ => {}
        }
        let happened = self.happened().await?;
        if let Some(failure) = self.failure(&of.sensor.1) {
            self.played.story.push(format!("{} fails: {failure}", of.sensor.1));
        }
        for (index, expected) in of.emits.iter().enumerate() {
            match happened.events.get(index) {
                Some(event) => self.emitted(expected, event),
                None => self.wrong(&expected.place, "this event is not emitted", vec![format!("  {} events are", happened.events.len())]),
            }
        }
        for event in happened.events.iter().skip(of.emits.len()) {
            let (at, event) = (written(self.world.since_start(event.event.received_at)), &event.event);
            let line = format!("  + at {at} {} {}", event.trigger, diff::compact(&payload(event)));
            self.wrong(&of.emits_at, "this event is not expected", vec![line]);
        }
        Ok(happened)
    }

    async fn chat(&mut self, of: &ChatCase) -> Result<Happened, String> {
        for (place, line) in &of.say {
            let said = converse::Said {
                adapter: CONSOLE.into(),
                channel: of.channel.clone(),
                key: None,
                text: line.clone(),
                by: Principal::Token(of.by.clone()),
                cause: None,
            };
            match converse::say(&self.world.core.engine, said).await {
                Ok(heard) if !heard.heard => self.wrong(place, "the bot does not feel addressed", Vec::new()),
                Ok(_) => {}
                Err(error) => self.wrong(place, format!("this cannot be said: {error}"), Vec::new()),
            }
            self.world.rest().await.map_err(told)?;
            self.all_ended().await?;
            // So that the replies to one line stand before those to the next.
            let next = self.world.since_start(self.world.now()) + Duration::from_secs(1);
            self.world.until(next).await.map_err(told)?;
        }
        let happened = self.happened().await?;
        let (place, expected) = &of.reply;
        self.messages(place, expected, &happened.messages);
        Ok(happened)
    }

    /// What went wrong with a sensor last.
    fn failure(&self, sensor: &str) -> Option<String> {
        self.world.core.engine.sensors.get(sensor)?.last_error
    }

    fn emitted(&mut self, expected: &Emitted, stored: &StoredEvent) {
        let event = &stored.event;
        let at = self.world.since_start(event.received_at);
        let mut lines = Vec::new();
        if let Some(wanted) = expected.at.filter(|wanted| *wanted != at) {
            lines.extend([format!("  - at {}", written(wanted)), format!("  + at {}", written(at))]);
        }
        if let Some(trigger) = expected.trigger.as_ref().filter(|trigger| **trigger != event.trigger) {
            lines.extend(diff::texts("trigger: ", trigger, &event.trigger));
        }
        let key = event.key.clone().unwrap_or_default();
        if let Some(wanted) = expected.key.as_ref().filter(|wanted| **wanted != key) {
            lines.extend(diff::texts("key: ", wanted, &key));
        }
        let payload = payload(event);
        if let Some(wanted) = expected.payload.as_ref().filter(|wanted| !wanted.differences(&payload).is_empty()) {
            lines.extend(diff::lines(wanted, &payload));
        }
        lines.extend(stored.set_aside.iter().map(|aside| format!("  it was set aside ({}): {}", aside.reason, aside.detail)));
        if !lines.is_empty() {
            self.wrong(&expected.place, "the event is another one", lines);
        }
    }

    /// Compares the requests that were sent with those that were expected.
    fn requests(&mut self) {
        let scripted = std::sync::Arc::clone(&self.world.scripted);
        let mut told = BTreeSet::new();
        for sent in scripted.sent().iter().filter(|sent| sent.met.is_none()) {
            let (place, lines) = nearest(&scripted, sent, &self.case.place);
            self.wrong(&place, format!("{} is not expected", address(sent)), lines);
            told.insert(place);
        }
        for (exchange, met) in scripted.unmet().into_iter().filter(|(exchange, _)| !told.contains(&exchange.place)) {
            let how = if met == 0 { "did not come".to_string() } else { format!("came {met} times, not {}", exchange.times) };
            self.wrong(&exchange.place, format!("{} {} {how}", exchange.method, exchange.path), Vec::new());
        }
    }

    fn messages(&mut self, place: &Place, expected: &[Said], got: &[Message]) {
        let fits = expected.len() == got.len() && expected.iter().zip(got).all(|(expected, message)| is_said(expected, message));
        if fits {
            return;
        }
        let mut lines = Vec::new();
        for index in 0..expected.len().max(got.len()) {
            match (expected.get(index), got.get(index)) {
                (Some(expected), Some(message)) if is_said(expected, message) => {
                    lines.push(format!("    {}: {}", message.channel, message.text));
                }
                (expected, message) => {
                    if let (Some(expected), Some(message)) = (expected, message)
                        && expected.channel.as_ref().is_none_or(|channel| *channel == message.channel)
                    {
                        lines.extend(diff::texts("", &expected.text.to_string(), &message.text));
                        continue;
                    }
                    lines.extend(expected.map(|expected| format!("  - {}", wanted(None, expected))));
                    lines.extend(message.map(|message| format!("  + {}: {}", message.channel, message.text)));
                }
            }
        }
        self.wrong(place, "something else was said", lines);
    }

    async fn keys(&mut self) -> Result<(), String> {
        let case = self.case;
        for (place, scope, expected) in &case.keys_after {
            let listed = keys::list(&self.world.core.engine, scope, "", None, LOOKED_AT).await;
            let (listed, _) = listed.map_err(|error| error.to_string())?;
            let keys = Value::Object(listed.into_iter().map(|(name, entry)| (name, entry.value)).collect::<Map<_, _>>());
            if !expected.differences(&keys).is_empty() {
                self.wrong(place, format!("the keys of `{scope}` are others"), diff::lines(expected, &keys));
            }
        }
        Ok(())
    }

    /// Notes for people what happened, and what was touched.
    fn note(&mut self, happened: &Happened) {
        let since = |at| written(self.world.since_start(at));
        let story = &mut self.played.story;
        for (number, sent) in self.world.scripted.sent().iter().enumerate() {
            let met = sent.met.and_then(|index| self.world.scripted.exchanges().get(index));
            let met = met.map_or("not expected".into(), |exchange| format!("as in line {}", exchange.place.line));
            story.push(format!("request {} at {}: {} - {met}", number + 1, since(sent.at), address(sent)));
        }
        for execution in &happened.executions {
            let state = &execution.state;
            story.push(format!("{} at {}: {}", execution.request.action, since(execution.request.requested_at), state.status.name()));
            story.extend(state.log.iter().map(|line| format!("  {} {}: {}", since(line.at), line.level, line.text)));
        }
        let carried_out = !matches!(&self.case.subject, Subject::Rules(of) if !of.carry_out);
        let touched = &mut self.played.touched;
        if carried_out {
            touched.actions.extend(happened.executions.iter().map(|execution| execution.request.action.clone()));
        }
        if let Subject::Rules(of) = &self.case.subject {
            touched.tried.extend(of.rules.iter().map(|(_, rule)| rule.clone()));
            let by_rule = |execution: &Execution| {
                if let Principal::Rule(rule) = &execution.request.requested_by { Some(rule.clone()) } else { None }
            };
            touched.matched.extend(happened.executions.iter().filter_map(by_rule).collect::<BTreeSet<_>>());
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "given to map_err")]
fn told(stuck: Stuck) -> String {
    stuck.to_string()
}

/// Where a message stands among those of the same moment, whose ids say nothing of it: answers, what scripts say, how it ended.
fn order(message: &Message, answers: &BTreeSet<MessageId>) -> (u32, u32) {
    let Some(execution) = message.execution.filter(|_| !answers.contains(&message.id)) else { return (0, 0) };
    let said = (0..MAX_MESSAGES).find(|index| message.id == MessageId::of_execution(execution, "script", *index));
    said.map_or((2, 0), |index| (1, index))
}

fn payload(event: &crate::model::event::Event) -> Value {
    event.payload.value().unwrap_or_default()
}

fn is_said(expected: &Said, message: &Message) -> bool {
    expected.channel.as_ref().is_none_or(|channel| *channel == message.channel) && expected.text.fits(&message.text)
}

fn wanted(at: Option<Duration>, said: &Said) -> String {
    let at = at.map(|at| format!("at {} ", written(at))).unwrap_or_default();
    let channel = said.channel.as_ref().map(|channel| format!("in {channel}: ")).unwrap_or_default();
    format!("{at}{channel}{}", said.text)
}

fn address(sent: &Sent) -> String {
    let origin = sent.origin.strip_prefix("http:").and_then(|rest| rest.strip_suffix(":80")).map(|rest| format!("http:{rest}"));
    let origin = origin.or_else(|| sent.origin.strip_prefix("https:")?.strip_suffix(":443").map(|rest| format!("https:{rest}")));
    format!("{} {}{}", sent.method, origin.as_ref().unwrap_or(&sent.origin), sent.path)
}

/// Which expectation a request nearly met, and where it differs.
fn nearest(scripted: &Scripted, sent: &Sent, case: &Place) -> (Place, Vec<String>) {
    // Method and path make a request what it is; then it is the number of differences.
    let distance = |exchange: &&Exchange| {
        let differences = exchange.differences(sent);
        (differences.iter().filter(|one| ["method", "origin", "path"].contains(&one.path.as_str())).count(), differences.len())
    };
    let Some(exchange) = scripted.exchanges().iter().min_by_key(distance) else {
        return (case.clone(), vec!["  no request is expected at all".into()]);
    };
    let differences = exchange.differences(sent);
    if differences.is_empty() {
        let why = "  it is like this one, which has come often enough, or whose turn it is not (`times`, `http_order: any`)";
        return (exchange.place.clone(), vec![why.into()]);
    }
    let mut lines = vec![format!("  the nearest is this one, {} {}", exchange.method, exchange.path)];
    lines.extend(diff::told(&differences).into_iter().map(|line| format!("    {line}")));
    (exchange.place.clone(), lines)
}
