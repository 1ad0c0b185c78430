//! Files that people write: YAML with places, read field by field, all faults at once in the style of a compiler.
//!
//! Start at [`fields::Fields`]. Never decides what a field means.

pub mod fault;
pub mod fields;
pub mod form;
pub mod node;
pub mod shape;
