//! Tables for people: columns as wide as their content, the last one cut at the terminal; and cells of them.

use unicode_width::UnicodeWidthChar;

use super::print::{Style, print_line, print_raw, printable, styled, terminal_width};

/// Columns that tell how something stands are coloured.
const COLOURED: &[&str] = &["status", "state", "reason", "result"];

/// The least that is left of the last column, in columns of the terminal.
const LEAST: usize = 20;

/// Prints rows under a head; says so when there are none.
pub fn print(head: &[&str], rows: &[Vec<String>], none: &str) {
    if rows.is_empty() {
        print_line(none);
        return;
    }
    let width = |column: usize| rows.iter().map(|row| columns(&row[column])).chain([columns(head[column])]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let room =
        terminal_width().map_or(usize::MAX, |terminal| terminal.saturating_sub(widths.iter().rev().skip(1).map(|width| width + 2).sum()));
    let room = room.max(LEAST);
    print_raw(&line(&head.iter().map(|cell| cell.to_uppercase()).collect::<Vec<_>>(), &widths, room, |_, _| Some(Style::Head)));
    for row in rows {
        print_raw(&line(row, &widths, room, |column, cell| if COLOURED.contains(&head[column]) { Style::of(cell) } else { None }));
    }
}

fn line(cells: &[String], widths: &[usize], room: usize, style: impl Fn(usize, &str) -> Option<Style>) -> String {
    let mut text = String::new();
    for (index, cell) in cells.iter().enumerate() {
        let is_last = index + 1 == cells.len();
        // A table has a line for each row, whatever its cells hold.
        let cell = printable(cell).replace(['\n', '\t'], " ");
        let cell = if is_last { cut(&cell, room) } else { cell };
        text.push_str(&styled(&cell, style(index, &cell)));
        if !is_last {
            text.push_str(&" ".repeat(widths[index].saturating_sub(columns(&cell)) + 2));
        }
    }
    text.trim_end().to_string()
}

/// How many columns of a terminal a text takes.
fn columns(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(1)).sum()
}

/// A text that takes so many columns at most.
#[must_use]
pub fn cut(text: &str, room: usize) -> String {
    if columns(text) <= room {
        return text.to_string();
    }
    let (mut cut, mut taken) = (String::new(), 1);
    for c in text.chars() {
        taken += c.width().unwrap_or(1);
        if taken > room {
            break;
        }
        cut.push(c);
    }
    cut.push('…');
    cut
}

/// Says how to go on with a list that has more.
pub fn print_next(answer: &serde_json::Value) {
    if let Some(next) = answer["next"].as_str() {
        print_line(&format!("there is more; go on with --before {next}"));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!((columns("abc"), columns("服务"), columns("")), (3, 4, 0));
        assert_eq!((cut("abcdef", 4).as_str(), cut("abcd", 4).as_str(), cut("服务器", 5).as_str()), ("abc…", "abcd", "服务…"));
    }

    #[test]
    fn a_row_takes_one_line() {
        let cells = ["a".to_string(), "two\nlines\u{1b}[2J".to_string()];
        assert_eq!(line(&cells, &[3, 5], 80, |_, _| None), "a    two lines\u{fffd}[2J");
    }
}
