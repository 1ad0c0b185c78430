//! Rhai: [`expr`] evaluates pure expressions, [`host`] runs action scripts with what their pack may touch.

pub mod expr;
pub mod host;
