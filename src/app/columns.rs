//! Aligned columns on a terminal, plain ones off it.
//!
//! Colour says a state again that its word says already, and is left out off a
//! terminal and under `NO_COLOR`. On a terminal that is too narrow, figures from the
//! right are left out, and texts go to a line of their own; off one, nothing is cut.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::adapters::system::SystemClock;
use crate::app::page::format::{level, text};
use crate::app::stdout::{self, outln};
use crate::ports::clock::Clock as _;
use crate::wire::text::cut;

/// Between two looks of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Between two columns.
const GAP: &str = "  ";

/// A text that has less room goes to a line of its own.
const TEXT_ROOM_MIN: usize = 16;

/// One field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// On the left.
    Text(String),
    /// On the right.
    Number(String),
    /// In the colour of what it means.
    State(String),
    /// In the background.
    Quiet(String),
    /// A link or an id: of no use if cut.
    Whole(String),
}

impl Cell {
    /// A text.
    #[must_use]
    pub fn text(words: &str) -> Self {
        Self::Text(text(words))
    }

    /// A number, or a dash for what is not known.
    #[must_use]
    pub fn number(amount: Option<impl ToString>) -> Self {
        Self::Number(amount.map_or("-".to_owned(), |amount| amount.to_string()))
    }

    fn words(&self) -> &str {
        match self {
            Self::Text(words)
            | Self::Number(words)
            | Self::State(words)
            | Self::Quiet(words)
            | Self::Whole(words) => words,
        }
    }

    fn width(&self) -> usize {
        self.words().chars().count()
    }

    /// Whether it is shown below its row if there is no room in it.
    fn goes_below(&self) -> bool {
        match self {
            Self::Text(words) | Self::State(words) | Self::Whole(words) => !words.is_empty(),
            Self::Number(_) | Self::Quiet(_) => false,
        }
    }

    fn colour(&self) -> Option<&'static str> {
        match self {
            Self::Text(_) | Self::Number(_) | Self::Whole(_) => None,
            Self::Quiet(_) => Some("2"),
            Self::State(word) => match level(word) {
                "ok" => Some("32"),
                "busy" => Some("36"),
                "warn" => Some("33"),
                "bad" => Some("31"),
                _ => Some("2"),
            },
        }
    }
}

/// Rows below a head.
#[derive(Debug, Clone)]
pub struct Columns {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    colour: bool,
}

impl Columns {
    /// No rows yet.
    #[must_use]
    pub fn new(head: &[&'static str]) -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { head: head.to_vec(), rows: Vec::new(), colour }
    }

    /// Adds a row, a cell for each column.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Writes them to stdout.
    pub fn print(&self) {
        for line in self.lines(terminal_width()) {
            outln!("{line}");
        }
    }

    fn lines(&self, width: Option<usize>) -> Vec<String> {
        let natural = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let widest = cells.map(Cell::width).max().unwrap_or(0);
            widest.max(self.head[column].chars().count())
        };
        let mut widths: Vec<usize> = (0..self.head.len()).map(natural).collect();
        let most = width.unwrap_or(usize::MAX);
        let shown = self.fitted(&mut widths, most);
        let right = |column: usize| {
            self.rows.iter().any(|row| matches!(row.get(column), Some(Cell::Number(_))))
        };
        let fill = |column: usize, words: &str, code: Option<&str>| {
            let words = cut(words, widths[column]);
            let gap = " ".repeat(widths[column].saturating_sub(words.chars().count()));
            let painted = self.paint(code, &words);
            if right(column) { format!("{gap}{painted}") } else { format!("{painted}{gap}") }
        };
        let head = self.head[..shown].iter().enumerate();
        let head: Vec<String> = head.map(|(column, word)| fill(column, word, Some("2"))).collect();
        let mut lines = vec![head.join(GAP).trim_end().to_owned()];
        for row in &self.rows {
            let (inside, rest) = row.split_at(shown.min(row.len()));
            let inside = inside.iter().enumerate();
            let cells = inside.map(|(column, cell)| fill(column, cell.words(), cell.colour()));
            lines.push(cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned());
            lines.extend(self.below(rest, most));
        }
        lines
    }

