//! `signalman reference PAGE`: the pages of `docs/reference` that come from the code.

use std::fmt::Write as _;

use super::{Answer, definition, print_line};
use crate::api::openapi;
use crate::model::reason;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Which page
    #[arg(value_parser = ["reasons", "cli", "api", "scripts"])]
    page: String,
}

pub(super) fn run(arguments: &Arguments) -> Answer {
    let page = match arguments.page.as_str() {
        "cli" => cli(),
        "api" => openapi::reference(),
        "scripts" => crate::script::host::reference(),
        _ => reason::reference(),
    };
    print_line(page.trim_end());
    Answer::Yes
}

/// Every command with its help.
#[must_use]
pub fn cli() -> String {
    let mut page = String::from(
        "# Command line\n\nGenerated from the code by `signalman reference cli`.\n\nExit codes: 0 yes or done, 1 no or failed, 2 misuse or invalid input.\n",
    );
    let mut root = definition().term_width(100);
    root.build();
    section(&mut page, &mut root, "signalman");
    page
}

fn section(page: &mut String, command: &mut clap::Command, name: &str) {
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    let _ = write!(page, "\n## {name}\n\n```text\n{}\n```\n", lines.join("\n").trim_end());
    for inner in command.get_subcommands_mut().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help") {
        let name = format!("{name} {}", inner.get_name());
        section(page, inner, &name);
    }
}
