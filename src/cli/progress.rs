//! A bar on a terminal that shows how far something is; nothing elsewhere.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// What the bar counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Databases.
    Databases,
}

/// The bar.
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar that stands at nothing.
    #[must_use]
    pub fn new(what: &'static str, unit: Unit) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let template = match unit {
            Unit::Bytes => "{msg} [{bar:32}] {binary_bytes} of about {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left",
            Unit::Databases => "{msg} [{bar:32}] {pos} of {len} databases, {eta} left",
        };
        let style = ProgressStyle::with_template(template).expect("the templates are correct").progress_chars("=> ");
        Self(ProgressBar::new(0).with_style(style).with_message(what))
    }

    /// Moves it.
    pub fn show(&self, done: u64, of: u64) {
        self.0.set_length(of);
        self.0.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
