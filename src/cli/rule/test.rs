//! `signalman rule test`, on one event: no server, store or site is needed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{file, print_why, since};
use crate::cli::table::text;
use crate::cli::{Answer, Common, Failure, print_line};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Environment};
use crate::model::action::{Action, bind, masked};
use crate::model::reason::Reason;
use crate::model::rule::Rule;
use crate::model::verdict::{CriterionVerdict, Verdict};
use crate::pack;
use crate::rule::judge::{Known, explain};

/// With `--event` no server is needed, and windows and throttles are not applied. With `--since` the server replays what it has stored, from
/// the oldest event to the newest, with windows and throttles; nothing is run.
///
/// Exit codes: 0 matched, 1 not matched, 2 a file that the loader would refuse.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The rule
    #[arg(long, value_name = "FILE")]
    pub rule: PathBuf,
    /// The event: `{"trigger": "pack.name", "payload": {…}}`
    #[arg(long, value_name = "FILE", required_unless_present = "since", conflicts_with = "since")]
    event: Option<PathBuf>,
    /// Keys of the datastore, which rules see as `kv.system`: `{"name": value}`
    #[arg(long, value_name = "FILE", conflicts_with = "since")]
    keys: Option<PathBuf>,
    /// The time of the event, RFC 3339; now if not given
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    now: Option<DateTime<Utc>>,
    /// Instead of one event, all that the server has stored from then on: how long ago (24h), or a time, RFC 3339
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only events before then; now if not given
    #[arg(long, value_name = "TIME", conflicts_with = "event")]
    pub until: Option<String>,
    /// How many matches are shown
    #[arg(long, conflicts_with = "event", default_value_t = 20)]
    pub limit: usize,
}

/// The answer that tools rely on; the order of the fields is part of it.
#[derive(Serialize)]
struct Tried<'v> {
    matched: bool,
    reason: Reason,
    criteria: Vec<Criterion<'v>>,
    action: Option<Asked<'v>>,
    detail: Option<&'v str>,
    not_applied: Vec<&'static str>,
    keys_missing: Vec<&'v str>,
}

#[derive(Serialize)]
struct Criterion<'v> {
    key: &'v str,
    operator: &'v str,
    pattern: &'v Value,
    value: &'v Value,
    held: bool,
    error: Option<&'v str>,
}

#[derive(Serialize)]
struct Asked<'r> {
    #[serde(rename = "ref")]
    reference: &'r str,
    parameters: Option<Map<String, Value>>,
    cast: bool,
    error: Option<String>,
}

pub(super) fn run(common: &Common, arguments: &Arguments, environment: &Environment) -> Result<Answer, Failure> {
    let Some(event_file) = &arguments.event else { return since::run(common, arguments, environment) };
    let compiled = Arc::new(file::rule(&arguments.rule)?);
    let event = file::event(event_file, arguments.now.unwrap_or_else(|| SystemClock.now()))?;
    let keys = arguments.keys.as_deref().map(file::keys).transpose()?.unwrap_or_default();
    let keys_missing: Vec<&str> = compiled.keys().iter().map(String::as_str).filter(|name| !keys.contains_key(*name)).collect();
    let known = Known::rehearsal(&compiled, &event, keys);
    let (verdict, rendered) =
        explain(&compiled, &event, &known).map_err(|error| Failure::misuse(format!("{}: {error}", event_file.display())))?;
    let found = find_action(&compiled.rule, common, &arguments.rule, environment)?;
    if let Some(found) = &found {
        let faults = pack::rule::check_parameters(&compiled.rule, found);
        if !faults.is_empty() {
            let faults: Vec<String> = faults.iter().map(|(message, place)| format!("{place}: error: {message}")).collect();
            return Err(file::refused(&faults.join("\n")));
        }
    }
    let answer = Tried {
        matched: verdict.matched,
        reason: verdict.reason,
        criteria: verdict.criteria.iter().map(criterion).collect(),
        action: rendered.map(|rendered| action(&compiled.rule, rendered, found.as_deref())),
        detail: verdict.detail.as_deref(),
        not_applied: not_applied(&compiled.rule),
        keys_missing,
    };
    common.show(&answer, || print(&answer, &verdict));
    Ok(if verdict.matched { Answer::Yes } else { Answer::No })
}

