//! Banks of rules, and events for them, the same every time. All rules of a bank listen to one trigger.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::model::event::Event;
use crate::model::ids::IdSource;
use crate::model::json::RawJson;
use crate::model::place::Spot;
use crate::model::rule::{Criterion, DEFAULT_CEILING, DEFAULT_LATE, Mode, Operator, Rule, Source, Window, WindowKind};
use crate::rule::book::CompiledRule;

/// Events of a bank; they come round again.
pub const EVENTS: usize = 10_000;

/// Length of a payload, in bytes.
const PAYLOAD_BYTES: usize = 500;

const TRIGGER: &str = "bench.alert";

/// Values of each of four labels that thousands of rules share.
const COMMON: u64 = 18;

/// Fields with numbers from 0 to 100.
const METRICS: &[&str] = &["cpu", "mem", "disk", "latency"];

/// A kind of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bank {
    /// A quarter each: a pair of values, a value and a narrow range of a number, the beginning of a text, and four values each of which
    /// thousands of rules share. An event matches one rule or none.
    Mixed,
    /// A value that all rules share, and a number in the top two percent. An event matches eight rules on average.
    Thresholds,
    /// A value and a number.
    Plain,
}

/// Every bank with the numbers of rules that it is measured with.
pub const SIZES: &[(Bank, usize)] =
    &[(Bank::Plain, 10), (Bank::Mixed, 1_000), (Bank::Mixed, 100_000), (Bank::Thresholds, 1_000), (Bank::Thresholds, 100_000)];

/// Numbers without a pattern, the same every time.
struct Mixer(u64);

impl Mixer {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }

    /// From zero up to one.
    fn part(&mut self) -> f64 {
        f64::from(u32::try_from(self.below(1 << 30)).unwrap_or(0)) / f64::from(1u32 << 30)
    }
}

impl Bank {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::Thresholds => "thresholds",
            Self::Plain => "plain",
        }
    }

    /// So many rules.
    #[must_use]
    pub fn rules(self, count: usize) -> Vec<Rule> {
        let mut mixer = Mixer(count as u64);
        (0..count).map(|number| rule(number, self.criteria(number as u64, count as u64, &mut mixer))).collect()
    }

    /// The same, compiled.
    ///
    /// # Panics
    /// Never: the rules are faultless.
    #[must_use]
    pub fn compiled(self, count: usize) -> Vec<CompiledRule> {
        self.rules(count).into_iter().map(|rule| CompiledRule::compile(rule).expect("the rules are faultless")).collect()
    }

    fn criteria(self, number: u64, count: u64, mixer: &mut Mixer) -> Vec<Criterion> {
        use Operator::{Equals, Greaterthan, Lessthan, Startswith};
        let apps = apps(count);
        match self {
            Self::Mixed => match number % 4 {
                0 => vec![
                    criterion("labels.app", Equals, json!(format!("app-{}", mixer.below(apps)))),
                    criterion("labels.alertname", Equals, json!(format!("alert-{}", mixer.below(apps)))),
                ],
                1 => {
                    let low = mixer.part() * 100.0;
                    vec![
                        criterion("labels.app", Equals, json!(format!("app-{}", mixer.below(apps)))),
                        criterion("metrics.latency#low", Greaterthan, json!(low)),
                        criterion("metrics.latency#high", Lessthan, json!(low + 0.2)),
                    ]
                }
                2 => vec![criterion("labels.host", Startswith, json!(format!("rack-{}-", mixer.below(count * 4))))],
                _ => ["env", "region", "team", "severity"]
                    .iter()
                    .map(|label| criterion(&format!("labels.{label}"), Equals, json!(format!("{label}-{}", mixer.below(COMMON)))))
                    .collect(),
            },
            Self::Thresholds => {
                let metric = METRICS[usize::try_from(mixer.below(METRICS.len() as u64)).unwrap_or(0)];
                // So near to the top that, of the rules of a metric, two are passed on average.
                let exponent = f64::from(u32::try_from(count).unwrap_or(u32::MAX)) * 0.02 / 8.0 - 1.0;
                let threshold = 100.0 - 2.0 * mixer.part().powf(exponent);
                vec![
                    criterion("labels.kind", Equals, json!("host")),
                    criterion(&format!("metrics.{metric}"), Greaterthan, json!(threshold)),
                ]
            }
            Self::Plain => {
                vec![criterion("labels.app", Equals, json!(format!("app-{number}"))), criterion("metrics.cpu", Greaterthan, json!(80))]
            }
        }
    }

    /// Events for so many rules.
    #[must_use]
    pub fn events(self, count: usize) -> Vec<Event> {
        let mut mixer = Mixer(1);
        let ids = IdSource::seeded(1);
        let apps = if self == Self::Plain { count as u64 } else { apps(count as u64) };
        (0..EVENTS).map(|_| event(&ids, &payload(apps, count as u64, &mut mixer))).collect()
    }
}

