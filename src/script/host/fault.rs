//! Tells what went wrong in a script: place, line, the calls that led there, and what was probably meant.

use rhai::{AST, EvalAltResult, Position};

use super::compile::ScriptFault;
use super::{EXHAUSTED, Entry, HUNGRY, MAX_CALL_LEVELS, MAX_HELD_BYTES, MAX_OPERATIONS, STOPPED, from_dynamic, module, names};
use crate::document::fault::{excerpt, nearest};
use crate::document::fields::did_you_mean;
use crate::model::action::Script;
use crate::model::failure::Failure;
use crate::model::reason::Reason;
use crate::template::text::plain;

/// Calls that are shown of a chain.
const SHOWN_CALLS: usize = 8;

/// Why the engine was told to end the script.
pub(super) fn termination(token: &str, entry: Entry) -> Failure {
    let (reason, message, retry) = match token {
        STOPPED => (Reason::Canceled, "the script was stopped".to_string(), false),
        EXHAUSTED => (Reason::BudgetExceeded, format!("more than {MAX_OPERATIONS} operations"), false),
        HUNGRY => (Reason::BudgetExceeded, format!("the script held more than {} MiB of memory", MAX_HELD_BYTES >> 20), false),
        _ => (Reason::TimedOut, format!("the script ran longer than the {}'s `timeout`", entry.owner()), true),
    };
    Failure { reason, message, retry }
}

/// A script that cannot be compiled.
pub(super) fn broken(script: &Script, faults: &[ScriptFault]) -> Failure {
    let told: Vec<String> = faults.iter().map(|fault| placed(script, (fault.line, fault.column), &fault.message)).collect();
    Failure { reason: Reason::ScriptBroken, message: told.join("\n"), retry: false }
}

/// What went wrong in a script, with the innermost place, its line, and the calls that led there.
pub(super) fn fault(error: &EvalAltResult, ast: &AST, script: &Script, entry: Entry) -> Failure {
    let (mut inner, mut position, mut calls) = (error, error.position(), Vec::new());
    while let EvalAltResult::ErrorInFunctionCall(name, _, next, called_at) = inner {
        calls.push((name.as_str(), *called_at));
        inner = next;
        if !inner.position().is_none() {
            position = inner.position();
        }
    }
    let (reason, what, retry) = match inner {
        EvalAltResult::ErrorTerminated(token, _) => return termination(&token.to_string(), entry),
        EvalAltResult::ErrorTooManyOperations(_) => (Reason::BudgetExceeded, format!("more than {MAX_OPERATIONS} operations"), false),
        EvalAltResult::ErrorStackOverflow(_) => {
            (Reason::BudgetExceeded, format!("functions call each other deeper than {MAX_CALL_LEVELS} levels"), false)
        }
        EvalAltResult::ErrorTooManyVariables(_) => (Reason::BudgetExceeded, "too many variables at once".to_string(), false),
        EvalAltResult::ErrorDataTooLarge(what, _) => (Reason::BudgetExceeded, format!("too large: {what}"), false),
        EvalAltResult::ErrorRuntime(value, _) => match value.clone().try_cast::<Failure>() {
            Some(fault) => (fault.reason, fault.message, fault.retry),
            None if value.is_unit() || value.clone().into_string().is_ok_and(|text| text.is_empty()) => {
                (Reason::ActionFailed, "the script threw nothing; throw a text that says why".to_string(), true)
            }
            None => (Reason::ActionFailed, from_dynamic(value).map_or_else(|_| value.to_string(), |json| plain(&json)), true),
        },
        other => {
            let text = other.to_string();
            let text = text.split(" (line ").next().unwrap_or(&text).replace("&str | ImmutableString | String", "string");
            (Reason::ActionFailed, format!("{text}{}", meant(other, ast)), false)
        }
    };
    let place = (position.line().unwrap_or(0), position.position().unwrap_or(0));
    let mut message = placed(script, place, &what);
    message.push_str(&chain(&calls));
    Failure { reason, message, retry }
}

/// The place, what is wrong there, and the line.
fn placed(script: &Script, (line, column): (usize, usize), what: &str) -> String {
    if line == 0 {
        return format!("{}: {what}", script.file);
    }
    let source = script.text.lines().nth(line - 1).unwrap_or_default();
    format!("{}:{line}:{column}: {what}{}", script.file, excerpt(source, line, column))
}

/// The functions that were called, from the innermost; nothing for `run` alone.
fn chain(calls: &[(&str, Position)]) -> String {
    let mut shown = String::new();
    for (count, (name, called_at)) in calls.iter().rev().enumerate() {
        let Some(line) = called_at.line() else { continue };
        if count == SHOWN_CALLS {
            shown.push_str(&format!("\n       = and {} more calls", calls.len() - count));
            break;
        }
        let name = if name.starts_with("anon$") { "a closure".to_string() } else { format!("`{name}`") };
        shown.push_str(&format!("\n       = in {name}, called at {line}:{}", called_at.position().unwrap_or(0)));
    }
    shown
}

/// What was probably meant by a name that is not there.
fn meant(error: &EvalAltResult, ast: &AST) -> String {
    match error {
        EvalAltResult::ErrorVariableNotFound(name, _) => {
            nearest(name, names()).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
        }
        EvalAltResult::ErrorFunctionNotFound(signature, _) => {
            let (name, arguments) = signature.split_once(" (").unwrap_or((signature, ""));
            let first = arguments.split([',', ')']).next().unwrap_or_default();
            if let Some(called) = module(first) {
                let known: Vec<&str> = called.functions.iter().map(super::ScriptFunction::name).collect();
                let signatures = called.functions.iter().filter(|function| function.name() == name);
                let own: Vec<String> = signatures.map(|function| format!("`{}`", function.signature)).collect();
                return if own.is_empty() {
                    format!("; {}", did_you_mean(name, &known))
                } else {
                    format!("; it is called as {}", own.join(" or "))
                };
            }
            let own: Vec<&str> = ast.iter_functions().map(|function| function.name).collect();
            nearest(name, own.into_iter().filter(|own| *own != name)).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
        }
        _ => String::new(),
    }
}