    /// How many columns have room; the last of them may have to be narrower.
    fn fitted(&self, widths: &mut [usize], most: usize) -> usize {
        let taken = |widths: &[usize]| {
            widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1)
        };
        let mut shown = widths.len();
        while shown > 1 && taken(&widths[..shown]) > most {
            shown -= 1;
        }
        if shown == 1 {
            widths[0] = widths[0].min(most);
        }
        let room = most.saturating_sub(taken(&widths[..shown]) + GAP.len());
        let is_last = shown + 1 == widths.len();
        let is_text = self.rows.iter().all(|row| matches!(row.get(shown), Some(Cell::Text(_))));
        if is_last && is_text && room >= TEXT_ROOM_MIN {
            widths[shown] = room;
            shown += 1;
        }
        shown
    }

    /// What has no room in its row, on lines of its own.
    fn below(&self, cells: &[Cell], most: usize) -> Vec<String> {
        let mut lines: Vec<(usize, String)> = Vec::new();
        for cell in cells.iter().filter(|cell| cell.goes_below()) {
            let room = |used: usize| most.saturating_sub(used + GAP.len());
            let enough = match cell {
                Cell::Whole(_) => cell.width(),
                _ => cell.width().min(TEXT_ROOM_MIN),
            };
            if lines.last().is_none_or(|(used, _)| room(*used) < enough) {
                lines.push((0, String::new()));
            }
            let Some((used, line)) = lines.last_mut() else { continue };
            let words = match cell {
                Cell::Whole(words) => words.clone(),
                other => cut(other.words(), room(*used)),
            };
            *used += GAP.len() + words.chars().count();
            line.push_str(GAP);
            line.push_str(&self.paint(cell.colour(), &words));
        }
        lines.into_iter().map(|(_, line)| line).collect()
    }

    fn paint(&self, code: Option<&str>, words: &str) -> String {
        match code.filter(|_| self.colour && !words.is_empty()) {
            Some(code) => format!("\u{1b}[{code}m{words}\u{1b}[0m"),
            None => words.to_owned(),
        }
    }
}

/// How wide the terminal is; nothing off one. `COLUMNS` counts more, as elsewhere.
fn terminal_width() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    let given = std::env::var("COLUMNS").ok().and_then(|raw| raw.parse().ok());
    let asked = || console::Term::stdout().size_checked().map(|(_, columns)| columns.into());
    given.or_else(asked).filter(|columns| *columns > 0)
}

/// How something is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// Once.
    Once,
    /// Again and again, below what was shown before.
    Lines,
    /// Again and again, in the place of what was shown before.
    Screen,
}

impl Watch {
    /// JSON and what goes into a pipe is never painted over.
    #[must_use]
    pub fn choose(again: bool, json: bool) -> Self {
        match again {
            false => Self::Once,
            true if json || !std::io::stdout().is_terminal() => Self::Lines,
            true => Self::Screen,
        }
    }
}

/// Shows something once, or again and again until interrupted.
///
/// # Errors
/// What cannot be shown the first time. Later troubles are shown, and pass.
pub async fn watch(
    how: Watch,
    mut show: impl AsyncFnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if how == Watch::Once {
        return show().await;
    }
    // One for all looks: who presses Ctrl-C in the middle of one means it.
    let mut interrupt =
        signal(SignalKind::interrupt()).context("cannot listen for an interruption")?;
    let mut last: Option<String> = None;
    loop {
        // Made ready first: a look takes time, and an empty screen tells nothing.
        stdout::hold();
        let looked = tokio::select! {
            looked = show() => Some(looked),
            _ = interrupt.recv() => None,
        };
        let text = stdout::release();
        let Some(looked) = looked else { return Ok(()) };
        match (looked, how) {
            (Err(error), _) if last.is_none() => return Err(error),
            (Err(error), Watch::Screen) => {
                paint_over(&format!(
                    "{}\n{error:#}; looking again\n",
                    last.as_deref().unwrap_or("")
                ));
            }
            (Err(error), _) => eprintln!("{error:#}; looking again"),
            (Ok(()), Watch::Screen) => {
                paint_over(&text);
                last = Some(text);
            }
            (Ok(()), _) => {
                stdout::write(format_args!("{text}"));
                last = Some(String::new());
            }
        }
        if stdout::is_gone() {
            return Ok(());
        }
        tokio::select! {
            () = SystemClock.sleep(WATCH_EVERY) => {}
            _ = interrupt.recv() => return Ok(()),
        }
    }
}