fn print(answer: &Tried<'_>, verdict: &Verdict) {
    let mut shown = json!(answer);
    shown["rule"] = json!(verdict.rule);
    shown["meaning"] = json!(verdict.reason.meaning());
    shown["remedy"] = json!(verdict.reason.remedy());
    print_why(&shown);
    if let Some(action) = shown["action"].as_object() {
        let error = action["error"].as_str().map(|error| format!("; but {error}")).unwrap_or_default();
        print_line(&format!("    would run {} {}{error}", text(&action["ref"]), action["parameters"]));
    }
    for name in &answer.keys_missing {
        print_line(&format!("    kv.system.{name} has no value here; give it one in the file of --keys"));
    }
    if !answer.not_applied.is_empty() {
        print_line(&format!("    not applied to a single event: {}; --since applies them", answer.not_applied.join(", ")));
    }
}

fn criterion(criterion: &CriterionVerdict) -> Criterion<'_> {
    let CriterionVerdict { key, operator, pattern, value, held, error } = criterion;
    Criterion { key, operator, pattern, value, held: *held, error: error.as_deref() }
}

/// What a single event cannot show.
fn not_applied(rule: &Rule) -> Vec<&'static str> {
    let parts = [("window", rule.window.is_some()), ("throttle", rule.throttle.is_some()), ("backstop", rule.backstop)];
    parts.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name).collect()
}

/// The rule's action, from the site folder above the file or the one that is named.
///
/// A rule of a site must fit the site: its trigger and its channel must exist.
fn find_action(rule: &Rule, common: &Common, rule_file: &Path, environment: &Environment) -> Result<Option<Arc<Action>>, Failure> {
    let given = (common.site != Path::new(".") || common.site.join(config::FILE).is_file()).then(|| common.site.clone());
    let own = site_above(rule_file);
    let inside = own.is_some();
    let Some(folder) = own.or(given) else { return Ok(None) };
    let mut site = pack::load(&folder, environment).0;
    let channel = rule.notify.as_ref().map(|notify| &notify.value.channel);
    if inside && !site.triggers.contains_key(&*rule.trigger) {
        return Err(file::refused(&format!("{}: error: there is no trigger `{}`", rule.place(rule.trigger_at), rule.trigger)));
    }
    if let Some(channel) = channel.filter(|channel| inside && !site.config.channels.contains_key(*channel)) {
        return Err(file::refused(&format!(
            "{}: error: there is no channel `{channel}`",
            rule.place(rule.notify.as_ref().map(|notify| notify.at).unwrap_or_default())
        )));
    }
    Ok(site.actions.remove(&*rule.action))
}

/// The action with its parameters, cast if the action is found.
fn action<'r>(rule: &'r Rule, rendered: Result<Map<String, Value>, String>, found: Option<&Action>) -> Asked<'r> {
    let asked = |parameters, cast, error| Asked { reference: &rule.action, parameters, cast, error };
    let parameters = match rendered {
        Ok(parameters) => parameters,
        Err(error) => return asked(None, false, Some(error)),
    };
    let Some(found) = found else {
        eprintln!("warning: the action `{}` is not found, so its parameters are not cast; name the site with --site", rule.action);
        return asked(Some(parameters), false, None);
    };
    match bind(&found.parameters, &parameters) {
        Ok(bound) => asked(Some(masked(&found.parameters, &bound)), true, None),
        Err(faults) => asked(Some(masked(&found.parameters, &parameters)), false, Some(faults.join("; "))),
    }
}

fn site_above(file: &Path) -> Option<PathBuf> {
    let file = file.canonicalize().ok()?;
    file.ancestors().skip(1).find(|folder| folder.join(config::FILE).is_file() || folder.join("packs").is_dir()).map(Path::to_path_buf)
}
