//! Windows by the vectors of their definition.

use super::*;
use crate::model::ids::IdSource;

const S: i64 = 1_000;
const M: i64 = 60_000;
/// Times are given from here on.
const T0: i64 = 1_700_000_000_000;

struct Rule {
    windows: Windows,
    name: Arc<str>,
    ids: IdSource,
}

impl Rule {
    fn new(definitions: &[Definition]) -> Self {
        let name: Arc<str> = "default.r".into();
        let mut windows = Windows::default();
        windows.fit(&needed(&name, definitions), T0);
        Self { windows, name, ids: IdSource::seeded(1) }
    }

    fn hold(&mut self, key: &str, at: i64) -> Answer {
        self.hold_received(key, at, at)
    }

    fn hold_received(&mut self, key: &str, at: i64, now: i64) -> Answer {
        let event = self.ids.event(chrono::DateTime::from_timestamp_millis(T0).unwrap());
        self.windows.hold(&self.name, key, T0 + at, T0 + now, Origin { id: event, source: "sensor/t.s" })
    }

    fn fires(&mut self, times: &[i64]) -> Vec<i64> {
        times.iter().copied().filter(|at| self.hold("k", *at) == Answer::Fires).collect()
    }

    fn silences(&mut self, now: i64) -> Vec<i64> {
        self.windows.silences(T0 + now, 10).into_iter().map(|silence| silence.deadline - T0).collect()
    }
}

fn needed(name: &Arc<str>, definitions: &[Definition]) -> Vec<Needed> {
    let of = |definition: &Definition| {
        let hash = crate::model::hash::fingerprint(format!("{definition:?}").as_bytes());
        Needed { rule: Arc::clone(name), definition: definition.clone(), hash }
    };
    definitions.iter().map(of).collect()
}

fn span(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap())
}

fn count(count: u32, within: i64) -> Definition {
    Definition::Window { kind: WindowKind::Count { count, within: span(within), consecutive: true }, late: span(M) }
}

fn absent(after: i64, keys: &[&str]) -> Definition {
    let keys = keys.iter().map(ToString::to_string).collect();
    Definition::Window { kind: WindowKind::Absent { after: span(after), keys }, late: span(M) }
}

#[test]
fn the_nth_event_fires_if_all_lie_within_and_then_it_begins_anew() {
    let mut rule = Rule::new(&[count(3, 60 * S)]);
    assert_eq!(rule.fires(&[0, 30 * S, 60 * S]), [] as [i64; 0], "two that lie exactly the span apart never count together");
    let mut rule = Rule::new(&[count(3, 60 * S)]);
    assert_eq!(rule.fires(&[0, 30 * S, 59 * S, 60 * S, 61 * S, 62 * S]), [59 * S, 62 * S]);
    assert_eq!(Rule::new(&[count(1, S)]).fires(&[0, 0, 1]), [0, 0, 1]);
}

#[test]
fn one_that_does_not_hold_begins_anew() {
    let mut rule = Rule::new(&[count(3, 60 * S)]);
    rule.hold("k", 0);
    rule.hold("k", S);
    let name = Arc::clone(&rule.name);
    rule.windows.miss(&name, "other", T0 + S, T0 + S);
    rule.windows.miss(&name, "k", T0 - 61 * M, T0 + S);
    assert_eq!(
        rule.windows.of_rule(&name, 10)[0].state,
        WindowState::Count { times: vec![T0, T0 + S], newest: T0 + S },
        "too late to count"
    );
    rule.windows.miss(&name, "k", T0 + S, T0 + S);
    assert_eq!(rule.fires(&[2 * S, 3 * S]), [] as [i64; 0]);
    assert_eq!(rule.fires(&[4 * S]), [4 * S]);
}

#[test]
fn keys_do_not_share_and_order_within_the_allowance_does_not_matter() {
    let mut rule = Rule::new(&[count(2, 60 * S)]);
    assert_eq!(rule.hold("a", 50 * S), Answer::Open { have: 1, of: 2 });
    assert_eq!(rule.hold("b", 50 * S), Answer::Open { have: 1, of: 2 });
    assert_eq!(rule.hold("a", 10 * S), Answer::Fires);
    assert_eq!(rule.hold_received("a", -20 * S, 60 * S), Answer::Late { behind: 70 * S });
    assert_eq!(rule.hold("b", 120 * S), Answer::Open { have: 1, of: 2 });
    assert_eq!(rule.hold(&"k".repeat(MAX_KEY_BYTES + 1), 0), Answer::LongKey);
}

#[test]
fn a_clock_that_was_ahead_for_a_while_does_not_silence_a_key() {
    let mut rule = Rule::new(&[count(2, 60 * S), Definition::Throttle(span(15 * M))]);
    let year = 365 * 86_400 * S;
    rule.hold("k", year);
    assert_eq!(rule.hold("k", 0), Answer::Open { have: 1, of: 2 });
    assert_eq!(rule.hold("k", S), Answer::Fires);
    let name = Arc::clone(&rule.name);
    assert_eq!(rule.windows.pass(&name, "k", T0 + year, T0 + year), Answer::Fires);
    assert_eq!(rule.windows.pass(&name, "k", T0, T0), Answer::Fires);
    assert_eq!(rule.windows.pass(&name, "k", T0 + S, T0 + S), Answer::Throttled { until: T0 + 15 * M });
}

