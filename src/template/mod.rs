//! `{{ … }}` makes text, `<% … %>` makes a value. Compiled from the site's files only; data is never parsed.
//!
//! [`text`] is handlebars with bounds, [`value`] a tree of values with templates and expressions in it, [`keys`] finds the keys of the
//! datastore that they name.

pub mod keys;
pub mod message;
pub mod text;
pub mod value;
