//! Triggers.

use super::action::{TAGS, name, read_tags};
use super::kinds::{Kind, PackFile, Reading};
use super::parameter::read_schema;
use crate::document::fault::SourceFile;
use crate::document::fields::{Faults, Fields};
use crate::document::node::Node;
use crate::document::shape::{Field, Holds, Shape};
use crate::model::sensor::Trigger;

/// Triggers.
pub(super) const KIND: Kind = Kind::yaml("triggers", "a trigger", read_file);

fn read_file(file: &PackFile, reading: &mut Reading<'_>) {
    let Some(node) = file.yaml(reading.faults) else { return };
    reading.contents.triggers.extend(read(&file.source, &node, &reading.pack.reference, &file.stem, reading.faults));
}

/// A trigger.
pub static TRIGGER: Shape = Shape::new(
    "a trigger",
    "The named type of an event",
    &[
        Field::new("name", Holds::Text, "The file's name; may be left out").example("\"deploy\""),
        Field::new("pack", Holds::Text, "The pack; may be left out"),
        Field::new("description", Holds::Text, "For people"),
        Field::new("durability", Holds::Word(&["journal", "volatile"]), "Whether every event is kept, or only one that fires")
            .default("\"journal\""),
        Field::new("payload_schema", Holds::Schema, "What a payload must be; an event with another is rejected"),
        Field::new("tags", TAGS, "For people and tools"),
    ],
);

fn read(source: &SourceFile, node: &Node, pack: &str, stem: &str, faults: &mut Faults) -> Option<Trigger> {
    let mut fields = Fields::of(source, node, &TRIGGER, faults)?;
    let name = name(&mut fields, stem);
    fields.text("pack");
    let description = fields.text("description").unwrap_or_default();
    if let Some(node) = fields.node("durability")
        && fields.word("durability") == Some("volatile")
    {
        let message = "volatile triggers are not carried out by this version: every event is kept";
        let fault = source.fault(node.line, node.column, message).as_warning();
        fields.faults.push(fault);
    }
    let payload_schema = read_schema(&mut fields, "payload_schema");
    read_tags(&mut fields);
    fields.finish();
    Some(Trigger { reference: format!("{pack}.{}", name?), description, payload_schema })
}
