//! Rules, decided: which rules match an event, and why the others do not. Pure.
//!
//! [`book`] holds the rules that are in force, [`judge`] decides, [`operators`] compares, [`fields`] reads from a payload only
//! the fields that some rule names, [`index`] finds the rules that are worth a try, [`windows`] counts and waits, [`describe`] puts it into words.

pub mod book;
pub mod ceiling;
pub mod describe;
pub mod fields;
pub mod index;
pub mod judge;
mod key;
pub mod operators;
pub mod seen;
pub mod switch;
pub mod windows;
