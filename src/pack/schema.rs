//! JSON Schemas of what people write, made from the shapes by which it is read.

use serde_json::{Value, json};

use super::{action, alias, manifest, policy, rule, sensor, test, trigger, workflow};
use crate::config;
use crate::document::shape::Shape;

/// The dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A kind of file that has a schema.
pub struct SchemaKind {
    /// Its name.
    pub name: &'static str,
    /// Where such files stand.
    pub files: &'static str,
    /// The shapes; a file has one of them.
    pub shapes: &'static [&'static Shape],
}

/// Every kind, in the order in which people meet them.
pub static KINDS: &[SchemaKind] = &[
    SchemaKind { name: "site", files: "signalman.yaml", shapes: &[&config::SITE] },
    SchemaKind { name: "pack", files: "packs/NAME/pack.yaml", shapes: &[&manifest::PACK] },
    SchemaKind { name: "action", files: "packs/NAME/actions/*.yaml", shapes: &[&action::ACTION] },
    SchemaKind { name: "trigger", files: "packs/NAME/triggers/*.yaml", shapes: &[&trigger::TRIGGER] },
    SchemaKind { name: "sensor", files: "packs/NAME/sensors/*.yaml", shapes: &[&sensor::SENSOR, &sensor::WEBHOOK] },
    SchemaKind { name: "rule", files: "rules/*.yaml, packs/NAME/rules/*.yaml", shapes: &[&rule::RULE, &rule::CORRELATION] },
    SchemaKind { name: "policy", files: "packs/NAME/policies/*.yaml", shapes: &[&policy::POLICY] },
    SchemaKind { name: "alias", files: "packs/NAME/aliases/*.yaml", shapes: &[&alias::ALIAS] },
    SchemaKind { name: "workflow", files: "workflows/*.yaml, packs/NAME/workflows/*.yaml", shapes: &[&workflow::WORKFLOW] },
    SchemaKind { name: "test", files: "packs/NAME/tests/*.yaml", shapes: &[&test::shape::TEST] },
];

/// The kind of that name.
#[must_use]
pub fn kind(name: &str) -> Option<&'static SchemaKind> {
    KINDS.iter().find(|kind| kind.name == name)
}

impl SchemaKind {
    /// The schema, in the dialect 2020-12.
    #[must_use]
    pub fn schema(&self) -> Value {
        let mut schema = match self.shapes {
            [one] => one.schema(),
            several => json!({"anyOf": several.iter().map(|shape| shape.schema()).collect::<Vec<_>>()}),
        };
        schema["$schema"] = json!(DIALECT);
        schema["$id"] = json!(format!("urn:signalman:{}", self.name));
        schema["title"] = json!(format!("Signalman: {} ({})", self.name, self.files));
        schema
    }
}
