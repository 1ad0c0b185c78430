//! `prometheus`: the values of several queries, joined by labels, as one event for each label set.
//!
//! [`reply`] reads what Prometheus answers, [`join`] makes rows of it. Here: settings, requests, events, and what is told when a label set
//! is gone.

pub mod join;
pub mod reply;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use self::join::{Joined, Row, join, written};
use self::reply::{Answer, Labels};
use super::settings::{Settings, wrong};
use super::{Sensor, SensorContext, SensorError, SensorKind, SetupFault};
use crate::clock;
use crate::links::percent_encode;
use crate::model::event::{Dedup, NewEvent};
use crate::model::secret::Masks;
use crate::model::sensor::Polling;
use crate::outbound::{self, Outbound, Transport};

/// The kind.
pub const KIND: SensorKind = SensorKind {
    name: "prometheus",
    summary: "emits the values of Prometheus queries, joined by labels",
    example: r#"{"url": "http://127.0.0.1:9090", "every": "15s", "name": "app_load", "join": ["app"], "queries": {"up": "up"}}"#,
    script: "",
    also: &[ABSENT_TRIGGER],
    check: |polling| plan(polling).map(|_| ()),
    build: |polling, surroundings| Ok(Box::new(Prometheus { plan: plan(polling)?, transport: Arc::clone(&surroundings.http) })),
};

/// The trigger of the event that tells that a label set is gone.
pub const ABSENT_TRIGGER: &str = "prometheus.absent";

/// The shortest and the longest pause between two polls.
const EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(86_400));

/// How long all queries of a poll may take unless the settings say otherwise; at least, and at most.
const TIMEOUT: (Duration, Duration, Duration) = (Duration::from_secs(10), Duration::from_millis(100), Duration::from_secs(300));

/// The most queries of a sensor.
const MAX_QUERIES: usize = 20;

/// The most series of a query, and the most label sets of a sensor, unless the settings say otherwise; and at most.
const MAX_SERIES: (usize, usize) = (10_000, 100_000);

/// The largest reply to a query.
const MAX_REPLY_BYTES: usize = 32 << 20;

/// How long it is known that an absence has been told, in case the process ends between event and state.
const MEMORY: Duration = Duration::from_secs(86_400);

struct Prometheus {
    plan: Plan,
    transport: Arc<dyn Transport>,
}

/// The settings, checked.
struct Plan {
    url: String,
    every: Duration,
    timeout: Duration,
    name: String,
    join: Option<Vec<String>>,
    queries: Vec<(String, String)>,
    method: &'static str,
    authorization: Option<String>,
    max_series: usize,
    masks: Masks,
}

fn plan(polling: &Polling) -> Result<Plan, SetupFault> {
    let mut settings = Settings::of("a prometheus sensor", &polling.settings);
    let url = settings.text("url")?;
    let every = settings.duration("every", EVERY.0, EVERY.1)?;
    let timeout = settings.duration("timeout", TIMEOUT.1, TIMEOUT.2)?.unwrap_or(TIMEOUT.0);
    let name = settings.text("name")?;
    let join = settings.texts("join")?;
    let queries = settings.map("queries")?;
    let method = settings.word("method", &["post", "get"])?.unwrap_or("post");
    let bearer = settings.text("bearer")?;
    let basic = settings.map("basic")?;
    let max_series = settings.count("max_series", 1, MAX_SERIES.1)?.unwrap_or(MAX_SERIES.0);
    settings.finish()?;
    let url = url.ok_or_else(|| settings.fault("needs `url`, such as http://127.0.0.1:9090"))?;
    outbound::origin(url).map_err(|message| SetupFault::Setting("url", message))?;
    if url.contains(['?', '#', '@']) {
        let message = "must have no query, and no user or password; for these there are `basic` and `bearer`";
        return Err(SetupFault::Setting("url", message.into()));
    }
    let every = every.ok_or_else(|| settings.fault("needs `every`, such as 15s"))?;
    let queries = queries.filter(|queries| !queries.is_empty());
    let queries = queries.ok_or_else(|| settings.fault("needs `queries`, such as {cpu: 'avg by (app) (cpu)'}"))?;
    if queries.len() > MAX_QUERIES {
        return Err(SetupFault::Setting("queries", format!("has more than {MAX_QUERIES} queries")));
    }
    let text = |(name, query): (&String, &Value)| match query {
        Value::String(query) if !query.trim().is_empty() => Ok((name.clone(), query.clone())),
        other => Err(SetupFault::Setting("queries", format!("`{name}` must be a query as text, not {other}"))),
    };
    let queries = queries.iter().map(text).collect::<Result<_, _>>()?;
    let (authorization, secrets) = authorization(bearer, basic)?;
    let masks = polling.pack.masks.and(&secrets);
    let name = name.map_or_else(|| "prometheus".to_string(), String::from);
    let method = if method == "get" { "GET" } else { "POST" };
    Ok(Plan { url: url.trim_end_matches('/').into(), every, timeout, name, join, queries, method, authorization, max_series, masks })
}

