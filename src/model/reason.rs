//! The closed list of causes: every match, near-miss, drop, hold, retry and failure has one of these,
//! in the same words on every surface. `docs/reference/reasons.md` is generated from this file.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident, $code:literal, $meaning:literal, $remedy:literal;)*) => {
        /// Why something happened, or did not.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Reason {
            $(#[doc = $meaning] $name,)*
        }

        impl Reason {
            /// Every reason, in the order of the way of an event.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name used in files, API, chat and metrics.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// What it means, in one sentence.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }

            /// What to do about it.
            #[must_use]
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }
        }
    };
}

reasons! {
    // Events
    Loop, "loop", "The event was caused by our own executions more than eight steps deep and was dropped.", "Find the rule that triggers itself in the chain of causes (`signalman event show`), and narrow its criteria.";
    Rejected, "rejected", "The sender's data was faulty; it was recorded, but no rule saw it.", "Read the detail and mend the sender.";
    EvaluationFailed, "evaluation_failed", "The event could not be evaluated, twice, and was set aside.", "Read the detail; it is most likely a fault of Signalman: report it with the log.";
    // Rules
    Matched, "matched", "The rule matched and its action was requested.", "Nothing to do.";
    Shadowed, "shadowed", "The rule matched but is in shadow mode, so nothing runs.", "Set `mode: active` when you trust it.";
    OtherTrigger, "other_trigger", "The rule listens to another trigger.", "Compare the event's trigger with the rule's `trigger.type`.";
    Disabled, "disabled", "The rule is not enabled.", "Set `enabled: true` in its file.";
    TriggerParameters, "trigger_parameters", "The payload differs from the rule's trigger parameters.", "Compare the payload with `trigger.parameters` of the rule.";
    EmptyPayload, "empty_payload", "A rule with criteria never matches an empty payload.", "Send a payload, or remove the criteria.";
    CriteriaNotHeld, "criteria_not_held", "Too few of the criteria held.", "Look at the values that the criteria saw.";
    CriterionFailed, "criterion_failed", "A criterion could not be applied to the value it found.", "Compare the value's type with the operator; types are never converted.";
    GuardNotHeld, "guard_not_held", "All criteria held, but `when` was false.", "Look at the expression and at the payload.";
    GuardFailed, "guard_failed", "The expression in `when` failed.", "Use `?.` where a field may be missing.";
    KeyFailed, "key_failed", "The key of the rule's window or throttle could not be made, so the event does not count.", "Look at `by` and at the payload; a key is text of at most 256 bytes.";
    Late, "late", "The event lies too far behind the newest of its key and does not count.", "See why the sender is late, or raise the rule's `late`.";
    TooManyKeys, "too_many_keys", "The rule's window or throttle remembers as many keys as it can, and this is another one.", "Take something with fewer values as the key in `by`, or a shorter window.";
    WindowOpen, "window_open", "The event counts, but the window is not full.", "Nothing to do; `signalman rule windows` shows what is missing.";
    WindowArmed, "window_armed", "The rule waits for silence, and this event began the wait anew.", "Nothing to do; `signalman rule windows` shows until when.";
    Silent, "silent", "Nothing came for as long as the rule waits, so its action was requested.", "Nothing to do.";
    Throttled, "throttled", "The rule ran something for this key a short while ago.", "Nothing to do; the detail says from when on it runs again.";
    BackstopNotNeeded, "backstop_not_needed", "The rule is a backstop, and another rule of its trigger matched.", "Nothing to do.";
    Quarantined, "quarantined", "The rule's guard used up its budget too often, so the rule is not tried.", "Make the guard simpler; a changed rule is tried again, and so is one that is enabled with `signalman rule enable`.";
    NotKept, "not_kept", "The rule's criteria held, but what its window or throttle decided was not stored with the event.", "At most 20 near-misses are stored with an event; see the metrics for how many there were.";
    // Executions
    Requested, "requested", "The execution was asked for by a person or a token.", "Nothing to do.";
    UnknownAction, "unknown_action", "The action does not exist on this site.", "Check the name, or install the pack; `signalman lint` finds these.";
    ParametersFailed, "parameters_failed", "The parameters could not be rendered or do not fit the action.", "The detail names the parameter and the place.";
    HeldByCeiling, "held_by_ceiling", "The rule asked for more executions in a minute than its ceiling allows; this one waits for its turn.", "See what makes the rule match so often; raise its `ceiling` if that is right.";
    Held, "held", "A person holds all automatic executions; this one keeps its place and starts on release.", "`signalman hold --show` says who holds and why; `signalman release` lets go.";
    Retried, "retried", "The attempt failed, and another follows as the action's `retry` says.", "Nothing to do unless it fails in the end.";
    Resumed, "resumed", "The process ended while this ran; the action is idempotent, so it is tried again.", "Nothing to do.";
    Abandoned, "abandoned", "The process ended while this ran; the action is not idempotent, so it is not run again.", "See whether it took effect, then run it again by hand if not.";
    Succeeded, "succeeded", "The action did what it should.", "Nothing to do.";
    ActionFailed, "action_failed", "The action ran and failed.", "Read its error and its log.";
    ScriptBroken, "script_broken", "The script cannot be compiled or has no `run` function.", "`signalman lint` shows the place.";
    BudgetExceeded, "budget_exceeded", "The script used up its budget of operations, depth or size.", "Look for an endless loop; move heavy work elsewhere.";
    CapabilityMissing, "capability_missing", "The pack may not do that.", "Add the line that the error names to the pack's `pack.yaml`, if it should.";
    Unreachable, "unreachable", "The other side could not be reached or broke off.", "See whether the other side is up, and the URL right.";
    RefusedByTarget, "refused_by_target", "The other side answered with an error status.", "Read the status and body in the error.";
    OutputTooLarge, "output_too_large", "The result or response was larger than the limit.", "Return less, or a link.";
    TimedOut, "timed_out", "The action ran longer than its `timeout` and was stopped.", "Raise `timeout`, or find out what is slow.";
    Canceled, "canceled", "A person canceled it.", "Nothing to do.";
    RunnerPanicked, "runner_panicked", "The runner crashed; this is a fault of Signalman.", "Report it with the log.";
    // Senders and stores
    Overloaded, "overloaded", "More arrives than can be stored or carried out; the sender must try again later.", "Senders that honour 503 repeat by themselves; see the guide on load.";
    StoreUnavailable, "store_unavailable", "The store cannot write.", "See `/readyz` and the log; usually a full or read-only disk.";
    // Chat
    ChatUnavailable, "chat_unavailable", "The chat could not be reached; the message waits.", "See whether the chat system is up.";
    UnknownChannel, "unknown_channel", "The site has no channel of that name.", "Add it under `channels` in signalman.yaml.";
}

