//! Every sentence the bot says. Pure.

use crate::model::execution::{Execution, Status};
use crate::model::principal::Principal;
use crate::template::text::TemplateError;

/// The store cannot be used.
#[must_use]
pub fn store_failing(why: &str) -> String {
    format!(
        "🛑 New events are refused: {why}. Nothing that was accepted is lost, senders are told to try again, and Signalman goes on by itself when this is mended · `/readyz`"
    )
}

/// Some of what is stored is damaged, and the rest goes on.
#[must_use]
pub fn store_damaged(what: &str) -> String {
    format!("⚠️ {what}. What it holds cannot be read or removed; everything else goes on · `signalman store check`")
}

/// A rule asks for too much.
#[must_use]
pub fn held_by_ceiling(rule: &str, ceiling: u32) -> String {
    format!(
        "⚠️ Rule `{rule}` asks for more than {ceiling} executions a minute. They are kept and start at that pace; look why it matches so often, or raise its `ceiling` · `signalman rule disable {rule}`"
    )
}

/// A rule is not tried any more.
#[must_use]
pub fn quarantined(rule: &str, event: &str) -> String {
    format!(
        "🛑 Rule `{rule}` is not tried any more: its `when` used up its budget ten times in a minute, the last time at event `{event}`. Make it simpler; a changed rule is tried again · `signalman rule enable {rule}`"
    )
}

/// A person stops what rules ask for.
#[must_use]
pub fn held(by: &str, reason: &str) -> String {
    format!(
        "⏸ Automatic executions are held by {by}: {reason}. What rules ask for is kept in order; chat, API and webhooks go on · `signalman release`"
    )
}

/// And lets go.
#[must_use]
pub fn released(by: &str) -> String {
    format!("▶️ {by} lets automatic executions go; what was held starts now, in order")
}

/// How an execution that a rule asked for ended.
#[must_use]
pub fn outcome(execution: &Execution) -> String {
    let (request, state) = (&execution.request, &execution.state);
    let by = match &request.requested_by {
        Principal::Rule(rule) => format!(" (rule `{rule}`)"),
        other @ (Principal::Token(_) | Principal::Execution(_)) => format!(" (asked for by {})", other.describe()),
    };
    let id = execution.id.short();
    let action = &request.action;
    let error = state.error.as_deref().unwrap_or("no more is known");
    let attempts = if state.attempt > 1 { format!(" after {} attempts", state.attempt) } else { String::new() };
    match state.status {
        Status::Succeeded => format!("✅ `{action}` succeeded{attempts}{by} · `{id}`"),
        Status::Abandoned => format!("⚠️ `{action}` was abandoned{by}: {error}. It is not run again by itself · `{id}`"),
        Status::TimedOut => format!("❌ `{action}` timed out{attempts}{by}: {error} · `{id}`"),
        Status::Canceled => format!("⏹ `{action}` was canceled{by}: {error} · `{id}`"),
        Status::Failed => format!("❌ `{action}` failed{attempts}{by}: {error} · `{id}`"),
        Status::Requested | Status::Delayed | Status::Running | Status::Canceling => {
            format!("`{action}` is {}{by} · `{id}`", state.status.name())
        }
    }
}

/// What is said at once when a command runs something.
#[must_use]
pub fn heard(action: &str, id: &str) -> String {
    format!("⏳ `{action}` · `{id}`")
}

/// How far an execution is that somebody asked for; `told` is what its script says.
#[must_use]
pub fn progress(execution: &Execution, told: Option<&str>) -> String {
    let (action, id, state) = (&execution.request.action, execution.id.short(), &execution.state);
    let attempt = if state.attempt > 1 { format!(", attempt {}", state.attempt) } else { String::new() };
    match (state.status, told) {
        (Status::Running, Some(told)) => format!("⏳ {told}{attempt} · `{id}`"),
        (Status::Running, None) => format!("⏳ `{action}` is running{attempt} · `{id}`"),
        (Status::Requested, _) => format!("⏳ `{action}` waits for its turn · `{id}`"),
        (Status::Delayed, _) => {
            let error = state.error.as_deref().map(|error| format!(": {}", first_line(error))).unwrap_or_default();
            format!("⏳ `{action}` waits for attempt {}{error} · `{id}`", state.attempt + 1)
        }
        _ => format!("⏳ `{action}` is {} · `{id}`", state.status.name()),
    }
}

/// How an execution ended that somebody asked for.
#[must_use]
pub fn result(execution: &Execution) -> String {
    let (action, id, state) = (&execution.request.action, execution.id.short(), &execution.state);
    let attempts = if state.attempt > 1 { format!(" after {} attempts", state.attempt) } else { String::new() };
    let error = state.error.as_deref().map_or("no more is known", first_line);
    match state.status {
        Status::Succeeded => {
            let shown = state.result.as_ref().map(brief).filter(|text| !text.is_empty()).map(|text| format!(": {text}"));
            format!("✅ `{action}` succeeded{attempts}{} · `{id}`", shown.unwrap_or_default())
        }
        Status::Abandoned => format!("⚠️ `{action}` was abandoned: {error}. It is not run again by itself · `{id}`"),
        Status::TimedOut => format!("❌ `{action}` timed out{attempts}: {error} · `!why {id}`"),
        Status::Canceled => format!("⏹ `{action}` was canceled: {error} · `{id}`"),
        _ => format!("❌ `{action}` failed{attempts}: {error} · `!why {id}`"),
    }
}

/// The most of a result that is shown where the alias has no template for it, in characters.
const BRIEF: usize = 600;

fn brief(result: &serde_json::Value) -> String {
    let text = crate::template::text::plain(result);
    if text.chars().count() <= BRIEF { text } else { format!("{}…", text.chars().take(BRIEF).collect::<String>()) }
}

