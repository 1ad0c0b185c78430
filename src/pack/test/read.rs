//! Reads test files, with all faults at once.

use std::time::Duration;

use chrono::{DateTime, TimeZone, Utc};
use serde_json::{Map, Value};

use super::shape::{self, MAX_CASES};
use super::{
    ActionCase, Call, Case, ChatCase, Emitted, Expectable, Expectation, Failing, Occurrence, Outcome, RuleCase, Said, SensorCase, Settings,
    Subject, TestFile, What,
};
use crate::document::fault::SourceFile;
use crate::document::fields::{Faults, Fields, did_you_mean, has};
use crate::document::node::{Content, Key, Node};
use crate::document::shape::Shape;
use crate::expect::{Expected, Extent, Wording};
use crate::model::datastore::Scope;
use crate::model::place::Place;
use crate::model::reason::Reason;
use crate::outbound::Reply;
use crate::outbound::scripted::{Answer, Body, Exchange};

/// When a case begins unless it says otherwise: a Monday morning.
fn start() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 1, 5, 8, 0, 0).single().unwrap_or_default()
}

/// Reads a test file; nothing if it is no map.
pub fn read(source: &SourceFile, node: &Node, pack: &str, faults: &mut Faults) -> Option<TestFile> {
    let mut fields = Fields::of(source, node, &shape::TEST, faults)?;
    fields.text("description");
    let settings = settings(&mut fields, pack, &Settings::default());
    let now = time(&mut fields, "now").unwrap_or_else(start);
    let mut cases: Vec<Case> = Vec::new();
    let nodes = match fields.node("cases").map(|node| (&node.content, node)) {
        Some((Content::List(nodes), _)) => nodes.as_slice(),
        Some((_, node)) => {
            fields.fault(node, format!("`cases` must be a list, not {}", node.kind()));
            &[]
        }
        None => &[],
    };
    if nodes.len() > MAX_CASES {
        fields.fault(&nodes[MAX_CASES], format!("a test file has at most {MAX_CASES} cases; begin another one"));
    }
    for node in nodes.iter().take(MAX_CASES) {
        let Some(case) = case(source, node, pack, &settings, now, fields.faults) else { continue };
        if let Some(first) = cases.iter().find(|first| first.name == case.name) {
            let message = format!("there is a case `{}` already, in line {}", case.name, first.place.line);
            fields.fault(node, message);
        }
        cases.push(case);
    }
    fields.finish();
    Some(TestFile { path: source.path.to_string(), pack: pack.to_string(), cases })
}

/// The settings of the pack itself, of others, and the channels; what is not said is as in `base`.
fn settings(fields: &mut Fields<'_, '_>, pack: &str, base: &Settings) -> Settings {
    let mut settings = base.clone();
    let mut set = |pack: &str, values: Map<String, Value>| {
        settings.packs.retain(|(name, _)| name != pack);
        settings.packs.push((pack.to_string(), values));
    };
    if fields.node("config").is_some() {
        set(pack, fields.object("config"));
    }
    for (key, node) in fields.map("config_of") {
        match node.value() {
            Value::Object(values) => set(&key.text, values),
            _ => fields.fault(node, format!("`config_of.{}` must be a map, not {}", key.text, node.kind())),
        }
    }
    settings.channels.extend(fields.texts("channels").into_iter().map(|(name, _)| name));
    settings.packs.sort_by(|a, b| a.0.cmp(&b.0));
    settings
}

fn time(fields: &mut Fields<'_, '_>, name: &'static str) -> Option<DateTime<Utc>> {
    let text = fields.text(name)?;
    let parsed = DateTime::parse_from_rfc3339(&text);
    if parsed.is_err()
        && let Some(node) = fields.node(name)
    {
        fields.fault(node, format!("`{name}` must be a time such as 2026-01-05T08:00:00Z, not `{text}`"));
    }
    parsed.ok().map(|time| time.to_utc())
}

/// What tells one kind of case from another.
const SUBJECTS: &[(&str, &Shape)] =
    &[("action", &shape::ACTION_CASE), ("rule", &shape::RULE_CASE), ("sensor", &shape::SENSOR_CASE), ("say", &shape::CHAT_CASE)];

