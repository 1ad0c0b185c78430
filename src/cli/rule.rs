//! `signalman rule list|test|why`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::client::{ApiClient, id_part};
use super::table::{self, text};
use super::{Answer, Common, Failure, Output, print_json, print_line};
use crate::config::{self, Environment};
use crate::document::fault::SourceFile;
use crate::document::fields::Faults;
use crate::document::node;
use crate::model::action::{Action, bind, masked};
use crate::model::event::Event;
use crate::model::ids::IdSource;
use crate::model::json::RawJson;
use crate::model::rule::Rule;
use crate::model::verdict::Verdict;
use crate::pack::{self, DEFAULT_PACK};
use crate::rule::book::CompiledRule;
use crate::rule::judge::{Known, explain};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// The rules that are in force
    List,
    /// Try a rule file on an event file, without a server
    Test(TestArguments),
    /// Why a rule matched an event, or did not
    Why {
        /// The rule, `pack.name`
        rule: String,
        /// The event's id, or the last six characters of it
        event: String,
    },
}

/// Exit codes: 0 matched, 1 not matched, 2 a file that the loader would refuse.
#[derive(Debug, clap::Args)]
pub(super) struct TestArguments {
    /// The rule
    #[arg(long, value_name = "FILE")]
    rule: PathBuf,
    /// The event: `{"trigger": "pack.name", "payload": {…}}`
    #[arg(long, value_name = "FILE")]
    event: PathBuf,
    /// The time of the event, RFC 3339; now if not given
    #[arg(long, value_name = "TIME")]
    now: Option<DateTime<Utc>>,
}

pub(super) fn run(common: &Common, command: Command, environment: &Environment) -> Result<Answer, Failure> {
    match command {
        Command::List => list(common, &ApiClient::new(common, environment)?),
        Command::Test(arguments) => test(common, &arguments, environment),
        Command::Why { rule, event } => {
            let answer =
                ApiClient::new(common, environment)?.get(&format!("/api/v1/rules/{}/why/{}", id_part(&rule)?, id_part(&event)?))?;
            if common.output == Output::Json {
                print_json(&answer);
            } else {
                print_why(&answer);
            }
            Ok(if answer["matched"] == true { Answer::Yes } else { Answer::No })
        }
    }
}

fn list(common: &Common, client: &ApiClient) -> Result<Answer, Failure> {
    let answer = client.get("/api/v1/rules")?;
    if common.output == Output::Json {
        print_json(&answer);
        return Ok(Answer::Yes);
    }
    let rows: Vec<Vec<String>> = answer["rules"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|rule| {
            let state = if rule["enabled"] == true { text(&rule["mode"]) } else { "disabled".into() };
            vec![text(&rule["ref"]), state, text(&rule["trigger"]), text(&rule["action"]), text(&rule["file"])]
        })
        .collect();
    table::print(&["rule", "state", "trigger", "action", "file"], &rows, "no rules yet; put a file into rules/");
    Ok(Answer::Yes)
}

/// Prints what one rule said, for people.
pub(super) fn print_why(answer: &Value) {
    let mark = if answer["matched"] == true { "✔" } else { "✘" };
    print_line(&format!("{mark} {}: {} · {}", text(&answer["rule"]), text(&answer["reason"]), text(&answer["meaning"])));
    if !answer["detail"].is_null() {
        print_line(&format!("    {}", text(&answer["detail"])));
    }
    for criterion in answer["criteria"].as_array().into_iter().flatten() {
        let mark = if criterion["held"] == true { "✔" } else { "✘" };
        let error = criterion["error"].as_str().map(|error| format!(" ({error})")).unwrap_or_default();
        let (key, operator) = (text(&criterion["key"]), text(&criterion["operator"]));
        print_line(&format!("    {mark} {key} {operator} {}, saw {}{error}", criterion["pattern"], criterion["value"]));
    }
    if let Some(execution) = answer["execution"].as_object() {
        let error = execution.get("error").and_then(Value::as_str).map(|error| format!(": {error}")).unwrap_or_default();
        print_line(&format!("    ran execution {} · {}{error}", text(&execution["id"]), text(&execution["status"])));
    }
    if answer["matched"] != true {
        print_line(&format!("    → {}", text(&answer["remedy"])));
    }
    if answer["changed_since"] == true {
        print_line("    the rule has been changed or removed since; this is by the rule as it was");
    }
    if answer["new_since"] == true {
        print_line("    the rule did not exist then; this is by the rule as it is");
    }
}