/// What is added where a template could not be used.
#[must_use]
pub fn template_failed(template: &str, error: &TemplateError) -> String {
    let place = error.line.map(|line| format!(", line {line}, column {}", error.column.unwrap_or(1))).unwrap_or_default();
    format!("(the template `{template}` could not be used: {error}{place})")
}

/// Asks for a parameter.
#[must_use]
pub fn question(name: &str, takes: &str, about: &str, fault: Option<&str>) -> String {
    let fault = fault.map(|fault| format!("{fault}. ")).unwrap_or_default();
    let about = if about.is_empty() { String::new() } else { format!(" · {about}") };
    format!("{fault}Which `{name}`? {takes}{about} (reply, or `cancel`)")
}

/// A question is not open any more.
#[must_use]
pub fn forgotten() -> String {
    "Forgotten; nothing was run.".into()
}

/// There is no question.
#[must_use]
pub fn nothing_asked() -> String {
    "There is nothing to forget. To stop what runs, name it: `!cancel ID`".into()
}

/// Nobody knows such a command.
#[must_use]
pub fn unknown(text: &str, near: &[String]) -> String {
    let shown: String = text.chars().take(80).collect();
    let shown = if shown.len() < text.len() { format!("{shown}…") } else { shown };
    match near {
        [] => format!("I do not know `{shown}`; `!help` lists what I do."),
        [one] => format!("I do not know `{shown}`; did you mean `{one}`?"),
        several => format!("I do not know `{shown}`; there is {}.", ticked(several)),
    }
}

/// Several commands fit equally well.
#[must_use]
pub fn ambiguous(candidates: &[(String, String)]) -> String {
    let named: Vec<String> = candidates.iter().take(5).map(|(display, alias)| format!("`!{display}` (`{alias}`)")).collect();
    let more = if candidates.len() > 5 { format!(" and {} more", candidates.len() - 5) } else { String::new() };
    format!("That may mean {}{more}. Nothing was run; their authors must tell them apart.", named.join(" or "))
}

/// A command is switched off.
#[must_use]
pub fn disabled(display: &str, alias: &str) -> String {
    format!("`!{display}` (`{alias}`) is switched off.")
}

/// A command went away while a question was open.
#[must_use]
pub fn gone(alias: &str) -> String {
    format!("There is no command `{alias}` any more.")
}

/// What a command runs is switched off.
#[must_use]
pub fn action_disabled(action: &str) -> String {
    format!("Action `{action}` is switched off, or gone.")
}

/// Values do not fit.
#[must_use]
pub fn wrong(faults: &[String], example: &str) -> String {
    let example = if example.is_empty() { String::new() } else { format!(" · for example `{example}`") };
    format!("{}{example}", faults.join("; "))
}

/// Something could not be done.
#[must_use]
pub fn refused(why: &str) -> String {
    format!("{why}.")
}

/// Who somebody is.
#[must_use]
pub fn whoami(user: &str, principal: &Principal, adapter: &str, channel: &str) -> String {
    format!("You are {user} ({}), in {channel} of {adapter}.", principal.describe())
}

/// Nothing was asked for here.
#[must_use]
pub fn no_last() -> String {
    "You have not asked for anything here lately; name an execution: `!status ID`".into()
}

/// How an execution does.
#[must_use]
pub fn status(execution: &Execution) -> String {
    let (request, state) = (&execution.request, &execution.state);
    let since = state.ended_at.or(state.started_at).unwrap_or(request.requested_at);
    let error = state.error.as_deref().map(|error| format!(": {}", first_line(error))).unwrap_or_default();
    let attempt = if state.attempt > 1 { format!(", attempt {}", state.attempt) } else { String::new() };
    let by = request.requested_by.describe();
    format!(
        "`{}` is {}{attempt}{error} · since {} UTC · asked for by {by} · `{}`",
        request.action,
        state.status.name(),
        since.format("%Y-%m-%d %H:%M:%S"),
        execution.id.short()
    )
}

/// Why an execution came to be, and what became of it.
#[must_use]
pub fn why_execution(execution: &Execution) -> String {
    let (request, state) = (&execution.request, &execution.state);
    let cause = match (&request.asked, &request.requested_by, request.event) {
        (Some(asked), ..) => format!("{} asked for it in {} with `{}`", asked.user, asked.channel, asked.alias),
        (None, Principal::Rule(rule), Some(event)) => format!("rule `{rule}` asked for it because of event `{}`", event.short()),
        (None, by, _) => format!("{} asked for it", by.describe()),
    };
    let error = state.error.as_deref().map(|error| format!(": {}", first_line(error))).unwrap_or_default();
    let reason = state.reason;
    format!("{}\n{cause}\n{}: {}{error}\n→ {}", status(execution), reason.code(), reason.meaning(), reason.remedy())
}

/// What the rules said about an event: reference, reason and meaning of each.
#[must_use]
pub fn why_event(id: &str, trigger: &str, rules: &[(String, &'static str, &'static str)], more: usize) -> String {
    let mut lines = vec![format!("Event `{id}` of {trigger}:")];
    lines.extend(rules.iter().map(|(rule, reason, meaning)| format!("  `{rule}`: {reason} · {meaning}")));
    if rules.is_empty() {
        lines.push("  no rule of the site has this trigger".into());
    }
    if more > 0 {
        lines.push(format!("  … and {more} more · `signalman event why {id}`"));
    }
    lines.join("\n")
}

fn ticked(texts: &[String]) -> String {
    texts.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", ")
}

/// Of an error that shows a script, what is wrong and where.
fn first_line(error: &str) -> &str {
    error.lines().next().unwrap_or_default()
}
