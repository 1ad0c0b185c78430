//! Workflows. This version reads their form and does not carry them out.

use super::action::TAGS;
use super::kinds::{Kind, PackFile, Reading};
use super::parameter::PARAMETER;
use crate::document::form;
use crate::document::shape::{Field, Holds, Shape};

/// Workflows.
pub(super) const KIND: Kind = Kind { at_site: true, ..Kind::yaml("workflows", "a workflow", read) };

fn read(file: &PackFile, reading: &mut Reading<'_>) {
    let Some(node) = file.yaml(reading.faults) else { return };
    form::check(&file.source, &node, &WORKFLOW, reading.faults);
    let fault = file.source.whole("workflows are not carried out by this version; the file is read and ignored");
    reading.faults.push(fault.as_warning());
}

/// A workflow.
pub static WORKFLOW: Shape = Shape::new(
    "a workflow",
    "A graph of tasks, each an action; not carried out by this version",
    &[
        Field::new("name", Holds::Text, "The file's name; may be left out").example("\"restart_and_check\""),
        Field::new("pack", Holds::Text, "The pack; may be left out"),
        Field::new("description", Holds::Text, "For people"),
        Field::new("enabled", Holds::Boolean, "Whether it may run").default("true"),
        Field::new("runner_type", Holds::Word(&["workflow"]), "That it is a workflow").default("\"workflow\""),
        Field::new("parameters", Holds::Map(&Holds::Shape(&PARAMETER)), "The parameters, by name"),
        Field::new("vars", Holds::List(&Holds::Map(&Holds::Any)), "Variables and what they begin with").example("[{\"tries\": 0}]"),
        Field::required("tasks", Holds::Map(&Holds::Shape(&TASK)), "The tasks, by name"),
        Field::new("output", Holds::List(&Holds::Map(&Holds::Any)), "What it returns")
            .example("[{\"deployment\": \"<% ctx().deployment %>\"}]"),
        Field::new("timeout", Holds::Duration, "How long it may take").example("\"10m\""),
        Field::new("tags", TAGS, "For people and tools"),
    ],
);

static TASK: Shape = Shape::new(
    "a task",
    "One task: an action, and what comes next",
    &[
        Field::required("action", Holds::Text, "The action").example("\"core.notify\""),
        Field::new("input", Holds::Map(&Holds::Any), "What it is given; expressions are filled in"),
        Field::new("with", Holds::Any, "The list whose items it is run for"),
        Field::new("delay", Holds::Duration, "How long to wait before"),
        Field::new("retry", Holds::Shape(&RETRY), "When it is tried again"),
        Field::new(
            "join",
            Holds::Either(&[Holds::Word(&["all"]), Holds::Count(1, 1_000)]),
            "How many of the tasks before it must have ended",
        ),
        Field::new("next", Holds::List(&Holds::Shape(&NEXT)), "What comes next"),
    ],
);

static RETRY: Shape = Shape::new(
    "`retry`",
    "When a task is tried again",
    &[
        Field::required("count", Holds::Count(0, 100), "How often").example("5"),
        Field::new("delay", Holds::Duration, "The pause before").example("\"3s\""),
        Field::new("when", Holds::Text, "An expression that says whether").example("\"<% failed() %>\""),
    ],
);

static NEXT: Shape = Shape::new(
    "a transition",
    "What comes next, and when",
    &[
        Field::new("when", Holds::Text, "An expression; always unless given").example("\"<% succeeded() %>\""),
        Field::new("publish", Holds::Either(&[Holds::List(&Holds::Map(&Holds::Any)), Holds::Map(&Holds::Any)]), "Variables that are set"),
        Field::new("do", Holds::Either(&[Holds::Text, Holds::List(&Holds::Text)]), "The tasks that are started"),
    ],
);