impl Reason {
    /// Whether it is that of a rule whose criteria and guard held, whatever its window or throttle said.
    #[must_use]
    pub fn passed_guard(self) -> bool {
        use Reason::{KeyFailed, Late, Matched, Shadowed, Throttled, TooManyKeys, WindowArmed, WindowOpen};
        matches!(self, Matched | Shadowed | WindowOpen | WindowArmed | Late | TooManyKeys | KeyFailed | Throttled)
    }
}

impl Reason {
    /// Whether a site alone can show it: the others take a part of Signalman that is broken, or very many keys.
    fn has_example(self) -> bool {
        !matches!(self, Self::TooManyKeys | Self::ScriptBroken | Self::RunnerPanicked | Self::ChatUnavailable)
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

/// The page `docs/reference/reasons.md`.
#[must_use]
pub fn reference() -> String {
    use std::fmt::Write as _;
    let mut page = String::from(
        "# Reasons\n\nGenerated from the code by `signalman reference reasons`. Every match, near-miss, drop, retry and failure has one of these.\n\
         An example is a small site and what happens there until exactly that reason is told; \
         [how to read them](../../tests/fixtures/reasons/README.md).\n\n\
         | reason | meaning | what to do | example |\n|---|---|---|---|\n",
    );
    for reason in Reason::ALL {
        let code = reason.code();
        let example =
            if reason.has_example() { format!("[{code}.yaml](../../tests/fixtures/reasons/{code}.yaml)") } else { "in the tests".into() };
        let _ = writeln!(page, "| `{code}` | {} | {} | {example} |", reason.meaning(), reason.remedy());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_the_same_in_json() {
        let mut seen = std::collections::HashSet::new();
        for reason in Reason::ALL {
            assert!(seen.insert(reason.code()), "{reason} twice");
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.code());
            assert!(reason.meaning().ends_with('.') && reason.remedy().ends_with('.'), "{reason}");
        }
    }
}