/// A rule that counts events of hosts.
pub(super) fn counting() -> Rule {
    let criteria = vec![criterion("labels.kind", Operator::Equals, json!("host"))];
    let by = Source { value: "{{trigger.labels.host}}".into(), at: Spot::default() };
    let kind = WindowKind::Count { count: 3, within: std::time::Duration::from_secs(86_400), consecutive: false };
    Rule { window: Some(Box::new(Window { kind, by: Some(by) })), ..rule(0, criteria) }
}

/// An event of a host.
pub(super) fn of_host(ids: &IdSource, host: &str, at: DateTime<Utc>) -> Event {
    let mut value: Value = serde_json::from_str(&payload(1_000, 100_000, &mut Mixer(1))).unwrap_or_default();
    value["labels"]["host"] = json!(host);
    Event { id: ids.event(at), ..event(ids, &value.to_string()) }
}

/// So many that about every fourth event has a pair of them that some rule wants.
fn apps(count: u64) -> u64 {
    (count / 4).isqrt().max(1) * 2
}

fn criterion(field: &str, operator: Operator, pattern: Value) -> Criterion {
    Criterion { key: format!("trigger.{field}").into(), operator, pattern, condition: None }
}

/// As a file of the site would give it.
fn rule(number: usize, criteria: Vec<Criterion>) -> Rule {
    let source = |value: &str, line| Source { value: json!(value), at: Spot::new(line, 9) };
    Rule {
        reference: format!("bench.rule_{number}").into(),
        description: "Tells the channel of those who are on call.".into(),
        enabled: true,
        mode: Mode::Active,
        trigger: TRIGGER.into(),
        trigger_parameters: [].into(),
        criteria: criteria.into(),
        at_least: None,
        when: None,
        backstop: false,
        window: None,
        throttle: None,
        late: DEFAULT_LATE,
        ceiling: DEFAULT_CEILING,
        action: "chat.say".into(),
        parameters: [("channel".into(), source("ops", 12)), ("text".into(), source("{{trigger.labels.host}} needs a look", 13))].into(),
        notify: None,
        file: format!("rules/bench/rule_{number}.yaml").into(),
        action_at: Spot::new(1, 1),
        trigger_at: Spot::new(4, 10),
    }
}

fn payload(apps: u64, count: u64, mixer: &mut Mixer) -> String {
    let mut common = |label: &str| format!("{label}-{}", mixer.below(COMMON));
    let mut labels = json!({
        "env": common("env"), "kind": "host", "region": common("region"), "severity": common("severity"), "team": common("team"),
    });
    labels["alertname"] = json!(format!("alert-{}", mixer.below(apps)));
    labels["app"] = json!(format!("app-{}", mixer.below(apps)));
    labels["host"] = json!(format!("rack-{}-{}.dc1.example", mixer.below(count * 4), mixer.below(100)));
    let metrics: serde_json::Map<String, Value> =
        METRICS.iter().map(|name| ((*name).to_string(), json!((mixer.part() * 1e5).round() / 1e3))).collect();
    let mut payload =
        json!({"status": "firing", "starts_at": "2026-03-01T10:00:00.000Z", "labels": labels, "metrics": metrics, "summary": ""});
    let missing = PAYLOAD_BYTES.saturating_sub(payload.to_string().len());
    payload["summary"] = json!("The host answers slowly. ".chars().cycle().take(missing).collect::<String>());
    payload.to_string()
}

fn event(ids: &IdSource, payload: &str) -> Event {
    let at = DateTime::from_timestamp(1_772_359_200, 0).unwrap_or_default();
    Event {
        id: ids.event(at),
        trigger: TRIGGER.into(),
        key: None,
        dedup_key: None,
        occurred_at: at,
        received_at: at,
        source: "bench".into(),
        cause: None,
        depth: 0,
        payload: RawJson::parse(payload).expect("what was written is JSON"),
    }
}
