//! What is wrong with a file: file, line, column, the line itself, and what to do.

use std::fmt;
use std::sync::Arc;

use crate::model::place::Place;

/// The text of a file, for showing the line at fault.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// The file, relative to the site folder.
    pub path: Arc<str>,
    /// Its text.
    pub text: Arc<str>,
}

impl SourceFile {
    /// A file's path and text.
    #[must_use]
    pub fn new(path: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// The place of a line and column in this file.
    #[must_use]
    pub fn place(&self, line: usize, column: usize) -> Place {
        Place { file: Arc::clone(&self.path), line, column }
    }

    /// A fault at a place in this file, with the line itself.
    #[must_use]
    pub fn fault(&self, line: usize, column: usize, message: impl Into<String>) -> Fault {
        let text = line.checked_sub(1).and_then(|index| self.text.lines().nth(index)).map(ToString::to_string);
        Fault { place: self.place(line, column), line: text, message: message.into(), hint: None, warning: false }
    }

    /// A fault of the file as a whole.
    #[must_use]
    pub fn whole(&self, message: impl Into<String>) -> Fault {
        self.fault(0, 0, message)
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// The line at fault.
    pub line: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// Whether it is only worth a look.
    pub warning: bool,
}

impl Fault {
    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Makes it a warning.
    #[must_use]
    pub fn as_warning(mut self) -> Self {
        self.warning = true;
        self
    }
}

/// The longest part of a line that is shown.
const SHOWN_COLUMNS: usize = 120;

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.warning { "warning" } else { "error" };
        write!(f, "{}: {kind}: {}", self.place, self.message)?;
        if let Some(line) = &self.line {
            f.write_str(&excerpt(line, self.place.line, self.place.column))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n       = {hint}")?;
        }
        Ok(())
    }
}

/// A line of a file as it is shown below a message, with a mark below the column where there is room.
#[must_use]
pub fn excerpt(text: &str, line: usize, column: usize) -> String {
    let shown: String = text.chars().take(SHOWN_COLUMNS).collect();
    let mut excerpt = format!("\n  {line:>4} | {shown}");
    if (1..=SHOWN_COLUMNS).contains(&column) {
        // Tabs keep their width above the caret.
        let lead: String = text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        excerpt.push_str(&format!("\n       | {lead}^"));
    }
    excerpt
}

/// The name among `known` that was probably meant.
#[must_use]
pub fn nearest<'k>(given: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let limit = (given.chars().count() / 3).max(1);
    let scored = known.into_iter().map(|name| (distance(given, name), name)).filter(|(distance, _)| *distance <= limit);
    scored.min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// Edits of one character (insert, delete, change, swap of neighbours) between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_reads_like_a_compiler() {
        let file = SourceFile::new("rules/a.yaml", "name: a\nactoin: x\n");
        let fault = file.fault(2, 1, "unknown field `actoin`").hint("did you mean `action`?");
        assert_eq!(
            fault.to_string(),
            "rules/a.yaml:2:1: error: unknown field `actoin`\n     2 | actoin: x\n       | ^\n       = did you mean `action`?"
        );
    }

    #[test]
    fn the_nearest_name_is_found_and_far_ones_are_not() {
        assert_eq!(nearest("actoin", ["name", "action"]), Some("action"));
        assert_eq!(nearest("equal", ["equals", "exists"]), Some("equals"));
        assert_eq!(nearest("zzz", ["equals", "exists"]), None);
    }
}