/// The header, and what in it is secret.
fn authorization(bearer: Option<&str>, basic: Option<&Map<String, Value>>) -> Result<(Option<String>, Vec<Value>), SetupFault> {
    match (bearer, basic) {
        (None, None) => Ok((None, Vec::new())),
        (Some(_), Some(_)) => Err(SetupFault::Setting("basic", "stands beside `bearer`; a request has one of them".into())),
        (Some(""), None) => Err(SetupFault::Setting("bearer", "the token is empty".into())),
        (Some(token), None) => Ok((Some(format!("Bearer {token}")), vec![token.into()])),
        (None, Some(basic)) => {
            let mut inner = Settings::of("`basic`", basic);
            let (user, password) = (inner.text("user")?, inner.text("password")?);
            inner.finish()?;
            let (Some(user), Some(password)) = (user, password) else {
                return Err(wrong("basic", "{user: …, password: \"{{config.…}}\"}", &Value::Object(Map::new())));
            };
            let encoded = STANDARD.encode(format!("{user}:{password}"));
            Ok((Some(format!("Basic {encoded}")), vec![password.into(), encoded.into()]))
        }
    }
}

/// What is known from one poll to the next.
#[derive(Default)]
struct Memory {
    /// The label sets that were there. Durable.
    present: BTreeSet<Labels>,
    /// Counts how often `present` was saved. Durable.
    version: u64,
    /// When the last whole poll was.
    last: Option<DateTime<Utc>>,
    /// The warnings that have been logged.
    warned: BTreeSet<String>,
}

#[async_trait]
impl Sensor for Prometheus {
    async fn run(self: Box<Self>, cx: SensorContext) -> Result<(), SensorError> {
        let state = cx.state.load().await.map_err(SensorError)?.unwrap_or_default();
        let mut memory = Memory { version: state["version"].as_u64().unwrap_or(0), ..Memory::default() };
        // Other queries have other label sets: those that were there are not missed.
        if state["asked"] == self.asked() {
            memory.present = serde_json::from_value(state["present"].clone()).unwrap_or_default();
        }
        loop {
            let started = cx.clock.now();
            let polled = tokio::select! { polled = self.poll(&cx, &mut memory) => polled, () = cx.stop.stopped() => return Ok(()) };
            match polled {
                Ok(()) => cx.healthy(),
                Err(why) => cx.failing(self.masked(why)),
            }
            let next = started + chrono::Duration::from_std(self.plan.every).unwrap_or(chrono::Duration::days(1));
            tokio::select! { () = cx.stop.stopped() => return Ok(()), () = cx.clock.sleep_until(next) => {} }
        }
    }
}

