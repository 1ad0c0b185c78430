//! Triggers.

use serde_json::Value;

use super::action::name;
use super::kinds::{Kind, PackFile, Reading};
use crate::document::fault::SourceFile;
use crate::document::fields::{Faults, Fields};
use crate::document::node::Node;
use crate::model::sensor::Trigger;

/// Triggers.
pub(super) const KIND: Kind = Kind::yaml("triggers", "a trigger", read_file);

fn read_file(file: &PackFile, reading: &mut Reading<'_>) {
    let Some(node) = file.yaml(reading.faults) else { return };
    reading.contents.triggers.extend(read(&file.source, &node, &reading.pack.reference, &file.stem, reading.faults));
}

fn read(source: &SourceFile, node: &Node, pack: &str, stem: &str, faults: &mut Faults) -> Option<Trigger> {
    let mut fields = Fields::of(source, node, "a trigger", faults)?;
    let name = name(&mut fields, stem);
    let description = fields.text("description").unwrap_or_default();
    if let Some(node) = fields.node("durability")
        && fields.word("durability", &["journal", "volatile"]) == Some("volatile")
    {
        fields.fault(node, "volatile triggers are not carried out by this version; remove the line, and every event is kept");
    }
    let payload_schema = Value::Object(fields.object("payload_schema"));
    fields.finish();
    Some(Trigger { reference: format!("{pack}.{}", name?), description, payload_schema })
}
