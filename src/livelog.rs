//! What one attempt logs: numbered lines, masked and bounded, which can be read while they come. It takes the same memory for ten lines
//! as for a gigabyte: the beginning and the end are kept, and what lies between is counted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use crate::clock::Clock;
use crate::model::execution::LogLine;
use crate::model::secret::Masks;

/// The most lines that are kept of an attempt that has ended: half of them from its beginning, half from its end.
pub const MAX_LINES: usize = 100;

/// The longest line, in bytes; the rest is cut off.
pub const MAX_LINE_BYTES: usize = 2_000;

/// The last lines that can be read while an attempt runs, at most.
pub const LIVE_LINES: usize = 500;

/// What these lines take at most, in bytes.
const LIVE_BYTES: usize = 256 << 10;

/// Of a line that has not ended, so much is looked at, in bytes; a secret further on is cut off with the rest.
const PARTIAL_BYTES: usize = 16 << 10;

const FIRST: usize = MAX_LINES / 2;

type OnLine = Box<dyn Fn(u64, &LogLine) + Send + Sync>;

/// The log of an attempt.
pub struct LiveLog {
    clock: Arc<dyn Clock>,
    masks: Masks,
    inner: Mutex<Inner>,
    /// How many lines there are, and whether more may come.
    grown: watch::Sender<(u64, bool)>,
    on_line: Option<OnLine>,
}

#[derive(Default)]
struct Inner {
    first: Vec<LogLine>,
    /// The last lines with their numbers, the first ones among them as long as they fit.
    last: VecDeque<(u64, LogLine)>,
    last_bytes: usize,
    count: u64,
    /// Lines that have not ended, by level.
    partial: BTreeMap<&'static str, Vec<u8>>,
}

/// Lines that were asked for.
#[derive(Debug, Default, PartialEq)]
pub struct Lines {
    /// The lines with their numbers, counted from one.
    pub lines: Vec<(u64, LogLine)>,
    /// How many came and are not kept.
    pub missed: u64,
}