impl Prometheus {
    /// Asks all queries at once and emits what they gave. An error does not mean that nothing was emitted.
    async fn poll(&self, cx: &SensorContext, memory: &mut Memory) -> Result<(), String> {
        let answers = join_all(self.plan.queries.iter().map(|(_, query)| self.ask(cx, query))).await;
        let (mut given, mut faults) = (Vec::new(), Vec::new());
        for ((name, _), answer) in self.plan.queries.iter().zip(answers) {
            match answer {
                Ok(answer) => given.push((name.clone(), answer)),
                Err(fault) => faults.push((name.clone(), fault)),
            }
        }
        let joined = join(&given, self.plan.join.as_deref());
        if joined.rows.len() > self.plan.max_series {
            let (sets, most) = (joined.rows.len(), self.plan.max_series);
            return Err(format!("the queries have {sets} label sets together, more than `max_series`, {most}; join by fewer labels"));
        }
        faults.extend(joined.faults.iter().cloned());
        let warnings = warnings(&given);
        for warning in warnings.iter().filter(|warning| !memory.warned.contains(*warning)) {
            tracing::warn!(sensor = cx.name, "Prometheus warns: {}", self.masked(warning.clone()));
        }
        let now = cx.clock.now();
        let mut events: Vec<NewEvent> = joined.rows.values().map(|row| self.sample(cx, row, &warnings, now)).collect();
        let whole = faults.is_empty();
        let gone = if whole { self.gone(cx, memory, &joined, now) } else { Vec::new() };
        events.extend(gone);
        cx.emit(events).await.map_err(|error| error.to_string())?;
        memory.warned = warnings;
        if whole {
            memory.last = Some(now);
            self.remember(cx, memory, joined.rows.into_keys().collect()).await?;
            return Ok(());
        }
        Err(told(&faults))
    }

    async fn ask(&self, cx: &SensorContext, query: &str) -> Result<Answer, String> {
        let plan = &self.plan;
        let form = format!("query={}&timeout={}s", percent_encode(query, b""), plan.timeout.as_secs_f64().ceil());
        let mut request = Outbound::plain(plan.method, &format!("{}/api/v1/query", plan.url));
        if plan.method == "GET" {
            request.url = format!("{}?{form}", request.url);
        } else {
            request.headers.insert("content-type".into(), "application/x-www-form-urlencoded".into());
            request.body = Some(form.into_bytes());
        }
        request.headers.insert("accept".into(), "application/json".into());
        request.headers.extend(plan.authorization.iter().map(|value| ("authorization".to_string(), Value::from(value.as_str()))));
        request.reply_bytes = MAX_REPLY_BYTES;
        let reply = tokio::select! {
            reply = outbound::exchange(&*self.transport, request) => reply.map_err(|failure| format!("failed: {}", failure.message))?,
            () = clock::sleep(&*cx.clock, plan.timeout) => return Err(format!("got no answer from {} within {:?}", plan.url, plan.timeout)),
        };
        reply::read(&reply, plan.max_series, &plan.masks)
    }

    fn sample(&self, cx: &SensorContext, row: &Row, warnings: &BTreeSet<String>, now: DateTime<Utc>) -> NewEvent {
        let at = moment(row.at).unwrap_or(now);
        let mut payload = json!({"query": self.plan.name, "labels": row.labels, "values": row.values, "at": text(at)});
        if !row.special.is_empty() {
            payload["special"] = json!(row.special);
        }
        if !warnings.is_empty() {
            payload["warnings"] = json!(warnings);
        }
        NewEvent { key: Some(self.key(&row.labels)), occurred_at: Some(at), ..cx.event(&payload) }
    }

    /// An event for each label set that was there and is not any more.
    fn gone(&self, cx: &SensorContext, memory: &Memory, joined: &Joined, now: DateTime<Utc>) -> Vec<NewEvent> {
        let gone = memory.present.iter().filter(|labels| !joined.rows.contains_key(*labels));
        let event = |labels: &Labels| {
            let payload = json!({"query": self.plan.name, "labels": labels, "at": text(now), "last_seen": memory.last.map(text)});
            // The same for as long as the state is: should the process end before it is saved, the second event is known as a repeat.
            let key = format!("absent:{}:{}:{}", cx.name, memory.version, written(labels));
            let dedup = Dedup { key, memory: MEMORY, repeats: false, body: None };
            let event = cx.event(&payload);
            NewEvent { trigger: ABSENT_TRIGGER.into(), key: Some(self.key(labels)), occurred_at: Some(now), dedup: Some(dedup), ..event }
        };
        gone.map(event).collect()
    }

    async fn remember(&self, cx: &SensorContext, memory: &mut Memory, present: BTreeSet<Labels>) -> Result<(), String> {
        if present == memory.present {
            return Ok(());
        }
        let version = memory.version + 1;
        cx.state.save(&json!({"asked": self.asked(), "present": present, "version": version})).await?;
        (memory.present, memory.version) = (present, version);
        Ok(())
    }