/// The shape of a case, by what it tests; a fault if that is not one thing.
fn shape_of(source: &SourceFile, node: &Node, faults: &mut Faults) -> Option<&'static Shape> {
    let Content::Map(pairs) = &node.content else {
        faults.push(source.fault(node.line, node.column, format!("a case must be a map, not {}", node.kind())));
        return None;
    };
    let given: Vec<_> = SUBJECTS.iter().filter(|(name, _)| has(pairs, name)).collect();
    if let [(_, shape)] = given[..] {
        return Some(shape);
    }
    let names: Vec<&str> = given.iter().map(|(name, _)| *name).collect();
    faults.push(source.fault(
        node.line,
        node.column,
        match names[..] {
            [] => "a case needs one of `action`, `rule`, `sensor` and `say`: what it tests".to_string(),
            _ => format!("a case tests one thing; `{}` stand beside each other", names.join("` and `")),
        },
    ));
    // Where it is not known what it tests, none of the fields of any kind is wrong.
    let known: Vec<&str> = SUBJECTS.iter().flat_map(|(_, shape)| shape.names()).collect();
    for (key, _) in pairs.iter().filter(|(key, _)| !known.contains(&key.text.as_str())) {
        let fault = source.fault(key.line, key.column, format!("a case has no field `{}`", key.text));
        faults.push(fault.hint(did_you_mean(&key.text, &known)));
    }
    None
}

fn case(source: &SourceFile, node: &Node, pack: &str, base: &Settings, now: DateTime<Utc>, faults: &mut Faults) -> Option<Case> {
    let shape = shape_of(source, node, faults)?;
    let mut fields = Fields::of(source, node, shape, faults)?;
    let name = fields.text("name");
    let settings = settings(&mut fields, pack, base);
    let now = time(&mut fields, "now").unwrap_or(now);
    let keys = keys(&mut fields);
    let mut keys_after = expected_keys(&mut fields, "keys_after", Extent::Whole);
    keys_after.extend(expected_keys(&mut fields, "keys_after_with", Extent::Part));
    let http_in_order = fields.word("http_order") != Some("any");
    let http = fields.list("http").iter().filter_map(|node| exchange(source, node, fields.faults)).collect();
    let messages = fields.node("messages").map(|node| {
        let said = fields.list("messages").iter().filter_map(|node| said(source, node, fields.faults)).collect();
        (fields.place(node), said)
    });
    let subject = if fields.has("action") {
        action(&mut fields).map(Subject::Action)
    } else if fields.has("rule") {
        Some(Subject::Rules(rules(&mut fields)))
    } else if fields.has("say") {
        chat(&mut fields).map(Subject::Chat)
    } else {
        sensor(&mut fields).map(Subject::Sensor)
    };
    let place = fields.place(node);
    fields.finish();
    Some(Case { name: name?, place, settings, now, keys, keys_after, http, http_in_order, messages, subject: subject? })
}

/// The scope that a key of a map names.
fn scope(fields: &mut Fields<'_, '_>, key: &Key) -> Option<Scope> {
    let fault = |message: String| fields.faults.push(fields.source.fault(key.line, key.column, message));
    key.text.parse().map_err(fault).ok()
}

fn keys(fields: &mut Fields<'_, '_>) -> Vec<(Scope, String, Value)> {
    let mut keys = Vec::new();
    for (key, node) in fields.map("keys") {
        let Some(scope) = scope(fields, key) else { continue };
        match node.value() {
            Value::Object(values) => keys.extend(values.into_iter().map(|(name, value)| (scope.clone(), name, value))),
            _ => fields.fault(node, format!("`keys.{}` must be a map of names and values; the first level names the scope", key.text)),
        }
    }
    keys
}

fn expected_keys(fields: &mut Fields<'_, '_>, name: &'static str, extent: Extent) -> Vec<(Place, Scope, Expected)> {
    let mut found = Vec::new();
    for (key, node) in fields.map(name) {
        let Some(scope) = scope(fields, key) else { continue };
        if !matches!(node.content, Content::Map(_)) {
            fields.fault(node, format!("`{name}.{}` must be a map of names and values; the first level names the scope", key.text));
        } else if let Some(expected) = expected(fields, node, extent) {
            found.push((fields.place(node), scope, expected));
        }
    }
    found
}

fn expected(fields: &mut Fields<'_, '_>, node: &Node, extent: Extent) -> Option<Expected> {
    Expected::new(&node.value(), extent).map_err(|message| fields.fault(node, message)).ok()
}

/// What is expected of a value: all of it under one name, a part of it under the other.
fn whole_or_part(fields: &mut Fields<'_, '_>, whole: &'static str, part: &'static str) -> Option<(Place, Expected)> {
    let (all, some) = (fields.node(whole), fields.node(part));
    if let (Some(_), Some(node)) = (all, some) {
        fields.fault(node, format!("`{part}` stands beside `{whole}`; one of them is enough"));
    }
    let (node, extent) = all.map(|node| (node, Extent::Whole)).or(some.map(|node| (node, Extent::Part)))?;
    Some((fields.place(node), expected(fields, node, extent)?))
}

