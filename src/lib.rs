//! Signalman: sensors watch, rules decide, packs act.
pub mod clock;
pub mod document;
pub mod links;
pub mod model;
pub mod rule;
pub mod script;
pub mod store;
pub mod tasks;
pub mod template;
