//! What `signalman` alone says: the commands that are used most, in groups.

use super::definition;

/// The groups, and what stands in them. What is missing here is in `signalman help`.
pub const GROUPS: &[(&str, &[&str])] = &[
    ("Run a site", &["serve", "chat", "lint", "reload"]),
    ("Do something", &["action", "run", "emit"]),
    ("See what happened, and why", &["event", "execution", "rule", "sensor"]),
    ("Look after it", &["hold", "release", "doctor", "store", "backup", "restore"]),
];

/// The text.
pub(super) fn text() -> String {
    let root = definition();
    let mut text = String::from("Signalman: sensors watch, rules decide, packs act.\n\nUsage: signalman COMMAND [OPTIONS]\n");
    for (group, names) in GROUPS {
        text.push_str(&format!("\n{group}\n"));
        for name in *names {
            let about = root.find_subcommand(name).and_then(clap::Command::get_about).map(ToString::to_string).unwrap_or_default();
            text.push_str(&format!("  {name:<11} {about}\n"));
        }
    }
    text.push_str("\nStart with `signalman serve` in a site's folder; then, in a second terminal, `signalman chat --follow`.\n");
    text.push_str("All commands: `signalman help`. One of them, with examples: `signalman help run`.");
    text
}