fn wording(fields: &mut Fields<'_, '_>, name: &'static str) -> Option<(Place, Wording)> {
    let text = fields.text(name)?;
    let node = fields.node(name)?;
    let place = fields.place(node);
    Wording::new(&text).map_err(|message| fields.fault(node, message)).ok().map(|wording| (place, wording))
}

fn reference(fields: &mut Fields<'_, '_>, name: &'static str) -> Option<(Place, String)> {
    let text = fields.text(name)?;
    fields.node(name).map(|node| (fields.place(node), text))
}

fn action(fields: &mut Fields<'_, '_>) -> Option<ActionCase> {
    let action = reference(fields, "action");
    let parameters = fields.object("parameters");
    let succeeds = whole_or_part(fields, "succeeds", "succeeds_with").map(|(place, expected)| Outcome::Succeeds(place, expected));
    let fails = fields.node("fails").map(|node| Outcome::Fails(fields.place(node), failing(fields.source, node, fields.faults)));
    let mut log = Vec::new();
    for (text, place) in fields.texts("log") {
        match Wording::new(&text) {
            Ok(wording) => log.push((place, wording)),
            Err(message) => fields.faults.push(fields.source.fault(place.line, place.column, message)),
        }
    }
    let attempts = fields.count("attempts").and_then(|count| Some((fields.node("attempts")?, count)));
    let attempts = attempts.map(|(node, count)| (fields.place(node), count));
    let plan = wording(fields, "plan");
    let outcome = match (succeeds, fails) {
        (Some(_), Some(_)) => {
            fields.fault_here("`succeeds` and `fails` stand beside each other; an action does one of them");
            None
        }
        (None, None) => {
            if !["succeeds", "succeeds_with", "fails", "plan"].iter().any(|name| fields.node(name).is_some()) {
                let advice = "a case of an action needs `succeeds`, `succeeds_with`, `fails` or `plan`; `succeeds_with: {}` is any result";
                fields.fault_here(advice);
            }
            None
        }
        (outcome, other) => outcome.or(other),
    };
    Some(ActionCase { action: action?, parameters, plan, outcome, log, attempts })
}

fn failing(source: &SourceFile, node: &Node, faults: &mut Faults) -> Failing {
    let Some(mut fields) = Fields::of(source, node, &shape::FAILS, faults) else { return Failing::default() };
    let reason = fields.text("reason");
    if let Some(reason) = &reason
        && let Some(node) = fields.node("reason")
        && !Reason::ALL.iter().any(|known| known.code() == reason)
    {
        let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        let fault = source.fault(node.line, node.column, format!("there is no reason `{reason}`"));
        let hint = crate::document::fault::nearest(reason, known.iter().copied());
        fields.faults.push(fault.hint(hint.map_or("docs/reference/reasons.md lists them".into(), |_| did_you_mean(reason, &known))));
    }
    let message = wording(&mut fields, "message").map(|(_, wording)| wording);
    fields.finish();
    Failing { reason, message }
}

fn rules(fields: &mut Fields<'_, '_>) -> RuleCase {
    let rules = text_or_texts(fields, "rule");
    let mut events: Vec<Occurrence> = Vec::new();
    for node in fields.list("events") {
        let Some(occurrence) = occurrence(fields.source, node, fields.faults) else { continue };
        if events.last().is_some_and(|last| last.at > occurrence.at) {
            fields.fault(node, "the events must stand in the order of their `at`");
        }
        events.push(occurrence);
    }
    let mut expect = Vec::new();
    let nodes = fields.list("expect");
    // An empty list says that nothing happens.
    let mut nothing_else = fields.node("expect").filter(|_| nodes.is_empty()).map(|node| fields.place(node));
    for node in nodes {
        if matches!(&node.content, Content::Map(pairs) if has(pairs, NOTHING_ELSE)) {
            read_nothing_else(fields.source, node, fields.faults);
            nothing_else = Some(fields.place(node));
        } else {
            expect.extend(expectation(fields.source, node, fields.faults));
        }
    }
    let carry_out = fields.boolean("carry_out").unwrap_or(false);
    let until = fields.duration("until").unwrap_or_default();
    let last = expect.iter().filter_map(|one| one.at).chain(events.last().map(|last| last.at)).max().unwrap_or_default();
    RuleCase { rules, events, expect, nothing_else, carry_out, until: until.max(last) }
}