#[test]
fn a_throttle_counts_from_the_event_that_fired() {
    let mut rule = Rule::new(&[Definition::Throttle(span(15 * M))]);
    let name = Arc::clone(&rule.name);
    let mut fired = Vec::new();
    for at in [0, 5 * M, 14 * M + 59 * S, 15 * M] {
        if rule.windows.pass(&name, "k", T0 + at, T0 + at) == Answer::Fires {
            fired.push(at);
        }
    }
    assert_eq!(fired, [0, 15 * M]);
}

#[test]
fn silence_fires_once_and_is_armed_by_the_next_event() {
    let mut rule = Rule::new(&[absent(10 * M, &[])]);
    assert_eq!(rule.silences(100 * M), [] as [i64; 0]);
    rule.hold("k", 0);
    assert_eq!(rule.hold("k", 4 * M), Answer::Armed { until: T0 + 14 * M });
    assert_eq!(rule.silences(14 * M - 1), [] as [i64; 0]);
    assert_eq!(rule.silences(14 * M), [14 * M]);
    assert_eq!(rule.silences(19 * M), [] as [i64; 0]);
    assert_eq!(rule.hold("k", 4 * M), Answer::Late { behind: 0 }, "the silence since then has been told");
    assert_eq!(rule.hold_received("k", 3 * M + 59 * S, 5 * M), Answer::Late { behind: S });
    assert_eq!(rule.silences(19 * M), [] as [i64; 0]);
    rule.hold("k", 20 * M);
    assert_eq!(rule.silences(60 * M), [30 * M]);
}

#[test]
fn what_is_defined_otherwise_is_forgotten_for_good() {
    let mut rule = Rule::new(&[count(3, 60 * S)]);
    rule.hold("k", 0);
    let stored = rule.windows.take_changes();
    let name = Arc::clone(&rule.name);
    rule.windows.fit(&needed(&name, &[count(4, 60 * S)]), T0);
    let changes = rule.windows.take_changes();
    assert_eq!((&changes[0].of, &changes[0].state), (&stored[0].of, &None));
}

#[test]
fn keys_that_are_named_are_waited_for_from_the_start_on_and_once() {
    let definitions = [absent(10 * M, &["a", "b"])];
    let mut rule = Rule::new(&definitions);
    rule.hold("a", 9 * M);
    assert_eq!(rule.silences(10 * M), [10 * M]);
    let changes = rule.windows.take_changes();
    assert_eq!(changes.len(), 2);
    // A restart, later: what was told is not told again.
    let mut again = Rule::new(&definitions);
    assert!(changes.iter().all(|change| again.windows.restore(&change.of, change.state.as_ref().unwrap())));
    assert_eq!(again.silences(100 * M), [19 * M]);
    for round in 0..40 {
        again.windows.sweep(T0 + 200 * M + round);
    }
    let name = Arc::clone(&again.name);
    again.windows.fit(&needed(&name, &definitions), T0 + 300 * M);
    assert_eq!(again.silences(1_000 * M), [] as [i64; 0]);
}

#[test]
fn while_nothing_can_come_silence_is_no_silence() {
    let mut rule = Rule::new(&[absent(10 * M, &[])]);
    rule.hold("k", 0);
    rule.windows.outages.begin(Some("sensor/t.s"), T0 + 5 * M);
    assert_eq!(rule.silences(60 * M), [] as [i64; 0]);
    rule.windows.outages.end(Some("sensor/t.s"), T0 + 65 * M);
    assert_eq!(rule.silences(69 * M), [] as [i64; 0]);
    assert_eq!(rule.silences(70 * M), [70 * M]);
}

#[test]
fn what_changed_is_told_once_and_what_is_over_is_forgotten() {
    let mut rule = Rule::new(&[count(3, 60 * S), Definition::Throttle(span(M))]);
    let name = Arc::clone(&rule.name);
    for at in 0..2 {
        rule.hold("k", at);
    }
    rule.windows.pass(&name, "k", T0, T0);
    let changes = rule.windows.take_changes();
    assert_eq!(changes.len(), 2);
    assert_eq!(changes[0].state, Some(WindowState::Count { times: vec![T0, T0 + 1], newest: T0 + 1 }));
    assert_eq!(rule.windows.take_changes(), []);
    let mut again = Rule::new(&[count(3, 60 * S)]);
    assert!(again.windows.restore(&changes[0].of, changes[0].state.as_ref().unwrap()));
    assert!(!again.windows.restore(&changes[1].of, changes[1].state.as_ref().unwrap()), "there is no throttle any more");
    assert_eq!(again.hold("k", 2), Answer::Fires);
    for _ in 0..16 {
        rule.windows.sweep(T0 + 10 * M);
    }
    assert!(rule.windows.is_empty());
    assert!(rule.windows.take_changes().iter().all(|change| change.state.is_none()));
}

#[test]
fn keys_are_bounded_and_old_ones_make_room() {
    let mut rule = Rule::new(&[count(2, 60 * S)]);
    for key in 0..crate::model::window::MAX_KEYS {
        rule.hold(&key.to_string(), 0);
    }
    assert_eq!(rule.hold("one more", S), Answer::TooManyKeys);
    assert_eq!(rule.hold("0", S), Answer::Fires);
    let name = Arc::clone(&rule.name);
    assert_eq!(rule.windows.count_of(&name).0, crate::model::window::MAX_KEYS);
    let found = (0..2_000).any(|n| rule.hold(&format!("later {n}"), 10 * M) != Answer::TooManyKeys);
    assert!(found, "what is over makes room");
}