fn test(common: &Common, arguments: &TestArguments, environment: &Environment) -> Result<Answer, Failure> {
    let rule = read_rule(&arguments.rule)?;
    let event = read_event(&arguments.event, arguments.now.unwrap_or_else(|| crate::clock::Clock::now(&crate::clock::SystemClock)))?;
    let compiled = Arc::new(rule);
    let known = Known::rehearsal(&compiled, &event, BTreeMap::new());
    let (verdict, rendered) =
        explain(&compiled, &event, &known).map_err(|error| Failure::misuse(format!("{}: {error}", arguments.event.display())))?;
    let found = find_action(&compiled.rule, common, arguments, environment)?;
    if let Some(found) = &found {
        let faults = pack::rule::check_parameters(&compiled.rule, found);
        if !faults.is_empty() {
            let faults: Vec<String> = faults.iter().map(|(message, place)| format!("{place}: error: {message}")).collect();
            return Err(Failure::misuse(format!("the rule cannot be loaded:\n{}", faults.join("\n"))));
        }
    }
    let action = rendered.map(|rendered| action(&compiled.rule, rendered, found.as_deref()));
    let answer = json!({
        "matched": verdict.matched,
        "reason": verdict.reason,
        "criteria": criteria(&verdict),
        "action": action,
        "detail": verdict.detail,
        "not_applied": not_applied(&compiled.rule),
    });
    if common.output == Output::Json {
        print_json(&answer);
    } else {
        let mut shown = answer.clone();
        shown["rule"] = json!(verdict.rule);
        shown["meaning"] = json!(verdict.reason.meaning());
        shown["remedy"] = json!(verdict.reason.remedy());
        print_why(&shown);
        if let Some(action) = answer["action"].as_object() {
            let error = action["error"].as_str().map(|error| format!("; but {error}")).unwrap_or_default();
            print_line(&format!("    would run {} {}{error}", text(&action["ref"]), action["parameters"]));
        }
    }
    Ok(if verdict.matched { Answer::Yes } else { Answer::No })
}

/// What a single event cannot show.
fn not_applied(rule: &Rule) -> Vec<&'static str> {
    let parts = [("window", rule.window.is_some()), ("throttle", rule.throttle.is_some()), ("backstop", rule.backstop)];
    parts.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name).collect()
}

fn criteria(verdict: &Verdict) -> Vec<Value> {
    let one = |criterion: &crate::model::verdict::CriterionVerdict| {
        json!({
            "key": criterion.key, "operator": criterion.operator, "pattern": criterion.pattern,
            "value": criterion.value, "held": criterion.held, "error": criterion.error,
        })
    };
    verdict.criteria.iter().map(one).collect()
}

/// The rule's action, from the site folder above the file or the one that is named.
///
/// A rule of a site must fit the site: its trigger and its channel must exist.
fn find_action(rule: &Rule, common: &Common, arguments: &TestArguments, environment: &Environment) -> Result<Option<Arc<Action>>, Failure> {
    let given = (common.site != Path::new(".") || common.site.join(config::FILE).is_file()).then(|| common.site.clone());
    let own = site_above(&arguments.rule);
    let inside = own.is_some();
    let Some(folder) = own.or(given) else { return Ok(None) };
    let mut site = pack::load(&folder, environment).0;
    let channel = rule.notify.as_ref().map(|notify| &notify.channel);
    if inside && !site.triggers.contains_key(&rule.trigger) {
        return Err(Failure::misuse(format!(
            "the rule cannot be loaded:\n{}: error: there is no trigger `{}`",
            rule.trigger_place, rule.trigger
        )));
    }
    if let Some(channel) = channel.filter(|channel| inside && !site.config.channels.contains_key(*channel)) {
        return Err(Failure::misuse(format!("the rule cannot be loaded:\n{}: error: there is no channel `{channel}`", rule.notify_place)));
    }
    Ok(site.actions.remove(&rule.action))
}