fn occurrence(source: &SourceFile, node: &Node, faults: &mut Faults) -> Option<Occurrence> {
    let is_call = matches!(&node.content, Content::Map(pairs) if has(pairs, "webhook"));
    let mut fields = Fields::of(source, node, if is_call { &shape::CALL } else { &shape::EVENT }, faults)?;
    let at = fields.duration("at").unwrap_or_default();
    let what = if is_call {
        call(&mut fields, "webhook").map(What::Call)
    } else {
        let trigger = fields.text("trigger");
        let payload = Value::Object(fields.object("payload"));
        let key = fields.text("key");
        let late = fields.duration("late").unwrap_or_default();
        trigger.map(|trigger| What::Event { trigger, payload, key, late })
    };
    let place = fields.place(node);
    fields.finish();
    Some(Occurrence { place, at, what: what? })
}

fn call(fields: &mut Fields<'_, '_>, name: &'static str) -> Option<Call> {
    let sensor = reference(fields, name);
    let headers = fields.object("headers");
    let body = match fields.node("body")?.value() {
        Value::String(text) => text,
        value => value.to_string(),
    };
    Some(Call { sensor: sensor?, headers, body })
}

/// The expectation that there is nothing that no other one expects.
const NOTHING_ELSE: &str = "nothing_else";

fn read_nothing_else(source: &SourceFile, node: &Node, faults: &mut Faults) {
    let Some(mut fields) = Fields::of(source, node, &shape::NOTHING_ELSE, faults) else { return };
    if fields.boolean(NOTHING_ELSE) == Some(false) {
        fields.fault_here("`nothing_else: false` says nothing; leave it out");
    }
    fields.finish();
}

fn expectation(source: &SourceFile, node: &Node, faults: &mut Faults) -> Option<Expectation> {
    let is = |name: &str| matches!(&node.content, Content::Map(pairs) if has(pairs, name));
    let shape = match (is("runs"), is("said")) {
        (true, false) => &shape::RUNS,
        (false, true) => &shape::SAID,
        _ => {
            let message = "an expectation is one of `runs: ACTION`, `said: TEXT` and `nothing_else: true`";
            faults.push(source.fault(node.line, node.column, message));
            return None;
        }
    };
    let mut fields = Fields::of(source, node, shape, faults)?;
    let place = fields.place(node);
    let at = fields.duration("at");
    let what = if is("runs") {
        let action = fields.text("runs");
        let parameters = whole_or_part(&mut fields, "parameters", "parameters_with").map(|(_, expected)| expected);
        action.map(|action| Expectable::Runs { action, parameters })
    } else {
        let channel = fields.text("channel");
        wording(&mut fields, "said").map(|(place, text)| Expectable::Said(Said { place, channel, text }))
    };
    fields.finish();
    Some(Expectation { place, at, what: what? })
}

/// A message: its text alone, or with its channel.
fn said(source: &SourceFile, node: &Node, faults: &mut Faults) -> Option<Said> {
    if let Content::Scalar { value: Value::String(text), .. } = &node.content {
        let wording = Wording::new(text).map_err(|message| faults.push(source.fault(node.line, node.column, message)));
        return wording.ok().map(|text| Said { place: source.place(node.line, node.column), channel: None, text });
    }
    let mut fields = Fields::of(source, node, &shape::MESSAGE, faults)?;
    let channel = fields.text("channel");
    let text = wording(&mut fields, "text");
    let place = fields.place(node);
    fields.finish();
    Some(Said { place, channel, text: text?.1 })
}

fn chat(fields: &mut Fields<'_, '_>) -> Option<ChatCase> {
    let say = text_or_texts(fields, "say");
    let mut replies = Vec::new();
    for (text, place) in fields.texts("reply") {
        match Wording::with_ids(&text) {
            Ok(text) => replies.push(Said { place, channel: None, text }),
            Err(message) => fields.faults.push(fields.source.fault(place.line, place.column, message)),
        }
    }
    let channel = fields.text("channel");
    let by = fields.text("by").unwrap_or_else(|| "test".into());
    let place = fields.node("reply").map(|node| fields.place(node));
    Some(ChatCase { say, channel, by, reply: (place?, replies) })
}

/// One text, or a list of texts.
fn text_or_texts(fields: &mut Fields<'_, '_>, name: &'static str) -> Vec<(Place, String)> {
    match fields.node(name).map(|node| &node.content) {
        Some(Content::List(_)) => fields.texts(name).into_iter().map(|(text, place)| (place, text)).collect(),
        _ => reference(fields, name).into_iter().collect(),
    }
}

