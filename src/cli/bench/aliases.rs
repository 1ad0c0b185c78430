//! How fast commands of chat are read and their alias found, in this process and on one core; what compiling the aliases takes.

#![allow(clippy::cast_precision_loss, reason = "counts and times of a benchmark fit a double")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Arguments;
use super::rules::{RUNS, held, rates};
use super::scenarios::{MIB, rounded};
use crate::chat::grammar::book::{AliasBook, CompiledAlias, Meaning};
use crate::model::alias::{Ack, Alias, Answer, Format};
use crate::model::place::{Place, Spot};

/// How the commands of a site resemble each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Each begins with a word of its own.
    Distinct,
    /// All begin with the same word; the second tells them apart.
    Shared,
}

impl Shape {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Distinct => "distinct",
            Self::Shared => "shared",
        }
    }

    fn command(self, number: usize) -> String {
        match self {
            Self::Distinct => format!("deploy{number}"),
            Self::Shared => format!("do deploy{number}"),
        }
    }
}

/// What is measured: how the aliases look, and how many there are.
pub const SHAPES: &[(Shape, usize)] = &[(Shape::Distinct, 100), (Shape::Distinct, 10_000), (Shape::Shared, 10_000)];

/// So many aliases, each with two formats.
#[must_use]
pub fn book(shape: Shape, count: usize) -> AliasBook {
    AliasBook::new((0..count).filter_map(|number| alias(shape, number)))
}

/// Different commands, one in a hundred of them unknown, and one in ten with a pair at its end.
#[must_use]
pub fn commands(shape: Shape, count: usize) -> Vec<String> {
    let command = |number: usize| {
        let typed = shape.command(number * 7 % count);
        match number % 10 {
            _ if number.is_multiple_of(100) => "frobnicate checkout".into(),
            1 => format!("{typed} checkout to gray version=2"),
            _ => format!("{typed} checkout 1.4.{number} to prod"),
        }
    };
    (0..1_000).map(command).collect()
}

fn alias(shape: Shape, number: usize) -> Option<Arc<CompiledAlias>> {
    let typed = shape.command(number);
    let formats = [format!("{typed} {{{{app}}}} to {{{{env}}}}"), format!("{typed} {{{{app}}}} {{{{version}}}} to {{{{env}}}}")];
    let format = |text: String| Format { display: text.clone(), representation: vec![text], match_multiple: false, at: Spot::default() };
    let alias = Alias {
        reference: format!("bench.a{number}"),
        description: String::new(),
        enabled: true,
        action: "bench.a".into(),
        formats: formats.into_iter().map(format).collect(),
        examples: Vec::new(),
        ack: Ack::default(),
        result: Answer::default(),
        immutable: Map::new(),
        extra: BTreeMap::new(),
        place: Place::default(),
        action_at: Spot::default(),
    };
    CompiledAlias::compile(alias, None, None).ok().map(Arc::new)
}

pub(super) fn measure(arguments: &Arguments) -> Result<Value, String> {
    let mut figures = Map::new();
    for (shape, count) in SHAPES {
        let before = held();
        let book = book(*shape, *count);
        let commands = commands(*shape, *count);
        let mut understood = 0u64;
        let rates = rates(Duration::from_secs(arguments.seconds) / RUNS / 2, || {
            understood += commands.iter().map(|command| u64::from(matches!(book.meaning(command), Meaning::One(_)))).sum::<u64>();
            Ok(commands.len())
        })?;
        let name = |what: &str| format!("{}_{count}_{what}", shape.name());
        figures.insert(name("per_second"), json!(rates[rates.len() / 2].round()));
        figures.insert(name("per_second_min"), json!(rates[0].round()));
        figures.insert(name("microseconds_each"), json!(rounded(1e6 / rates[rates.len() / 2])));
        figures.insert(name("understood"), json!(understood > 0));
        figures.insert(name("mib"), json!(rounded(held().saturating_sub(before) as f64 / MIB)));
    }
    Ok(Value::Object(figures))
}
