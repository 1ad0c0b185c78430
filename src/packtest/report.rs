//! What is told of the cases that were played. Pure.

use serde_json::{Value, json};

use super::{Played, Problem};

/// How one case that failed reads: its place, what is wrong with expected beside got, what happened, and how to play it again.
#[must_use]
pub fn failed(played: &Played, again: &str) -> Vec<String> {
    let mut lines = vec![format!("✘ {}: {}: {}", played.place, played.pack, played.name)];
    for Problem { place, what, lines: more } in &played.problems {
        let at = if place == &played.place { String::new() } else { format!("{}:{}: ", place.file, place.line) };
        lines.push(format!("    {at}{what}"));
        lines.extend(more.iter().map(|line| format!("    {line}")));
    }
    if !played.story.is_empty() {
        lines.push("    what happened:".into());
        lines.extend(played.story.iter().map(|line| format!("      {line}")));
    }
    lines.push(format!("    again: {again} --case '{}'", played.name.replace('\'', "'\\''")));
    lines
}

/// The last line.
#[must_use]
pub fn summary(played: &[Played], all: usize, seed: u64) -> String {
    let failed = played.iter().filter(|one| !one.passed()).count();
    let left = if played.len() < all { format!(", {} not played", all - played.len()) } else { String::new() };
    let mark = if failed == 0 { "✔" } else { "✘" };
    format!("{mark} {} cases passed, {failed} failed{left} (seed {seed})", played.len() - failed)
}

/// The same for programs.
#[must_use]
pub fn data(played: &[Played], all: usize, seed: u64) -> Value {
    let failed = played.iter().filter(|one| !one.passed()).count();
    json!({
        "passed": played.len() - failed,
        "failed": failed,
        "not_played": all - played.len(),
        "seed": seed,
        "cases": played.iter().map(one).collect::<Vec<_>>(),
    })
}

fn one(played: &Played) -> Value {
    let problem =
        |problem: &Problem| json!({"file": &*problem.place.file, "line": problem.place.line, "what": problem.what, "lines": problem.lines});
    json!({
        "pack": played.pack,
        "name": played.name,
        "file": &*played.place.file,
        "line": played.place.line,
        "passed": played.passed(),
        "problems": played.problems.iter().map(problem).collect::<Vec<_>>(),
        "happened": played.story,
    })
}
