//! Templates of messages: `templates/*.hbs` of a pack.

use super::kinds::{Kind, PackFile, Reading};
use crate::document::fault::SourceFile;
use crate::document::fields::Faults;
use crate::template::message::MessageTemplate;
use crate::template::text::TemplateError;

/// Templates.
pub(super) const KIND: Kind = Kind { extensions: &["hbs"], ..Kind::yaml("templates", "a template", read_file) };

fn read_file(file: &PackFile, reading: &mut Reading<'_>) {
    let name = file.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    reading.contents.templates.extend(compile(&file.source, &name, reading.faults));
}

/// Compiles a file; what is wrong is told with its place.
pub(super) fn compile(source: &SourceFile, name: &str, faults: &mut Faults) -> Option<MessageTemplate> {
    let told = |error: TemplateError| source.fault(error.line.unwrap_or(0), error.column.unwrap_or(0), error.message);
    match MessageTemplate::compile(name, &source.text) {
        Ok(template) => Some(template),
        Err(errors) => {
            faults.0.extend(errors.into_iter().map(told));
            None
        }
    }
}
