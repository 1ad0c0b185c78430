//! The chat systems there are. One file each, one line in [`KINDS`].

pub mod console;

use super::AdapterKind;

/// Every kind of chat system.
pub const KINDS: &[&AdapterKind] = &[&console::KIND];

/// The kind of that name.
#[must_use]
pub fn kind(name: &str) -> Option<&'static AdapterKind> {
    KINDS.iter().find(|kind| kind.name == name).copied()
}