/// Writes a text from the top of the terminal, as much of it as there is room for.
fn paint_over(text: &str) {
    let size = console::Term::stdout().size_checked();
    let room = size.map_or(usize::MAX, |(rows, _)| usize::from(rows).saturating_sub(1).max(2));
    let lines: Vec<&str> = text.lines().collect();
    let hidden = lines.len().saturating_sub(room);
    let shown = if hidden > 0 { room - 1 } else { lines.len() };
    let mut screen = "\u{1b}[H".to_owned();
    for line in &lines[..shown] {
        screen.push_str(line);
        // What is left of the last look goes.
        screen.push_str("\u{1b}[K\n");
    }
    if hidden > 0 {
        screen.push_str(&format!("… {} more lines\u{1b}[K\n", lines.len() - shown));
    }
    stdout::write(format_args!("{screen}\u{1b}[J"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(colour: bool) -> Columns {
        let mut columns = Columns::new(&["TEAM", "STATE", "PARTS"]);
        columns.colour = colour;
        columns.row(vec![
            Cell::text("blue"),
            Cell::State("running".to_owned()),
            Cell::Number("4/4".to_owned()),
        ]);
        columns.row(vec![
            Cell::text("ünï\u{1b}[31mcode"),
            Cell::State("failed".to_owned()),
            Cell::number(None::<u8>),
        ]);
        columns
    }

    #[test]
    fn columns_are_aligned_and_numbers_stand_on_the_right() {
        let expected =
            ["TEAM     STATE    PARTS", "blue     running    4/4", "ünïcode  failed       -"];
        assert_eq!(columns(false).lines(None), expected);
    }

    #[test]
    fn colour_changes_no_width() {
        let lines = columns(true).lines(None);
        assert!(lines[1].contains("\u{1b}[32mrunning\u{1b}[0m    4/4"), "{lines:?}");
        assert!(lines[2].contains("\u{1b}[31mfailed\u{1b}[0m "), "{lines:?}");
    }

    fn jobs(width: usize) -> Vec<String> {
        let mut columns = Columns::new(&["TEAM", "STATE", "TOOK", "HOST", "JOB", "WHAT"]);
        columns.colour = false;
        columns.row(vec![
            Cell::text("blue"),
            Cell::State("failed".to_owned()),
            Cell::Number("12 s".to_owned()),
            Cell::Quiet("host-1".to_owned()),
            Cell::Whole("0190-abcd-0123456789".to_owned()),
            Cell::text("the build ran out of memory and was ended"),
        ]);
        columns.lines(Some(width))
    }

    #[test]
    fn a_narrow_terminal_gets_lines_that_fit() {
        let wide = "blue  failed  12 s  host-1  0190-abcd-0123456789  the build ran out of memory \
            and was ended";
        assert_eq!(jobs(100)[1], wide);
        // The last text is cut, as long as there is something left of it.
        let cut = "blue  failed  12 s  host-1  0190-abcd-0123456789  the build ran o…";
        assert_eq!(jobs(66)[1], cut);
        assert_eq!(
            jobs(60)[1..],
            [
                "blue  failed  12 s  host-1  0190-abcd-0123456789",
                "  the build ran out of memory and was ended"
            ]
        );
        let narrow = ["blue  failed  12 s", "  0190-abcd-0123456789", "  the build ran out of …"];
        assert_eq!(jobs(24)[1..], narrow);
        // An id is whole even where it has no room.
        assert_eq!(jobs(12)[1..], ["blue  failed", "  0190-abcd-0123456789", "  the build…"]);
        assert_eq!(jobs(3)[1], "bl…");
    }
}
