//! Live evaluation, `event why`, `rule why` and `rule test` never disagree, whatever the rules, the events, the keys of the datastore and
//! the switches are.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use serde_json::{Value, json};
use signalman::app::{self, App, Parts};
use signalman::clock::{Clock, SimulatedClock};
use signalman::config::Environment;
use signalman::engine::switching;
use signalman::engine::why::{self, RuleAnswer};
use signalman::model::datastore::Scope;
use signalman::model::event::{NewEvent, StoredEvent};
use signalman::model::ids::{EventId, IdSource};
use signalman::model::json::RawJson;
use signalman::model::place::Spot;
use signalman::model::principal::Principal;
use signalman::model::reason::Reason;
use signalman::model::rule::{Criterion, Operator, Rule, Source, Throttle, Window, WindowKind};
use signalman::model::verdict::{MAX_NEAR_MISSES, StoredVerdict, Verdict};
use signalman::rule::book::CompiledRule;
use signalman::rule::judge::{Known, explain};
use signalman::store::Store;
use signalman::store::memory::MemorySpace;

use crate::harness::{Random, TestSite, World, memory, seed, set_key, times};
use crate::{index, windows};

const TRIGGERS: &[&str] = &["t.e", "t.e", "t.e", "t.e", "t.e", "t.e", "t.e", "t.other"];

/// Keys of the datastore that rules name.
const KEYS: &[&str] = &["limit", "text", "open"];

fn source<T>(value: T) -> Source<T> {
    Source { value, at: Spot::default() }
}

fn by(random: &mut Random) -> Option<Source<String>> {
    let ways = ["{{trigger.a}}", "{{trigger.n}}-{{trigger.text}}", "<% trigger.inner.x %>", "one", "{{trigger.text}}"];
    (!random.one_in(3)).then(|| source((*random.of(&ways)).into()))
}

fn seconds(random: &mut Random, most: u64) -> Duration {
    Duration::from_secs(1 + random.below(most))
}

/// What the rules of a round are like: one in so many.
struct Odds {
    backstop: u64,
    guard: u64,
    off: u64,
    /// Criteria at most, and one more.
    criteria: u64,
}

/// A rule as those of the index's test, and sometimes with everything else that a rule can have.
fn rule(random: &mut Random, odds: &Odds, number: usize) -> Rule {
    loop {
        let mut rule = index::rule(random, number);
        rule.trigger = (*random.of(TRIGGERS)).into();
        rule.enabled = !random.one_in(odds.off);
        rule.backstop = random.one_in(odds.backstop);
        // Few criteria, so that something is left to disagree about.
        let mut criteria = rule.criteria.into_vec();
        criteria.truncate(random.below(odds.criteria) as usize);
        rule.at_least = rule.at_least.filter(|count| *count as usize <= criteria.len());
        if random.one_in(4) && odds.criteria > 1 {
            let (key, operator, pattern) = *random.of(&[
                ("trigger.n", Operator::Lessthan, "{{kv.system.limit}}"),
                ("trigger.n", Operator::Greaterthan, "<% kv.system.limit %>"),
                ("trigger.text", Operator::Contains, "{{st2kv.system.text}}"),
                ("trigger.text", Operator::Equals, "w{{kv.system.text}}"),
                ("system.open", Operator::Equals, "<% true %>"),
                ("system.limit", Operator::Exists, "<% true %>"),
            ]);
            criteria.push(Criterion { key: key.into(), operator, pattern: json!(pattern), condition: None });
        }
        rule.criteria = criteria.into();
        if random.one_in(odds.guard) {
            let guards = ["<% kv.system.open == true %>", "<% trigger.n > kv.system.limit %>", "<% kv.system.text != trigger.text %>"];
            rule.when = Some(Box::new(source((*random.of(&guards)).into())));
        }
        if random.one_in(3) {
            let kind = if random.one_in(3) {
                WindowKind::Absent { after: seconds(random, 100), keys: if random.one_in(2) { vec!["one".into()] } else { Vec::new() } }
            } else {
                WindowKind::Count { count: 1 + random.below(3) as u32, within: seconds(random, 100), consecutive: random.one_in(2) }
            };
            rule.window = Some(Box::new(Window { kind, by: by(random) }));
            rule.late = seconds(random, 60);
        }
        rule.throttle = random.one_in(5).then(|| Box::new(Throttle { once_per: seconds(random, 100), by: by(random) }));
        rule.action = "t.noop".into();
        let values = ["<% trigger.n %>", "{{trigger.a}}", "<% kv.system.limit %>", "plain", "{{event.id}}"];
        rule.parameters = (0..random.below(2)).map(|_| ("n".into(), source(json!(random.of(&values))))).collect();
        if CompiledRule::compile(rule.clone()).is_ok() {
            return rule;
        }
    }
}