fn sensor(fields: &mut Fields<'_, '_>) -> Option<SensorCase> {
    let sensor = reference(fields, "sensor");
    let call = if fields.has("body") {
        call(fields, "sensor")
    } else {
        fields.node("body");
        if let Some(node) = fields.node("headers") {
            fields.fault(node, "`headers` stand without a `body`");
        }
        None
    };
    let until = fields.duration("until").unwrap_or_default();
    let refuses = wording(fields, "refuses");
    let emits_at = fields.node("emits").map(|node| fields.place(node));
    let mut emits = Vec::new();
    for node in fields.list("emits") {
        emits.extend(emitted(fields.source, node, fields.faults));
    }
    if emits_at.is_none() && refuses.is_none() {
        fields.fault_here("a case of a sensor needs `emits`, the list of its events; `emits: []` is none");
    }
    let last = emits.iter().filter_map(|one: &Emitted| one.at).max().unwrap_or_default();
    let (place, sensor) = sensor?;
    let emits_at = emits_at.unwrap_or_else(|| place.clone());
    Some(SensorCase { sensor: (place, sensor), call, until: until.max(last), emits, emits_at, refuses })
}

fn emitted(source: &SourceFile, node: &Node, faults: &mut Faults) -> Option<Emitted> {
    let mut fields = Fields::of(source, node, &shape::EMITTED, faults)?;
    let at = fields.duration("at");
    let (trigger, key) = (fields.text("trigger"), fields.text("key"));
    let payload = whole_or_part(&mut fields, "payload", "payload_with").map(|(_, expected)| expected);
    let place = fields.place(node);
    fields.finish();
    Some(Emitted { place, at, trigger, key, payload })
}

fn exchange(source: &SourceFile, node: &Node, faults: &mut Faults) -> Option<Exchange> {
    let mut fields = Fields::of(source, node, &shape::REQUEST, faults)?;
    let expected = reference(&mut fields, "expect");
    let query = whole_or_part(&mut fields, "query", "query_with").map(|(_, expected)| expected);
    let headers = fields.node("headers").and_then(|node| {
        let lower = fields.object("headers").into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
        Expected::new(&Value::Object(lower.collect()), Extent::Part).map_err(|message| fields.fault(node, message)).ok()
    });
    let json = whole_or_part(&mut fields, "json", "json_with").map(|(_, expected)| Body::Json(expected));
    let text = wording(&mut fields, "body").map(|(_, wording)| Body::Text(wording));
    if json.is_some() && text.is_some() {
        fields.fault_here("`json` and `body` stand beside each other; a request has one body");
    }
    let times = fields.count("times").map_or(1, |times| u32::try_from(times).unwrap_or(u32::MAX));
    let after = fields.duration("after").unwrap_or_default();
    let reply = fields.node("reply").map(|node| reply(source, node, fields.faults));
    let unreachable = fields.text("unreachable");
    let answer = match (reply, unreachable) {
        (Some(_), Some(_)) => {
            fields.fault_here("`reply` and `unreachable` stand beside each other; a request has one of them");
            None
        }
        (_, Some(why)) => Some(Answer::Unreachable(why)),
        (Some(reply), None) => reply.map(Answer::Reply),
        (None, None) => Some(Answer::Reply(Reply { status: 200, headers: Map::new(), body: Vec::new() })),
    };
    fields.finish();
    let ((place, expected), answer) = (expected?, answer?);
    let (line, column) = (place.line, place.column);
    let exchange = Exchange::of(place, &expected, answer).map_err(|message| faults.push(source.fault(line, column, message))).ok()?;
    let query = query.or(exchange.query);
    Some(Exchange { query, headers, body: json.or(text), times, after, ..exchange })
}

fn reply(source: &SourceFile, node: &Node, faults: &mut Faults) -> Option<Reply> {
    let mut fields = Fields::of(source, node, &shape::REPLY, faults)?;
    let status = fields.count("status").unwrap_or(200);
    let mut headers: Map<String, Value> =
        fields.object("headers").into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    let body = match (fields.node("json"), fields.text("body")) {
        (Some(_), Some(_)) => {
            fields.fault_here("`json` and `body` stand beside each other; a reply has one body");
            Vec::new()
        }
        (Some(json), None) => {
            headers.entry("content-type").or_insert_with(|| "application/json".into());
            json.value().to_string().into_bytes()
        }
        (None, body) => body.unwrap_or_default().into_bytes(),
    };
    fields.finish();
    Some(Reply { status: u16::try_from(status).unwrap_or(200), headers, body })
}

/// The span of an `at`, as people write it.
#[must_use]
pub fn written(span: Duration) -> String {
    let ms = span.as_millis();
    if ms.is_multiple_of(1_000) { format!("{}s", ms / 1_000) } else { format!("{ms}ms") }
}