impl LiveLog {
    /// An empty log, in which these masks hide secrets.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, masks: Masks) -> Self {
        Self { clock, masks, inner: Mutex::default(), grown: watch::Sender::new((0, true)), on_line: None }
    }

    /// The same, which tells of every line that it keeps when it comes.
    #[must_use]
    pub fn telling(self, on_line: impl Fn(u64, &LogLine) + Send + Sync + 'static) -> Self {
        Self { on_line: Some(Box::new(on_line)), ..self }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic happens while the lock is held")
    }

    /// Adds a line.
    pub fn line(&self, level: &str, text: &str) {
        self.add(&mut self.lock(), level, text);
        self.tell();
    }

    /// Adds text as it comes, in pieces; its lines are added as they end. What is not UTF-8 is replaced.
    pub fn text(&self, level: &'static str, mut piece: &[u8]) {
        let mut inner = self.lock();
        let ends: usize = piece.iter().map(|byte| usize::from(*byte == b'\n')).sum();
        // Of very many lines only those are looked at that will be kept.
        for _ in 0..if ends > FIRST + LIVE_LINES { FIRST + 1 } else { 0 } {
            piece = self.take_line(&mut inner, level, piece);
        }
        if ends > FIRST + LIVE_LINES {
            let skipped = ends - (FIRST + 1) - LIVE_LINES;
            let at =
                piece.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(skipped.saturating_sub(1)).map_or(0, |(at, _)| at + 1);
            if skipped > 0 {
                piece = &piece[at..];
                inner.count += skipped as u64;
            }
        }
        while piece.contains(&b'\n') {
            piece = self.take_line(&mut inner, level, piece);
        }
        let partial = inner.partial.entry(level).or_default();
        let room = PARTIAL_BYTES.saturating_sub(partial.len());
        partial.extend_from_slice(&piece[..piece.len().min(room)]);
        drop(inner);
        self.tell();
    }

    /// Takes the first line of a piece; what is left.
    fn take_line<'p>(&self, inner: &mut Inner, level: &'static str, piece: &'p [u8]) -> &'p [u8] {
        let end = piece.iter().position(|byte| *byte == b'\n').unwrap_or(piece.len());
        let mut line = std::mem::take(inner.partial.entry(level).or_default());
        let room = PARTIAL_BYTES.saturating_sub(line.len());
        line.extend_from_slice(&piece[..end.min(room)]);
        let text = String::from_utf8_lossy(&line);
        self.add(inner, level, text.strip_suffix('\r').unwrap_or(&text));
        &piece[(end + 1).min(piece.len())..]
    }

    /// Ends the lines that have not ended.
    pub fn flush(&self) {
        let mut inner = self.lock();
        for (level, line) in std::mem::take(&mut inner.partial) {
            if !line.is_empty() {
                self.add(&mut inner, level, &String::from_utf8_lossy(&line));
            }
        }
        drop(inner);
        self.tell();
    }

    fn add(&self, inner: &mut Inner, level: &str, text: &str) {
        let mut text = text.to_string();
        // Before anything is cut, or the beginning of a secret would stay.
        self.masks.text(&mut text);
        if text.len() > MAX_LINE_BYTES {
            let end = (0..=MAX_LINE_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
            text.push('…');
        }
        let line = LogLine { at: self.clock.now(), level: level.into(), text };
        inner.count += 1;
        if let Some(on_line) = &self.on_line {
            on_line(inner.count, &line);
        }
        if inner.first.len() < FIRST {
            inner.first.push(line.clone());
        }
        inner.last_bytes += line.text.len();
        inner.last.push_back((inner.count, line));
        while inner.last.len() > LIVE_LINES || inner.last_bytes > LIVE_BYTES {
            let Some((_, gone)) = inner.last.pop_front() else { break };
            inner.last_bytes -= gone.text.len();
        }
    }

    fn tell(&self) {
        let count = self.lock().count;
        self.grown.send_if_modified(|(told, _)| std::mem::replace(told, count) != count);
    }

    /// The lines after one of them, as far as they are kept.
    #[must_use]
    pub fn after(&self, number: u64) -> Lines {
        let inner = self.lock();
        let from_first = inner.first.iter().zip(1..).map(|(line, number)| (number, line));
        let covered = inner.first.len() as u64;
        let from_last = inner.last.iter().filter(|(own, _)| *own > covered).map(|(own, line)| (*own, line));
        let lines: Vec<_> = from_first.chain(from_last).filter(|(own, _)| *own > number).map(|(own, line)| (own, line.clone())).collect();
        let missed = inner.count.saturating_sub(number) - lines.len() as u64;
        Lines { lines, missed }
    }

    /// Says that no more lines will come.
    pub fn close(&self) {
        self.flush();
        self.grown.send_modify(|(_, is_open)| *is_open = false);
    }

    /// Whether more lines may come.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.grown.borrow().1
    }

    /// Returns when there are more than so many lines, or no more will come.
    pub async fn more_than(&self, number: u64) {
        let _ = self.grown.subscribe().wait_for(|(count, is_open)| *count > number || !is_open).await; // it cannot go while it is borrowed
    }

    /// What is kept of an attempt that has ended: all, or beginning and end with a line between that says how many are left out.
    #[must_use]
    pub fn kept(&self) -> Vec<LogLine> {
        self.flush();
        let inner = self.lock();
        let last = (MAX_LINES - FIRST).min(inner.last.len());
        let mut lines = inner.first.clone();
        let rest = inner.last.iter().skip(inner.last.len() - last).filter(|(number, _)| *number > FIRST as u64);
        let rest: Vec<LogLine> = rest.map(|(_, line)| line.clone()).collect();
        let left_out = inner.count - (lines.len() + rest.len()) as u64;
        if left_out > 0 {
            let at = rest.first().map_or_else(|| self.clock.now(), |line| line.at);
            lines.push(LogLine { at, level: "warn".into(), text: format!("… {left_out} lines are not kept …") });
        }
        lines.extend(rest);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimulatedClock;
    use chrono::DateTime;

    fn log() -> LiveLog {
        LiveLog::new(Arc::new(SimulatedClock::at(DateTime::UNIX_EPOCH)), Masks::of([&"hunter2".into()]))
    }

    fn texts(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn text_becomes_lines_however_it_is_cut() {
        let log = log();
        for piece in ["a", "b\nc hun", "ter2 d\r\n\n", "end"] {
            log.text("stdout", piece.as_bytes());
        }
        assert_eq!(texts(&log.kept()), ["ab", "c ******** d", "", "end"]);
    }

    #[test]
    fn few_lines_are_kept_all_and_many_at_both_ends() {
        for (pieces, per_piece) in [(100, 1), (1, 100), (1, 700), (70, 1_000), (3, 551), (3, 552), (700, 1)] {
            let (log, mut number) = (log(), 0);
            for _ in 0..pieces {
                let piece = (0..per_piece).map(|n| format!("line {}\n", number + n)).collect::<Vec<_>>().concat();
                log.text("stdout", piece.as_bytes());
                number += per_piece;
            }
            let kept = log.kept();
            assert_eq!(kept.first().unwrap().text, "line 0");
            assert_eq!(kept[49].text, "line 49", "{pieces} × {per_piece}");
            assert_eq!(kept.last().unwrap().text, format!("line {}", number - 1));
            if number == 100 {
                assert_eq!(kept.len(), 100);
            } else {
                assert_eq!(kept[50].text, format!("… {} lines are not kept …", number - 100));
                assert_eq!(kept[51].text, format!("line {}", number - 50));
            }
            let lines = log.after(0);
            assert_eq!(lines.missed + lines.lines.len() as u64, number);
            assert_eq!(log.after(number), Lines::default());
            let (last, line) = lines.lines.last().unwrap();
            assert_eq!((*last, &line.text), (number, &format!("line {}", number - 1)));
        }
    }

    #[test]
    fn long_lines_are_cut_and_do_not_grow_without_end() {
        let log = log();
        for _ in 0..1_000 {
            log.text("stdout", &[b'x'; 1_000]);
        }
        log.text("stdout", b"\nnext\n");
        let kept = log.kept();
        assert_eq!((kept[0].text.len(), kept[1].text.as_str()), (MAX_LINE_BYTES + "…".len(), "next"));
    }
}