fn event(trigger: &str) -> NewEvent {
    NewEvent {
        trigger: trigger.into(),
        payload: RawJson::of(&json!({})),
        key: None,
        dedup: None,
        occurred_at: None,
        source: "test".into(),
        cause: None,
        rejected: None,
        pending: None,
    }
}

/// Rules in force, and what is known of them from outside.
struct Round {
    app: App,
    store: Arc<dyn Store>,
    clock: SimulatedClock,
    rules: BTreeMap<String, Arc<CompiledRule>>,
    keys: BTreeMap<String, Value>,
    off: BTreeSet<String>,
    _site: TestSite,
}

/// What was found out about how rules and events meet.
#[derive(Default)]
struct Tally {
    pairs: usize,
    reasons: BTreeMap<&'static str, usize>,
}

impl Round {
    async fn start(random: &mut Random) -> Self {
        let site = windows::site(&[]);
        let (mut loaded, _) = app::load_site(site.path(), &Environment::default()).unwrap();
        let odds = Odds {
            backstop: *random.of(&[2, 8, 30]),
            guard: *random.of(&[1, 6, 6]),
            off: *random.of(&[4, 20]),
            criteria: 1 + random.below(3),
        };
        let many = *random.of(&[2, 5, 20, 40, 60]);
        let rules: Vec<Rule> = (0..many).map(|number| rule(random, &odds, number)).collect();
        let compiled = || rules.iter().map(|rule| CompiledRule::compile(rule.clone()).unwrap());
        loaded.rules = compiled().map(Arc::new).collect();
        let (store, clock) = (memory(&MemorySpace::default()), SimulatedClock::at(DateTime::from_timestamp(1_700_000_000, 0).unwrap()));
        let parts = Parts::real(Arc::clone(&store), Arc::new(clock.clone()), Arc::new(IdSource::seeded(random.0))).unwrap();
        let app = app::start(loaded, parts).await.unwrap();
        let off = rules.iter().filter(|rule| !rule.enabled).map(|rule| rule.reference.to_string()).collect();
        let rules = compiled().map(|rule| (rule.rule.reference.to_string(), Arc::new(rule))).collect();
        Self { app, store, clock, rules, keys: BTreeMap::new(), off, _site: site }
    }

    /// Something changes beside events.
    async fn change(&mut self, random: &mut Random) {
        self.clock.advance(Duration::from_millis(1 + random.below(20_000)));
        if random.one_in(4) {
            let name = *random.of(KEYS);
            let value = (!random.one_in(5)).then(|| if name == "open" { json!(random.one_in(2)) } else { index::scalar(random) });
            set_key(&self.app.engine, Scope::System, name, value.clone()).await;
            match value {
                Some(value) => self.keys.insert(name.into(), value),
                None => self.keys.remove(name),
            };
        }
        if random.one_in(8) {
            let names: Vec<&String> = self.rules.keys().collect();
            let name = (*random.of(&names)).clone();
            let on = self.off.contains(&name);
            switching::switch(&self.app.engine, &name, on, &Principal::Token("li".into())).await.unwrap();
            if !self.off.remove(&name) {
                self.off.insert(name);
            }
        }
    }