    /// What the label sets depend on.
    fn asked(&self) -> Value {
        json!({"queries": self.plan.queries, "join": self.plan.join})
    }

    /// What the event is about: `app_load{app="shop"}`.
    fn key(&self, labels: &Labels) -> String {
        format!("{}{}", self.plan.name, written(labels))
    }

    fn masked(&self, mut text: String) -> String {
        self.plan.masks.text(&mut text);
        text
    }
}

/// What is wrong with which queries; where several have the same fault, it is said once.
fn told(faults: &[(String, String)]) -> String {
    let mut queries: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (query, fault) in faults {
        queries.entry(fault).or_default().push(format!("`{query}`"));
    }
    let one = |(fault, queries): (&str, Vec<String>)| {
        format!("{} {} {fault}", if queries.len() == 1 { "query" } else { "queries" }, queries.join(", "))
    };
    queries.into_iter().map(one).collect::<Vec<_>>().join("; ")
}

fn warnings(answers: &[(String, Answer)]) -> BTreeSet<String> {
    answers.iter().flat_map(|(_, answer)| answer.warnings.iter().cloned()).collect()
}

fn text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Seconds since 1970 as a time.
fn moment(seconds: f64) -> Option<DateTime<Utc>> {
    #[allow(clippy::cast_possible_truncation, reason = "what does not fit becomes the largest, which is no date")]
    let ms = (seconds * 1_000.0).round() as i64;
    DateTime::from_timestamp_millis(ms).filter(|_| ms > 0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::pack::Pack;

    fn check(settings: &Value) -> Result<Plan, String> {
        let settings = settings.as_object().unwrap().clone();
        let pack = Arc::new(Pack::named("t"));
        let polling = Polling { kind: "prometheus".into(), settings, script: None, pack, time_zone: chrono_tz::Tz::UTC };
        plan(&polling).map_err(|fault| fault.to_string())
    }

    #[test]
    fn settings_are_checked() {
        let good = json!({"url": "http://p:9090/prom/", "every": "15s", "queries": {"up": "up"}});
        assert_eq!(check(&good).unwrap().url, "http://p:9090/prom");
        let with = |name: &str, value: Value| {
            let mut settings = good.clone();
            settings[name] = value;
            settings
        };
        for (settings, says) in [
            (json!({"every": "15s", "queries": {"up": "up"}}), "needs `url`"),
            (with("url", json!("p:9090")), "is not an http or https address"),
            (with("url", json!("http://u:p@p:9090")), "`url`: must have no query"),
            (with("every", json!("1ms")), "`every`: must be from 1s to 1d"),
            (with("every", Value::Null), "needs `every`"),
            (with("queries", json!({})), "needs `queries`"),
            (with("queries", json!({"up": 1})), "`up` must be a query as text, not 1"),
            (with("join", json!("app")), "`join`: must be a list of texts"),
            (with("method", json!("put")), "`method`: cannot be `put`"),
            (with("max_series", json!(0)), "`max_series`: must be a whole number from 1 to 100000"),
            (with("bearer", json!("")), "the token is empty"),
            (with("basic", json!({"user": "u"})), "`basic`: must be {user"),
            (with("basic", json!({"user": "u", "pasword": "p"})), "`basic` has no setting `pasword`; did you mean `password`?"),
            (with("quries", json!({})), "has no setting `quries`; did you mean `queries`?"),
        ] {
            let error = check(&settings).err().unwrap_or_else(|| panic!("{settings} is refused"));
            assert!(error.contains(says), "{settings}: {error}");
        }
    }

    #[test]
    fn authorization_is_written_as_others_read_it() {
        let header = |bearer, basic: Value| authorization(bearer, basic.as_object()).unwrap().0.unwrap();
        assert_eq!(header(Some("t0ken"), Value::Null), "Bearer t0ken");
        // The example of RFC 7617.
        assert_eq!(header(None, json!({"user": "Aladdin", "password": "open sesame"})), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }

    #[test]
    fn times_of_prometheus() {
        assert_eq!(moment(1_795_159_527.657).map(text).as_deref(), Some("2026-11-20T07:25:27.657Z"));
        assert_eq!((moment(f64::NAN), moment(-1.0), moment(1e300)), (None, None, None));
    }
}
