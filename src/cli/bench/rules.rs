//! How fast events are judged, in this process and on one core: from the text of a payload to the verdicts that are kept.

#![allow(clippy::cast_precision_loss, reason = "counts and times of a benchmark fit a double")]

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tikv_jemalloc_ctl::thread::{allocatedp, deallocatedp};

use super::Arguments;
use super::banks::{Bank, SIZES};
use super::scenarios::{MIB, rounded};
use crate::model::name::Names;
use crate::model::rule::Rule;
use crate::rule::book::{CompiledRule, RuleBook};
use crate::rule::judge::{World, judge};
use crate::rule::windows::Windows;

/// Measurements of which the median is given.
pub(super) const RUNS: u32 = 5;

pub(super) fn rules(arguments: &Arguments) -> Result<Value, String> {
    let mut figures = Map::new();
    for (bank, count) in SIZES {
        let one = measured(*bank, *count, Duration::from_secs(arguments.seconds) / RUNS / 2)?;
        for (name, value) in one {
            figures.insert(format!("{}_{count}_{name}", bank.name()), value);
        }
    }
    Ok(figures.into())
}

fn measured(bank: Bank, count: usize, run: Duration) -> Result<Vec<(&'static str, Value)>, String> {
    let events = bank.events(count);
    let held = held(); // what their authors wrote is theirs as well
    let rules = bank.rules(count);
    let began = Instant::now();
    let mut names = Names::default();
    let shared = |mut rule: Rule| {
        rule.share(&mut names);
        rule
    };
    let compiled = rules.into_iter().map(shared).map(CompiledRule::compile).collect::<Result<Vec<_>, _>>();
    let compiled = compiled.map_err(|faults| format!("a rule is faulty: {faults:?}"))?;
    let compiled_in = began.elapsed();
    let book = RuleBook::new(compiled);
    let (built, bytes) = (began.elapsed(), self::held().saturating_sub(held));
    let (mut windows, mut matches) = (Windows::default(), 0);
    let rates = rates(run, || {
        matches = 0;
        for event in &events {
            matches += std::hint::black_box(judge(&book, event, World::empty(), &mut windows)?).matches.len();
        }
        Ok(events.len())
    })?;
    Ok(vec![
        ("events_per_second", json!(rates[rates.len() / 2].round())),
        ("events_per_second_min", json!(rates[0].round())),
        ("events_per_second_max", json!(rates[rates.len() - 1].round())),
        ("matches_per_event", rounded(matches as f64 / events.len() as f64)),
        ("compiled_ms", rounded(compiled_in.as_secs_f64() * 1_000.0)),
        ("built_ms", rounded(built.as_secs_f64() * 1_000.0)),
        ("mib", rounded(bytes as f64 / MIB)),
        ("bytes_per_rule", json!(bytes / count as u64)),
    ])
}

/// How many events a second, ascending: each time whole rounds are judged until the time is over.
pub(super) fn rates(run: Duration, mut round: impl FnMut() -> Result<usize, String>) -> Result<Vec<f64>, String> {
    let mut rates = Vec::new();
    for _ in 0..=RUNS {
        let (mut judged, began) = (0, Instant::now());
        while began.elapsed() < run {
            judged += round()?;
        }
        rates.push(judged as f64 / began.elapsed().as_secs_f64());
    }
    rates.remove(0); // that one warmed up
    rates.sort_by(f64::total_cmp);
    Ok(rates)
}

/// What this thread has allocated and not freed, in bytes.
pub(super) fn held() -> u64 {
    let read = || Some(allocatedp::read().ok()?.get().wrapping_sub(deallocatedp::read().ok()?.get()));
    read().unwrap_or(0)
}