    async fn send(&self, random: &mut Random) -> StoredEvent {
        let rules: Vec<&Arc<CompiledRule>> = self.rules.values().collect();
        let edge = random.of(&rules).rule.criteria.first().map_or(Value::Null, |criterion| criterion.pattern.clone());
        let ago = chrono::Duration::milliseconds(if random.one_in(4) { random.below(120_000) as i64 } else { 0 });
        let trigger = *random.of(TRIGGERS);
        let event = NewEvent {
            payload: RawJson::parse(&index::payload(random, &edge)).unwrap(),
            occurred_at: Some(self.clock.now() - ago),
            ..event(trigger)
        };
        let accepted = self.app.journal.accept(vec![event]).await.unwrap();
        self.store.event(accepted[0].id).await.unwrap().unwrap()
    }

    /// Asks everybody about an event that has just been judged.
    async fn compare(&self, event: &StoredEvent, tally: &mut Tally) -> Vec<RuleAnswer> {
        let told = why::event(&self.app.engine, event.event.id).await.unwrap();
        let mine: Vec<&Arc<CompiledRule>> = self.rules.values().filter(|rule| *rule.rule.trigger == *event.event.trigger).collect();
        assert_eq!(told.rules.len(), mine.len(), "each rule of the trigger has one answer");
        assert_eq!(told.other_triggers, self.rules.len() - mine.len());
        for verdict in &event.verdicts {
            assert!(mine.iter().any(|rule| *rule.rule.reference == *verdict.rule), "{verdict:?} of another trigger");
        }
        let held = |rule: &Arc<CompiledRule>| matches!(self.tried(rule, event), Reason::Matched | Reason::Shadowed);
        let in_first_row = |rule: &Arc<CompiledRule>| !rule.rule.backstop && !self.off.contains(&*rule.rule.reference);
        let another_held = LazyCell::new(|| mine.iter().any(|rule| in_first_row(rule) && held(rule)));
        for answer in &told.rules {
            let rule = &self.rules[&answer.verdict.rule];
            let stored: Vec<_> = event.verdicts.iter().filter(|verdict| verdict.rule == answer.verdict.rule).collect();
            let pair = Pair { round: self, event, rule, answer, rehearsed: &self.rehearse(rule, event) };
            pair.holds(stored.len() < 2, "it is stored twice");
            match stored.first() {
                Some(stored) => pair.is_as_stored(stored).await,
                None => pair.is_as_recomputed(rule.rule.backstop && *another_held),
            }
            pair.is_as_rehearsed();
            tally.pairs += 1;
            *tally.reasons.entry(answer.verdict.reason.code()).or_default() += 1;
        }
        told.rules
    }

    /// What `rule test` says, given the keys of the datastore.
    fn rehearse(&self, rule: &Arc<CompiledRule>, event: &StoredEvent) -> Verdict {
        explain(rule, &event.event, &Known::rehearsal(rule, &event.event, self.keys.clone())).unwrap().0
    }

    /// What a rule says of an event before its window and throttle if it is tried, whatever its file says.
    fn tried(&self, rule: &Arc<CompiledRule>, event: &StoredEvent) -> Reason {
        let known = Known { keys: self.keys.clone(), ..Known::default() };
        explain(rule, &event.event, &known).unwrap().0.reason
    }

    /// `rule why` says what `event why` says, of rules of other triggers too.
    async fn compare_one(&self, name: &str, event: &StoredEvent, told: &[RuleAnswer]) {
        let one = why::rule(&self.app.engine, name, event.event.id).await.unwrap();
        match told.iter().find(|answer| answer.verdict.rule == name) {
            Some(same) => assert_eq!(told_of(&one), told_of(same), "{name} of event {}", event.event.id),
            None => {
                assert_eq!(one.verdict.reason, Reason::OtherTrigger);
                assert_eq!(one.verdict, self.rehearse(&self.rules[name], event));
            }
        }
    }

    /// What was told of an event stays what is told of it.
    async fn compare_later(&self, id: EventId, told: &[RuleAnswer]) {
        let later = why::event(&self.app.engine, id).await.unwrap().rules;
        for told in told.iter().filter(|told| told.keys_as_now.is_empty()) {
            let name = &told.verdict.rule;
            let later = later.iter().find(|later| later.verdict.rule == *name).expect("every rule is told again");
            assert_eq!(told_of(later), told_of(told), "event {id}, asked later, of the rule {:#}", json!(self.rules[name].rule));
        }
    }
}

