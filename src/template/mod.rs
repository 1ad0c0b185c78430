//! `{{ … }}` makes text, `<% … %>` makes a value. Compiled from the site's files only; data is never parsed.
//!
//! [`text`] is handlebars with bounds, [`value`] a tree of values with templates and expressions in it.

pub mod text;
pub mod value;