/// The action with its parameters, cast if the action is found.
fn action(rule: &Rule, rendered: Result<Map<String, Value>, String>, found: Option<&Action>) -> Value {
    let parameters = match rendered {
        Ok(parameters) => parameters,
        Err(error) => return json!({"ref": rule.action, "parameters": null, "cast": false, "error": error}),
    };
    let Some(found) = found else {
        eprintln!("warning: the action `{}` is not found, so its parameters are not cast; name the site with --site", rule.action);
        return json!({"ref": rule.action, "parameters": parameters, "cast": false, "error": null});
    };
    match bind(&found.parameters, &parameters) {
        Ok(bound) => json!({"ref": rule.action, "parameters": masked(&found.parameters, &bound), "cast": true, "error": null}),
        Err(faults) => {
            json!({"ref": rule.action, "parameters": masked(&found.parameters, &parameters), "cast": false, "error": faults.join("; ")})
        }
    }
}

fn site_above(file: &Path) -> Option<PathBuf> {
    let file = file.canonicalize().ok()?;
    file.ancestors().skip(1).find(|folder| folder.join(config::FILE).is_file() || folder.join("packs").is_dir()).map(Path::to_path_buf)
}

fn read(file: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(file).map_err(|error| Failure::misuse(format!("`{}` cannot be read: {error}", file.display())))?;
    String::from_utf8(bytes)
        .map_err(|error| Failure::misuse(format!("`{}` is not UTF-8 at byte {}", file.display(), error.utf8_error().valid_up_to())))
}

fn read_rule(file: &Path) -> Result<CompiledRule, Failure> {
    let source = SourceFile::new(file.display().to_string(), read(file)?);
    let mut faults = Faults::default();
    let node = node::parse(&source).map_err(|fault| Failure::misuse(format!("the rule cannot be loaded:\n{fault}")))?;
    // A tool may try a rule in a file of any name.
    let name = node.value()["name"].as_str().map(ToString::to_string);
    let stem = name.unwrap_or_else(|| file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned()));
    let pack = pack_of(file).unwrap_or_else(|| DEFAULT_PACK.to_string());
    let rule = pack::rule::read(&source, &node, &pack, &stem, &mut faults);
    match rule {
        Some(rule) if faults.allow() => Ok(rule),
        _ => {
            let all: Vec<String> = faults.0.iter().map(ToString::to_string).collect();
            Err(Failure::misuse(format!("the rule cannot be loaded:\n{}", all.join("\n"))))
        }
    }
}

/// The pack that a rule file belongs to: `packs/NAME/rules/…`.
fn pack_of(file: &Path) -> Option<String> {
    let file = file.canonicalize().ok()?;
    let folder = file.ancestors().skip(1).find(|folder| folder.join("pack.yaml").is_file())?;
    Some(folder.file_name()?.to_string_lossy().into_owned())
}

fn read_event(file: &Path, now: DateTime<Utc>) -> Result<Event, Failure> {
    let wrong = |what: &str| Failure::misuse(format!("`{}`: {what}", file.display()));
    let raw = RawJson::parse(&read(file)?).map_err(|error| wrong(&format!("not JSON: {error}")))?;
    let value = raw.value().map_err(|error| wrong(&error))?;
    let Value::Object(fields) = value else { return Err(wrong("must be an object with `trigger` and `payload`")) };
    if let Some(unknown) = fields.keys().find(|key| !["trigger", "payload", "key", "occurred_at", "id"].contains(&key.as_str())) {
        return Err(wrong(&format!("has no field `{unknown}`; it holds `trigger` and `payload`, and may hold `key`")));
    }
    let trigger = fields.get("trigger").and_then(Value::as_str).ok_or_else(|| wrong("`trigger` must be text such as \"pack.name\""))?;
    let payload = fields.get("payload").ok_or_else(|| wrong("`payload` is missing"))?;
    if !payload.is_object() {
        return Err(wrong("`payload` must be a JSON object"));
    }
    let occurred_at = match fields.get("occurred_at") {
        None | Some(Value::Null) => now,
        Some(Value::String(text)) => {
            DateTime::parse_from_rfc3339(text).map_err(|_| wrong("`occurred_at` must be an RFC 3339 time"))?.to_utc()
        }
        Some(_) => return Err(wrong("`occurred_at` must be an RFC 3339 time")),
    };
    Ok(Event {
        id: IdSource::seeded(0).event(now),
        trigger: trigger.to_string(),
        key: fields.get("key").and_then(Value::as_str).map(ToString::to_string),
        dedup_key: None,
        occurred_at,
        received_at: now,
        source: "test".into(),
        cause: None,
        depth: 0,
        payload: RawJson::of(payload),
    })
}
