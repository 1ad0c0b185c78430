//! Signalman: sensors watch, rules decide, packs act.
//!
//! The map, in reading order. A singular module is one mechanism; a plural module is a folder of peers behind one trait and one
//! list. Imports go one way; `tests/it/tidy.rs` has the order and holds it. `script` stands in it twice:
//! `expr` below `template`, `host` above `outbound`.

pub mod model;
pub mod clock;
pub mod tasks;
pub mod document;
pub mod expect;
pub mod script;
pub mod template;
pub mod rule;
pub mod gates;
pub mod links;
pub mod outbound;
pub mod livelog;
pub mod process;
pub mod journal;
pub mod store;
pub mod sensors;
pub mod runners;
pub mod chat;
pub mod config;
pub mod pack;
pub mod secrets;
pub mod telemetry;
pub mod engine;
pub mod auth;
pub mod api;
pub mod app;
pub mod packtest;
pub mod cli;
