//! Where something stands in a file.

use std::fmt;
use std::sync::Arc;

/// A place in a file: line and column both count from one, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// The file, relative to the site folder; shared by all that stands in it.
    pub file: Arc<str>,
    /// Line, from one; zero where the file as a whole is meant.
    pub line: usize,
    /// Column, from one.
    pub column: usize,
}

impl Place {
    /// The file as a whole.
    pub fn file(file: impl Into<Arc<str>>) -> Self {
        Self { file: file.into(), line: 0, column: 0 }
    }
}

/// A line and column of a file that is known already; both count from one, zero where the file as a whole is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Spot {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl Spot {
    /// A line and a column; no file that is read has as many as do not fit.
    #[must_use]
    pub fn new(line: usize, column: usize) -> Self {
        let narrowed = |number| u32::try_from(number).unwrap_or(u32::MAX);
        Self { line: narrowed(line), column: narrowed(column) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 { write!(f, "{}", self.file) } else { write!(f, "{}:{}:{}", self.file, self.line, self.column) }
    }
}
