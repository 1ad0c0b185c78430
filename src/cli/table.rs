//! Tables for people: columns as wide as their content, the last one cut at the terminal.

use super::print_line;

/// Prints rows under a head; says so when there are none.
pub fn print(head: &[&str], rows: &[Vec<String>], none: &str) {
    if rows.is_empty() {
        print_line(none);
        return;
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).chain([head[column].chars().count()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    print_line(&line(&head.iter().map(|cell| cell.to_uppercase()).collect::<Vec<_>>(), &widths));
    for row in rows {
        print_line(&line(row, &widths));
    }
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (index, cell) in cells.iter().enumerate() {
        text.push_str(cell);
        if index + 1 < cells.len() {
            text.push_str(&" ".repeat(widths[index].saturating_sub(cell.chars().count()) + 2));
        }
    }
    text.trim_end().to_string()
}

/// A text of a JSON value, or nothing.
#[must_use]
pub fn text(value: &serde_json::Value) -> String {
    crate::template::text::plain(value)
}

/// The time of day of an RFC 3339 text, to the second.
#[must_use]
pub fn time(value: &serde_json::Value) -> String {
    value.as_str().unwrap_or_default().chars().take(19).collect::<String>().replace('T', " ")
}

/// The last characters of an id, as people use them.
#[must_use]
pub fn short(value: &serde_json::Value) -> String {
    let id = value.as_str().unwrap_or_default();
    id.get(id.len().saturating_sub(crate::model::ids::SHORT_ID_CHARACTERS)..).unwrap_or_default().to_string()
}

/// A number of bytes for people.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// A time as people read it, in UTC, to the second.
#[must_use]
pub fn moment(time: Option<chrono::DateTime<chrono::Utc>>) -> String {
    time.map(|time| time.format("%Y-%m-%d %H:%M:%S").to_string()).unwrap_or_default()
}
