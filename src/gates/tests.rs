//! Gates one by one, and all of them against a simple model.

#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "small numbers")]

use std::collections::HashSet;

use chrono::DateTime;
use serde_json::json;

use super::*;
use crate::model::ids::IdSource;
use crate::model::place::Place;

fn policy(name: &str, limit: Limit, by: Option<&str>, action: OnReached) -> Arc<CompiledPolicy> {
    let policy = Policy {
        reference: format!("t.{name}"),
        description: String::new(),
        enabled: true,
        resource: "t.a".into(),
        limit,
        by: by.map(String::from),
        action,
        place: Place::default(),
    };
    Arc::new(CompiledPolicy::new(policy).unwrap())
}

fn parameters(app: &str) -> Map<String, Value> {
    json!({"app": app}).as_object().unwrap().clone()
}

const NOBODY: [u64; 0] = [];

struct Case {
    gates: Gates,
    called: Vec<Turn>,
    ids: Vec<ExecutionId>,
    now: i64,
}

impl Case {
    fn new(policies: &[Arc<CompiledPolicy>]) -> Self {
        let source = IdSource::seeded(1);
        let ids = (0..1_000).map(|_| source.execution(DateTime::UNIX_EPOCH)).collect();
        Self { gates: Gates::new(policies), called: Vec::new(), ids, now: 0 }
    }

    fn ask(&mut self, n: usize, app: &str) -> Decision {
        self.gates.ask((n as u64, self.ids[n]), ("t.a", &parameters(app)), self.now, &mut self.called)
    }

    /// `+` starts, `-` is held, `x` is canceled.
    fn asked(&mut self, n: usize, app: &str) -> char {
        match self.ask(n, app) {
            Decision::Start => '+',
            Decision::Hold { .. } => '-',
            Decision::Cancel { .. } => 'x',
            Decision::Fail { detail, .. } => panic!("{detail}"),
        }
    }

    fn ended(&mut self, n: usize, failed: bool) -> Vec<u64> {
        self.gates.ended((n as u64, self.ids[n]), failed, self.now).into_iter().map(|(turn, _)| turn).collect()
    }