/// An answer without what goes on by itself: how the execution stands.
fn told_of(answer: &RuleAnswer) -> Value {
    let mut value = json!(answer);
    value.as_object_mut().unwrap().remove("execution");
    value
}

/// A rule and an event, and what is said about them.
struct Pair<'p> {
    round: &'p Round,
    event: &'p StoredEvent,
    rule: &'p Arc<CompiledRule>,
    answer: &'p RuleAnswer,
    rehearsed: &'p Verdict,
}

impl Pair<'_> {
    fn holds(&self, holds: bool, what: &str) {
        let name = &self.rule.rule.reference;
        let stored: Vec<_> = self.event.verdicts.iter().map(|verdict| (&verdict.rule, verdict.reason.code(), &verdict.detail)).collect();
        assert!(
            holds,
            "{what}\npayload {}\nof {} at {}, received {}\nkeys {:?}, stored {:?}\n{name} is switched off: {}\nstored {stored:?} and {} more\n\
             why says {:#}\nrule test says {:#}\nof the rule {:#}",
            self.event.event.payload.text(),
            self.event.event.trigger,
            self.event.event.occurred_at,
            self.event.event.received_at,
            self.round.keys,
            self.event.keys,
            self.round.off.contains(&**name),
            self.event.more_near_misses,
            json!(self.answer.verdict),
            json!(self.rehearsed),
            json!(self.rule.rule),
        );
    }

    /// A verdict that is stored is told as it is stored.
    async fn is_as_stored(&self, stored: &StoredVerdict) {
        let told = &self.answer.verdict;
        self.holds(stored.reason == told.reason, "the reason is another one");
        let values: Vec<&Value> = told.criteria.iter().map(|criterion| &criterion.value).collect();
        self.holds(stored.values.iter().collect::<Vec<_>>() == values, "the criteria saw something else");
        let Some(id) = stored.execution else {
            self.holds(stored.detail == told.detail || self.tells_a_fault_of_parameters(), "the detail is another one");
            return;
        };
        let execution = self.round.store.execution(id).await.unwrap().unwrap();
        match &self.answer.parameters {
            Some(parameters) => {
                self.holds(told.detail.is_none() && *parameters == execution.request.parameters, "the parameters are others");
            }
            None => {
                let failed = execution.state.reason == Reason::ParametersFailed;
                self.holds(failed && execution.state.error == told.detail, "the parameters did not fail like that");
            }
        }
    }

    /// What is not stored is what it would have been if it had been.
    fn is_as_recomputed(&self, another_held: bool) {
        let told = &self.answer.verdict;
        let off = self.round.off.contains(&told.rule);
        let expected = match self.rehearsed.reason {
            _ if off => Reason::Disabled,
            _ if another_held => Reason::BackstopNotNeeded,
            // `rule test` knows the file only.
            Reason::Disabled => self.round.tried(self.rule, self.event),
            reason => reason,
        };
        let held = matches!(expected, Reason::Matched | Reason::Shadowed);
        let dropped = self.event.more_near_misses > 0;
        self.holds(!held || dropped, "it held, and that is not stored");
        self.holds(told.matched <= (expected == Reason::Shadowed), "it did not match");
        let holds_back = self.rule.rule.window.is_some() || self.rule.rule.throttle.is_some();
        let expected = if held && holds_back { Reason::NotKept } else { expected };
        self.holds(told.reason == expected, &format!("it should be {expected}"));
        let kept = matches!(expected, Reason::GuardNotHeld | Reason::GuardFailed | Reason::Shadowed | Reason::NotKept);
        self.holds(!kept || dropped && self.event.verdicts.len() >= MAX_NEAR_MISSES, "it should be stored");
        if !off && self.rehearsed.reason != Reason::Disabled && told.reason == self.rehearsed.reason {
            self.holds(told.detail == self.rehearsed.detail || self.tells_a_fault_of_parameters(), "the detail is another one");
        }
    }

    /// A rule in shadow mode stores nothing of its parameters; `why` makes them and says if that fails.
    fn tells_a_fault_of_parameters(&self) -> bool {
        self.answer.verdict.reason == Reason::Shadowed && self.answer.parameters.is_none()
    }

    /// `rule test` and live agree on what an event alone shows.
    fn is_as_rehearsed(&self) {
        let (told, rule) = (&self.answer.verdict, &self.rule.rule);
        self.holds(told.criteria == self.rehearsed.criteria, "the criteria are told otherwise");
        let (off, file_is_off) = (self.round.off.contains(&told.rule), self.rehearsed.reason == Reason::Disabled);
        if off || file_is_off || told.reason == Reason::BackstopNotNeeded {
            return;
        }
        if rule.window.is_none() && rule.throttle.is_none() {
            self.holds(told.reason == self.rehearsed.reason && told.matched == self.rehearsed.matched, "`rule test` says something else");
        } else {
            let held = told.reason.passed_guard() || told.reason == Reason::NotKept;
            self.holds(held == self.rehearsed.matched, "`rule test` says something else");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn live_why_and_rehearsal_never_disagree() {
    let (mut random, mut tally) = (Random(seed()), Tally::default());
    while tally.pairs < times(20_000, 400_000) {
        println!("a round begins at {}", random.0);
        let mut round = Round::start(&mut random).await;
        let mut asked = Vec::new();
        for _ in 0..60 {
            round.change(&mut random).await;
            let event = round.send(&mut random).await;
            let told = round.compare(&event, &mut tally).await;
            let names: Vec<String> = round.rules.keys().cloned().collect();
            let name = random.of(&names).clone();
            round.compare_one(&name, &event, &told).await;
            asked.push((event.event.id, told));
        }
        for (id, told) in asked.iter().step_by(4) {
            round.compare_later(*id, told).await;
        }
        round.app.stop().await;
    }
    println!("{} pairs of a rule and an event: {:?}", tally.pairs, tally.reasons);
    let seen = |reason: Reason| tally.reasons.get(reason.code()).copied().unwrap_or_default();
    for reason in
        [Reason::Matched, Reason::Shadowed, Reason::WindowOpen, Reason::WindowArmed, Reason::Late, Reason::Throttled, Reason::KeyFailed]
    {
        assert!(seen(reason) >= 10, "rules and events do not meet: {reason} {} times", seen(reason));
    }
}

/// The verdict of one that held is stored even where there are too many, or nobody could say why a backstop was not tried.
#[tokio::test(flavor = "multi_thread")]
async fn a_backstop_is_not_needed_even_if_what_held_is_one_of_many() {
    let rule = "trigger: {type: t.e}\naction: {ref: t.noop}\n";
    let guarded = format!("{rule}when: <% false %>\n");
    let guarded: Vec<(String, &str)> = (0..=MAX_NEAR_MISSES).map(|number| (format!("a{number:02}"), guarded.as_str())).collect();
    let mut rules: Vec<(&str, &str)> = guarded.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    let (held, backstop) = (format!("{rule}window: {{count: 2, within: 1m}}\n"), format!("{rule}type: backstop\n"));
    rules.extend([("b", held.as_str()), ("c", backstop.as_str())]);
    let store = memory(&MemorySpace::default());
    let world = World::start(&windows::site(&rules), Arc::clone(&store)).await.unwrap();
    let event = NewEvent { payload: RawJson::of(&json!({"n": 1})), ..event("t.e") };
    let id = world.app.journal.accept(vec![event]).await.unwrap()[0].id;
    let stored = store.event(id).await.unwrap().unwrap();
    assert_eq!((stored.verdicts.len(), stored.more_near_misses), (MAX_NEAR_MISSES, 2));
    let told = async |rule: &str| why::rule(&world.app.engine, rule, id).await.unwrap().verdict.reason;
    assert_eq!(told("default.b").await, Reason::WindowOpen);
    assert_eq!(told("default.c").await, Reason::BackstopNotNeeded);
    world.app.stop().await;
}