    fn due(&mut self) -> Vec<u64> {
        self.gates.due(self.now).into_iter().map(|(turn, _)| turn).collect()
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn concurrency_counts_each_key_and_calls_in_order() {
    let mut case = Case::new(&[policy("one", Limit::Concurrency { threshold: 1 }, Some("{{parameters.app}}"), OnReached::Delay)]);
    assert_eq!(case.asked(1, "a"), '+');
    let held = Decision::Hold { reason: Reason::ConcurrencyReached, detail: "policy `t.one` for `a`: 1 of 1 run".into(), until: None };
    assert_eq!(case.ask(2, "a"), held);
    let held = "policy `t.one` for `a`: 1 of 1 run, 1 wait before it".to_string();
    assert!(matches!(case.ask(3, "a"), Decision::Hold { detail, .. } if detail == held));
    assert_eq!(case.asked(4, "b"), '+', "another key has places of its own");
    assert_eq!(case.ended(1, false), [2]);
    assert_eq!(case.asked(5, "a"), '-', "the place is kept for the one that was called");
    assert_eq!(case.asked(2, "a"), '+');
    let waiter = (3, case.ids[3]);
    assert_eq!(case.gates.gone(waiter, 0), [], "one that waits may go");
    assert_eq!(case.ended(2, true), [5]);
    let waiter = (5, case.ids[5]);
    assert_eq!(case.asked(6, "a"), '-');
    assert_eq!(case.gates.gone(waiter, 0).len(), 1, "the place of one that was called and goes is that of the next");
    assert_eq!(case.asked(6, "a"), '+');
    case.ended(6, false);
    case.ended(4, false);
    assert!(case.gates.doors.is_empty(), "nothing is remembered of keys that mean nothing");
    assert_eq!(case.gates.take_changes(), [], "nothing of it is stored");
}

#[test]
fn rate_counts_any_span_and_survives_a_restart() {
    let policies = [policy("slow", Limit::Rate { limit: 2, per: seconds(10) }, None, OnReached::Delay)];
    let mut case = Case::new(&policies);
    assert_eq!(case.asked(1, ""), '+');
    case.now = 4_000;
    assert_eq!(case.asked(2, ""), '+');
    case.ended(1, false);
    case.now = 9_999;
    let detail = "policy `t.slow`: 2 of 2 have started within 10s".to_string();
    assert_eq!(case.ask(3, ""), Decision::Hold { reason: Reason::RateReached, detail, until: Some(10_000) });
    assert_eq!(case.gates.next_due(), Some(10_000));
    let stored = case.gates.take_changes();
    assert_eq!(stored[0].1, json!({"starts": [0, 4_000]}));
    // Another process, with what was stored.
    let mut again = Case { gates: Gates::remembering(stored), called: Vec::new(), ids: case.ids, now: 9_999 };
    assert_eq!(again.gates.follow(&policies, std::iter::empty(), 9_999), []);
    assert_eq!((again.asked(3, ""), again.asked(4, "")), ('-', '-'));
    again.now = 10_000;
    assert_eq!(again.due(), [3], "exactly one place is free");
    assert_eq!((again.asked(3, ""), again.gates.next_due()), ('+', Some(14_000)));
    again.now = 14_000;
    assert_eq!(again.due(), [4]);
    assert_eq!(again.asked(4, ""), '+');
    again.gates.take_changes();
    again.now = 24_000;
    assert_eq!(again.due(), NOBODY);
    assert_eq!(again.gates.take_changes()[0].1, Value::Null, "what means nothing any more is removed");
    assert!(again.gates.doors.is_empty() && again.gates.next_due().is_none());
}

#[test]
fn a_circuit_opens_and_tries_one() {
    let breaker = Limit::CircuitBreaker { failures: 2, within: seconds(60), open_for: seconds(30) };
    let mut case = Case::new(&[policy("breaker", breaker, None, OnReached::Delay)]);
    for n in [1, 2] {
        assert_eq!(case.asked(n, ""), '+');
        assert_eq!(case.ended(n, n == 1), NOBODY);
    }
    assert_eq!(case.asked(3, ""), '+');
    assert_eq!(case.asked(4, ""), '+');
    assert_eq!(case.ended(3, true), NOBODY);
    let detail = "policy `t.breaker`: 2 have failed; nothing starts for now".to_string();
    assert_eq!(case.ask(5, ""), Decision::Hold { reason: Reason::CircuitOpen, detail, until: Some(30_000) });
    assert_eq!(case.asked(6, ""), '-');
    assert_eq!(case.ended(4, false), NOBODY, "one that ran before says nothing");
    case.now = 30_000;
    assert_eq!(case.due(), [5], "one is tried");
    assert_eq!(case.asked(5, ""), '+');
    assert_eq!(case.asked(7, ""), '-');
    assert_eq!(case.ended(5, true), NOBODY, "it fails, and the while begins anew");
    case.now = 60_000;
    assert_eq!(case.due(), [6]);
    assert_eq!(case.asked(6, ""), '+');
    assert_eq!(case.ended(6, false), [7], "it succeeds, and all may go on");
    assert_eq!((case.asked(7, ""), case.asked(8, "")), ('+', '+'));
}

#[test]
fn what_is_canceled_does_not_wait_and_takes_no_place() {
    let rate = policy("rate", Limit::Rate { limit: 1, per: seconds(10) }, None, OnReached::Cancel);
    let one = policy("one", Limit::Concurrency { threshold: 1 }, Some("{{parameters.app}}"), OnReached::Delay);
    let mut case = Case::new(&[rate, one]);
    assert_eq!((case.asked(1, "a"), case.asked(2, "b"), case.asked(3, "a")), ('+', 'x', '-'));
    case.now = 10_000;
    assert_eq!(case.ended(1, false), [3]);
    assert_eq!((case.asked(3, "a"), case.asked(4, "b")), ('+', 'x'));
    let wrong = policy("wrong", Limit::Concurrency { threshold: 1 }, Some("{{parameters.no}}"), OnReached::Delay);
    assert!(matches!(Case::new(&[wrong]).ask(1, "a"), Decision::Fail { reason: Reason::KeyFailed, .. }));
    assert!(CompiledPolicy::new(Policy { by: Some("{{trigger.x}}".into()), ..case.gates.policies[0].policy.clone() }).is_err());
}

/// Random executions against all policies at once, compared with a model that looks at everything that ever happened.
#[test]
fn gates_agree_with_a_simple_model() {
    for seed in 1..=200u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut below = move |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        let (threshold, limit) = (1 + below(3) as u32, 1 + below(4) as u32);
        let policies = [
            policy("one", Limit::Concurrency { threshold }, Some("{{parameters.app}}"), OnReached::Delay),
            policy("rate", Limit::Rate { limit, per: seconds(10) }, Some("{{parameters.app}}"), OnReached::Delay),
        ];
        let mut case = Case::new(&policies);
        let mut stored: BTreeMap<String, Value> = BTreeMap::new();
        let mut running: BTreeMap<usize, &str> = BTreeMap::new();
        let mut ready: BTreeSet<usize> = BTreeSet::new();
        let mut starts: Vec<(i64, usize, &str)> = Vec::new();
        let (mut next, mut app_of) = (0, HashMap::new());
        let mut gone: HashSet<usize> = HashSet::new();
        for _ in 0..400 {
            let mut called: Vec<u64> = Vec::new();
            match below(10) {
                0..=3 if next < case.ids.len() => {
                    app_of.insert(next, ["a", "b"][below(2) as usize]);
                    ready.insert(next);
                    next += 1;
                }
                4..=5 if !running.is_empty() => {
                    let n = *running.keys().nth(below(running.len() as u64) as usize).unwrap();
                    running.remove(&n);
                    called = case.ended(n, below(2) == 0);
                }
                6 => case.now += below(4_000).cast_signed(),
                7 if next > 0 => {
                    let n = below(next as u64) as usize;
                    if !running.contains_key(&n) && !starts.iter().any(|(_, started, _)| *started == n) {
                        gone.insert(n);
                        ready.remove(&n);
                        called = case.gates.gone((n as u64, case.ids[n]), case.now).into_iter().map(|(turn, _)| turn).collect();
                    }
                }
                8 if below(20) == 0 => {
                    // A restart: what runs is known to the engine, what is stored is read, what waits is asked again.
                    case.gates = Gates::remembering(stored.clone().into_iter().collect());
                    let request = |app: &str| -> Request {
                        let requested = json!({"action": "t.a", "parameters": {"app": app}, "requested_by": {"token": "t"}, "requested_at": "2026-01-01T00:00:00Z"});
                        serde_json::from_value(requested).unwrap()
                    };
                    let requests: Vec<_> = running.iter().map(|(n, app)| (case.ids[*n], request(app))).collect();
                    case.gates.follow(&policies, requests.iter().map(|(id, request)| (*id, request)), case.now);
                    ready.extend((0..next).filter(|n| !gone.contains(n) && !starts.iter().any(|(_, started, _)| started == n)));
                }
                _ => {}
            }
            called.extend(case.due());
            ready.extend(called.into_iter().map(|turn| turn as usize).filter(|n| !gone.contains(n)));
            while let Some(n) = ready.pop_first() {
                let app = app_of[&n];
                if case.asked(n, app) == '+' {
                    running.insert(n, app);
                    starts.push((case.now, n, app));
                }
                ready.extend(std::mem::take(&mut case.called).into_iter().map(|(turn, _)| turn as usize).filter(|n| !gone.contains(n)));
            }
            for (name, value) in case.gates.take_changes() {
                if value.is_null() {
                    stored.remove(&name)
                } else {
                    stored.insert(name, value)
                };
            }
            for app in ["a", "b"] {
                let at_once = running.values().filter(|own| **own == app).count();
                let recent = starts.iter().filter(|(at, _, own)| *own == app && *at > case.now - 10_000).count();
                assert!(at_once <= threshold as usize, "seed {seed}: {at_once} at once");
                assert!(recent <= limit as usize, "seed {seed}: {recent} started");
                let waits =
                    (0..next).any(|n| app_of[&n] == app && !gone.contains(&n) && !starts.iter().any(|(_, started, _)| *started == n));
                assert!(!waits || at_once == threshold as usize || recent == limit as usize, "seed {seed}: one waits though there is room");
            }
        }
        for app in ["a", "b"] {
            let order: Vec<usize> = starts.iter().filter(|(_, _, own)| *own == app).map(|(_, n, _)| *n).collect();
            assert!(order.is_sorted(), "seed {seed}: {app} starts in order: {order:?}");
        }
    }
}
